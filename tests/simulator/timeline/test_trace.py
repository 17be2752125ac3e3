"""Traces: no loss, no damage unnoticed, and well-formed for viewers."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parameter_server import server_program
from simulator import load, predict
from simulator.cluster.resolve import resolve
from simulator.engine.engine import simulate
from simulator.program.accept_queue import Decision
from simulator.program.arrival import FirstCome
from simulator.program.operations import Op
from simulator.program.stream import COMPUTE_STREAM, Stream
from simulator.timeline.timeline import Kind, MemoryParts, MemorySamples, Timeline
from simulator.timeline.trace import TraceError, load_trace, save_trace
from table_costs import TableCosts

COLUMNS = ("rank", "kind", "microbatch", "posted", "start", "end")

times = st.floats(allow_nan=False, allow_infinity=False)
integers = st.integers(-(2**63), 2**63 - 1)
kinds = st.builds(
    Kind,
    op=st.sampled_from([Op.FORWARD, Op.SEND, Op.RECV, Op.ALL_REDUCE]),
    name=st.sampled_from(["F", 'µ "quoted"\n', ""]),
    stage=st.integers(-1, 9),
    segment=st.integers(-1, 9),
    stream=st.sampled_from([COMPUTE_STREAM, Stream.send(1), Stream.along("data")]),
    peer=st.integers(-1, 2),
    nbytes=integers,
)


@st.composite
def timelines(draw) -> Timeline:
    table = draw(st.lists(kinds, min_size=1, max_size=4))
    num_ranks, count = draw(st.integers(1, 3)), draw(st.integers(0, 6))

    def column(values, dtype):
        return np.array(draw(st.lists(values, min_size=count, max_size=count)), dtype=dtype)

    memory = [
        MemorySamples(
            np.array([time for time, _ in samples], dtype=np.float64),
            np.array([nbytes for _, nbytes in samples], dtype=np.int64),
            draw(st.none() | st.builds(MemoryParts, *[st.integers(0, 2**62)] * 5)),
        )
        for samples in draw(
            st.lists(
                st.lists(st.tuples(times, integers), max_size=3),
                min_size=num_ranks,
                max_size=num_ranks,
            )
        )
    ]
    spans = st.integers(0, max(count - 1, 0))
    met = st.lists(st.builds(Decision, spans, spans), max_size=3 if count else 0)
    return Timeline(
        num_ranks,
        table,
        column(st.integers(0, num_ranks - 1), np.int64),
        column(st.integers(0, len(table) - 1), np.int64),
        column(st.integers(-1, 5), np.int64),
        *(column(times, np.float64) for _ in range(3)),
        memory=memory if draw(st.booleans()) else [],
        meta=draw(st.dictionaries(st.text(max_size=2), times | st.none() | st.text(max_size=2))),
        decisions=draw(met),
        idle=draw(st.lists(spans, max_size=3 if count else 0)),
    )


@given(timelines())
def test_nothing_is_lost(tmp_path_factory, timeline: Timeline) -> None:
    path = tmp_path_factory.getbasetemp() / "trace.json"
    save_trace(timeline, path)
    found = load_trace(path)
    assert (found.num_ranks, found.kinds, found.meta) == (
        timeline.num_ranks,
        timeline.kinds,
        timeline.meta,
    )
    for name in COLUMNS:
        mine, theirs = getattr(timeline, name), getattr(found, name)
        assert mine.dtype == theirs.dtype
        assert mine.tobytes() == theirs.tobytes()  # to the bit, also -0.0
    assert (found.decisions, found.idle) == (timeline.decisions, timeline.idle)
    assert len(found.memory) == len(timeline.memory)
    for mine, theirs in zip(timeline.memory, found.memory, strict=True):
        assert mine.times.tobytes() == theirs.times.tobytes()
        assert mine.nbytes.tobytes() == theirs.nbytes.tobytes()
        assert mine.peak_parts == theirs.peak_parts


@pytest.fixture(scope="module")
def predicted() -> Timeline:
    settings = ["parallel.data=2", "parallel.pipeline=2", "parallel.bucket_mb=1"]
    experiment = load(None, settings)
    return predict(experiment, resolve(experiment)).timeline


@pytest.fixture(scope="module")
def document(predicted: Timeline, tmp_path_factory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("trace") / "deep" / "trace.json"
    save_trace(predicted, path)
    assert list(path.parent.iterdir()) == [path]  # nothing partial is left
    return json.loads(path.read_text())


def test_spans_for_viewers(predicted: Timeline, document: dict[str, Any]) -> None:
    """One X event per span, in microseconds, on its rank's process and stream's thread."""
    spans = [event for event in document["traceEvents"] if event["ph"] == "X"]
    assert [event["name"] for event in spans] == predicted.labels()
    assert [event["pid"] for event in spans] == predicted.rank.tolist()
    threads = {
        (event["pid"], event["tid"]): event["args"]["name"]
        for event in document["traceEvents"]
        if event["name"] == "thread_name"
    }
    for number, event in enumerate(spans):
        kind = predicted.kinds[predicted.kind[number]]
        assert threads[event["pid"], event["tid"]] == str(kind.stream)
        assert (event["tid"] == 0) == (kind.stream == COMPUTE_STREAM)
        assert event["ts"] == predicted.start[number] * 1e6
        assert event["ts"] + event["dur"] == pytest.approx(predicted.end[number] * 1e6)
        assert event["args"]["waited_us"] >= 0
        assert event["cat"] == kind.op
        assert event["args"]["bytes"] == kind.nbytes


def test_arrows_for_viewers(predicted: Timeline, document: dict[str, Any]) -> None:
    """A pair of flow events per message, from the sender's span to the receiver's."""
    events = document["traceEvents"]
    starts = {event["id"]: event for event in events if event["ph"] == "s"}
    ends = {event["id"]: event for event in events if event["ph"] == "f"}
    sends = predicted.of_kind(lambda kind: kind.op == "SEND")
    assert len(starts) == len(ends) == sends.sum() > 0
    assert starts.keys() == ends.keys()
    spans: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for event in events:
        if event["ph"] == "X":
            spans.setdefault((event["pid"], event["tid"]), []).append(event)

    def span_at(flow: dict[str, Any], op: str) -> dict[str, Any]:
        (found,) = (
            event
            for event in spans[flow["pid"], flow["tid"]]
            if event["cat"] == op
            and (event["ts"] == flow["ts"] or math.isclose(event["ts"] + event["dur"], flow["ts"]))
        )
        return found

    for number, start in starts.items():
        sent, received = span_at(start, "SEND"), span_at(ends[number], "RECV")
        assert sent["args"]["microbatch"] == received["args"]["microbatch"]
        assert sent["name"].split("_")[1] == received["name"].split("_")[1]
        assert ends[number]["bp"] == "e"


def test_arrivals_for_viewers(tmp_path: Path) -> None:
    """An ACCEPT says whom it serves, an idle step that it was; arrows follow the decisions."""
    program = server_program(FirstCome(), [1, 2])
    timeline = simulate(program, TableCosts([0.5, 0.25, 1.0]))
    save_trace(timeline, tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    spans = [event for event in events if event["ph"] == "X"]
    for accept, request in timeline.decisions:
        assert spans[accept]["args"]["serves"] == repr(program.instruction(request))
    idle = [n for n, event in enumerate(spans) if event["args"].get("update_due") is False]
    assert idle == timeline.idle != []
    starts = [event for event in events if event["ph"] == "s"]
    ends = [event for event in events if event["ph"] == "f"]
    pushes = [d for d in timeline.decisions if spans[d.request]["cat"] == "SEND"]
    assert len(starts) == len(ends) == len(timeline.decisions) == 6
    assert sum(event["pid"] == 0 for event in ends) == len(pushes) == 3
    assert sum(event["pid"] == 0 for event in starts) == 3


def test_memory_for_viewers(predicted: Timeline, document: dict[str, Any]) -> None:
    counters: dict[int, list[tuple[float, int]]] = {}
    for event in document["traceEvents"]:
        if event["ph"] == "C":
            counters.setdefault(event["pid"], []).append((event["ts"], event["args"]["bytes"]))
    for rank, sample in enumerate(predicted.memory):
        assert counters[rank] == list(
            zip((sample.times * 1e6).tolist(), sample.nbytes.tolist(), strict=True)
        )


def test_names_for_viewers(predicted: Timeline, document: dict[str, Any]) -> None:
    names = {
        event["pid"]: event["args"]["name"]
        for event in document["traceEvents"]
        if event["name"] == "process_name"
    }
    assert names == {rank: f"rank {rank}" for rank in range(predicted.num_ranks)}


def refused(path: Path) -> str:
    with pytest.raises(TraceError) as error:
        load_trace(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.5, 0.999])
def test_truncated(tmp_path: Path, document: dict[str, Any], share: float) -> None:
    text = json.dumps(document)
    path = tmp_path / "trace.json"
    path.write_text(text[: int(len(text) * share)])
    assert refused(path).startswith("truncated or not JSON")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"\x80\x81", "truncated or not JSON"),
        ("[" * 100_000, "truncated or not JSON"),
        ("[]", "not a Twinline trace"),
        ("7", "not a Twinline trace"),
        ('{"traceEvents": []}', "not a Twinline trace"),
        ('{"twinline": []}', "not a Twinline trace"),
        ('{"twinline": {}}', "trace format None; this reads 2"),
        ('{"twinline": {"format": 1}}', "trace format 1; this reads 2"),
        ('{"twinline": {"format": 2}}', "damaged trace: KeyError: 'kinds'"),
    ],
)
def test_foreign(tmp_path: Path, text: str | bytes, message: str) -> None:
    path = tmp_path / "trace.json"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    assert refused(path).startswith(message)


def test_not_there(tmp_path: Path) -> None:
    assert refused(tmp_path / "none.json") == "No such file or directory"
    assert refused(tmp_path) == "Is a directory"


COMPUTE = ["compute", -1, ""]
SOUND: dict[str, Any] = {
    "format": 2,
    "num_ranks": 1,
    "meta": {},
    "kinds": [["F", "F", 0, -1, COMPUTE, -1, 0]],
    "spans": {
        "rank": [0, 0],
        "kind": [0, 0],
        "microbatch": [0, 1],
        "posted": [0.0, 1.0],
        "start": [0.0, 1.0],
        "end": [1.0, 2],
    },
    "memory": [{"times": [0.0, 1.0], "nbytes": [5, 6]}],
}


def write(folder: Path, ours: dict[str, Any]) -> Path:
    path = folder / "trace.json"
    path.write_text(json.dumps({"twinline": ours}))
    return path


def test_what_the_damaged_ones_are_made_from_is_sound(tmp_path: Path) -> None:
    assert load_trace(write(tmp_path, SOUND)).iteration_time == 2.0
    assert load_trace(write(tmp_path, SOUND | {"memory": []})).memory == []


@pytest.mark.parametrize("key", [key for key in SOUND if key != "format"])
def test_a_key_is_missing(tmp_path: Path, key: str) -> None:
    ours = {name: value for name, value in SOUND.items() if name != key}
    assert refused(write(tmp_path, ours)) == f"damaged trace: KeyError: '{key}'"


@pytest.mark.parametrize(
    ("place", "wrong"),
    [
        (("num_ranks",), 0),
        (("num_ranks",), math.inf),
        (("num_ranks",), "many"),
        (("members",), [0, 0]),
        (("members",), [0, 1]),
        (("members",), ["0"]),
        (("members",), 1),
        (("meta",), []),
        (("kinds",), [["F"]]),
        (("kinds",), [[0, "F", 0, -1, COMPUTE, -1, 0]]),
        (("kinds",), [["FLY", "F", 0, -1, COMPUTE, -1, 0]]),
        (("kinds",), [["F", "F", "0", -1, COMPUTE, -1, 0]]),
        (("kinds",), [["F", "F", True, -1, COMPUTE, -1, 0]]),
        (("kinds",), [["F", "F", 0, -1, "compute", -1, 0]]),
        (("kinds",), [["F", "F", 0, -1, ["swim", -1, ""], -1, 0]]),
        (("kinds",), [["F", "F", 0, -1, ["send", "1", ""], -1, 0]]),
        (("kinds",), []),
        (("kinds",), 3),
        (("spans", "rank"), [0]),
        (("spans", "rank"), [0, 1]),
        (("spans", "rank"), [0, -1]),
        (("spans", "rank"), [0, 0.5]),
        (("spans", "rank"), [0, True]),
        (("spans", "rank"), [0, None]),
        (("spans", "rank"), [[0], [0]]),
        (("spans", "rank"), None),
        (("spans", "kind"), [0, 1]),
        (("spans", "microbatch"), [0, 10**30]),
        (("spans", "end"), [1.0]),
        (("spans", "end"), [1.0, "2.0"]),
        (("spans", "end"), [1.0, None]),
        (("spans", "start"), [1.0, math.nan]),
        (("spans", "start"), [1.0, math.inf]),
        (("spans", "posted"), [1.0, 10**400]),
        (("spans", "posted"), 3),
        (("memory",), [{"times": [0.0], "nbytes": [1]}] * 2),
        (("memory",), [{"times": [0.0]}]),
        (("memory",), [{"times": [0.0], "nbytes": [1, 2]}]),
        (("memory",), [{"times": [math.nan], "nbytes": [1]}]),
        (("memory",), [{"times": [0.0], "nbytes": [1.5]}]),
        (("memory",), [3]),
        (("decisions",), [[0, 2]]),
        (("decisions",), [[-1, 0]]),
        (("decisions",), [[0]]),
        (("decisions",), [[0, "1"]]),
        (("decisions",), 1),
        (("idle",), [2]),
        (("idle",), [0.5]),
    ],
)
def test_damaged(tmp_path: Path, place: tuple[str, ...], wrong: object) -> None:
    ours = copy.deepcopy(SOUND)
    inner = ours
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = wrong
    assert refused(write(tmp_path, ours)).startswith("damaged trace: ")
