"""Tests that need a GPU: elsewhere they are skipped; `make gpu-test` runs them and reports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import gpu_probes
import runtime
from gpu_report import Report, machine_of
from runtime import gpu_environment
from runtime.executor.nccl import nccl_version
from runtime.launch.launcher import Workers

NO_GPU = "needs a GPU; `make gpu-test` runs it where there is one"
REPORT = "GPU_REPORT"
"""The variable that names the file for the report."""

ROOT = Path(runtime.__file__).resolve().parent.parent
OUTCOMES = pytest.StashKey[dict[str, str]]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Keep how each test that used a GPU ended."""
    found: Any = yield
    if "gpu" in getattr(item, "fixturenames", ()):
        outcomes = item.config.stash.setdefault(OUTCOMES, {})
        if found.when == "call" or found.outcome != "passed":
            reason = ""
            if found.skipped and isinstance(found.longrepr, tuple):
                reason = ": " + found.longrepr[2].removeprefix("Skipped: ")
            elif found.failed and call.excinfo is not None:
                reason = ": " + call.excinfo.exconly().splitlines()[0]
            outcomes[item.name] = f"{found.outcome}{reason}"
    return found


@pytest.fixture(scope="session")
def gpu(pytestconfig: pytest.Config) -> Iterator[Report]:
    """The report that figures are added to; without a GPU the test is skipped."""
    if not torch.cuda.is_available():
        pytest.skip(NO_GPU)
    report = Report(machine_of(torch, nccl_version))
    yield report
    report.outcomes = pytestconfig.stash.setdefault(OUTCOMES, {})
    path = Path(os.environ.get(REPORT, "twinline-out/gpu-report.md"))
    report.write(path)
    print(f"\nwritten to {path}")


@pytest.fixture(scope="session")
def gpus(gpu: Report) -> Callable[[int], None]:
    """Skips a test for which there are too few GPUs."""

    def needs(count: int) -> None:
        if torch.cuda.device_count() < count:
            pytest.skip(f"needs {count} GPUs")

    return needs


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """Variables with which a process finds the packages, the helpers and what GPUs need."""
    paths = [ROOT, ROOT / "runtime", ROOT / "tests/helpers", os.environ.get("PYTHONPATH", "")]
    return (
        os.environ
        | gpu_environment.missing()
        | {"PYTHONPATH": os.pathsep.join(map(str, filter(None, paths))), "COLUMNS": "200"}
    )


@pytest.fixture(scope="session")
def probe(environment: dict[str, str]) -> Callable[..., dict[str, float]]:
    """Runs a probe of `gpu_probes` in a process of its own."""

    def run(name: str, given: Any = None, **variables: str) -> dict[str, float]:
        done = subprocess.run(
            [sys.executable, gpu_probes.__file__, name],
            input=json.dumps(given),
            env=environment | variables,
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 0, done.stderr
        figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        return figures

    return run


@pytest.fixture(scope="session")
def twinline(
    environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., tuple[int, str, str]]:
    """Runs a command as a user does: exit code, standard output, standard error."""
    folder = tmp_path_factory.mktemp("user")

    def call(*arguments: str, wrapped: tuple[str, ...] = ()) -> tuple[int, str, str]:
        command = (sys.executable, "-c", "from runtime.cli import main; main()")
        done = subprocess.run(
            [*wrapped, *command, *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        return done.returncode, done.stdout, done.stderr

    return call


@pytest.fixture(scope="session")
def four(gpu: Report) -> Iterator[Workers]:
    """Four ranks for all tests that break none."""
    with Workers(4) as workers:
        yield workers
