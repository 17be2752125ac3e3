"""The bytes that a program sends over every link of a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from simulator.cluster.cluster import Cluster
from simulator.cluster.collective_algorithms import CHAINS
from simulator.cluster.resource import Direction, Resource
from simulator.program.meetings import participants_of
from simulator.program.operations import COMMUNICATION, MESSAGES, Op
from simulator.program.program import Program


@dataclass(frozen=True)
class LinkBytes:
    """The bytes that pass a link in an iteration, of all training steps.

    Attributes:
        link: what it is, with its number, as ``nic:0.1``: network card 1 of node 0.
        out_bytes, in_bytes: out of the unit that it belongs to, and into it.
    """

    link: str
    out_bytes: int
    in_bytes: int

    def to_json(self) -> dict[str, Any]:
        """Return the fields under their names."""
        return dict(vars(self))


def link_bytes(program: Program, cluster: Cluster) -> list[LinkBytes] | None:
    """Return the bytes over every link that is used, the busiest first.

    None: ranks were left out of the program, so that not all traffic is in it. What goes along a
    chain (reduce, broadcast) is divided among its ranks, as if each were its end as often.
    """
    if program.is_folded:
        return None
    found: dict[Resource, float] = {}
    for rank, columns in zip(program.members, program.columns, strict=True):
        counts = np.bincount(columns.task, minlength=len(columns.tasks)).tolist()
        for task, count in zip(columns.tasks, counts, strict=True):
            if task.op not in COMMUNICATION or task.op is Op.ACCEPT:
                continue
            group = participants_of(rank, task)
            is_pull = task.op is Op.RECV and task.queue  # its sender is whoever serves it
            if task.op in MESSAGES and not is_pull and group[0] != rank:
                continue
            if task.op not in MESSAGES and min(group) != rank:
                continue
            op = Op.SEND if task.op in MESSAGES else task.op
            share = 1 - 1 / len(group) if op in CHAINS else 1.0  # the last one hands on nothing
            for way, nbytes in cluster.communication.traffic(op, group, task.nbytes).items():
                found[way] = found.get(way, 0.0) + count * share * nbytes
    links = {way.link: None for way in found}
    rows = [
        LinkBytes(
            link.text,
            round(found.get(link.going(Direction.OUT), 0.0)),
            round(found.get(link.going(Direction.IN), 0.0)),
        )
        for link in links
    ]
    return sorted(rows, key=lambda row: (-max(row.out_bytes, row.in_bytes), row.link))
