"""How well the presets' constants describe measured collectives, and the fit of them.

    python tests/benchmarks/fit_collectives.py [--fit PRESET island|network] [--rows] CSV …

CSV files in one of three forms: nccl-tests figures (columns source, system, gpu, nodes,
n_gpus, collective, algorithm, bytes, time_us, busbw_GBs), a table of all-reduces in one node
(gpu, n_gpus, bytes, outofplace_ns), or ratios to the peak (file, column, bytes, ratio).
Prints per series predicted, measured, and the median, 90th percentile and largest |error|.
``--fit`` looks for better constants of a preset and prints them; nothing is written.
"""

from __future__ import annotations

import csv
import random
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from simulator.cluster.build import cluster_of
from simulator.cluster.cluster import Cluster
from simulator.cluster.file import parse_cluster
from simulator.program.operations import Op

CLUSTERS = Path(__file__).resolve().parents[2] / "simulator" / "cluster" / "presets"
ONE_NODE_FACTOR = {"all_reduce": 2.0, "all_gather": 1.0, "reduce_scatter": 1.0}
LARGE = 16 << 20

# systems of nccl_busbw.csv: preset, and what differs from it: 10⁹ bit/s of a node; host time
# of calls from Python that wait for each collective (all_reduce_bench.py, blocking)
SYSTEMS: dict[str, tuple[str, dict[str, float]]] = {
    "one A100 node (8 GPUs, NVSwitch)": ("dgx-a100-80gb", {}),
    "8x A100 node": ("dgx-a100-80gb", {}),
    "8x H200 node, NVLink 4, NVLS on": ("dgx-h200", {"host_us": 15}),
    "8x H200 node, NVLink 4": ("dgx-h200", {}),
    "2x p4de.24xlarge (8x A100-80GB, NVSwitch, EFA 4x100 Gb/s per node)": (
        "aws-p4de", {}),
    "2x p5.48xlarge (8x H100-80GB, NVSwitch, EFA 3200 Gb/s per node)": ("aws-p5", {}),
    "1x p5.48xlarge (8x H100-80GB; the busbw/algbw ratio 1.75 = 8 ranks)": ("dgx-h100", {}),
    "3 nodes x 8x A100-40GB SXM4, 4x HDR 200 Gb/s per node": ("dgx-a100-40gb", {"gbit": 800}),
    "2 nodes x 8x A100, 4x IB 200 Gb/s per node": ("dgx-a100-80gb", {"gbit": 800}),
    "2 nodes x 8x A100-80GB, 4x ConnectX-6 200 Gb/s per node": ("dgx-a100-80gb", {"gbit": 800}),
    "8x H100 node": ("dgx-h100", {}),
}  # fmt: skip


@dataclass
class Series:
    """Measurements of one collective on one machine: (bytes, seconds)."""

    name: str
    preset: str
    ranks: int
    nodes: int
    op: str
    forced: str | None = None
    gbit: float | None = None
    host_s: float = 0.0
    points: list[tuple[float, float]] = field(default_factory=list)

    def predicted(self, cluster: Cluster) -> np.ndarray:
        sized = cluster.resized(nodes=self.nodes, node_bandwidth_gbit=self.gbit)
        sized.communication.forced = self.forced
        group = tuple(range(self.ranks))
        costs = [sized.communication.cost(self.op, group, nbytes) for nbytes, _ in self.points]
        return np.array([self.host_s + cost.seconds for cost in costs])

    def errors(self, cluster: Cluster) -> np.ndarray:
        return self.predicted(cluster) / np.array([seconds for _, seconds in self.points]) - 1


def read(path: str) -> Iterator[Series]:
    """The series of a CSV file that belong to a preset."""
    found: dict[tuple[Any, ...], Series] = {}
    with Path(path).open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if "outofplace_ns" in row:
                preset = {"A100": "dgx-a100-80gb", "V100": "dgx-v100"}[row["gpu"]]
                name = f"{row['gpu']}, {row['n_gpus']} GPUs (vTrain)"
                new = Series(name, preset, int(row["n_gpus"]), 1, Op.ALL_REDUCE)
                point = (float(row["bytes"]), float(row["outofplace_ns"]) * 1e-9)
            elif "ratio" in row:
                # all-reduce inside one node, share of NVLink's 300 GB/s; the rest does not
                # say on which hardware
                if (row["file"], row["column"][:6]) != ("nvlink_ratio", "1 Node"):
                    continue
                new = Series("A100 assumed, 8 GPUs (SimAI)", "dgx-a100-80gb", 8, 1, Op.ALL_REDUCE)
                size = float(row["bytes"])
                point = (size, 1.75 * size / (300e9 * float(row["ratio"])))
            else:
                if row["system"] not in SYSTEMS or not row["n_gpus"]:
                    continue
                preset, changes = SYSTEMS[row["system"]]
                size, algorithm = _size(row["bytes"]), _algorithm(row["algorithm"])
                ranks, op = int(row["n_gpus"]), row["collective"].upper()
                factor = ONE_NODE_FACTOR[row["collective"]] * (ranks - 1) / ranks
                busbw = float(row["busbw_GBs"] or 0)
                if not row["time_us"] and not busbw:
                    continue
                name = f"{row['system']}, {row['collective']}, {algorithm or 'auto'}, {ranks} GPUs"
                new = Series(name, preset, ranks, int(row["nodes"]), op, algorithm)
                new.gbit, new.host_s = changes.get("gbit"), changes.get("host_us", 0) * 1e-6
                seconds = float(row["time_us"] or 0) * 1e-6 or factor * size / (busbw * 1e9)
                point = (size, seconds)
            found.setdefault((new.name, new.preset), new).points.append(point)
    yield from found.values()


