"""Flat buffers: views of modules, versions, and the part of a rank."""

from __future__ import annotations

import pytest
import torch

from runtime.executor.parameters import Parameters
from runtime.models.segment import Segment
from simulator.program.bucket import Bucket

CPU = torch.device("cpu")


@pytest.fixture
def segment(experiment):
    return Segment(experiment(), 1, 3, CPU)


def test_modules_hold_views_of_one_buffer(experiment, segment):
    before = torch.cat([p.detach().flatten() for p in segment.parameters()])
    flat = Parameters(experiment(), [segment])
    assert torch.equal(flat.values, before)
    flat.values.fill_(3.0)
    assert all((p == 3.0).all() for p in segment.parameters())
    for p in segment.parameters():
        p.grad.fill_(2.0)
    assert flat.gradients.tolist() == [2.0] * len(before)


def test_superseded_weights_are_there_until_they_are_forgotten(experiment, segment):
    flat = Parameters(experiment(), [segment])
    old = flat.values.clone()
    flat.gradients.fill_(1.0)
    flat.update(0.5, flat.scaled_gradients(), keep_old=True)
    assert (flat.newest, flat.active) == (1, 0)
    assert torch.allclose(flat.values, old - 0.5)
    assert float(flat.gradients.abs().max()) == 0
    flat.use(0)
    assert torch.equal(torch.cat([p.detach().flatten() for p in segment.parameters()]), old)
    flat.use(-1)
    assert flat.active == 1
    assert flat.version_bytes(0) == old.nbytes
    flat.forget(0)
    with pytest.raises(KeyError):
        flat.version_bytes(0)
    flat.restart()
    assert (flat.newest, flat.active) == (0, 0)
    assert torch.allclose(flat.values, old - 0.5)


def test_an_update_in_place_keeps_one_version(experiment, segment):
    flat = Parameters(experiment(), [segment])
    address = flat.values.data_ptr()
    flat.gradients.fill_(1.0)
    flat.update(0.5, flat.scaled_gradients(2.0))
    assert flat.values.data_ptr() == address
    with pytest.raises(KeyError):
        flat.version_bytes(0)


@pytest.mark.parametrize("zero", [1, 2, 3])
def test_a_shard_is_an_equal_part(experiment, zero):
    parts = []
    for rank in range(3):
        segment = Segment(experiment(), 1, 3, CPU)
        whole = torch.cat([p.detach().flatten() for p in segment.parameters()])
        bucket = Bucket(((1, 3),), shards=(0, 1, 2), zero=zero)
        flat = Parameters(experiment(), [segment], bucket, rank)
        parts.append(flat.shard)
        assert len(flat.gradients) == (len(flat.shard) if zero > 1 else 3 * len(flat.shard))
        gathered = flat.values.untyped_storage().nbytes()
        assert (gathered == 0) == (zero == 3)
        with flat.gathering() as values:
            assert torch.equal(flat.shard_of(values), flat.shard)
    assert torch.equal(torch.cat(parts)[: len(whole)], whole)
    assert len({len(part) for part in parts}) == 1


def test_gradients_of_a_microbatch_are_whole_only_while_they_are_collected(experiment, segment):
    bucket = Bucket(((1, 3),), shards=(0, 1), zero=2)
    flat = Parameters(experiment(), [segment], bucket, 1)
    whole = flat.begin_gradients((0, 7))
    with flat.collecting((0, 7)):
        for p in segment.parameters():
            p.grad += 1.0
    assert all(p.grad is None for p in segment.parameters())
    assert flat.whole_gradients((0, 7)) is whole
    flat.keep_reduced((0, 7))
    flat.keep_reduced((0, 7))
    count = sum(p.numel() for p in segment.parameters())
    assert float(flat.reduced.sum()) == 2 * (count - len(flat.reduced))  # the rest is padding
    flat.drop_gradients((0, 7))
    with pytest.raises(KeyError):
        flat.whole_gradients((0, 7))
