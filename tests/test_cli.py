"""The commands as a user runs them: small experiments, real processes, files and exit codes."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import runtime.cli.app
import runtime.cli.run
import runtime.execution
from runtime.launch.launcher import LaunchError
from simulator.timeline.trace import load_trace

ROOT = str(Path(runtime.__file__).resolve().parent.parent)
TWINLINE = (str(Path(sys.executable).with_name("twinline")),)

TINY = """\
[workload]
model = "mlp"
layers = 3
hidden = 8
sequence = 4

[parallel]
pipeline = 2
microbatches = 2
schedule = "gpipe"

[run]
iterations = 3
warmup = 1
"""
LONG = """\
[workload]
model = "unit"
forward = 0.2

[parallel]
pipeline = 2

[run]
iterations = 1000
"""

RANK_KEYS = {
    "rank",
    "stages",
    "parameters",
    "peak_memory_parts",
    "compute_s",
    "exposed_comm_s",
    "idle_s",
    "first_start_s",
    "last_end_s",
    "peak_memory_bytes",
    "peak_inflight_microbatches",
}
RESULT_KEYS = {
    "program",
    "parameters",
    "iteration_time_s",
    "bubble_fraction",
    "bubble_ratio",
    "mfu",
    "hfu",
    "tokens_per_s",
    "token",
    "ranks",
    "staleness",
    "notes",
}
PREDICT_KEYS = RESULT_KEYS | {"ranks_simulated", "cluster", "memory_fit"}
RUN_KEYS = RESULT_KEYS | {
    "iteration_time_p10_s",
    "iteration_time_p90_s",
    "losses",
    "parameters_norm",
}
ERROR_KEYS = {
    "iteration_time_error",
    "instruction_start_error",
    "peak_memory_error",
    "noise_floor",
    "attribution",
    "cause",
    "causes",
    "peak_memory_errors",
}
COMPARE_KEYS = ERROR_KEYS | {"predicted", "measured", "notes"}


@pytest.fixture(scope="session")
def matplotlib_cache(tmp_path_factory):
    """Building matplotlib's font cache takes seconds: once, not in every new home."""
    return tmp_path_factory.mktemp("matplotlib")


@pytest.fixture(scope="module")
def environment(tmp_path_factory, matplotlib_cache):
    """Nothing of the user's: home, cache and temporary files are of these tests."""
    home = tmp_path_factory.mktemp("home")
    (home / "tmp").mkdir()
    return os.environ | {
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / "cache"),
        "TMPDIR": str(home / "tmp"),
        "MPLCONFIGDIR": str(matplotlib_cache),
        "MPLBACKEND": "agg",
        "COLUMNS": "200",
        "NO_COLOR": "1",
        "PYTHONPATH": ROOT,
    }


