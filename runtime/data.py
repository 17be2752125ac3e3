"""Real text that is on every machine: the source files of Python's standard library."""

from __future__ import annotations

import sysconfig
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from simulator.experiment import Experiment

CORPUS_BYTES = 4 << 20

TORCH_DTYPE = {
    "fp64": torch.float64,
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


@lru_cache(maxsize=1)
def corpus() -> torch.Tensor:
    """The first 4 MiB of the standard library's modules in alphabetical order, as bytes."""
    text = bytearray()
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        text += path.read_bytes()
        if len(text) >= CORPUS_BYTES:
            break
    return torch.frombuffer(text[:CORPUS_BYTES], dtype=torch.uint8)


def microbatch(
    experiment: Experiment, step: int, index: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Input and target of one microbatch; `index` counts over all replicas of a step.

    The same (seed, step, index) gives the same data whatever the strategy. gpt: bytes of
    shape (batch, sequence) and the bytes that follow each. mlp: windows of `hidden` bytes,
    scaled to ±0.5, shape (batch, sequence, hidden), and the windows after them. unit: one
    number.
    """
    w = experiment.workload
    if w.model == "unit":
        return torch.ones(1, dtype=torch.float64, device=device), torch.zeros(0, device=device)
    batch = experiment.microbatch_size
    length = w.sequence if w.model == "gpt" else w.sequence * w.hidden
    shift = 1 if w.model == "gpt" else w.hidden
    text = corpus()
    random = np.random.default_rng((experiment.run.seed, step, index))
    starts = random.integers(0, len(text) - length - shift, size=batch)
    windows = torch.stack([text[s : s + length + shift] for s in starts.tolist()])
    inputs, targets = windows[:, :length], windows[:, shift:]
    if w.model == "gpt":
        return inputs.long().to(device), targets.long().to(device)
    shape = (batch, w.sequence, w.hidden)
    dtype = TORCH_DTYPE[w.dtype]
    scaled = [(part.reshape(shape).to(dtype) / 255 - 0.5).to(device) for part in (inputs, targets)]
    return scaled[0], scaled[1]
