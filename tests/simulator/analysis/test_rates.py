"""Updates and samples per second in steady state."""

from __future__ import annotations

import pytest

from simulator import load, predict
from simulator.analysis.pushes import pushes_of
from simulator.analysis.rates import Rates
from simulator.prediction import Prediction

WORKERS = ["model=mlp", "pipeline=1", "data=3", "preset=dgx-a100-80gb", "global_batch=24"]
ASYNC = [*WORKERS, "microbatches=1", "data_style=asynchronous"]


def predicted(*plan: str) -> Prediction:
    return predict(load(None, list(plan)))


def test_updates_of_workers_that_wait_for_nobody_add_up() -> None:
    """Σ 1 ÷ (compute + pull + push), where the server is never busy when somebody comes."""
    plan = ["microbatches=40", "global_batch=960", "node_bandwidth_gbit=10000000"]
    speeds = {0: 1.0, 1: 1.15, 2: 1.4}
    settings = [*ASYNC, *plan, "slowdown={1 = 1.15, 2 = 1.4}", "horizon=25"]
    prediction = predicted(*settings)
    alone = predicted(*settings, "data=1", "global_batch=320", "slowdown={0 = 1}", "horizon=2")
    line = alone.timeline
    pushes = pushes_of(line)
    cycle = line.end[pushes[1].pull] - line.end[pushes[0].pull]
    compute = line.end[line.is_compute & (line.rank == 0) & (line.step == 0)].max()
    compute -= line.end[pushes[0].pull]
    cycles = [compute * speed + cycle - compute for speed in speeds.values()]
    rates = prediction.metrics.rates
    assert rates
    assert rates.updates_per_s == pytest.approx(sum(1 / one for one in cycles), rel=0.03)
    assert rates.update_s == pytest.approx(1 / rates.updates_per_s)
    assert rates.samples_per_s == pytest.approx(320 * rates.updates_per_s)


BOUNDED = [*WORKERS, "data=4", "global_batch=1280", "microbatches=40"]
BOUNDED += ["data_style=stale-synchronous", "node_bandwidth_gbit=10000000"]


@pytest.mark.parametrize("servers", [1, 2])
def test_updates_of_workers_with_bounded_leads_are_those_of_the_slowest(servers: int) -> None:
    """n ÷ max (compute + pull + push), whatever the lead that fast workers gain at first."""
    alone = predicted(*BOUNDED, "data=1", "global_batch=320", "staleness_bound=0", "horizon=2")
    line = alone.timeline
    first, second = (push.pull for push in pushes_of(line))
    cycle = line.end[second] - line.end[first]
    compute = line.end[line.is_compute & (line.rank == 0) & (line.step == 0)].max()
    compute -= line.end[first]
    settings = [*BOUNDED, f"servers={servers}", "bucket_mb=1", "slowdown={2 = 1.3, 3 = 2}"]
    found = [
        predicted(*settings, "horizon=12", f"staleness_bound={bound}").metrics.rates
        for bound in (0, 1, 2)
    ]
    for rates in found:
        assert rates
        assert rates.updates_per_s == pytest.approx(4 / (cycle + compute), rel=0.005)
        assert rates.updates_per_s == pytest.approx(found[0].updates_per_s)  # type: ignore[union-attr]
        assert rates.samples_per_s == pytest.approx(320 * rates.updates_per_s)


def test_bounded_leads_settle_although_steps_take_different_times() -> None:
    """A bound of 2 lets workers compensate for slow steps, and one of 0 does not."""
    settings = [*BOUNDED, "jitter=lognormal", "jitter_spread=0.3", "horizon=120"]
    none, two = (predicted(*settings, f"staleness_bound={bound}").metrics for bound in (0, 2))
    for found in (none, two):
        assert found.rates
        assert found.rates.updates_per_s == pytest.approx(
            4 * 120 / found.iteration_time_s, rel=0.04
        )
    assert none.rates and two.rates and two.rates.updates_per_s > 1.2 * none.rates.updates_per_s


def test_a_lead_that_never_fills_up_is_not_counted() -> None:
    """Nobody gets five ahead in six steps; yet in the long run all wait for the slowest."""
    settings = [*BOUNDED, "horizon=6", "slowdown={3 = 1.1}"]
    none, most = (predicted(*settings, f"staleness_bound={b}").metrics.rates for b in (0, 5))
    assert none and most
    assert most.updates_per_s == pytest.approx(none.updates_per_s, rel=0.01)


def test_a_synchronous_step_updates_once() -> None:
    found = predicted(*WORKERS, "horizon=6").metrics
    assert found.rates and found.steps and found.steps.steady_s
    assert found.rates == Rates(
        1 / found.steps.steady_s, 24 / found.steps.steady_s, found.steps.steady_s
    )
    assert predicted(*WORKERS).metrics.rates is None


def test_a_horizon_in_which_workers_never_all_work_has_no_steady_state() -> None:
    """The slow worker has pushed once when the others have ended."""
    assert predicted(*ASYNC, "slowdown={1 = 500}", "horizon=2").metrics.rates is None


def test_gradients_that_come_too_late_are_no_samples() -> None:
    plan = [*WORKERS, "microbatches=1", "data_style=soft-synchronous", "backup_workers=1"]
    rates = predicted(*plan, "slowdown={1 = 1.5}", "horizon=20").metrics.rates
    assert rates
    assert rates.samples_per_s == pytest.approx(16 * rates.updates_per_s, rel=0.1)


def test_rates_of_a_longer_timeline_are_lower() -> None:
    assert Rates(10.0, 80.0, 0.1).scaled(2.0) == Rates(5.0, 40.0, 0.2)
