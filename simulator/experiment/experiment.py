"""An experiment: workload, parallel plan, cluster and run, typed and checked."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

from simulator.experiment.cluster_choice import ClusterChoice
from simulator.experiment.mesh import Mesh
from simulator.experiment.parallel import Parallel
from simulator.experiment.run import Run
from simulator.experiment.section import Section
from simulator.experiment.workload import Workload


class Experiment(Section):
    """A whole experiment: however it is made, its values have passed every check.

    Raises:
        ExperimentError: unknown key, wrong type or impossible value, in one line.
    """

    workload: Workload = Workload()
    parallel: Parallel = Parallel()
    cluster: ClusterChoice = ClusterChoice()
    run: Run = Run()

    def __init__(self, /, **tables: Any):
        super().__init__(**tables)
        if not _checks:
            raise RuntimeError("no checks of experiments are registered: import simulator")
        for check in _checks:
            check(self)

    @property
    def is_for_cluster(self) -> bool:
        """Whether it is about a cluster that it names, or is paced to, and not this machine."""
        return self.cluster.is_named or self.run.pace is not None

    @property
    def world_size(self) -> int:
        return self.parallel.world_size

    @cached_property
    def mesh(self) -> Mesh:
        """The device mesh of the plan's degrees."""
        parallel = self.parallel
        return Mesh(
            parallel.rank_order,
            data=parallel.data,
            pipeline=parallel.pipeline,
            expert=parallel.expert,
            context=parallel.context,
            tensor=parallel.tensor,
        )

    @property
    def global_batch(self) -> int:
        """Samples per training step; unset, 4 a microbatch (1 for `unit`)."""
        if self.workload.global_batch is not None:
            return self.workload.global_batch
        per_microbatch = 1 if self.workload.model == "unit" else 4
        return self.parallel.batch_shares * self.parallel.microbatches * per_microbatch

    @property
    def microbatch_size(self) -> int:
        """Samples per microbatch: global_batch ÷ (data × expert × microbatches)."""
        return self.global_batch // (self.parallel.batch_shares * self.parallel.microbatches)


Check = Callable[[Experiment], None]
"""A check raises `ExperimentError` with the key, its value and what is allowed.

It stands beside what it is about: a model, a schedule, a way of sharding. Those rooms know the
experiment, which does not know them, so `simulator.experiment_file` registers their checks.
"""

_checks: list[Check] = []


def register_checks(*checks: Check) -> None:
    """Let every experiment that is made from now on pass `checks`, in this order."""
    _checks.extend(checks)
