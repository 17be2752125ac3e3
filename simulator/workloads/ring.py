"""Ring attention: keys and values travel from rank to rank, each of which attends to what it has.

The parts of the output are merged by their log-sum-exp (Liu et al. 2023, "Ring Attention with
Blockwise Transformers", section 3). `runtime.models.ring` has the modules.
"""

from __future__ import annotations

from dataclasses import replace

from simulator.program.operations import Op
from simulator.workloads.heads import projection, stream
from simulator.workloads.layer import Exchange, Layer, Matmul, exchange
from simulator.workloads.transformer import SplitTransformer

SHIFT = Exchange("context", Op.SHIFT, Op.SHIFT_BACK)


def ring(p: SplitTransformer, whole: int, causal: bool) -> list[Layer]:
    """Return a ring's layers: step j attends to the keys and values of the j-th rank before.

    Those of the next step come meanwhile, so their shift is listed before the step.
    """
    first = stream(p, whole, "queries")
    result = [*first, *stream(p, whole, "keys", back=len(first))]
    queries, keys, state = len(first), len(result), 0  # boundaries, counted from the input
    shape, nbytes = result[-1].output_shape, result[-1].output_bytes
    for step in range(p.context):
        here = keys
        if step + 1 < p.context:
            shift = replace(exchange(SHIFT, shape, nbytes), reads=(len(result) - keys,))
            result.append(shift)
            keys = len(result)
        inputs = (queries, here, state) if step else (queries, here)
        reads = tuple(len(result) - boundary for boundary in inputs)
        result.append(_block(p, whole, step, causal, reads))
        state = len(result)
    return [*result, projection(p, whole)]


def _block(
    p: SplitTransformer, whole: int, step: int, causal: bool, reads: tuple[int, ...]
) -> Layer:
    """Return one step of a ring: attention to the keys and values that are here.

    It reads queries, keys with values and, from the second step on, the state: the output of
    the steps so far with its log-sum-exp, (batch × heads, sequence, width of a head + 1). The
    last step puts out the heads side by side, (batch, sequence, columns of Q).

    With a causal mask half of every block but the first is in the future of all of its
    queries: half of the queries or half of the keys are left out.
    """
    heads, last, a = p.batch * p.heads // p.tensor, step == p.context - 1, p.anatomy
    wide, group = max(p.width, 4), p.group
    seen = p.sequence // (2 if causal and step else 1)
    pairs = p.sequence * seen
    scores = Matmul(group * p.sequence, seen, a.head, batch=heads // group, of_weights=False)
    rows = heads * p.sequence
    mixed, keys = p.tokens * p.queries * p.width, p.tokens * p.keys * p.width
    shape: tuple[int, ...] = (heads, p.sequence, a.head + 1)
    nbytes = rows * (a.head + 1) * wide
    if last:
        shape, nbytes = (p.batch, p.sequence, p.queries), mixed
    place = "first" if step == 0 else "last" if last else "middle"
    block = Layer(
        kind=f"{'causal' if causal else 'full'}-ring-block-{place} {p.shape} {a.shape}",
        matmuls=(scores, replace(scores, n=a.head, k=seen)),
        # Q, K and V copied apart, scores scaled, their log-sum-exp, exponentials; the state.
        moved_bytes=2 * mixed
        + 4 * keys
        + 6 * heads * pairs * p.width
        + 4 * rows * (a.head + 1) * wide,
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
        recomputed_bytes=2 * mixed + 2 * keys + 4 * heads * pairs * p.width,
        recomputed_kernels=6,
    )
