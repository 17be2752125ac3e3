"""Imports run one way: no room imports a room below it, no two modules import each other, and
what need not know torch never loads it."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

ROOMS = (
    "simulator.lazy_names",
    "simulator.units",
    "simulator.program",
    "simulator.experiment",
    "simulator.timeline",
    "simulator.workloads",
    "simulator.cluster",
    "simulator.strategies",
    "simulator.engine",
    "simulator.experiment_file",
    "simulator.analysis",
    "simulator.prediction",
    "simulator.charts",
    "simulator.planner",
    "simulator.cli",
    "simulator",
    "simulator.__main__",
    "runtime.progress",
    "runtime.host",
    "runtime.gpu_environment",
    "runtime.models",
    "runtime.executor",
    "runtime.measurement",
    "runtime.launch",
    "runtime.calibration",
    "runtime.rank",
    "runtime.keep_profile",
    "runtime.execution",
    "runtime.learning",
    "runtime.validation",
    "runtime",
    "twinline",
    "runtime.cli",
    "runtime.torchrun",
    "runtime.__main__",
    "lessons",
)
"""Ground floor first: a room may import itself and those above it in this list."""

TORCH_FREE = (
    "runtime.progress",
    "runtime.host",
    "runtime.gpu_environment",
    "runtime.launch",
    "runtime.keep_profile",
    "runtime.execution",
    "runtime.learning",
    "runtime.validation",
    "runtime",
    "twinline",
    "runtime.cli",
)
"""Rooms of `runtime` that the launching process needs; it starts without torch."""

BLOCKED = """
import importlib, sys

sys.path.insert(0, "runtime")  # where the package twinline lies

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocker())
try:
    import torch
except ImportError as error:
    assert "is blocked" in str(error)
else:
    raise SystemExit("the blocker does not block")
for name in sys.argv[1:]:
    importlib.import_module(name)
assert "torch" not in sys.modules
"""


INSTALLED_AS = {"runtime.twinline": "twinline"}
"""Packages with another name than their place."""


def modules() -> dict[str, Path]:
    """Every module of the packages by its dotted name."""
    found = {}
    for package in ("simulator", "runtime", "lessons"):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[INSTALLED_AS.get(name, name)] = path
    return found


MODULES = modules()


def room_of(module: str) -> str:
    """The longest name of a room that `module` lies in; a package is a room of its own."""
    if module in ROOMS:
        return module
    return max((r for r in ROOMS if module.startswith(f"{r}.")), key=len)


def imported(module: str) -> Iterator[str]:
    """Our modules that `module` imports, wherever in the file."""
    stub = MODULES[module].with_suffix(".pyi")  # of a package: the names that it has
    text = MODULES[module].read_text("utf-8") + (stub.read_text("utf-8") if stub.exists() else "")
    for node in ast.walk(ast.parse(text)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: a relative import"
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in MODULES else str(node.module) for name in whole]
        yield from (name for name in names if name in MODULES)


GRAPH = {module: set(imported(module)) - {module} for module in MODULES}


def test_every_module_has_a_room() -> None:
    assert [
        module for module in MODULES if not any(module.startswith(room) for room in ROOMS)
    ] == []
    assert {room_of(module) for module in MODULES} == set(ROOMS)


@pytest.mark.parametrize("module", MODULES)
def test_nothing_imports_what_is_below_it(module: str) -> None:
    floor = ROOMS.index(room_of(module))
    assert [name for name in GRAPH[module] if ROOMS.index(room_of(name)) > floor] == []


def test_no_modules_import_each_other() -> None:
    left = {module: set(names) for module, names in GRAPH.items()}
    while ends := {module for module, names in left.items() if not names & left.keys()}:
        left = {module: names for module, names in left.items() if module not in ends}
    assert sorted(left) == [], "these are in a circle, or import one that is"


def test_no_import_is_hidden_from_the_interpreter() -> None:
    hidden = [name for name, path in MODULES.items() if "TYPE_CHECKING" in path.read_text("utf-8")]
    assert hidden == []


@pytest.mark.parametrize("free", ["simulator", "launching"])
def test_what_need_not_know_torch_never_loads_it(free: str) -> None:
    if free == "simulator":
        names = [n for n in MODULES if room_of(n).startswith("simulator")]
    else:
        names = [n for n in MODULES if room_of(n) in TORCH_FREE]
    names = [name for name in names if not name.endswith("__main__")]
    found = subprocess.run(
        [sys.executable, "-c", BLOCKED, *names], capture_output=True, text=True, cwd=ROOT
    )
    assert found.returncode == 0, found.stderr
