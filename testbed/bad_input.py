"""How a command ends that cannot do what it was told."""

# Exit codes.
FAILED = 1
BAD_INPUT = 2
INTERRUPTED = 130


class BadInput(ValueError):
    """One line for the user: what was given, what was wanted, what to do. Exit code 2."""


class CommandFailed(RuntimeError):
    """The machine did not do what it should; one line for the user. Exit code 1."""
