"""Small cases of a suite, and finished rows, for the tests of this folder."""

from __future__ import annotations

import pytest

from runtime.validation.suite_case import SuiteCase

UNIT = {"model": "unit", "pipeline": 2, "microbatches": 2, "iterations": 1, "p2p": 0.001}


@pytest.fixture
def tiny():
    def make(experiment, name="1f1b", **keys) -> SuiteCase:
        return SuiteCase(name, "pipeline", "small", experiment(**UNIT | keys))

    return make


@pytest.fixture
def three(experiment, tiny):
    return [tiny(experiment, name, schedule=name) for name in ("1f1b", "gpipe", "naive")]


@pytest.fixture
def row():
    """Makes the row of a finished case."""

    def make(name="1f1b", error=0.0, noise=0.01, group="2 ranks", **more):
        return {
            "strategy": name, "family": "pipeline", "size": "small", "ranks": 2, "group": group,
            "failure": None, "predicted_s": 1 + error, "measured_s": 1.0, "error": error,
            "noise_floor": noise, "instruction_start_error": 0.02, "peak_memory_error": 0.0,
            "cause": "compute of rank 1 (+38%)", "pacing": None,
        } | more  # fmt: skip

    return make
