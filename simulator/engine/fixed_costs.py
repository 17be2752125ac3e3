"""Costs that nothing changes: durations an experiment states, or those a run is paced to."""

from __future__ import annotations

from simulator.cluster.resource import Resource
from simulator.cluster.timing import Timing
from simulator.engine.durations import Durations
from simulator.engine.questions import Costs, seconds_by_task
from simulator.engine.rank_speeds import RankSpeeds
from simulator.program.instruction import Instruction
from simulator.program.operation_columns import Formula
from simulator.program.operations import Op
from simulator.program.program import Program
from simulator.program.task import Task
from simulator.workloads.layer import Layer


class UnitDurations(Durations):
    """Durations of the model `unit`: the seconds that the experiment states."""

    def compute(self, rank: int, task: Task) -> Timing:
        """Return the stated seconds of all layers of a pass."""
        return Timing.certain(sum(_stated(task.op, layer) for layer in self.layers_of(task)))

    def message(self, rank: int, task: Task) -> Timing:
        """Return ``workload.p2p``, whatever the message holds."""
        return Timing.certain(self.experiment.workload.p2p)


class FixedCosts(Costs):
    """Durations times `pace`, with no host time and nothing shared.

    A paced run stretches instructions until these limits of its own machine do not show, so its
    prediction has none.
    """

    def __init__(self, durations: Durations, pace: float = 1.0) -> None:
        self.durations, self.pace = durations, pace
        self.speeds = RankSpeeds(durations.experiment)
        self.capacities: dict[Resource, float] = {}

    def seconds(self, instruction: Instruction) -> float:
        """Return the stretched duration of an instruction."""
        seconds = self.pace * self.durations.seconds(instruction.rank, instruction.task)
        return seconds * self.speeds.factor(instruction)

    def all_seconds(self, program: Program) -> list[float]:
        """Return the stretched duration of every instruction, asked for once for each task."""
        of_tasks = seconds_by_task(
            program, lambda rank, task: self.pace * self.durations.seconds(rank, task)
        )
        return self.speeds.scaled(program, of_tasks)

    def all_delays(self, program: Program) -> list[float]:
        """Return zeros: nothing waits to be woken."""
        return [0.0] * len(program)

    def are_alike(self) -> bool:
        """True where a duration depends on the rank and the task alone, not on the step."""
        return not self.speeds.vary


def _stated(op: Op, layer: Layer) -> float:
    forward, backward_input, backward_weight = layer.seconds or (0.0, 0.0, 0.0)
    seconds = {
        Formula.FORWARD: forward,
        Formula.INPUT_GRADIENT: backward_input,
        Formula.WEIGHT_GRADIENT: backward_weight,
    }
    return sum(seconds[part] for part in op.row.cost)
