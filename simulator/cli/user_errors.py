"""A user's mistake in what a command is to do is one line on stderr, with exit code 2."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from simulator.cli.application import FAILED, INTERRUPTED, MISTAKE, fail
from simulator.experiment.section import ExperimentError
from simulator.timeline.trace import TraceError


def user_errors(command: Callable[..., Any]) -> Callable[..., Any]:
    """Return `command` with a user's mistake as one line on stderr and exit code 2."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except (ExperimentError, TraceError) as error:
            fail(str(error), MISTAKE)
        except OSError as error:
            if error.filename is None:
                raise
            fail(f"{error.filename}: {error.strerror}", FAILED)
        except KeyboardInterrupt:
            fail("interrupted", INTERRUPTED)

    return wrapped
