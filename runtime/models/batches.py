"""Training data made of text that every machine has: the source files of Python's library."""

from __future__ import annotations

import math
import sysconfig
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from runtime.models.dtypes import TORCH_DTYPE
from runtime.models.teachers import image_class, perceptron
from simulator.experiment.experiment import Experiment
from simulator.workloads.bert import masked_positions

CORPUS_BYTES = 4 << 20
MASK = 0
"""The token that stands for a hidden token: a byte that occurs in no text."""


@lru_cache(maxsize=1)
def corpus() -> torch.Tensor:
    """Return the first 4 MiB of the standard library's modules, in alphabetical order, as bytes."""
    text = bytearray()
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        text += path.read_bytes()
        if len(text) >= CORPUS_BYTES:
            break
    return torch.frombuffer(text[:CORPUS_BYTES], dtype=torch.uint8)


def microbatch(
    experiment: Experiment, step: int, index: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return input and target of one microbatch.

    Each sample is drawn from (seed, step, its number in the global batch), so a step has the
    same data whatever the strategy and the size of a microbatch.

    - gpt, llama, moe-gpt: bytes of shape (batch, sequence), and the byte that follows each.
    - bert: bytes of that shape, some of them hidden by `hide`; the target (2, batch, masked)
      says where they are and what they were.
    - mlp: windows of `hidden` bytes as numbers of mean 0 and variance 1, shape (batch, sequence,
      hidden), and what `teachers.perceptron` makes of them.
    - image models: bytes scaled to ±0.5, shape (batch, 3, size, size), and a label per image:
      its `teachers.image_class`.
    - unit: one number, and no target.

    Args:
        experiment: names the model and its shapes.
        step: number of the training step.
        index: number of the microbatch, counted over all replicas of a step.
        device: where the tensors are put.
    """
    w = experiment.workload
    if w.family.data == "nothing":
        return torch.ones(1, dtype=torch.float64, device=device), torch.zeros(0, device=device)
    batch = experiment.microbatch_size
    samples = range(index * batch, (index + 1) * batch)
    random = [np.random.default_rng((experiment.run.seed, step, sample)) for sample in samples]
    if w.family.data == "images":
        shape: tuple[int, ...] = (3, w.image_size, w.image_size)
        images = windows(random, math.prod(shape)).reshape(batch, *shape)
        labels = image_class(images, w.classes)
        return scaled(images, w.dtype).to(device), labels.to(device)
    if w.family.data == "text" and not w.family.is_causal:
        inputs, targets = hide(random, windows(random, w.sequence).long())
        return inputs.to(device), targets.to(device)
    if w.family.is_causal:
        read = windows(random, w.sequence + 1)
        return read[:, :-1].long().to(device), read[:, 1:].long().to(device)
    read = windows(random, w.sequence * w.hidden).reshape(batch, w.sequence, w.hidden)
    inputs = standardised(read)
    dtype = TORCH_DTYPE[w.dtype]
    return inputs.to(device, dtype), perceptron(inputs).to(device, dtype)


def windows(random: Sequence[np.random.Generator], length: int) -> torch.Tensor:
    """Return a piece of the corpus per sample, (samples, length) bytes.

    A piece that is longer than the corpus starts over at its end.
    """
    text = corpus()
    if length >= len(text):
        text = text.repeat(-(-length // len(text)) + 1)
    starts = [int(sample.integers(0, len(text) - length)) for sample in random]
    return torch.stack([text[start : start + length] for start in starts])


def scaled(values: torch.Tensor, dtype: str) -> torch.Tensor:
    """Map bytes to numbers from −0.5 to 0.5 in `dtype`."""
    return values.to(TORCH_DTYPE[dtype]) / 255 - 0.5


def standardised(values: torch.Tensor) -> torch.Tensor:
    """Return bytes of text as numbers whose mean is 0 and whose variance is 1 over the corpus."""
    mean, deviation = moments()
    return (values.double() - mean) / deviation


@lru_cache(maxsize=1)
def moments() -> tuple[float, float]:
    """Return the mean and the standard deviation of the bytes of the corpus."""
    counts = np.bincount(corpus().numpy(), minlength=256)
    mean = np.average(np.arange(256), weights=counts)
    return float(mean), float(np.average((np.arange(256) - mean) ** 2, weights=counts)) ** 0.5


def hide(
    random: Sequence[np.random.Generator], tokens: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Hide tokens for the masked-token task (Devlin et al. 2019, section 3.1).

    Some positions of each sequence are drawn. 80 % of their tokens become the mask, 10 %
    become another byte, and 10 % stay as they are.

    Returns:
        The changed tokens, (batch, sequence), and the target, (2, batch, masked): positions
        counted over the whole microbatch row by row, and the tokens that were there.
    """
    batch, sequence = tokens.shape
    count = masked_positions(sequence)
    order = np.stack([sample.random(sequence) for sample in random]).argsort(axis=1)
    positions = torch.from_numpy(np.sort(order[:, :count], axis=1))
    answers = tokens.gather(1, positions)
    others = torch.from_numpy(np.stack([sample.integers(1, 256, size=count) for sample in random]))
    chance = torch.from_numpy(np.stack([sample.random(count) for sample in random]))
    shown = torch.where(chance < 0.8, MASK, torch.where(chance < 0.9, others, answers))
    row = torch.arange(batch).unsqueeze(1) * sequence
    return tokens.scatter(1, positions, shown), torch.stack([row + positions, answers])
