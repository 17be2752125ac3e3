"""Staleness is noted from the versions that passes really used."""

from __future__ import annotations

from types import SimpleNamespace

from runtime.executor.observers import StalenessObserver
from simulator.program.instruction import Instruction
from simulator.program.operations import Op
from simulator.program.task import Task


def test_versions_are_those_in_use_and_those_superseded():
    parameters = SimpleNamespace(active=0, newest=0)
    context = SimpleNamespace(
        parameters_of=lambda layers: parameters, updated_by=lambda task: [parameters, parameters]
    )
    observer = StalenessObserver(context)

    def execute(op, microbatch, version=None):
        instruction = Instruction(Task(op, stage=3), microbatch)
        observer.before(instruction)
        if op is Op.FORWARD:
            parameters.active = version
        if op is Op.OPTIMIZER_STEP:
            parameters.newest += 1
        observer.after(instruction, 0.0)

    observer.begin_step()
    execute(Op.FORWARD, 0, version=0)
    execute(Op.FORWARD, 1, version=0)
    execute(Op.BACKWARD, 0)
    execute(Op.OPTIMIZER_STEP, 0)
    execute(Op.RECOMPUTE, 1)  # not a use of its own
    execute(Op.BACKWARD_INPUT, 1)
    execute(Op.BACKWARD_WEIGHT, 1)
    execute(Op.OPTIMIZER_STEP, 1)
    (stage,) = observer.staleness.stages()
    assert (stage.stage, stage.versions_behind) == (3, [0, 1])
    observer.begin_step()
    assert observer.staleness.stages() == []


def test_parameters_that_a_server_sends_are_an_update():
    parameters = SimpleNamespace(active=0, newest=0)
    context = SimpleNamespace(
        parameters_of=lambda layers: parameters, updated_by=lambda task: [parameters]
    )
    observer = StalenessObserver(context)
    for op in (Op.FORWARD, Op.BACKWARD, Op.REDUCE):
        instruction = Instruction(Task(op, stage=1), 0)
        observer.before(instruction)
        observer.after(instruction, 0.0)
    assert observer.staleness.stages() == []
    observer.before(Instruction(Task(Op.BROADCAST, stage=1)))
    (stage,) = observer.staleness.stages()
    assert (stage.stage, stage.versions_behind) == (1, [0])


def test_stages_without_parameters_have_no_versions():
    context = SimpleNamespace(parameters_of=lambda layers: None, updated_by=lambda task: [])
    observer = StalenessObserver(context)
    for op in (Op.FORWARD, Op.BACKWARD, Op.OPTIMIZER_STEP):
        observer.before(Instruction(Task(op, stage=0), 0))
        observer.after(Instruction(Task(op, stage=0), 0), 0.0)
    assert observer.staleness.stages() == []
