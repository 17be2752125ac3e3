"""An outer optimizer takes a step with what a period of local steps has changed.

DiLoCo (Douillard et al. 2023, "DiLoCo: Distributed Low-Communication Training of Language Models",
Algorithm 1): Δ = θ - mean_i θ_i, where θ is what all replicas had before the period, is the
gradient of SGD with Nesterov's momentum, of which every replica has the same state. The inner
optimizer's state stays with its replica. With a learning rate of 1 and no momentum that is local
SGD; with one replica it is an optimizer that looks ahead (Zhang et al. 2019, "Lookahead
Optimizer").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from simulator.experiment.experiment import Experiment
from simulator.experiment.section import ExperimentError
from simulator.program.bucket import Bucket
from simulator.program.operations import Op
from simulator.program.stream import COMPUTE_STREAM
from simulator.program.task import Task
from simulator.program.tensors import TensorName
from simulator.strategies.gradients.fragments import OVERLAP_SHARE
from simulator.strategies.gradients.replicas import exchanged_bytes

LEARNING_RATE, MOMENTUM = 0.7, 0.9
"""The values that the paper found best (section 3.1)."""


def check(experiment: Experiment) -> None:
    """Refuse keys of the outer optimizer where there is none.

    Raises:
        ExperimentError: with one line that names key, value and what is allowed.
    """
    parallel = experiment.parallel
    if parallel.data_style == "diloco":
        return
    for key in ("outer_learning_rate", "outer_momentum"):
        if getattr(parallel, key) is not None:
            raise ExperimentError(
                f"parallel.{key} = {getattr(parallel, key):g}: only for parallel.data_style = "
                f"'diloco', not {parallel.data_style!r}"
            )


def outer_step(average: Task, experiment: Experiment, copied: TensorName | None = None) -> Task:
    """Return the outer optimizer's step on the parameters that have been averaged.

    Args:
        average: of the parameters.
        experiment: has the coefficients.
        copied: the copy of the parameters that was averaged in their place; those that the
            replica has now become a weighted mean of the result and of themselves.
    """
    coefficients = _coefficients(experiment)
    if copied is not None:
        share = experiment.parallel.overlap_share
        coefficients += (OVERLAP_SHARE if share is None else share,)
    return replace(
        average,
        op=Op.OUTER_STEP,
        mnemonic="",
        stream=COMPUTE_STREAM,
        group=(),
        reduction="sum",
        sources=() if copied is None else (copied,),
        frees=() if copied is None else (copied,),
        coefficients=coefficients,
    )


def with_outer_state(
    resident: Mapping[str, int], buckets: Sequence[Bucket], experiment: Experiment
) -> dict[str, int]:
    """Return what a rank holds throughout, with the outer optimizer's state.

    That is the parameters before the period and, unless there is no momentum, a velocity.
    """
    copies = 2 if _coefficients(experiment)[1] else 1
    more = copies * sum(exchanged_bytes(bucket, experiment) for bucket in buckets)
    return {**resident, "optimizer": resident.get("optimizer", 0) + more}


def _coefficients(experiment: Experiment) -> tuple[float, ...]:
    parallel = experiment.parallel
    rate, momentum = parallel.outer_learning_rate, parallel.outer_momentum
    return (
        LEARNING_RATE if rate is None else rate,
        MOMENTUM if momentum is None else momentum,
    )
