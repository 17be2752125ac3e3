"""Train plans in one process, in the order of their predicted timelines."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from runtime.execution.host_memory import check_host_memory
from runtime.launch.job import Job
from runtime.launch.launcher import OnProgress
from runtime.learning.virtual_run import TimedProgram, VirtualRun, of_steps, until
from simulator.analysis.learning import SMOOTHING_STEPS, Learning, LearningCurve
from simulator.analysis.memory_fit import memory_fit
from simulator.analysis.traffic import bytes_sent
from simulator.analysis.validated import caveats
from simulator.cluster.cluster import Cluster
from simulator.experiment.describe import describe_plan
from simulator.experiment.experiment import Experiment
from simulator.experiment.section import ExperimentError
from simulator.prediction import cluster_of_prediction
from simulator.timeline.timeline import Floats
from simulator.units import counted, seconds

STEPS = 100
"""Training steps, unless the caller says how many."""

Losses = list[tuple[int, float]]
"""The uids of forward passes, and their losses."""


def learn(
    experiments: Sequence[Experiment],
    steps: int | None = None,
    until_s: float | None = None,
    target_loss: float | None = None,
    names: Sequence[str] = (),
    cluster: Cluster | Literal["saved"] | None = None,
    smoothing_steps: int = SMOOTHING_STEPS,
    on_progress: OnProgress | None = None,
) -> Learning:
    """Train each plan in this process, in the order that its predicted timeline gives.

    Every rank's numerics are those of a real run that takes the predicted times. The process needs
    the memory of all ranks of a plan, and the time of all their passes.

    Args:
        experiments: the plans.
        steps: the training steps of every worker; unset, 100, or as many as `until_s` takes.
        until_s: the time on the cluster, seconds, at which training stops.
        target_loss: the loss that is waited for in the table.
        names: of the plans; unset, what they are.
        cluster: see `predict`.
        smoothing_steps: how many steps' losses a smoothed loss is the mean of.
        on_progress: called with the share done (0 to 1) and what is being done.

    Raises:
        ExperimentError: a plan cannot be trained, or torch is not installed.
    """
    if steps is not None and until_s is not None:
        raise ExperimentError("steps and until_s: both are given; give one of them")
    for key, value in (
        ("steps", steps),
        ("until_s", until_s),
        ("smoothing_steps", smoothing_steps),
    ):
        if value is not None and not value > 0:
            raise ExperimentError(f"{key} = {value:g}: allowed: more than 0")
    if importlib.util.find_spec("torch") is None:
        raise ExperimentError("torch is not installed: pip install -e '.[runtime]'")
    for experiment in experiments:
        check(experiment)
    found = Learning(curves=[], target_loss=target_loss)
    for number, experiment in enumerate(experiments):
        name = names[number] if names else describe_plan(experiment)

        def note(share: float, name: str = name, number: int = number) -> None:
            if on_progress is not None:
                on_progress((number + share) / len(experiments), name)

        note(0.0)
        where = cluster_of_prediction(experiment, cluster, found.notes)
        if until_s is not None:
            run = until(experiment, until_s, where)
        else:
            run = of_steps(experiment, steps or STEPS, where)
        check_host_memory(Job(run.experiment), run.program, run.program.num_ranks)
        found.curves.append(trained(name, run, until_s, smoothing_steps, note))
        found.notes += notes_of(found.curves[-1], run, steps)
    if until_s is not None and not any(curve.loss.size for curve in found.curves):
        raise ExperimentError(f"until {until_s:g} s: no loss is known by then; allowed: more")
    found.notes = list(dict.fromkeys([*found.notes, *notes_of_all(found)]))
    return found


def check(experiment: Experiment) -> None:
    """Refuse an experiment whose model learns nothing, or whose times are stretched.

    Raises:
        ExperimentError: with one line that names the key.
    """
    if not experiment.workload.family.has_parameters:
        raise ExperimentError("workload.model = 'unit': has nothing to learn; name another model")
    if experiment.run.pace is not None:
        raise ExperimentError(
            f"run.pace = {experiment.run.pace:g}: learning takes the cluster's own time; allowed: "
            "unset"
        )


def trained(
    name: str,
    run: VirtualRun,
    until_s: float | None = None,
    smoothing_steps: int = SMOOTHING_STEPS,
    on_progress: Callable[[float], None] = lambda share: None,
) -> LearningCurve:
    """Train one plan; return its losses.

    Args:
        name: of the plan.
        run: its program and its times.
        until_s: when training stops; None: with the last step.
        smoothing_steps: see `LearningCurve`.
        on_progress: called with the share done now and then.
    """
    import torch

    from runtime.rank.replay import Replay

    end_s = np.inf if until_s is None else until_s
    again, experiment = Replay(run.experiment, run.program), run.experiment
    total = len(run.program) * run.iterations
    done, step = 0, max(total // 200, 1)

    def count() -> None:
        nonlocal done
        done += 1
        if done % step == 0:
            on_progress(done / total)

    parts: list[tuple[Floats, Floats, Floats]] = []
    times: Floats = np.empty(0)
    sent: Floats = np.empty(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # of small tensors, threads would take longer
    try:
        for timed in run.timed():
            begins = (timed.start <= end_s).tolist()
            losses = again.iterate(timed.decisions, begins.__getitem__, count)
            found = [(uid, float(loss)) for uid, loss in losses]
            parts.append(points(experiment, run, timed, found))
            moments, amounts = traffic(timed)
            times, sent = np.concatenate([times, moments]), np.concatenate([sent, amounts])
    finally:
        torch.set_num_threads(threads)
    time_s, samples, loss = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    kept = time_s <= end_s
    time_s, loss, samples = time_s[kept], loss[kept], np.cumsum(samples[kept])
    order = np.argsort(times, kind="stable")
    whole = np.concatenate([[0.0], np.cumsum(sent[order])])
    step_points = experiment.parallel.batch_shares * experiment.parallel.microbatches
    return LearningCurve(
        name=name,
        plan=describe_plan(experiment),
        cluster=run.cluster.name,
        workload=workload_of(experiment),
        steps=run.steps if until_s is None else loss.size // step_points,
        step_points=step_points,
        time_s=time_s,
        samples=samples,
        bytes_sent=whole[np.searchsorted(times[order], time_s, side="right")],
        loss=loss,
        smoothing_steps=smoothing_steps,
    )


def points(
    experiment: Experiment, run: VirtualRun, timed: TimedProgram, losses: Losses
) -> tuple[Floats, Floats, Floats]:
    """Return when the loss of each microbatch is known, its samples, and the loss, by time.

    Of a microbatch whose loss has terms in several stages, or on several ranks that share its
    tokens, that is when the last of them is known. Tensor ranks compute the same loss.
    """
    mesh, context = experiment.mesh, experiment.parallel.context
    end = timed.end
    known: dict[tuple[int, int, int], tuple[float, float]] = {}
    for uid, loss in losses:
        forward = run.program.instruction(uid)
        if experiment.role_of(forward.rank)[1]["tensor"]:
            continue
        # one rank may have more microbatches of a step than its share: numbers do not fit a base
        key = (forward.step, mesh.replica(forward.rank), forward.microbatch)
        before, term = known.get(key, (0.0, 0.0))
        known[key] = max(before, float(end[uid])), term + loss / context
    found = sorted(known.items(), key=lambda one: (one[1][0], one[0]))
    time_s = np.array([moment for _, (moment, _) in found])
    loss_of = np.array([loss for _, (_, loss) in found])
    return time_s, np.full(len(found), float(experiment.microbatch_size)), loss_of


def traffic(timed: TimedProgram) -> tuple[Floats, Floats]:
    """Return when each transfer of a program has ended, and the bytes that it has sent."""
    timeline, program = timed.timeline, timed.predicted
    each = [
        np.array([bytes_sent(task) for task in columns.tasks])[columns.task] * number
        for columns, number in zip(program.columns, program.counts, strict=True)
    ]
    amounts = np.concatenate(each)
    sends = amounts > 0
    return timeline.end[sends] + timed.begin, amounts[sends]


def workload_of(experiment: Experiment) -> str:
    """Return what is learnt, in words: losses of different workloads cannot be compared."""
    workload = experiment.workload
    keys = workload.model_dump(exclude_defaults=True)
    for key in ("model", "global_batch", "optimizer", "clip_norm", "loss_scale", "dtype"):
        keys.pop(key, None)  # how it is learnt, not what
    sizes = ", ".join(f"{key} {value}" for key, value in sorted(keys.items()))
    return f"{workload.model} ({sizes})" if sizes else workload.model


def notes_of(curve: LearningCurve, run: VirtualRun, steps: int | None) -> list[str]:
    """Return what the reader should know of one plan."""
    notes = [*run.experiment.notes, *run.cluster.notes, *caveats(run.experiment, run.cluster)]
    fit = memory_fit(run.first.timeline, run.cluster)
    if not fit.fits:
        notes.append(f"{curve.name}: on {curve.cluster}, {fit}")
    if steps is not None and curve.steps != steps:
        notes.append(
            f"{curve.name}: {curve.steps} steps instead of {steps}, so that its last period is "
            "whole"
        )
    if not curve.loss.size:
        notes.append(f"{curve.name}: no loss is known by the end of the time")
    if not curve.is_finite:
        first = int(np.flatnonzero(~np.isfinite(curve.loss))[0])
        notes.append(
            f"{curve.name}: diverges, its loss is no number from {seconds(curve.time_s[first])} "
            "on; try a lower run.learning_rate, or a warm-up"
        )
    return notes


def notes_of_all(learning: Learning) -> list[str]:
    """Return what the reader should know of plans beside each other."""
    curves, notes = learning.curves, []
    workloads = list(dict.fromkeys(curve.workload for curve in curves))
    if len(workloads) > 1:
        notes.append(f"different workloads, whose losses do not compare: {'; '.join(workloads)}")
    clusters = list(dict.fromkeys(curve.cluster for curve in curves))
    if len(clusters) > 1:
        notes.append(f"different clusters: {'; '.join(clusters)}")
    target = learning.target_loss
    if target is not None:
        late = [curve.name for curve in curves if curve.reached(target) is None]
        if late:
            notes.append(
                f"{counted(len(late), 'plan')} did not reach a loss of {target:g}: "
                f"{', '.join(late)}"
            )
    return notes
