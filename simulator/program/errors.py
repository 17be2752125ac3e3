"""The one error of a program that cannot run."""


class ProgramError(ValueError):
    """A program would hang or leak; the message is one line with ranks and instructions."""
