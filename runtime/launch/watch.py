"""Follows one job: collects the answers of its ranks, notices death and standstill."""

from __future__ import annotations

import json
import mmap
import selectors
import signal
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from runtime import progress
from runtime.launch.job import Job
from simulator.experiment.section import ExperimentError
from simulator.strategies.lowering import lower

OnProgress = Callable[[float, str], None]
"""Called with the share of a job that is done (0 to 1) and what is being done."""

START_TIMEOUT_S = 120.0
GRACE_S = 1.0
"""A rank that fails makes others fail: the cause is waited for so long."""


class LaunchError(RuntimeError):
    """A run failed; the message is one line that names the rank and the instruction."""


class Watch:
    """Follows one job.

    Args:
        job: what the ranks were asked for.
        channels: of the ranks of the job, in order.
        folder: where ranks leave their progress and how they ended.
        records: the progress of all ranks, see `progress.attach`.
        on_progress: told what rank 0 reports.
    """

    def __init__(
        self,
        job: Job,
        channels: Sequence[socket.socket],
        folder: Path,
        records: mmap.mmap,
        on_progress: OnProgress,
    ):
        self.job, self.channels, self.folder = job, channels, folder
        self.on_progress = on_progress
        self.progress = [progress.Progress(records, rank) for rank in range(len(channels))]
        self.answers: dict[int, Any] = {}
        self.errors: dict[int, dict[str, Any]] = {}
        self.dead: list[int] = []
        self.started = False
        self.moved = time.monotonic()
        self.counters: list[int] = []

    def result(self) -> dict[str, Any]:
        """Wait for all ranks; returns what rank 0 answers.

        Raises:
            LaunchError: a rank failed, died or made no progress within run.timeout_s.
            ExperimentError: a rank says that the experiment cannot be run here.
        """
        buffers = dict.fromkeys(range(len(self.channels)), b"")
        with selectors.DefaultSelector() as selector:
            for rank, channel in enumerate(self.channels):
                selector.register(channel, selectors.EVENT_READ, rank)
            while len(self.answers) < len(self.channels):
                for key, _ in selector.select(timeout=0.2):
                    rank = key.data
                    received = self._receive(rank)
                    if not received:
                        selector.unregister(self.channels[rank])
                        if rank not in self.errors:
                            self.dead.append(rank)
                            self.moved = time.monotonic()
                        continue
                    *lines, buffers[rank] = (buffers[rank] + received).split(b"\n")
                    for line in lines:
                        self._hear(rank, json.loads(line))
                self._check()
        answer: dict[str, Any] = self.answers[0]
        return answer

    def _receive(self, rank: int) -> bytes:
        """Return what a rank has sent; nothing if its process is gone."""
        try:
            return self.channels[rank].recv(1 << 20)
        except ConnectionError:
            return b""

    def _hear(self, rank: int, message: dict[str, Any]) -> None:
        self.moved = time.monotonic()
        self.started = True
        if "progress" in message:
            self.on_progress(message["progress"], message["what"])
        elif "error" in message:
            self.errors[rank] = message
        else:
            self.answers[rank] = message["result"]

    def _check(self) -> None:
        """Notice failures and standstill.

        Raises:
            LaunchError, ExperimentError: see `result`.
        """
        now = time.monotonic()
        counters = [record.read()[2] for record in self.progress]
        if counters != self.counters:
            self.counters, self.moved = counters, now
            self.started = self.started or any(counters)
        patience = self._patience()
        if now - self.moved > patience:
            for message in self.errors.values():
                if message["mistake"]:
                    raise ExperimentError(message["error"])
            raise LaunchError(self._diagnosis(patience))

    def _patience(self) -> float:
        """Return after how many seconds without progress the job has failed."""
        timeout_s = self.job.experiment.run.timeout_s
        if self.dead or self.errors:
            errors = [message["error"] for message in self.errors.values()]
            only_effects = not self.dead and all(map(_is_consequence, errors))
            return 3 * GRACE_S if only_effects else GRACE_S
        return timeout_s if self.started else max(START_TIMEOUT_S, timeout_s)

    def _diagnosis(self, patience: float) -> str:
        """Return what went wrong first, in one line."""
        own = [m["error"] for m in self.errors.values() if not _is_consequence(m["error"])]
        if self.dead:
            rank = self.dead[0]
            return f"rank {rank} died{self._where(rank)}{_killed(self._end_of(rank))}"
        if own:
            return str(own[0])
        for rank, record in enumerate(self.progress):
            index, waiting, _ = record.read()
            if index >= 0 and not waiting and rank not in self.errors:
                limit = self.job.experiment.run.timeout_s
                return f"rank {rank} hangs{self._where(rank)}: no progress for {limit:g} s"
        if self.errors:
            # Who waited in vain was there to the end; a connection is lost after that.
            late = min(self.errors.values(), key=lambda m: "no answer within" not in m["error"])
            return str(late["error"])
        if not self.started:
            return f"the ranks did not start within {patience:g} s"
        waiting_ranks = ", ".join(str(rank) for rank in range(len(self.channels)))
        return f"no progress for {patience:g} s on ranks {waiting_ranks}{self._where(0)}"

    def _where(self, rank: int) -> str:
        index = self.progress[rank].read()[0]
        if index < 0:
            return " between steps"
        instructions = lower(self.job.experiment).ranks[rank]
        return f" in {instructions[index].label}" if index < len(instructions) else ""

    def _end_of(self, rank: int) -> int | None:
        return progress.end_of(self.folder, rank)


def _killed(exit_code: int | None) -> str:
    """Say which signal ended a process, if one did."""
    if exit_code is None or exit_code >= 0:
        return ""
    likely = ", probably out of memory" if -exit_code == signal.SIGKILL else ""
    return f": killed (signal {-exit_code}){likely}"


def _is_consequence(error: str) -> bool:
    """Tell whether an error is what other ranks see of one that failed."""
    return "no answer within" in error or "the connection to another rank was lost" in error
