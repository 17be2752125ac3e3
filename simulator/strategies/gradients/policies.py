"""The policies that ``parallel.policy`` names: ours, and those of the user's own."""

from __future__ import annotations

from collections.abc import Callable

from simulator.experiment.experiment import Experiment
from simulator.experiment.section import ExperimentError
from simulator.experiment.spelling import suggestion
from simulator.program.arrival import (
    BoundedStaleness,
    FirstCome,
    FirstN,
    Policy,
    RandomOrder,
    SoftSync,
)
from simulator.strategies.gradients.user_policy import UserPolicy
from simulator.strategies.plugins import is_user_code, load_user_code

KEY = "parallel.policy"
GROUP = "twinline.policies"
"""The group of entry points in which installed packages declare policies."""

POLICIES: dict[str, Callable[[Experiment, int], Policy]] = {
    "first-come": lambda experiment, number: FirstCome(),
    "random-order": lambda experiment, number: RandomOrder(_seed_of(experiment, number)),
    "bounded-staleness": lambda experiment, number: BoundedStaleness(
        experiment.parallel.staleness_bound or 0
    ),
    "softsync": lambda experiment, number: SoftSync(experiment.parallel.pushes or 1),
    "first-n": lambda experiment, number: FirstN(experiment.parallel.pushes or 1),
}
"""The policies by name, each made for an experiment and one of its servers, by number."""

SETTINGS = {"bounded-staleness": "staleness_bound", "softsync": "pushes", "first-n": "pushes"}
"""The key that a policy needs."""


def _seed_of(experiment: Experiment, number: int) -> int:
    """Return the seed of a server: of each its own, whatever the seeds of other runs."""
    return experiment.run.seed ^ (number << 32)


def policy_of(experiment: Experiment, number: int = 0) -> Policy:
    """Return the policy of a server.

    Args:
        experiment: names it.
        number: which of the servers it is.

    Raises:
        ExperimentError: there is none of that name, or the file has no policy.
    """
    name = experiment.parallel.policy
    if name in POLICIES:
        return POLICIES[name](experiment, number)
    if is_user_code(name, GROUP):
        return user_policy(name)
    raise ExperimentError(
        f"{KEY} = {name!r}: {suggestion(name, POLICIES)}allowed: {', '.join(POLICIES)}, "
        "file:PATH.py or a dotted name of your own"
    )


def user_policy(name: str) -> UserPolicy:
    """Return a policy of the user's own.

    Raises:
        ExperimentError: there is none of that name, or the file has no policy.
    """
    return UserPolicy.of(load_user_code(KEY, name, GROUP))


def check_policy(experiment: Experiment) -> None:
    """Refuse a policy that there is not, or nobody asks, and keys that mean nothing to it.

    Raises:
        ExperimentError: with one line that names key, value and what is allowed.
    """
    parallel = experiment.parallel
    policy = policy_of(experiment)
    needed = SETTINGS.get(parallel.policy) if parallel.is_asynchronous else None
    for key in ("staleness_bound", "pushes"):
        value = getattr(parallel, key)
        if value is not None and key != needed:
            those = " or ".join(repr(name) for name, asks in SETTINGS.items() if asks == key)
            raise ExperimentError(
                f"parallel.{key} = {value}: only for parallel.data_style = 'asynchronous' with "
                f"{KEY} = {those}"
            )
    if not parallel.is_asynchronous:
        if parallel.policy != "first-come":
            raise ExperimentError(
                f"{KEY} = {parallel.policy!r}: only for parallel.data_style = 'asynchronous', not "
                f"{parallel.data_style!r}"
            )
        return
    if needed and getattr(parallel, needed) is None:
        raise ExperimentError(
            f"{KEY} = {parallel.policy!r}: needs parallel.{needed}, which is not set"
        )
    refusal = policy.refusal(dict.fromkeys(range(parallel.data), experiment.run.horizon))
    if refusal is not None:
        key, value = (needed, getattr(parallel, needed)) if needed else ("policy", parallel.policy)
        raise ExperimentError(f"parallel.{key} = {value!r}: {refusal}")