@pytest.fixture
def call(environment, tmp_path):
    """Run a command in an empty folder that holds tiny.toml; (exit code, stdout, stderr)."""
    (tmp_path / "tiny.toml").write_text(TINY)

    def call(*arguments, command=TWINLINE, **more):
        done = subprocess.run(
            [*command, *arguments],
            cwd=tmp_path,
            env=environment | more,
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stdout, done.stderr

    return call


def one_object(stdout):
    """The only thing on stdout is one JSON object on one line."""
    assert stdout.endswith("\n")
    assert stdout.count("\n") == 1
    value = json.loads(stdout)
    assert isinstance(value, dict)
    return value


def check_result(result, keys, ranks=2):
    assert set(result) == keys
    assert set(result["program"]) == {"hash", "ranks", "instructions"}
    assert len(result["program"]["hash"]) == 16
    assert result["program"]["ranks"] == ranks == len(result["ranks"])
    for number, row in enumerate(result["ranks"]):
        assert set(row) == RANK_KEYS
        assert row["rank"] == number
        assert row["peak_memory_bytes"] > 0
    for key in ("iteration_time_s", "mfu", "hfu", "tokens_per_s"):
        assert result[key] > 0
    assert 0 < result["bubble_fraction"] < 1


def check_run(result, iterations=3, ranks=2):
    check_result(result, RUN_KEYS, ranks)
    assert len(result["losses"]) == iterations
    assert all(math.isfinite(loss) for loss in result["losses"])
    assert result["parameters_norm"] > 0
    low, high = result["iteration_time_p10_s"], result["iteration_time_p90_s"]
    assert low <= result["iteration_time_s"] <= high


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


def test_compare_live_and_saved_are_one_comparison(call, tmp_path, environment):
    """Live, it also calibrates this machine and keeps the profile for the next prediction."""
    code, out, _ = call("compare", "tiny.toml", "--json", "--trace", "out/c.json")
    assert code == 0
    live = one_object(out)
    assert set(live) == COMPARE_KEYS
    spread = {"iteration_time_p10_s", "iteration_time_p90_s"}  # of what was calibrated
    check_result(live["predicted"], PREDICT_KEYS | spread)
    check_run(live["measured"])
    assert live["predicted"]["cluster"].startswith("profile of ")
    assert live["predicted"]["program"] == live["measured"]["program"]
    assert set(live["attribution"]) == {
        "compute_s",
        "communication_s",
        "host_gaps_s",
        "late_in_turn_s",
        "remainder_s",
    }
    times = [live[which]["iteration_time_s"] for which in ("predicted", "measured")]
    assert sum(live["attribution"].values()) == pytest.approx(times[1] - times[0])
    assert live["iteration_time_error"] == pytest.approx(times[0] / times[1] - 1)
    assert live["instruction_start_error"] >= 0
    assert live["noise_floor"] >= 0
    assert (tmp_path / "twinline-out" / "compare.png").stat().st_size > 10_000

    saved = ["--predicted", "out/c-predicted.json", "--measured", "out/c-measured.json"]
    code, out, _ = call("compare", *saved, "--json", "--gantt", "again.pdf")
    assert code == 0
    again = one_object(out)
    assert set(again) == COMPARE_KEYS
    assert {key: again[key] for key in ERROR_KEYS} == {key: live[key] for key in ERROR_KEYS}
    assert again["measured"] == live["measured"]
    assert (tmp_path / "again.pdf").read_bytes().startswith(b"%PDF")
    same = RESULT_KEYS - {"staleness", "notes"}
    assert {k: again["predicted"][k] for k in same} == {k: live["predicted"][k] for k in same}

    # The iteration time of a run and that of its median timeline are two things.
    trace = json.loads((tmp_path / saved[3]).read_text())
    trace["twinline"]["meta"]["statistics"]["iteration_time_s"] *= 2
    (tmp_path / "slow.json").write_text(json.dumps(trace))
    files = ["--predicted", str(tmp_path / saved[1]), "--measured", str(tmp_path / "slow.json")]
    slow = CliRunner().invoke(runtime.cli.app.app, ["compare", *files, "--json"])
    for result in (live["predicted"], live["measured"], one_object(slow.stdout)["measured"]):
        tokens = result["tokens_per_s"] * result["iteration_time_s"]
        assert tokens == pytest.approx(2 * 4 * 4)  # microbatches × 4 sequences × sequence

    assert (Path(environment["XDG_CACHE_HOME"]) / "twinline" / "profile.json").exists()
    code, out, _ = call("predict", "tiny.toml", "--json")
    assert one_object(out) == live["predicted"]


def test_calibrate_writes_a_profile_that_predict_uses(call, tmp_path):
    code, _, errors = call("calibrate", "tiny.toml", "-o", "here.json", "--plot", "here.svg")
    assert code == 0, errors
    assert (tmp_path / "here.svg").stat().st_size > 10_000
    profile = json.loads((tmp_path / "here.json").read_text())
    means = [timing["mean_s"] for timing in profile["passes"].values()]
    assert len(means) == 6  # forward, backward and step of two different stages
    assert min(means) > 0
    assert str(profile["machine"]["hostname"])

    def predict(*more):
        code, out, errors = call("predict", "tiny.toml", "--json", *more)
        assert code == 0, errors
        return one_object(out)

    calibrated = predict("--set", "cluster.profile=here.json")
    assert calibrated["cluster"] == f"profile of {profile['machine']['hostname']}"
    assert calibrated["notes"] == []
    profile |= {"issue_s": 0.0, "queue_s": 0.0}  # which do not grow with the passes
    (tmp_path / "here.json").write_text(json.dumps(profile))
    bare = predict("--set", "cluster.profile=here.json")
    for timing in profile["passes"].values():
        timing["tenths"] = [10 * seconds for seconds in timing["tenths"]]
    (tmp_path / "here.json").write_text(json.dumps(profile))
    slower = predict("--set", "cluster.profile=here.json")
    compute = [sum(row["compute_s"] for row in result["ranks"]) for result in (bare, slower)]
    assert compute[1] > 5 * compute[0]
    other = predict("--set", "cluster.profile=here.json", "--set", "workload.hidden=16")
    assert any(note.startswith("none of the 6 segment passes") for note in other["notes"])


def test_under_torchrun(call):
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2")
    arguments = ("-m", "runtime", "tiny.toml", "--json", "--trace", "t.json")
    code, out, errors = call(*arguments, command=torchrun, OMP_NUM_THREADS="1")
    assert code == 0, errors
    check_run(one_object(out))


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


def test_plain_characters_where_there_are_no_others(call):
    code, out, _ = call("predict", "tiny.toml", PYTHONIOENCODING="ascii")
    assert code == 0
    assert out.isascii()
    assert "| rank |" in out
    code, _, errors = call("predict", "--set", "workload.hidden=×", PYTHONIOENCODING="ascii")
    assert code == 2
    assert errors.startswith("twinline: workload.hidden = 'x'")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize(
    "arguments",
    [("predict", "tiny.toml"), ("predict", "--json"), ("program",), ("clusters",), ("--help",)],
    ids=" ".join,
)
def test_a_full_disk_is_one_line_and_costs_no_file(environment, tmp_path, arguments):
    (tmp_path / "tiny.toml").write_text(TINY)
    traced = arguments[0] == "predict"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*TWINLINE, *arguments, *(["--trace", "t.json"] if traced else [])],
            cwd=tmp_path, env=environment, stdout=full, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    assert done.returncode == 1
    line = "twinline: standard output: No space left on device"
    assert done.stderr.splitlines()[-1] == line
    assert "Traceback" not in done.stderr
    assert (tmp_path / "t.json").exists() == traced


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


