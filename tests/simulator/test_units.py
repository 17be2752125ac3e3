"""Numbers as people read them."""

from __future__ import annotations

import pytest

from simulator.units import count, listed, nbytes, percent, seconds, shortened


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0 s"),
        (1e-10, "0 s"),
        (7.8e-6, "7.8 µs"),
        (-0.0456, "-45.6 ms"),
        (999.9e-6, "1 ms"),
        (-0.9996, "-1 s"),
        (0.9994, "999 ms"),
        (1.234, "1.23 s"),
        (99.4, "99.4 s"),
        (1234.5, "1234 s"),
    ],
)
def test_seconds(value: float, text: str) -> None:
    assert seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1500, "1.5 kB"),
        (999_900, "1 MB"),
        (-2.5e6, "-2.5 MB"),
        (3e9, "3 GB"),
        (4e15, "4e+03 TB"),
    ],
)
def test_bytes(value: float, text: str) -> None:
    assert nbytes(value) == text


def test_a_sign_where_it_matters() -> None:
    found = [seconds(value, signed=True) for value in (1.5, -2e-3, 3e-6, 250.0, 0.0)]
    assert found == ["+1.5 s", "-2 ms", "+3 µs", "+250 s", "0 s"]


def test_percent() -> None:
    assert [percent(0.123), percent(0.123, signed=True), percent(-0.02, signed=True)] == [
        "12.3%",
        "+12.3%",
        "-2.0%",
    ]
    assert percent(None) == "–"


def test_a_long_text_ends_in_an_ellipsis() -> None:
    assert shortened("12345", 5) == "12345"
    assert shortened("123456", 5) == "1234…"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (999_999, "999,999"),
        (23_857_152, "23.86 million"),
        (174.6e9, "174.6 billion"),
        (1.2e12, "1.2 trillion"),
    ],
)
def test_counts(value: float, text: str) -> None:
    assert count(value) == text


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ([0], "0"),
        ([0, 1], "0–1"),
        ([0, 1, 2], "0–2"),
        ([*range(8), 16], "0–7, 16"),
        ([1, 3, 4, 5, 9], "1, 3–5, 9"),
        ([], ""),
    ],
)
def test_listed(numbers: list[int], text: str) -> None:
    assert listed(numbers) == text
