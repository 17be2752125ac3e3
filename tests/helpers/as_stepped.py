"""What a simulation skips and leaps over has the times and memory of what is gone through."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import reject
from hypothesis import strategies as st

from simulator import Experiment, ExperimentError, lower, parse
from simulator.cluster.resolve import resolve
from simulator.engine.costs import costs_of
from simulator.engine.engine import simulate
from simulator.engine.replica_folding import folding_of
from simulator.strategies.schedules.registry import SCHEDULES
from written_out import written_out

TWO_STAGES_A_RANK = ("interleaved-1f1b", "looped-bfs", "zb-v", "dualpipe-v")


@st.composite
def gpu_plans(draw, microbatches: Sequence[int], horizons: Sequence[int] = (1,)) -> Experiment:
    """Any plan on GPUs with so many microbatches, of whatever schedules and degrees there are."""
    model, schedule = (draw(st.sampled_from(of)) for of in (["gpt", "mlp", "unit"], [*SCHEDULES]))
    degrees = {axis: draw(st.sampled_from([1, 2])) for axis in ("data", "tensor", "context")}
    parallel = {
        "pipeline": draw(st.sampled_from([1, 2, 4])),
        "schedule": schedule,
        "virtual_stages": 2 if schedule in TWO_STAGES_A_RANK else 1,
        "microbatches": draw(st.sampled_from(microbatches)),
        "data": degrees["data"],
    }
    workload: dict[str, object] = {"model": model}
    if model == "unit":
        workload |= {"backward_input": draw(st.sampled_from([1.0, 0.3])), "p2p": 0.1}
    else:
        workload |= {"layers": 8, "global_batch": 2 * parallel["microbatches"]}
        parallel |= {
            "tensor": degrees["tensor"],
            "recompute": draw(st.sampled_from(["none", "full"])),
            "zero": draw(st.sampled_from([0, 0, 1, 2, 3])) if degrees["data"] > 1 else 0,
            "bucket_mb": draw(st.sampled_from([0.1, 25.0])),
        }
    if model == "gpt":  # larger ones share their links
        workload |= {"hidden": draw(st.sampled_from([64, 2048])), "sequence": 512, "heads": 8}
        parallel |= {
            "context": degrees["context"],
            "sequence_parallel": degrees["tensor"] > 1 and draw(st.booleans()),
            "recompute": draw(st.sampled_from(["none", "selective", "full"])),
        }
    cluster = {"preset": draw(st.sampled_from(["dgx-h100", "dgx-a100-80gb"])), "nodes": 4}
    run = {"horizon": draw(st.sampled_from(horizons))}
    given = {"workload": workload, "parallel": parallel, "cluster": cluster, "run": run}
    try:
        return parse(given)
    except ExperimentError:
        return reject()


def assert_as_stepped(experiment: Experiment) -> None:
    """Assert that a plan's timeline is that of its instructions, gone through one by one.

    Plans that cannot be lowered are no example for hypothesis.
    """
    cluster = resolve(experiment)
    try:
        folding = folding_of(experiment, cluster)
        program = lower(experiment, folding.list_of if folding else ())
    except ExperimentError:
        reject()
    costs = costs_of(program, experiment, cluster)
    given, stepping = simulate(program, costs), simulate(written_out(program), costs)
    for column in ("posted", "start", "end"):
        found, expected = getattr(given, column), getattr(stepping, column)
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-9 * stepping.iteration_time)
    for found, expected in zip(given.memory, stepping.memory, strict=True):
        assert found.peak == expected.peak
