"""Expansion: the timeline of all ranks, made from one that has each of several equal ranks once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from simulator.timeline.timeline import Kind, Timeline


def expanded(timeline: Timeline, list_of: Sequence[int]) -> Timeline:
    """Return the timeline of all ranks, each with the times of the row that stands for it.

    Spans come rank by rank, as in a timeline of the whole program, and messages name the rank's
    own partners: they are as far from it as those of the rank that stands for it.

    Args:
        timeline: the rows of a folded program.
        list_of: per rank, the row that stands for it (see `Program.list_of`).
    """
    if len(list_of) == timeline.num_ranks:
        return timeline
    spans = timeline.spans_of_rows()
    used: list[list[int]] = []  # per row, its kinds in order of appearance
    local: list[np.ndarray] = []  # per row and span, which of them it is
    for mine in spans:
        kinds, first, which = np.unique(timeline.kind[mine], return_index=True, return_inverse=True)
        order = first.argsort()
        used.append(kinds[order].tolist())
        local.append(order.argsort()[which])
    known: list[Kind] = []
    kind: list[np.ndarray] = []
    for rank, row in enumerate(list_of):
        kind.append(local[row] + len(known))
        distance = rank - timeline.members[row]
        known += [timeline.kinds[number].moved(distance) for number in used[row]]
    chosen = np.concatenate([spans[row] for row in list_of])
    ranks = np.repeat(np.arange(len(list_of)), [spans[row].size for row in list_of])
    return replace(
        timeline,
        num_ranks=len(list_of),
        kinds=known,
        rank=ranks,
        kind=np.concatenate(kind),
        microbatch=timeline.microbatch[chosen],
        step=timeline.step[chosen],
        posted=timeline.posted[chosen],
        start=timeline.start[chosen],
        end=timeline.end[chosen],
        memory=[timeline.memory[row] for row in list_of] if timeline.memory else [],
        members=[],
        counts=[],
    )
