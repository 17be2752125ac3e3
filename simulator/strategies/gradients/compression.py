"""Gradients are sent in a smaller form, whatever sums them.

What `simulator.strategies.gradients.all_reduce` has written is rewritten: a reduction becomes an
encoding, the collectives of what was encoded, and a decoding. A bucket is encoded directly behind
its last backward pass, so that it travels beside the passes that follow, and decoded before it is
used. What a codec loses may be fed back: added to what it encodes in the next step (Seide et al.
2014, "1-Bit Stochastic Gradient Descent"; Karimireddy et al. 2019, "Error Feedback Fixes SignSGD").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

from simulator.experiment.parallel import Parallel
from simulator.experiment.section import ExperimentError
from simulator.program.bucket import Bucket
from simulator.program.codecs.codec import Codec, Encoding, Sent, Shape, Values
from simulator.program.codecs.table import CODECS
from simulator.program.operations import Op
from simulator.program.stream import COMPUTE_STREAM
from simulator.program.task import Task
from simulator.program.template import Call, Reference
from simulator.program.tensors import Tensor, TensorName
from simulator.strategies.edits import Edits
from simulator.strategies.gradients.step_calls import StepCalls
from simulator.strategies.lowered import Lowered

REDUCTIONS = (Op.ALL_REDUCE, Op.REDUCE_SCATTER)


def codec_of(parallel: Parallel) -> Codec:
    """Return the codec that a plan asks for, with the keys that it reads."""
    codec = CODECS[parallel.compression]
    return codec(**{field.name: getattr(parallel, field.name) for field in fields(codec)})


@dataclass(frozen=True)
class Exchange:
    """The tasks that take the place of the reduction of a bucket.

    Attributes:
        rounds: of each round the encoding, and then the collectives.
        decoding: makes the sum.
    """

    rounds: tuple[tuple[Task, ...], ...]
    decoding: Task


def compress_gradients(lowered: Lowered) -> Lowered:
    """Let the gradients of every bucket be summed in the form of a codec."""
    experiment = lowered.experiment
    parallel, horizon = experiment.parallel, experiment.run.horizon
    width = experiment.workload.dtype_bytes
    resident: dict[int, dict[str, int]] = {}

    def change(rank: int, calls: list[Call]) -> list[Call]:
        mine = StepCalls(calls, parallel.microbatches)
        places = {call: place for place, call in enumerate(calls)}
        exchanges: dict[Bucket, Exchange] = {}
        kept = 0
        for bucket in lowered.buckets[rank]:
            call, number = mine.last_gradient(0, bucket)
            reduction = call.template.entries[number].task
            if reduction.op in REDUCTIONS:
                encoding = encoding_of(bucket, bucket.nbytes, width, lowered)
                exchanges[bucket] = exchange_of(reduction, encoding, bucket.nbytes)
                kept += encoding.kept_bytes(encoding.values(bucket.nbytes))
        edits = Edits()
        for step in range(parallel.compression_start or 0, horizon):
            reductions = [(mine.last_gradient(step, bucket), bucket) for bucket in exchanges]
            reductions.sort(key=lambda found: _place(found[0], places))
            _compress(reductions, exchanges, step, mine, edits)
        edits.apply()
        resident[rank] = {**lowered.resident[rank], **({"compression": kept} if kept else {})}
        return mine.calls()

    lowered = lowered.with_calls(change)
    return replace(lowered, resident=resident)


def _place(reference: Reference, places: Mapping[Call, int]) -> tuple[int, int]:
    """Return where an entry is in the list of a rank; numbers of entries are in no order."""
    call, number = reference
    return places[call], call.template.order.index(number)


def encoding_of(bucket: Bucket, nbytes: int, width: int, lowered: Lowered) -> Encoding:
    """Return how a bucket is encoded, of which so many bytes are sent without a codec.

    Raises:
        ExperimentError: it cannot be.
    """
    parallel, shapes = lowered.experiment.parallel, tuple[Shape, ...]()
    codec = codec_of(parallel)
    if codec.READS_SHAPES:  # which the checks of the plan have seen
        mine = (layer for segment in bucket.segments for layer in lowered.layers[slice(*segment)])
        shapes = tuple(shape for layer in mine for shape in layer.shapes)
    elif reason := codec.refusal(Values(nbytes // width, width)):
        raise ExperimentError(f"parallel.compression = {parallel.compression!r}: {reason}")
    fed = codec.IS_BIASED if parallel.error_feedback is None else parallel.error_feedback
    return Encoding(codec, width, fed, shapes=shapes)


def exchange_of(reduction: Task, encoding: Encoding, nbytes: int) -> Exchange:
    """Return what takes the place of a reduction of so many bytes."""
    values = encoding.values(nbytes)
    coding = replace(
        reduction,
        op=Op.ENCODE,
        mnemonic="",
        stream=COMPUTE_STREAM,
        nbytes=nbytes,
        reduction="sum",
        frees=(),
    )
    rounds: list[tuple[Task, ...]] = []
    come: tuple[TensorName, ...] = ()
    for number in range(len(encoding.codec.rounds(values))):
        of_round = replace(encoding, round=number)
        tensors = [(sent, _named(sent.label, reduction)) for sent in of_round.sent(values)]
        made = tuple(Tensor(name, sent.nbytes) for sent, name in tensors)
        called = f"ENCODE_{tensors[0][0].label.upper()}" if number else ""
        encode = replace(coding, mnemonic=called, sources=come, allocates=made, encoding=of_round)
        collectives = [_collective(reduction, sent, name) for sent, name in tensors]
        come += tuple(
            task.allocates[0].name if task.allocates else name
            for task, (_, name) in zip(collectives, tensors, strict=True)
        )
        rounds.append((encode, *collectives))
    decode = replace(coding, op=Op.DECODE, sources=come, frees=come, encoding=encoding)
    return Exchange(tuple(rounds), decode)


def _named(label: str, reduction: Task) -> TensorName:
    assert reduction.tensor is not None
    name = TensorName.other(label, reduction.tensor.boundary)
    return name._replace(part=reduction.tensor.part)


def _collective(reduction: Task, sent: Sent, name: TensorName) -> Task:
    """Return the collective of a tensor that was encoded: a sum, or those of all ranks."""
    common = replace(
        reduction,
        op=Op.ALL_REDUCE,
        mnemonic=f"REDUCE_{sent.label.upper()}",
        tensor=name,
        nbytes=sent.nbytes,
        sources=(name,),
        reduction="sum",
        frees=(),
        dtype=sent.dtype if sent.is_summed else "",
    )
    count = len(reduction.group)
    if sent.is_summed and not (sent.is_elementwise and reduction.op is Op.REDUCE_SCATTER):
        return common
    result = _named(f"sum of {sent.label}" if sent.is_summed else f"all {sent.label}", reduction)
    if sent.is_summed:
        part = Tensor(result, sent.nbytes // count)
        return replace(common, op=Op.REDUCE_SCATTER, allocates=(part,), frees=(name,))
    whole = Tensor(result, sent.nbytes * count)
    return replace(
        common,
        op=Op.ALL_GATHER,
        mnemonic=f"GATHER_{sent.label.upper()}",
        nbytes=whole.nbytes,
        allocates=(whole,),
        frees=(name,),
    )


def _compress(
    reductions: Sequence[tuple[Reference, Bucket]],
    exchanges: dict[Bucket, Exchange],
    step: int,
    calls: StepCalls,
    edits: Edits,
) -> None:
    """Put exchanges in the place of the reductions of a step, which are given in order.

    The second round of a bucket comes behind the first one of the bucket after it, so that what it
    waits for travels beside a backward pass.
    """
    pending: tuple[Exchange, list[Reference]] | None = None
    come: list[tuple[Bucket, list[Reference]]] = []
    for (call, number), bucket in reductions:
        exchange = exchanges[bucket]
        backward = call.template.entries[number].waits[0]
        encode, first, *others = exchange.rounds[0]
        encoded = edits.insert((call, backward), encode, None)
        edits.replace(call, number, first)
        edits.wait(call, number, encoded)
        mine = [(call, number)]
        for task in others:
            mine.append(edits.insert((call, number), task, None))
            edits.wait(*mine[-1], encoded)
        come.append((bucket, mine))
        if pending is not None:
            _go_on(*pending, (call, number), edits)
        pending = exchange, mine
    for bucket, mine in come:
        update, exchange = calls.updates(step, bucket)[0], exchanges[bucket]
        done = 1 + (len(mine) > len(exchange.rounds[0]) - 1)
        for encode, *collectives in exchange.rounds[done:]:
            encoded = calls.insert(encode, step, list(mine), before=update)
            mine += [calls.insert(task, step, [encoded], before=update) for task in collectives]
    for bucket, mine in come:
        update = calls.updates(step, bucket)[0]
        calls.insert(exchanges[bucket].decoding, step, mine, before=update)


def _go_on(exchange: Exchange, mine: list[Reference], behind: Reference, edits: Edits) -> None:
    """Insert the second round of an exchange, if there is one; `mine` are its collectives."""
    for encode, *collectives in exchange.rounds[1:2]:
        encoded = edits.insert(behind, encode, None)
        for known in tuple(mine):
            edits.wait(*encoded, known)
        for task in collectives:
            mine.append(edits.insert(behind, task, None))
            edits.wait(*mine[-1], encoded)