def _size(text: str) -> float:
    """Bytes; where only a range is given for a peak, its upper end; else 8 GiB."""
    if text.isdigit():
        return float(text)
    units = {"MiB": 2**20, "GiB": 2**30}
    digits = "".join(c if c.isdigit() else " " for c in text).split()
    return float(digits[-1]) * units[text[-3:]] if digits else 8.0 * 2**30


def _algorithm(text: str) -> str | None:
    if "<=" in text or "efault" in text:
        return None
    return {"Ring": "ring", "NVLS": "in-network", "Tree": "tree"}.get(text.split(" ")[0])


def toml_of(preset: str) -> dict[str, Any]:
    return tomllib.loads((CLUSTERS / f"{preset}.toml").read_text(encoding="utf-8"))


def built(data: dict[str, Any]) -> Cluster:
    return cluster_of(parse_cluster(data, data["name"]))


def score(data: dict[str, Any], series: list[Series]) -> float:
    """Mean over series of the mean |log error|; large messages count three times."""
    cluster, total = built(data), 0.0
    for one in series:
        logs = np.abs(np.log1p(one.errors(cluster)))
        weight = np.array([3.0 if size >= LARGE else 1.0 for size, _ in one.points])
        total += float((logs * weight).sum() / weight.sum()) * len(one.points) ** 0.25
    return total


def constants(data: dict[str, Any], level: str) -> Iterator[tuple[dict[str, Any], str]]:
    """(table, key) of what is fitted."""
    for table in data[level]["protocols"].values():
        yield from ((table, key) for key in ("latency_us", "efficiency"))
    if level == "island":
        library = data["collectives"]
        yield from ((library, key) for key in ("start_us", "copy_gbyte") if key in library)
        if "in_network" in library:
            yield from ((library["in_network"], key) for key in ("latency_us", "efficiency"))


def fit(preset: str, level: str, series: list[Series]) -> None:
    """Change constants at random for as long as it helps; print the result."""
    data = toml_of(preset)
    keys, best = list(constants(data, level)), score(data, series)
    step, draw = 0.4, random.Random(0)
    while step > 0.02:
        before = best
        for _ in range(6 * len(keys)):  # one constant or two at a time
            tried = draw.sample(keys, draw.choice((1, 2)))
            old = [table[key] for table, key in tried]
            for table, key in tried:
                limit = 1.0 if key == "efficiency" else 1e6
                factor = (1 + step) ** draw.uniform(-1, 1)
                table[key] = min(float(f"{table[key] * factor:.3g}"), limit)
            now = score(data, series)
            if now < best - 1e-6:
                best = now
            else:
                for (table, key), value in zip(tried, old, strict=True):
                    table[key] = value
        if best > before * 0.998:
            step /= 1.7
        print(f"step {step:.3f} score {best:.4f}", file=sys.stderr)
    for name in (level, "collectives"):
        print(name, {k: v for k, v in data[name].items() if k != "mesh"})
    report(series, lambda _: built(data), rows=False)


def report(series: list[Series], cluster: Callable[[str], Cluster], rows: bool) -> None:
    for one in series:
        loaded = cluster(one.preset)
        errors, predicted = np.abs(one.errors(loaded)), one.predicted(loaded)
        large = errors[[size >= LARGE for size, _ in one.points]]
        print(
            f"{one.preset}: {one.name}: {len(errors)} rows, |error| median "
            f"{np.median(errors):.1%}, 90th percentile {np.percentile(errors, 90):.1%}, largest "
            f"{errors.max():.1%}"
            + (f"; from 16 MiB: median {np.median(large):.1%}" if len(large) else "")
        )
        for (size, seconds), found in zip(one.points, predicted, strict=True) if rows else ():
            error = found / seconds - 1
            print(f"  {size:14.0f} B {found * 1e6:11.1f} µs {seconds * 1e6:11.1f} µs {error:+.1%}")


def main(arguments: list[str]) -> None:
    rows = "--rows" in arguments
    arguments = [argument for argument in arguments if argument != "--rows"]
    what = arguments[1:3] if arguments[:1] == ["--fit"] else None
    series = [one for path in arguments[3 if what else 0 :] for one in read(path)]
    if what:
        preset, level = what
        inside = level == "island"
        fit(preset, level, [s for s in series if s.preset == preset and (s.nodes == 1) == inside])
        return
    report(series, lambda preset: built(toml_of(preset)), rows)


if __name__ == "__main__":
    main(sys.argv[1:])
