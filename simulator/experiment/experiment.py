"""An experiment: workload, parallel plan, cluster and run, typed and checked."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from pydantic import PrivateAttr

from simulator.experiment.check_registry import registered_checks
from simulator.experiment.cluster_choice import ClusterChoice
from simulator.experiment.mesh import AXES, Mesh
from simulator.experiment.model_sizes import SIZES
from simulator.experiment.parallel import Parallel
from simulator.experiment.roles import SERVER, TRAINER, Role, role_among
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
    _given_vocab: int = PrivateAttr(default=0)

    def __init__(self, /, **tables: Any):
        checks = registered_checks()  # first: it also makes names of schedules known
        super().__init__(**tables)
        # Frozen is what an experiment is from here on.
        self.__dict__["parallel"] = self._with_microbatches()
        self._given_vocab = self.workload.vocab
        self.__dict__["workload"] = self._with_padded_vocabulary()
        for check in checks:
            check(self)

    def _with_microbatches(self) -> Parallel:
        """Return the plan with the number of microbatches that their size stands for."""
        parallel, batch = self.parallel, self.workload.global_batch
        if parallel.microbatch_size is None or batch is None:
            return parallel
        if "microbatches" in parallel.model_fields_set:
            return parallel
        number = batch // max(parallel.batch_shares * parallel.microbatch_size, 1)
        values = parallel.__dict__ | {"microbatches": number}
        # Not in the set of given keys: another batch has another number.
        return Parallel.model_construct(parallel.model_fields_set, **values)

    def _with_padded_vocabulary(self) -> Workload:
        """Return the workload with a vocabulary that tensor ranks can divide.

        As in Megatron-LM, to a multiple of 128 rows a rank.
        """
        workload, tensor = self.workload, self.parallel.tensor
        if not workload.family.has_attention or workload.vocab % tensor == 0:
            return workload
        rows = 128 * tensor
        padded = -(-workload.vocab // rows) * rows
        values = workload.__dict__ | {"vocab": padded}
        return Workload.model_construct(workload.model_fields_set, **values)

    @property
    def is_for_cluster(self) -> bool:
        """Tell whether it is about a cluster that it names or is paced to, not this machine."""
        return self.cluster.is_named or self.run.pace is not None

    @property
    def world_size(self) -> int:
        """Number of ranks of all roles."""
        return self.parallel.num_trainers + self.parallel.num_servers

    @cached_property
    def mesh(self) -> Mesh:
        """The device mesh of the plan's degrees: that of the trainers."""
        sizes = {axis: self.parallel.axis_size(axis) for axis in AXES}
        kv = self.workload.kv_ranks(self.parallel.tensor) if self.workload.family.is_llama else 1
        return Mesh(self.parallel.rank_order, kv, **sizes)

    @cached_property
    def roles(self) -> tuple[Role, ...]:
        """The roles of all ranks, in the order of these: trainers first."""
        trainers = Role(TRAINER, self.mesh)
        if not self.parallel.num_servers:
            return (trainers,)
        servers = Mesh(data=self.parallel.num_servers)
        return trainers, Role(SERVER, servers, trainers.ranks.stop)

    def role_of(self, rank: int) -> tuple[Role, dict[str, int]]:
        """Return the role of a global rank, and where the rank is on the mesh of that role.

        Raises:
            ValueError: there is no such rank.
        """
        role = role_among(self.roles, rank)
        return role, role.coordinate(rank)

    @property
    def global_batch(self) -> int:
        """Samples per training step; unset, 4 a microbatch (1 for `unit`) or their given size."""
        if self.workload.global_batch is not None:
            return self.workload.global_batch
        size = self.parallel.microbatch_size or (4 if self.workload.family.has_parameters else 1)
        return self.parallel.batch_shares * self.parallel.microbatches * size

    @property
    def microbatch_size(self) -> int:
        """Samples per microbatch of a replica."""
        return self.global_batch // (self.parallel.batch_shares * self.parallel.microbatches)

    def microbatches_of(self, rank: int) -> range:
        """Return the numbers, in a step's global batch, of the microbatches in a trainer's list."""
        count = self.parallel.listed_microbatches
        replica = 0 if self.parallel.divides_batch else self.mesh.replica(rank)
        return range(replica * count, (replica + 1) * count)

    @property
    def notes(self) -> list[str]:
        """Sentences that say how the experiment was understood, for readers of its results."""
        if not any(getattr(self, table).model_fields_set for table in type(self).model_fields):
            return [
                f"the experiment sets no key, so all have their defaults: {self.workload.model} "
                "on one rank"
            ]
        return [*self._notes_on_sizes, *self._notes_on_experts]

    @property
    def _notes_on_sizes(self) -> list[str]:
        workload, found = self.workload, []
        if workload.size is not None:
            keys = SIZES[workload.size].keys
            other = [
                f"{key} = {getattr(workload, key)} in place of {keys[key]}"
                for key in sorted(workload.model_fields_set & keys.keys())
                if getattr(workload, key) != keys[key]
            ]
            if other:
                found.append(f"workload.size = {workload.size!r} with {', '.join(other)}")
        if self._given_vocab != workload.vocab:
            found.append(
                f"workload.vocab = {self._given_vocab} is padded to {workload.vocab}, a multiple "
                f"of 128 × parallel.tensor = {self.parallel.tensor}, as in Megatron-LM"
            )
        return found

    @property
    def _notes_on_experts(self) -> list[str]:
        parallel = self.parallel
        if parallel.expert == 1:
            return []
        if parallel.expert_inside_data:
            return [
                f"parallel.expert = {parallel.expert} is inside parallel.data = {parallel.data}, "
                f"as in Megatron-LM: {self.world_size} ranks"
            ]
        return [
            f"parallel.expert = {parallel.expert} multiplies the number of ranks: "
            f"{self.world_size}; as in Megatron-LM, inside parallel.data, with "
            "parallel.expert_inside_data = true"
        ]
