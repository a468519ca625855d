"""Strict models for files: an unknown key is an error that names the key and the nearest valid one."""

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, BaseModel, ValidationError, model_validator

from workloads.file_part import FilePart

LONGEST_SHOWN = 120


_FOLDER_NAME = re.compile(r"[^/.\x00-\x1f][^/\x00-\x1f]{0,99}")


def _named_folder(value: str) -> str:
    if not _FOLDER_NAME.fullmatch(value):
        raise ValueError("it names a folder; wanted 1 to 100 characters, no / among them and no dot first")
    return value


FolderName = Annotated[str, AfterValidator(_named_folder)]


class Strict(FilePart):
    """Unknown keys are refused with the nearest valid key."""

    @model_validator(mode="before")
    @classmethod
    def _only_known_keys(cls, values: Any) -> Any:
        if isinstance(values, dict):
            known = {field.alias or name for name, field in cls.model_fields.items()}
            for key in values:
                if key not in known:
                    raise ValueError(f"unknown key {_shortened(key)}{nearest(str(key), known)}")
        return values


def nearest(given: str, known: Iterable[str]) -> str:
    """'; did you mean ...?' with the nearest of `known`, or all of them when nothing is near."""
    names = sorted(known)
    close = difflib.get_close_matches(given, names, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; valid are {', '.join(names)}" if names else ""


def one_line(error: ValidationError, model: type[BaseModel]) -> str:
    """The first fault of a file that should hold a `model`, as one line: where, what was given, what was wanted."""
    first = error.errors(include_url=False)[0]
    loc = first["loc"]
    message = first["msg"].removeprefix("Value error, ")
    given = first.get("input")
    if first["type"] == "extra_forbidden":
        # Of a model that is not Strict: the workload's.
        message, given = f"unknown key {loc[-1]!r}{nearest(str(loc[-1]), _keys_at(model, loc[:-1]))}", None
        loc = loc[:-1]
    where = ".".join(str(part) for part in loc) or "top level"
    shown = f" (given: {_shortened(given)})" if isinstance(given, str | int | float | bool) else ""
    more = f"; and {error.error_count() - 1} more" if error.error_count() > 1 else ""
    return f"{where}: {message}{shown}{more}"


def _shortened(given: object) -> str:
    text = repr(given)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


def _keys_at(kind: Any, loc: Sequence[int | str]) -> tuple[str, ...]:
    """The keys that a model knows at a place inside it; () where the place holds no model."""
    if loc and isinstance(kind, type) and issubclass(kind, BaseModel):
        field = kind.model_fields.get(str(loc[0]))
        return _keys_at(field.annotation, loc[1:]) if field is not None else ()
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return tuple(kind.model_fields)
    # A mapping's key takes a step, a choice such as `X | None` takes none.
    arguments = get_args(kind)
    if getattr(kind, "__origin__", None) is dict:
        return _keys_at(arguments[1], loc[1:])
    return next((keys for argument in arguments if (keys := _keys_at(argument, loc))), ())
