"""A package with a stub has the names of the stub, which are imported when asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import simulator

FOUND = """
import sys
import lazy
assert lazy.__all__ == dir(lazy) == ["Text", "wrap"]
assert "textwrap" not in sys.modules
assert lazy.wrap("a b", 1) == ["a", "b"]
assert vars(lazy)["wrap"] is sys.modules["textwrap"].wrap
from lazy import *
assert Text is str
"""


def test_names_are_imported_when_they_are_asked_for(tmp_path: Path) -> None:
    folder = tmp_path / "lazy"
    folder.mkdir()
    (folder / "__init__.pyi").write_text(
        "from builtins import str as Text\nfrom textwrap import wrap as wrap\n"
    )
    (folder / "__init__.py").write_text(
        "from simulator.lazy_names import lazy_names\n"
        "__getattr__, __all__ = lazy_names(__name__)\n"
        "def __dir__(): return __all__\n"
    )
    root = Path(simulator.__file__).parents[1]
    code = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(root)!r}]\n{FOUND}"
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'simulator' has no attribute 'forecast'"):
        simulator.forecast  # noqa: B018


def test_every_name_is_there() -> None:
    assert dir(simulator) == sorted(simulator.__all__)
    for name in simulator.__all__:
        assert getattr(simulator, name).__name__ == name
