"""What the command line says when it was given something that it cannot use."""


class BadInput(ValueError):
    """One line for the user: what was given, what was wanted, what to do. Exit code 2."""
