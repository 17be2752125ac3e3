"""The probes, the plans and the report of GPU tests say the right thing of stand-ins for a GPU."""

from __future__ import annotations

import contextlib
import itertools
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import gpu_probes
import gpu_report
from gpu_plans import LARGE, OF_FOUR, OF_TWO, split, whole
from gpu_report import Report, machine_of, used_bytes
from gpu_steps import plain_loop
from runtime.execution.running import run
from simulator.experiment_file import load

READ_S = 1e-6
"""Each look at the stand-in's clock takes so long."""


class Gpu:
    """A GPU on a clock of its own: kernels and waits take device time, calls host time.

    Args:
        queues: so many; streams beyond share them.
        event_s: how long the host takes to see a passed event; twice that if it blocks.
        drift: seconds that the device's clock gains in a second.
        loads_late: a kernel's first launch waits for what runs.
        processors: of which spinning blocks take one each from products.
    """

    bfloat16, int32, special = "bf16", "int32", None

    def __init__(
        self,
        queues: int = 32,
        event_s: float = 1e-5,
        drift: float = 0.0,
        loads_late: bool = False,
        processors: int = 100,
    ):
        self.now, self.queues, self.event_s, self.drift = 0.0, queues, event_s, drift
        self.loads_late, self.processors, self.spinning = loads_late, processors, 0
        self.free = [0.0] * queues  # when each queue is done
        self.streams = 0
        self.current = self.stream_of(0)
        self.special = SimpleNamespace(i0e=self.new_kernel)
        self.cuda = SimpleNamespace(
            synchronize=lambda: self.until(max(self.free)),
            Event=lambda **keys: Event(self, **keys),
            Stream=lambda **_: self.new_stream(),
            stream=self.on,
            current_stream=lambda: SimpleNamespace(synchronize=self.cuda_synchronize),
            _sleep=lambda cycles: self.launch(1.0),
        )

    def clock(self) -> float:
        self.now += READ_S
        return self.now

    def cuda_synchronize(self) -> None:
        self.until(self.free[self.current.queue])

    def until(self, moment: float) -> None:
        self.now = max(self.now, moment)

    def stream_of(self, number: int) -> Any:
        queue = number % self.queues
        return SimpleNamespace(queue=queue, wait_event=lambda event: self.hold(queue, event.at))

    def new_stream(self) -> Any:
        self.streams += 1
        return self.stream_of(self.streams)

    def hold(self, queue: int, moment: float) -> None:
        self.free[queue] = max(self.free[queue], moment)

    def launch(self, seconds: float) -> float:
        queue = self.current.queue
        self.free[queue] = max(self.free[queue], self.now) + seconds
        return self.free[queue]

    def new_kernel(self, values: Any) -> None:
        if self.loads_late:
            self.until(max(self.free))
        self.launch(1e-5)

    @contextlib.contextmanager
    def on(self, stream: Any) -> Any:
        before, self.current = self.current, stream
        yield
        self.current = before

    def zeros(self, *_: Any, **__: Any) -> Any:
        return Numbers(self)

    ones = randn = zeros

    def mm(self, *_: Any) -> None:
        self.launch(1e-3 / (1 - self.spinning / self.processors))

    def spin(self, flag: Any, blocks: int) -> None:
        self.spinning = blocks


class Numbers:
    """A tensor whose elements are changed by a tiny kernel."""

    def __init__(self, gpu: Gpu):
        self.gpu = gpu

    def __getitem__(self, number: int) -> int:
        return 0

    def __setitem__(self, number: int, value: int) -> None:
        self.gpu.launch(1e-5)

    def fill_(self, value: int) -> None:
        self.gpu.spinning = 0


class Event:
    def __init__(self, gpu: Gpu, enable_timing: bool = False, blocking: bool = False):
        self.gpu, self.takes = gpu, gpu.event_s * (2 if blocking else 1)
        self.at = 0.0

    def record(self) -> None:
        self.at = max(self.gpu.free[self.gpu.current.queue], self.gpu.now)

    def synchronize(self) -> None:
        self.gpu.until(self.at)
        self.gpu.now += self.takes

    def query(self) -> bool:
        return self.at <= self.gpu.now

    def elapsed_time(self, later: Event) -> float:
        return 1e3 * (later.at - self.at) * (1 + self.gpu.drift)


def test_events_are_timed_both_ways() -> None:
    gpu = Gpu(event_s=1e-5)
    found = gpu_probes.latencies(gpu, gpu.clock, 11)
    assert found == {
        "spinning_s": pytest.approx(1e-5 + READ_S),
        "blocking_s": pytest.approx(2e-5 + READ_S),
    }


