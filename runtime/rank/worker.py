"""The processes behind `runtime.launch`: an agent that imports torch once and forks ranks.

Run as ``python -m runtime.rank.worker FOLDER FD…`` with one inherited socket per rank. Ranks
take jobs as JSON lines from their socket and answer on it. The agent notes how ranks ended,
and kills them when the launching process is gone (standard input closes).
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
from runtime.executor.devices import device_of, give_memory_back, join
from runtime.executor.errors import failure_of, first_line
from runtime.launch.job import Job
from runtime.rank.device_memory import check_device_memory
from runtime.rank.session import run_job
from simulator.experiment.section import ExperimentError

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> int:
    """Fork the ranks and stay until the launching process is gone; the exit status."""
    folder, descriptors = Path(arguments[0]), arguments[1:]
    sockets = [int(number) for number in descriptors]
    _when_parent_dies(signal.SIGCONT)  # one that was stopped goes on, and ends its ranks
    torch.set_num_threads(1)
    children = {}
    for rank in range(len(sockets)):
        pid = os.fork()
        if pid == 0:
            for other in sockets[:rank] + sockets[rank + 1 :]:
                os.close(other)
            os._exit(_rank_main(folder, rank, len(sockets), sockets[rank]))
        children[pid] = rank
    for descriptor in sockets:
        os.close(descriptor)
    try:
        progress.mark_ready(folder)
        while not (select.select([sys.stdin], [], [], 0.1)[0] and not sys.stdin.read(1)):
            _reap(children, folder)
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        shutil.rmtree(folder, ignore_errors=True)  # the launcher may be gone
    return 0


def _reap(children: dict[int, int], folder: Path) -> None:
    """Note how ranks ended since the last time; the launcher sees that their sockets closed."""
    while children:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        progress.note_end(folder, children.pop(pid), os.waitstatus_to_exitcode(status))


def _when_parent_dies(signal_number: signal.Signals) -> None:
    """Have the kernel send this process a signal when its parent has ended (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal_number)


def _rank_main(folder: Path, rank: int, num_ranks: int, descriptor: int) -> int:
    """Take jobs until the socket closes; the exit status of the rank's process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _when_parent_dies(signal.SIGKILL)
    channel = socket.socket(fileno=descriptor)
    mine = progress.Progress(progress.attach(folder), rank)
    with channel.makefile("r", encoding="utf-8") as lines:
        for line in lines:
            message = json.loads(line)
            if rank >= message["num_ranks"]:
                continue
            job = Job.from_json(message["job"])
            store = folder / message["rendezvous"]
            try:
                answer = _work(job, store, rank, channel, mine)
            except (ExperimentError, RuntimeError, TimeoutError) as error:
                mistake = isinstance(error, ExperimentError)
                timeout_s = job.experiment.run.timeout_s
                says = first_line(error) if mistake else failure_of(error, rank, timeout_s)
                _say(channel, {"error": says, "mistake": mistake})
                return 1
            _say(channel, {"result": answer})
    return 0


def _work(
    job: Job, store: Path, rank: int, channel: socket.socket, mine: progress.Progress
) -> dict[str, Any] | None:
    """Run one job in a process group of its own; what rank 0 found, None elsewhere."""
    device, num_ranks = device_of(job.experiment, rank), job.experiment.world_size
    check_device_memory(job, rank, rank, device)
    rendezvous = dist.FileStore(str(store), num_ranks)  # type: ignore[attr-defined]
    join(job.experiment, rendezvous, rank, device)
    answer = run_job(
        job, rank, device, mine, lambda share, what: _report(channel, rank, share, what)
    )
    # Not after an error: NCCL would wait for what never comes, and nobody hear of the error.
    dist.destroy_process_group()
    give_memory_back(device)
    return answer


def _report(channel: socket.socket, rank: int, share: float, what: str) -> None:
    if rank == 0:
        _say(channel, {"progress": share, "what": what})


def _say(channel: socket.socket, message: dict[str, Any]) -> None:
    with contextlib.suppress(ConnectionError):  # the launcher is gone, and soon this process
        channel.sendall(json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
