"""Tensors have typed names, and one of them exists as often as its kind says."""

from __future__ import annotations

import pickle

import pytest

from simulator.program.bucket import Bucket
from simulator.program.tensors import (
    ALWAYS,
    NORM,
    TensorName,
    activation,
    deferred_tensor,
    gradient,
    saved_tensor,
    stashed,
    tensor_key,
)

BUCKET = Bucket(((4, 6),))
PART = Bucket(((4, 6),), part=1)
TEXTS = {
    activation(3): "act:3",
    gradient(3): "grad:3",
    gradient(3, 5): "grad:3.5",
    saved_tensor(0): "saved:0",
    deferred_tensor(0): "deferred:0",
    stashed(0, 2): "stash:0@2",
    BUCKET.name: "gradients:4",
    PART.name: "gradients:4.1",
    BUCKET.weights: "parameters:4",
    BUCKET.whole_weights: "parameters:4@whole",
    NORM: "norm",
    TensorName.other("mine"): "mine",
    TensorName.other("mine", 2): "mine:2",
}


def test_names_are_told_apart_and_written_as_people_read_them() -> None:
    assert [str(name) for name in TEXTS] == list(TEXTS.values())
    assert repr((activation(3),)) == "('act:3',)"  # as hashes have it


@pytest.mark.parametrize("name", TEXTS, ids=str)
def test_there_is_one_at_a_time_of_what_has_an_at_sign(name: TensorName) -> None:
    always = "@" in str(name)
    assert name.is_one_at_a_time == always
    assert tensor_key(name, (1, 3)) == (name, ALWAYS if always else (1, 3))


def test_names_travel_between_processes() -> None:
    assert list(map(pickle.loads, map(pickle.dumps, TEXTS))) == list(TEXTS)
