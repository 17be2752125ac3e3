"""Ranks that were given different experiments refuse to run, all of them, in one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.launch.job import Job
from runtime.launch.launcher import LaunchError, Workers
from runtime.rank.agreement import first_difference
from simulator.strategies.lowering import lower


def test_ranks_that_agree_are_not_refused():
    assert first_difference([{"program hash": "a", "run.seed": "0"}] * 3) is None


def test_a_difference_names_the_values_and_the_ranks():
    everyone = [{"program hash": "a", "run.seed": "0"} for _ in range(8)]
    everyone[2] = everyone[2] | {"run.seed": "1"}
    assert first_difference(everyone) == (
        "the ranks were not given the same experiment: "
        "run.seed 0 on ranks 0, 1, 3, 4, …; 1 on rank 2"
    )
    everyone[5] = everyone[5] | {"program hash": "b"}  # comes first, for it says more
    assert "program hash a on ranks 0, 1, 2, 3, …; b on rank 5" in str(first_difference(everyone))


class Altered:
    """Stands for the channel to a rank: what is sent there has another number of microbatches."""

    def __init__(self, channel):
        self._channel = channel

    def __getattr__(self, name):
        return getattr(self._channel, name)

    def sendall(self, line):
        message = json.loads(line)
        message["job"]["experiment"]["parallel"]["microbatches"] = 4
        self._channel.sendall(json.dumps(message).encode() + b"\n")


def test_a_rank_with_another_program_is_refused_by_all(experiment):
    plan = {"model": "mlp", "pipeline": 2, "microbatches": 2, "timeout_s": 60.0}
    tiny, other = experiment(**plan), experiment(**plan | {"microbatches": 4})
    with Workers(2) as workers:
        workers._channels[1] = Altered(workers._channels[1])
        with pytest.raises(LaunchError) as caught:
            workers.run(Job(tiny))
    assert str(caught.value) == (
        "the ranks were not given the same experiment: program hash "
        f"{lower(tiny).hash()} on rank 0; {lower(other).hash()} on rank 1"
    )


FILE = """
[workload]
model = "mlp"
layers = 2
[parallel]
pipeline = 2
microbatches = {microbatches}
[run]
iterations = {iterations}
"""


@pytest.mark.parametrize(
    ("keys", "what"),
    [({"microbatches": 4}, "program hash"), ({"iterations": 5}, "run.iterations 1 on rank 0; 5")],
    ids=["program", "run"],
)
def test_files_that_differ_between_hosts_are_refused_under_torchrun(tmp_path, keys, what):
    """Each rank reads a file of its own, as it would on a host of its own."""
    for rank, mine in enumerate([{}, keys]):
        text = FILE.format(**{"microbatches": 2, "iterations": 1} | mine)
        (tmp_path / f"{rank}.toml").write_text(text)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command = f"exec {sys.executable} -m runtime $RANK.toml"
    root = str(Path(__file__).parents[3])
    environment = os.environ | {"PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [*torchrun, "--no-python", "bash", "-c", command],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    ours = [line for line in ended.stderr.splitlines() if line.startswith("twinline:")]
    assert ended.returncode == 1
    assert len(ours) == 1
    assert f"the ranks were not given the same experiment: {what}" in ours[0]
