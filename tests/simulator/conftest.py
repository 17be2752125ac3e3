"""The same examples on every run; no limit on their time (machines differ)."""

from hypothesis import settings

settings.register_profile("twinline", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("twinline")