def test_predict_needs_no_torch(call, tmp_path):
    (tmp_path / "stub" / "torch").mkdir(parents=True)
    (tmp_path / "stub" / "torch" / "__init__.py").write_text("raise ImportError('no torch')\n")
    path = os.pathsep.join((str(tmp_path / "stub"), ROOT))
    module = (sys.executable, "-m", "simulator")
    results = []
    for command in (module, TWINLINE):
        words = ("predict", "tiny.toml", "--json", "--set", "cluster.preset=laptop")
        code, out, errors = call(*words, command=command, PYTHONPATH=path)
        assert code == 0, errors
        results.append(one_object(out))
        check_result(results[-1], PREDICT_KEYS)
    assert results[0] == results[1]


# Mistakes ---------------------------------------------------------------------------------


@pytest.fixture
def mistaken(tmp_path, monkeypatch):
    """Invoke a command in this process; asserts exit code 2 and returns the one line."""
    (tmp_path / "tiny.toml").write_text(TINY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def mistaken(*arguments, app=runtime.cli.app.app):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert isinstance(result.exception, SystemExit), result.exception
        assert result.exit_code == 2
        assert result.stdout == ""
        assert result.stderr.count("\n") == 1
        assert result.stderr.startswith("twinline: ")
        return result.stderr

    return mistaken


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--trace", "tiny.toml"), "--trace tiny.toml: is an input, too"),
        (("--gantt", "a.png", "--trace", "./a.png"), "a.png: is the file of --gantt, too"),
        (("--trace", "tiny.toml/a.json"), "tiny.toml is not a folder"),
        (("--trace", "other.toml"), "--trace other.toml: allowed: .json"),
        (("--trace", os.devnull), "is not a regular file"),
    ],
)
def test_outputs_replace_nothing_else(mistaken, tmp_path, arguments, says):
    assert says in mistaken("predict", "tiny.toml", *arguments)
    assert (tmp_path / "tiny.toml").read_text() == TINY
    assert not (tmp_path / "a.png").exists()


SETTINGS = [
    # --set, what the line must name
    ("parallel.pipelines=2", ["parallel.pipelines", "pipeline"]),
    ("paralel.pipeline=2", ["paralel", "parallel"]),
    ("parallel.pipeline=0", ["parallel.pipeline = 0", "1"]),
    ("parallel.pipeline=9", ["parallel.pipeline = 9", "3"]),
    ("parallel.pipeline=two", ["parallel.pipeline = 'two'", "whole number"]),
    ("parallel.schedule=zigzag", ["parallel.schedule = 'zigzag'", "1f1b"]),
    ("parallel.schedule=csv:missing.csv", ["missing.csv", "No such file"]),
    ("parallel.microbatches=2.5", ["parallel.microbatches = 2.5"]),
    ("parallel.bucket_mb=-1", ["parallel.bucket_mb = -1"]),
    ("workload.dtype=fp8", ["workload.dtype = 'fp8'", "fp32"]),
    ("workload.global_batch=7", ["workload.global_batch = 7", "multiple of"]),
    ("workload.forward=0.1", ["workload.forward", "unit"]),
    ("run.iterations=0", ["run.iterations = 0"]),
    ("run.pace=nan", ["run.pace"]),
    ("run.device=tpu", ["run.device = 'tpu'", "cpu"]),
    ("cluster.preset=abacus", ["cluster.preset = 'abacus'", "laptop"]),
    ("cluster.profile=missing.json", ["missing.json", "No such file"]),
    ("nonsense", ["nonsense", "section.key=value"]),
]


