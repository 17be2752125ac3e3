"""Results are shown first; then files are written, and what fails costs nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from simulator.cli.outputs import check_outputs, deliver
from simulator.experiment.section import ExperimentError


def fails(path: Path) -> None:
    raise OSError(28, "No space left on device")


def test_what_fails_late_costs_nothing_else(tmp_path: Path, capsys) -> None:
    written: list[Path] = []
    outputs = [(Path("a.png"), fails), (Path("b.json"), written.append)]
    with pytest.raises(typer.Exit) as ended:
        deliver(lambda: print("results"), outputs)
    out, errors = capsys.readouterr()
    assert ended.value.exit_code == 1
    assert out == "results\nwrote b.json\n"
    assert errors == "twinline: a.png: No space left on device\n"
    assert written == [Path("b.json")]


def test_a_file_that_was_there_is_said_to_be_replaced(tmp_path: Path, capsys) -> None:
    path = tmp_path / "a.json"
    for said in ("wrote", "replaced"):
        deliver(lambda: None, [(path, lambda where: where.write_text("{}"))])
        assert capsys.readouterr().out == f"{said} {path}\n"


def test_beside_json_nothing_is_said(capsys) -> None:
    deliver(lambda: print("{}"), [(Path("a.png"), lambda path: None)], quiet=True)
    assert capsys.readouterr() == ("{}\n", "")


def test_a_bug_is_no_broken_output(tmp_path: Path) -> None:
    def wrong(path: Path) -> None:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        deliver(lambda: None, [(tmp_path / "a", wrong)])


@pytest.mark.parametrize(
    ("picture", "message"),
    [("a.bmp", "--gantt .*a.bmp: allowed: .png, .svg, .pdf"), ("", "is a folder; name a file")],
)
def test_outputs_that_cannot_be(tmp_path: Path, picture: str, message: str) -> None:
    with pytest.raises(ExperimentError, match=message):
        check_outputs(tmp_path / picture)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_made_and_nothing_is_left(tmp_path: Path) -> None:
    check_outputs(tmp_path / "new" / "a.png", tmp_path / "new" / "b.json")
    assert list((tmp_path / "new").iterdir()) == []
    with pytest.raises(ExperimentError, match="is an input, too"):
        check_outputs(None, tmp_path / "in.toml", inputs=[str(tmp_path / "in.toml")])
