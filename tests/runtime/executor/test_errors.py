"""Failures that torch reports in its own words are told in ours."""

from __future__ import annotations

import pytest

from runtime.executor.errors import ExecutionError, failure_of, first_line, reason_of

GLOO = "[/pytorch/third_party/gloo/gloo/transport/tcp/"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError(f"{GLOO}unbound_buffer.cc:78] Timed out waiting 1ms for recv"), "no answer"),
        (RuntimeError("Application timeout caused pair closure"), "no answer within 1 s"),
        (RuntimeError(f"{GLOO}pair.cc:538] Connection closed by peer [::1]:80"), "the connection"),
        (RuntimeError("boundary 3 has no gradient"), "boundary 3 has no gradient"),
        (ValueError("connection = 3: allowed: 1"), "connection = 3: allowed: 1"),
        (ExecutionError("rank 1, 1F0: a socket"), "rank 1, 1F0: a socket"),
    ],
)
def test_the_reason_is_one_line_of_ours(error, reason):
    found = reason_of(error, 1.0)
    assert found.startswith(reason)
    assert "gloo" not in found


def test_an_error_without_words_is_named():
    assert first_line(KeyboardInterrupt()) == "KeyboardInterrupt"
    assert first_line(ValueError("one\ntwo")) == "one"


def test_a_failure_names_its_rank_once():
    assert failure_of(RuntimeError("broken"), 3, 1.0) == "rank 3: broken"
    assert failure_of(ExecutionError("rank 3, 1F0: broken"), 3, 1.0) == "rank 3, 1F0: broken"
