"""Shared resources: activities that overlap slow each other.

One mechanism for host cores, links and devices: an activity needs an amount of each of
some resources to run at full speed; all activities speed up together until a resource is
used up (max-min fairness by progressive filling, Bertsekas & Gallager 1992, section 6.5.2).
With one resource that is processor sharing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import simpy

Demand = tuple[tuple[str, float], ...]
"""(resource, amount) pairs: what an activity uses of each resource at full speed."""


def fair_rates(demands: Sequence[Demand], capacities: Mapping[str, float]) -> list[float]:
    """The speed of each activity, between 0 and 1, that max-min fairness gives it.

    Args:
        demands: per activity, amounts in the unit of the resource's capacity.
        capacities: per resource; a resource that is not named is unlimited.
    """
    rates = [0.0] * len(demands)
    growing = set(range(len(demands)))
    left = dict(capacities)
    level = 0.0
    while growing:
        load: dict[str, float] = {}
        for index in growing:
            for resource, amount in demands[index]:
                if resource in left:
                    load[resource] = load.get(resource, 0.0) + amount
        rise = 1.0 - level
        tight = None
        for resource, amount in sorted(load.items()):
            if amount > 0 and left[resource] / amount < rise:
                rise, tight = left[resource] / amount, resource
        level += rise
        for resource, amount in load.items():
            left[resource] -= rise * amount
        if tight is None:
            stopped = set(growing)
        else:
            stopped = {
                index
                for index in growing
                if any(resource == tight and amount > 0 for resource, amount in demands[index])
            }
        for index in stopped:
            rates[index] = level
        growing -= stopped
    return rates


class SharedResources:
    """Runs activities on a simpy clock, each at its fair speed.

    Args:
        environment: the clock, in seconds.
        capacities: how much there is of each resource.
    """

    def __init__(self, environment: simpy.Environment, capacities: Mapping[str, float]):
        self.environment = environment
        self.capacities = dict(capacities)
        self._active: dict[int, _Activity] = {}
        self._number = 0
        self._updated = 0.0
        self._alarm = 0

    def start(self, seconds: float, demand: Demand, done: Callable[[float], None]) -> None:
        """Begin now an activity of `seconds` at full speed; `done(time)` when it ends."""
        self._advance()
        self._number += 1
        self._active[self._number] = _Activity(seconds, demand, done)
        self._replan()

    def _advance(self) -> None:
        now = self.environment.now
        elapsed = now - self._updated
        if elapsed > 0:
            for activity in self._active.values():
                activity.left -= elapsed * activity.rate
        self._updated = now

    def _replan(self) -> None:
        activities = list(self._active.values())
        if not activities:
            return
        rates = fair_rates([a.demand for a in activities], self.capacities)
        first = float("inf")
        for activity, rate in zip(activities, rates, strict=True):
            activity.rate = rate
            activity.eta = max(activity.left, 0.0) / rate if rate > 0 else float("inf")
            first = min(first, activity.eta)
        self._alarm += 1
        alarm = self._alarm
        timeout = self.environment.timeout(first)
        timeout.callbacks.append(lambda _: self._ring(alarm, first))

    def _ring(self, alarm: int, first: float) -> None:
        if alarm != self._alarm:
            return  # the set of activities changed since; a later alarm holds
        finished = [key for key, a in self._active.items() if a.eta <= first]
        self._advance()
        done = [self._active.pop(key).done for key in finished]
        self._replan()
        for callback in done:
            callback(self.environment.now)


class _Activity:
    __slots__ = ("left", "demand", "done", "rate", "eta")

    def __init__(self, left: float, demand: Demand, done: Callable[[float], None]):
        self.left = left
        self.demand = demand
        self.done = done
        self.rate = 0.0
        self.eta = 0.0
