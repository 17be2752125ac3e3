"""Torch-free descriptions of what is trained, one file a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

from simulator.experiment.experiment import Experiment
from simulator.experiment.parallel import Parallel
from simulator.workloads import alexnet, bert, gpt, llama, mlp, moe_gpt, resnet50, unit, vgg16
from simulator.workloads.layer import Layer

MODELS: dict[str, Callable[[Experiment], list[Layer]]] = {
    "unit": unit.layers,
    "mlp": mlp.layers,
    "gpt": gpt.layers,
    "llama": llama.layers,
    "moe-gpt": moe_gpt.layers,
    "bert": bert.layers,
    "alexnet": alexnet.layers,
    "vgg16": vgg16.layers,
    "resnet50": resnet50.layers,
}


SPLIT_MODELS: dict[str, Callable[[Experiment], list[Layer]]] = {
    "mlp": mlp.split_layers,
    "gpt": gpt.split_layers,
    "llama": llama.split_layers,
    "moe-gpt": moe_gpt.split_layers,
    "bert": bert.split_layers,
}
"""Models whose layers can be cut between ranks."""


def describe(experiment: Experiment) -> list[Layer]:
    """Return the layers of the experiment's model for one microbatch on one rank."""
    return list(_described(experiment))


@lru_cache(maxsize=16)
def _described(experiment: Experiment) -> tuple[Layer, ...]:
    parallel = experiment.parallel
    cut = max(parallel.tensor, parallel.context, parallel.expert) > 1
    models = SPLIT_MODELS if cut else MODELS
    layers = models[experiment.workload.model](experiment)
    if parallel.recompute == "full":  # which gathers whatever it needs again
        layers = [_once(layer) for layer in layers]
    return tuple(layers)


def describe_whole(experiment: Experiment) -> list[Layer]:
    """Return the layers as they are where one rank computes all of a microbatch."""
    parallel = experiment.parallel
    microbatch = experiment.workload.model_copy(update={"global_batch": experiment.microbatch_size})
    alone = Parallel(
        pipeline=parallel.pipeline,
        virtual_stages=parallel.virtual_stages,
        schedule="looped-bfs",  # takes every number of stages; layers do not depend on it
        recompute=parallel.recompute,
    )
    return describe(Experiment(workload=microbatch, parallel=alone, run=experiment.run))


def _once(layer: Layer) -> Layer:
    how = layer.exchange
    return (
        replace(layer, exchange=replace(how, regathered=False)) if how and how.regathered else layer
    )


__all__ = ["MODELS", "SPLIT_MODELS", "Layer", "describe", "describe_whole"]
