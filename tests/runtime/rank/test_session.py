"""One job on one rank: what it answers, and what it says on the way."""

from __future__ import annotations

import pytest

from runtime.calibration.calibrator import Calibrator
from runtime.executor.errors import ExecutionError
from runtime.launch.job import Job
from runtime.measurement.merge import from_json
from runtime.progress import Progress
from runtime.rank.session import FIRST_CALIBRATION, run_job
from simulator.strategies.lowering import lower


def answered(job, device):
    said = []
    answer = run_job(job, 0, device, Progress(), lambda share, what: said.append((share, what)))
    assert answer is not None
    shares = [share for share, _ in said]
    assert shares == sorted(shares)
    return answer, said


def test_a_measured_job_answers_a_measurement(alone, experiment):
    tiny = experiment(microbatches=2, iterations=2, warmup=1)
    answer, said = answered(Job(tiny), alone)
    program = lower(tiny)
    assert answer["hash"] == program.hash()
    assert len(from_json(program, answer["measurement"]).losses) == 2
    assert (answer["profile"], answer["tensors"]) == (None, None)
    assert [what for _, what in said] == ["warm-up", "step", "step"]
    assert [share for share, _ in said] == pytest.approx([0, 1 / 3, 2 / 3])


def test_a_calibrated_job_begins_with_transfers(alone, experiment):
    tiny = experiment(microbatches=1, layers=1, iterations=1)
    answer, said = answered(Job(tiny, measure=False, calibrate=True), alone)
    assert answer["measurement"] is None
    assert answer["profile"]["passes"]
    *transfers, (share, what) = said
    assert (share, what) == (FIRST_CALIBRATION, "passes")
    assert transfers
    assert all(share < FIRST_CALIBRATION for share, _ in transfers)


def test_who_compares_and_runs_out_of_memory_is_told_that_weights_are_there_twice(
    alone, experiment, monkeypatch
):
    def fail(*_):
        raise RuntimeError("CUDA out of memory. Tried to allocate 64.00 GiB.\nMore lines.")

    monkeypatch.setattr(Calibrator, "round", fail)
    tiny = experiment(microbatches=1, layers=1, iterations=1)
    with pytest.raises(ExecutionError, match=r"64.00 GiB\.; to compare, .* are there twice"):
        answered(Job(tiny, calibrate=True), alone)
    with pytest.raises(RuntimeError, match=r"64.00 GiB\.\nMore"):
        answered(Job(tiny, measure=False, calibrate=True), alone)
