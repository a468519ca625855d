"""Parameters of `chiron`."""

from typing import Annotated

from pydantic import Field

from controller.parameter_types import Parameters, Seconds, Share


class ChironParameters(Parameters):
    """`spill_above`: the utilisation above which interactive requests go to mixed servers, and so that of a server that
    counts as busy (as the router has it). `busy_share` is the share of busy servers to stay at or below.

    `mixed_share`: of the interactive and mixed servers together, those that are mixed (10 of 30 in SageServe's runs).
    `batch_deadline_s`: the longest that the batch servers may need for the NIW queue. A cooldown is the time since
    the last change of the same servers.
    """

    spill_above: Annotated[float, Field(gt=0)] = 0.70
    busy_share: Annotated[float, Field(gt=0, lt=1)] = 0.6
    mixed_share: Share = 1 / 3
    batch_deadline_s: Seconds = 24 * 3600.0
    cooldown_out_s: Annotated[float, Field(ge=0)] = 15.0
    cooldown_in_s: Annotated[float, Field(ge=0)] = 15.0
    interval_s: Seconds = 15.0
