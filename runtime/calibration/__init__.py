"""Calibration: measure what this machine takes for the passes and transfers of a program."""
