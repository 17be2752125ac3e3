"""Predict published measurements: layer times of Korthikanti et al. 2022 (table 4), one-node
training throughput of MosaicML's llm-foundry (scripts/train/benchmarking, 2024), and iteration
times in Megatron-LM's README of 2020.

    python tests/benchmarks/published.py LAYERS.csv FSDP.csv [MEGATRON.csv]

The tables are not part of this project. LAYERS.csv has the columns experiment, forward_ms,
backward_ms; FSDP.csv those of llm-foundry's table, one row a run; MEGATRON.csv case, hidden,
heads, layers, tp, dp, hardware, global_batch_seqs, iteration_time_ms.

A row of FSDP.csv is a run of data = 8 replicas with zero = 3 whose bucket is one block, as
PyTorch FSDP wraps them: parameters and gradients travel in bf16, fp32 master weights and Adam's
state stay on their rank. (mp_mode DEFAULT reduces gradients in fp32: half a gather more.)
Attention is fused, blocks are recomputed where act_ckpt says so. At most `MICROBATCHES` of a
step are simulated; the time of a step is linear in them.
"""

from __future__ import annotations

import argparse
import csv
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simulator import predict
from simulator.cluster.cluster import Cluster
from simulator.cluster.preset_files import preset_names
from simulator.cluster.resolve import resolve
from simulator.experiment.experiment import Experiment
from simulator.experiment_file import parse

MICROBATCHES = 4
PRESETS = {"a100_80gb": "dgx-a100-80gb", "a100_40gb": "dgx-a100-40gb", "h100_80gb": "dgx-h100"}

FP8 = "amp_fp8"

Row = dict[str, str]
Place = Callable[[Experiment], Cluster]


@dataclass
class Case:
    """One figure: what is predicted for it and what was published, in the same unit."""

    name: str
    unit: str
    predicted: float
    published: float
    fitted: bool

    @property
    def error(self) -> float:
        """Of the time; positive: the prediction is slower."""
        ratio = self.predicted / self.published
        return (1 / ratio if self.unit == "tokens/s/GPU" else ratio) - 1


def experiment_of(row: Row, microbatches: int) -> Experiment:
    hidden = int(row["d_model"])
    return parse(
        {
            "workload": {
                "model": "gpt",
                "layers": int(row["n_layers"]),
                "hidden": hidden,
                "heads": int(row["n_heads"]),
                "sequence": int(row["seq_len"]),
                "ffn_hidden": int(row["ffn"]),
                "vocab": int(row["vocab"]),
                "global_batch": 8 * int(row["micro_batch_per_gpu"]) * microbatches,
                "dtype": "bf16",
                "optimizer": "adam",
                "attention": "flash",
            },
            "parallel": {
                "data": 8,
                "zero": 3,
                "microbatches": microbatches,
                "recompute": "full" if row["act_ckpt"] == "True" else "none",
                "bucket_mb": 13 * hidden**2 * 2 / 1e6,  # a block, with biases and norms
            },
            "cluster": {"preset": PRESETS[row["gpu"]]},
        }
    )


def step_seconds(row: Row, place: Place) -> float:
    """Of all microbatches, extended in a line where there are more than are simulated."""
    count = int(row["grad_accum"])
    times = []
    for simulated in sorted({min(count, MICROBATCHES), min(count, MICROBATCHES - 1)}):
        experiment = experiment_of(row, simulated)
        result = predict(experiment, place(experiment))
        times.append(result.iteration_time_s)
    return times[-1] + (count - MICROBATCHES) * (times[-1] - times[0]) * (count > MICROBATCHES)


def throughput(row: Row, place: Place = resolve) -> float:
    """Tokens/s on each GPU."""
    tokens = int(row["micro_batch_per_gpu"]) * int(row["grad_accum"]) * int(row["seq_len"])
    return tokens / step_seconds(row, place)


def is_predicted(row: Row) -> bool:
    """fp8 is no dtype here, and a preset may be missing."""
    return row["precision"] != FP8 and PRESETS[row["gpu"]] in preset_names()


def is_fitted(number: int) -> bool:
    """Every third row of the table, fp8 left out, is used to fit."""
    return number % 3 == 0


def rows_to_fit(path: Path) -> list[Row]:
    bf16 = [row for row in read(path) if row["precision"] != FP8]
    return [row for number, row in enumerate(bf16) if is_fitted(number) and is_predicted(row)]


def fsdp_cases(rows: Iterable[Row], place: Place = resolve) -> list[Case]:
    cases = []
    for number, row in enumerate(row for row in rows if row["precision"] != FP8):
        if not is_predicted(row):
            continue
        again = ", recomputed" if row["act_ckpt"] == "True" else ""
        gpu = row["gpu"].replace("_", " ").upper()
        name = (
            f"{gpu} {row['model']} s{row['seq_len']} "
            f"{row['micro_batch_per_gpu']}×{row['grad_accum']}{again}"
        )
        published = float(row["throughput_tokens_per_s_gpu"])
        cases.append(
            Case(name, "tokens/s/GPU", throughput(row, place), published, is_fitted(number))
        )
    return cases


