"""Run an experiment on processes of this machine, compare it with its prediction, calibrate."""
