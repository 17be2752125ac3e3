"""Durations of tasks that run alone, whatever their source."""

from __future__ import annotations

from abc import ABC, abstractmethod

from simulator.cluster.cluster import Cluster
from simulator.cluster.timing import Timing
from simulator.experiment.experiment import Experiment
from simulator.program.operations import COLLECTIVES, MESSAGES, Op
from simulator.program.task import Task
from simulator.workloads.describe import Layer, describe


class Durations(ABC):
    """The durations of an experiment's tasks that run alone on a cluster.

    Messages and collectives take what the cluster says; passes what a subclass says.
    """

    def __init__(self, experiment: Experiment, cluster: Cluster) -> None:
        self.experiment, self.cluster = experiment, cluster
        self.layers = describe(experiment)
        self._timings: dict[tuple[int, int], Timing] = {}
        self._collectives: dict[tuple[Op, int, int, str], tuple[Task, Timing]] = {}

    def timing(self, rank: int, task: Task) -> Timing:
        """Return the duration of a task on a rank, and its spread if it was measured."""
        key = (rank, id(task))
        timing = self._timings.get(key)
        if timing is None:
            if task.op in MESSAGES:
                timing = self.message(rank, task)
            elif task.op is Op.ACCEPT:
                timing = Timing.certain(0.0)  # what it takes is that of the request
            elif task.op in COLLECTIVES:
                timing = self._collective(task)
            else:
                timing = self.compute(rank, task)
            self._timings[key] = timing
        return timing

    def _collective(self, task: Task) -> Timing:
        """Return the duration of a collective, asked for once for each group and size."""
        # A group may have thousands of ranks, so it is known by its identity.
        key = (task.op, id(task.group), task.nbytes, task.dtype)
        if key not in self._collectives:
            self._collectives[key] = task, self.collective(task)  # so the group stays where it is
        return self._collectives[key][1]

    def seconds(self, rank: int, task: Task) -> float:
        """Return the mean duration of a task on a rank."""
        return self.timing(rank, task).mean_s

    def layers_of(self, task: Task) -> list[Layer]:
        """Return the layers that a task works on."""
        return self.layers[task.layers[0] : task.layers[1]]

    def notes(self) -> list[str]:
        """Return notes for the reader of a prediction about the durations asked for so far."""
        return []

    @abstractmethod
    def compute(self, rank: int, task: Task) -> Timing:
        """Return the duration of a task that computes."""

    def message(self, rank: int, task: Task) -> Timing:
        """Return the duration of a message once both ranks are ready."""
        return self.cluster.message(rank, task.peer, task.nbytes)

    def collective(self, task: Task) -> Timing:
        """Return the duration of a collective once all ranks of its group are ready."""
        return self.cluster.collective(task.op, task.group, task.nbytes, task.dtype)
