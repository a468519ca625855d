"""When which faults strike: all drawn before the run, from its seed."""

from collections.abc import Sequence

import numpy as np

from testbed.fault import Fault
from testbed.fault_parts import FaultConfig

# A stream of chance of its own: faults leave the workload as it is.
_STREAM = 0xFA17


def fault_schedule(faults: Sequence[FaultConfig], horizon_s: float, seed: int) -> tuple[Fault, ...]:
    """The faults of a run in order of time; those `per_h` are a Poisson process over 0 to `horizon_s`."""
    struck: list[Fault] = []
    for number, config in enumerate(faults):
        chance = np.random.default_rng([seed, _STREAM, number])
        if config.per_h is None:
            moments = [config.at_s]
        else:
            count = chance.poisson(config.per_h * horizon_s / 3600.0)
            moments = sorted(chance.uniform(0.0, horizon_s, count).tolist())
        for at_s in moments:
            assert at_s is not None
            for draw in chance.uniform(size=config.servers).tolist():
                struck.append(
                    Fault(
                        at_s=at_s,
                        kind=config.kind,
                        model=config.model,
                        region=config.region,
                        gpu_type=config.gpu_type,
                        draw=draw,
                        factor=config.factor or float("inf"),
                        for_s=config.for_s,
                    )
                )
    return tuple(sorted(struck, key=lambda fault: fault.at_s))
