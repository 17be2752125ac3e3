"""What the documentation shows of commands is what they print today."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from simulator.experiment.cluster_choice import ClusterChoice
from simulator.experiment.parallel import Parallel
from simulator.experiment.run import Run
from simulator.experiment.workload import Workload
from simulator.strategies.schedules.passes import Plan
from simulator.strategies.schedules.registry import SCHEDULES

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
HASH = re.compile(r"program [0-9a-f]{16}: .*")


def blocks(page: Path, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


def samples() -> list[tuple[str, str, str]]:
    """(page, command, output) of the documented programs and predictions."""
    found = []
    for page in PAGES:
        for block in blocks(page, "console"):
            for command, output in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE):
                if HASH.search(output) and command.startswith(("twinline pro", "twinline pre")):
                    found.append((page.name, command, output))
    return found


def printed(command: str, folder: Path) -> str:
    """What a user sees of it, stderr first."""
    for name, page in (("mine.toml", "README.md"), ("dp.toml", "docs/experiment.md")):
        (folder / name).write_text(
            next(b for b in blocks(ROOT / page, "toml") if name != "dp.toml" or "data = 2" in b)
        )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "100"}
    environment["XDG_CACHE_HOME"] = str(folder)
    arguments = [sys.executable, "-m", "simulator", *shlex.split(command)[1:]]
    done = subprocess.run(
        arguments, cwd=folder, env=environment, capture_output=True, text=True, timeout=60
    )
    return done.stderr + done.stdout


@pytest.mark.parametrize(("page", "command", "output"), samples(), ids=lambda text: text[:40])
def test_outputs_are_those_of_the_documentation(
    page: str, command: str, output: str, tmp_path: Path
) -> None:
    lines = [line.rstrip() for line in printed(command, tmp_path).splitlines()]
    assert lines == output.splitlines()


def test_there_are_samples_on_these_pages() -> None:
    pages = [page for page, _, _ in samples()]
    assert sorted(set(pages)) == ["README.md", "clusters.md", "commands.md", "program.md"]


@pytest.mark.parametrize(
    ("section", "model"),
    [("workload", Workload), ("parallel", Parallel), ("cluster", ClusterChoice), ("run", Run)],
)
def test_every_key_has_a_row_in_the_table_of_its_section(section: str, model: type) -> None:
    (text,) = re.findall(rf"^## \[{section}\]\n(.*?)^## ", PAGES_TEXT, re.DOTALL | re.MULTILINE)
    rows = re.findall(r"^\| `(\w+)` \|", text.partition("\n### ")[0], re.MULTILINE)
    assert sorted(rows) == sorted(model.model_fields)


def test_the_table_of_the_key_schedule_is_what_schedules_allow() -> None:
    (text,) = re.findall(r"^### Schedules\n(.*?)^## ", PAGES_TEXT, re.DOTALL | re.MULTILINE)
    rows = re.findall(r"^\| `([\w:-]+)` \| .* \| (.*?) \| ?(.*?) ?\|$", text, re.MULTILINE)
    assert [name for name, _, _ in rows] == [*SCHEDULES, "csv:PATH"]
    for name, stages, condition in rows[:-1]:
        allowed = [v for v in (1, 2, 3) if SCHEDULES[name].refusal(Plan(4, 16, v)) is None]
        assert allowed == {"1": [1], "2": [2], "≥ 1": [1, 2, 3], "≥ 2": [2, 3]}[stages], name
        refused = [SCHEDULES[name].refusal(Plan(4, m, v)) for m in range(1, 17) for v in allowed]
        assert any(refused) == ("microbatches" in condition or "rounds" in condition), name


def test_the_documented_refusal_of_a_degree() -> None:
    shown = re.findall(r"^\$ twinline predict --set parallel.tensor=3\n(.*)$", README, re.MULTILINE)
    assert [printed("twinline predict --set parallel.tensor=3", Path.cwd()).strip()] == shown


def test_the_example_of_a_schedule_is_the_real_one() -> None:
    source = (ROOT / "simulator/strategies/schedules/gpipe.py").read_text()
    body = source[source.index("from __future__") :]
    shown = textwrap.indent(body, "   ")
    assert shown in (ROOT / "CONTRIBUTING.md").read_text()


def test_the_table_of_schedules_is_todays(tmp_path: Path) -> None:
    found = [line.rstrip() for line in printed("twinline schedules", tmp_path).splitlines()]
    page = (ROOT / "docs/commands.md").read_text()
    (shown,) = re.findall(r"^\$ twinline schedules\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert found == shown.splitlines()


def test_the_index_lists_every_page() -> None:
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"index.md"}
    index = (ROOT / "docs/index.md").read_text()
    assert pages <= set(re.findall(r"\((\w+\.md)", index))


def test_paths_in_the_documentation_exist() -> None:
    pages = [*PAGES, ROOT / "CONTRIBUTING.md"]
    named = re.compile(r"`((?:simulator|runtime|lessons|tests)/[\w/]+(?:\.py|\.toml|/))`")
    paths = {path for page in pages for path in named.findall(page.read_text())}
    assert len(paths) > 20
    real = [path for path in sorted(paths) if "NAME" not in path]
    assert [path for path in real if not (ROOT / path).exists()] == []


def test_the_table_of_rooms_is_the_one_that_imports_are_held_to() -> None:
    listed = re.search(
        r"^ROOMS = \((.*?)^\)", (ROOT / "tests/test_layers.py").read_text(), re.S | re.M
    )
    assert listed
    rooms = [name.split(".")[-1] for name in re.findall(r'"([\w.]+)"', listed[1])]
    rooms = [name for name in rooms if name not in ("simulator", "runtime", "lessons", "__main__")]
    page = (ROOT / "docs/design.md").read_text()
    section = page[page.index("## Rooms") : page.index("The order is that of")]
    rows = re.findall(r"^\| (`[^|]*`) \|", section, re.M)
    shown = [name for row in rows for name in re.findall(r"`(\w+)(?:\.py|/)`", row)]
    assert [name for name in shown if name not in ("simulator", "runtime")] == rooms


PAGES_TEXT = (ROOT / "docs" / "experiment.md").read_text()
README = (ROOT / "README.md").read_text()
