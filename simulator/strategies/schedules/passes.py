"""The vocabulary of a schedule."""

from __future__ import annotations

from typing import NamedTuple

from simulator.program.operations import Op


class Plan(NamedTuple):
    """What a schedule is given: a pipeline of `num_ranks` ranks, `virtual_stages` model
    stages on each, and the number of microbatches of a step.

    For schedules that are searched for: `costs`, (F, I, W) of every stage in any unit
    (empty: all alike), `p2p`, of every message in the same unit, and `memory_limit`, how
    many microbatches' activations of a stage a rank may hold at once.
    """

    num_ranks: int
    num_microbatches: int
    virtual_stages: int = 1
    costs: tuple[tuple[float, float, float], ...] = ()
    p2p: float = 0.0
    memory_limit: float | None = None

    @property
    def num_stages(self) -> int:
        return self.num_ranks * self.virtual_stages


class Updates(NamedTuple):
    """How often weights change within a training step.

    `every` microbatches. A forward pass uses the newest weights or, with `delay`, those of
    `delay` updates before the one that its own gradient goes into.
    """

    every: int
    delay: int | None = None


class Pass(NamedTuple):
    """One forward or backward pass of a (virtual) stage for one microbatch."""

    op: Op
    stage: int
    microbatch: int


def forward(stage: int, microbatch: int) -> Pass:
    return Pass(Op.FORWARD, stage, microbatch)


def backward(stage: int, microbatch: int) -> Pass:
    return Pass(Op.BACKWARD, stage, microbatch)


def backward_input(stage: int, microbatch: int) -> Pass:
    return Pass(Op.BACKWARD_INPUT, stage, microbatch)


def backward_weight(stage: int, microbatch: int) -> Pass:
    return Pass(Op.BACKWARD_WEIGHT, stage, microbatch)


def loop(plan: Plan) -> list[int]:
    """The usual placement: stage s on pipeline rank s mod p."""
    return [stage % plan.num_ranks for stage in range(plan.num_stages)]


def vee(plan: Plan) -> list[int]:
    """Two stages a rank, down and up again: rank r owns stages r and 2p-1-r."""
    down = list(range(plan.num_ranks))
    return down + down[::-1]


def one_stage_a_rank(plan: Plan) -> str | None:
    """Why a schedule without virtual stages refuses `plan`, or None."""
    if plan.virtual_stages != 1:
        return f"virtual_stages = {plan.virtual_stages}; allowed: 1"
    return None
