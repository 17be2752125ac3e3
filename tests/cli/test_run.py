"""run as a user runs it: real processes, files and exit codes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import pytest
import torch
from typer.testing import CliRunner

import runtime.cli
import runtime.cli.app
import runtime.cli.run
from command_line import LONG, PREDICT_KEYS, TWINLINE, check_result, check_run, one_object
from runtime.launch.launcher import LaunchError
from simulator.timeline.trace import load_trace


def test_predict_then_run_is_one_program(call, tmp_path):
    code, out, _ = call("predict", "tiny.toml", "--json", "--gantt", "p.svg", "--trace", "p.json")
    assert code == 0
    predicted = one_object(out)
    check_result(predicted, PREDICT_KEYS)
    assert (tmp_path / "p.svg").read_text().startswith("<?xml")
    assert len(load_trace(tmp_path / "p.json")) == predicted["program"]["instructions"]

    code, out, errors = call("run", "tiny.toml", "--json", "--gantt", "m.png", "--trace", "m.json")
    assert code == 0
    measured = one_object(out)
    check_run(measured)
    assert measured["program"] == predicted["program"]
    listed = CliRunner().invoke(runtime.cli.app.app, ["program", str(tmp_path / "tiny.toml")])
    assert f"program {measured['program']['hash']}:" in listed.stderr
    assert len(listed.stdout.splitlines()) == 2
    assert measured["losses"] == [pytest.approx(loss, rel=1e-4) for loss in measured["losses"]]
    assert (tmp_path / "m.png").read_bytes().startswith(b"\x89PNG")
    trace = load_trace(tmp_path / "m.json")
    assert trace.meta["source"] == "measured"
    assert trace.meta["hash"] == measured["program"]["hash"]
    assert len(trace) == measured["program"]["instructions"]
    viewer = json.loads((tmp_path / "m.json").read_text())["traceEvents"]
    assert sum(event["ph"] == "X" for event in viewer) == len(trace)
    assert "Error" not in errors
    assert not (tmp_path / "twinline-out").exists()


ASYNCHRONOUS = tuple(
    part for key in ("pipeline=1", "data=2", "data_style=asynchronous") for part in ("--set", key)
)


@pytest.mark.parametrize(
    ("ranks", "roles", "settings"),
    [
        (2, ["trainer"] * 2, ()),
        (3, ["trainer"] * 2 + ["server"], ("--set", "data_style=parameter-server")),
        (3, ["trainer"] * 2 + ["server"], ASYNCHRONOUS),
    ],
)
def test_under_torchrun(call, ranks, roles, settings):
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(ranks))
    arguments = ("-m", "runtime", "tiny.toml", "--json", "--trace", "t.json", *settings)
    code, out, errors = call(*arguments, command=torchrun, OMP_NUM_THREADS="1")
    assert code == 0, errors
    result = one_object(out)
    check_run(result, ranks=ranks)
    assert [rank["role"] for rank in result["ranks"]] == roles


def processes_with(text):
    listed = subprocess.run(
        ["ps", "-A", "-ww", "-o", "pid=,args="], capture_output=True, text=True, check=True
    )
    return [line for line in listed.stdout.splitlines() if text in line]


def test_ctrl_c_ends_everything(environment, tmp_path):
    (tmp_path / "long.toml").write_text(LONG)
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    run = subprocess.Popen(
        [*TWINLINE, "run", "long.toml", "--json"],
        cwd=tmp_path,
        env=environment | {"TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Tests that a shell runs in the background inherit that Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    end = time.monotonic() + 120
    while not list(temporary.glob("twinline-*/job-1")):  # the ranks have met
        assert run.poll() is None and time.monotonic() < end, run.stderr
        time.sleep(0.05)
    assert len(processes_with(str(temporary))) == 3  # an agent and two ranks
    run.send_signal(signal.SIGINT)
    out, errors = run.communicate(timeout=60)
    assert run.returncode == 130
    assert out == ""
    assert errors.strip().splitlines()[-1] == "twinline: interrupted; no process is left"
    assert "Traceback" not in errors
    assert processes_with(str(temporary)) == []
    assert list(temporary.glob("twinline-*")) == []


def test_ctrl_c_while_the_commands_load_is_quiet(capsys, monkeypatch):
    class Interrupted:
        def find_spec(self, name, *_):
            if name == "runtime.cli.app":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "runtime.cli.app")
    monkeypatch.setattr(sys, "meta_path", [Interrupted(), *sys.meta_path])
    with pytest.raises(SystemExit) as ended:
        runtime.cli.main()
    assert ended.value.code == 130
    assert capsys.readouterr() == ("", "twinline: interrupted\n")


@pytest.mark.skipif(torch.cuda.device_count() >= 2, reason="this machine has the GPUs")
def test_more_ranks_than_gpus_is_a_mistake(mistaken):
    """Only the ranks can tell: they have torch."""
    line = mistaken("run", "tiny.toml", "--set", "run.device=cuda")
    assert "run.device = 'cuda'" in line
    assert "allowed: 'cpu'" in line


def test_a_run_that_fails_is_one_line_and_exit_code_1(tmp_path, monkeypatch):
    def fails(*_, **__):
        raise LaunchError("rank 1 died in 1F3")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runtime.cli.run.running, "run", fails)
    result = CliRunner().invoke(runtime.cli.app.app, ["run"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "twinline: rank 1 died in 1F3\n"
