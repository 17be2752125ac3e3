"""The load of a Mixture of Experts' experts, and the choices of tokens that it drops.

The load of an expert is its share of all choices of tokens, before any are dropped. A run
measures it; for a prediction it is an input: ``workload.routing``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from simulator.experiment.experiment import Experiment
from simulator.experiment.section import ExperimentError
from simulator.experiment.workload import Workload
from simulator.timeline.statistics import ExpertLoad
from simulator.workloads.moe_gpt import capacity

FILE = "file:"
ROUNDING = 1e-6
"""Tolerance by which the shares of a file may miss their sum, if it was written with few digits."""


def check_routing(workload: Workload) -> None:
    """Refuse more choices than experts, and a routing that cannot be.

    A file is read only for a prediction: nothing else needs it.

    Raises:
        ExperimentError: with one line that names key, value and what is allowed.
    """
    if workload.top_k > workload.experts:
        raise ExperimentError(
            f"workload.top_k = {workload.top_k}: more than workload.experts = "
            f"{workload.experts}; allowed: 1 to {workload.experts}"
        )
    path = workload.routing.removeprefix(FILE)
    if workload.routing not in ("uniform", "zipf") and path in ("", workload.routing):
        raise ExperimentError(
            f"workload.routing = {workload.routing!r}: allowed: 'uniform', 'zipf' or 'file:PATH'"
        )
    if "zipf_exponent" in workload.model_fields_set and workload.routing != "zipf":
        raise ExperimentError(
            f"workload.zipf_exponent = {workload.zipf_exponent:g}: only for workload.routing = "
            f"'zipf', not {workload.routing!r}"
        )


def loads_of(workload: Workload) -> list[list[float]]:
    """Return the load that a prediction is for, block by block: a share per expert, together 1.

    A token chooses an expert at most once, so no share is over 1 ÷ top_k.

    Raises:
        ExperimentError: the file cannot be read, or has no such shares.
    """
    if workload.routing.startswith(FILE):
        return _read(workload)
    exponent = workload.zipf_exponent if workload.routing == "zipf" else 0.0
    weights = [rank**-exponent for rank in range(1, workload.experts + 1)]
    return [capped(weights, 1 / workload.top_k)] * workload.layers


def capped(weights: Sequence[float], most: float) -> list[float]:
    """Return shares in proportion to `weights` (largest first), but none over `most`.

    What is over it goes to the others in proportion.
    """
    for full, largest in enumerate(weights):
        rest, total = 1 - full * most, math.fsum(weights[full:])
        if largest * rest <= most * total * (1 + 1e-9):
            return [most] * full + [weight * rest / total for weight in weights[full:]]
    raise ValueError(f"{len(weights)} shares of at most {most:g} cannot make 1")


def dropped_share(load: Sequence[float], capacity_share: float) -> float:
    """Return the share of all choices that find no slot, if every microbatch has this load.

    Args:
        capacity_share: slots of an expert ÷ choices of a microbatch.
    """
    return math.fsum(max(0.0, share - capacity_share) for share in load)


def predicted_routing(experiment: Experiment) -> ExpertLoad:
    """``moe`` of ``twinline predict`` (see ``docs/json.md``).

    In a run the load differs between microbatches, and each that is over capacity drops. So
    for a load averaged over several this is a lower bound (Jensen's inequality).
    """
    w = experiment.workload
    loads = loads_of(w)
    tokens = experiment.microbatch_size * w.sequence // experiment.parallel.context
    choices = tokens * w.top_k
    dropped = [dropped_share(load, capacity(experiment) / choices) for load in loads]
    return ExpertLoad(
        dropped_share=math.fsum(dropped) / w.layers,
        load=[math.fsum(shares) / w.layers for shares in zip(*loads, strict=True)],
        load_of_blocks=loads,
    )


def _read(workload: Workload) -> list[list[float]]:
    """Return one list of shares for all blocks, or a list with one for each."""
    where = f"workload.routing = {workload.routing!r}"
    try:
        read = json.loads(Path(workload.routing.removeprefix(FILE)).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ExperimentError(f"{where}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise ExperimentError(f"{where}: not JSON: {error}") from None
    nested = isinstance(read, list) and all(isinstance(part, list) for part in read)
    loads = read if nested else [read] * workload.layers
    if len(loads) != workload.layers or not all(_numbers(load, workload) for load in loads):
        raise ExperimentError(
            f"{where}: allowed: a list of numbers, one for each of the {workload.experts} "
            f"experts, or {workload.layers} such lists, one for each block"
        )
    most = 1 / workload.top_k
    if not all(0 <= share <= most + ROUNDING for load in loads for share in load):
        raise ExperimentError(
            f"{where}: allowed with top_k = {workload.top_k}: shares from 0 to {most:g}"
        )
    for total in map(math.fsum, loads):
        if abs(total - 1) > ROUNDING:
            raise ExperimentError(f"{where}: the shares add up to {total:g}; allowed: 1")
    return [[float(share) for share in load] for load in loads]


def _numbers(load: Any, workload: Workload) -> bool:
    """Tell whether `load` is a list with a number for each expert."""
    numbers = isinstance(load, list) and all(type(share) in (int, float) for share in load)
    return numbers and len(load) == workload.experts
