"""Plans on one GPU: one rank with NCCL, several by gloo; all train as one process on a CPU does."""

from __future__ import annotations

import time

import pytest

from gpu_plans import OF_FOUR, OF_TWO, SMALL, split, whole
from gpu_report import smi, used_bytes
from runtime.execution.running import run
from simulator.experiment_file import load

ON_GPU = ("run.device=cuda",)
GIB = 2**30


def losses(workers, *sets: str) -> list[float]:
    return run(load(None, [*sets]), workers=workers).measurement.losses


def test_one_rank_trains_as_on_a_cpu(gpu, four) -> None:
    ran = run(load(None, [*SMALL, *ON_GPU, "parallel.pipeline=1"]), workers=four)
    expected = losses(four, *SMALL, "parallel.pipeline=1")
    assert ran.measurement.losses == pytest.approx(expected, rel=1e-4)
    assert ran.timeline.statistics is not None
    (peak,) = ran.timeline.statistics.allocator_peak_bytes or []
    (reserved,) = ran.timeline.statistics.allocator_reserved_bytes or []
    ratio = reserved / peak
    gpu.add("memory that it reserved ÷ its peak", "1.0 to 1.5", f"{ratio:.2f}", 1 <= ratio <= 1.5)
    held = ran.metrics.ranks[0].peak_memory_bytes
    gpu.add("allocator's peak ÷ that of tensors", "1.0 to 1.3", f"{peak / held:.2f}", peak >= held)
    assert peak > 0


def test_a_host_that_runs_ahead_trains_as_one_that_waits(gpu, four) -> None:
    """They are equal to the last bit, but for atomic additions of an embedding's gradient."""
    found = {
        host: run(
            load(None, [*SMALL, *ON_GPU, "parallel.pipeline=1", f"run.host={host}"]), workers=four
        )
        for host in ("waits", "runs-ahead")
    }
    waits, ahead = found["waits"], found["runs-ahead"]
    assert ahead.measurement.losses == pytest.approx(waits.measurement.losses, rel=1e-5)
    times = [ran.metrics.iteration_time_s for ran in (ahead, waits)]
    ratio = times[0] / times[1]
    gpu.add("small step, host running ahead ÷ waiting", "< 0.8", f"{ratio:.2f}", ratio < 0.8)


def test_a_command_leaves_neither_warnings_nor_processes(gpu, twinline) -> None:
    before = used_bytes(smi())
    command = ("run", "--set", "run.device=cuda", "--set", "parallel.pipeline=1", "--json")
    code, out, said = twinline(*command)
    assert (code, said) == (0, "")
    assert '"allocator_peak_bytes"' in out
    assert_given_back(before)


@pytest.mark.parametrize("plan", OF_TWO)
def test_two_ranks_on_a_gpu(gpu, four, plan: str) -> None:
    alone = losses(four, *whole(plan), *ON_GPU)
    assert losses(four, *split(plan), *ON_GPU, "cluster.ranks_per_device=2") == pytest.approx(
        alone, rel=1e-3
    )


@pytest.mark.parametrize("plan", OF_FOUR)
def test_four_ranks_on_a_gpu(gpu, four, plan: str) -> None:
    alone = losses(four, *whole(plan), *ON_GPU)
    assert losses(four, *split(plan), *ON_GPU, "cluster.ranks_per_device=4") == pytest.approx(
        alone, rel=1e-3
    )


@pytest.mark.parametrize(
    ("count", "plan"),
    [
        (2, "parallel.pipeline=2 parallel.microbatches=1"),
        (2, "parallel.pipeline=2 parallel.microbatches=4"),
        (2, "parallel.data=2 parallel.pipeline=1 parallel.zero=3"),
        (4, "parallel.data=2 parallel.pipeline=2"),
    ],
)
def test_nccl_between_gpus(gpus, gpu, four, count: int, plan: str) -> None:
    """Two thousand steps end, and train as gloo does."""
    gpus(count)
    keys = (*split(plan), *ON_GPU)
    expected = losses(four, *keys, "run.backend=gloo")
    assert losses(four, *keys) == pytest.approx(expected, rel=1e-3)
    assert len(losses(four, *keys, "run.iterations=2000")) == 2000


def test_nccl_for_two_ranks_on_a_gpu_is_refused(gpu, twinline) -> None:
    sets = ("run.device=cuda", "run.backend=nccl", "cluster.ranks_per_device=2")
    flags = [word for key in (*sets, "parallel.pipeline=2") for word in ("--set", key)]
    code, _, said = twinline("run", *flags)
    version = gpu.machine["NCCL"]
    if tuple(map(int, version.split("."))) < (2, 30):
        assert (code, said.count("\n")) == (2, 1)
        assert f"NCCL {version} allows one rank on a GPU" in said
    else:
        gpu.add("two ranks on a GPU with NCCL", "exit 0", f"exit {code}: {said}", code == 0)


def assert_given_back(before: int, within_s: float = 20.0) -> None:
    """The GPUs' memory is as free as it was; the driver takes a moment."""
    deadline = time.monotonic() + within_s
    while used_bytes(smi()) > before + GIB // 4:
        assert time.monotonic() < deadline, "memory of a GPU was not given back"
        time.sleep(0.2)
