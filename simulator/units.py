"""Numbers for people: durations, bytes and shares with their units."""

from __future__ import annotations

from collections.abc import Iterable


def seconds(value: float, signed: bool = False) -> str:
    """Return a duration with the unit that suits its size: 1.23 s, 45.6 ms, 7.8 µs."""
    size, sign = abs(value), "+" if signed else ""
    if size < 1e-9:  # what rounding leaves
        return "0 s"
    if size >= 100:
        return f"{value:{sign}.0f} s"
    for scale, unit in ((1, "s"), (1e3, "ms")):
        text = f"{value * scale:{sign}.3g}"
        if abs(float(text)) >= 1:  # as it reads: 999.9 µs are 1 ms
            return f"{text} {unit}"
    return f"{value * 1e6:{sign}.3g} µs"


def nbytes(value: float) -> str:
    """Return bytes with the decimal unit that suits their number: 1.5 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        text = f"{value:.3g}"
        if abs(float(text)) < 1000:  # as it reads: 999.9 kB are 1 MB
            return f"{text} {unit}"
        value /= 1000
    return f"{value:.3g} TB"


def count(value: float) -> str:
    """Return a number of things as a person reads it: 174.6 billion, 23.9 million, 4,096."""
    if abs(value) < 1e6:
        return f"{value:,.0f}"
    for size, name in ((1e12, "trillion"), (1e9, "billion")):
        if abs(value) >= size:
            return f"{value / size:.4g} {name}"
    return f"{value / 1e6:.4g} million"


def percent(value: float | None, signed: bool = False) -> str:
    """Return a share as a percentage with one decimal, or a dash if it is not known."""
    if value is None:
        return "–"
    return f"{value:+.1%}" if signed else f"{value:.1%}"


def shortened(text: str, most: int = 76) -> str:
    """Return a text cut to at most `most` characters, the last one an ellipsis."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural unless it is one: 1 rank, 2,304 ranks."""
    if number == 1:
        return f"1 {noun}"
    return f"{number:,} {noun}{'es' if noun.endswith(('ch', 's')) else 's'}"


def listed(numbers: Iterable[int]) -> str:
    """Return ascending numbers as 0–7, 16."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    ends = [f"{run[0]}–{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs]
    return ", ".join(ends)
