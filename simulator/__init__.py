"""Predict parallel training: workloads, clusters, strategies, programs, engine, timelines.

Torch-free. ``predict(load("experiment.toml"))`` is the short way; `simulator.charts` draws.
Importing this package imports next to nothing: `__init__.pyi` lists its names, each of which is
imported when somebody asks for it.
"""

from simulator.experiment.check_registry import find_checks_in
from simulator.lazy_names import lazy_names

__getattr__, __all__ = lazy_names(__name__)

# Whatever module of this package makes the first experiment, all checks are there.
find_checks_in("simulator.experiment_file")


def __dir__() -> list[str]:
    """Return the public names."""
    return __all__
