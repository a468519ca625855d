"""Parameters of `hpa`: those of a Kubernetes HorizontalPodAutoscaler (autoscaling/v2), with its defaults."""

from typing import Annotated, Literal

from pydantic import Field

from controller.parameter_types import Parameters, Seconds


class RatePolicy(Parameters):
    """At most `value` servers, or percent of the servers at the beginning of the period, within any `period_s`."""

    kind: Literal["servers", "percent"]
    value: Annotated[int, Field(ge=1)]
    period_s: Seconds = 15.0


class ScalingRules(Parameters):
    """How fast one direction may go. Of several policies the one that allows most counts (`max`), or least (`min`);
    `disabled` never goes there.
    """

    policies: Annotated[tuple[RatePolicy, ...], Field(min_length=1)]
    select: Literal["max", "min", "disabled"] = "max"


class DownRules(ScalingRules):
    """The way down, where the largest recommendation of the last `stabilisation_s` counts."""

    policies: Annotated[tuple[RatePolicy, ...], Field(min_length=1)] = (RatePolicy(kind="percent", value=100),)
    stabilisation_s: Annotated[float, Field(ge=0, le=3600)] = 300.0


class UpRules(ScalingRules):
    """The way up, at once: Kubernetes' default of no stabilisation there is the only one offered."""

    policies: Annotated[tuple[RatePolicy, ...], Field(min_length=1)] = (
        RatePolicy(kind="percent", value=100),
        RatePolicy(kind="servers", value=4),
    )


class HpaParameters(Parameters):
    """`metric`: `tokens` is demand in tokens/s per server against theta (an External metric with an AverageValue: a
    rate, which does not depend on the servers that are there); `utilisation` is the mean effective KV utilisation of
    the READY servers (a Pods metric).

    `target` is the value to keep: a share of theta, or a utilisation. `window_s`: demand is the highest bin of the
    last so many seconds, the last bin alone where shorter than one; 900 makes the proportional rule that is hardest
    to beat without a forecast. `niw_share` of the NIW load over the last `niw_window_s` is added to demand, as the
    long-term policies do. Within `tolerance` of the target nothing changes.
    """

    metric: Literal["tokens", "utilisation"] = "tokens"
    target: Annotated[float, Field(gt=0)] = 0.70
    tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.10
    window_s: Seconds = 60.0
    niw_share: Annotated[float, Field(ge=0)] = 0.10
    niw_window_s: Seconds = 3600.0
    scale_up: UpRules = UpRules()
    scale_down: DownRules = DownRules()
    interval_s: Seconds = 15.0
