"""Staleness is noted from the versions that passes really used."""

from __future__ import annotations

from types import SimpleNamespace

from runtime.executor.observers import StalenessObserver
from simulator.program.columns import columns_of_list
from simulator.program.instruction import Instruction
from simulator.program.operations import Op
from simulator.program.task import Task


def rank_with(*tasks):
    """A rank whose program has these tasks."""
    listed = [columns_of_list([Instruction(task) for task in tasks])]
    return SimpleNamespace(number=0, program=SimpleNamespace(columns=listed, members=[0]))


def test_versions_are_those_in_use_and_those_superseded():
    parameters = SimpleNamespace(active=0, newest=0, optimizer="sgd")
    context = SimpleNamespace(
        parameters_of=lambda layers: parameters,
        updated_by=lambda task: [parameters, parameters],
        rank=rank_with(Task(Op.OPTIMIZER_STEP, stage=3)),
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
    parameters = SimpleNamespace(active=0, newest=0, optimizer=None)
    context = SimpleNamespace(
        parameters_of=lambda layers: parameters,
        updated_by=lambda task: [parameters],
        rank=rank_with(Task(Op.BROADCAST, stage=1)),
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


def test_a_trainer_that_serves_counts_its_own_updates_alone():
    """It updates one of two buckets of its stage, and is sent the other one."""
    mine, theirs = (
        SimpleNamespace(active=0, newest=0, optimizer=optimizer) for optimizer in ("sgd", None)
    )
    step, sent = Task(Op.OPTIMIZER_STEP, stage=1), Task(Op.BROADCAST, stage=1)
    context = SimpleNamespace(
        parameters_of=lambda layers: mine if layers == (0, 1) else theirs,
        updated_by=lambda task: [mine],
        rank=rank_with(step, sent),
    )
    observer = StalenessObserver(context)
    for microbatch in range(2):
        for layers in ((0, 1), (1, 2)):
            observer.after(Instruction(Task(Op.FORWARD, 1, layers), microbatch), 0.0)
        observer.after(Instruction(Task(Op.BACKWARD, 1), microbatch), 0.0)
        for task in (sent, step):
            observer.before(Instruction(task))
        mine.active = mine.newest = mine.newest + 1
    (stage,) = observer.staleness.stages()
    assert stage.versions_behind == [0, 0]


def test_stages_without_parameters_have_no_versions():
    context = SimpleNamespace(
        parameters_of=lambda layers: None,
        updated_by=lambda task: [],
        rank=rank_with(Task(Op.OPTIMIZER_STEP, stage=0)),
    )
    observer = StalenessObserver(context)
    for op in (Op.FORWARD, Op.BACKWARD, Op.OPTIMIZER_STEP):
        observer.before(Instruction(Task(op, stage=0), 0))
        observer.after(Instruction(Task(op, stage=0), 0), 0.0)
    assert observer.staleness.stages() == []
