"""Timelines: spans, memory, and the file they are saved in."""
