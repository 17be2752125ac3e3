"""A schedule of the user's own works like ours; a mistake in it is one line that names its file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from simulator import ExperimentError, load, lower

ONE_F_ONE_B = """
from simulator.strategies.schedules.passes import backward, forward

SUMMARY = "one forward and one backward in turn"

def order(plan, rank):
    warmup = min(plan.num_microbatches, plan.num_ranks - 1 - rank)
    passes = [forward(rank, m) for m in range(warmup)]
    for m in range(plan.num_microbatches):
        if warmup + m < plan.num_microbatches:
            passes.append(forward(rank, warmup + m))
        passes.append(backward(rank, m))
    return passes
"""
PIPEDREAM = "from simulator.strategies.schedules.pipedream import updates"
CLASS = """
import dataclasses
from simulator.strategies.schedules import gpipe

@dataclasses.dataclass
class Reversed:
    '''GPipe, the last rank first.'''

    turn: int = 1

    def order(self, plan, rank):
        stage = plan.num_ranks - self.turn - rank
        return [step._replace(stage=stage) for step in gpipe.order(plan, rank)]

    def placement(self, plan):
        return list(range(plan.num_ranks))[::-1]
"""


def plan(schedule: str, *more: str):
    return load(None, [f"parallel.schedule={schedule}", *more])


def test_a_file_is_a_schedule(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(ONE_F_ONE_B)
    assert lower(plan(f"file:{path}")).hash() == lower(plan("1f1b")).hash()


def test_the_file_is_read_again_when_it_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(ONE_F_ONE_B)
    experiment = plan(f"file:{path}")
    before = lower(experiment).hash()
    path.write_text("from simulator.strategies.schedules.gpipe import *\n")
    assert lower(experiment).hash() == lower(plan("gpipe")).hash() != before


def test_a_class_is_a_schedule_and_places_stages(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(CLASS)
    program = lower(plan(f"file:{path}:Reversed"))
    assert [rank[0].task.stage for rank in program.ranks] == [1, 0]
    assert {i.task.stage for i in program.ranks[1]} == {0}


def test_a_dotted_name_is_a_schedule() -> None:
    name = "simulator.strategies.schedules.one_f_one_b"
    assert lower(plan(name)).hash() == lower(plan("1f1b")).hash()


def test_it_is_asynchronous_if_it_says_so(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(f"{ONE_F_ONE_B}\n{PIPEDREAM}\n")
    assert lower(plan(f"file:{path}")).hash() == lower(plan("pipedream")).hash()
    with pytest.raises(ExperimentError, match=r"^workload.clip_norm = 1: .* synchronous schedules"):
        plan(f"file:{path}", "workload.clip_norm=1")


def test_a_limit_of_memory_is_for_it_to_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        ONE_F_ONE_B + "\ndef refusal(plan): return f'memory_limit = {plan.memory_limit}; no'\n"
    )
    with pytest.raises(ExperimentError, match=r"mine.py' with memory_limit = 3.0; no$"):
        lower(plan(f"file:{path}", "parallel.memory_limit=3"))


HEAD = "from simulator.strategies.schedules.passes import *\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "def order(plan, rank):\n    return 1 / 0\n",
            "line 2: ZeroDivisionError: division by zero",
        ),
        ("def order(plan, rank)\n    pass\n", "line 1: SyntaxError: expected ':'"),
        ("import nothing_at_all\n", "line 1: ModuleNotFoundError: No module named"),
        ("x = 1\n", "has no order(plan, rank)"),
        ("def order(plan): return []\n", "TypeError: order() takes 1 positional argument"),
        ("def order(plan, rank): return 3\n", "order returned 3; allowed: a list of passes"),
        ("def order(plan, rank): return [3]\n", "order has 3 in it; allowed: forward(stage"),
        ("def order(plan, rank): return []\n", "order of rank 0: stage 0, microbatch 0 has []"),
        (
            HEAD + "def order(plan, rank): return [backward(rank, 0), forward(rank, 0)]\n",
            "order of rank 0: stage 0, microbatch 0 has ['B', 'F']; allowed: F B, or F I W",
        ),
        (
            HEAD + "def order(plan, rank): return []\ndef placement(plan): return [0]\n",
            "placement returned [0]; allowed: 2 numbers from 0 to 1, one for each stage",
        ),
        (
            HEAD + "def order(plan, rank): return []\ndef updates(plan): return 1\n",
            "updates returned 1; allowed: Updates(every=1 or more)",
        ),
        (
            HEAD + "def order(plan, rank): return []\ndef refusal(plan): return True\n",
            "refusal returned True; allowed: a text, or None",
        ),
    ],
)
def test_a_mistake_is_one_line_that_names_the_file(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(ExperimentError, match=re.escape(message)) as error:
        lower(plan(f"file:{path}", "parallel.microbatches=1"))
    assert str(error.value).startswith(f"parallel.schedule = 'file:{path}': {path}")
    assert "\n" not in str(error.value)


def test_an_order_that_cannot_run_is_the_users_mistake(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        HEAD
        + "def order(plan, rank):\n"
        + "    turn = [0, 1] if rank == 0 else [1, 0]\n"
        + "    return [step(rank, m) for m in turn for step in (forward, backward)]\n"
    )
    with pytest.raises(ExperimentError, match=r"^parallel.schedule = 'file:.*deadlock: rank 0"):
        lower(plan(f"file:{path}", "parallel.microbatches=2"))
