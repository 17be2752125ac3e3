"""Patterns from which schedules build the order of their passes."""
