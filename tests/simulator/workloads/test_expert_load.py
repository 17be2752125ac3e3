"""The load of experts that is predicted for, and what it drops."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator import Experiment, ExperimentError, lower, parse, predict
from simulator.timeline.statistics import ExpertLoad
from simulator.workloads.expert_load import dropped_share, loads_of
from simulator.workloads.moe_gpt import capacity


def experiment(**workload: object) -> Experiment:
    return parse({"workload": {"model": "moe-gpt", "layers": 1, **workload}})


def test_uniform_drops_nothing_unless_slots_are_scarce() -> None:
    """Of 4 × 64 tokens with 2 choices each, 128 are an expert's."""
    moe = predict(experiment()).moe
    assert moe == ExpertLoad(0.0, [0.25] * 4, [[0.25] * 4])
    scarce = predict(experiment(capacity_factor=0.75)).moe
    assert scarce.dropped_share == pytest.approx(0.25)


def test_zipf_by_hand() -> None:
    """Shares 12, 6, 4, 3 of 25; an expert has slots for 5/16 of the choices."""
    moe = predict(experiment(routing="zipf")).moe
    assert moe.load == pytest.approx([12 / 25, 6 / 25, 4 / 25, 3 / 25])
    assert moe.dropped_share == pytest.approx(12 / 25 - 5 / 16)
    flat = predict(experiment(routing="zipf", zipf_exponent=0)).moe
    assert flat.load == pytest.approx([0.25] * 4)


def test_no_expert_gets_more_than_every_token_once() -> None:
    (load,) = loads_of(experiment(routing="zipf", zipf_exponent=2).workload)
    assert load[0] == 0.5  # of 2 choices; unbounded it would be 0.70
    assert load[1:] == pytest.approx([0.5 * part / (1 / 4 + 1 / 9 + 1 / 16) for part in
                                      (1 / 4, 1 / 9, 1 / 16)])  # fmt: skip
    (everyone,) = loads_of(experiment(routing="zipf", top_k=4).workload)
    assert everyone == pytest.approx([0.25] * 4)


@given(st.integers(1, 60), st.integers(1, 60), st.floats(0, 10))
def test_zipf_is_a_load(experts: int, top_k: int, exponent: float) -> None:
    top_k = min(top_k, experts)
    w = experiment(experts=experts, top_k=top_k, routing="zipf", zipf_exponent=exponent).workload
    (load,) = loads_of(w)
    assert len(load) == experts
    assert math.fsum(load) == pytest.approx(1)
    assert load == pytest.approx(sorted(load, reverse=True))
    assert 0 <= min(load) <= max(load) <= 1 / top_k * (1 + 1e-8)


@given(st.lists(st.integers(0, 20), min_size=1, max_size=9).filter(sum), st.integers(1, 20))
def test_the_dropped_share_is_that_of_counting(counts: list[int], slots: int) -> None:
    choices = sum(counts)
    dropped = sum(max(0, count - slots) for count in counts)
    load = [count / choices for count in counts]
    assert dropped_share(load, slots / choices) == pytest.approx(dropped / choices, abs=1e-12)


def test_a_recorded_load_is_read(tmp_path: Path) -> None:
    path = tmp_path / "load.json"
    path.write_text("[0.5, 0.125, 0.375, 0]")
    moe = predict(experiment(routing=f"file:{path}")).moe
    assert moe.load == [0.5, 0.125, 0.375, 0.0]
    assert moe.dropped_share == pytest.approx(0.5 + 0.375 - 2 * 5 / 16)


def test_a_load_may_be_given_for_each_block(tmp_path: Path) -> None:
    """One block drops, the other not; on average neither would."""
    path = tmp_path / "load.json"
    path.write_text("[[0.5, 0.5, 0, 0], [0.0, 0.0, 0.5, 0.5]]")
    two = experiment(layers=2, routing=f"file:{path}", capacity_factor=1.75)
    moe = predict(two).moe
    assert moe.dropped_share == pytest.approx(2 * (0.5 - 1.75 / 4))
    assert moe.load == [0.25] * 4
    path.write_text(str(moe.load))
    assert predict(two).moe.dropped_share == 0


