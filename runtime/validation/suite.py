"""The cases of ``twinline validate``: every strategy at several sizes, run on real processes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from runtime.validation.suite_case import SuiteCase
from simulator.experiment.experiment import Experiment
from simulator.experiment.section import ExperimentError
from simulator.experiment_file import parse, with_overrides
from simulator.prediction import predict
from simulator.program.codecs.table import PARAMETER_CODECS
from simulator.strategies.schedules.registry import SCHEDULES

Keys = dict[str, Any]
"""The keys of an experiment, as in ``--set``: ``parallel.data``: 2."""

SUITES = ("quick", "full")
SMALL: Keys = {"workload.hidden": 128, "workload.sequence": 64, "run.iterations": 10}
LARGE: Keys = {
    "workload.hidden": 256,
    "workload.sequence": 128,
    "workload.layers": 4,
    "run.iterations": 8,
}
SIZES = {"small": SMALL, "large": LARGE}
BASE: Keys = {
    "workload.model": "gpt",
    "workload.layers": 8,  # divided by four ranks with two stages each
    "workload.heads": 4,
    "parallel.microbatches": 4,
    "run.warmup": 1,
}
PACED: Keys = {
    "workload.hidden": 64,
    "workload.sequence": 32,
    "workload.global_batch": 16,
    "parallel.microbatches": 8,
    "run.iterations": 3,
}
STEP_S, LONG_STEP_S = 4.0, 10.0
"""Length of a paced step; the long one is for plans of many small instructions (tensor).

