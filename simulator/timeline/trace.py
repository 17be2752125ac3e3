"""Timelines as Chrome trace JSON: open them in Perfetto, load them back without loss.

``traceEvents`` is for viewers (microseconds; process = rank, thread = stream, flow arrows
for messages, counters for memory). The top-level key ``twinline`` holds the same spans as
columns in seconds, which is what `load_trace` reads.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from simulator.experiment.roles import name_of_rank
from simulator.program.accept_queue import Decision
from simulator.program.operations import Op
from simulator.program.stream import COMPUTE_STREAM, Stream, StreamKind
from simulator.timeline.statistics import Statistics
from simulator.timeline.timeline import Floats, Integers, Kind, MemoryParts, MemorySamples, Timeline

FORMAT = 2
KIND_TYPES = (Op, str, int, int, Stream, int, int)
STREAM_TYPES = (StreamKind, int, str)


class TraceError(ValueError):
    """The file is not a timeline of ours; the message is one line."""


def save_trace(timeline: Timeline, path: str | Path) -> None:
    """Write `timeline` to `path`, whole or not at all."""
    statistics = {"statistics": timeline.statistics.to_json()} if timeline.statistics else {}
    document = {
        "displayTimeUnit": "ms",
        "twinline": {
            "format": FORMAT,
            "num_ranks": timeline.num_ranks,
            "members": timeline.members,
            "counts": timeline.counts,
            "meta": timeline.meta | statistics,
            "kinds": [list(kind) for kind in timeline.kinds],
            "spans": {
                name: getattr(timeline, name).tolist()
                for name in ("rank", "kind", "microbatch", "step", "posted", "start", "end")
            },
            "decisions": [list(decision) for decision in timeline.decisions],
            "idle": timeline.idle,
            "memory": [
                {
                    "times": sample.times.tolist(),
                    "nbytes": sample.nbytes.tolist(),
                    "peak_parts": sample.peak_parts and list(sample.peak_parts),
                }
                for sample in timeline.memory
            ],
        },
        "traceEvents": _events(timeline),
    }
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(json.dumps(document), encoding="utf-8")
    partial.replace(path)


def load_trace(path: str | Path) -> Timeline:
    """Read a timeline that `save_trace` wrote.

    Raises:
        TraceError: unreadable, truncated, not ours, or inconsistent.
    """
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise TraceError(f"{path}: {error.strerror or error}") from None
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise TraceError(f"{path}: truncated or not JSON: {error}") from None
    ours = document.get("twinline") if isinstance(document, dict) else None
    if not isinstance(ours, dict):
        raise TraceError(f"{path}: not a Twinline trace (no top-level key 'twinline')")
    if ours.get("format") != FORMAT:
        raise TraceError(f"{path}: trace format {ours.get('format')!r}; this reads {FORMAT}")
    try:
        return _timeline(ours)
    except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise TraceError(f"{path}: damaged trace: {type(error).__name__}: {error}") from None


def _timeline(ours: dict[str, Any]) -> Timeline:
    kinds = list(map(_kind, ours["kinds"]))
    spans = ours["spans"]
    rank, kind, microbatch = (_integers(spans[name]) for name in ("rank", "kind", "microbatch"))
    posted, start, end = (_floats(spans[name]) for name in ("posted", "start", "end"))
    columns = (rank, kind, microbatch, posted, start, end)
    step = _integers(spans.get("step", [0] * rank.size))  # traces of before have one step
    if step.min(initial=0) < 0:
        raise ValueError("a span is of a step before the first")
    if len({column.shape for column in (*columns, step)}) != 1:
        raise ValueError("columns of different lengths")
    num_ranks = int(ours["num_ranks"])
    for column, limit in ((rank, num_ranks), (kind, len(kinds))):
        if column.size and not (column.min() >= 0 and column.max() < limit):
            raise ValueError("a span names a rank or kind that does not exist")
    memory = [
        MemorySamples(
            _floats(sample["times"]), _integers(sample["nbytes"]), _parts(sample.get("peak_parts"))
        )
        for sample in ours["memory"]
    ]
    if len(memory) not in (0, num_ranks):
        raise ValueError("memory is not of all ranks")
    if any(sample.times.size != sample.nbytes.size for sample in memory):
        raise ValueError("memory samples of different lengths")
    meta = ours["meta"]
    if not isinstance(meta, dict):
        raise ValueError("meta is not an object")
    meta = dict(meta)
    statistics = Statistics.from_json(meta.pop("statistics")) if "statistics" in meta else None
    members = _integers(ours.get("members", range(num_ranks))).tolist()
    if not len(members) == len(set(members)) == num_ranks:
        raise ValueError("members are not so many different ranks")
    counts = _integers(ours.get("counts", [1] * num_ranks)).tolist()
    if len(counts) != num_ranks or min(counts, default=1) < 1:
        raise ValueError("counts are not of all ranks")
    decisions = [Decision(*_integers(pair).tolist()) for pair in ours.get("decisions", ())]
    idle = _integers(ours.get("idle", [])).tolist()
    named = [*idle, *(span for decision in decisions for span in decision)]
    if named and not 0 <= min(named) <= max(named) < rank.size:
        raise ValueError("a decision names a span that does not exist")
    return Timeline(
        num_ranks,
        kinds,
        *columns,
        decisions=decisions,
        idle=idle,
        memory=memory,
        meta=meta,
        members=members,
        counts=counts,
        statistics=statistics,
        step=step,
    )


def _kind(values: list[Any]) -> Kind:
    """Return the kind that a row of the file holds."""
    kind = Kind(*values)
    named, peer, axis = kind.stream
    kind = kind._replace(op=Op(kind.op), stream=Stream(StreamKind(named), peer, axis))
    for row, types in ((kind, KIND_TYPES), (kind.stream, STREAM_TYPES)):
        if any(type(value) is not of for value, of in zip(row, types, strict=True)):
            raise ValueError("a kind's field has the wrong type")
    return kind


def _parts(values: list[Any] | None) -> MemoryParts | None:
    if values is None:
        return None
    return MemoryParts(*_integers(values).tolist())


def _integers(values: list[Any]) -> Integers:
    if any(type(value) is not int for value in values):
        raise ValueError("a column of integers has something else in it")
    return np.array(values, dtype=np.int64)


def _floats(values: list[Any]) -> Floats:
    if any(type(value) not in (int, float) for value in values):
        raise ValueError("a column of times has something else in it")
    column = np.array(values, dtype=np.float64)
    if not np.isfinite(column).all():
        raise ValueError("a time is not a number")
    return column


def _events(timeline: Timeline) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    threads: dict[tuple[int, Stream], int] = {}
    roles = timeline.roles
    for rank in timeline.members:
        name = name_of_rank(roles, rank)
        events.append({"ph": "M", "name": "process_name", "pid": rank, "args": {"name": name}})
    sends: dict[tuple[int, int], list[int]] = {}
    receives: dict[tuple[int, int], list[int]] = {}
    arrows = [_direction(timeline, decision) for decision in timeline.decisions]
    notes = _notes(timeline)
    by_arrival = {span for arrow in arrows for span in arrow}
    for span in range(len(timeline)):
        kind = timeline.kinds[timeline.kind[span]]
        rank, microbatch = timeline.members[timeline.rank[span]], int(timeline.microbatch[span])
        step = int(timeline.step[span])
        thread = _thread(events, threads, rank, kind.stream)
        start, end = float(timeline.start[span]), float(timeline.end[span])
        events.append(
            {
                "ph": "X",
                "name": kind.label(microbatch, step),
                "cat": kind.op,
                "pid": rank,
                "tid": thread,
                "ts": start * 1e6,
                "dur": max(end - start, 0.0) * 1e6,
                "args": {
                    "stage": kind.stage,
                    "step": step,
                    "microbatch": microbatch,
                    "bytes": kind.nbytes,
                    "waited_us": (start - float(timeline.posted[span])) * 1e6,
                    **notes.get(span, {}),
                },
            }
        )
        if span in by_arrival:
            continue
        if kind.op is Op.SEND:
            sends.setdefault((rank, kind.peer), []).append(span)
        elif kind.op is Op.RECV:
            receives.setdefault((kind.peer, rank), []).append(span)
    for pair, from_spans in sends.items():
        arrows += zip(from_spans, receives.get(pair, []), strict=False)
    for number, (sent, received) in enumerate(arrows, 1):
        events += _arrow(timeline, threads, number, sent, received)
    for rank, sample in zip(timeline.members, timeline.memory, strict=False):
        for time, nbytes in zip(sample.times.tolist(), sample.nbytes.tolist(), strict=True):
            events.append(
                {
                    "ph": "C",
                    "name": "memory",
                    "pid": rank,
                    "ts": time * 1e6,
                    "args": {"bytes": nbytes},
                }
            )
    return events


def _direction(timeline: Timeline, decision: Decision) -> tuple[int, int]:
    """Return the span that sends and the one that receives, of two that met by arrival."""
    sends = timeline.kinds[timeline.kind[decision.request]].op is Op.SEND
    return (decision.request, decision.accept) if sends else decision


def _notes(timeline: Timeline) -> dict[int, dict[str, Any]]:
    """Return, by span, what arrival decided about it."""
    steps, notes = timeline.of_kind(lambda kind: kind.op is Op.OPTIMIZER_STEP), dict[int, Any]()
    notes |= {n: {"update_due" if steps[n] else "has_work": False} for n in timeline.idle}
    for accept, request in timeline.decisions:
        rank = timeline.members[timeline.rank[request]]
        notes[accept] = {"serves": f"rank {rank}: {timeline.label(request)}"}
    return notes


def _thread(
    events: list[dict[str, Any]], threads: dict[tuple[int, Stream], int], rank: int, stream: Stream
) -> int:
    """Return the thread number of a stream: compute is 0, the others in order of appearance."""
    key = (rank, stream)
    if key not in threads:
        used = sum(1 for other, name in threads if other == rank and name != COMPUTE_STREAM)
        threads[key] = 0 if stream == COMPUTE_STREAM else used + 1
        events.append(
            {
                "ph": "M",
                "name": "thread_name",
                "pid": rank,
                "tid": threads[key],
                "args": {"name": str(stream)},
            }
        )
    return threads[key]


def _arrow(
    timeline: Timeline,
    threads: dict[tuple[int, Stream], int],
    number: int,
    sent: int,
    received: int,
) -> list[dict[str, Any]]:
    ends = []
    for phase, span, time in (("s", sent, timeline.start), ("f", received, timeline.end)):
        kind, rank = timeline.kinds[timeline.kind[span]], timeline.members[timeline.rank[span]]
        event: dict[str, Any] = {
            "ph": phase,
            "id": number,
            "name": "message",
            "cat": "message",
            "pid": rank,
            "tid": threads[rank, kind.stream],
            "ts": float(time[span]) * 1e6,
        }
        if phase == "f":
            event["bp"] = "e"
        ends.append(event)
    return ends
