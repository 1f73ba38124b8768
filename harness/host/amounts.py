# SPDX-License-Identifier: MIT
"""What plans take of a host: values that are added up."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Amounts:
    """What a plan needs, or what a host has for plans."""

    vcpus: int
    memory_bytes: int
    disk_bytes: int
    files: int

    def __sub__(self, other: Amounts) -> Amounts:
        return Amounts(**{name: getattr(self, name) - getattr(other, name) for name in _NAMES})

    def __add__(self, other: Amounts) -> Amounts:
        return Amounts(**{name: getattr(self, name) + getattr(other, name) for name in _NAMES})

    def fits(self, free: Amounts) -> bool:
        """Return whether there is this much."""
        return all(getattr(self, name) <= getattr(free, name) for name in _NAMES)


_NAMES = tuple(field.name for field in fields(Amounts))

NOTHING = Amounts(vcpus=0, memory_bytes=0, disk_bytes=0, files=0)
