"""Our programs against torch's own pipeline schedules, and our programs in torch's runtime."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.distributed.pipelining import schedules as theirs

from simulator.program.csv_text import to_csv
from simulator.strategies.lowering import lower

HERE = Path(__file__).resolve().parent
PASSES = {
    theirs.FORWARD: "F",
    theirs.FULL_BACKWARD: "B",
    theirs.BACKWARD_INPUT: "I",
    theirs.BACKWARD_WEIGHT: "W",
}
SIZES = [(p, m) for p in (1, 2, 3, 4, 6) for m in (p, p + 1, 2 * p + 1)]


def our_orders(program):
    return [
        [f"{i.task.stage}{i.task.op}{i.microbatch}" for i in rank if i.task.op in PASSES.values()]
        for rank in program.ranks
    ]


def torch_orders(pipeline_order):
    """Without idle slots and without what torch inserts for replicas."""
    return [
        [
            f"{action.stage_index}{PASSES[action.computation_type]}{action.microbatch_index}"
            for action in pipeline_order[rank]
            if action is not None and action.computation_type in PASSES
        ]
        for rank in sorted(pipeline_order)
    ]


def stub_stage(num_stages):
    """What the constructors of torch's schedules look at; no process group."""
    return SimpleNamespace(num_stages=num_stages, has_backward=True)


@pytest.mark.parametrize(("p", "m"), SIZES)
def test_gpipe_runs_the_passes_of_torch(experiment, p, m):
    ours = lower(experiment(model="unit", schedule="gpipe", pipeline=p, microbatches=m))
    schedule = theirs.ScheduleGPipe(stub_stage(p), m)
    assert our_orders(ours) == torch_orders(schedule.pipeline_order)


@pytest.mark.parametrize(("p", "m"), SIZES)
def test_1f1b_runs_the_passes_of_torch(experiment, p, m):
    ours = lower(experiment(model="unit", schedule="1f1b", pipeline=p, microbatches=m))
    orders = torch_orders(theirs.Schedule1F1B(stub_stage(p), m).pipeline_order)
    # torch (2.13) numbers the forwards of the last rank, which has no warm-up, 1 … m in the
    # order it prints; what it executes is 0 … m-1 (`Schedule1F1B._step_microbatches`).
    last = p - 1
    printed = [f"{last}F{index}" for index in range(1, m + 1)]
    if [step for step in orders[last] if "F" in step] == printed:
        count = iter(range(m))
        orders[last] = [f"{last}F{next(count)}" if "F" in s else s for s in orders[last]]
    assert our_orders(ours) == orders


STEPS: dict[str, dict[str, Any]] = {
    # name of the case: keys of the experiment
    "gpipe": {"schedule": "gpipe", "pipeline": 2, "microbatches": 4},
    "1f1b": {"schedule": "1f1b", "pipeline": 2, "microbatches": 4},
    "naive": {"schedule": "naive", "pipeline": 2, "microbatches": 4},
    "interleaved": {
        "schedule": "interleaved-1f1b",
        "pipeline": 2,
        "virtual_stages": 2,
        "microbatches": 4,
    },
    "zb-v": {"schedule": "zb-v", "pipeline": 2, "virtual_stages": 2, "microbatches": 4},
    "split": {"schedule": "csv", "pipeline": 2, "microbatches": 4},
}
if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 13):
    del STEPS["zb-v"]  # older versions send from a rank to itself, which gloo cannot
SPLIT = """\
0F0,0F1,0F2,0I0,0W0,0F3,0I1,0W1,0I2,0W2,0I3,0W3
1F0,1I0,1F1,1I1,1W0,1F2,1I2,1W1,1F3,1I3,1W2,1W3
"""


@pytest.fixture(scope="module")
def in_torch(experiment, run_script, tmp_path_factory):
    """(keys of our run, gradients, losses) per case, from one launch of torch's runtime."""
    folder = tmp_path_factory.mktemp("torch")
    split = folder / "split.csv"
    split.write_text(SPLIT)
    cases, keys_of = [], {}
    for name, keys in STEPS.items():
        schedule = f"csv:{split}" if keys["schedule"] == "csv" else keys["schedule"]
        keys_of[name] = keys | {"schedule": schedule, "iterations": 1}
        tiny = experiment(**keys_of[name])
        program = lower(tiny)
        exported = folder / f"{name}.csv"
        exported.write_text(to_csv(program, compute_only=True))
        owned = {i.task.stage: (i.task.layers, i.rank) for i in program if i.task.op == "F"}
        cases.append(
            {
                "csv": str(exported),
                "stages": [owned[stage][0] for stage in sorted(owned)],
                "owner": [owned[stage][1] for stage in sorted(owned)],
            }
        )
    job = folder / "job.json"
    job.write_text(
        json.dumps(
            {
                "store": str(folder / "store"),
                "out": str(folder),
                "experiment": tiny.model_dump(exclude_unset=True),
                "cases": cases,
            }
        )
    )
    run_script("torch_pipeline.py", job)
    results = {}
    for number, name in enumerate(STEPS):
        gradients, losses = {}, []
        for rank in range(2):
            part, seen = torch.load(folder / f"{number}-{rank}.pt")
            gradients |= part
            losses += seen
        results[name] = keys_of[name], gradients, losses
    return results


@pytest.mark.parametrize("name", STEPS)
def test_our_program_gives_the_same_gradients_in_torchs_runtime(run, in_torch, name):
    keys, gradients, losses = in_torch[name]
    ran = run(**keys)
    ours = {f"{layer}.{parameter}": g for (layer, parameter), g in ran.gradients[0].items()}
    assert ours.keys() == gradients.keys()
    for key, expected in gradients.items():
        difference = float((ours[key] - expected).abs().max() / expected.abs().max())
        assert difference <= 1e-10, key
    assert ran.measurement.losses == pytest.approx([sum(losses) / len(losses)], rel=1e-12)


def test_the_program_is_the_same_in_every_process(run, experiment):
    """Lowered here, lowered by a rank, lowered by another interpreter: one hash."""
    keys = {"data": 2, "pipeline": 2, "schedule": "1f1b", "microbatches": 2, "bucket_mb": 1e-6}
    tiny = experiment(**keys)
    code = (
        "import json, sys; from simulator import lower, parse; "
        "print(lower(parse(json.loads(sys.argv[1]))).hash())"
    )
    described = json.dumps(tiny.model_dump(exclude_unset=True))
    other = subprocess.run(
        [sys.executable, "-c", code, described],
        env=os.environ | {"PYTHONHASHSEED": "7", "PYTHONPATH": str(HERE.parents[2])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert lower(tiny).hash() == run(**keys).hash == other.stdout.strip()
