"""Topologies of gossip: from whom a replica takes parameters in a step, and with which weights.

Weights form a matrix W, row i for what replica i takes. W is doubly stochastic, so that the mean
over all replicas stays what it is, and how far they are apart shrinks by W's second largest
singular value in each step (Xiao & Boyd 2004; Lian et al. 2017, assumption 1). With push-sum, W is
column-stochastic: column j says how replica j divides what it has. Exponential graphs
are those of Ying et al. 2021, "Exponential Graph is Provably Efficient for Decentralized Deep
Training", sections 3 and 4: with one peer a step, 2^k replicas have the exact mean after k steps.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from math import isqrt

import numpy as np
import numpy.typing as npt

from simulator.experiment.section import ExperimentError

FILE = "csv:"
NAMES = ("ring", "torus", "exponential", "one-peer-exponential", "complete")

Matrix = npt.NDArray[np.float64]
TOLERANCE = 1e-9
"""The most by which the sum of a row or a column of a file may differ from 1."""


@dataclass(frozen=True, eq=False)
class Topology:
    """The weights of each step of a period, which then begins again.

    Attributes:
        taken: by step of the period and by replica, the replicas it takes parameters of, with
            their weights; its own among them.
    """

    taken: tuple[tuple[dict[int, float], ...], ...]

    def row(self, replica: int, step: int) -> dict[int, float]:
        """Return whose parameters a replica takes in a step, and with which weights."""
        return self.taken[step % len(self.taken)][replica]

    def takers(self, replica: int, step: int) -> list[int]:
        """Return the other replicas that take the parameters of this one in a step."""
        rows = enumerate(self.taken[step % len(self.taken)])
        return [other for other, row in rows if replica in row and other != replica]

    def matrix(self, step: int = 0) -> Matrix:
        """Return the weights of a step as a matrix."""
        rows = self.taken[step % len(self.taken)]
        found = np.zeros((len(rows), len(rows)))
        for replica, row in enumerate(rows):
            found[replica, list(row)] = list(row.values())
        return found


def topology_named(name: str, count: int, push_sum: bool = False) -> Topology:
    """Return the topology of a name, or of a file, for so many replicas.

    With push-sum only the columns of a file must add up to 1.

    Raises:
        ExperimentError: there is none, or its weights do not mix; the message says why.
    """
    if name.startswith(FILE):
        return _from_file(name, count, push_sum)
    jumps = [2**k for k in range(max((count - 1).bit_length(), 1))]
    match name:
        case "ring":
            periods = [[-1, 1]]
        case "complete":
            periods = [list(range(1, count))]
        case "exponential":
            periods = [[-jump for jump in jumps]]
        case "one-peer-exponential":
            periods = [[-jump] for jump in jumps]
        case "torus":
            return _torus(count)
        case _:
            raise ExperimentError(
                f"parallel.topology = {name!r}: allowed: {', '.join(NAMES)}, or "
                f"{FILE}PATH of a file of weights"
            )
    return Topology(
        tuple(
            tuple(
                _equal(replica, [(replica + offset) % count for offset in offsets])
                for replica in range(count)
            )
            for offsets in periods
        )
    )


def _equal(replica: int, others: list[int]) -> dict[int, float]:
    """Return equal weights of a replica and of others, each counted once."""
    distinct = dict.fromkeys([replica, *others])
    return dict.fromkeys(distinct, 1.0 / len(distinct))


def _torus(count: int) -> Topology:
    """Return the grid that is closest to a square, in which all have four neighbours or fewer."""
    height = next(n for n in range(isqrt(count), 0, -1) if count % n == 0)
    width = count // height
    if height == 1:
        raise ExperimentError(
            f"parallel.topology = 'torus': {count} replicas form no grid; allowed: numbers that "
            "are a product of two above 1, or topology = 'ring'"
        )
    rows = []
    for replica in range(count):
        down, right = divmod(replica, width)
        others = [(down + step) % height * width + right for step in (-1, 1)]
        others += [down * width + (right + step) % width for step in (-1, 1)]
        rows.append(_equal(replica, others))
    return Topology((tuple(rows),))


def _from_file(name: str, count: int, push_sum: bool) -> Topology:
    """Return the weights of a file with a line for each replica, separated by commas.

    Powers of stochastic weights converge if replicas are connected, in both directions, and no
    eigenvalue but the first has the absolute value 1; of doubly stochastic ones, to the mean.
    """
    asked, path = f"parallel.topology = {name!r}", name.removeprefix(FILE)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an empty file, which has too few weights
            matrix = np.loadtxt(path, delimiter=",", ndmin=2, dtype=np.float64)
    except OSError as error:
        raise ExperimentError(f"{asked}: {error.strerror or error}") from None
    except ValueError as error:
        raise ExperimentError(f"{asked}: {' '.join(str(error).split())}") from None
    if matrix.shape != (count, count):
        rows, columns = matrix.shape
        raise ExperimentError(
            f"{asked}: has {rows} × {columns} weights; this plan needs {count} × {count}"
        )
    needed = "columns" if push_sum else "rows and columns"
    otherwise = "" if push_sum else ", or columns alone with parallel.push_sum = true"
    for kind, lines in (("row", matrix), ("column", matrix.T))[push_sum:]:
        for number, line in enumerate(lines):
            total = float(line.sum())
            if not (line >= 0).all():
                raise ExperimentError(f"{asked}: {kind} {number} has a weight below 0, or none")
            if not abs(total - 1.0) <= TOLERANCE:
                raise ExperimentError(
                    f"{asked}: {kind} {number} adds up to {total:.9g}; {needed} must add up to 1"
                    f"{otherwise}"
                )
    for one_way, text in ((matrix, "row {} gets to row 0"), (matrix.T, "row 0 gets to row {}")):
        reached = {0}
        for _ in range(count):
            reached |= {int(other) for one in reached for other in np.flatnonzero(one_way[one])}
        if len(reached) < count:
            lost = next(replica for replica in range(count) if replica not in reached)
            raise ExperimentError(f"{asked}: is not connected: nothing of {text.format(lost)}")
    sizes = np.sort(np.abs(np.linalg.eigvals(matrix)))
    if count > 1 and sizes[-2] > 1.0 - TOLERANCE:
        raise ExperimentError(
            f"{asked}: replicas hand parameters round and never get closer; allowed: a weight "
            "above 0 for a replica's own parameters in at least one row"
        )
    rows_of = [
        {replica: float(line[replica])} | {int(j): float(line[j]) for j in np.flatnonzero(line)}
        for replica, line in enumerate(matrix)
    ]
    return Topology((tuple(rows_of),))
