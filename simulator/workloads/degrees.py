"""Degrees of splitting that a model takes, and the nearest to one that it does not take."""

from __future__ import annotations

import math

from simulator.experiment.experiment import Experiment
from simulator.experiment.hints import divisors_near, nearest_that_works
from simulator.experiment.model_family import models_with
from simulator.experiment.section import ExperimentError
from simulator.workloads.context import zigzag
from simulator.workloads.describe import SPLIT_MODELS


def check_degrees(experiment: Experiment) -> None:
    """Refuse degrees that the model's sizes cannot be divided by.

    Raises:
        ExperimentError: with one line that names key, value, reason and what is allowed.
    """
    workload, parallel = experiment.workload, experiment.parallel
    model, tensor = workload.model, parallel.tensor
    if parallel.expert > 1 and not workload.family.has_experts:
        raise ExperimentError(
            f"parallel.expert = {parallel.expert}: {model} has no experts; allowed: 1, or "
            "workload.model = 'moe-gpt'"
        )
    if parallel.expert > 1:
        _check_divides(
            experiment, "expert", parallel.expert, {"workload.experts": workload.experts}
        )
    if parallel.expert > 1 and parallel.zero_group is not None:
        raise ExperimentError(
            f"parallel.zero_group = {parallel.zero_group}: experts are shared by fewer ranks than "
            "the rest of the model; allowed with parallel.expert > 1: unset"
        )
    if tensor > 1 and model not in SPLIT_MODELS:
        raise ExperimentError(
            f"parallel.tensor = {tensor}: {model} is not split over ranks; allowed: 1, or one of "
            f"the models {', '.join(SPLIT_MODELS)}"
        )
    if tensor > 1 and workload.skips:
        raise ExperimentError(
            f"parallel.tensor = {tensor}: blocks with workload.skips = true are not split over "
            "ranks; allowed: 1"
        )
    if "tensor_style" in parallel.model_fields_set and (model != "mlp" or tensor == 1):
        allowed = "only for workload.model = 'mlp'"
        if model == "mlp":
            allowed = "nothing to split with parallel.tensor = 1; allowed: with parallel.tensor > 1"
        raise ExperimentError(f"parallel.tensor_style = {parallel.tensor_style!r}: {allowed}")
    sizes = {"workload.hidden": workload.hidden, "workload.ffn_hidden": workload.ffn}
    if workload.family.has_attention:
        sizes["workload.heads"] = workload.heads
    if workload.family.is_llama:
        del sizes["workload.hidden"]
    if tensor > 1:
        _check_divides(experiment, "tensor", tensor, sizes)
        _check_keys(experiment, "tensor", tensor, workload.kv_heads or workload.heads)
    _check_context(experiment)
    if not parallel.sequence_parallel:
        return
    if tensor == 1 or not workload.family.has_attention:
        raise ExperimentError(
            "parallel.sequence_parallel = true: shares the norms of transformers over "
            "the ranks of parallel.tensor > 1; allowed: false"
        )
    tokens = experiment.microbatch_size * workload.sequence // parallel.context
    _check_divides(experiment, "tensor", tensor, {"the tokens of a microbatch": tokens})


def _check_context(experiment: Experiment) -> None:
    workload, parallel = experiment.workload, experiment.parallel
    context, style = parallel.context, parallel.context_style
    if "context_style" in parallel.model_fields_set and context == 1:
        raise ExperimentError(
            f"parallel.context_style = {style!r}: nothing to split with parallel.context = 1; "
            "allowed: with parallel.context > 1"
        )
    if context == 1:
        return
    if not workload.family.has_attention:
        names = models_with(lambda family: family.has_attention)
        raise ExperimentError(
            f"parallel.context = {context}: attention of {workload.model} is not split over "
            f"ranks; allowed: 1, or one of the models {', '.join(names)}"
        )
    if zigzag(experiment):
        sizes = {"workload.sequence ÷ 2 (two chunks a rank)": workload.sequence // 2}
        if workload.sequence % 2:
            raise ExperimentError(
                f"parallel.context = {context}: every rank has two chunks of a sequence; "
                f"workload.sequence = {workload.sequence} is odd; "
                + nearest_that_works(experiment, "parallel", "context", [1])
            )
    else:
        sizes = {"workload.sequence": workload.sequence}
    if style == "ulysses":
        each = " ÷ tensor" if parallel.tensor > 1 else ""
        sizes[f"workload.heads{each}"] = workload.heads // parallel.tensor
        keys = max((workload.kv_heads or workload.heads) // parallel.tensor, 1)
        _check_keys(experiment, "context", context, keys)
    _check_divides(experiment, "context", context, sizes)


def _check_keys(experiment: Experiment, key: str, degree: int, heads: int) -> None:
    """Refuse a degree that neither divides so many heads of keys nor is divided by it."""
    if heads % degree and degree % heads:
        fewer = range(degree - 1, 0, -1)
        near = [other for other in fewer if not (heads % other and other % heads)]
        hint = nearest_that_works(experiment, "parallel", key, near)
        raise ExperimentError(
            f"parallel.{key} = {degree}: neither divides nor is a multiple of the {heads} heads of "
            f"keys and values (workload.kv_heads); {hint}"
        )


def _check_divides(experiment: Experiment, key: str, degree: int, sizes: dict[str, int]) -> None:
    """Refuse a degree that does not divide one of `sizes`; name the nearest that works."""
    for name, size in sizes.items():
        if size % degree:
            candidates = divisors_near(math.gcd(*sizes.values()), degree)
            hint = nearest_that_works(experiment, "parallel", key, candidates)
            raise ExperimentError(
                f"parallel.{key} = {degree}: does not divide {name} = {size}; {hint}"
            )
