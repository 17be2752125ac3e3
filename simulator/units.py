"""Numbers for people: durations, bytes and shares with their units."""

from __future__ import annotations


def seconds(value: float) -> str:
    """Return a duration with the unit that suits its size: 1.23 s, 45.6 ms, 7.8 µs."""
    size = abs(value)
    if size < 1e-9:  # what rounding leaves
        return "0 s"
    if size >= 1:
        return f"{value:.3g} s" if size < 100 else f"{value:.0f} s"
    if size >= 1e-3:
        return f"{value * 1e3:.3g} ms"
    return f"{value * 1e6:.3g} µs"


def nbytes(value: float) -> str:
    """Return bytes with the decimal unit that suits their number: 1.5 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(value) < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"


def shortened(text: str, most: int = 76) -> str:
    """Return a text cut to at most `most` characters, the last one an ellipsis."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def percent(value: float | None, signed: bool = False) -> str:
    """Return a share as a percentage with one decimal, or a dash if it is not known."""
    if value is None:
        return "–"
    return f"{value:+.1%}" if signed else f"{value:.1%}"
