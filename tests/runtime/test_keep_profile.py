"""A kept profile has what older ones of the same machine measured besides."""

from __future__ import annotations

from dataclasses import replace

from runtime.keep_profile import keep_profile
from simulator.cluster.profile import Profile
from simulator.cluster.profile_file import load_profile
from simulator.cluster.timing import Timing
from simulator.program.operations import Op


def test_an_older_profile_is_added_without_contradiction(tmp_path):
    """What transfers take beside two ranks is not what they take beside four."""
    sure = Timing.certain(1.0)
    older = Profile(
        machine={"cores": 2, "hostname": "x"},
        messages=[(8, replace(sure, busy_s=4.0))],
        transfer_loss=0.3,
        busy_ranks=4,
    )
    newer = replace(older, messages=[(16, replace(sure, busy_s=2.0))], busy_ranks=2)
    path = tmp_path / "profile.json"
    keep_profile(older, path)
    both = keep_profile(newer, path)
    assert both.messages == [(8, sure), *newer.messages]
    one = keep_profile(Profile(machine=older.machine), path)
    assert (one.messages, one.transfer_loss, one.busy_ranks) == (both.messages, 0.3, 2)


def test_too_few_ranks_to_tell_leave_the_capacity_that_was_measured(tmp_path):
    machine, path = {"cores": 2, "hostname": "x"}, tmp_path / "profile.json"
    keep_profile(Profile(machine, capacity=1.4), path)
    assert keep_profile(Profile(machine), path).capacity == 1.4
    assert keep_profile(Profile(machine, capacity=1.6), path).capacity == 1.6


def test_the_best_product_seen_is_the_peak(tmp_path):
    machine, path = {"cores": 2, "hostname": "x"}, tmp_path / "profile.json"
    keep_profile(Profile(machine, peak_flops={"fp32": 2e11, "bf16": 1e11}), path)
    kept = keep_profile(Profile(machine, peak_flops={"fp32": 1e11, "fp16": 1e10}), path)
    assert kept.peak_flops == {"fp32": 2e11, "bf16": 1e11, "fp16": 1e10}
    assert load_profile(path) == kept


def test_another_machine_and_a_damaged_file_add_nothing(tmp_path):
    path = tmp_path / "profile.json"
    keep_profile(Profile({"cores": 2, "hostname": "x"}, capacity=1.4), path)
    other = Profile({"cores": 2, "hostname": "y"})
    assert keep_profile(other, path) == other
    path.write_text("{")
    assert keep_profile(other, path) == other == load_profile(path)


def test_points_are_joined_by_operation_and_size_and_the_newer_counts(tmp_path):
    machine, path = {"cores": 2, "hostname": "x"}, tmp_path / "profile.json"
    one, two = Timing.certain(1.0), Timing.certain(2.0)
    keep_profile(Profile(machine, collectives={Op.ALL_REDUCE: {2: [(8, one), (16, one)]}}), path)
    kept = keep_profile(
        Profile(
            machine, collectives={Op.ALL_REDUCE: {2: [(8, two)]}, Op.ALL_GATHER: {4: [(8, two)]}}
        ),
        path,
    )
    assert kept.collectives == {
        Op.ALL_REDUCE: {2: [(8, two), (16, one)]},
        Op.ALL_GATHER: {4: [(8, two)]},
    }


def test_profiles_of_one_host_and_of_several_are_not_mixed(tmp_path):
    machine, path = {"cores": 2, "hostname": "x"}, tmp_path / "profile.json"
    sure = Timing.certain(1.0)
    keep_profile(Profile(machine, messages=[(8, sure)]), path)
    first = keep_profile(Profile(machine, remote_messages=[(8, sure)], ranks_per_host=1), path)
    assert first.messages == []
    second = keep_profile(Profile(machine, remote_messages=[(16, sure)], ranks_per_host=1), path)
    assert second.remote_messages == [(8, sure), (16, sure)]
