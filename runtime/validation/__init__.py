"""The validation suite: its cases, how they are run and kept, and what is printed."""
