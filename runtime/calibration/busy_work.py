"""Work that keeps a rank busy while its transfers run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import torch
import torch.distributed as dist

from runtime.executor.streams import on_cuda_stream, own_cuda_stream, synchronize
from runtime.measurement.clock import meet

SIDES = {"cpu": 256, "cuda": 2048}
"""Side of the matrices per device: a product takes about 0.05 ms and stays in the caches."""

LEAST_LOSS = 0.01
"""The smallest loss that is reported: a measured 0 is noise."""


class BusyWork:
    """Matrix products, one after the other: beside something else and alone, in turn.

    They stand for passes when we measure what a transfer takes from passes. Passes are long
    and few; the products are so many and so equal that a few tenths of a second are enough.
    """

    def __init__(self, device: torch.device):
        side = SIDES[device.type]
        self.device = device
        self._left, self._right = torch.ones(side // 4, side), torch.full((side, side), 1 / side)
        self._left, self._right = self._left.to(device), self._right.to(device)
        self._beside, self._alone = [0.0, 0.0], [0.0, 0.0]  # seconds, products
        self._stream = own_cuda_stream(device)
        self._product()  # the first loads libraries

    def beside(self, work: Callable[[], object]) -> None:
        """Run `work` in a thread; multiply until it ended on all ranks, then as long again alone.

        Raises:
            BaseException: whatever `work` raised.
        """
        errors: list[BaseException] = []
        done = threading.Event()

        def run() -> None:
            try:
                with on_cuda_stream(self._stream):
                    work()
                    meet()
            except BaseException as error:
                errors.append(error)
            done.set()

        thread = threading.Thread(target=run, daemon=True)
        begin = time.perf_counter()
        thread.start()
        self._multiply(done.is_set, self._beside)
        end = 2 * time.perf_counter() - begin
        thread.join()
        if errors:
            raise errors[0]
        self._multiply(lambda: time.perf_counter() > end, self._alone)

    def compute(self, seconds: float) -> None:
        """Multiply for `seconds`, as a pass would; these products are not counted."""
        end = time.perf_counter() + seconds
        self._multiply(lambda: time.perf_counter() > end, [0.0, 0.0])

    def _multiply(self, is_over: Callable[[], bool], spent: list[float]) -> None:
        begin = time.perf_counter()
        while not is_over():
            self._product()
            spent[1] += 1
        spent[0] += time.perf_counter() - begin

    def _product(self) -> None:
        torch.tanh(self._left @ self._right)
        synchronize(self.device)

    def loss(self) -> float:
        """Return the share of speed that the products lose beside transfers, over all ranks.

        It is at least LEAST_LOSS: a measured 0 is noise.
        """
        total = torch.tensor(self._beside + self._alone, dtype=torch.float64)
        dist.all_reduce(total)
        beside_s, beside, alone_s, alone = map(float, total)
        if not (beside and alone):
            return LEAST_LOSS
        return max(1.0 - beside / beside_s * alone_s / alone, LEAST_LOSS)
