"""The commands that need no torch, and the tables they print."""
