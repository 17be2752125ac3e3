"""The command ``learn`` as a user runs it: tables, files, and mistakes in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from runtime.cli.app import app
from runtime.cli.learn import names_of

SMALL = ["mlp", "layers=1", "hidden=8", "sequence=2", "pipeline=1", "microbatches=1", "data=2"]
SETS = [part for key in ("model=mlp", *SMALL[1:]) for part in ("--set", key)]
CLUSTER = ["--set", "cluster.preset=laptop"]


def learn(*arguments: str | Path) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["learn", *map(str, arguments), *SETS, *CLUSTER])
    return done.exit_code, done.stdout, done.stderr


def test_plans_are_rows_and_files_are_written(tmp_path: Path) -> None:
    for name in ("all-reduce", "asynchronous"):
        (tmp_path / f"{name}.toml").write_text(f'parallel.data_style = "{name}"\n')
    files = [tmp_path / "all-reduce.toml", tmp_path / "asynchronous.toml"]
    picture, data = tmp_path / "loss.png", tmp_path / "loss.json"
    code, out, _ = learn(*files, "--steps", 3, "--target-loss", 1e3, "-o", picture, "-o", data)
    assert code == 0
    assert "all-reduce: mlp, data 2" in out
    assert out.count("│ asynchronous") == 2
    assert "to a loss of 1000" in out
    assert picture.stat().st_size > 1000
    plans = json.loads(data.read_text())["plans"]
    assert [plan["name"] for plan in plans] == ["all-reduce", "asynchronous"]
    assert [len(plan["curve"]["loss"]) for plan in plans] == [6, 6]


def test_json_is_one_object_and_nothing_else(tmp_path: Path) -> None:
    code, out, _ = learn("--steps", 2, "--json", "-o", tmp_path / "loss.json")
    assert code == 0
    plain = json.loads(out)
    assert plain["plans"][0]["reached"] is None
    assert plain["plans"][0]["name"] == "built-in"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "1", "--until", "1"], "--steps and --until: both are given; give one of them"),
        (["--until", "0"], "--until 0: allowed: more than 0"),
        (["--steps", "0"], "Invalid value for '--steps'"),
        (["-o", "a.txt"], "--output a.txt: allowed: .png, .svg, .pdf"),
        (["-o", "a.png", "-o", "b.svg"], "--output b.svg: a.png is given too"),
        (["nowhere.toml"], "nowhere.toml"),
        (["--set", "run.pace=2"], "run.pace = 2: learning takes the cluster's own time; allowed"),
        (["--target-loss", "low"], "Invalid value for '--target-loss'"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, error = learn(*arguments)
    assert code == 2
    assert not out
    assert message in error
    assert error.count("\n") == 1


def test_names_are_as_short_as_they_can_be() -> None:
    assert names_of([None]) == ["built-in"]
    assert names_of(["x/a.toml", "x/b.toml"]) == ["a", "b"]
    assert names_of(["x/a.toml", "y/a.toml"]) == ["x/a", "y/a"]
    assert names_of(["a.toml", "a.toml"]) == ["a (1)", "a (2)"]
