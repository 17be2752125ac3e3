"""The speeds of ranks: how many times longer than its device usually takes a rank computes.

A rank has a factor of its own (`cluster.slowdown`), times one that is drawn for each rank and
training step (`cluster.jitter`). The drawn ones have a mean of 1, so that jitter changes who waits
for whom, not how much is computed. They are lognormal, as sums of many small disturbances of a
step are seen to be, or shifted exponential: a least time, and an exponential delay (Lee et al.
2018, "Speeding Up Distributed Machine Learning Using Codes", section 3).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from simulator.experiment.experiment import Experiment
from simulator.program.instruction import Instruction
from simulator.program.program import Program
from simulator.program.stream import COMPUTE_STREAM

Floats = npt.NDArray[np.float64]


class RankSpeeds:
    """Factors by which ranks compute longer, in every training step of a program.

    A draw depends on the seed, the rank and the step alone: more ranks or more steps leave those
    of others as they are.

    Attributes:
        are_even: no rank differs from what its device usually takes.
        vary: a rank may be slower in one step than in another.
    """

    def __init__(self, experiment: Experiment) -> None:
        cluster = experiment.cluster
        self.are_even = cluster.is_even
        self.vary = cluster.jitter != "none"
        self._slowdown = dict(cluster.slowdown)
        self._jitter, self._spread = cluster.jitter, cluster.jitter_spread or 0.0
        self._seed = experiment.run.seed if cluster.jitter_seed is None else cluster.jitter_seed
        self._horizon = experiment.run.horizon
        self._of_rank: dict[int, Floats] = {}

    def of_rank(self, rank: int) -> Floats:
        """Return the factor of a rank in each step."""
        if rank not in self._of_rank:
            drawn = self._drawn(rank)
            self._of_rank[rank] = drawn * self._slowdown.get(rank, 1.0)
        return self._of_rank[rank]

    def factor(self, instruction: Instruction) -> float:
        """Return how many times longer an instruction takes; communication takes what it takes."""
        if self.are_even or instruction.task.stream != COMPUTE_STREAM:
            return 1.0
        return float(self.of_rank(instruction.rank)[instruction.step])

    def scaled(self, program: Program, seconds: list[float]) -> list[float]:
        """Return the seconds of every instruction of a program, with these speeds."""
        if self.are_even:
            return seconds
        factors = []
        for rank, columns in zip(program.members, program.columns, strict=True):
            computes = np.array([task.stream == COMPUTE_STREAM for task in columns.tasks])
            of_step = self.of_rank(rank)[columns.step]
            factors.append(np.where(computes[columns.task], of_step, 1.0))
        found: list[float] = (np.array(seconds) * np.concatenate(factors)).tolist()
        return found

    def _drawn(self, rank: int) -> Floats:
        generator, spread = np.random.default_rng((self._seed, rank)), self._spread
        match self._jitter:
            case "lognormal":
                variance = math.log1p(spread**2)
                normal = generator.standard_normal(self._horizon)
                return np.exp(math.sqrt(variance) * normal - variance / 2)
            case "shifted-exponential":
                return 1.0 - spread + spread * generator.standard_exponential(self._horizon)
            case _:
                return np.ones(self._horizon)
