"""What every parameter of a policy is made of: strict models, and numbers within bounds."""

from typing import Annotated

from pydantic import Field

from workloads.file_part import FilePart

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Quantile = Annotated[float, Field(gt=0, lt=1)]


class Parameters(FilePart):
    """What a policy, or a part of one, may be told."""
