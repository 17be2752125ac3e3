"""Ulysses: an all-to-all turns shares of the sequence into shares of the heads, another one back.

Source: Jacobs et al. 2023, "DeepSpeed Ulysses", section 3. `runtime.models.ulysses` has the
modules.
"""

from __future__ import annotations

from dataclasses import replace

from simulator.program.operations import Op
from simulator.workloads.heads import made, projection, stream
from simulator.workloads.layer import Exchange, Layer, exchange
from simulator.workloads.transformer import SplitTransformer

REGROUP = Exchange("context", Op.ALL_TO_ALL, Op.ALL_TO_ALL)


def regrouped_keys(keys: int, ranks: int) -> int:
    """Return how many heads of keys Ulysses gives to each context rank.

    Args:
        keys: heads of keys, and of values, of a tensor rank; fewer than ranks are repeated.
        ranks: number of context ranks.
    """
    return max(keys // ranks, 1)


def ulysses(p: SplitTransformer, whole: int, causal: bool) -> list[Layer]:
    """Return the layers of Ulysses; around an all-to-all the first axis of a tensor is the rank.

    Q, K and V travel together where each has the same heads, as in gpt.
    """
    a, each = p.anatomy, p.tokens * p.width
    columns = p.queries // p.context
    key_columns = regrouped_keys(p.keys // a.head, p.context) * a.head
    parts = {"packed": 3 * columns}
    if a.rotary:
        parts = {"queries": columns, "keys": 2 * key_columns}
    result: list[Layer] = []
    for part, here in parts.items():
        if part == "packed":
            before, last = [], made(p, whole, part, p.queries + 2 * p.keys)
        else:
            *before, last = stream(p, whole, part, back=len(result))
        nbytes = each * here * p.context
        shape: tuple[int, ...] = (p.context, p.batch, p.sequence, here)
        if part == "packed":
            shape = (*shape[:3], 3, columns)
        last = replace(
            last,
            kind=f"ulysses-{last.kind}" if a.rotary else last.kind,
            moved_bytes=last.moved_bytes + 2 * nbytes,
            kernels=last.kernels + 1,
            output_shape=shape,
            output_bytes=nbytes,
            whole=(whole, last.whole[1] if part == "packed" else f"sorted-{last.whole[1]}"),
        )
        result += [*before, last, exchange(REGROUP, shape, nbytes)]
    mixing, merged = _mixing(p, whole, causal, columns, key_columns), _merged(p, whole)
    return [*result, mixing, exchange(REGROUP, mixing.output_shape, mixing.output_bytes), merged]


def _mixing(p: SplitTransformer, whole: int, causal: bool, columns: int, key_columns: int) -> Layer:
    """Return attention to the whole sequence with so many columns of Q, and of K."""
    a, each = p.anatomy, p.tokens * p.context * p.width
    mixed, keys, count = each * columns, each * key_columns, p.batch * columns // a.head
    core = replace(
        p.core(whole, causal),
        count=count,
        sequence=p.sequence * p.context,
        group=columns // key_columns,
        rotary=False,
    )
    scores = count * core.sequence**2 * p.width
    inputs = 2 if a.rotary else 1
    mixing = Layer(
        kind=f"{'causal' if causal else 'full'}-ulysses-core {p.shape} {a.shape}",
        matmuls=core.matmuls,
        moved_bytes=4 * mixed + 4 * keys + 2 * scores,  # Q, K, V sorted, softmax, heads sorted
        kernels=3,
        saved_bytes=mixed + 2 * keys + scores,
        output_shape=(p.context, p.batch, p.sequence, columns),
        output_bytes=mixed,
        starts_block=False,
        reads=(3 if a.qk_norm else 2, 0) if a.rotary else (0,),
        keeps=(False,) * inputs,
        whole=(whole, "core"),
    )
    if p.form != "recomputed":
        return mixing
    return replace(
        mixing,
        kind=f"{mixing.kind} again",
        saved_bytes=0,
        keeps=(True,) * inputs,
        recomputed=mixing.matmuls,
        recomputed_bytes=mixing.moved_bytes,
        recomputed_kernels=mixing.kernels,
    )


def _merged(p: SplitTransformer, whole: int) -> Layer:
    """Return the output projection of heads that come from all ranks."""
    mixed, last = p.tokens * p.queries * p.width, projection(p, whole)
    return replace(
        last,
        kind=f"ulysses-{last.kind}",
        moved_bytes=2 * mixed,
        kernels=1,
        saved_bytes=mixed,
        deferred_bytes=mixed + p.all_bytes,
        defers_input=False,
        keeps=(False,),
        whole=(whole, "merged"),
    )
