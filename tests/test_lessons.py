"""Every lesson runs to its end; the checker refuses the stubs and accepts right answers."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lessons import check, lesson_tools, uneven_machines
from lessons.checks import lesson_01, lesson_02
from simulator import parse, predict
from twinline import learn

LESSONS = Path(check.__file__).parent
SCRIPTS = {path.stem[:2]: path for path in sorted(LESSONS.glob("[0-9][0-9]_*.py"))}

EXPECTED = {
    "01": (
        ["01-simulated", "01-compare-1", "01-compare-2"],
        ["their orders differ", "0REDUCE_GRAD.1  [data]     after 0B0.1", "speed-up of 2 ranks"],
    ),
    "02": (
        ["02-simulated", "02-compare"],
        [
            "one H100: memory: 288 GB of 85.9 GB on the fullest device (rank 0): does not fit",
            "bubble fraction  ",
            "naive: step simulated",
        ],
    ),
    "03": (
        ["03-simulated", "03-compare-gpipe", "03-compare-1f1b"],
        ["deadlock: rank 0 waits in 0RECV_B0; rank 1 waits in 1RECV_F1", "2/1       2/1"],
    ),
    "04": (
        ["04-simulated", "04-learning", "04-compare"],
        [
            "0STEP3          [compute]  after 0ACCEPT3",
            "synchronous                            2.19       2.25                3.00       3.02",
            "stale-synchronous, bound 4        1 to 2.19       1.10                3.00       3.03",
            "asynchronous                           1.00       1.01                1.04       1.05",
            "the slow worker                              45.00      44.52",
            "sixteen, asynchronous: diverges, its loss is no number from",
            "stale-synchronous: 12 steps simulated",
        ],
    ),
    "05": (
        ["05-simulated", "05-compare", "05-learning"],
        [
            "s2:0OUTER       [compute]  after s1:0AVERAGE, s2:0STEP",
            "streaming, H = 16       656 ms     739 ms      3.55    0.01",
            "replicas would differ at the end of the program",
            "is not connected: nothing of row 2 gets to row 0",
            "gossip         0.000 0.000",
        ],
    ),
    "06": (
        ["06-simulated", "06-compare", "06-learning"],
        [
            "0GATHER_VALUES  [data]     after 0B0, 0ENCODE",
            "none               978 MB           7.88 s            542 ms           0 s ",
            "n = 4             0.250     0.249      0.219   0.125     0.124",
            "n = 4           8.53 s  4.46 s  4.48 s",
            "top-k, errors lost  not reached",
        ],
    ),
}

SOLUTIONS = {
    "01": """
def all_reduce_seconds(ranks, nbytes, bandwidth, latency):
    return 2 * (ranks - 1) / ranks * nbytes / bandwidth + 2 * (ranks - 1) * latency

def bucket_mb():
    return 300.0

def microbatches():
    return 5
""",
    "02": """
def bubble_fraction(ranks):
    return (ranks - 1) / ranks

def stages_for_gpt3():
    return 20

def uneven_bubble():
    return 0.75
""",
    "03": """
import math

def microbatches_for(ranks, bubble):
    return math.ceil((ranks - 1) * (1 - bubble) / bubble - 1e-9)

def order(ranks, rank, microbatches):
    first = min(microbatches, ranks - rank)
    passes = [f"F{m}" for m in range(first)]
    for m in range(microbatches):
        passes.append(f"B{m}")
        if first + m < microbatches:
            passes.append(f"F{first + m}")
    return passes

def plan():
    return {"schedule": "1f1b", "microbatches": 72}
""",
    "04": """
def slowest(workers, spread, backup):
    return 1 - spread + spread * sum(1 / k for k in range(backup + 1, workers + 1))

def staleness(step_seconds):
    total = sum(1 / seconds for seconds in step_seconds)
    return [(total - 1 / seconds) * seconds for seconds in step_seconds]

def gradients_per_update():
    return 4
""",
    "05": """
