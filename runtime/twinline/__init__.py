"""Twinline predicts parallel training, runs the same program for real, and compares the two.

``predict(experiment(model="gpt", layers=4, pipeline=2, microbatches=4))`` is the short way.
``docs/api.md`` lists every name, `__init__.pyi` says where it is; it is imported when somebody
asks for it. So importing this package imports neither torch, which only the processes of a run
need, nor matplotlib, which only figures need, nor anything else that takes long.
"""

from simulator.lazy_names import lazy_names

__getattr__, __all__ = lazy_names(__name__)


def __dir__() -> list[str]:
    """Return the public names."""
    return __all__
