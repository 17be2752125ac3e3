"""Q, K and V as layers of their own, and what is made of the heads behind them.

Attention is cut so where keys travel (`ring`, `ulysses`), and where keys have other copies than
queries. `runtime.models.heads` has the modules.
"""

from __future__ import annotations

from dataclasses import replace

from simulator.workloads.attention import ROTATED, ROTATIONS
from simulator.workloads.layer import REPLICATED, Layer, linear, linear_shapes
from simulator.workloads.transformer import EVERYWHERE, SplitTransformer


def made(p: SplitTransformer, whole: int, part: str, columns: int, back: int = 0) -> Layer:
    """Return Q, or K and V, or all of them, of the heads here: (batch, sequence, columns).

    Args:
        p: the plan.
        whole: index of the whole layer.
        part: "queries", "keys" or "packed".
        columns: those of this rank.
        back: boundaries since the input.
    """
    nbytes, a = p.tokens * columns * p.width, p.anatomy
    moved, kernels = (0, 0) if a.qk_norm else _turning(p, part)
    return Layer(
        kind=f"{part} {p.shape} {a.shape}" if a.rotary else f"{part} {p.shape}",
        shapes=linear_shapes(p.hidden, columns, a.qkv_bias),
        matmuls=(linear(p.tokens, p.hidden, columns),),
        moved_bytes=moved,
        kernels=kernels,
        deferred_bytes=nbytes,
        defers_input=True,
        output_shape=(p.batch, p.sequence, columns),
        output_bytes=nbytes,
        starts_block=False,
        reads=(back,),
        sums_over=p.keys_sums if part == "keys" else REPLICATED,
        whole=(whole, part),
    )


def _turning(p: SplitTransformer, part: str) -> tuple[int, int]:
    """Return bytes moved and kernels where queries or keys are turned by their positions."""
    if not p.anatomy.rotary:
        return 0, 0
    if part == "queries":
        return ROTATED * p.tokens * p.queries * p.width, ROTATIONS
    # Keys that were turned and values are put side by side again.
    return (ROTATED + 4) * p.tokens * p.keys * p.width, ROTATIONS + 1


def stream(p: SplitTransformer, whole: int, part: str, back: int = 0) -> list[Layer]:
    """Return the layers that make Q, or K with V, as attention needs them.

    The norm of heads is a layer of its own: each tensor rank has only its own heads' part of the
    gradient of the weights.
    """
    columns = p.queries if part == "queries" else 2 * p.keys
    product = made(p, whole, part, columns, back)
    if not p.anatomy.qk_norm:
        return [product]
    normed = p.queries if part == "queries" else p.keys
    moved, kernels = _turning(p, part)
    norm = Layer(
        kind=f"normed-{product.kind}",
        shapes=((p.anatomy.head,),),
        moved_bytes=2 * p.tokens * normed * p.width + moved,
        kernels=1 + kernels,
        saved_bytes=p.tokens * normed // p.anatomy.head * p.wide,
        output_shape=product.output_shape,
        output_bytes=product.output_bytes,
        starts_block=False,
        sums_over=(*REPLICATED, "tensor"),
        copied_over=EVERYWHERE,
        whole=(whole, f"normed-{part}"),
    )
    return [product, norm]


def apart(p: SplitTransformer, whole: int, causal: bool) -> list[Layer]:
    """Return Q, K with V, and what attends, apart: not all of them have the same copies."""
    queries = stream(p, whole, "queries")
    keys = stream(p, whole, "keys", back=len(queries))
    core = replace(p.core(whole, causal), rotary=False)
    copies = p.form == "kept"  # of Q, K and V, head by head; else they are kept as they come
    mixed = p.tokens * p.queries * p.width
    bare = Layer(
        kind=f"{'causal' if causal else 'full'}-mixed {p.shape} {p.anatomy.shape}",
        shapes=linear_shapes(p.queries, p.hidden, bias=False),
        matmuls=(linear(p.tokens, p.queries, p.hidden),),
        saved_bytes=mixed + copies * (mixed + 2 * p.tokens * p.keys * p.width),
        deferred_bytes=mixed + p.all_bytes,
        output_shape=(p.batch, p.sequence, p.hidden),
        output_bytes=p.all_bytes,
        starts_block=False,
        reads=(len(keys), 0),
        keeps=(not copies, not copies),
        whole=(whole, "mixed"),
    )
    return [*queries, *keys, core.into(bare, before=0)]


def projection(p: SplitTransformer, whole: int) -> Layer:
    """Return the output projection: (batch, sequence, columns of Q) → a part of a sum."""
    return Layer(
        kind=f"projection {p.shape}" + (f" {p.anatomy.shape}" if p.anatomy.rotary else ""),
        shapes=linear_shapes(p.queries, p.hidden, bias=False),
        matmuls=(linear(p.tokens, p.queries, p.hidden),),
        deferred_bytes=p.all_bytes,
        defers_input=True,
        output_shape=(p.batch, p.sequence, p.hidden),
        output_bytes=p.all_bytes,
        starts_block=False,
        whole=(whole, "projection"),
    )