def step_seconds(period, compute, ranks, nbytes, bandwidth, latency):
    both_ways = 2 * (ranks - 1)
    return compute + (both_ways / ranks * nbytes / bandwidth + both_ways * latency) / period

def plan():
    return {"fragments": 5, "overlap_steps": 3}

def neighbour(step, rank, ranks):
    return (rank - 2 ** (step % (ranks.bit_length() - 1))) % ranks
""",
    "06": """
def received_bytes(compression, ranks, values, density):
    others = ranks - 1
    if compression == "int8":
        return others * values
    if compression == "top-k":
        return others * 8 * density * values
    return 2 * others / ranks * values * (2 if compression == "fp16" else 4)

def enough_gbit():
    return 52

def top_k(gradients, errors, kept):
    pushed = [a + b for a, b in zip(gradients, errors)]
    places = sorted(range(len(pushed)), key=lambda place: -abs(pushed[place]))[:kept]
    sent = [value if place in places else 0.0 for place, value in enumerate(pushed)]
    return sent, [a - b for a, b in zip(pushed, sent)]
""",
}

# What a lesson runs for real it runs for fewer steps here.
SHORTER = """
import runpy, sys
from lessons import lesson_tools

def run_shorter(name, experiment, workers, run_here=lesson_tools.run_here):
    steps = experiment.run.model_copy(update={"iterations": 2})
    return run_here(name, experiment.model_copy(update={"run": steps}), workers)

lesson_tools.run_here = run_shorter
runpy.run_path(sys.argv[1], run_name="__main__")
"""


def run(folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(LESSONS.parent), str(LESSONS.parent / "runtime")])
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=folder,
        env=os.environ | {"XDG_CACHE_HOME": str(folder / "cache"), "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize("number", EXPECTED)
def test_lesson_runs_to_its_end(number, tmp_path):
    done = run(tmp_path, "-c", SHORTER, SCRIPTS[number])
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    pictures, lines = EXPECTED[number]
    for line in lines:
        assert line in done.stdout
    for picture in pictures:
        assert (tmp_path / "twinline-out/lessons" / f"{picture}.png").stat().st_size > 10_000


@pytest.mark.parametrize("path", sorted(LESSONS.rglob("*.py")), ids=lambda path: path.stem)
def test_lessons_import_from_the_public_package_alone(path: Path) -> None:
    """Whoever goes on from a lesson finds everything in `twinline`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [node.module] if isinstance(node, ast.ImportFrom) else []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            top = str(name).partition(".")[0]
            assert name == "twinline" or top == "lessons" or top in sys.stdlib_module_names, name


def test_every_lesson_is_tested():
    assert SCRIPTS.keys() == EXPECTED.keys() == SOLUTIONS.keys() == check.CHECKS.keys()


@pytest.mark.parametrize("number", EXPECTED)
def test_form(number):
    """Sphinx-gallery syntax, a title, and the parts of a lesson in their order."""
    text = SCRIPTS[number].read_text(encoding="utf-8")
    title, underline = text.removeprefix('"""\n').splitlines()[:2]
    assert title.startswith(f"Lesson {int(number)}: ")
    assert underline == "=" * len(title)
    parts = ["**What you will learn**"]
    parts += [
        f"\n# {name}\n# {'-' * len(name)}\n"
        for name in ("The question", "Predict", "Simulate", "Run", "Compare", "Explain the gap")
    ]
    parts += [f"\n# {name}\n# {'-' * len(name)}\n" for name in ("Exercises", "Key points")]
    parts.append("\n# Further reading\n# ---------------\n")
    places = [text.index(part) for part in parts]
    assert places == sorted(places)
    assert "\nMY_GUESS = " in text
    assert f"python -m lessons.check {number}" in text


@pytest.mark.parametrize("number", SOLUTIONS)
def test_stubs_fail(number, capsys):
    assert check.main([number]) == 1
    assert capsys.readouterr().out.count("not solved yet") == 3


