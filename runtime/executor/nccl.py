"""The version of the NCCL that is really loaded.

`torch.cuda.nccl.version()` is that of the headers torch was compiled with; another library may have
been installed since.
"""

from __future__ import annotations

import ctypes

import torch

LIBRARY = "libnccl.so.2"


def nccl_version() -> tuple[int, int, int]:
    """Return the version of the loaded library; where none can be asked, that of the headers."""
    code = ctypes.c_int()
    try:
        library = ctypes.CDLL(LIBRARY)  # torch, imported before, has loaded its own
        if library.ncclGetVersion(ctypes.byref(code)) != 0:
            raise OSError(LIBRARY)
    except (OSError, AttributeError):
        major, minor, patch = torch.cuda.nccl.version()  # type: ignore[no-untyped-call]
        return int(major), int(minor), int(patch)
    return version_of(code.value)


def version_of(code: int) -> tuple[int, int, int]:
    """Return the version behind the number of `ncclGetVersion`: 22809 is 2.28.9, 2708 is 2.7.8."""
    unit = 10_000 if code >= 10_000 else 1_000
    return code // unit, code % unit // 100, code % 100
