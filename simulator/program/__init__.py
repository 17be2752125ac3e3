"""The program language that simulator and runtime interpret, and its checks."""
