"""Replicas with parameters of their own send how much these have changed, in a smaller form.

What is encoded is the difference to the parameters that all replicas had when they were last equal:
those before the period, which an outer optimizer keeps anyway (Douillard et al. 2024, "Streaming
DiLoCo", section 2.3, sends it in 4 bits). The mean of what was sent, added to these, takes the
place of the average.
"""

from __future__ import annotations

from dataclasses import replace

from simulator.program.operations import Op
from simulator.program.task import Task
from simulator.program.template import Call, Entry, Reference, Template
from simulator.program.tensors import TensorKind, TensorName
from simulator.strategies.gradients.compression import Exchange, encoding_of, exchange_of
from simulator.strategies.gradients.replicas import exchanged_width
from simulator.strategies.lowered import Lowered


def compress_averages(lowered: Lowered) -> Lowered:
    """Let the parameters of every bucket be averaged in the form of a codec."""
    experiment = lowered.experiment
    parallel, width = experiment.parallel, exchanged_width(experiment)
    start = parallel.compression_start or 0
    keeps_reference = parallel.data_style != "diloco"
    resident: dict[int, dict[str, int]] = {}

    def change(rank: int, calls: list[Call]) -> list[Call]:
        buckets = {bucket.weights: bucket for bucket in lowered.buckets[rank]}
        exchanges: dict[TensorName, Exchange] = {}
        templates: dict[Template, Template] = {}
        decoding: dict[Call, Task] = {}
        kept = 0
        for call in calls:
            task = call.template.entries[0].task
            if not _averages(task) or call.step < start:
                continue
            assert task.tensor is not None
            if task.tensor not in exchanges:
                encoding = encoding_of(buckets[task.tensor], task.nbytes, width, lowered)
                exchanges[task.tensor] = exchange_of(task, encoding, task.nbytes)
                kept += encoding.kept_bytes(encoding.values(task.nbytes))
                kept += keeps_reference * task.nbytes
            exchange = exchanges[task.tensor]
            if call.template not in templates:
                templates[call.template] = _encoded(call.template, exchange)
            call.template = templates[call.template]
            decoding[call] = exchange.decoding
        resident[rank] = {**lowered.resident[rank], **({"compression": kept} if kept else {})}
        return _with_decodings(calls, decoding)

    lowered = lowered.with_calls(change)
    return replace(lowered, resident=resident)


def _averages(task: Task) -> bool:
    """Tell whether a task averages parameters over replicas."""
    kind = task.tensor.kind if task.tensor else None
    return task.op is Op.ALL_REDUCE and task.reduction == "mean" and kind is TensorKind.PARAMETERS


def _encoded(template: Template, exchange: Exchange) -> Template:
    """Return what takes the place of an average, but for the decoding."""
    average = template.entries[0]
    entries: list[Entry] = []
    waits = average.waits
    for encode, *collectives in exchange.rounds:
        entries.append(Entry(encode, waits, average.shift))
        encoded = len(entries) - 1
        entries += [Entry(task, (encoded,), average.shift) for task in collectives]
        waits = tuple(range(encoded + 1, len(entries)))
    return Template(entries)


def _with_decodings(calls: list[Call], decoding: dict[Call, Task]) -> list[Call]:
    """Return calls in which what was sent is decoded before anything waits for its average."""
    left = dict(decoding)
    built: list[Call] = []
    for call in calls:
        for other, _ in call.arguments:
            if other in left:
                built.append(_decoded(other, left.pop(other)))
        built.append(call)
    return built + [_decoded(call, task) for call, task in left.items()]


def _decoded(call: Call, task: Task) -> Call:
    """Return the decoding of what a call sends, which waits for all of it."""
    sent: list[Reference] = [
        (call, number)
        for number, entry in enumerate(call.template.entries)
        if entry.task.op is not Op.ENCODE
    ]
    decoded = Call.of_task(task, -1, sent)
    decoded.step = call.step
    return decoded
