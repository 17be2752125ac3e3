"""Training in virtual time: a plan's numerics in one process, in the order of its prediction."""