def test_command(tmp_path):
    done = run(tmp_path, "-m", "lessons.check", "01")
    assert (done.returncode, done.stderr) == (1, "")
    assert "0 of 3 solved" in done.stdout


@pytest.mark.parametrize("number", SOLUTIONS)
def test_solutions_pass(number, tmp_path, capsys):
    answers = tmp_path / "answers.py"
    answers.write_text(SOLUTIONS[number], encoding="utf-8")
    assert check.main([number.lstrip("0"), "--file", str(answers)]) == 0
    assert capsys.readouterr().out.count(": pass ") == 3


@pytest.mark.parametrize(
    ("number", "right", "wrong", "hint"),
    [
        ("01", "+ 2 * (ranks - 1) * latency", "", "2 ranks, 1e+06 bytes"),
        ("01", "return 300.0", "return 25.0", "the latency is paid too often"),
        ("01", "return 300.0", "return 1e6", "too little is left to overlap"),
        ("01", "return 300.0", "return 'small'", "ValueError"),
        ("01", "return 5", "return 4", "take more"),
        ("01", "return 5", "return 6", "take fewer"),
        ("01", "return 5", "return None", "not a whole number"),
        ("02", "(ranks - 1) / ranks", "1 / ranks", "the simulator has 0.8750"),
        ("02", "return 20", "return 19", "96 layers over 19 stages"),
        ("02", "return 20", "return 21", "take fewer"),
        ("02", "return 0.75", "return 0.6", "rank-seconds"),
        ("02", "def uneven_bubble", "def another", "no attribute 'uneven_bubble'"),
        ("03", "math.ceil(", "1 + math.ceil(", "take fewer"),
        ("03", "min(microbatches, ranks - rank)", "microbatches", "in flight [4, 4]"),
        ("03", "min(microbatches, ranks - rank)", "1", "the formula has 150 ms"),
        ("03", "ranks - rank)", "ranks - rank) if rank else 1", "ms, the formula has"),
        ("03", "ranks - rank)", "ranks - rank) if rank % 2 else 1", "the formula has"),
        ("03", "return passes", "return passes[1:]", "stage 0, microbatch 0"),
        ("03", "return passes", "return passes + ['X0']", "not an action"),
        ("03", "return passes", "return passes[::-1]", "allowed: F B"),
        ("03", '"1f1b", "microbatches": 72', '"gpipe", "microbatches": 72', "does not fit"),
        ("03", '"microbatches": 72', '"microbatches": 16', "the target is 0.16"),
        ("03", '"microbatches": 72', '"microbatch": 64', "expected the keys"),
        ("04", "range(backup + 1", "range(1", "2 backup workers: 2.19"),
        ("04", "(total - 1 / seconds)", "total", "expected 2.33, 2.33, 2.33, 9"),
        ("04", "[(total - 1 / seconds) * seconds for seconds in step_seconds]", "9", "not a list"),
        ("04", "return 4", "return 5", "workers wait too long"),
        ("04", "return 4", "return 3", "let an update take more"),
        ("04", "return 4", "return 17", "parallel.gradients_per_update"),
        ("05", ") / period", ")", "H = 16, 0.656 s, 4 ranks"),
        ("05", '"fragments": 5', '"fragments": 4', "4 fragments beside 3 steps: 3.36"),
        ("05", '"fragments": 5', '"fragments": 8', "parallel.bucket_mb below 100"),
        ("05", '"overlap_steps": 3', '"overlap_steps": 4', "at most 3"),
        ("05", '"overlap_steps": 3', '"sync_period": 64', "expected the keys"),
        ("05", "2 ** (step % (ranks.bit_length() - 1))", "1", "a rank has 0 of one rank and 0.5"),
        ("05", "(rank - 2 ** (step % (ranks.bit_length() - 1)))", "0", "gives to 2 ranks"),
        ("05", ") % ranks", ")", "are not all ranks from 0 to 1"),
        ("06", "others * 8", "ranks * 8", "top-k of 0.01, 8 ranks"),
        ("06", "return others * values", "return 2 * others / ranks * values", "int8, 8 ranks"),
        ("06", "return 52", "return 51", "take more"),
        ("06", "return 52", "return 53", "take fewer"),
        ("06", "zip(gradients, errors)", "zip(gradients, gradients)", "do not add up"),
        ("06", "-abs(pushed[place])", "place", "on are sent"),
        ("06", "-abs(pushed[place])", "-abs(gradients[place])", "on are sent"),
        ("06", "[:kept]", "", "4 values are sent"),
        ("06", "[a - b for a, b in zip(pushed, sent)]", "[0.0] * len(sent)", "do not add up"),
    ],
)
def test_wrong_answers_get_a_hint(number, right, wrong, hint, tmp_path):
    """The exercise is the function (of three) in which the answer was changed."""
    solution = SOLUTIONS[number]
    assert right in solution
    path = tmp_path / "answers.py"
    path.write_text(solution.replace(right, wrong, 1), encoding="utf-8")
    before = solution[: solution.index(right) + len("def ")]
    exercise = before.count("\ndef ") - 1
    passed, line = check.verdict(check.CHECKS[number][exercise], check.load(path))
    assert not passed
    assert hint in line


