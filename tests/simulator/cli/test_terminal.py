"""Every character has a plain one, and an encoding without it gets that."""

from __future__ import annotations

import io
import sys

import pytest

from simulator.cli.terminal import HANDLER, KEPT, allow_plain_characters, broken_stdout, fill, plain


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2 × 3 ÷ 4 µs – …", "2 x 3 / 4 us - ..."),
        ("0→1, mean |Δ|", "0->1, mean |D|"),
        ("│─┏", "|--"),
        ("café 10⁹", "cafe 109"),
        ("語\udcff", "??"),
        ("plain", "plain"),
    ],
)
def test_plain(text: str, expected: str) -> None:
    assert plain(text) == expected
    assert text.encode("ascii", HANDLER).decode() == expected


def test_an_encoding_keeps_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="latin-1"))
    allow_plain_characters()
    print("2 × 3 → 6 µs")
    sys.stdout.flush()
    assert written.getvalue() == "2 × 3 -> 6 µs\n".encode("latin-1")


def test_a_reader_who_left_is_no_problem() -> None:
    assert broken_stdout(BrokenPipeError()) == ""
    assert broken_stdout(OSError(28, "No space left")) == "standard output: No space left"


def test_words_and_what_belongs_together_are_not_broken() -> None:
    assert fill("in twinline-out/ [default:" + KEPT + "1,1]", 16) == (
        "in twinline-out/\n[default: 1,1]"
    )
