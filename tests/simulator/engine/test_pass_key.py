"""Passes that do equal work have equal names, and others have not."""

from __future__ import annotations

from simulator import load
from simulator.engine.pass_key import key_of_task, pass_key
from simulator.experiment.parallel import Parallel
from simulator.experiment.workload import Workload
from simulator.program.operations import Op
from simulator.program.task import Task
from simulator.program.tensors import TensorKind, TensorName
from simulator.workloads.describe import describe

EXPERIMENT = load(None, ["workload.optimizer=adam", "workload.dtype=bf16"])
LAYERS, WORKLOAD = describe(EXPERIMENT), EXPERIMENT.workload


def named(op: Op, workload: Workload = WORKLOAD, **parallel: int) -> str:
    return pass_key(op, LAYERS[1:3], workload, Parallel(**parallel))


def test_the_name_of_a_pass_says_what_its_work_depends_on() -> None:
    kinds = " + ".join(layer.kind for layer in LAYERS[1:3])
    assert named(Op.FORWARD) == f"F bf16: {kinds}"
    assert named(Op.OPTIMIZER_STEP) == f"STEP bf16 adam: {kinds}"
    clipped = WORKLOAD.model_copy(update={"clip_norm": 1.0})
    assert named(Op.OPTIMIZER_STEP, clipped) == f"STEP bf16 adam clipped: {kinds}"


def test_shards_change_the_passes_that_touch_them() -> None:
    assert named(Op.FORWARD, data=2, zero=2) == named(Op.FORWARD)
    steps = [named(Op.OPTIMIZER_STEP, data=2, zero=zero) for zero in range(4)]
    assert len({*steps}) == 3  # gradients and parameters in shards: the same update
    assert named(Op.BACKWARD, data=2, zero=1) == named(Op.BACKWARD)
    assert named(Op.BACKWARD, data=2, zero=2) != named(Op.BACKWARD)


def test_a_task_has_the_name_of_its_layers_or_of_its_bucket() -> None:
    given = (LAYERS, WORKLOAD, EXPERIMENT.parallel)
    step = Task(Op.OPTIMIZER_STEP, 0, (1, 3))
    assert key_of_task(step, step.op, *given) == named(Op.OPTIMIZER_STEP)
    update = Task(
        Op.OPTIMIZER_STEP, 0, (1, 3), tensor=TensorName(TensorKind.PARAMETERS, 1), nbytes=600
    )
    assert key_of_task(update, update.op, *given) == "STEP bf16 adam: 300 parameters"
    assert key_of_task(update, Op.GRADIENT_NORM, *given) == "NORM bf16: 300 parameters"
