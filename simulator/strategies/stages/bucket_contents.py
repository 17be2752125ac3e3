"""Buckets of gradients as a stage fills them, before any rank has them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

from simulator.strategies.stages.dataflow import Range
from simulator.workloads.layer import Layer


class GradientAxes(NamedTuple):
    """The mesh axes over which gradients are sums, and over which parameters are copies.

    Attributes:
        tied: the first and the last stage have the parameters, and sum their gradients.
    """

    sums_over: tuple[str, ...]
    copied_over: tuple[str, ...]
    tied: bool = False

    @classmethod
    def of_layer(cls, layer: Layer, wide: Collection[str]) -> GradientAxes:
        """Return the axes of the parameters of `layer`, of those that have several ranks.

        Args:
            layer: a layer with parameters.
            wide: the mesh axes with more than one rank.
        """
        sums_over, copied_over = (
            tuple(axis for axis in axes if axis in wide)
            for axes in (layer.sums_over, layer.copied_over)
        )
        return cls(sums_over, copied_over, layer.tied)

    def without(self, axis: str) -> GradientAxes:
        """Return the axes of gradients that are not summed over `axis`."""
        return self._replace(sums_over=tuple(name for name in self.sums_over if name != axis))


@dataclass(frozen=True)
class BucketContents:
    """The segments of a bucket (ascending), and how many parameters they have in it."""

    segments: tuple[Range, ...]
    axes: GradientAxes
    parameters: int
