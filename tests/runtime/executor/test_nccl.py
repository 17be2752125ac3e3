"""The version of NCCL is that of the loaded library, not of the headers."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace

import pytest
import torch

from runtime.executor import nccl
from runtime.executor.nccl import nccl_version, version_of


@pytest.mark.parametrize(
    ("code", "version"), [(22809, (2, 28, 9)), (23004, (2, 30, 4)), (2708, (2, 7, 8))]
)
def test_numbers_of_the_library_are_versions(code, version) -> None:
    assert version_of(code) == version


def test_the_library_is_asked(monkeypatch) -> None:
    def answer(pointer) -> int:
        pointer._obj.value = 23004
        return 0

    library = SimpleNamespace(ncclGetVersion=answer)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    monkeypatch.setattr(torch.cuda.nccl, "version", lambda: (2, 28, 9))
    assert nccl_version() == (2, 30, 4)


def test_headers_answer_where_no_library_does(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda.nccl, "version", lambda: (2, 28, 9))
    monkeypatch.setattr(nccl, "LIBRARY", "libthere-is-none.so")
    assert nccl_version() == (2, 28, 9)
    failing = SimpleNamespace(ncclGetVersion=lambda pointer: 1)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: failing)
    assert nccl_version() == (2, 28, 9)
