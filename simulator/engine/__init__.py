"""The simulation in virtual time, and the costs of instructions."""
