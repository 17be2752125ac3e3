"""Attention over a sequence that is split over the ranks of a context group.

Ring: keys and values travel from rank to rank while each attends with its own queries to
those that it has; the parts of the output are merged by their log-sum-exp (Liu et al. 2023,
"Ring Attention with Blockwise Transformers", section 3). Ulysses: an all-to-all turns shares
of the sequence into shares of the heads, and another one back (Jacobs et al. 2023,
"DeepSpeed Ulysses", section 3). `runtime.models.context` has the modules.
"""

from __future__ import annotations

from dataclasses import replace

from simulator.experiment.experiment import Experiment
from simulator.program.operations import Op
from simulator.workloads.attention import Core
from simulator.workloads.layer import Exchange, Layer, Matmul, exchange, linear
from simulator.workloads.transformer import SplitTransformer

SHIFT = Exchange("context", Op.SHIFT, Op.SHIFT_BACK)
REGROUP = Exchange("context", Op.ALL_TO_ALL, Op.ALL_TO_ALL)


def zigzag(experiment: Experiment) -> bool:
    """Tell whether ranks have two chunks of the sequence, one from either end.

    Rank r of c then has chunks r and 2c - 1 - r, so that with a causal mask all ranks have
    equal work (Megatron-LM's context parallelism); else it has chunk r of c.
    """
    style = experiment.parallel.context_style
    return style == "ring" and experiment.workload.family.is_causal


def attention(p: SplitTransformer, whole: int, causal: bool) -> list[Layer]:
    """Return the layers from the input of Q, K and V to this rank's part of the projection."""
    if p.context == 1:
        return [p.attention(whole, causal)]
    return _ring(p, whole, causal) if p.context_style == "ring" else _ulysses(p, whole, causal)


def _ring(p: SplitTransformer, whole: int, causal: bool) -> list[Layer]:
    """Return a ring's layers: step j attends to the keys and values of the j-th rank before.

    Those of the next step come meanwhile, so their shift is listed before the step.
    """
    made = [_matmul(p, whole, "queries", 1), replace(_matmul(p, whole, "keys", 2), reads=(1,))]
    queries, keys, state = 1, 2, 0  # boundaries, counted from the input
    for step in range(p.context):
        here = keys
        if step + 1 < p.context:
            shape, nbytes = made[1].output_shape, made[1].output_bytes
            shift = replace(exchange(SHIFT, shape, nbytes), reads=(len(made) - keys,))
            made.append(shift)
            keys = len(made)
        inputs = (queries, here, state) if step else (queries, here)
        reads = tuple(len(made) - boundary for boundary in inputs)
        made.append(_block(p, whole, step, causal, reads))
        state = len(made)
    return [*made, _projection(p, whole)]


def _matmul(p: SplitTransformer, whole: int, part: str, count: int) -> Layer:
    """Return `count` of Q, K, V of the heads here: (batch, sequence, count × hidden ÷ tensor)."""
    columns = count * p.hidden // p.tensor
    nbytes = p.tokens * columns * p.width
    return Layer(
        kind=f"{part} {p.shape}",
        parameters=p.hidden * columns + columns,
        matmuls=(linear(p.tokens, p.hidden, columns),),
        deferred_bytes=nbytes,
        defers_input=True,
        output_shape=(p.batch, p.sequence, columns),
        output_bytes=nbytes,
        starts_block=False,
        whole=(whole, part),
    )


