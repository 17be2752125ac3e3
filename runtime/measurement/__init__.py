"""Turns the records of ranks into one measured timeline."""
