"""Work that keeps a rank busy beside its transfers, and what it loses by them."""

from __future__ import annotations

import time

import pytest
import torch

from runtime.calibration.busy_work import LEAST_LOSS, PRODUCTS, BusyWork

TILE = 128
"""The side of a tile of a product that one multiprocessor computes."""

MULTIPROCESSORS = 132
"""An H100 SXM has so many, the most of the presets' GPUs."""


def test_products_fill_a_gpu() -> None:
    """Else transfers would take multiprocessors that nobody uses, and seem to cost nothing."""
    rows, side, queued = PRODUCTS["cuda"]
    assert (rows // TILE) * (side // TILE) >= 4 * MULTIPROCESSORS
    assert queued > 1  # the device does not run dry between two


def test_products_are_counted_beside_work_and_alone(alone) -> None:
    work = BusyWork(alone, torch.bfloat16)
    work.beside(lambda: time.sleep(0.02))
    assert work._beside[1] > 0
    assert work._alone[1] > 0
    assert work._beside[0] > 0
    assert LEAST_LOSS <= work.loss() < 1
    before = [*work._beside]
    work.compute(0.001)
    assert work._beside == before  # these are not counted


def test_the_loss_is_what_products_lose_of_their_speed(alone) -> None:
    work = BusyWork(alone, torch.float32)
    assert work.loss() == LEAST_LOSS  # nothing was measured
    work._beside, work._alone = [2.0, 150.0], [1.0, 100.0]
    assert work.loss() == pytest.approx(0.25)
    work._beside = [1.0, 101.0]
    assert work.loss() == LEAST_LOSS


def test_failures_of_the_work_are_raised(alone) -> None:
    def fail() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        BusyWork(alone, torch.float32).beside(fail)