Both are long enough to hide the real work of eight ranks on two cores.
"""


def _pipelines(ranks: int) -> Iterable[tuple[str, str, Keys]]:
    many = {"parallel.pipeline": ranks, "parallel.microbatches": 2 * ranks}
    for schedule in SCHEDULES:
        virtual = 2 if schedule in ("interleaved-1f1b", "looped-bfs", "zb-v", "dualpipe-v") else 1
        keys = {"parallel.schedule": schedule, "parallel.virtual_stages": virtual}
        yield schedule, "pipeline", many | keys


def _replicas(ranks: int) -> Iterable[tuple[str, str, Keys]]:
    data = {"parallel.data": ranks}
    yield "data parallel", "data parallel", data
    for stage in (1, 2, 3):
        yield f"zero {stage}", "sharded", data | {"parallel.zero": stage}
    gathered = {"parallel.data_style": "scatter-gather", "workload.model": "mlp"}
    yield "scatter and gather", "data parallel", data | gathered
    half = {"parallel.data": ranks // 2, "parallel.servers": ranks // 2, "parallel.bucket_mb": 1.0}
    yield "parameter server", "data parallel", half | {"parallel.data_style": "parameter-server"}
    shared = {"parallel.data_style": "parameter-server", "parallel.servers": "shared"}
    yield (
        "parameter server, shared",
        "data parallel",
        data | shared | {"parallel.bucket_mb": 1.0},
    )
    queue = {"parallel.data": ranks - 1, "parallel.data_style": "work-queue"}
    yield "work queue", "data parallel", queue
    apart = {"parallel.data": ranks - 1, "parallel.data_style": "asynchronous", "run.horizon": 4}
    apart |= {"parallel.bucket_mb": 1e6}
    yield "asynchronous", "data parallel", apart
    stale = {"parallel.data_style": "stale-synchronous", "parallel.staleness_bound": 1}
    yield "stale synchronous", "data parallel", apart | stale
    soft = {"parallel.data_style": "soft-synchronous", "parallel.gradients_per_update": ranks // 2}
    yield "soft-synchronous", "data parallel", apart | soft
    rarely = data | {"parallel.sync_period": 2, "run.horizon": 4, "run.iterations": 5}
    yield "local SGD", "data parallel", rarely | {"parallel.data_style": "local-sgd"}
    outer = rarely | {"parallel.data_style": "diloco"}
    yield "DiLoCo", "data parallel", outer
    parts = {"parallel.fragments": 2, "parallel.sync_period": 4, "parallel.bucket_mb": 1.0}
    yield "DiLoCo, fragments", "data parallel", outer | parts | {"parallel.overlap_steps": 1}
    mixed: Keys = {"parallel.data_style": "gossip", "parallel.topology": "one-peer-exponential"}
    mixed = data | mixed | {"run.horizon": 4, "run.iterations": 5}
    yield "gossip", "data parallel", mixed
    pairs = {"parallel.data_style": "ad-psgd", "parallel.topology": "ring", "run.horizon": 4}
    yield "AD-PSGD", "data parallel", data | pairs
    yield "gossip, push-sum", "data parallel", mixed | {"parallel.push_sum": True}


def _inside_layers(ranks: int) -> Iterable[tuple[str, str, Keys]]:
    tensor, context = {"parallel.tensor": ranks}, {"parallel.context": ranks}
    mlp = tensor | {"workload.model": "mlp"}
    yield "tensor", "tensor", tensor
    yield "tensor, sequence parallel", "tensor", tensor | {"parallel.sequence_parallel": True}
    llama = tensor | {"workload.model": "llama", "workload.kv_heads": 2}
    yield "tensor, llama", "tensor", llama
    for style in ("column", "row", "megatron"):
        yield f"tensor, mlp {style}", "tensor", mlp | {"parallel.tensor_style": style}
    for style in ("ring", "ulysses"):
        yield f"context, {style}", "context", context | {"parallel.context_style": style}
    expert = {"parallel.expert": ranks, "workload.model": "moe-gpt", "workload.layers": 4}
    yield "experts", "experts", expert


def _variants() -> Iterable[tuple[str, str, Keys]]:
    """Yield plans for two ranks that differ in what each rank does, not in how work is split."""
    pipeline, data = {"parallel.pipeline": 2}, {"parallel.data": 2}
    for what in ("selective", "full"):
        yield f"recompute {what}", "recomputation", pipeline | {"parallel.recompute": what}
    yield "bf16", "precision", pipeline | {"workload.dtype": "bf16"}
    yield "fp16", "precision", pipeline | {"workload.dtype": "fp16", "run.iterations": 3}
    for optimizer in ("momentum", "adam"):
        yield optimizer, "optimizer", data | {"workload.optimizer": optimizer}
    yield "clipping", "optimizer", pipeline | {"workload.clip_norm": 1.0}
    several: Keys = {"run.horizon": 4, "run.iterations": 5}
    for codec, more in CODECS.items():
        compressed = data | {"parallel.compression": codec, "parallel.bucket_mb": 1.0}
        yield f"compressed gradients, {codec}", "compression", compressed | more
    for codec in PARAMETER_CODECS:
        gathered: Keys = {"parallel.zero": 3, "parallel.parameter_compression": codec}
        yield (
            f"compressed parameters, {codec}",
            "compression",
            data | gathered | {"parallel.bucket_mb": 1.0},
        )
    bits = CODECS["qsgd"] | {"parallel.compression": "qsgd", "parallel.data_style": "diloco"}
    yield "DiLoCo, 4 bits", "compression", data | bits | several | {"parallel.sync_period": 2}
    yield "zero 1, four steps", "several steps", data | several | {"parallel.zero": 1}
    pipedream = pipeline | several | {"parallel.schedule": "pipedream"}
    yield "pipedream, four steps", "several steps", pipedream


def _hybrids() -> Iterable[tuple[str, str, Keys]]:
    """Yield products of two degrees, on four ranks."""
    axes: dict[str, Keys] = {
        "data": {"parallel.data": 2},
        "pipeline": {"parallel.pipeline": 2},
        "tensor": {"parallel.tensor": 2},
        "context": {"parallel.context": 2},
        "expert": {"parallel.expert": 2, "workload.model": "moe-gpt", "workload.layers": 4},
    }
    pairs = ("data pipeline", "data tensor", "pipeline tensor", "pipeline context", "data expert")
    for pair in pairs:
        one, other = pair.split()
        yield f"{one} × {other}", "hybrid", axes[one] | axes[other]
    zero = {"parallel.zero": 3}
    yield "zero 3 × pipeline", "hybrid", axes["data"] | axes["pipeline"] | zero


def _paced() -> Iterable[tuple[str, str, str, Keys]]:
    eight = {"parallel.pipeline": 8}
    few = {"workload.layers": 4, "parallel.microbatches": 4}  # ranks meet in every layer
    plans: dict[str, Keys] = {
        "1f1b": {"parallel.pipeline": 4},
        "zb-h1": {"parallel.pipeline": 4, "parallel.schedule": "zb-h1"},
        "data × pipeline": {"parallel.pipeline": 2, "parallel.data": 2},
        "tensor × pipeline": few | {"parallel.pipeline": 2, "parallel.tensor": 2},
        "1f1b ": eight,
        "gpipe": eight | {"parallel.schedule": "gpipe"},
        "data × pipeline ": {"parallel.pipeline": 4, "parallel.data": 2},
        "data × pipeline × tensor": few
        | {"parallel.pipeline": 2, "parallel.data": 2, "parallel.tensor": 2},
    }
    for number, (name, keys) in enumerate(plans.items()):
        yield name.strip(), "paced", ("dgx-a100-80gb", "dgx-h100")[number % 2], keys


QUICK = (
    "data parallel", "zero 3", "gpipe", "1f1b", "interleaved-1f1b", "zb-h1", "tensor",
    "context, ring", "experts", "recompute full",
)  # fmt: skip
"""The strategies of the quick suite: one per family, each with another kind of communication."""

CODECS: dict[str, Keys] = {
    "fp16": {}, "bf16": {}, "int8": {}, "one-bit": {}, "qsgd": {"parallel.levels": 7},
    "top-k": {"parallel.density": 0.01}, "power-sgd": {"parallel.compression_rank": 4},
}  # fmt: skip
"""The codecs of gradients, each with the keys that it needs."""

SLOW = ("bf16", "fp16")
"""The dtypes in which CPUs are so slow that a step of a large model takes minutes."""


def cases_of(
    suite: str,
    ranks: Sequence[int] = (),
    patterns: Sequence[str] = (),
    settings: Sequence[str] = (),
) -> list[SuiteCase]:
    """Return the cases of a suite, fewest ranks first.

    Args:
        suite: ``quick`` or ``full``.
        ranks: keep only cases of these numbers of ranks; empty: all.
        patterns: keep only cases whose name contains one of these, in which ``*`` stands for
            anything; empty: all.
        settings: ``section.key=value`` for all cases but the paced ones.

    Raises:
        ExperimentError: there is no such suite, or no such case in it, or a case is impossible
            with these settings.
    """
    if suite not in SUITES:
        raise ExperimentError(f"--suite {suite}: allowed: {', '.join(SUITES)}")
    on_two = [*_replicas(2), *_pipelines(2), *_inside_layers(2), *_variants()]
    if suite == "quick":
        quick = [plan for plan in on_two if plan[0] in QUICK]
        cases = [_case(*plan[:2], "small", plan[2] | {"run.iterations": 5}) for plan in quick]
    else:
        alone: tuple[str, str, Keys] = ("gradient accumulation", "one device", {})
        on_four = [*_replicas(4), *_pipelines(4), *_inside_layers(4), *_hybrids()]
        cases = [
            _case(*plan[:2], size, plan[2])
            for size in SIZES
            for plan in [alone, *on_two]
            if size == "small" or plan[0] not in SLOW
        ]
        cases += [_case(*plan[:2], "small", plan[2]) for plan in on_four]
        cases += [_paced_case(*plan) for plan in _paced()]
    cases.sort(key=lambda case: case.ranks)
    known = sorted({case.ranks for case in cases})
    for count in ranks:
        if count not in known:
            raise ExperimentError(
                f"--ranks {count}: no case of suite {suite}; allowed: {', '.join(map(str, known))}"
            )
    cases = [case for case in cases if not ranks or case.ranks in ranks]
    for pattern in patterns:
        if not any(case.has(pattern) for case in cases):
            raise ExperimentError(f"--cases {pattern}: matches none; --list shows the names")
    chosen = [case for case in cases if not patterns or any(map(case.has, patterns))]
    return [_set(case, settings) for case in chosen]


def _case(strategy: str, family: str, size: str, keys: Keys) -> SuiteCase:
    return SuiteCase(strategy, family, size, _experiment(BASE | SIZES[size] | keys))


def _set(case: SuiteCase, settings: Sequence[str]) -> SuiteCase:
    if case.experiment.run.pace is not None or not settings:
        return case
    try:
        return replace(case, experiment=with_overrides(case.experiment, settings))
    except ExperimentError as error:
        raise ExperimentError(f"case {case.name}: {error}") from None


def _paced_case(strategy: str, family: str, preset: str, keys: Keys) -> SuiteCase:
    """Make a case whose pace stretches a step to `STEP_S` or `LONG_STEP_S`."""
    keys = BASE | PACED | keys | {"cluster.preset": preset}
    plan = _experiment(keys)
    seconds = STEP_S if plan.parallel.tensor == 1 else LONG_STEP_S
    pace = seconds / predict(plan).timeline.iteration_time
    return SuiteCase(strategy, family, preset, _experiment(keys | {"run.pace": float(round(pace))}))


def _experiment(keys: Keys) -> Experiment:
    data: dict[str, dict[str, Any]] = {}
    shape = ("workload.heads", "workload.sequence")  # which a perceptron does not have
    for key, value in keys.items():
        if keys["workload.model"] == "mlp" and key in shape:
            continue
        section, name = key.split(".")
        data.setdefault(section, {})[name] = value
    return parse(data)
