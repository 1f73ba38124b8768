# SPDX-License-Identifier: MIT
"""How the host provides a piece of a guest's memory, and QEMU's words for it: pure."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    PlainSerializer,
    StrictBool,
    StrictInt,
    WithJsonSchema,
    model_validator,
)

from harness.document.model import YamlModel, error_at
from harness.document.units import format_size, parse_size

#: A memory backend's properties, for QMP's ``object-add`` and for the command line alike.
Properties = dict[str, str | int | bool | list[int]]

_HUGE_PAGES_ALLOWED = "allowed: true, false, or a page's size, such as '2 MiB'"


def _huge_pages(value: object) -> bool | int:
    if isinstance(value, bool):
        return value
    try:
        size_bytes = parse_size(value)
    except ValueError:
        size_bytes = 0
    if size_bytes == 0 or size_bytes & (size_bytes - 1):
        raise ValueError(f"{value!r} is no size of a page; {_HUGE_PAGES_ALLOWED}")
    return size_bytes


def _written(huge_pages: bool | int) -> bool | str:
    return huge_pages if isinstance(huge_pages, bool) else format_size(huge_pages)


HugePages = Annotated[
    bool | int,
    BeforeValidator(_huge_pages),
    PlainSerializer(_written),
    WithJsonSchema({"type": ["boolean", "string"], "pattern": "^[0-9]+ *(KiB|MiB|GiB)$"}),
]


class Backend(YamlModel):
    """How the host provides memory to the guest: QEMU's memory backend."""

    type: Literal["ram", "memfd", "file"] = Field(
        default="ram", description="file is one without a name in the folder of the plan's evidence"
    )
    share: StrictBool = Field(default=False, description="map it shared, so that other processes may use it")
    prealloc: StrictBool = Field(default=False, description="take all of it from the host at once")
    huge_pages: HugePages = Field(default=False, description="of the host's usual size, or of the size given")
    policy: Literal["default", "preferred", "bind", "interleave"] = Field(
        default="default", description="how the host's NUMA nodes are chosen among host_nodes"
    )
    host_nodes: tuple[Annotated[StrictInt, Field(ge=0, le=127)], ...] = Field(
        default=(), description="the host's NUMA nodes that the policy is about"
    )

    @model_validator(mode="after")
    def _fits_itself(self) -> Self:
        if self.huge_pages and self.type != "memfd":
            raise error_at(
                f"huge_pages with type {self.type}; allowed with type: memfd, which needs no hugetlbfs",
                "huge_pages",
            )
        if self.policy == "default" and self.host_nodes:
            raise error_at(
                "host_nodes with policy default; allowed with policy: preferred, bind, interleave",
                "host_nodes",
            )
        if self.policy != "default" and not self.host_nodes:
            raise error_at(f"policy: {self.policy} without host_nodes; allowed: host_nodes: [0]", "policy")
        return self

    def __str__(self) -> str:
        """Return all that is not as usual, such as ``memfd, share``."""
        return ", ".join(self._said())

    def mistake_of_size(self, size_bytes: int) -> str | None:
        """Return what is wrong with so much memory from this backend, or None."""
        if isinstance(self.huge_pages, bool) or size_bytes % self.huge_pages == 0:
            return None
        return f"{format_size(size_bytes)} is not a multiple of huge_pages, {format_size(self.huge_pages)}"

    def properties(self, backend_id: str, size_bytes: int, *, mem_path: Path) -> Properties:
        """Return the backend as QEMU is told it.

        :param mem_path: of a file; if it is a folder, QEMU makes one in it and unlinks that at once.
        """
        told: Properties = {"qom-type": f"memory-backend-{self.type}", "id": backend_id, "size": size_bytes}
        if self.type == "file":
            told["mem-path"] = str(mem_path)
        # memory-backend-memfd shares unless told otherwise.
        if self.share or self.type != "ram":
            told["share"] = self.share
        if self.prealloc:
            told["prealloc"] = True
        if self.huge_pages:
            told["hugetlb"] = True
        if not isinstance(self.huge_pages, bool):
            told["hugetlbsize"] = self.huge_pages
        if self.policy != "default":
            told |= {"policy": self.policy, "host-nodes": list(self.host_nodes)}
        return told

    def _said(self) -> list[str]:
        said: list[str] = [] if self.type == "ram" else [self.type]
        said += [name for name in ("share", "prealloc") if getattr(self, name)]
        if self.huge_pages:
            size = "" if self.huge_pages is True else f" of {format_size(self.huge_pages)}"
            said.append(f"huge pages{size}")
        if self.policy != "default":
            said.append(f"{self.policy} of host nodes {', '.join(map(str, self.host_nodes))}")
        return said
