"""Timelines, memory and profiles as matplotlib figures."""

import logging


def _is_news(record: logging.LogRecord) -> bool:
    """Tell whether it is not about matplotlib's cache, which may be where nobody can write."""
    text = record.getMessage()
    return not text.startswith(("mkdir -p failed", "Matplotlib created a temporary cache"))


logging.getLogger("matplotlib").addFilter(_is_news)
