"""The coordinate of what an instruction works on: a training step, and a microbatch of it."""

from __future__ import annotations

Batch = tuple[int, int]
"""A training step, counted from 0, and a microbatch of it; -1: what belongs to the step."""
