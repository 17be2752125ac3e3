"""Rotary positions: pairs of a head's values are turned by angles that grow with the position."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from simulator.experiment.workload import Workload
from simulator.workloads.anatomy import Anatomy

SLOW, FAST = 1.0, 4.0
"""Turns within the original sequence below which a pair is scaled, and from which it is not."""


class Rotary(nn.Module):
    """Turns heads by their positions (Su et al. 2021, "RoFormer", section 3.2.2).

    Pair i is values i and i + head ÷ 2, as in Hugging Face's and Megatron-LM's code.

    Args:
        workload: says the size of a head and the base of the wavelengths.
        positions: those of the tokens of a sequence that are here, (tokens,).
    """

    def __init__(self, workload: Workload, positions: Tensor):
        super().__init__()
        self.head = Anatomy.of(workload).head
        angles = positions.double().outer(frequencies(workload))
        angles = torch.cat([angles, angles], dim=1).unsqueeze(1)
        self.register_buffer("cosine", angles.cos(), persistent=False)
        self.register_buffer("sine", angles.sin(), persistent=False)

    def turn(self, x: Tensor) -> Tensor:
        """Turn (batch, tokens, heads, head); the backward pass needs nothing of it."""
        cosine: Tensor = self.cosine  # type: ignore[assignment]
        sine: Tensor = self.sine  # type: ignore[assignment]
        first, second = x.chunk(2, dim=-1)
        return torch.addcmul(x * cosine, torch.cat([-second, first], dim=-1), sine)


def frequencies(workload: Workload) -> Tensor:
    """Return the angle that each pair of a head turns by from one position to the next.

    Scaling divides them by a factor: all of them (Chen et al. 2023, "Extending Context Window of
    Large Language Models via Positional Interpolation"), or those with a wavelength above a fourth
    of the original sequence wholly, those below one of it not at all, and others in between, as
    Llama 3.1 does (Meta's llama-models, `apply_scaling`).
    """
    head, factor = Anatomy.of(workload).head, workload.rope_factor
    plain = workload.rope_theta ** (-torch.arange(0, head, 2, dtype=torch.float64) / head)
    if workload.rope_scaling == "none":
        return plain
    if workload.rope_scaling == "linear":
        return plain / factor
    turns = workload.rope_original * plain / (2 * math.pi)
    kept = ((turns - SLOW) / (FAST - SLOW)).clamp(0, 1)
    return kept * plain + (1 - kept) * plain / factor
