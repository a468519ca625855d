"""Strict models for files: an unknown key is an error that names the key and the nearest valid one."""

import difflib
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator


class Strict(BaseModel):
    """Frozen; unknown keys are refused with the nearest valid key."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=False)

    @model_validator(mode="before")
    @classmethod
    def _only_known_keys(cls, values: Any) -> Any:
        if isinstance(values, dict):
            known = {field.alias or name for name, field in cls.model_fields.items()}
            for key in values:
                if key not in known:
                    raise ValueError(f"unknown key {key!r}{nearest(str(key), known)}")
        return values


def nearest(given: str, known: Iterable[str]) -> str:
    """'; did you mean ...?' with the nearest of `known`, or all of them when nothing is near."""
    names = sorted(known)
    close = difflib.get_close_matches(given, names, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; valid are {', '.join(names)}" if names else ""


def one_line(error: ValidationError) -> str:
    """The first fault of a file as one line: where, what was given, what was wanted."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "top level"
    message = first["msg"].removeprefix("Value error, ")
    given = first.get("input")
    shown = f" (given: {given!r})" if isinstance(given, str | int | float | bool) else ""
    more = f"; and {error.error_count() - 1} more" if error.error_count() > 1 else ""
    return f"{where}: {message}{shown}{more}"
