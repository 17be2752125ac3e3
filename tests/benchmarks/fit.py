"""Fit constants of a device on the rows of FSDP.csv that `published.py` marks as used to fit.

    python tests/benchmarks/fit.py FSDP.csv GPU CONSTANT=START …

GPU is a100_80gb, a100_40gb or h100_80gb; a CONSTANT is a field of `Device`.
Gauss-Newton on the logarithms of times and constants, weighted so that rows far off count as
in a sum of absolute errors: a run that the model cannot explain moves nothing.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import published

from simulator.cluster.cluster import Cluster
from simulator.cluster.resolve import resolve
from simulator.experiment.experiment import Experiment

ROUNDS = 5
STEP = 0.05
NOISE = 0.03
"""Errors below it weigh alike."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("fsdp", type=Path)
    parser.add_argument("gpu", choices=list(published.PRESETS))
    parser.add_argument("constants", nargs="+", metavar="CONSTANT=START")
    given = parser.parse_args()
    names = [text.partition("=")[0] for text in given.constants]
    logs = np.log([float(text.partition("=")[2]) for text in given.constants])
    rows = [row for row in published.rows_to_fit(given.fsdp) if row["gpu"] == given.gpu]

    def errors(logs: np.ndarray) -> np.ndarray:
        changed = dict(zip(names, np.exp(logs), strict=True))

        def place(experiment: Experiment) -> Cluster:
            cluster = resolve(experiment)
            kinds = {name: replace(kind, **changed) for name, kind in cluster.kinds.items()}
            return replace(cluster, kinds=kinds)

        known = [float(row["throughput_tokens_per_s_gpu"]) for row in rows]
        return np.log(known) - np.log([published.throughput(row, place) for row in rows])

    for _ in range(ROUNDS):
        found = errors(logs)
        values = ", ".join(f"{n} {v:.3f}" for n, v in zip(names, np.exp(logs), strict=True))
        print(f"{values}: median |error| {np.median(abs(found)):.2%}", flush=True)
        slopes = [(errors(logs + STEP * unit) - found) / STEP for unit in np.eye(len(logs))]
        weight = np.sqrt(1 / np.maximum(abs(found), NOISE))
        logs = logs - np.linalg.lstsq(np.array(slopes).T * weight[:, None], found * weight)[0]


if __name__ == "__main__":
    main()
