"""What events, work queues and kernels of a GPU do beside each other; see `gpu_probes`."""

from __future__ import annotations

import pytest

from runtime.gpu_environment import WORK_QUEUES

US = 1e-6


def test_events(gpu, probe) -> None:
    found = probe("latencies")
    spinning, blocking = found["spinning_s"], found["blocking_s"]
    fits = 8 * US <= spinning <= 20 * US
    gpu.add("record and wait for an event", "8 to 20 µs", f"{spinning / US:.1f} µs", fits)
    fits = 30 * US <= blocking <= 60 * US
    gpu.add("the same, blocking", "30 to 60 µs", f"{blocking / US:.1f} µs", fits)
    assert spinning > 0


def test_clocks(gpu, probe) -> None:
    found = probe("anchors")
    bracket, drift = found["bracket_s"], found["drift_s"]
    gpu.add("bracket of an anchor", "< 15 µs", f"{bracket / US:.1f} µs", bracket < 15 * US)
    gpu.add("drift of clocks in 5 s", "< 100 µs", f"{drift / US:.1f} µs", drift < 100 * US)
    assert 0 < bracket < 1


@pytest.mark.parametrize("connections", [8, WORK_QUEUES])
def test_streams_that_share_a_queue(gpu, probe, connections) -> None:
    """No stream waits for what it does not depend on, with as many queues as ranks are given."""
    found = probe("queues", CUDA_DEVICE_MAX_CONNECTIONS=str(connections))
    late = int(found["late_streams"])
    enough = connections == WORK_QUEUES
    expected = "0" if enough else "some"
    gpu.add(f"late streams of 15, {connections} queues", expected, late, enough == (late == 0))
    assert found["slept_s"] > 0.2, "the sleep was too short to tell"
    assert not enough or late == 0


def test_loading_a_kernel_beside_one_that_runs(gpu, probe) -> None:
    found = probe("loading")
    waits = found["launch_s"] > 0.5 * found["slept_s"]
    found_text = f"{found['launch_s']:.2f} s of {found['slept_s']:.2f} s"
    gpu.add("a new kernel's launch waits for one that runs", "yes", found_text, waits)
    assert found["slept_s"] > 0.2


def test_processors_that_spin_are_lost_to_passes(gpu, probe) -> None:
    found = probe("occupied")
    rate = found["alone_flops"] / 1e12
    gpu.add("bf16 product of 4096³ alone", "600 to 850 TFLOP/s", f"{rate:.0f}", 600 < rate < 850)
    for blocks in (16, 32):
        loss, share = found[f"loss_{blocks}"], blocks / 132
        fits = 0.5 * share < loss < 2 * share + 0.05
        gpu.add(f"its loss beside {blocks} spinning blocks", f"{share:.0%}", f"{loss:.1%}", fits)
        assert loss < 1
