"""Counts tokens as they come, and requests as they end: what policies see of demand and service."""

from collections.abc import Iterable, Mapping

import numpy as np

from controller.history import SERIES, DemandHistory, Key, Series
from testbed.length_meter import LengthMeter
from testbed.offered_load import LengthMix
from workloads.completion import Completion, Outcome
from workloads.request import Request, Tier
from workloads.slo import Slo


class _Counts:
    """What one (model, region of origin) has had in the bin under way: tokens/s, and requests that ended."""

    __slots__ = SERIES

    def __init__(self) -> None:
        self.interactive = 0.0
        self.interactive_output = 0.0
        self.niw = 0.0
        self.ended = 0.0
        self.missed = 0.0


class DemandMeter:
    """Tokens/s in bins of `bin_s`, by (model, region of origin), interactive and NIW apart.

    Prompt tokens count when the request arrives, output tokens when the answer has ended. `interactive_before`,
    `output_before` (the output tokens of these) and `niw_before` are tokens/s of bins before time 0, oldest first.
    Interactive requests that end are counted too, and those of them that `slos` say missed their SLO. Lengths are
    remembered for `mix_window_s`. Time does not go back.
    """

    def __init__(
        self,
        keys: Iterable[Key],
        *,
        bin_s: float,
        interactive_before: Mapping[Key, Series],
        output_before: Mapping[Key, Series],
        niw_before: Mapping[Key, Series],
        slos: Mapping[Tier, Slo],
        mix_window_s: float = 3 * 3600.0,
    ) -> None:
        self._bin_s = bin_s
        keys = tuple(keys)
        self._lengths = LengthMeter({model for model, _ in keys}, bin_s=bin_s, window_s=mix_window_s)
        self._bins_before = max(
            (len(series) for before in (interactive_before, niw_before) for series in before.values()), default=0
        )
        before = {"interactive": interactive_before, "interactive_output": output_before, "niw": niw_before}
        self._tables = {kind: {key: self._opened(before.get(kind, {}).get(key)) for key in keys} for kind in SERIES}
        self._slos = slos
        # A request adds to the numbers of the bin under way alone; they go into the tables when it has passed.
        self._bin = 0
        self._counts = {key: _Counts() for key in keys}

    def _opened(self, before: Series | None) -> Series:
        series = np.zeros(self._bins_before + 1024)
        if before is not None and len(before):
            series[self._bins_before - len(before) : self._bins_before] = before
        return series

    def arrived(self, request: Request, now_s: float) -> None:
        self._at(now_s)
        counts = self._counts[request.model, request.region]
        if request.tier is Tier.NIW:
            counts.niw += request.prompt_tokens / self._bin_s
        else:
            counts.interactive += request.prompt_tokens / self._bin_s
        self._lengths.arrived(request)

    def ended(self, completion: Completion, now_s: float) -> None:
        self._at(now_s)
        request = completion.request
        counts = self._counts[request.model, request.region]
        if request.tier is Tier.NIW:
            counts.niw += completion.output_tokens / self._bin_s
        else:
            counts.interactive += completion.output_tokens / self._bin_s
            counts.interactive_output += completion.output_tokens / self._bin_s
            counts.ended += 1.0
            if not self._slos[request.tier].met_by(completion):
                counts.missed += 1.0
        if completion.outcome is Outcome.COMPLETED:
            self._lengths.ended(completion)

    def history(self, now_s: float) -> DemandHistory:
        """The whole bins up to now. The arrays are views: past bins do not change any more."""
        self._at(now_s)
        count = self._bins_before + self._bin
        return DemandHistory(
            bin_s=self._bin_s,
            until_s=self._bin * self._bin_s,
            **{
                kind: {key: _past(series, count) for key, series in table.items()}
                for kind, table in self._tables.items()
            },
        )

    def recall(self, shown: DemandHistory) -> None:
        """What has been shown as past stays so, whatever has been counted since."""
        self._at(shown.until_s)
        for kind, table in self._tables.items():
            for key, values in getattr(shown, kind).items():
                table[key] = np.concatenate([values, table[key][len(values) :]])

    def mix(self, now_s: float, *, least_requests: int = 400) -> Mapping[str, LengthMix]:
        """Lengths by model over the window's whole bins up to now; models with fewer requests are left out."""
        self._at(now_s)
        return self._lengths.mix(least_requests=least_requests)

    def _at(self, now_s: float) -> None:
        """Go to the bin of this moment. A clock that reads a hair less than a bin's end means its end: what is counted
        then must not change a bin that has been shown as past."""
        bin_now = int(now_s / self._bin_s + 1e-9)
        if bin_now > self._bin:
            index = self._bins_before + self._bin
            for key, counts in self._counts.items():
                for kind, table in self._tables.items():
                    _put(table, key, index, getattr(counts, kind))
                self._counts[key] = _Counts()
            self._lengths.go_to(bin_now)
            self._bin = bin_now


def _put(table: dict[Key, Series], key: Key, index: int, amount: float) -> None:
    if amount:
        series = table[key]
        if index >= len(series):
            series = table[key] = np.concatenate([series, np.zeros(max(len(series), index + 1 - len(series)))])
        series[index] = amount


def _past(series: Series, count: int) -> Series:
    if count > len(series):
        series = np.concatenate([series, np.zeros(count - len(series))])
    past = series[:count]
    past.flags.writeable = False
    return past
