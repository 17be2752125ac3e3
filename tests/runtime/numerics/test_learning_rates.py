"""Real runs follow a schedule of learning rates as torch's own schedulers would, in fp64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

COSINE = {
    "learning_rate_schedule": "cosine",
    "learning_rate_warmup": 2,
    "learning_rate_decay": 4,
    "learning_rate_scaling": "sqrt",
}
PLATEAU = {
    "learning_rate_schedule": "plateau",
    "learning_rate": 3.0,  # the loss rises
    "plateau_patience": 0,
    "plateau_factor": 0.25,
}


@pytest.mark.parametrize(
    "keys",
    [
        {"data": 2, "layers": 2, "optimizer": "adamw", **COSINE},
        {"pipeline": 2, "microbatches": 2, "layers": 2, **PLATEAU},
    ],
    ids=["cosine", "plateau"],
)
def test_a_run_follows_the_schedule(
    keys: dict[str, Any],
    run: Callable[..., Any],
    reference: Callable[..., Any],
    experiment: Callable[..., Any],
    equals_one_process: Callable[..., None],
) -> None:
    ran = run(**keys, iterations=4, warmup=1)
    equals_one_process(ran)
    plain = {key: keys[key] for key in keys if key not in COSINE | PLATEAU}
    rate = {"learning_rate": ran.experiment.run.learning_rate}
    _, _, losses = reference(experiment(**plain, **rate, iterations=4, warmup=1))
    assert ran.measurement.losses[-1] != pytest.approx(losses[-1], rel=1e-3)
