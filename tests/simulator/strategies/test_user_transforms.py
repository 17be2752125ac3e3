"""A transform of the user's own is checked like ours; mistakes in it are the user's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from simulator import ExperimentError, load, lower, predict
from simulator.program.errors import ProgramError
from simulator.strategies import lowering
from simulator.strategies.transform import Transform


def plan(path: Path, text: str, *more: str):
    path.write_text(text)
    return load(None, [f'parallel.transforms=["file:{path}"]', *more])


@pytest.mark.parametrize("value", ["file:{}", "[file:{}]", '"file:{}"'])
def test_one_needs_neither_a_list_nor_quotes(tmp_path: Path, value: str) -> None:
    path = tmp_path / "t.py"
    given = plan(path, "def transform(lowered): return lowered\n")
    value = value.format(path)
    assert load(None, [f"parallel.transforms={value}"]).parallel == given.parallel
    with pytest.raises(ExperimentError, match=r"parallel.transforms = 3: allowed: a list"):
        load(None, ["parallel.transforms=3"])


def test_one_that_changes_nothing_leaves_the_program(tmp_path: Path) -> None:
    mine = plan(tmp_path / "t.py", "def transform(lowered): return lowered\n")
    assert lower(mine).hash() == lower(load(None)).hash()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def transform(lowered): return None\n", "returned None; allowed: the Lowered it makes"),
        ("def transform(lowered):\n    return lowered.list\n", "line 2: AttributeError"),
        ("x = 1\n", "has no transform(lowered)"),
        (
            "def transform(lowered): return lowered.with_lists(lambda rank, l: l[1:])\n",
            "which is not earlier in the list of this rank",
        ),
        (
            "def transform(lowered): return lowered.with_lists(lambda rank, l: l.reverse())\n",
            "list of rank 0: is None; allowed: a list of instructions",
        ),
        (
            "def transform(lowered):\n"
            "    return lowered.with_lists(lambda rank, l: [i.task for i in l])\n",
            "list of rank 0: has a Task in it; allowed: instructions",
        ),
        (
            "def transform(lowered):\n"
            "    def change(rank, instructions):\n"
            "        instructions[1].after = instructions[0]\n"
            "        return instructions\n"
            "    return lowered.with_lists(change)\n",
            "list of rank 0: 0SEND_F0: after is rank -1: 0F0; allowed: a tuple of instructions",
        ),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ExperimentError, match=re.escape(message)) as error:
        lower(plan(tmp_path / "t.py", text))
    assert str(error.value).startswith("parallel.transforms = ")
    assert "\n" not in str(error.value)


def test_plans_with_transforms_are_simulated_whole(tmp_path: Path) -> None:
    text = "def transform(lowered): return lowered\n"
    keys = ["cluster.preset=dgx-h100", "cluster.nodes=16", "parallel.data=64"]
    mine = predict(plan(tmp_path / "t.py", text, *keys))
    assert len(mine.program.ranks) == 128
    assert len(predict(load(None, keys)).program.ranks) < 128


def test_a_bug_of_ours_is_not_the_users_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    drop = Transform("drops", lambda lowered: lowered.with_lists(lambda rank, listed: listed[1:]))
    monkeypatch.setattr(lowering, "CHAIN", (*lowering.CHAIN, drop))
    with pytest.raises(ProgramError):
        lower(load(None))
