"""Python's interpreter, set so that a run is held up less."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# Another thread (a solver's, a writer's) that computes gives the interpreter back after this, Python's default 5 ms.
_SWITCH_AFTER_S = 0.0005


@contextmanager
def steady_interpreter() -> Iterator[None]:
    """The cycle collector looks less often, for a run makes many short-lived objects and hardly a cycle; and the event
    loop waits less for threads."""
    thresholds, switch_after_s = gc.get_threshold(), sys.getswitchinterval()
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 20, 50)
    sys.setswitchinterval(_SWITCH_AFTER_S)
    try:
        yield
    finally:
        sys.setswitchinterval(switch_after_s)
        gc.set_threshold(*thresholds)
        gc.unfreeze()
