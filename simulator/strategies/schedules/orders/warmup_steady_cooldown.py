"""Warm-up, steady state and cooldown: the three phases of 1F1B schedules (Megatron-LM)."""

from __future__ import annotations

from simulator.strategies.schedules.passes import Pass


def warmup_steady_cooldown(forwards: list[Pass], backwards: list[Pass], warmup: int) -> list[Pass]:
    """Return `warmup` forwards, then forwards and backwards in turn, then the backwards left.

    Args:
        forwards: the forward passes, in their order.
        backwards: the backward passes, in their order; as many as forwards.
        warmup: how many forwards come first; all of them, if there are no more.
    """
    warmup = min(warmup, len(forwards))
    steady = len(forwards) - warmup
    passes = forwards[:warmup]
    for pair in zip(forwards[warmup:], backwards[:steady], strict=True):
        passes += pair
    return passes + backwards[steady:]
