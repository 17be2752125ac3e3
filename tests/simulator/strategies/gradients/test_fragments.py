"""Fragments: which buckets and steps they have, when they are hidden, and what is refused."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator import ExperimentError, load, lower, predict
from simulator.engine.engine import simulate
from simulator.program.instruction import Instruction
from simulator.program.operations import Op
from simulator.strategies.gradients.fragments import fragments_of, sent_at
from small_buckets import BLOCK, BLOCKS, SMALL
from table_costs import TableCosts

STREAMING = [*SMALL, "data_style=diloco", "microbatches=1", "data=2"]
WHOLE = "parallel.bucket_mb=100"


def test_a_fragment_is_copied_averaged_beside_a_step_and_applied() -> None:
    """Written by hand: two fragments in a period of three steps, each applied a step later."""
    keys = ["layers=2", "fragments=2", "overlap_steps=1", "sync_period=3", "horizon=3"]
    (mine, _) = lower(load(None, [*STREAMING, *keys])).ranks
    labels = "0F0.0 0F0.1 0B0.1 0B0.0 0STEP 0SNAPSHOT.0 0AVERAGE.0"
    labels += " s1:0F0.0 s1:0F0.1 s1:0B0.1 s1:0B0.0 s1:0STEP s1:0SNAPSHOT.1 s1:0AVERAGE.1"
    labels += " s1:0OUTER.0 s2:0F0.0 s2:0F0.1 s2:0B0.1 s2:0B0.0 s2:0STEP s2:0OUTER.1"
    assert [i.label for i in mine] == labels.split()
    named = {i.label: i for i in mine}
    assert {o.label for o in named["s1:0OUTER.0"].after} == {"0AVERAGE.0", "s1:0STEP"}
    assert named["s1:0OUTER.0"].task.coefficients == (0.7, 0.9, 0.5)


@pytest.mark.parametrize("number", ["1", "2", "4"])
def test_the_largest_message_is_a_fragment_and_a_period_sends_the_model_once(number: str) -> None:
    settings = [*STREAMING, "sync_period=4", "horizon=8", f"fragments={number}"]
    averages = [i for i in lower(load(None, settings)).ranks[0] if i.task.name == "AVERAGE"]
    assert sum(i.task.nbytes for i in averages) == 2 * BLOCK * BLOCKS
    sent: Counter[int] = Counter()
    for i in averages:
        sent[i.step] += i.task.nbytes
    assert set(sent.values()) == {BLOCK * BLOCKS // int(number)}


def test_one_fragment_that_is_applied_at_once_is_diloco() -> None:
    keys = [*STREAMING, "sync_period=2", "horizon=4"]
    plain = lower(load(None, keys)).hash()
    assert lower(load(None, [*keys, "fragments=1", "overlap_steps=0"])).hash() == plain


class CostsByName(TableCosts):
    """A step takes 3.5 s, what local steps add little, and an average what the test says."""

    def __init__(self, average: float) -> None:
        super().__init__([])
        self.by_name = {"F": 1.0, "B": 2.0, "STEP": 0.5, "SNAPSHOT": 0.125, "OUTER": 0.25}
        self.by_name["AVERAGE"] = average

    def seconds(self, instruction: Instruction) -> float:
        return self.by_name[instruction.task.name]


@pytest.mark.parametrize("late", [1, 2, 3])
@pytest.mark.parametrize("share", [0.5, 1.0, 1.25])
def test_an_average_is_hidden_if_it_takes_no_longer_than_its_overlap(
    late: int, share: float
) -> None:
    """Hidden iff T_AR(V/P) ≤ τ·t, t being a step; what is longer is waited for."""
    keys = [*STREAMING, WHOLE, "sync_period=4", "horizon=8", f"overlap_steps={late}"]
    average = share * late * 3.5
    timeline = simulate(lower(load(None, keys)), CostsByName(average))
    waited = max(average - late * 3.5, 0.0)
    assert (waited > 0) == (share > 1)
    assert timeline.iteration_time == 8 * 3.5 + 2 * (0.125 + 0.25 + waited)


@pytest.mark.parametrize("average", [3.5, 4.0])
def test_fragments_are_hidden_one_after_the_other(average: float) -> None:
    """Four fragments of a period, the first pass of a step waits for the one before it."""
    keys = [*STREAMING, "sync_period=5", "horizon=5", "fragments=4", "overlap_steps=1"]
    program = lower(load(None, keys))
    costs = CostsByName(average)
    costs.by_name |= {"F": 1.0 / BLOCKS, "B": 2.0 / BLOCKS}
    # The copy of the next fragment, too, is made before the pass that waits.
    waited = max(average - 3.5, 0.0) + 3 * max(average - 3.5 - 0.125 - 0.25, 0.0)
    times = 5 * 3.5 + 4 * (0.125 + 0.25) + waited
    assert simulate(program, costs).iteration_time == pytest.approx(times, rel=1e-12)


@pytest.mark.parametrize("steps", [1, 2])
def test_memory_has_a_copy_of_what_is_under_way(steps: int) -> None:
    keys = [*STREAMING, "sync_period=6", "horizon=6", "fragments=4"]
    at_once, late = (
        predict(load(None, [*keys, *more])).to_json()["ranks"][0]["peak_memory_bytes"]
        for more in ([], [f"overlap_steps={steps}"])
    )
    assert late - at_once == steps * BLOCK


@given(
    sizes=st.lists(st.integers(1, 50), min_size=1, max_size=8),
    data=st.data(),
)
def test_fragments_are_consecutive_and_as_equal_as_can_be(
    sizes: list[int], data: st.DataObject
) -> None:
    count = data.draw(st.integers(1, len(sizes)))
    experiment = load(None, [*STREAMING, "sync_period=8", "horizon=8", f"fragments={count}"])
    found = fragments_of(sizes, experiment)
    assert found == sorted(found) and set(found) == set(range(count))
    largest = max(sum(s for s, f in zip(sizes, found, strict=True) if f == n) for n in found)

    def fits(limit: int) -> bool:
        """Filling fragments one after the other needs the fewest."""
        used, filled = 1, 0
        for size in sizes:
            if size > limit:
                return False
            if filled + size > limit:
                used, filled = used + 1, 0
            filled += size
        return used <= count

    assert fits(largest) and not fits(largest - 1)


@given(period=st.integers(1, 30), data=st.data())
def test_fragments_are_sent_apart_and_applied_in_their_period(
    period: int, data: st.DataObject
) -> None:
    late = data.draw(st.integers(0, period - 1))
    count = data.draw(st.integers(1, period - late))
    keys = [f"sync_period={period}", f"horizon={period}", f"overlap_steps={late}"]
    experiment = load(None, [*STREAMING, *keys, f"fragments={count}"])
    steps = [sent_at(fragment, experiment) for fragment in range(count)]
    assert steps == sorted(set(steps)) and steps[0] >= 0
    assert steps[-1] + late == period - 1


def test_every_stage_of_a_pipeline_has_all_fragments() -> None:
    keys = ["pipeline=2", "microbatches=2", "sync_period=3", "horizon=3", "fragments=2"]
    program = lower(load(None, [*STREAMING, *keys, "overlap_steps=1"]))
    for rank in program.ranks:
        assert [i.step for i in rank if i.task.op is Op.SNAPSHOT] == [0, 1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["overlap_steps=4"], "with parallel.sync_period = 4; allowed: 0 to 3"),
        (["fragments=5"], "allowed: 1 to parallel.sync_period = 4"),
        (["fragments=3", "overlap_steps=2"], "parallel.sync_period - parallel.overlap_steps = 2"),
        (["fragments=0"], "parallel.fragments = 0"),
        (["overlap_share=0.5"], "parallel.overlap_share = 0.5: what is applied at once"),
        (["overlap_steps=1", "overlap_share=1"], "parallel.overlap_share = 1"),
        (["data_style=local-sgd", "fragments=2"], "only for parallel.data_style = 'diloco'"),
        (["data_style=local-sgd", "overlap_steps=0"], "only for parallel.data_style = 'diloco'"),
        (["fragments=4", "bucket_mb=0.2"], "its parameters in 2 buckets, each of one fragment"),
    ],
)
def test_what_does_not_fit_is_refused(settings: list[str], message: str) -> None:
    with pytest.raises(ExperimentError) as error:
        lower(load(None, [*STREAMING, "sync_period=4", "horizon=4", *settings]))
    assert message in str(error.value)
    assert "\n" not in str(error.value)
