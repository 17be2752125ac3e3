"""An experiment in a few words, for titles and headlines."""

from __future__ import annotations

from simulator.experiment.experiment import Experiment
from simulator.experiment.mesh import AXES
from simulator.units import counted


def describe_plan(experiment: Experiment) -> str:
    """Return the plan in a few words: gpt, data 2 × pipeline 4, 1f1b, 8 microbatches."""
    parallel = experiment.parallel
    degrees = {axis: parallel.axis_size(axis) for axis in AXES}
    mesh = " × ".join(f"{axis} {n}" for axis, n in degrees.items() if n > 1) or "one rank"
    schedule = f", {parallel.schedule}" if parallel.pipeline > 1 else ""
    count = parallel.microbatches
    many = "es" if count > 1 else ""
    options = [
        "sequence parallel" if parallel.sequence_parallel else "",
        parallel.context_style if parallel.context > 1 else "",
        parallel.tensor_style if "tensor_style" in parallel.model_fields_set else "",
        parallel.data_style if parallel.data_style != "all-reduce" else "",
        counted(parallel.num_servers, "server") if parallel.num_servers else "",
        "shared servers" if parallel.shares_servers else "",
        f"zero {parallel.zero}" if parallel.shards_optimizer else "",
        f"recompute {parallel.recompute}" if parallel.recompute != "none" else "",
        f"{experiment.cluster.ranks_per_device} ranks a device"
        if experiment.cluster.ranks_per_device > 1
        else "",
    ]
    horizon = experiment.run.horizon
    options.append(f"{horizon} steps" if horizon > 1 else "")
    more = "".join(f", {option}" for option in options if option)
    return f"{experiment.workload.model}, {mesh}{more}{schedule}, {count} microbatch{many}"


def describe_ranks(experiment: Experiment) -> str:
    """Return where the number of ranks comes from: data × pipeline × … + servers = 5 ranks."""
    servers = " + servers" if experiment.parallel.num_servers else ""
    return f"parallel: data × pipeline × …{servers} = {counted(experiment.world_size, 'rank')}"
