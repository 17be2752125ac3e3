"""Push-sum: what replicas have together stays what it is, and its ratio is the mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from runtime.executor.push_sum import PushSum
from runtime.rank.replay import Replay
from simulator.strategies.lowering import lower

DIRECTED = "0.5,0,0.25,0\n0.5,0.5,0,0.25\n0,0.5,0.5,0\n0,0,0.25,0.75\n"
"""Column-stochastic: rows add up to 0.75, 1.25, 1 and 1."""


def test_the_ratio_is_what_passes_use() -> None:
    one = PushSum(torch.zeros(3), torch.float64)
    one.sum.copy_(torch.tensor([1.0, 2.0, 3.0]))
    one.weight.fill_(0.5)
    assert one.buffer.tolist() == [1.0, 2.0, 3.0, 0.5]
    assert one.ratio().tolist() == [2.0, 4.0, 6.0]


class Replicas:
    """All replicas of a plan in this process, whose parameters differ and do not train."""

    def __init__(self, experiment: Any) -> None:
        self._replay = Replay(experiment, lower(experiment))
        self.contexts, self.run = self._replay.contexts, self._replay.iterate
        torch.manual_seed(0)
        for one in self._sums():
            one.sum.copy_(torch.randint(1, 8, one.sum.shape))  # exact in binary

    def _sums(self) -> list[PushSum]:
        found = [p.push_sum for context in self.contexts for p in context.parameters.values()]
        return [one for one in found if one is not None]

    @property
    def buffers(self) -> Tensor:
        """The sum and the weight of every replica."""
        return torch.stack([one.buffer for one in self._sums()])


STILL = {"data": 4, "data_style": "gossip", "push_sum": True, "learning_rate": 1e-300}


def test_sums_and_weights_of_all_replicas_together_stay(experiment, tmp_path: Path) -> None:
    (tmp_path / "w.csv").write_text(DIRECTED)
    keys = {**STILL, "topology": f"csv:{tmp_path}/w.csv", "horizon": 1, "bucket_mb": 100}
    replicas = Replicas(experiment(**keys))
    before = replicas.buffers
    mean = before[:, :-1].mean(0)
    for _ in range(60):
        replicas.run()
        assert replicas.buffers.sum(0).tolist() == pytest.approx(
            before.sum(0).tolist(), rel=1e-13, abs=1e-12
        )
    assert (replicas.buffers[:, -1] - 1).abs().max() > 0.1, "weights differ"
    for context in replicas.contexts:
        (parameters,) = context.parameters.values()
        assert torch.allclose(parameters.values, mean, rtol=1e-9, atol=1e-9)


def test_one_peer_a_step_is_the_exact_mean_after_log_2_of_n_steps(experiment) -> None:
    keys = {**STILL, "topology": "one-peer-exponential", "horizon": 2, "bucket_mb": 100}
    replicas = Replicas(experiment(**keys))
    mean = replicas.buffers.mean(0)
    replicas.run()
    for context in replicas.contexts:
        (parameters,) = context.parameters.values()
        assert parameters.values.equal(mean[:-1])
        assert parameters.push_sum.weight == 1
