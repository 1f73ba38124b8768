# SPDX-License-Identifier: MIT
"""The package's shape: imports point down only, wires have one owner each, modules stay small.

What only a type checker reads (``if TYPE_CHECKING:``) knows of another module as any import does, so it must
point down too. It can make no cycle: it is never run.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "harness"
MODULES = {path.stem: path for path in sorted(PACKAGE.glob("*.py"))}
LONGEST_MODULE_LINES = 300

#: From the top down. A module imports from its own layer and from those below.
LAYERS: dict[str, frozenset[str]] = {
    "entry": frozenset({"__main__", "cli", "cli_cache", "own_tests", "pytest_plugin"}),
    "flow": frozenset({"run", "conduct", "session", "nightly", "cluster", "cluster_worker"}),
    "bench": frozenset(
        {
            *("template", "template_store", "guest", "report"),
            *("vm", "command_line", "qemu_process", "overlay", "migration", "hotplug_answers"),
            *("driver_service", "driver_log_tail", "probe"),
            *("images", "reference_image", "guest_binaries", "accelerator"),
            *("qemu_facts", "host_tools", "cache", "budget", "cluster_resources"),
        }
    ),
    "wires": frozenset({"qmp", "ssh", "remote_process", "remote_files", "host_key", "quoting", "watchdog"}),
    "words": frozenset(
        {
            *("plan", "profile", "units", "yaml_explain", "yaml_model", "yaml_nodes", "yaml_source"),
            *("driver_log", "evidence", "verify", "verify_driver", "mismatch", "verdict", "guest_clock"),
            *("errors", "deadline", "cluster_options", "__init__"),
        }
    ),
}
LAYER_OF = {module: layer for layer, modules in LAYERS.items() for module in modules}

#: Libraries that only one module may know.
OWNERS = {"qemu.qmp": "qmp", "paramiko": "ssh"}


@dataclass(frozen=True, slots=True)
class Import:
    """One name that a module imports."""

    name: str
    line: int
    type_only: bool

    def module(self, modules: Mapping[str, object]) -> str | None:
        """Return the module of the package that this is, or is a part of; None for what is not ours."""
        package, *rest = self.name.split(".")
        if package != "harness":
            return None
        return rest[0] if rest and rest[0] in modules else "__init__"


def imports_of(source: str) -> Iterator[Import]:
    """Yield all that a module imports, at its top and inside functions, by full dotted names."""
    tree = ast.parse(source)
    guarded = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If)
        and ast.unparse(branch.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
        for statement in branch.body
        for node in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            origin = ".".join(filter(None, ["harness" if node.level else "", node.module]))
            names = [f"{origin}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            yield Import(name, node.lineno, type_only=id(node) in guarded)


def upward_imports(sources: Mapping[str, str]) -> list[str]:
    """Return every import that points to a layer above the importing module's."""
    order = list(LAYERS)
    found = []
    for module, source in sources.items():
        for imported in imports_of(source):
            target = imported.module(MODULES)
            # Modules without a layer are found by a test of their own.
            if target not in LAYER_OF or module not in LAYER_OF:
                continue
            if order.index(LAYER_OF[target]) < order.index(LAYER_OF[module]):
                layers = f"{LAYER_OF[module]} imports {LAYER_OF[target]}"
                found.append(f"harness/{module}.py:{imported.line}: {target} ({layers})")
    return found


def cycle_in(sources: Mapping[str, str]) -> list[str]:
    """Return the modules of a cycle of imports that are run, or nothing when there is none."""
    graph = {
        module: {
            target
            for imported in imports_of(source)
            if not imported.type_only and (target := imported.module(MODULES)) is not None
        }
        for module, source in sources.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as err:
        return list(err.args[1])
    return []


def strangers(sources: Mapping[str, str]) -> list[str]:
    """Return every import of a library by a module that does not own it."""
    return [
        f"harness/{module}.py:{imported.line}: {library} belongs to {owner}.py"
        for module, source in sources.items()
        for imported in imports_of(source)
        for library, owner in OWNERS.items()
        if module != owner and f"{imported.name}.".startswith(f"{library}.")
    ]


@pytest.fixture(scope="module")
def sources() -> dict[str, str]:
    return {module: path.read_text() for module, path in MODULES.items()}


def test_every_module_has_one_layer_and_every_layer_only_modules() -> None:
    assert sum(len(modules) for modules in LAYERS.values()) == len(LAYER_OF)
    assert set(MODULES) == set(LAYER_OF)
    # The map is of files directly in the package; a package inside it would go unseen.
    assert set(PACKAGE.rglob("*.py")) == set(MODULES.values())


def test_the_architecture_page_shows_the_same_layers() -> None:
    shown: dict[str, list[str]] = {}
    layer = ""
    for row in re.findall(
        r"^\|(.*?)\|(.*?)\|.*\|$", (ROOT / "docs/architecture.md").read_text(), re.MULTILINE
    ):
        layer = row[0].strip() or layer
        shown.setdefault(layer, []).extend(re.findall(r"`([\w*]+)`", row[1]))
    for layer, modules in LAYERS.items():
        named = {module for module in modules if any(fnmatch(module, name) for name in shown[layer])}
        assert named == {module for module in modules if not module.startswith("__")}, layer
        assert all(any(fnmatch(module, name) for module in modules) for name in shown[layer]), layer


def test_imports_point_down_only(sources: dict[str, str]) -> None:
    assert upward_imports(sources) == []


def test_no_module_imports_itself_through_others(sources: dict[str, str]) -> None:
    assert cycle_in(sources) == []


def test_each_wire_has_one_owner(sources: dict[str, str]) -> None:
    assert strangers(sources) == []
    for library, owner in OWNERS.items():
        assert strangers({"plan": sources[owner]}), f"{owner}.py does not import {library}"


@pytest.mark.parametrize("module", MODULES)
def test_a_module_is_short_and_says_its_licence_and_its_job(module: str, sources: dict[str, str]) -> None:
    lines = sources[module].splitlines()
    assert len(lines) <= LONGEST_MODULE_LINES
    assert lines[0] == "# SPDX-License-Identifier: MIT"
    assert ast.get_docstring(ast.parse(sources[module]))


@pytest.mark.parametrize(
    "statement",
    [
        "import harness.vm",
        "from harness.vm import Vm",
        "from harness import vm",
        "from .vm import Vm",
        "from . import vm",
        "def late():\n    from harness.vm import Vm",
        "if TYPE_CHECKING:\n    from harness.vm import Vm",
    ],
)
def test_an_import_that_points_up_is_found(statement: str) -> None:
    [found] = upward_imports({"plan": statement})
    assert "vm (words imports bench)" in found


@pytest.mark.parametrize(
    "statement", ["import paramiko.client", "from qemu.qmp import Message", "from qemu import qmp"]
)
def test_an_import_of_anothers_wire_is_found(statement: str) -> None:
    assert strangers({"vm": statement})


def test_a_cycle_is_found_but_types_make_none() -> None:
    up, down = "from harness.vm import Vm", "from harness import guest"
    assert set(cycle_in({"guest": up, "vm": down})) == {"guest", "vm"}
    assert cycle_in({"guest": f"if TYPE_CHECKING:\n    {up}", "vm": down}) == []
