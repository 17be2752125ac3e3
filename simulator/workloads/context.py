"""Attention over a sequence that is split over the ranks of a context group."""

from __future__ import annotations

from simulator.experiment.experiment import Experiment
from simulator.workloads.heads import apart
from simulator.workloads.layer import Layer
from simulator.workloads.ring import ring
from simulator.workloads.transformer import SplitTransformer
from simulator.workloads.ulysses import ulysses


def zigzag(experiment: Experiment) -> bool:
    """Tell whether ranks have two chunks of the sequence, one from either end.

    Rank r of c then has chunks r and 2c - 1 - r, so that with a causal mask all ranks have
    equal work (Megatron-LM's context parallelism); else it has chunk r of c.
    """
    style = experiment.parallel.context_style
    return style == "ring" and experiment.workload.family.is_causal


def attention(p: SplitTransformer, whole: int, causal: bool) -> list[Layer]:
    """Return the layers from the input of Q, K and V to this rank's part of the projection."""
    if p.context > 1:
        return ring(p, whole, causal) if p.context_style == "ring" else ulysses(p, whole, causal)
    return apart(p, whole, causal) if p.is_apart else [p.attention(whole, causal)]
