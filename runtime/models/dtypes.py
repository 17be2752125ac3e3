"""The torch dtype of each dtype that an experiment can name."""

from __future__ import annotations

import torch

TORCH_DTYPE = {
    "fp64": torch.float64,
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
