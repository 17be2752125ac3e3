"""Probes of a GPU: what its events, queues and kernels do beside each other.

``python gpu_probes.py NAME`` runs one in a process of its own, since variables and the first use
of a GPU count once a process, and prints its figures as JSON. A probe takes the module `torch`,
or what stands in for it, and a clock.
"""

from __future__ import annotations

import json
import statistics
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

Clock = Callable[[], float]
Figures = dict[str, float]

SLEEP_CYCLES = 2_000_000_000
"""About a second of a GPU's clock."""
BYSTANDERS = range(2, 17)
SOON_S = 0.05


def latencies(torch: Any, clock: Clock, count: int = 1000) -> Figures:
    """Median seconds to record an event on an idle stream and wait for it, both ways."""
    torch.cuda.synchronize()
    figures = {}
    for blocking in (False, True):
        took = []
        for _ in range(count):
            begin = clock()
            _passed(torch, blocking)
            took.append(clock() - begin)
        figures["blocking_s" if blocking else "spinning_s"] = statistics.median(took)
    return figures


def anchors(
    torch: Any, clock: Clock, sleep: Callable[[float], None] = time.sleep, apart_s: float = 5.0
) -> Figures:
    """The shortest bracket of a device's moment between two of the host, and drift between two.

    A host's moment is known to half its bracket.
    """
    torch.cuda.synchronize()
    bracket, first_s, first = _anchor(torch, clock)
    sleep(apart_s)
    other, second_s, second = _anchor(torch, clock)
    drift = (second_s - first_s) - 1e-3 * first.elapsed_time(second)
    return {"bracket_s": max(bracket, other), "drift_s": abs(drift)}


def _anchor(torch: Any, clock: Clock, tries: int = 5) -> tuple[float, float, Any]:
    """Bracket, the host's time and the event of the best of a few tries."""
    found = []
    for _ in range(tries):
        before = clock()
        event = _passed(torch, False)
        after = clock()
        found.append((after - before, (before + after) / 2, event))
    return min(found, key=lambda one: one[0])


def queues(torch: Any, clock: Clock) -> Figures:
    """Streams whose work waits for that of another one, because both share a queue.

    Stream 0 sleeps, stream 1 waits for it; each of the others has a tiny kernel that waits for
    nothing.
    """
    cuda = torch.cuda
    streams = [cuda.Stream(priority=-1) for _ in range(BYSTANDERS.stop)]
    numbers = torch.zeros(len(streams), device="cuda")
    for number in BYSTANDERS:  # kernels are loaded when they are first used
        numbers[number] += 1
    cuda.synchronize()
    begin = clock()
    with cuda.stream(streams[0]):
        cuda._sleep(SLEEP_CYCLES)
        slept = cuda.Event()
        slept.record()
    streams[1].wait_event(slept)
    events = []
    for number in BYSTANDERS:
        with cuda.stream(streams[number]):
            numbers[number] += 1
            events.append(cuda.Event())
            events[-1].record()
    while clock() - begin < SOON_S:
        pass
    late = sum(not event.query() for event in events)
    cuda.synchronize()
    return {"late_streams": float(late), "slept_s": clock() - begin}


def loading(torch: Any, clock: Clock) -> Figures:
    """Seconds of the host to launch a kernel of a new kind beside one that runs for a second."""
    values = torch.ones(1024, device="cuda")
    side = torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(side):
        torch.cuda._sleep(SLEEP_CYCLES)
    begin = clock()
    torch.special.i0e(values)  # nobody has used it before
    took = clock() - begin
    torch.cuda.synchronize()
    return {"launch_s": took, "slept_s": clock() - begin}


def occupied(torch: Any, clock: Clock, spin: Callable[..., None] | None = None) -> Figures:
    """Share of their speed that products lose beside kernels that spin on 16 and 32 processors.

    Args:
        torch: the module.
        clock: of the host.
        spin: launches such a kernel, see `gpu_spin`; None: that one.
    """
    if spin is None:
        from gpu_spin import spin
    size, count = 4096, 200
    left = torch.randn(size, size, device="cuda", dtype=torch.bfloat16)
    side = torch.cuda.Stream()

    def rate() -> float:
        begin = clock()
        for _ in range(count):
            torch.mm(left, left)
        torch.cuda.current_stream().synchronize()
        return count / (clock() - begin)

    rate()
    alone = rate()
    figures = {"alone_flops": 2 * size**3 * alone}
    for blocks in (16, 32):
        flag = torch.zeros(1, dtype=torch.int32, device="cuda")
        torch.cuda.synchronize()
        with torch.cuda.stream(side):
            spin(flag, blocks)
        figures[f"loss_{blocks}"] = 1 - rate() / alone
        with torch.cuda.stream(torch.cuda.Stream(priority=-1)):
            flag.fill_(1)  # the kernel ends
        torch.cuda.synchronize()
    return figures


def untouched(torch: Any, clock: Clock) -> Figures:
    """What importing a rank's module leaves behind: a fork is safe only before the first use."""
    import runtime.rank.worker  # noqa: F401  (imported for its effects)

    return {
        "initialised": float(torch.cuda.is_initialized()),
        "threads": float(threading.active_count()),
    }


def plain(torch: Any, clock: Clock) -> Figures:
    """Seconds of a training step in a plain loop; standard input has experiment and counts."""
    from gpu_steps import plain_loop
    from simulator.experiment_file import parse

    job = json.loads(sys.stdin.read())
    return plain_loop(torch, clock, parse(job["experiment"]), job["device"], job["steps"])


def _passed(torch: Any, blocking: bool) -> Any:
    event = torch.cuda.Event(enable_timing=True, blocking=blocking)
    event.record()
    event.synchronize()
    return event


PROBES: dict[str, Callable[[Any, Clock], Figures]] = {
    probe.__name__: probe
    for probe in (latencies, anchors, queues, loading, occupied, untouched, plain)
}


if __name__ == "__main__":
    import torch

    print(json.dumps(PROBES[sys.argv[1]](torch, time.perf_counter)))
