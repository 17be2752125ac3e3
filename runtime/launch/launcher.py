"""Launch ranks on this host and give them work; nothing of it survives the launcher.

No torch here: one agent process imports it once and forks the ranks (`runtime.rank.worker`).
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from runtime import progress
from runtime.launch.job import Job
from simulator.experiment.section import ExperimentError
from simulator.strategies.lowering import lower

OnProgress = Callable[[float, str], None]
START_TIMEOUT_S = 120.0
GRACE_S = 1.0


class LaunchError(RuntimeError):
    """A run failed; the message is one line that names the rank and the instruction."""


class Workers:
    """Ranks 0 … num_ranks-1 as processes of this host, alive until `close`.

    A job may use fewer of them. Use as a context manager.
    """

    def __init__(self, num_ranks: int):
        self.num_ranks = num_ranks
        self._folder = tempfile.TemporaryDirectory(prefix="twinline-")
        self._jobs = 0
        path = Path(self._folder.name)
        progress.create(path / "progress", num_ranks)
        self._records = progress.attach(path / "progress")
        pairs = [socket.socketpair() for _ in range(num_ranks)]
        self._channels = [ours for ours, _ in pairs]
        theirs = [their for _, their in pairs]
        self._agent = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "runtime.rank.worker",
                str(path),
                *(str(s.fileno()) for s in theirs),
            ],
            pass_fds=[s.fileno() for s in theirs],
            stdin=subprocess.PIPE,
            stdout=_stderr(),
            env=os.environ | _environment(),
            start_new_session=True,  # Ctrl-C reaches the launcher only, which ends the rest
        )
        for their in theirs:
            their.close()

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, job: Job, on_progress: OnProgress | None = None) -> dict[str, Any]:
        """Run `job` on the first ranks; what rank 0 answers.

        Raises:
            LaunchError: a rank failed, died or made no progress within run.timeout_s. The
                workers are closed then.
            ExperimentError: the ranks cannot run it here (no GPU of their own); closed, too.
        """
        num_ranks = job.experiment.world_size
        if num_ranks > self.num_ranks:
            raise ValueError(f"{num_ranks} ranks on {self.num_ranks} workers")
        self._jobs += 1
        message = {
            "num_ranks": num_ranks,
            "rendezvous": f"job-{self._jobs}",
            "job": job.to_json(),
        }
        line = json.dumps(message).encode() + b"\n"
        watch = _Watch(self, job, num_ranks, on_progress or (lambda share, what: None))
        try:
            for channel in self._channels[:num_ranks]:
                channel.sendall(line)
            return watch.result()
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):
                raise LaunchError(f"the ranks could not be started: {error}") from None
            raise

    def close(self) -> None:
        """End every process; idempotent."""
        if self._agent.stdin:
            self._agent.stdin.close()  # the agent then kills its ranks
        try:
            self._agent.wait(timeout=5)
        except subprocess.TimeoutExpired:
            os.killpg(self._agent.pid, signal.SIGKILL)
            self._agent.wait()
        for channel in self._channels:
            channel.close()
        self._folder.cleanup()

    def record(self, rank: int) -> tuple[int, bool, int]:
        """See `Progress.read`."""
        return progress.Progress(self._records, rank).read()


class _Watch:
    """Follows one job: collects answers, notices death and standstill."""

    def __init__(self, workers: Workers, job: Job, num_ranks: int, on_progress: OnProgress):
        self.workers, self.job, self.num_ranks = workers, job, num_ranks
        self.on_progress = on_progress
        self.answers: dict[int, Any] = {}
        self.errors: dict[int, dict[str, Any]] = {}
        self.dead: list[int] = []
        self.started = False
        self.moved = time.monotonic()
        self.counters: list[int] = []

    def result(self) -> dict[str, Any]:
        buffers = dict.fromkeys(range(self.num_ranks), b"")
        with selectors.DefaultSelector() as selector:
            for rank in buffers:
                selector.register(self.workers._channels[rank], selectors.EVENT_READ, rank)
            while len(self.answers) < self.num_ranks:
                for key, _ in selector.select(timeout=0.2):
                    rank = key.data
                    received = self.workers._channels[rank].recv(1 << 20)
                    if not received:
                        selector.unregister(self.workers._channels[rank])
                        if rank not in self.errors:
                            self.dead.append(rank)
                        continue
                    *lines, buffers[rank] = (buffers[rank] + received).split(b"\n")
                    for line in lines:
                        self._hear(rank, json.loads(line))
                self._check()
        answer: dict[str, Any] = self.answers[0]
        return answer

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
        now = time.monotonic()
        counters = [self.workers.record(rank)[2] for rank in range(self.num_ranks)]
        if counters != self.counters:
            self.counters, self.moved = counters, now
            self.started = self.started or any(counters)
        if self.dead or self.errors:
            # What fails first makes others fail: give the cause a moment to show.
            only_effects = not self.dead and all(
                _is_consequence(message["error"]) for message in self.errors.values()
            )
            patience = 3 * GRACE_S if only_effects else GRACE_S
        elif self.started:
            patience = self.job.experiment.run.timeout_s
        else:
            patience = max(START_TIMEOUT_S, self.job.experiment.run.timeout_s)
        if now - self.moved > patience:
            for message in self.errors.values():
                if message["mistake"]:
                    raise ExperimentError(message["error"])
            raise LaunchError(self._diagnosis(patience))

    def _diagnosis(self, patience: float) -> str:
        own = [m["error"] for m in self.errors.values() if not _is_consequence(m["error"])]
        if self.dead:
            return f"rank {self.dead[0]} died{self._where(self.dead[0])}"
        if own:
            return str(own[0])
        for rank in range(self.num_ranks):
            index, waiting, _ = self.workers.record(rank)
            if index >= 0 and not waiting and rank not in self.errors:
                limit = self.job.experiment.run.timeout_s
                return f"rank {rank} hangs{self._where(rank)}: no progress for {limit:g} s"
        if self.errors:
            # Who waited in vain was there to the end; a connection is lost after that.
            late = min(self.errors.values(), key=lambda m: "no answer within" not in m["error"])
            return str(late["error"])
        if not self.started:
            return f"the ranks did not start within {patience:g} s"
        waiting_ranks = ", ".join(str(rank) for rank in range(self.num_ranks))
        return f"no progress for {patience:g} s on ranks {waiting_ranks}{self._where(0)}"

    def _where(self, rank: int) -> str:
        index = self.workers.record(rank)[0]
        if index < 0:
            return " between steps"
        instructions = lower(self.job.experiment).ranks[rank]
        return f" in {instructions[index].label}" if index < len(instructions) else ""


def _is_consequence(error: str) -> bool:
    """A timeout or a lost connection is what other ranks see of a rank that failed."""
    lowered = error.lower()
    words = ("timed out", "timeout", "no answer within", "connection", "socket", "peer")
    return any(word in lowered for word in words)


def _stderr() -> int | None:
    """The descriptor of standard error; None where that is not a file, as in a notebook."""
    try:
        return sys.stderr.fileno()
    except (AttributeError, OSError):
        return None


def _environment() -> dict[str, str]:
    """One thread a rank, talking over loopback only, with this package importable."""
    root = str(Path(__file__).resolve().parents[2])
    path = os.environ.get("PYTHONPATH")
    return {
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo" if sys.platform == "linux" else "lo0",
        "TORCH_CPP_LOG_LEVEL": "ERROR",
        "PYTHONPATH": root if not path else f"{root}{os.pathsep}{path}",
    }
