"""Bounds of when something can begin: no simulation may begin it earlier."""

from __future__ import annotations

import pytest

from simulator import lower, parse
from simulator.cluster.resolve import resolve
from simulator.engine.costs import costs_of
from simulator.engine.engine import Engine
from simulator.engine.lookahead import Lookahead
from simulator.engine.replica_folding import folding_of
from simulator.program.arrivals import NEVER
from simulator.program.walk import StreamQueue

PLANS = {
    "1f1b": {"pipeline": 2, "tensor": 2, "data": 2, "microbatches": 8},
    "interleaved": {
        "pipeline": 2, "tensor": 2, "microbatches": 8, "virtual_stages": 2,
        "schedule": "interleaved-1f1b",
    },
    "zb-h1": {"pipeline": 4, "tensor": 2, "microbatches": 8, "schedule": "zb-h1"},
    "replicas over nodes": {"pipeline": 3, "tensor": 2, "data": 4, "microbatches": 6},
}  # fmt: skip


def engine_of(parallel: dict) -> Engine:
    workload = {"model": "gpt", "layers": 12, "global_batch": 24 * parallel["microbatches"]}
    workload |= {"hidden": 2048, "sequence": 2048, "heads": 16, "dtype": "bf16"}
    cluster = {"preset": "dgx-h100", "nodes": 4}
    keys = {"sequence_parallel": True} | parallel
    experiment = parse({"workload": workload, "parallel": keys, "cluster": cluster})
    resolved = resolve(experiment)
    folding = folding_of(experiment, resolved)
    program = lower(experiment, folding.list_of if folding else ())
    return Engine(program, costs_of(program, experiment, resolved))


@pytest.mark.parametrize("plan", PLANS)
def test_nothing_begins_before_its_bound(plan: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bounds: list[tuple[int, float]] = []
    begins = Lookahead.begins

    def remembered(self: Lookahead, stream: StreamQueue, now: float) -> float:
        bound = begins(self, stream, now)
        place = stream.head - stream.busy
        if place < len(stream.queue):
            bounds.append((stream.queue[place], bound))
        return bound

    monkeypatch.setattr(Lookahead, "begins", remembered)
    monkeypatch.setattr(Engine, "look", lambda self: None)  # skipped periods have other clocks
    engine = engine_of(PLANS[plan])
    timeline = engine.run()
    assert len(bounds) > 50
    slack = 1e-9 * timeline.iteration_time
    assert all(timeline.start[uid] >= bound - slack for uid, bound in bounds)
    later = [bound for uid, bound in bounds if abs(timeline.start[uid] - bound) < slack]
    assert later  # and some are exact


def test_a_stream_at_its_end_never_begins_anything() -> None:
    engine = engine_of(PLANS["1f1b"])
    lookahead = Lookahead(engine, engine._stream_of, engine._seconds)
    engine.run()
    assert {lookahead.begins(stream, 0.0) for stream in engine._streams} == {NEVER}


def test_runs_are_broken_off_for_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of(PLANS["1f1b"])
    posted: list[int] = []
    post = Engine.post

    def counted(self: Engine, uid: int, ready: float) -> None:
        posted.append(self is engine)
        post(self, uid, ready)

    monkeypatch.setattr(Engine, "post", counted)
    monkeypatch.setattr(Engine, "look", lambda self: None)
    engine.run()
    assert sum(posted) < len(engine.program) / 2
