"""The keys of ``[cluster]``: which machine a prediction is for."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from simulator.experiment.section import Positive, Section

Algorithm = Literal["ring", "halving-doubling", "tree", "hierarchical", "in-network", "pairwise"]
"""Algorithms of collectives; `simulator.cluster` says what each does."""


class ClusterChoice(Section):
    """The machine that a prediction is for: a preset, a cluster file or a calibrated profile.

    Attributes:
        ranks_per_device: how many ranks share a GPU.
        algorithm: how collectives are done; "auto" takes the fastest of those that the cluster has.
    """

    TABLE: ClassVar[str] = "cluster"

    preset: str | None = None
    file: str | None = None
    profile: str | None = None
    nodes: Positive | None = None
    devices_per_node: Positive | None = None
    node_bandwidth_gbit: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    ranks_per_device: Positive = 1
    algorithm: Literal["auto", Algorithm] = "auto"

    @property
    def is_named(self) -> bool:
        """Tell whether a cluster is named at all."""
        return bool(self.preset or self.file or self.profile)
