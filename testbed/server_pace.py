"""How fast a server runs: what slows it down at the moment, and its own time against the run's."""

from bisect import bisect_right

FULL = 1.0


class Afflictions:
    """What slows a server down at the moment: the worst of them counts."""

    def __init__(self) -> None:
        self._factors: list[float] = []

    def begin(self, factor: float) -> None:
        """`factor` times slower from now on; infinite: it stands still."""
        self._factors.append(factor)

    def end(self, factor: float) -> None:
        """One that began is over."""
        self._factors.remove(factor)

    @property
    def rate(self) -> float:
        """Of its full speed, 0 to 1."""
        return FULL / max(self._factors, default=FULL)


class ServerTime:
    """The seconds that a server lives through while it is slowed down now and then: a piecewise linear function of the
    run's, at 0 together, its slope the rate of the time.
    """

    def __init__(self) -> None:
        # Where each piece begins, in both times, and its rate.
        self._run_s = [0.0]
        self._own_s = [0.0]
        self._rates = [FULL]

    def change(self, run_s: float, rate: float) -> None:
        """From `run_s` on, not before the last change, it runs at `rate`."""
        self._own_s.append(self.own_s(run_s))
        self._run_s.append(run_s)
        self._rates.append(rate)

    def own_s(self, run_s: float) -> float:
        """The server's time at `run_s`, which is not before the last change."""
        return self._own_s[-1] + (run_s - self._run_s[-1]) * self._rates[-1]

    def run_s(self, own_s: float) -> float:
        """When, in the run's time, the server's is `own_s`; infinite where as things stand it never will be."""
        # Of a time at which it stood still, the moment at which that began.
        piece = max(0, bisect_right(self._own_s, own_s) - 1)
        while piece and self._own_s[piece] == own_s:
            piece -= 1
        ahead_s = own_s - self._own_s[piece]
        rate = self._rates[piece]
        if rate == 0.0:
            return self._run_s[piece] if ahead_s <= 0.0 else float("inf")
        return self._run_s[piece] + ahead_s / rate
