"""Fragments: parts of a model that are averaged at different steps of a period.

Streaming DiLoCo (Douillard et al. 2025, "Streaming DiLoCo with overlapping communication",
Algorithm 2): each fragment is sent once a period, at an offset of its own, so that the largest
message is a fragment, and what comes back is applied some steps later, so that it travels beside
them. A fragment has consecutive buckets of a rank, so every stage of a pipeline has all fragments.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from math import inf

from simulator.experiment.experiment import Experiment
from simulator.experiment.section import ExperimentError
from simulator.units import counted

OVERLAP_SHARE = 0.5
"""The weight of a replica's own parameters: the mean of them and of the outer optimizer's."""


def check(experiment: Experiment) -> None:
    """Refuse fragments where nothing is averaged by parts, and more than a period has room for.

    Raises:
        ExperimentError: with one line that names key, value and what is allowed.
    """
    parallel = experiment.parallel
    for key in ("fragments", "overlap_steps", "overlap_share"):
        value = getattr(parallel, key)
        if value is not None and parallel.data_style != "diloco":
            raise ExperimentError(
                f"parallel.{key} = {value:g}: only for parallel.data_style = 'diloco', not "
                f"{parallel.data_style!r}"
            )
    period, late = parallel.sync_period, parallel.overlap_steps or 0
    if parallel.overlap_share is not None and not late:
        raise ExperimentError(
            f"parallel.overlap_share = {parallel.overlap_share:g}: what is applied at once leaves "
            "nothing of a replica's own; allowed: unset, or parallel.overlap_steps above 0"
        )
    if period is None:
        return
    if late >= period:
        raise ExperimentError(
            f"parallel.overlap_steps = {late}: a fragment would be sent again before it is "
            f"applied, with parallel.sync_period = {period}; allowed: 0 to {period - 1}"
        )
    if (parallel.fragments or 1) > period - late:
        overlap = f" - parallel.overlap_steps = {period - late}" if late else f" = {period}"
        raise ExperimentError(
            f"parallel.fragments = {parallel.fragments}: each is sent at a step of its own, and "
            f"applied in the same period; allowed: 1 to parallel.sync_period{overlap}"
        )


def sent_at(fragment: int, experiment: Experiment) -> int:
    """Return the step of a period at whose end a fragment is sent.

    These steps are as far apart as they can be, and the last fragment is applied at the end of
    the period.
    """
    parallel = experiment.parallel
    assert parallel.sync_period is not None
    room = parallel.sync_period - (parallel.overlap_steps or 0)
    return (fragment + 1) * room // (parallel.fragments or 1) - 1


def fragments_of(sizes: Sequence[int], experiment: Experiment) -> list[int]:
    """Return the fragment of each bucket of a rank, so that the largest is as small as it can be.

    Args:
        sizes: bytes of the buckets, in the order of their layers.
        experiment: says how many fragments there are.

    Raises:
        ExperimentError: there are fewer buckets.
    """
    count = experiment.parallel.fragments or 1
    if len(sizes) < count:
        raise ExperimentError(
            f"parallel.fragments = {count}: a rank of this plan has its parameters in "
            f"{counted(len(sizes), 'bucket')}, each of one fragment; allowed: at most "
            f"{len(sizes)}, or a parallel.bucket_mb below {experiment.parallel.bucket_mb:g}"
        )
    before = [0, *accumulate(sizes)]
    # For each number of buckets, the largest of the fragments so far, and where the last begins.
    best: list[tuple[float, int]] = [(float(total), 0) for total in before]
    chosen = [best]
    for fragment in range(1, count):
        best = [
            min(
                (
                    (max(best[begin][0], total - before[begin]), begin)
                    for begin in range(fragment, end)
                ),
                default=(inf, 0),
            )
            for end, total in enumerate(before)
        ]
        chosen.append(best)
    found: list[int] = []
    end = len(sizes)
    for fragment in reversed(range(count)):
        begin = chosen[fragment][end][1]
        found += [fragment] * (end - begin)
        end = begin
    return found[::-1]
