"""Llama's decoder-only transformer (Touvron et al. 2023; Grattafiori et al. 2024).

Pre-norm blocks with RMS norms, rotary positions, grouped queries and a gated MLP (SwiGLU), without
biases unless `workload.bias` asks for some; no dropout. Mistral's, Qwen's and others' blocks differ
from these in the values of keys. `runtime.models.llama` is the module that computes it.
"""

from __future__ import annotations

from simulator.experiment.experiment import Experiment
from simulator.workloads.blocks import TransformerBlocks, chain
from simulator.workloads.gpt import split_blocks, split_head
from simulator.workloads.layer import Layer
from simulator.workloads.transformer import SplitTransformer
from simulator.workloads.vocabulary import embedding


def layers(experiment: Experiment) -> list[Layer]:
    """Return embedding, then attention and MLP of each block, then the head with its loss.

    Autograd keeps per token what it keeps of gpt, and of the gated MLP both products and what goes
    into the third.
    """
    w, blocks = experiment.workload, TransformerBlocks(experiment, "llama-", pre_norm=True)
    first = blocks.tokens_embedding(w.tie_embeddings)
    halves = [
        half
        for block in range(w.layers)
        for half in (blocks.attention(causal=True, block=block), blocks.mlp())
    ]
    if w.tie_embeddings:
        return chain(first, halves, *blocks.tied_head(2 * w.layers + 1, 0))
    norm = Layer(
        kind=f"llama-head {blocks.shape} v{w.vocab}",
        shapes=blocks.anatomy.norm_shapes,
        moved_bytes=2 * blocks.hidden_bytes,
        kernels=1,
        saved_bytes=blocks.hidden_bytes + blocks.norm_statistics,
        deferred_bytes=blocks.hidden_bytes,
    )
    return chain(first, halves, blocks.head(norm, blocks.tokens, bias=False))


def split_layers(experiment: Experiment) -> list[Layer]:
    """Return the same, cut where ranks must talk (see `simulator.workloads.transformer`)."""
    p, blocks = SplitTransformer.of(experiment), experiment.workload.layers
    first = [embedding(p), *p.leave()]
    return [*first, *split_blocks(p, blocks), *split_head(p, 2 * blocks + 1)]
