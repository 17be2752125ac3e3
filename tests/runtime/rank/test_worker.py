"""The agent and its ranks speak lines of JSON, and note how ranks end."""

from __future__ import annotations

import json
import os
import signal
import socket

from runtime import progress
from runtime.rank import worker


def test_the_end_of_every_rank_is_noted(tmp_path, monkeypatch):
    """Also if several ended at once; who lives on is not waited for."""
    ended = iter([(71, 0), (72, 3 << 8), (0, 0), (73, signal.SIGKILL)])
    monkeypatch.setattr(os, "waitpid", lambda pid, options: next(ended))
    children = {71: 0, 72: 1, 73: 2}
    worker._reap(children, tmp_path)
    assert children == {73: 2}
    assert [progress.end_of(tmp_path, rank) for rank in range(3)] == [0, 3, None]
    worker._reap(children, tmp_path)
    assert children == {}
    assert progress.end_of(tmp_path, 2) == -signal.SIGKILL


def test_only_rank_0_reports_progress():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        worker._report(theirs, 1, 0.5, "step")
        worker._report(theirs, 0, 0.25, "step")
        theirs.shutdown(socket.SHUT_WR)
        assert json.loads(ours.makefile().read()) == {"progress": 0.25, "what": "step"}


def test_a_launcher_that_is_gone_is_no_error():
    ours, theirs = socket.socketpair()
    ours.close()
    with theirs:
        worker._say(theirs, {"result": None})
