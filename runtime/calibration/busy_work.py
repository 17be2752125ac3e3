"""Work that keeps a rank busy while its transfers run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.distributed as dist

from runtime.executor.streams import on_cuda_stream, own_cuda_stream, synchronize
from runtime.measurement.clock import meet


class Product(NamedTuple):
    """The matrix product that a rank is busy with: (rows × side) · (side × side).

    Attributes:
        rows, side: of the matrices.
        queued: how many products are launched before they are waited for.
    """

    rows: int
    side: int
    queued: int


PRODUCTS = {"cpu": Product(64, 256, 1), "cuda": Product(4096, 4096, 4)}
"""On a CPU a product takes about 0.05 ms and stays in the caches. On a GPU it fills every
multiprocessor several times over, as passes do: what NCCL takes would else be free anyway."""

LEAST_LOSS = 0.01
"""The smallest loss that is reported: a measured 0 is noise."""


class BusyWork:
    """Matrix products, one after the other: beside something else and alone, in turn.

    They stand for passes when we measure what a transfer takes from passes. Passes are long
    and few; the products are so many and so equal that a few tenths of a second are enough.

    Args:
        device: what multiplies.
        dtype: of passes; on GPUs that of the products, too.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype):
        rows, side, self._queued = PRODUCTS[device.type]
        self.device = device
        if device.type == "cpu":
            dtype = torch.float32  # the size above is for it
        self._left = torch.ones(rows, side, dtype=dtype, device=device)
        self._right = torch.full((side, side), 1 / side, dtype=dtype, device=device)
        self._beside, self._alone = [0.0, 0.0], [0.0, 0.0]  # seconds, products
        self._stream = own_cuda_stream(device, "transfers beside products")
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
                if self.device.type == "cuda":
                    torch.cuda.set_device(self.device)  # of this thread
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
            spent[1] += self._queued
        spent[0] += time.perf_counter() - begin

    def _product(self) -> None:
        for _ in range(self._queued):
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
