"""Launch ranks on this host and give them work; nothing of it survives the launcher.

No torch here: one agent process imports it once and forks the ranks (`runtime.rank.worker`).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from runtime import gpu_environment, progress
from runtime.launch.job import Job
from runtime.launch.watch import LaunchError, OnProgress, Watch

__all__ = ["LaunchError", "OnProgress", "Workers"]


class Workers:
    """Ranks 0 … num_ranks-1 as processes of this host, alive until `close`.

    A job may use fewer of them. Use as a context manager.

    Raises:
        LaunchError: the processes could not be started.
    """

    def __init__(self, num_ranks: int):
        self.num_ranks = num_ranks
        self._folder = tempfile.TemporaryDirectory(prefix="twinline-")
        self._path = Path(self._folder.name)
        self._channels: list[socket.socket] = []
        self._agent: subprocess.Popen[bytes] | None = None
        self._jobs = 0
        try:
            progress.create(self._path, num_ranks)
            self._records = progress.attach(self._path)
            with _deferred_interrupt():
                self._start()
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):
                raise LaunchError(f"the ranks could not be started: {error}") from None
            raise

    def _start(self) -> None:
        pairs = [socket.socketpair() for _ in range(self.num_ranks)]
        self._channels = [ours for ours, _ in pairs]
        theirs = [their for _, their in pairs]
        descriptors = [their.fileno() for their in theirs]
        command = [sys.executable, "-m", "runtime.rank.worker", str(self._path)]
        try:
            self._agent = subprocess.Popen(
                command + list(map(str, descriptors)),
                pass_fds=descriptors,
                stdin=subprocess.PIPE,
                stdout=_stderr(),
                env=os.environ | _environment(),
                start_new_session=True,  # Ctrl-C reaches the launcher only, which ends the rest
            )
        finally:
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
        channels = self._channels[:num_ranks]
        reports = on_progress or (lambda share, what: None)
        watch = Watch(job, channels, self._path, self._records, reports)
        try:
            for channel in channels:
                channel.sendall(line)
            return watch.result()
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):
                raise LaunchError(f"the ranks could not be started: {error}") from None
            raise

    def close(self) -> None:
        """End every process; idempotent."""
        if self._agent is not None:
            if not progress.is_ready(self._path):  # it still starts and would not listen
                self._kill()
            if self._agent.stdin:
                self._agent.stdin.close()  # the agent then kills its ranks
            try:
                self._agent.wait(timeout=5)
            except subprocess.TimeoutExpired:
                self._kill()
                self._agent.wait()
        for channel in self._channels:
            channel.close()
        self._folder.cleanup()

    def _kill(self) -> None:
        """Kill the agent and its ranks."""
        assert self._agent is not None
        if self._agent.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._agent.pid, signal.SIGKILL)


@contextlib.contextmanager
def _deferred_interrupt() -> Iterator[None]:
    """Let Ctrl-C take effect only behind the ``with`` block, so that nothing in it is half done."""
    usual = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(usual):
        yield
        return
    caught: list[tuple[int, FrameType | None]] = []
    signal.signal(signal.SIGINT, lambda number, frame: caught.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
        if caught:
            usual(*caught[0])


def _stderr() -> int | None:
    """Return the descriptor of standard error; None where that is no file, as in a notebook."""
    try:
        return sys.stderr.fileno()
    except (AttributeError, OSError):
        return None


def _environment() -> dict[str, str]:
    """Return variables for ranks: one thread each, loopback only, this package importable."""
    root = str(Path(__file__).resolve().parents[2])
    path = os.environ.get("PYTHONPATH")
    return {
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo" if sys.platform == "linux" else "lo0",
        "TORCH_CPP_LOG_LEVEL": "ERROR",
        "PYTHONPATH": root if not path else f"{root}{os.pathsep}{path}",
        **gpu_environment.missing(),
    }
