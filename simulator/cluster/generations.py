"""The generations of GPUs, and the presets whose constants their devices have.

Constants are what no data sheet has: shares of the peak rates that kernels reach, times of
kernels, protocols of links, and what the communication library takes. Presets have them from
measurements (``docs/validation.md``); generations without a preset have those of the nearest one.
"""

from __future__ import annotations

from typing import Any

GENERATIONS = {
    "volta": "dgx-v100",
    "turing": "dgx-v100",
    "ampere": "dgx-a100-80gb",
    "ada": "dgx-a100-80gb",
    "hopper": "dgx-h100",
    "blackwell": "dgx-h100",
}
"""The preset whose constants the devices of a generation have."""

USUAL = "ampere"
"""The generation of a GPU that does not say its own."""

WITHOUT_BF16 = ("volta", "turing")
"""Generations that compute bf16 as fp32."""

CONSTANTS = (
    *("memory_efficiency", "matmul_efficiency", "attention_efficiency"),
    *("tile", "matmul_us", "kernel_us", "launch_us"),
)
"""The keys of a device that no data sheet has."""

FP64_SHARE = 1 / 64
"""Rate of fp64 ÷ rate of fp32 where it is not said, as of GeForce cards since 2020."""

STAGED = 10 / 31.5 / 0.76
"""Bandwidth between PCIe cards without peer access ÷ bandwidth with it.

Without it, A40 cards on PCIe 4.0 × 16 exchange 10 of 31.5 GB/s each way (nccl-tests issue 74);
with it, presets have 0.76 of the bandwidth.
"""


def source_of(device: dict[str, Any]) -> str | None:
    """Return the preset that has the constants of a device; None: its generation is not known.

    Args:
        device: its table in a cluster file, as far as it is said.
    """
    if device.get("kind") == "cpu":
        return "laptop"
    return GENERATIONS.get(str(device.get("generation", USUAL)))


def constants_of(device: dict[str, Any]) -> tuple[str, ...]:
    """Return the keys of a device that its preset stands in for; cores are single processors."""
    return (*CONSTANTS, "processors") if device.get("kind") == "cpu" else CONSTANTS
