"""Text for terminals: plain characters where a terminal has no others, and broken outputs."""

from __future__ import annotations

import codecs
import io
import os
import sys
import textwrap
import unicodedata

PLAIN = {
    "–": "-", "−": "-", "…": "...", "×": "x", "÷": "/", "·": ".", "±": "+-",
    "µ": "u", "μ": "u", "Δ": "D", "→": "->", "←": "<-", "≥": ">=", "≤": "<=",
    "⁹": "9", "¹": "1", "²": "2", "“": '"', "”": '"', "‘": "'", "’": "'",
}  # fmt: skip
"""The plain text for characters that not every terminal has."""

HANDLER = "twinline-plain"

KEPT = "\xa0"
"""A space at which no line ends."""


def plain(text: str) -> str:
    """Return `text` in ASCII, as a reader would type it."""
    return "".join(c if c.isascii() else PLAIN.get(c) or _without_marks(c) for c in text)


def _without_marks(character: str) -> str:
    """Return a letter without its accents, a stroke for a line of a box, else a question mark."""
    if "\u2500" <= character <= "\u257f":
        return "|" if "VERTICAL" in unicodedata.name(character) else "-"
    bare = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return bare or "?"


def _replace(error: UnicodeError) -> tuple[str, int]:
    """Replace what an encoding does not have (a handler of `codecs.register_error`)."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return plain(error.object[error.start : error.end]), error.end


codecs.register_error(HANDLER, _replace)


def allow_plain_characters() -> None:
    """Have stdout and stderr write plain characters where their encoding has no others."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=HANDLER)


def fill(text: str, width: int, first: str = "", rest: str = "") -> str:
    """Return `text` in lines that end between words, never within one, and not at `KEPT`."""
    lines = textwrap.fill(
        text, width, initial_indent=first, subsequent_indent=rest,
        break_on_hyphens=False, break_long_words=False,
    )  # fmt: skip
    return lines.replace(KEPT, " ")


def broken_stdout(error: OSError) -> str:
    """Return what to say of a stdout that cannot be written: nothing where nobody reads on."""
    return "" if isinstance(error, BrokenPipeError) else f"standard output: {error.strerror}"


def give_up_stdout() -> None:
    """Drop what stdout still holds, so that the interpreter does not fail over it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