@pytest.mark.parametrize(
    ("keys", "slots"),
    [
        ({}, 160),
        ({"capacity_factor": 1.0}, 128),
        ({"capacity_factor": 1.1, "sequence": 5, "experts": 4}, 11),  # 1.1 × 10.0 > 11 in floats
        ({"capacity_factor": 1.0, "experts": 3}, 171),
        ({"capacity_factor": 1e-9}, 1),
        ({"capacity_factor": 100}, 256),  # no more than there are tokens
        ({"global_batch": 1, "sequence": 1}, 1),
    ],
)
def test_capacity(keys: dict[str, float], slots: int) -> None:
    assert capacity(experiment(**keys)) == slots


def test_routing_does_not_change_the_time() -> None:
    """Capacity is static: every slot is computed, taken or not."""
    one, other = (predict(experiment(routing=routing)) for routing in ("uniform", "zipf"))
    assert one.iteration_time_s == other.iteration_time_s
    assert one.metrics.program == other.metrics.program


def test_models_without_experts_have_no_such_figures() -> None:
    assert "moe" not in predict(parse({"workload": {"layers": 1}})).to_json()


@pytest.mark.parametrize(
    ("workload", "message"),
    [
        ({"top_k": 5}, "workload.top_k = 5: more than workload.experts = 4; allowed: 1 to 4"),
        ({"experts": 1}, "workload.top_k = 2: more than workload.experts = 1; allowed: 1 to 1"),
        ({"experts": 0}, "workload.experts = 0: allowed: 1 to 65536"),
        ({"capacity_factor": 0}, "workload.capacity_factor = 0: allowed: more than 0"),
        (
            {"routing": "random"},
            "workload.routing = 'random': allowed: 'uniform', 'zipf' or 'file:PATH'",
        ),
        (
            {"zipf_exponent": 2},
            "workload.zipf_exponent = 2: only for workload.routing = 'zipf', not 'uniform'",
        ),
        (
            {"routing": "zipf", "zipf_exponent": 11},
            "workload.zipf_exponent = 11: allowed: 0 to 10",
        ),
        (
            {"model": "gpt", "experts": 8},
            "workload.experts = 8: only for workload.model = 'moe-gpt'",
        ),
        (
            {"model": "mlp", "routing": "zipf"},
            "workload.routing = 'zipf': only for workload.model = 'moe-gpt'",
        ),
        (
            {"routing": "file:"},
            "workload.routing = 'file:': allowed: 'uniform', 'zipf' or 'file:PATH'",
        ),
    ],
)
def test_refused_in_one_line(workload: dict[str, object], message: str) -> None:
    with pytest.raises(ExperimentError) as error:
        experiment(**workload)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON: Expecting value: line 1 column 1 (char 0)"),
        ("[" * 100_000, "not JSON: "),
        ("[0.5, 0.5]", "allowed: a list of numbers, one for each of the 4 experts"),
        ("[0.5, 0.5, 0, true]", "allowed: a list of numbers, one for each of the 4 experts"),
        ('{"load": [1]}', "allowed: a list of numbers, one for each of the 4 experts"),
        ("[[0.5, 0.5, 0, 0], [0.5, 0.5, 0, 0]]", "allowed: a list of numbers, one for each "),
        ("[]", "allowed: a list of numbers, one for each of the 4 experts, or 1 such lists"),
        ("[0.6, 0.4, 0, 0]", "allowed with top_k = 2: shares from 0 to 0.5"),
        ("[0.5, 0.6, 0, -0.1]", "allowed with top_k = 2: shares from 0 to 0.5"),
        ("[NaN, 0.5, 0, 0]", "allowed with top_k = 2: shares from 0 to 0.5"),
        (json.dumps([10**400, 0, 0, 0]), "allowed with top_k = 2: shares from 0 to 0.5"),
        ("[0.5, 0.25, 0, 0]", "the shares add up to 0.75; allowed: 1"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "load.json"
    path.write_text(text)
    with pytest.raises(ExperimentError) as error:
        predict(experiment(routing=f"file:{path}"))
    assert str(error.value).startswith(f"workload.routing = 'file:{path}': {message}")
    assert "\n" not in str(error.value)


def test_a_file_is_needed_by_predictions_alone() -> None:
    """A run, or a comparison of saved timelines, may be on a machine that does not have it."""
    missing = experiment(routing="file:/nowhere/x.json")
    assert len(lower(missing))
    with pytest.raises(ExperimentError) as error:
        predict(missing)
    expected = "workload.routing = 'file:/nowhere/x.json': No such file or directory"
    assert str(error.value) == expected
