"""The user's own code is found by file, by dotted name and by entry point."""

from __future__ import annotations

import re
import sys
from importlib import metadata
from pathlib import Path

import pytest

from simulator import ExperimentError
from simulator.strategies import plugins
from simulator.strategies.plugins import absolute, is_user_code, load_user_code


def found(name: str):
    return load_user_code("parallel.schedule", name, "twinline.schedules").value


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package in the current folder, which no path leads to."""
    folder = tmp_path / "own_package"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "helper.py").write_text("ANSWER = 42\n")
    (folder / "zigzag.py").write_text(
        "from own_package.helper import ANSWER\nclass Z: x = ANSWER\n"
    )
    (folder / "broken.py").write_text("import os\n\nvalue = {}['key']\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    yield folder
    for name in [n for n in sys.modules if n.partition(".")[0] == "own_package"]:
        del sys.modules[name]


def test_a_dotted_name_leads_to_modules_and_what_is_in_them(package: Path) -> None:
    assert found("own_package.zigzag").ANSWER == 42
    assert found("own_package.zigzag.Z").x == 42


def test_a_file_leads_to_its_module_and_what_is_in_it(package: Path) -> None:
    assert found("file:own_package/helper.py").ANSWER == 42
    assert found("file:own_package/helper.py:ANSWER") == 42


def test_an_entry_point_is_a_name(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point = metadata.EntryPoint("zigzag", "own_package.zigzag:Z", "twinline.schedules")
    monkeypatch.setattr(plugins.metadata, "entry_points", lambda group: [point])
    assert is_user_code("zigzag", "twinline.schedules")
    assert found("zigzag").x == 42


def test_what_has_another_form_is_no_name_of_user_code() -> None:
    assert not is_user_code("zigzag", "twinline.schedules")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("file:nothing.py", "nothing.py': No such file or directory"),
        ("file:own_package/helper.py:Z", "own_package/helper.py has no 'Z'"),
        ("nothing_at_all.zigzag", "there is no module 'nothing_at_all' to import"),
        ("own_package.zigzag.Y", "zigzag.py has no 'Y'"),
        ("own_package.broken", "broken.py, line 3: KeyError: 'key'"),
        ("own_package/helper.py", "a file is named file:own_package/helper.py"),
        ("./helper.py:ANSWER", "a file is named file:./helper.py:ANSWER"),
    ],
)
def test_what_there_is_not_is_refused(package: Path, name: str, message: str) -> None:
    with pytest.raises(ExperimentError, match=re.escape(message)) as error:
        found(name)
    assert str(error.value).startswith(f"parallel.schedule = {name!r}: ")


def test_other_processes_get_absolute_paths(package: Path) -> None:
    here = package.parent
    assert absolute("file:a.py") == f"file:{here}/a.py"
    assert absolute("file:a.py:Z") == f"file:{here}/a.py:Z"
    assert absolute("csv:a.csv") == f"csv:{here}/a.csv"
    assert absolute("csv:/a.csv") == "csv:/a.csv"
    assert absolute("own_package.zigzag") == "own_package.zigzag"
    assert absolute("1f1b") == "1f1b"
