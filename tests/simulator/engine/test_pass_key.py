"""Passes that do equal work have equal keys, and others have not."""

from __future__ import annotations

from simulator import load
from simulator.engine.pass_key import PassKey, key_of_task, pass_key
from simulator.experiment.parallel import Parallel
from simulator.experiment.workload import Workload
from simulator.program.operations import Op
from simulator.program.task import Task
from simulator.program.tensors import TensorKind, TensorName
from simulator.workloads.describe import describe

EXPERIMENT = load(None, ["workload.optimizer=adam", "workload.dtype=bf16"])
LAYERS, WORKLOAD = describe(EXPERIMENT), EXPERIMENT.workload


def keyed(op: Op, workload: Workload = WORKLOAD, **parallel: int) -> PassKey:
    return pass_key(op, LAYERS[1:3], workload, Parallel(**parallel))


def test_the_text_of_a_key_says_what_its_work_depends_on() -> None:
    kinds = " + ".join(layer.kind for layer in LAYERS[1:3])
    assert str(keyed(Op.FORWARD)) == f"F bf16: {kinds}"
    assert str(keyed(Op.OPTIMIZER_STEP)) == f"STEP bf16 adam: {kinds}"
    clipped = WORKLOAD.model_copy(update={"clip_norm": 1.0})
    assert str(keyed(Op.OPTIMIZER_STEP, clipped)) == f"STEP bf16 adam clipped: {kinds}"
    whole = keyed(Op.OPTIMIZER_STEP, clipped, data=2, zero=1)
    assert str(whole) == f"STEP bf16 adam clipped 1/2 of whole gradients: {kinds}"
    norm = keyed(Op.GRADIENT_NORM, data=2, zero=1)
    assert str(norm) == f"NORM bf16 1/2: {kinds}"
    assert str(keyed(Op.BACKWARD, data=2, zero=2)) == f"B bf16 into new gradients: {kinds}"


def test_shards_change_the_passes_that_touch_them() -> None:
    assert keyed(Op.FORWARD, data=2, zero=2) == keyed(Op.FORWARD)
    steps = [keyed(Op.OPTIMIZER_STEP, data=2, zero=zero) for zero in range(4)]
    assert len({*steps}) == 3  # gradients and parameters in shards: the same update
    assert keyed(Op.BACKWARD, data=2, zero=1) == keyed(Op.BACKWARD)
    assert keyed(Op.BACKWARD, data=2, zero=2) != keyed(Op.BACKWARD)


def test_a_task_has_the_key_of_its_layers_or_of_its_bucket() -> None:
    given = (LAYERS, WORKLOAD, EXPERIMENT.parallel)
    step = Task(Op.OPTIMIZER_STEP, 0, (1, 3))
    assert key_of_task(step, step.op, *given) == keyed(Op.OPTIMIZER_STEP)
    update = Task(
        Op.OPTIMIZER_STEP, 0, (1, 3), tensor=TensorName(TensorKind.PARAMETERS, 1), nbytes=600
    )
    assert str(key_of_task(update, update.op, *given)) == "STEP bf16 adam: 300 parameters"
    assert str(key_of_task(update, Op.GRADIENT_NORM, *given)) == "NORM bf16: 300 parameters"
