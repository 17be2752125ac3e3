"""Check the exercises of a lesson: ``python -m lessons.check 01``.

The answers are the functions of ``lessons/exercises_01.py`` (or of ``--file``). Exit code 0
if all of them are right.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

from lessons.checks import lesson_01, lesson_02, lesson_03, lesson_04, lesson_05, lesson_06
from lessons.checks.tools import Wrong
from twinline import ExperimentError

CHECKS: dict[str, list[Callable[[ModuleType], str]]] = {
    "01": [lesson_01.all_reduce_formula, lesson_01.bucket_size, lesson_01.accumulation],
    "02": [lesson_02.naive_bubble, lesson_02.gpt3_stages, lesson_02.uneven],
    "03": [lesson_03.enough_microbatches, lesson_03.own_schedule, lesson_03.plan_that_fits],
    "04": [lesson_04.order_statistics, lesson_04.stale_workers, lesson_04.between_the_two],
    "05": [lesson_05.local_steps_formula, lesson_05.hidden, lesson_05.own_gossip],
    "06": [lesson_06.count, lesson_06.fast_network, lesson_06.own_error_feedback],
}


def load(path: Path) -> ModuleType:
    """Import the answers.

    Raises:
        Wrong: the file cannot be imported.
    """
    spec = importlib.util.spec_from_file_location(f"answers_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise Wrong(f"{path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise Wrong(f"{path}: {type(error).__name__}: {error}") from None
    return module


def verdict(check: Callable[[ModuleType], str], answers: ModuleType) -> tuple[bool, str]:
    """Tell whether the exercise is solved, and return a line that helps."""
    try:
        return True, check(answers)
    except NotImplementedError:
        return False, "not solved yet"
    except (Wrong, ExperimentError) as error:
        return False, str(error)
    except Exception as error:
        return False, f"{type(error).__name__}: {error}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m lessons.check", description=__doc__)
    parser.add_argument("lesson", help=f"one of {', '.join(CHECKS)}")
    parser.add_argument("--file", type=Path, help="your answers, if they are in another file")
    options = parser.parse_args(arguments)
    lesson = options.lesson.zfill(2)
    if lesson not in CHECKS:
        parser.error(f"lesson {options.lesson}: choose one of {', '.join(CHECKS)}")
    path = options.file or Path(__file__).with_name(f"exercises_{lesson}.py")
    try:
        answers = load(path)
    except Wrong as error:
        print(error)
        return 1
    passed = 0
    for number, check in enumerate(CHECKS[lesson], start=1):
        ok, line = verdict(check, answers)
        passed += ok
        print(f"exercise {number}: {'pass' if ok else 'FAIL'}  {line}", flush=True)
    print(f"{passed} of {len(CHECKS[lesson])} solved in {path}")
    return 0 if passed == len(CHECKS[lesson]) else 1


if __name__ == "__main__":
    sys.exit(main())
