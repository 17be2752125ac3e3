"""Shared resources that cannot slow anybody, because another one is short first."""

from __future__ import annotations

from simulator.cluster.resource import Resource
from simulator.engine.contention import ROUNDING

Column = dict[tuple[int, int], float]
"""The rate at which each activity, by key, uses one resource at full speed."""


def redundant(columns: dict[Resource, Column], capacities: dict[Resource, float]) -> set[Resource]:
    """Return the resources that another one makes superfluous.

    A resource is superfluous if every activity that uses it takes at least the same share of
    another one, which therefore is used up first. Of equal ones the first is kept.

    Args:
        columns: per resource, the rates at which activities use it at full speed.
        capacities: per resource, the rate that it has.
    """
    users: dict[tuple[int, int], list[Resource]] = {}
    for resource, column in columns.items():
        for key in column:
            users.setdefault(key, []).append(resource)
    order = {resource: index for index, resource in enumerate(columns)}
    found: set[Resource] = set()
    for resource, column in columns.items():
        scale = capacities[resource]
        for other in min((users[key] for key in column), key=len):
            theirs, limit = columns[other], capacities[other]
            if other == resource or other in found:
                continue
            slack = [theirs.get(key, 0.0) / limit - rate / scale for key, rate in column.items()]
            equal = max(slack) <= ROUNDING and len(theirs) == len(column)
            if min(slack) >= -ROUNDING and not (equal and order[resource] < order[other]):
                found.add(resource)
                break
    return found