@pytest.mark.parametrize("text", ["def broken(:", "import nowhere_at_all", None])
def test_answers_that_cannot_be_read(text, tmp_path, capsys):
    answers = tmp_path / "answers.py"
    if text is not None:
        answers.write_text(text, encoding="utf-8")
    assert check.main(["01", "--file", str(answers)]) == 1
    assert str(answers) in capsys.readouterr().out


def test_unknown_lesson(capsys):
    with pytest.raises(SystemExit) as exit_:
        check.main(["99"])
    assert exit_.value.code == 2
    assert "choose one of 01, 02, 03" in capsys.readouterr().err


def step_ms(workload, **parallel) -> float:
    experiment = {"workload": workload, "parallel": parallel, "cluster": lesson_01.RINGS}
    return 1e3 * predict(parse(experiment)).iteration_time_s


def test_numbers_quoted_in_the_prose():
    one_sequence = lesson_tools.GPT_1B | {"global_batch": 256}
    assert f"{step_ms(one_sequence, data=256, bucket_mb=25.0):.1f}" == "109.3"
    assert f"{step_ms(one_sequence, data=256, bucket_mb=1e6):.1f}" == "91.6"
    whole = parse(
        {"workload": lesson_02.GPT_3 | {"global_batch": 1}, "cluster": {"preset": "dgx-h100"}}
    )
    assert f"{predict(whole).peak_memory_bytes / 1e9:.0f}" == "1557"
    cluster = lesson_01.RINGS | {"node_bandwidth_gbit": 100.0}
    workload = lesson_tools.GPT_1B | {"global_batch": 64}
    slow = predict(parse({"workload": workload, "parallel": {"data": 16}, "cluster": cluster}))
    machines = predict(uneven_machines.on_machines({"data_style": "asynchronous"}, horizon=1))
    assert f"{1e3 * uneven_machines.compute_seconds(machines):.0f}" == "231"
    assert 5 < 16 * lesson_tools.work_seconds(slow)[0] / slow.iteration_time_s < 7


def test_a_high_rate_needs_short_periods():
    """Lesson 5 says so of four machines, and names the rates and periods."""
    workload = {"model": "mlp", "layers": 2, "hidden": 64, "sequence": 8, "global_batch": 4}
    cases = [(3.0, 16), (4.0, 4), (4.0, 16)]
    plans = [
        lesson_tools.on_slow_network(
            {"data_style": "local-sgd", "sync_period": period}, workload, learning_rate=rate
        )
        for rate, period in cases
    ]
    found = [curve.is_finite for curve in learn(plans, steps=32).curves]
    assert found == [True, True, False]
