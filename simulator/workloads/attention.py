"""The core of attention, between Q, K, V and the merged heads, in its three forms."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from simulator.experiment.experiment import Experiment
from simulator.workloads.layer import Layer, Matmul

Form = Literal["kept", "recomputed", "flash"]
"""Ways to compute the core of attention, by what is kept of it for the backward pass.

* kept: softmax(Q·Kᵀ)·V step by step; the softmax's output is kept.
* recomputed: the same, but it is not kept, and the core runs again in the backward pass
  ("selective activation recomputation", Korthikanti et al. 2022, section 5).
* flash: one kernel that never writes the scores (Dao 2023, "FlashAttention-2", section 3.1).
"""


ROTATED, ROTATIONS = 8, 4
"""Times that a rotation by positions reads or writes a value, and its kernels: half of the values
are negated, halves are swapped, both are weighted and added."""


def form(experiment: Experiment) -> Form:
    """Return the form in which `experiment` computes attention."""
    if experiment.workload.attention == "flash":
        return "flash"
    return "recomputed" if experiment.parallel.recompute == "selective" else "kept"


@dataclass(frozen=True)
class Core:
    """The core of attention of `count` heads, each `sequence` tokens of `head` values.

    Attributes:
        count: heads of all samples together.
        width: bytes of a value.
        causal: a token attends to those before it only.
        group: heads of queries that share a head of keys and values.
        rotary: queries and keys are turned by their positions before they meet.
        window: tokens that a token attends to, itself included; None: all that it may.
    """

    form: Form
    count: int
    sequence: int
    head: int
    width: int
    causal: bool
    group: int = 1
    rotary: bool = False
    window: int | None = None

    @property
    def matmuls(self) -> tuple[Matmul, Matmul]:
        """The products Q·Kᵀ and scores·V.

        A fused kernel leaves out what a mask hides; where it is causal, without a window, half.
        """
        fused = self.form == "flash"
        scores = Matmul(
            m=self.group * self.sequence,
            n=self.sequence,
            k=self.head,
            batch=self.count // self.group,
            of_weights=False,
            fused=fused,
            share=self.share if fused else 1.0,
        )
        return scores, replace(scores, n=self.head, k=self.sequence)

    @property
    def share(self) -> float:
        """The part of all pairs of tokens that the mask leaves: w·s − w²÷2 of s² in a window."""
        part = min(self.window or self.sequence, self.sequence) / self.sequence
        return part * (1 - part / 2) if self.causal else 1.0

    def into(self, layer: Layer, before: int = 1) -> Layer:
        """Return `layer`, whose other work is given, with this core among its products.

        The input of the core, Q, K and V, is kept in any case.

        Args:
            layer: the layer without the core.
            before: how many of its products come first.
        """
        queries = self.count * self.sequence * self.head * self.width
        keys = queries // self.group
        scores_bytes = self.count * self.sequence * self.sequence * self.width
        scores, mix = self.matmuls
        products = (*layer.matmuls[:before], scores, mix, *layer.matmuls[before:])
        layer = replace(layer, matmuls=products)
        turned, turns = 0, 0
        if self.rotary:  # what is turned is new; V is copied, or it would keep Q and K of before
            turned, turns = ROTATED * (queries + keys) + 2 * keys, ROTATIONS + 1
        if self.form == "flash":
            # Q, K and V are read, the output is written; of a row of scores the log-sum-exp is
            # kept. The backward pass computes the scores again: 5 products, 2.5 × the forward
            # pass (Dao 2023, section 4.1).
            moved = 2.0 * queries + 2.0 * keys + turned
            return replace(
                layer,
                kind=f"flash {layer.kind}" + (f" w{self.window}" if self.share < 0.5 else ""),
                moved_bytes=layer.moved_bytes + moved,
                kernels=layer.kernels + turns,
                saved_bytes=layer.saved_bytes + self.count * self.sequence * max(self.width, 4),
                recomputed=(scores,),
            )
        # Q, K and V are copied apart, the softmax reads and writes the scores, the heads are
        # merged; the products read and write the rest.
        moved = 4.0 * queries + 4.0 * keys + 2.0 * scores_bytes + turned
        kernels = 5 + turns
        layer = replace(
            layer, moved_bytes=layer.moved_bytes + moved, kernels=layer.kernels + kernels
        )
        if self.form == "kept":
            return replace(layer, saved_bytes=layer.saved_bytes + scores_bytes)
        return replace(
            layer,
            kind=f"{layer.kind} again",
            recomputed=(scores, mix),
            recomputed_bytes=moved,
            recomputed_kernels=kernels,
        )
