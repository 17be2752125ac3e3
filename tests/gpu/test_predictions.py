"""Calibration and comparison on a GPU, and a plain loop of torch on the same card."""

from __future__ import annotations

import json

import numpy as np
import pytest

from gpu_plans import LARGE
from runtime.execution.calibrating import calibrate
from runtime.execution.comparing import compare
from simulator.experiment_file import load
from simulator.program.stream import COMPUTE_STREAM

ON_GPU = "run.device=cuda"


@pytest.fixture(scope="module")
def outcome(gpu, four):
    return compare(load(None, [*LARGE, ON_GPU]), workers=four)


def test_a_step_takes_what_was_predicted(gpu, outcome) -> None:
    error = outcome.comparison.iteration_time_error
    gpu.add(
        "error of the step of a GPT of 1.2 G parameters",
        "< 5 %",
        f"{error:+.1%}",
        abs(error) < 0.05,
    )
    memory = outcome.comparison.peak_memory_error
    gpu.add("error of its peak memory", "-20 % to 5 %", f"{memory:+.1%}", -0.2 < memory < 0.05)
    assert np.isfinite(error)


def test_the_device_is_hardly_ever_idle(gpu, outcome) -> None:
    timeline = outcome.execution.timeline
    compute = [
        n for n, i in enumerate(outcome.execution.program) if i.task.stream == COMPUTE_STREAM
    ]
    busy = float((timeline.end - timeline.start)[compute].sum())
    idle = 1 - busy / timeline.iteration_time
    gpu.add("share of a step without a pass", "< 2 %", f"{idle:.1%}", idle < 0.02)
    assert busy > 0


def test_a_plain_loop_of_torch_is_no_faster(gpu, outcome, probe) -> None:
    given = {
        "experiment": json.loads(load(None, [*LARGE, ON_GPU]).model_dump_json(exclude_unset=True)),
        "device": "cuda",
        "steps": 5,
    }
    alone = probe("plain", given)["step_s"]
    ratio = outcome.execution.metrics.iteration_time_s / alone
    gpu.add("its step ÷ that of a plain loop", "≤ 1.02", f"{ratio:.3f}", ratio <= 1.02)
    assert alone > 0


@pytest.mark.parametrize("ranks", [1, 2])
def test_calibration(gpu, four, ranks: int) -> None:
    keys = (ON_GPU, f"parallel.pipeline={ranks}", f"cluster.ranks_per_device={ranks}")
    model = ("workload.dtype=bf16", "workload.hidden=1024", "workload.sequence=512")
    profile = calibrate(load(None, [*keys, *model]), workers=four)
    name = f"calibration, {ranks} a GPU: "
    rate = profile.peak_flops["bf16"] / 1e12
    gpu.add(name + "peak", "700 to 800 TFLOP/s", f"{rate:.0f}", 700 < rate < 800)
    issue = profile.issue_s * 1e6
    gpu.add(name + "issue_s", "5 to 50 µs", f"{issue:.1f} µs", 5 < issue < 50)
    if profile.capacity is not None:
        fits = 1.0 <= profile.capacity <= 1.3
        gpu.add(name + "capacity", "1.0 to 1.3", f"{profile.capacity:.2f}", fits)
    spread = max(timing.tenths[-1] / timing.tenths[0] for timing in profile.passes.values())
    gpu.add(name + "passes, slowest ÷ fastest tenth", "< 1.1", f"{spread:.2f}", spread < 1.1)
    assert all(timing.mean_s > 0 for timing in profile.passes.values())
    assert min(profile.issue_s, profile.queue_s, profile.wake_s) >= 0
