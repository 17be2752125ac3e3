"""Two ranks that run torch's own parallelism, for the scripts beside this file."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

RANKS = 2
TIMEOUT = timedelta(seconds=120)  # nobody stays when the other is gone


def main(script: Callable[[int, dict[str, Any]], None]) -> None:
    """``python SCRIPT JOB.json``: ``script(rank, job)`` on every rank, in a process group.

    Ranks are forked: torch, and the parts of it that a script needs, are imported once.
    """
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    multiprocessing.start_processes(_rank, (script, job), RANKS, start_method="fork")


def _rank(rank: int, script: Callable[[int, dict[str, Any]], None], job: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # torch's own
    store = dist.FileStore(job["store"], RANKS)  # type: ignore[attr-defined]
    dist.init_process_group("gloo", store=store, rank=rank, world_size=RANKS, timeout=TIMEOUT)
    script(rank, job)
    dist.barrier()
    dist.destroy_process_group()