def _block(
    p: SplitTransformer, whole: int, step: int, causal: bool, reads: tuple[int, ...]
) -> Layer:
    """Return one step of a ring: attention to the keys and values that are here.

    It reads queries, keys with values and, from the second step on, the state: the output of
    the steps so far with its log-sum-exp, (batch × heads, sequence, width of a head + 1). The
    last step puts out the heads side by side, (batch, sequence, hidden ÷ tensor).

    With a causal mask half of every block but the first is in the future of all of its
    queries: half of the queries or half of the keys are left out.
    """
    heads, last = p.batch * p.heads // p.tensor, step == p.context - 1
    head, wide = p.hidden // p.heads, max(p.width, 4)
    seen = p.sequence // (2 if causal and step else 1)
    pairs = p.sequence * seen
    scores = Matmul(p.sequence, seen, head, batch=heads, of_weights=False)
    rows, mixed = heads * p.sequence, p.all_bytes // p.tensor
    shape: tuple[int, ...] = (heads, p.sequence, head + 1)
    nbytes = rows * (head + 1) * wide
    if last:
        shape, nbytes = (p.batch, p.sequence, p.hidden // p.tensor), mixed
    place = "first" if step == 0 else "last" if last else "middle"
    block = Layer(
        kind=f"{'causal' if causal else 'full'}-ring-block-{place} {p.shape} a{p.heads}",
        matmuls=(scores, replace(scores, n=head, k=seen)),
        # Q, K and V copied apart, scores scaled, their log-sum-exp, exponentials; the state.
        moved_bytes=6 * mixed + 6 * heads * pairs * p.width + 4 * rows * (head + 1) * wide,
        kernels=12,
        saved_bytes=heads * pairs * p.width + (rows * wide if step else 0),
        output_shape=shape,
        output_bytes=nbytes,
        starts_block=False,
        reads=reads,
        keeps=(True,) * len(reads),
        whole=(whole, f"block-{step}"),
    )
    if p.form != "recomputed":
        return block
    return replace(  # of its scores it keeps the log-sum-exp
        block,
        kind=f"{block.kind} again",
        saved_bytes=rows * wide,
        recomputed=(scores,),
        recomputed_bytes=4 * mixed + 4 * heads * pairs * p.width,
        recomputed_kernels=6,
    )


def _projection(p: SplitTransformer, whole: int) -> Layer:
    """Return the output projection: (batch, sequence, hidden ÷ tensor) → a part of a sum."""
    columns = p.hidden // p.tensor
    return Layer(
        kind=f"projection {p.shape}",
        parameters=columns * p.hidden,
        matmuls=(linear(p.tokens, columns, p.hidden),),
        deferred_bytes=p.all_bytes,
        defers_input=True,
        output_shape=(p.batch, p.sequence, p.hidden),
        output_bytes=p.all_bytes,
        starts_block=False,
        whole=(whole, "projection"),
    )


def _ulysses(p: SplitTransformer, whole: int, causal: bool) -> list[Layer]:
    """Return the layers of Ulysses; around an all-to-all the first axis of a tensor is the rank."""
    heads = p.heads // p.tensor // p.context
    columns, mixed = p.hidden // p.tensor // p.context, p.all_bytes // p.tensor
    packed = (p.context, p.batch, p.sequence, 3, columns)
    merged = (p.context, p.batch, p.sequence, columns)
    qkv = replace(
        _matmul(p, whole, "packed", 3), moved_bytes=6 * mixed, kernels=1, output_shape=packed
    )
    count, sequence, head = p.batch * heads, p.sequence * p.context, p.hidden // p.heads
    core = Core(p.form, count, sequence, head, p.width, causal)
    scores = count * sequence * sequence * p.width
    mixing = Layer(
        kind=f"{'causal' if causal else 'full'}-ulysses-core {p.shape} a{p.heads}",
        matmuls=core.matmuls,
        moved_bytes=8 * mixed + 2 * scores,  # Q, K, V sorted, softmax, heads sorted
        kernels=3,
        saved_bytes=3 * mixed + scores,
        output_shape=merged,
        output_bytes=mixed,
        starts_block=False,
        keeps=(False,),
        whole=(whole, "core"),
    )
    if p.form == "recomputed":
        mixing = replace(
            mixing,
            kind=f"{mixing.kind} again",
            saved_bytes=0,
            keeps=(True,),
            recomputed=mixing.matmuls,
            recomputed_bytes=mixing.moved_bytes,
            recomputed_kernels=mixing.kernels,
        )
    projection = replace(
        _projection(p, whole),
        kind=f"ulysses-projection {p.shape}",
        moved_bytes=2 * mixed,
        kernels=1,
        saved_bytes=mixed,
        deferred_bytes=mixed + p.all_bytes,
        defers_input=False,
        keeps=(False,),
        whole=(whole, "merged"),
    )
    there = exchange(REGROUP, packed, 3 * mixed)
    return [qkv, there, mixing, exchange(REGROUP, merged, mixed), projection]