def test_drift_is_what_clocks_differ_by() -> None:
    gpu = Gpu(drift=2e-5)
    found = gpu_probes.anchors(gpu, gpu.clock, lambda s: gpu.until(gpu.now + s))
    assert found["drift_s"] == pytest.approx(1e-4, rel=1e-3)
    assert found["bracket_s"] == pytest.approx(1e-5 + READ_S)


@pytest.mark.parametrize(("queues", "late"), [(32, 0), (8, 3)])
def test_streams_behind_a_sleep_in_their_queue_are_late(queues: int, late: int) -> None:
    """Streams 8 and 16 share the queue of the sleep, of 8, and 9 that of the wait for it."""
    gpu = Gpu(queues)
    found = gpu_probes.queues(gpu, gpu.clock)
    assert found["late_streams"] == late
    assert found["slept_s"] >= 1.0


@pytest.mark.parametrize("loads_late", [False, True])
def test_a_launch_that_waits_for_what_runs_is_seen(loads_late: bool) -> None:
    gpu = Gpu(loads_late=loads_late)
    found = gpu_probes.loading(gpu, gpu.clock)
    assert (found["launch_s"] > 0.5 * found["slept_s"]) == loads_late


def test_spinning_blocks_take_their_share() -> None:
    gpu = Gpu(processors=100)
    found = gpu_probes.occupied(gpu, gpu.clock, gpu.spin)
    assert found["loss_16"] == pytest.approx(0.16, abs=1e-3)
    assert found["loss_32"] == pytest.approx(0.32, abs=1e-3)
    assert found["alone_flops"] == pytest.approx(2 * 4096**3 / 1e-3, rel=1e-3)


@pytest.mark.parametrize("plan", [*OF_TWO, *OF_FOUR])
def test_plans_on_gpus_are_allowed_and_train_on_one_batch(plan: str) -> None:
    parts = load(None, [*split(plan), "cluster.ranks_per_device=2", "run.device=cuda"])
    alone = load(None, [*whole(plan), "run.device=cuda"])
    assert parts.world_size == (2 if plan in OF_TWO else 4)
    assert alone.world_size == 1
    assert parts.workload.global_batch == alone.workload.global_batch


def test_the_large_plan_is_allowed() -> None:
    large = load(None, [*LARGE, "run.device=cuda"])
    assert (large.world_size, large.microbatch_size) == (1, 4)


def test_a_plain_loop_trains_as_the_executor_does() -> None:
    keys = [*whole(OF_TWO[0]), "workload.optimizer=adamw", "run.learning_rate=0.001"]
    tiny, ticks = load(None, keys), itertools.count()
    last = tiny.run.warmup + tiny.run.iterations - 1
    found = plain_loop(torch, lambda: float(next(ticks)), tiny, "cpu", last)
    assert found["step_s"] == 1.0
    assert found["loss"] == pytest.approx(run(tiny).measurement.losses[-1], rel=1e-5)


def test_a_report_says_what_was_not_as_expected(tmp_path) -> None:
    report = Report({"GPU": "1 × H100", "torch": "2.11.0"})
    report.add("rate", "700 to 800", 750, True)
    report.add("late | streams", "0", 2, False)
    report.outcomes = {"test_a": "passed", "test_b": "failed: AssertionError", "test_c": "skipped"}
    path = tmp_path / "new" / "report.md"
    report.write(path)
    text = path.read_text()
    assert text.startswith("### 1 × H100\n")
    assert "3 tests, 1 failed; 2 figures, 1 not as expected." in text
    assert "| rate | 700 to 800 | 750 | yes |" in text
    assert "| late / streams | 0 | 2 | **no** |" in text
    assert "| test_b | failed: AssertionError |" in text


def test_the_machine_is_named(monkeypatch) -> None:
    properties = SimpleNamespace(name="H100", multi_processor_count=132, total_memory=80 << 30)
    stand_in = SimpleNamespace(
        __version__="2.11.0+cu130",
        version=SimpleNamespace(cuda="13.0"),
        cuda=SimpleNamespace(
            device_count=lambda: 8, get_device_properties=lambda index: properties
        ),
    )
    rows = [["H100", "580.1", "512 MiB"], ["H100", "580.1", "0 MiB"]]
    monkeypatch.setattr(gpu_report, "smi", lambda: rows)
    found = machine_of(stand_in, lambda: (2, 28, 9))
    assert (found["GPU"], found["NCCL"], found["memory"]) == ("8 × H100", "2.28.9", "80.0 GiB")
    assert (found["driver"], found["CUDA"]) == ("580.1", "13.0")
    assert used_bytes(rows) == 512 << 20
    monkeypatch.setattr(gpu_report, "smi", list)
    assert gpu_report.driver() == "unknown"
