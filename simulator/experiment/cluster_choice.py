"""The keys of ``[cluster]``: which machine a prediction is for."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral, Real
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from simulator.experiment.section import ExperimentError, Positive, Section

Algorithm = Literal[
    "ring", "piecewise-ring", "halving-doubling", "tree", "hierarchical", "in-network", "pairwise"
]
"""Algorithms of collectives; `simulator.cluster` says what each does."""


class ClusterChoice(Section):
    """The machine that a prediction is for: a preset, a cluster file or a calibrated profile.

    Attributes:
        node_bandwidth_gbit: of all network cards of a node together, in place of the cluster's.
        node_latency_us: what each step between nodes takes longer than on the cluster.
        ranks_per_device: how many ranks share a GPU.
        algorithm: how collectives are done; "auto" takes the fastest of those that the cluster has.
        slowdown: how many times longer ranks compute, as pairs of a rank and its factor; given
            as a table by rank, or as a list of the factors of the first ranks.
        jitter: the distribution of how long each rank computes in each training step.
        jitter_spread: its standard deviation, as a share of the mean.
        jitter_seed: of what is drawn from it; unset, `run.seed`.
    """

    TABLE: ClassVar[str] = "cluster"

    preset: str | None = None
    file: str | None = None
    profile: str | None = None
    nodes: Positive | None = None
    devices_per_node: Positive | None = None
    node_bandwidth_gbit: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    node_latency_us: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    ranks_per_device: Positive = 1
    algorithm: Literal["auto", Algorithm] = "auto"
    slowdown: Annotated[tuple[tuple[int, float], ...], Field(strict=False)] = ()
    jitter: Literal["none", "lognormal", "shifted-exponential"] = "none"
    jitter_spread: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    jitter_seed: Annotated[int, Field(ge=0)] | None = None

    @field_validator("slowdown", mode="before")
    @classmethod
    def _as_pairs(cls, given: Any) -> Any:
        """Return pairs of a rank and its factor, ascending."""
        try:
            if isinstance(given, Mapping):
                pairs = [_pair(0, entry) for entry in given.items()]
            elif isinstance(given, (list, tuple)):
                pairs = [_pair(rank, entry) for rank, entry in enumerate(given)]
            else:
                raise TypeError
        except (TypeError, ValueError, OverflowError):
            pairs = [(-1, 0.0)]
        ranks = [rank for rank, _ in pairs]
        possible = all(rank >= 0 and 0 < factor < float("inf") for rank, factor in pairs)
        if given == {} or not possible or len(set(ranks)) < len(ranks):
            raise ExperimentError(
                f"cluster.slowdown = {given!r}: allowed: a factor above 0 for each rank, as a "
                "table by rank ({3 = 1.5}) or a list ([1, 1, 1, 1.5])"
            )
        return tuple(sorted(pairs))

    @property
    def is_named(self) -> bool:
        """Tell whether a cluster is named at all."""
        return bool(self.preset or self.file or self.profile)

    @property
    def is_even(self) -> bool:
        """Tell whether equal devices always take the same time."""
        return not self.slowdown and self.jitter == "none"


def _pair(rank: Any, entry: Any) -> tuple[int, float]:
    """Return a rank and its factor, of an entry of a list: the factor, or both."""
    if isinstance(entry, (list, tuple)):
        rank, entry = entry
    if isinstance(rank, str):  # keys of a table in a file are text
        rank = int(rank)
    if isinstance(rank, bool) or isinstance(entry, bool):
        raise TypeError
    if not isinstance(rank, Integral) or not isinstance(entry, Real):
        raise TypeError
    return int(rank), float(entry)
