"""What is wrong with a run folder that cannot be read."""


class RunFolderError(ValueError):
    """One line for the user: which file, what is wrong with it, what to do."""