LAYERS_22B = {
    "Baseline no recompute": {},
    "Sequence Parallelism": {"sequence_parallel": True},
    "Baseline with recompute": {"recompute": "full"},
    "Selective Recompute": {"recompute": "selective"},
    "Selective + Sequence": {"recompute": "selective", "sequence_parallel": True},
}
"""Korthikanti et al. 2022, table 4."""


def layer_milliseconds(parallel: dict[str, Any], place: Place = resolve) -> tuple[float, float]:
    """(forward, backward) of one layer: what a layer more adds to a step of one microbatch."""
    times = []
    for count in (2, 3):
        experiment = parse(
            {
                "workload": {
                    "model": "gpt",
                    "layers": count,
                    "hidden": 6144,
                    "heads": 64,
                    "sequence": 2048,
                    "vocab": 51200,
                    "global_batch": 4,
                    "dtype": "bf16",
                },
                "parallel": {"tensor": 8, **parallel},
                "cluster": {"preset": "dgx-a100-80gb"},
            }
        )
        timeline = predict(experiment, place(experiment)).timeline
        mine = timeline.rank == 0
        forward = timeline.of_kind(lambda kind: kind.op == "F")
        backward = timeline.of_kind(lambda kind: kind.op == "STEP")
        turn = float(timeline.end[mine & forward].max())
        step = float(timeline.start[mine & backward].min())
        times.append((turn, step - turn))
    return 1e3 * (times[1][0] - times[0][0]), 1e3 * (times[1][1] - times[0][1])


def layer_cases(rows: Iterable[Row], place: Place = resolve) -> list[Case]:
    cases = []
    for row in rows:
        made = layer_milliseconds(LAYERS_22B[row["experiment"]], place)
        for way, predicted in zip(("forward", "backward"), made, strict=True):
            name = f"22B layer, {row['experiment']}, {way}"
            cases.append(Case(name, "ms", predicted, float(row[f"{way}_ms"]), False))
    return cases


MEGATRON_PRESETS = {"DGX-2 (V100)": "dgx2", "DGX-A100": "dgx-a100-80gb"}


def megatron_cases(rows: Iterable[Row], place: Place = resolve) -> list[Case]:
    """Runs without data parallelism: fp16, Adam, blocks recomputed, the whole batch as one
    microbatch (the table does not say; smaller ones take up to 8 % longer)."""
    cases = []
    for row in rows:
        preset = MEGATRON_PRESETS.get(row["hardware"])
        if preset not in preset_names() or row["dp"] != "1":
            continue
        experiment = parse(
            {
                "workload": {
                    "model": "gpt",
                    "sequence": 1024,
                    "vocab": 51200,
                    "dtype": "fp16",
                    **{key: int(row[key]) for key in ("layers", "hidden", "heads")},
                    "global_batch": int(row["global_batch_seqs"]),
                    "optimizer": "adam",
                },
                "parallel": {"tensor": int(row["tp"]), "recompute": "full"},
                "cluster": {"preset": preset},
            }
        )
        predicted = 1e3 * predict(experiment, place(experiment)).iteration_time_s
        name = f"Megatron-LM {row['case']}, {row['hardware']}, tensor {row['tp']}"
        cases.append(Case(name, "ms", predicted, float(row["iteration_time_ms"]), False))
    return cases


def summary(cases: Iterable[Case]) -> str:
    errors = sorted(abs(case.error) for case in cases)
    if not errors:
        return "none"
    tenth = errors[min(len(errors) - 1, int(0.9 * len(errors)))]
    return (
        f"{len(errors)} rows, median |error| {statistics.median(errors):.1%}, "
        f"90th percentile {tenth:.1%}, largest {errors[-1]:.1%}"
    )


def read(path: Path) -> list[Row]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("layers", type=Path)
    parser.add_argument("fsdp", type=Path)
    parser.add_argument("megatron", type=Path, nargs="?")
    given = parser.parse_args()
    rows = read(given.fsdp)
    layers, fsdp = layer_cases(read(given.layers)), fsdp_cases(rows)
    megatron = megatron_cases(read(given.megatron)) if given.megatron else []
    print("| row | predicted | published | error | used to fit |")
    print("| --- | --- | --- | --- | --- |")
    for case in (*layers, *megatron, *fsdp):
        digits = ".3g" if case.published < 10 else ".0f"
        unit = " ms" if case.unit == "ms" else ""
        print(
            f"| {case.name} | {case.predicted:{digits}}{unit} | {case.published:{digits}}{unit} | "
            f"{case.error:+.1%} | {'yes' if case.fitted else ''} |"
        )
    print(f"\nlayers: {summary(layers)}\nMegatron-LM: {summary(megatron)}")
    for gpu in PRESETS:
        mine = [case for case in fsdp if case.name.startswith(gpu.replace("_", " ").upper())]
        print(f"{gpu} to fit: {summary(case for case in mine if case.fitted)}")
        print(f"{gpu} to check: {summary(case for case in mine if not case.fitted)}")
    checks = [case for case in (*layers, *megatron, *fsdp) if not case.fitted]
    print(f"to check, all: {summary(checks)}")
    print(f"left out (fp8, or no such preset): {len(rows) - len(fsdp)}")


if __name__ == "__main__":
    main()
