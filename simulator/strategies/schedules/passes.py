"""The vocabulary of schedules: passes, the plan they are ordered for, and updates."""

from __future__ import annotations

from typing import NamedTuple

from simulator.program.operations import Op


class Plan(NamedTuple):
    """The pipeline that a schedule orders the passes of.

    Attributes:
        num_ranks: ranks of the pipeline.
        num_microbatches: microbatches of a training step.
        virtual_stages: stages on each rank.
        costs: (F, I, W) of every stage in any unit, for schedules that are searched for; empty:
            all stages alike.
        p2p: time of every message between stages, in the unit of `costs`.
        memory_limit: how many microbatches' activations of a stage a rank may hold at once.
    """

    num_ranks: int
    num_microbatches: int
    virtual_stages: int = 1
    costs: tuple[tuple[float, float, float], ...] = ()
    p2p: float = 0.0
    memory_limit: float | None = None

    @property
    def num_stages(self) -> int:
        """Stages of the whole pipeline."""
        return self.num_ranks * self.virtual_stages


class Updates(NamedTuple):
    """When weights change within a training step.

    Attributes:
        every: an update comes after so many microbatches.
        delay: None: a forward pass uses the newest weights; else those of `delay` updates
            before the one that its own gradient goes into.
    """

    every: int
    delay: int | None = None


class Pass(NamedTuple):
    """One forward or backward pass of a (virtual) stage for one microbatch."""

    op: Op
    stage: int
    microbatch: int


def forward(stage: int, microbatch: int) -> Pass:
    """Return the forward pass of a stage for a microbatch."""
    return Pass(Op.FORWARD, stage, microbatch)


def backward(stage: int, microbatch: int) -> Pass:
    """Return the whole backward pass of a stage for a microbatch."""
    return Pass(Op.BACKWARD, stage, microbatch)


def backward_input(stage: int, microbatch: int) -> Pass:
    """Return the half of the backward pass that the stage before waits for."""
    return Pass(Op.BACKWARD_INPUT, stage, microbatch)


def backward_weight(stage: int, microbatch: int) -> Pass:
    """Return the half of the backward pass that gives the gradients of the weights."""
    return Pass(Op.BACKWARD_WEIGHT, stage, microbatch)


def once_a_step(plan: Plan) -> Updates:
    """Return the updates of a synchronous schedule: one, after the last microbatch."""
    return Updates(every=plan.num_microbatches)


def incomplete(passes: list[Pass], stages: list[int], num_microbatches: int) -> str | None:
    """Return what is wrong with a rank's passes: each of its stages needs each microbatch once.

    Args:
        passes: those of a rank, in order.
        stages: the stages that it owns.
        num_microbatches: microbatches of a training step.
    """
    found: dict[tuple[int, int], list[str]] = {
        (stage, microbatch): [] for stage in stages for microbatch in range(num_microbatches)
    }
    strangers = []
    for step in passes:
        if (step.stage, step.microbatch) in found:
            found[step.stage, step.microbatch].append(step.op.value)
        else:
            strangers.append(f"{step.stage}{step.op.value}{step.microbatch}")
    for (stage, microbatch), letters in found.items():
        if letters not in (["F", "B"], ["F", "I", "W"]):
            return f"stage {stage}, microbatch {microbatch} has {letters}; allowed: F B, or F I W"
    if strangers:
        last = num_microbatches - 1
        return f"has {strangers[0]}; allowed: stages {stages}, microbatches 0 to {last}"
    return None
