"""A policy of the user's own is found by name, asked like ours, and refused in one line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from simulator import load, lower, predict
from simulator.experiment.experiment import Experiment
from simulator.experiment.section import ExperimentError
from simulator.program.arrival import FirstN

HEAD = "from simulator.program.arrival import *\n"
LAST = """
class LastCome(Policy):
    def choose(self, waiting, served):
        return waiting[-1] if waiting else None
"""
KEYS = ["data_style=asynchronous", "pipeline=1", "data=3", "layers=2", "horizon=3"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def with_policy(text: str, name: str = "file:mine.py", *more: str) -> Experiment:
    Path("mine.py").write_text(HEAD + text)
    return load(None, [*KEYS, f"policy={name}", *more])


def test_an_object_a_class_and_a_name_are_found() -> None:
    for text, name in (
        (LAST + "policy = LastCome()", "file:mine.py"),
        (LAST + "policy = LastCome", "file:mine.py"),
        (LAST, "file:mine.py:LastCome"),
        (LAST + "newest = LastCome()", "file:mine.py:newest"),
    ):
        (queue,) = lower(with_policy(text, name)).queues
        assert repr(queue.policy) == "LastCome()"


def test_it_decides_in_the_simulation_and_is_part_of_the_hash() -> None:
    mine = predict(with_policy(LAST, "file:mine.py:LastCome"))
    ours = predict(load(None, KEYS))
    (queue,) = mine.program.queues
    served = [queue.by_uid[decision.request].rank for decision in mine.recorded.decisions]
    assert served[:3] == [2, 1, 0]  # all come at once
    assert mine.program.hash() != ours.program.hash()


def test_a_policy_of_ours_is_asked_the_same_through_it() -> None:
    text = "policy = FirstN(2)"
    mine, ours = (
        predict(with_policy(text)),
        predict(load(None, [*KEYS, "data_style=soft-synchronous", "backup_workers=1"])),
    )
    assert mine.recorded.decisions == ours.recorded.decisions
    assert mine.recorded.idle == ours.recorded.idle
    (queue,) = mine.program.queues
    assert repr(queue.policy) == repr(FirstN(2))
    assert not queue.policy.is_lasting
    assert not queue.policy.bounds_lead


def test_a_policy_says_of_itself_that_it_bounds_the_lead() -> None:
    (queue,) = predict(with_policy("policy = BoundedStaleness(1)")).program.queues
    assert queue.policy.bounds_lead


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "mine.py has no 'policy', an object of a class derived from"),
        ("policy = 3", "mine.py has no 'policy', an object of a class derived from"),
        ("policy = 1 / 0", "line 2: ZeroDivisionError"),
        ("class policy(Policy):\n  def refusal(self, pushes): return f'{len(pushes)} are odd'",
         "3 are odd"),
        ("class policy(Policy):\n  def refusal(self, pushes): return 7",
         "mine.py: refusal returned 7; allowed: a text, or None"),
        ("class policy(Policy):\n  def choose(self, waiting, served): return 0 / len([])",
         "line 3: ZeroDivisionError"),
        ("class policy(Policy):\n  def choose(self, waiting, served): return 'me'",
         "mine.py: choose returned 'me'; allowed: one of those waiting, or None"),
        ("class policy(Policy):\n  def counts(self, push, served): return 1",
         "mine.py: counts returned 1; allowed: True or False"),
        ("class policy(Policy):\n  def is_due(self, served): return None",
         "mine.py: is_due returned None; allowed: True or False"),
        ("class policy(Policy):\n  def is_due(self, served): return True\n"
         "  def counts(self, push, served): return False",
         "mine.py: is_due returned True; allowed: False where no push is pending"),
        ("class policy(Policy):\n  def choose(self, waiting, served): self.last = waiting",
         "mine.py: choose has changed the policy; allowed: answers that follow from the question"),
        ("class policy(Policy):\n  def __init__(self): self.seen = []\n"
         "  def choose(self, waiting, served): return self.seen.append(1) or waiting[0]",
         "mine.py: choose has changed the policy; allowed: answers that follow from the question"),
        ("class policy(Policy):\n  def admits(self, request, served): return request.rank != 1",
         "deadlock: "),
    ],
)  # fmt: skip
def test_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(ExperimentError, match=re.escape(message)) as error:
        predict(with_policy(text))
    assert str(error.value).startswith("parallel.policy = 'file:mine.py'")
    assert "\n" not in str(error.value)


def test_what_hangs_in_another_order_is_refused_when_that_order_comes() -> None:
    """The check lets rank 0 go through all its steps first; in the simulation all pull at once."""
    text = """
class policy(Policy):
    def admits(self, request, served):
        return served.decisions < 2 or served.pushes[0] > 0
"""
    mine = with_policy(text)
    lower(mine)
    with pytest.raises(
        ExperimentError, match=r"'file:mine.py': deadlock: .* never starts"
    ) as error:
        predict(mine)
    assert "\n" not in str(error.value)


def test_several_servers_ask_for_one_that_lasts() -> None:
    with pytest.raises(ExperimentError, match=r"with parallel.policy = 'file:mine.py' workers"):
        with_policy("policy = FirstN(2)", "file:mine.py", "servers=2", "bucket_mb=0.5")
    two = lower(with_policy(LAST, "file:mine.py:LastCome", "servers=2", "bucket_mb=0.5"))
    assert [repr(queue.policy) for queue in two.queues] == ["LastCome()"] * 2
