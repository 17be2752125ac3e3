"""The parameters of a bucket in flat buffers.

A collective or an optimizer step is thus one operation on one tensor. Where the bucket is
sharded (`strategies.gradients.zero`) the optimizer sees this rank's part of them only. Whole
gradients then exist per microbatch, and whole parameters while they are used.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.autograd.grad_mode import _unsafe_preserve_version_counter

from runtime.executor.optimizer import Optimizer
from runtime.executor.push_sum import PushSum
from runtime.models.dtypes import TORCH_DTYPE
from runtime.models.segment import Segment
from simulator.experiment.experiment import Experiment
from simulator.program.batch import Batch
from simulator.program.bucket import Bucket


class Parameters:
    """The parameters of some segments, whose modules hold views of the flat buffers.

    Args:
        experiment: says their types and their optimizer.
        segments: the modules, in layer order.
        bucket: what the program says of them; None: they are whole, on this rank alone.
        rank: the number of this rank.
        is_pushed: what is updated is the sum of push-sum.
        is_apart: what is updated is kept apart from the weights that passes use.

    Attributes:
        optimizer: None where a server updates them.
        push_sum: the sum and its weight, if there are any.
        segments: the slice of the flat buffers for each layer range, in layer order.
        gradients: the part of the gradients that is resident, flat.
        reduced: this rank's part of the gradients, summed over the ranks that share it.
        newest: version of the newest weights, counted from the start of the program.
        active: the version that passes use now.
    """

    def __init__(
        self,
        experiment: Experiment,
        segments: Sequence[Segment],
        bucket: Bucket | None = None,
        rank: int = 0,
        is_pushed: bool = False,
        is_apart: bool = False,
    ):
        self.bucket = bucket or Bucket(tuple((s.first, s.last) for s in segments))
        self._slots = [
            (module, name)
            for segment in segments
            for module in segment.modules()
            for name in dict(module.named_parameters(recurse=False))
        ]
        self.segments: dict[tuple[int, int], slice] = {}
        begin = count = 0
        for segment in segments:
            count = begin + sum(p.numel() for p in segment.parameters())
            self.segments[segment.first, segment.last] = slice(begin, count)
            begin = 0 if self.bucket.tied else count
        dtype = TORCH_DTYPE[experiment.workload.dtype]
        device = segments[0].device
        ranks = self.bucket.shards or (rank,)
        part = -(-count // len(ranks))
        start = part * ranks.index(rank)
        self._part = slice(start, start + part)
        flat = torch.zeros(part * len(ranks), dtype=dtype, device=device)
        mine = flat[self._part]
        sharded = self.bucket.shards_gradients
        self.gradients = torch.zeros_like(mine if sharded else flat)
        self.reduced = self.gradients if sharded else self.gradients[self._part]
        self._whole: dict[Batch, Tensor] = {}  # gradients of each microbatch, if they are sharded
        self.newest = self.active = 0
        updates = self.bucket.is_updated_by(rank)
        masters = updates and experiment.workload.has_master_weights
        self._is_apart, wide = is_apart, torch.float32 if masters else dtype
        self._master = torch.empty_like(mine, dtype=wide) if masters or is_apart else None
        self.push_sum = PushSum(mine, wide) if is_pushed else None
        if self.push_sum is not None:
            self._master = self.push_sum.sum
        self.optimizer = (
            Optimizer(experiment.workload.optimizer, mine if self._master is None else self._master)
            if updates
            else None
        )
        self._versions = {0: (flat, self._leaves(flat))}
        for (module, name), leaf in zip(self._slots, self._versions[0][1], strict=True):
            leaf.data.copy_(getattr(module, name).data)
        if self._master is not None:
            self._master.copy_(mine)
        self._install(0)
        self._shard: Tensor | None = None
        if self.bucket.shards_parameters:
            self._shard = mine.clone()
            self.drop_whole()

    @property
    def values(self) -> Tensor:
        """The newest weights, flat; without memory while they are not gathered."""
        return self._versions[self.newest][0]

    @property
    def shard(self) -> Tensor:
        """This rank's part of the newest weights."""
        return self.values[self._part] if self._shard is None else self._shard

    @property
    def precise(self) -> Tensor:
        """This rank's part of the newest weights, as they are updated: master weights, if any."""
        return self.shard if self._master is None else self._master

    @property
    def offered(self) -> Tensor:
        """The newest weights, where others ask for them: not the copy that passes use, if any."""
        return self.precise if self._is_apart else self.values

    @property
    def exchanged(self) -> Tensor:
        """`precise`, as replicas exchange it: of push-sum with its weight."""
        return self.precise if self.push_sum is None else self.push_sum.buffer

    @property
    def estimate(self) -> Tensor:
        """`precise`, or what the sum and the weight of push-sum say of it."""
        return self.precise if self.push_sum is None else self.push_sum.ratio()

    @property
    def used(self) -> Tensor:
        """`estimate`, or the copy that passes use."""
        return self.values if self._is_apart else self.estimate

    def round(self) -> None:
        """Let the newest weights follow what has become of `precise`."""
        if self._master is not None:
            self.shard.copy_(self.estimate)

    @property
    def resident_bytes(self) -> int:
        """The bytes really held of the newest weights."""
        own = 0 if self._shard is None else self._shard.nbytes
        return self.values.untyped_storage().nbytes() + own

    def _leaves(self, flat: Tensor) -> list[nn.Parameter]:
        """Return parameters that are views of `flat`, their gradients views of the one buffer."""
        leaves = [nn.Parameter(view) for view in self._views(flat)]
        if not self.bucket.shards_gradients:
            for leaf, view in zip(leaves, self._views(self.gradients), strict=True):
                leaf.grad = view
        return leaves

    def _views(self, flat: Tensor) -> Iterator[Tensor]:
        offset = 0
        for module, name in self._slots:
            shape = getattr(module, name).shape
            yield flat[offset : offset + shape.numel()].view(shape)
            offset += 0 if self.bucket.tied else shape.numel()

    def _install(self, version: int) -> None:
        for (module, name), leaf in zip(self._slots, self._versions[version][1], strict=True):
            module._parameters[name] = leaf
        self.active = version

    def use(self, version: int) -> None:
        """Let coming passes use the weights of `version` (-1: the newest)."""
        version = self.newest if version < 0 else version
        if version != self.active:
            self._install(version)

    @property
    def optimizer_bytes(self) -> int:
        """The bytes kept for updates: the optimizer's state and fp32 master weights."""
        kept = 0 if self._master is None else self.exchanged.nbytes
        return kept + (0 if self.optimizer is None else self.optimizer.nbytes)

    def scaled_gradients(self, factor: float | Tensor | None = None) -> Tensor:
        """Return this rank's part of the gradients × `factor`, in the master weights' type."""
        gradients = self.reduced if self._master is None else self.reduced.to(self._master)
        return gradients if factor is None else gradients.mul_(factor)

    def update(
        self,
        learning_rate: float,
        gradients: Tensor,
        keep_old: bool = False,
        overflow: Tensor | None = None,
    ) -> None:
        """Step the optimizer on the flat buffers; gradients start again from zero.

        Args:
            learning_rate: the size of the step.
            gradients: see `scaled_gradients`.
            keep_old: the new weights are new tensors, because graphs of passes in flight
                still hold the old ones.
            overflow: if true, the weights stay as they are.
        """
        assert self.optimizer is not None, "a server has the optimizer of these parameters"
        flat, leaves = self._versions[self.newest]
        if keep_old:
            flat = flat.clone()
            leaves = self._leaves(flat)
        else:
            del self._versions[self.newest]
        mine = flat[self._part] if self._shard is None else self._shard
        master = mine if self._master is None else self._master
        self.optimizer.step(master, gradients, learning_rate, overflow)
        if master is not mine and self.push_sum is None:  # which is mixed before the next pass
            mine.copy_(master)
        self.newest += 1
        self._versions[self.newest] = (flat, leaves)
        self.gradients.zero_()

    def zero_gradients(self) -> None:
        """Let the gradients that are resident start again from zero."""
        self.gradients.zero_()

    def gradients_square(self) -> Tensor:
        """Return this rank's part of the squared L2 norm of the model's gradients, in fp64."""
        norm: Tensor = torch.linalg.vector_norm(self.reduced, dtype=torch.float64)  # no copy
        return norm.square() / self.bucket.copies

    def whole_gradients(self, batch: Batch) -> Tensor:
        """Return the flat gradients of all parameters: of one microbatch, if they are sharded."""
        return self._whole[batch] if self.bucket.shards_gradients else self.gradients

    def shard_of(self, flat: Tensor) -> Tensor:
        """Return this rank's part of a whole buffer."""
        return flat[self._part]

    def begin_gradients(self, batch: Batch) -> Tensor:
        """Make and return memory for the whole gradients of a microbatch."""
        self._whole[batch] = torch.zeros_like(self.values)
        return self._whole[batch]

    def drop_gradients(self, batch: Batch) -> None:
        """Give the memory of `begin_gradients` back."""
        del self._whole[batch]

    @contextmanager
    def collecting(self, batch: Batch) -> Iterator[None]:
        """Let backward passes in the ``with`` block add to the gradients of this microbatch."""
        if not self.bucket.shards_gradients:
            yield
            return
        leaves = self._versions[self.newest][1]
        for leaf, view in zip(leaves, self._views(self._whole[batch]), strict=True):
            leaf.grad = view
        try:
            yield
        finally:
            for leaf in leaves:
                leaf.grad = None

    def keep_reduced(self, batch: Batch) -> None:
        """Add what was reduced of a microbatch to what is resident."""
        if self.bucket.shards_gradients:
            self.reduced += self.shard_of(self._whole[batch])

    @contextmanager
    def gathering(self) -> Iterator[Tensor]:
        """Provide the whole weights with this rank's part, for the others to be gathered into.

        Graphs in flight must find what they saved unchanged: its version counter stays (as in
        FSDP).
        """
        with _unsafe_preserve_version_counter(self.values):
            if self._shard is not None:
                storage = self.values.untyped_storage()
                storage.resize_(self.values.nbytes)
                self.shard_of(self.values).copy_(self._shard)
            yield self.values

    def drop_whole(self) -> None:
        """Give the memory of the whole weights back; the tensors that view it stay."""
        self.values.untyped_storage().resize_(0)

    def version_bytes(self, version: int) -> int:
        """Return the bytes of the weights of `version`."""
        return self._versions[version][0].nbytes

    def forget(self, version: int) -> None:
        """Drop superseded weights."""
        del self._versions[version]

    def restart(self) -> None:
        """Count versions from 0 again."""
        self._versions = {0: self._versions[self.newest]}
        self.newest = 0
        self._install(0)

    def within(self, layers: tuple[int, int]) -> bool:
        """Tell whether all of it lies in the layer range."""
        return all(layers[0] <= first and last <= layers[1] for first, last in self.segments)