@pytest.mark.parametrize("command", ["predict", "run"])
@pytest.mark.parametrize(("setting", "named"), SETTINGS, ids=[s for s, _ in SETTINGS])
def test_a_wrong_setting_is_one_line_that_names_it(mistaken, monkeypatch, command, setting, named):
    def started(*_, **__):
        raise AssertionError("processes were started")

    monkeypatch.setattr("runtime.launch.launcher.subprocess.Popen", started)
    line = mistaken(command, "tiny.toml", "--set", setting)
    for text in named:
        assert text in line


@pytest.mark.parametrize("command", ["run", "compare", "calibrate"])
def test_without_torch_the_runtime_says_how_to_get_it(mistaken, monkeypatch, command):
    known = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "torch" else known(name)
    )
    assert "torch is not installed: pip install" in mistaken(command, "tiny.toml")


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


def test_wrong_files_are_one_line(mistaken, tmp_path):
    (tmp_path / "broken.toml").write_text("[workload\nmodel = 1")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "latin.toml").write_bytes('[workload]\nmodel = "mlp" # caf\xe9\n'.encode("latin-1"))
    assert "broken.toml: not TOML" in mistaken("predict", "broken.toml")
    assert "binary.toml" in mistaken("run", "binary.toml")
    assert "latin.toml" in mistaken("compare", "latin.toml")
    assert "nowhere.toml: No such file" in mistaken("calibrate", "nowhere.toml")
    assert "--gantt" in mistaken("predict", "tiny.toml", "--gantt", "chart.bmp")
    assert "--trace" in mistaken("run", "tiny.toml", "--trace", tmp_path)
    (tmp_path / "file").write_text("")
    assert "--trace file" in mistaken("run", "tiny.toml", "--trace", "file/below/x.json")
    assert "'unit'" in mistaken("calibrate", "--set", "workload.model=unit")


def test_wrong_traces_are_one_line(mistaken, tmp_path):
    invoke = CliRunner().invoke
    for name, microbatches in (("a", 2), ("b", 4)):
        arguments = ["predict", "tiny.toml", "--trace", f"{name}.json"]
        arguments += ["--set", f"parallel.microbatches={microbatches}"]
        assert invoke(runtime.cli.app.app, arguments).exit_code == 0
    trace = json.loads((tmp_path / "b.json").read_text())
    trace["twinline"]["meta"]["source"] = "measured"
    (tmp_path / "b.json").write_text(json.dumps(trace))
    whole = (tmp_path / "a.json").read_bytes()
    damaged = {
        "empty": b"",
        "half": whole[: len(whole) // 2],
        "last byte": whole[:-1],
        "other JSON": b'{"traceEvents": []}',
        "list": b"[1, 2]",
        "binary": b"\x00\xff" * 50,
        "format": whole.replace(b'"format": 1', b'"format": 99', 1),
        "missing column": whole.replace(b'"posted"', b'"posted-not"', 1),
    }
    for name, content in damaged.items():
        assert content != whole
        (tmp_path / "bad.json").write_bytes(content)
        for pair in (("bad.json", "a.json"), ("a.json", "bad.json")):
            line = mistaken("compare", "--predicted", pair[0], "--measured", pair[1])
            assert "bad.json" in line, name
    for pair in (("a.json", "a.json"), ("b.json", "b.json"), ("b.json", "a.json")):  # swapped
        line = mistaken("compare", "--predicted", pair[0], "--measured", pair[1])
        assert "allowed: " in line
    assert "not the same program" in mistaken(
        "compare", "--predicted", "a.json", "--measured", "b.json"
    )
    assert "go together" in mistaken("compare", "--predicted", "a.json")
    assert "go together" in mistaken(
        "compare", "tiny.toml", "--predicted", "a.json", "--measured", "a.json"
    )


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder nobody can write to")
def test_a_picture_that_cannot_be_written_is_refused_before_any_work(mistaken):
    line = mistaken("predict", "tiny.toml", "--gantt", "/proc/x.png")
    assert line.startswith("twinline: --gantt /proc/x.png: ")
