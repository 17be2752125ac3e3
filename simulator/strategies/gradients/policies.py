"""The policies of servers: those that a data style asks for, and those that are named."""

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
}
"""The policies by name, each made for an experiment and one of its servers, by number."""

SETTINGS = {
    "stale-synchronous": ("staleness_bound",),
    "soft-synchronous": ("gradients_per_update", "backup_workers"),
}
"""The keys of which a data style needs one."""


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
    parallel = experiment.parallel
    if parallel.staleness_bound is not None:
        return BoundedStaleness(parallel.staleness_bound)
    if parallel.gradients_per_update is not None:
        return SoftSync(parallel.gradients_per_update)
    if parallel.backup_workers is not None:
        return FirstN(parallel.data - parallel.backup_workers)
    name = parallel.policy
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
    style = parallel.data_style
    for owner, keys in SETTINGS.items():
        for key in keys:
            if getattr(parallel, key) is not None and style != owner:
                raise ExperimentError(
                    f"parallel.{key} = {getattr(parallel, key)}: only for parallel.data_style = "
                    f"{owner!r}, not {style!r}"
                )
    if parallel.policy != "first-come" and style != "asynchronous":
        raise ExperimentError(
            f"{KEY} = {parallel.policy!r}: only for parallel.data_style = 'asynchronous', not "
            f"{style!r}"
        )
    if not parallel.is_asynchronous:
        return
    keys = SETTINGS.get(style, ("policy",))
    given = [key for key in keys if getattr(parallel, key) is not None]
    if len(given) != 1:
        wanted = ("one of " if len(keys) > 1 else "") + ", ".join(f"parallel.{k}" for k in keys)
        found = "all are" if given else "none is"
        raise ExperimentError(f"parallel.data_style = {style!r}: needs {wanted}; {found} set")
    key, value = given[0], getattr(parallel, given[0])
    horizon = experiment.run.horizon
    if key == "staleness_bound" and value >= horizon:
        raise ExperimentError(
            f"parallel.staleness_bound = {value}: with run.horizon = {horizon} no worker gets so "
            f"far ahead; allowed: 0 to {horizon - 1}"
        )
    if key == "backup_workers" and value >= parallel.data:
        raise ExperimentError(
            f"parallel.backup_workers = {value}: with parallel.data = {parallel.data} workers none "
            f"would be left; allowed: 0 to {parallel.data - 1}"
        )
    policy = policy_of(experiment)
    refusal = policy.refusal(dict.fromkeys(range(parallel.data), horizon))
    if refusal is not None:
        raise ExperimentError(f"parallel.{key} = {value!r}: {refusal}")
