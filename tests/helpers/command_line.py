"""What tests of the commands share: small experiments, and what JSON output has to hold."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import runtime

ROOT = str(Path(runtime.__file__).resolve().parent.parent)

TWINLINE = (str(Path(sys.executable).with_name("twinline")),)

TINY = """\
[workload]
model = "mlp"
layers = 3
hidden = 8
sequence = 4

[parallel]
pipeline = 2
microbatches = 2
schedule = "gpipe"

[run]
iterations = 3
warmup = 1
"""

LONG = """\
[workload]
model = "unit"
forward = 0.2

[parallel]
pipeline = 2

[run]
iterations = 1000
"""

RANK_KEYS = {
    "rank",
    "role",
    "stages",
    "microbatches",
    "parameters",
    "peak_memory_parts",
    "compute_s",
    "exposed_comm_s",
    "idle_s",
    "first_start_s",
    "last_end_s",
    "peak_memory_bytes",
    "peak_inflight_microbatches",
}

RESULT_KEYS = {
    "program",
    "parameters",
    "iteration_time_s",
    "bubble_fraction",
    "bubble_ratio",
    "steps",
    "rates",
    "mfu",
    "hfu",
    "tokens_per_s",
    "token",
    "ranks",
    "staleness",
    "notes",
}

PREDICT_KEYS = RESULT_KEYS | {"ranks_simulated", "cluster", "links", "memory_fit"}

RUN_KEYS = RESULT_KEYS | {
    "iteration_time_p10_s",
    "iteration_time_p90_s",
    "losses",
    "parameters_norm",
}

ERROR_KEYS = {
    "iteration_time_error",
    "instruction_start_error",
    "peak_memory_error",
    "noise_floor",
    "attribution",
    "cause",
    "causes",
    "peak_memory_errors",
}

COMPARE_KEYS = ERROR_KEYS | {"predicted", "measured", "notes"}


def one_object(stdout):
    """The only thing on stdout is one JSON object on one line."""
    assert stdout.endswith("\n")
    assert stdout.count("\n") == 1
    value = json.loads(stdout)
    assert isinstance(value, dict)
    return value


def check_result(result, keys, ranks=2):
    assert set(result) == keys
    assert set(result["program"]) == {"hash", "ranks", "instructions"}
    assert len(result["program"]["hash"]) == 16
    assert result["program"]["ranks"] == ranks == len(result["ranks"])
    for number, row in enumerate(result["ranks"]):
        assert set(row) == RANK_KEYS
        assert row["rank"] == number
        assert row["peak_memory_bytes"] > 0
    for key in ("iteration_time_s", "mfu", "hfu", "tokens_per_s"):
        assert result[key] > 0
    assert 0 < result["bubble_fraction"] < 1


def check_run(result, iterations=3, ranks=2):
    check_result(result, RUN_KEYS, ranks)
    assert len(result["losses"]) == iterations
    assert all(math.isfinite(loss) for loss in result["losses"])
    assert result["parameters_norm"] > 0
    low, high = result["iteration_time_p10_s"], result["iteration_time_p90_s"]
    assert low <= result["iteration_time_s"] <= high
