"""Lessons in parallel training: scripts that predict a step, run it, and compare."""
