"""The peak that MFU refers to: of the cluster, of the profile, of the preset, or unknown."""

from __future__ import annotations

import socket

from runtime.execution.peak_flops import peak_flops_of
from simulator import Experiment, load
from simulator.cluster.catalogue import load_preset
from simulator.cluster.profile import Profile
from simulator.cluster.profile_file import default_path, save_profile
from simulator.cluster.saved_profile import saved_profile
from simulator.cluster.timing import Timing
from simulator.program.operations import Op


def on_gpus(*settings: str) -> Experiment:
    return load(None, ["run.device=cuda", *settings])


def test_the_peak_of_a_gpu_is_not_that_of_the_laptop(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert peak_flops_of(load(None)) == load_preset("laptop").device.peak_flops["fp32"]
    shared = on_gpus("cluster.ranks_per_device=2")
    assert peak_flops_of(shared) is None
    machine = {"cores": 2, "hostname": socket.gethostname()}
    measured = Profile(machine, "cuda", ranks_per_device=2, peak_flops={"fp32": 6e13})
    save_profile(measured, default_path(shared))
    assert peak_flops_of(shared) is None
    assert peak_flops_of(shared, saved_profile(shared)) == 3e13
    assert peak_flops_of(on_gpus(), saved_profile(on_gpus())) is None
    a100 = on_gpus("cluster.preset=dgx-a100-80gb", "workload.dtype=bf16")
    assert peak_flops_of(a100) == 312e12


def test_a_run_asks_nothing_else_of_the_cluster(monkeypatch, tmp_path) -> None:
    """Whether this machine was calibrated or not."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    chosen = load(None, ["cluster.algorithm=ring", "cluster.nodes=1", "cluster.devices_per_node=1"])
    assert peak_flops_of(chosen) == load_preset("laptop").device.peak_flops["fp32"]
    points = {Op.ALL_REDUCE: {2: [(8, Timing.certain(1e-3))]}}
    machine = {"cores": 2, "hostname": socket.gethostname()}
    save_profile(
        Profile(machine, collectives=points, peak_flops={"fp32": 1e11}), default_path(chosen)
    )
    assert peak_flops_of(chosen, saved_profile(chosen)) == 1e11


def test_a_cluster_is_no_measure_of_a_run_on_cpus_unless_the_run_is_paced_to_it() -> None:
    named = ["cluster.preset=dgx-h100", "workload.dtype=bf16"]
    laptop = load_preset("laptop").device.peak_flops["bf16"]
    assert peak_flops_of(load(None, named)) == laptop
    assert peak_flops_of(load(None, [*named, "run.pace=1000"])) > 100 * laptop
