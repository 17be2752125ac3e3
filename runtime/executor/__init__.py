"""The executor: walks the instruction list of one rank, for real."""
