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
    """

    form: Form
    count: int
    sequence: int
    head: int
    width: int
    causal: bool

    @property
    def matmuls(self) -> tuple[Matmul, Matmul]:
        """The products Q·Kᵀ and scores·V.

        A fused kernel computes half of them where a mask is causal.
        """
        fused = self.form == "flash"
        scores = Matmul(
            m=self.sequence,
            n=self.sequence,
            k=self.head,
            batch=self.count,
            of_weights=False,
            fused=fused,
            share=0.5 if fused and self.causal else 1.0,
        )
        return scores, replace(scores, n=self.head, k=self.sequence)

    def into(self, layer: Layer) -> Layer:
        """Return `layer`, whose other work is given, with this core behind its first product.

        The input of the core, Q, K and V side by side, is kept in any case.
        """
        heads_bytes = self.count * self.sequence * self.head * self.width
        scores_bytes = self.count * self.sequence * self.sequence * self.width
        first, *rest = layer.matmuls
        scores, mix = self.matmuls
        layer = replace(layer, matmuls=(first, scores, mix, *rest))
        if self.form == "flash":
            # Q, K and V are read, the output is written; of a row of scores the log-sum-exp is
            # kept. The backward pass computes the scores again: 5 products, 2.5 × the forward
            # pass (Dao 2023, section 4.1).
            return replace(
                layer,
                kind=f"flash {layer.kind}",
                moved_bytes=layer.moved_bytes + 4 * heads_bytes,
                saved_bytes=layer.saved_bytes + self.count * self.sequence * max(self.width, 4),
                recomputed=(scores,),
            )
        # Q, K and V are copied apart, the softmax reads and writes the scores, the heads are
        # merged; the products read and write the rest.
        moved, kernels = 8.0 * heads_bytes + 2.0 * scores_bytes, 5
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
