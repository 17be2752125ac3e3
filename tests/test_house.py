"""House rules that a script can check: sizes of modules, their tests, first lines of docstrings."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted(
    path.relative_to(ROOT)
    for package in ("simulator", "runtime", "lessons")
    for path in (ROOT / package).rglob("*.py")
)
TREES = {path: ast.parse((ROOT / path).read_text(encoding="utf-8")) for path in MODULES}

LONGEST = 300

FEW_BRANCHES = 10
"""A module with fewer branches and loops is a table or a formula, which its users' tests cover."""

FAMILIES = {
    "simulator/program/codecs": "program/codecs/test_codec.py",
    "runtime/executor/codecs": "executor/codecs/test_coder.py",
    "simulator/strategies/schedules": "strategies/schedules/test_closed_forms.py",
    "simulator/strategies/schedules/orders": "strategies/schedules/test_properties.py",
    "simulator/workloads": "workloads/test_describe.py",
    "runtime/models": "models/test_models.py",
    "runtime/executor/operations": "numerics/test_numerics.py",
}
"""Folders of modules of one kind, and the parametrised test that takes all of them in turn."""

COMMANDS = {f"runtime/cli/{name}.py" for name in ("calibrate", "compare", "run", "validate")}
"""The commands, which the tests in `tests/cli` run."""

BARE = frozenset(
    {"Among", "As", "At", "By", "For", "From", "How", "In", "Of", "Per", "Since", "That", "To"}
    | {"Until", "What", "Where", "Whether", "Which", "With"}
)
"""Words that begin a fragment, not a sentence that stands alone."""


def branches(tree: ast.Module) -> int:
    """Branches and loops in all functions."""
    kinds = (ast.If, ast.For, ast.While, ast.IfExp, ast.comprehension, ast.BoolOp, ast.Try)
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    return sum(isinstance(node, kinds) for part in functions for node in ast.walk(part))


def has_test(path: Path) -> bool:
    package, *rooms = path.parent.parts
    folder = ROOT / "tests" / package
    if str(path.parent) in FAMILIES:
        return (folder / FAMILIES[str(path.parent)]).exists()
    return (folder.joinpath(*rooms) / f"test_{path.stem}.py").exists()


def docstrings(tree: ast.Module) -> Iterator[str]:
    """Of modules, classes and functions, and the strings below constants."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            for number, statement in enumerate(node.body):
                before = node.body[number - 1] if number else None
                if (
                    isinstance(statement, ast.Expr)
                    and isinstance(statement.value, ast.Constant)
                    and isinstance(statement.value.value, str)
                    and (before is None or isinstance(before, ast.Assign | ast.AnnAssign))
                ):
                    yield statement.value.value


def test_modules_are_short():
    lines = {str(path): len((ROOT / path).read_text("utf-8").splitlines()) for path in MODULES}
    assert {name for name, count in lines.items() if count > LONGEST} == set()


def test_every_module_with_logic_has_a_test_file_of_its_name():
    missing = {
        str(path)
        for path, tree in TREES.items()
        if path.parts[0] != "lessons"
        and path.stem not in ("__init__", "__main__")
        and str(path) not in COMMANDS
        and branches(tree) >= FEW_BRANCHES
        and not has_test(path)
    }
    assert not missing


@pytest.mark.parametrize("folder", sorted({str(path.parent) for path in MODULES}))
def test_docstrings_begin_with_a_sentence(folder):
    found = [
        (path.name, text.strip().split("\n")[0])
        for path, tree in TREES.items()
        if str(path.parent) == folder
        for text in docstrings(tree)
        if text.split()[0].rstrip(",") in BARE
    ]
    assert not found


DOTTED = re.compile(r"`((?:simulator|runtime)\.[\w.]*\w)(?:\(\))?`")


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_modules_named_in_docstrings_and_comments_exist(path):
    for name in DOTTED.findall((ROOT / path).read_text(encoding="utf-8")):
        parts = name.split(".")
        while parts and not (ROOT.joinpath(*parts).is_dir() or is_module(parts)):
            parts.pop()
        text = ROOT.joinpath(*parts).with_suffix(".py") if is_module(parts) else None
        text = text or ROOT.joinpath(*parts, "__init__.py")
        for rest in name.split(".")[len(parts) :]:
            assert re.search(rf"\b{rest}\b", text.read_text(encoding="utf-8")), name


def is_module(parts: list[str]) -> bool:
    """Tell whether a dotted name, in parts, is that of a module of this repository."""
    return ROOT.joinpath(*parts).with_suffix(".py").is_file()
