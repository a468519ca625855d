"""What is wrong with a file, in a line."""

from pydantic import ValidationError


def first_fault(error: ValidationError) -> str:
    """The first of what pydantic found: where it is in the file, and what it is."""
    fault = error.errors()[0]
    where = ".".join(str(part) for part in fault["loc"]) or "the file"
    return f"{where}: {fault['msg']}"
