"""The layers that a plan gives to each rank: stages with their blocks and parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from simulator.experiment.experiment import Experiment
from simulator.strategies.lowering import layers_of_stages
from simulator.workloads.describe import describe, describe_whole

EMBEDDED = frozenset({"gpt", "llama", "moe-gpt", "bert"})
"""Models with an embedding before the first block and a head behind the last one."""


@dataclass(frozen=True)
class StageContents:
    """The part of a stage that one rank has.

    Attributes:
        stage: its number.
        first_block, last_block: of the model, as ``parallel.split`` counts them, from 0.
        embedding, head: whether the stage has them, too.
        parameters: how many of them this rank has (its part, where tensors or experts are
            split), before ZeRO shards them.
    """

    stage: int
    first_block: int
    last_block: int
    embedding: bool
    head: bool
    parameters: int


def model_parameters(experiment: Experiment) -> int:
    """Return the number of parameters of the whole model."""
    layers = describe_whole(experiment)
    copies = [layer.parameters for layer in layers if layer.tied][1:]
    return sum(layer.parameters for layer in layers) - sum(copies)


def contents_of_ranks(experiment: Experiment) -> list[tuple[StageContents, ...]]:
    """Return for each pipeline rank what it has of each of its stages."""
    layers = describe(experiment)
    block, blocks = -1, []
    for number, layer in enumerate(layers):
        block += layer.starts_block or number == 0
        blocks.append(block)
    embedded = experiment.workload.model in EMBEDDED
    return [
        tuple(
            StageContents(
                stage=stage,
                first_block=blocks[first],
                last_block=blocks[last - 1],
                embedding=embedded and first == 0,
                head=embedded and last == len(layers),
                parameters=sum(layer.parameters for layer in layers[first:last]),
            )
            for stage, (first, last) in owned.items()
        )
        for owned in layers_of_stages(experiment)
    ]


def describe_stages(stages: Sequence[StageContents]) -> str:
    """Return the contents of a rank as a person reads them: ``embedding, blocks 0–7``."""
    return "; ".join(map(_described, stages))


def _described(stage: StageContents) -> str:
    first, last = stage.first_block, stage.last_block
    blocks = f"block {first}" if first == last else f"blocks {first}–{last}"
    names = ["embedding"] * stage.embedding + [blocks] + ["head"] * stage.head
    return ", ".join(names)
