"""The processes behind `runtime.launch`: an agent that imports torch once and forks ranks.

Run as ``python -m runtime.worker FOLDER FD…`` with one inherited socket per rank. Ranks
take jobs as JSON lines from their socket and answer on it. When the launching process is
gone (standard input closes) or a rank dies, the agent kills what is left.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from runtime import progress
from runtime.executor.devices import device_of, join
from runtime.executor.executor import ExecutionError, first_line
from runtime.launch.job import Job
from runtime.rank.session import run_job
from simulator.experiment.section import ExperimentError

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> int:
    folder, *descriptors = arguments
    sockets = [int(number) for number in descriptors]
    torch.set_num_threads(1)
    children = {}
    for rank in range(len(sockets)):
        pid = os.fork()
        if pid == 0:
            for other in sockets[:rank] + sockets[rank + 1 :]:
                os.close(other)
            os._exit(_rank_main(Path(folder), rank, len(sockets), sockets[rank]))
        children[pid] = rank
    for descriptor in sockets:
        os.close(descriptor)
    try:
        while children:
            readable, _, _ = select.select([sys.stdin], [], [], 0.1)
            if readable and not sys.stdin.read(1):
                break
            pid, _ = os.waitpid(-1, os.WNOHANG)
            children.pop(pid, None)
            # A rank that is gone is seen by the launcher, whose socket to it closes.
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        shutil.rmtree(folder, ignore_errors=True)  # the launcher may be gone
    return 0


def _rank_main(folder: Path, rank: int, num_ranks: int, descriptor: int) -> int:
    """Take jobs until the socket closes; the exit status of the rank's process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    channel = socket.socket(fileno=descriptor)
    mine = progress.Progress(progress.attach(folder / "progress"), rank)
    with channel.makefile("r", encoding="utf-8") as lines:
        for line in lines:
            message = json.loads(line)
            if rank >= message["num_ranks"]:
                continue
            try:
                answer = _work(message, folder, rank, channel, mine)
            except (ExecutionError, ExperimentError, RuntimeError, TimeoutError) as error:
                says, mistake = first_line(error), isinstance(error, ExperimentError)
                if not mistake and not isinstance(error, ExecutionError):
                    says = f"rank {rank}: {says}"
                _say(channel, {"error": says, "mistake": mistake})
                return 1
            _say(channel, {"result": answer})
    return 0


def _work(
    message: dict[str, Any],
    folder: Path,
    rank: int,
    channel: socket.socket,
    mine: progress.Progress,
) -> dict[str, Any] | None:
    job = Job.from_json(message["job"])
    num_ranks = message["num_ranks"]
    device = device_of(job.experiment, rank)
    store = dist.FileStore(str(folder / message["rendezvous"]), num_ranks)  # type: ignore[attr-defined]
    join(job.experiment, store, rank, device)
    answer = run_job(
        job, rank, device, mine, lambda share, what: _report(channel, rank, share, what)
    )
    # Not after an error: NCCL would wait for what never comes, and nobody hear of the error.
    dist.destroy_process_group()
    return answer


def _report(channel: socket.socket, rank: int, share: float, what: str) -> None:
    if rank == 0:
        _say(channel, {"progress": share, "what": what})


def _say(channel: socket.socket, message: dict[str, Any]) -> None:
    with contextlib.suppress(ConnectionError):  # the launcher is gone, and soon this process
        channel.sendall(json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
