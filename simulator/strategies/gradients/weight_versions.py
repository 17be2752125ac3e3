"""Forward passes use different weights where these change while microbatches are in flight.

A backward pass needs the weights of its forward pass, so those are kept until then (*weight
stashing*, Narayanan et al. 2019, "PipeDream", section 3.3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from simulator.program.operations import FORWARDS, LAST_BACKWARDS, Op
from simulator.program.task import Task
from simulator.program.template import Call, Template, Variants
from simulator.program.tensors import Tensor, TensorName, stashed
from simulator.strategies.lowered import Lowered
from simulator.strategies.schedules.passes import Updates


def stash_weights(lowered: Lowered) -> Lowered:
    """Name the weights that every forward pass uses, and stash those still needed."""
    updates = lowered.schedule.updates(lowered.plan)

    def stash(rank: int, calls: list[Call]) -> list[Call]:
        sizes = {
            index: nbytes
            for index in lowered.stages[rank]
            if (nbytes := lowered.parameter_bytes(index))
        }
        return with_versions(calls, sizes, versions_used(calls, sizes, updates))

    return lowered.with_calls(stash)


def versions_used(
    calls: Sequence[Call], sizes: Mapping[int, int], updates: Updates
) -> dict[tuple[int, int], int]:
    """Return the version of the weights by (stage, microbatch): updates of this step before it."""
    done = dict.fromkeys(sizes, 0)
    used: dict[tuple[int, int], int] = {}
    for call in calls:
        for number in call.template.computes:
            task = call.template.entries[number].task
            if task.op is Op.OPTIMIZER_STEP:
                done[task.stage] += 1
            elif task.op is Op.FORWARD and task.stage in sizes:
                newest, update = done[task.stage], call.microbatch // updates.every
                version = newest if updates.delay is None else max(update - updates.delay, 0)
                used.setdefault((task.stage, call.microbatch), min(version, newest))
    return used


def with_versions(
    calls: list[Call], sizes: Mapping[int, int], used: Mapping[tuple[int, int], int]
) -> list[Call]:
    """Return `calls` with versions, and with the stashes of those still needed.

    The stash of version v is held from the update that supersedes it to the end of the
    last backward pass that uses it.

    Args:
        calls: those of a rank, with its optimizer steps; changed in place.
        sizes: bytes of the weights, by stage.
        used: see `versions_used`.
    """
    passes = [(call, number) for call in calls for number in call.template.computes]
    last_use: dict[tuple[int, int], int] = {}  # by stage and version, the position in `passes`
    for position, (call, number) in enumerate(passes):
        key = (call.template.entries[number].task.stage, call.microbatch)
        if call.template.entries[number].task.op in LAST_BACKWARDS and key in used:
            last_use[key[0], used[key]] = position
    changes: dict[Call, list[Change]] = {}
    for position, (call, number) in enumerate(passes):
        task = call.template.entries[number].task
        if task.op in FORWARDS and (task.stage, call.microbatch) in used:
            version = used[task.stage, call.microbatch]
            changes.setdefault(call, []).append((number, "uses", version))
        elif task.op is Op.OPTIMIZER_STEP:
            last = last_use.get((task.stage, task.version), -1)
            if last > position:
                user, place = passes[last]
                changes.setdefault(call, []).append((number, "stashes", sizes[task.stage]))
                stash = stash_of(task)
                changes.setdefault(user, []).append((place, "frees", stash))
    variants = Variants()
    for call, mine in changes.items():
        call.template = variants.get(call.template, tuple(mine), partial(_changed, call, mine))
    return calls


Change = tuple[int, str, int | TensorName]
"""The number of an entry, what else it does (uses, stashes, frees), and of what or how much."""


def stash_of(step: Task) -> TensorName:
    """Return the name of the weights that an optimizer step supersedes."""
    return stashed(step.layers[0], step.version)


def _changed(call: Call, changes: Sequence[Change]) -> Template:
    """Return the template of a call, with changed tasks."""
    tasks: dict[int, Task] = {}
    for number, what, value in changes:
        task = tasks.get(number, call.template.entries[number].task)
        if isinstance(value, TensorName):
            task = replace(task, frees=(*task.frees, value))
        elif what == "uses":
            task = replace(task, version=value)
        else:
            task = replace(task, allocates=(Tensor(stash_of(task), value),))
        tasks[number] = task
    entries = call.template.entries
    return call.template.changed({n: entries[n]._replace(task=task) for n, task in tasks.items()})
