"""Plans whose gradients cannot be compressed are refused, with the reason."""

from __future__ import annotations

from dataclasses import fields

from simulator.experiment.experiment import Experiment
from simulator.experiment.section import ExperimentError
from simulator.program.codecs.codec import Values
from simulator.program.codecs.table import CODECS
from simulator.strategies.gradients.compression import codec_of
from simulator.strategies.gradients.tied import tied_ends
from simulator.strategies.schedules.checks import updates_within_a_step
from simulator.workloads.describe import describe

STYLES = ("all-reduce", "local-sgd", "diloco")
"""Styles of data parallelism whose ranks send sums and averages only."""
OF_ALL = ("error_feedback", "compression_start")
"""Keys that every codec reads."""


def check(experiment: Experiment) -> None:
    """Refuse keys without their codec, and plans whose gradients cannot be compressed.

    Raises:
        ExperimentError: with one line that names key, value and what is allowed.
    """
    parallel = experiment.parallel
    readers: dict[str, list[str]] = {key: list(CODECS) for key in OF_ALL}
    for name, codec in CODECS.items():
        for field in fields(codec):
            readers.setdefault(field.name, []).append(name)
    for key, names in readers.items():
        value = getattr(parallel, key)
        if value is not None and parallel.compression not in names:
            allowed = " or ".join(map(repr, names))
            shown = str(value).lower() if isinstance(value, bool) else value
            raise ExperimentError(
                f"parallel.{key} = {shown}: only for parallel.compression = {allowed}, not "
                f"{parallel.compression!r}"
            )
        if value is None and key not in OF_ALL and parallel.compression in names:
            raise ExperimentError(
                f"parallel.compression = {parallel.compression!r}: needs parallel.{key}, which is "
                "not set"
            )
    if parallel.compression != "none":
        _check_plan(experiment)


def _check_plan(experiment: Experiment) -> None:
    """Refuse what no codec can be used with, then what the codec cannot encode."""
    parallel, workload = experiment.parallel, experiment.workload
    asked = f"parallel.compression = {parallel.compression!r}"
    if not workload.family.has_parameters:
        raise ExperimentError(
            f"{asked}: workload.model = {workload.model!r} has no parameters; allowed: 'none'"
        )
    if parallel.data_style not in STYLES:
        raise ExperimentError(
            f"{asked}: not for parallel.data_style = {parallel.data_style!r}, whose ranks send "
            f"more than sums; allowed: {', '.join(map(repr, STYLES))}"
        )
    if parallel.data_style == "all-reduce":
        _check_gradients(experiment, asked)
    else:
        _check_averages(experiment, asked)
    codec = codec_of(parallel)
    if codec.READS_SHAPES:
        shapes = tuple(shape for layer in describe(experiment) for shape in layer.shapes)
        if reason := codec.refusal(Values(0, workload.dtype_bytes, shapes)):
            raise ExperimentError(reason)
    start, horizon = parallel.compression_start or 0, experiment.run.horizon
    if start >= horizon:
        raise ExperimentError(
            f"parallel.compression_start = {start}: must be less than run.horizon = {horizon}, the "
            "training steps of the program"
        )


def _check_gradients(experiment: Experiment, asked: str) -> None:
    parallel, workload = experiment.parallel, experiment.workload
    if parallel.replicas == 1:
        raise ExperimentError(
            f"{asked}: with one replica no gradients are sent; allowed: 'none', or data, context "
            "or expert of 2 or more"
        )
    if tied_ends(experiment) is not None:
        raise ExperimentError(
            f"{asked}: both ends of a pipeline sum the gradients of tied embeddings once more, "
            "and something would be lost twice; allowed: 'none', or parallel.pipeline = 1"
        )
    if parallel.shards_gradients:
        raise ExperimentError(
            f"parallel.zero = {parallel.zero}: gradients are summed after each microbatch, and no "
            f"rank keeps all of them for {asked} to encode once a step; allowed: 0, 1"
        )
    if parallel.shards_optimizer and parallel.shards < parallel.replicas:
        raise ExperimentError(
            f"parallel.zero_group = {parallel.shards}: sums of shards would be summed once more "
            f"over {parallel.replicas // parallel.shards} sets of them, and {asked} would lose "
            "something twice; allowed: unset"
        )
    if updates_within_a_step(experiment):
        raise ExperimentError(
            f"parallel.schedule = {parallel.schedule!r}: it updates while microbatches are under "
            f"way, which would wait for {asked} to be decoded; allowed: synchronous schedules"
        )
    if workload.dtype == "fp16":
        raise ExperimentError(
            f"workload.dtype = 'fp16': gradients have the factor of a loss scale that changes, and "
            f"{asked} would mix steps of different ones; allowed: 'fp64', 'fp32', 'bf16'"
        )
    if CODECS[parallel.compression].IS_NARROW and workload.dtype_bytes <= 2:
        raise ExperimentError(
            f"{asked}: gradients of workload.dtype = {workload.dtype!r} have 2 bytes already; "
            "allowed: 'fp64', 'fp32'"
        )


def _check_averages(experiment: Experiment, asked: str) -> None:
    parallel = experiment.parallel
    if parallel.axis_size("data") == 1:
        raise ExperimentError(
            f"{asked}: with parallel.data = 1 no parameters are averaged; allowed: 'none', or data "
            "of 2 or more"
        )
    if parallel.overlap_steps:
        raise ExperimentError(
            f"parallel.overlap_steps = {parallel.overlap_steps}: parameters are updated beside "
            f"their average, and {asked} decodes into them; allowed: 0"
        )
    for key in ("compression_start", "local_after") if parallel.data_style == "local-sgd" else ():
        if getattr(parallel, key):
            raise ExperimentError(
                f"parallel.{key} = {getattr(parallel, key)}: with {asked} replicas send how much "
                "they have changed since the last average that was compressed; allowed: 0"
            )
