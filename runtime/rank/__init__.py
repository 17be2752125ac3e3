"""The work of one process of a run: its jobs, steps and records."""
