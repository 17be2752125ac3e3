"""The check that all ranks were given the same, before anything else is exchanged."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist

from runtime.executor.errors import ExecutionError
from simulator.experiment.experiment import Experiment


class DisagreementError(ExecutionError):
    """Ranks would run different programs, or run them differently; all of them raise it."""


def check_same_experiment(experiment: Experiment, program_hash: str) -> None:
    """Compare this rank's program and its keys of [run] with those of all others.

    Every rank must call it. Ranks of different hosts read files of their own.

    Raises:
        DisagreementError: they differ; names the values and the ranks that have each.
    """
    mine = {"program hash": program_hash}
    mine |= {f"run.{key}": str(value) for key, value in experiment.run.model_dump().items()}
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, mine)
    difference = first_difference(everyone)
    if difference:
        raise DisagreementError(difference)


def first_difference(everyone: list[dict[str, str]]) -> str | None:
    """Return what ranks differ in, in one line; None if they agree.

    Args:
        everyone: of every rank, in order, its values by what they are called.
    """
    for name in everyone[0]:
        ranks: dict[str, list[int]] = {}
        for rank, values in enumerate(everyone):
            ranks.setdefault(values[name], []).append(rank)
        if len(ranks) > 1:
            each = "; ".join(f"{value} on {_listed(found)}" for value, found in ranks.items())
            return f"the ranks were not given the same experiment: {name} {each}"
    return None


def _listed(ranks: list[int]) -> str:
    """Name ranks; of many the first few."""
    shown = ", ".join(map(str, ranks[:4])) + (", …" if len(ranks) > 4 else "")
    return f"rank {shown}" if len(ranks) == 1 else f"ranks {shown}"
