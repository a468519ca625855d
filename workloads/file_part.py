"""What every model of a file that people write is made of."""

from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator


class FilePart(BaseModel):
    """Frozen; an unknown key is an error, and so are a number that is none and a flag in the place of a number."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    # pydantic would take true for 1.
    @field_validator("*", mode="before")
    @classmethod
    def _no_flag_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        field = cls.model_fields[str(info.field_name)]
        if _holds_a_flag(value) and not _may_hold_a_flag(field.annotation):
            raise ValueError("wanted neither true nor false, as which YAML reads yes, no, on and off too")
        return value


def _holds_a_flag(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_holds_a_flag, value.values()))
    return isinstance(value, bool) or (isinstance(value, list | tuple) and any(map(_holds_a_flag, value)))


def _may_hold_a_flag(kind: Any) -> bool:
    """Whether a flag may stand anywhere in it; a model inside asks for itself."""
    if kind in (bool, Any) or (isinstance(kind, type) and issubclass(kind, BaseModel)):
        return True
    return any(map(_may_hold_a_flag, get_args(kind)))
