"""The exercises of lesson 4, the barrier, are checked against formulas and the simulator."""

from __future__ import annotations

from types import ModuleType

from lessons import uneven_machines as machines
from lessons.checks.tools import expect, near
from twinline import predict


def order_statistics(answers: ModuleType) -> str:
    for workers, spread, backup in ((16, 0.5, 2), (4, 1.0, 0), (64, 0.2, 8), (2, 0.5, 1)):
        value = answers.slowest(workers, spread, backup)
        target = machines.slowest(workers, spread, backup)
        expect(
            near(value, target),
            f"{workers} workers, spread {spread:g}, {backup} backup workers: {value!r}, "
            f"expected {target:.6g}",
        )
    return "16 workers, 2 of them to spare: 1.44"


def stale_workers(answers: ModuleType) -> str:
    for times in ([1.0, 1.0, 1.0, 3.0], [0.2, 0.2], [1.0], [4.0, 2.0, 1.0]):
        value = answers.staleness(list(times))
        total = sum(1 / time for time in times)
        target = [total * time - 1 for time in times]
        shown = ", ".join(f"{behind:.3g}" for behind in target)
        expect(
            isinstance(value, list) and len(value) == len(times),
            f"{times}: {value!r} is not a list of {len(times)} numbers",
        )
        expect(
            all(abs(mine - right) < 1e-3 for mine, right in zip(value, target, strict=True)),
            f"{times} s: {value!r}, expected {shown}: what do others update meanwhile?",
        )
    return "1, 1, 1 and 3 s: 2.33 and 9, which is n − 1 = 3 over all pushes"


def between_the_two(answers: ModuleType) -> str:
    gradients = answers.gradients_per_update()
    plan = {"data_style": "soft-synchronous", "gradients_per_update": gradients}
    prediction = predict(machines.on_machines(plan, spread=0.5))
    even = machines.compute_seconds(predict(machines.on_machines(plan, horizon=1)))
    time = machines.batch_seconds(prediction) / even
    behind = machines.mean_staleness(prediction)
    result = f"{gradients} gradients an update: {time:.2f} t, staleness {behind:.2f}"
    expect(time <= 1.15, f"{result}; the target is 1.15 t: workers wait too long for an update")
    expect(behind <= 3, f"{result}; at most 3: let an update take more gradients")
    return result
