"""What transfers take from passes beside them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from simulator import load, predict
from simulator.cluster.profile import Profile
from simulator.cluster.profile_file import save_profile
from simulator.cluster.resolve import from_profile
from simulator.cluster.timing import Timing
from simulator.cluster.transfer_share import transfer_share
from simulator.engine.contention import fair_rates
from simulator.experiment.section import ExperimentError


def profile_of(loss: float, **kwargs: float) -> Profile:
    both = replace(Timing.certain(1.0), busy_s=3.0)
    found = Profile({"cores": 16}, device="cuda", ranks_per_device=2, messages=[(8, both)])
    return replace(found, transfer_loss=loss, busy_ranks=2, **kwargs)


def test_a_calibrated_device_has_room_for_as_many_passes_as_were_seen_on_it() -> None:
    """Capacity 1.5: two passes run at 0.75; beside both of them a message takes what it took."""
    cluster = from_profile(profile_of(0.2, capacity=1.5)).shared_by(2)
    assert cluster.compute_capacity == 1.5
    amount, weight = transfer_share(cluster, cluster.message(0, 1, 8), 2)
    demands = [
        ((cluster.compute_resource(0), 2 * amount),),
        ((cluster.compute_resource(0), 1.0),),
        ((cluster.compute_resource(1), 1.0),),
    ]
    rates = fair_rates(demands, {cluster.compute_resource(0): 1.5}, [weight, 1.0, 1.0])
    assert rates == pytest.approx([1 / 3, 0.75 * 0.8, 0.75 * 0.8])


def test_a_profile_serves_as_many_ranks_on_a_device_as_it_was_measured_with(tmp_path: Path) -> None:
    path = tmp_path / "two.json"
    save_profile(profile_of(0.2), path)
    with pytest.raises(ExperimentError, match=r"cluster.ranks_per_device = 1: allowed .*: 2$"):
        predict(load(None, [f"cluster.profile={path}", "run.device=cuda"]))
