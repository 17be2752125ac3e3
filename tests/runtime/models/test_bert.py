"""BERT against torch's own encoder, its masked-token task, and the images' data."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from runtime.executor.graph import forward_pass
from runtime.models.batches import MASK, corpus, microbatch, windows
from runtime.models.segment import Segment, build_layer
from simulator.experiment_file import parse
from simulator.workloads.bert import masked_positions
from simulator.workloads.describe import describe

CPU = torch.device("cpu")


def make(model="bert", microbatches=1, data=1, seed=0, **keys):
    shape = {"layers": 2, "hidden": 16, "heads": 4, "sequence": 20} if model == "bert" else {}
    return parse(
        {
            "workload": {"model": model, "dtype": "fp64", **shape, **keys},
            "parallel": {"microbatches": microbatches, "data": data},
            "run": {"seed": seed},
        }
    )


def test_a_block_is_torchs_encoder_layer():
    """Post-norm, GELU, every token attends to all."""
    experiment = make()
    attention, mlp = build_layer(experiment, 1, CPU), build_layer(experiment, 2, CPU)
    theirs = nn.TransformerEncoderLayer(
        *(16, 4, 64), dropout=0.0, activation="gelu", layer_norm_eps=1e-12, batch_first=True
    ).double()
    pairs = [
        (theirs.self_attn.in_proj_weight, attention.qkv.weight),
        (theirs.self_attn.in_proj_bias, attention.qkv.bias),
        (theirs.self_attn.out_proj.weight, attention.projection.weight),
        (theirs.self_attn.out_proj.bias, attention.projection.bias),
        (theirs.linear1.weight, mlp.fc1.weight),
        (theirs.linear1.bias, mlp.fc1.bias),
        (theirs.linear2.weight, mlp.fc2.weight),
        (theirs.linear2.bias, mlp.fc2.bias),
        *((theirs.norm1.weight, attention.norm.weight), (theirs.norm2.weight, mlp.norm.weight)),
    ]
    torch.manual_seed(0)
    for target, ours in pairs:
        ours.data.normal_()
        target.data.copy_(ours.data)
    x = torch.randn(3, 20, 16, dtype=torch.float64)
    torch.testing.assert_close(mlp(attention(x)), theirs(x), rtol=1e-11, atol=1e-11)
    changed = x.clone()
    changed[:, 19] += 1.0
    assert torch.all((attention(changed) - attention(x)).abs().amax(dim=(0, 2)) > 0)


def test_the_embedding_is_the_norm_of_three():
    embedding = build_layer(make(), 0, CPU)
    tokens = microbatch(make(), 0, 0, CPU)[0]
    for parameter in embedding.parameters():
        parameter.data.normal_()
    segment = torch.tensor([0] * 10 + [1] * 10)
    total = (
        embedding.token.weight[tokens]
        + embedding.position.weight
        + embedding.segment.weight[segment]
    )
    expected = functional.layer_norm(
        total, (16,), embedding.norm.weight, embedding.norm.bias, eps=1e-12
    )
    torch.testing.assert_close(embedding(tokens), expected, rtol=1e-11, atol=1e-11)


def test_only_masked_positions_are_in_the_loss():
    experiment = make()
    head = build_layer(experiment, 5, CPU)
    _, target = microbatch(experiment, 0, 0, CPU)
    torch.manual_seed(0)
    x = torch.randn(4, 20, 16, dtype=torch.float64)
    logits = head.logits(head.norm(functional.gelu(head.transform(x))))
    labels = torch.full((80,), -100)  # what cross_entropy ignores
    labels[target[0].flatten()] = target[1].flatten()
    expected = functional.cross_entropy(logits.flatten(0, 1), labels)
    torch.testing.assert_close(head(x, target), expected, rtol=1e-12, atol=0)


def test_positions_are_hidden_and_the_answers_kept():
    batch, sequence = 500, 40
    experiment = make(global_batch=batch, sequence=sequence)
    shown, target = microbatch(experiment, 3, 0, CPU)
    count = masked_positions(sequence)
    assert count == 6
    assert target.shape == (2, batch, count)
    places, answers = target.flatten(1)
    assert len(places.unique()) == batch * count  # none twice
    assert torch.equal(places.div(sequence, rounding_mode="floor"),
                       torch.arange(batch).repeat_interleave(count))  # fmt: skip
    text = shown.flatten().clone()
    hidden = text[places]
    text[places] = answers
    assert MASK not in text
    assert not (corpus() == MASK).any()
    rows = text.view(batch, sequence)
    source = bytes(corpus().numpy())
    assert all(bytes(row.tolist()) in source for row in rows[:20])
    assert float((hidden == MASK).double().mean()) == pytest.approx(0.8, abs=0.03)
    kept = (hidden == answers).double().mean()
    assert float(kept) == pytest.approx(0.1 + 0.1 / 255, abs=0.03)


@pytest.mark.parametrize("sequence", [1, 2, 3, 7, 128, 512])
def test_the_number_hidden_is_fixed_and_about_15_percent(sequence):
    count = masked_positions(sequence)
    assert count == max(1, round(0.15 * sequence))
    for index in range(3):
        x, target = microbatch(make(sequence=sequence), 0, index, CPU)
        assert x.shape == (4, sequence)
        assert target.shape == (2, 4, count)


@pytest.mark.parametrize(
    ("model", "keys"),
    [("bert", {}), ("alexnet", {"image_size": 63}), ("resnet50", {"image_size": 16})],
)
def test_data_depend_on_seed_step_and_index_and_on_nothing_else(model, keys):
    tiny = make(model, microbatches=2, global_batch=8, **keys)
    first = microbatch(tiny, 1, 1, CPU)
    again = microbatch(make(model, data=2, global_batch=8, **keys), 1, 1, CPU)
    assert all(map(torch.equal, first, again))
    for other in (
        microbatch(tiny, 2, 1, CPU),
        microbatch(tiny, 1, 0, CPU),
        microbatch(make(model, microbatches=2, global_batch=8, seed=1, **keys), 1, 1, CPU),
    ):
        assert not torch.equal(first[0], other[0])


@pytest.mark.parametrize(
    ("model", "keys"),
    [("bert", {}), ("gpt", {}), ("mlp", {"hidden": 4}), ("resnet50", {"image_size": 33})],
)
def test_a_step_has_the_same_samples_in_microbatches_of_any_size(model, keys):
    def step(**parallel):
        experiment = make(model, global_batch=8, **parallel, **keys)
        count = experiment.parallel.batch_shares * experiment.parallel.microbatches
        read = [microbatch(experiment, 1, index, CPU) for index in range(count)]
        inputs, targets = zip(*read, strict=True)
        if model == "bert":  # positions are counted from the begin of a microbatch
            answers = torch.cat([target[1] for target in targets])
            places = torch.cat([target[0] % experiment.workload.sequence for target in targets])
            return torch.cat(inputs), torch.stack([places, answers])
        return torch.cat(inputs), torch.cat(targets)

    whole = step()
    for parallel in ({"microbatches": 4}, {"data": 2}, {"data": 4, "microbatches": 2}):
        assert all(map(torch.equal, whole, step(**parallel)))


def test_images_are_bytes_and_labels_are_classes():
    images, labels = microbatch(make("alexnet", image_size=63, classes=7), 0, 0, CPU)
    assert images.shape == (4, 3, 63, 63)
    assert float(images.abs().max()) <= 0.5
    pixels = (images + 0.5) * 255
    torch.testing.assert_close(pixels, pixels.round(), rtol=0, atol=1e-9)
    source = bytes(corpus().numpy())
    for image, label in zip(pixels, labels.tolist(), strict=True):
        text = bytes(image.flatten().round().byte().tolist())
        assert text in source
        assert 0 <= label < 7
    assert int(labels.max()) < 7


def test_a_window_longer_than_the_corpus_starts_over():
    import numpy as np

    length = len(corpus()) + 10
    read = windows([np.random.default_rng(seed) for seed in (0, 1)], length)
    assert read.shape == (2, length)
    assert torch.equal(read[:, :10], read[:, len(corpus()) :])


@pytest.mark.parametrize(
    ("model", "guess", "keys"),
    [
        ("bert", 300, {"vocab": 300}),
        ("resnet50", 9, {"image_size": 33, "classes": 9}),
        ("vgg16", 9, {"image_size": 32, "classes": 9}),
    ],
)
def test_the_untrained_loss_is_that_of_guessing(model, guess, keys):
    experiment = make(model, **keys)
    segment = Segment(experiment, 0, len(describe(experiment)), CPU)
    batch, target = microbatch(experiment, 0, 0, CPU)
    loss, _ = forward_pass(segment, {0: batch}, target, 1.0)
    assert float(loss[segment.last]) == pytest.approx(math.log(guess), rel=0.3)
