"""Counts tokens as they come, and requests as they end: what policies see of demand and service."""

from collections.abc import Iterable, Mapping

import numpy as np

from controller.history import DemandHistory, Key, Series
from testbed.length_meter import LengthMeter
from testbed.offered_load import LengthMix
from workloads.completion import Completion, Outcome
from workloads.request import Request, Tier
from workloads.slo import Slo


class DemandMeter:
    """Tokens/s in bins of `bin_s`, by (model, region of origin), interactive and NIW apart.

    Prompt tokens count when the request arrives, output tokens when the answer has ended. `interactive_before` and
    `niw_before` are tokens/s of bins before time 0, oldest first. Interactive requests that end are counted too, and
    those of them that `slos` say missed their SLO. Lengths are remembered for `mix_window_s`.
    """

    def __init__(
        self,
        keys: Iterable[Key],
        *,
        bin_s: float,
        interactive_before: Mapping[Key, Series],
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
        self._interactive = {key: self._opened(interactive_before.get(key)) for key in keys}
        self._niw = {key: self._opened(niw_before.get(key)) for key in keys}
        self._ended = {key: self._opened(None) for key in keys}
        self._missed = {key: self._opened(None) for key in keys}
        self._slos = slos

    def _opened(self, before: Series | None) -> Series:
        series = np.zeros(self._bins_before + 1024)
        if before is not None and len(before):
            series[self._bins_before - len(before) : self._bins_before] = before
        return series

    def arrived(self, request: Request, now_s: float) -> None:
        self._count_tokens(request, request.prompt_tokens, now_s)
        self._lengths.arrived(request, self._bins_until(now_s))

    def ended(self, completion: Completion, now_s: float) -> None:
        request = completion.request
        if completion.output_tokens:
            self._count_tokens(request, completion.output_tokens, now_s)
        if completion.outcome is Outcome.COMPLETED:
            self._lengths.ended(completion, self._bins_until(now_s))
        if request.tier.interactive:
            key = (request.model, request.region)
            self._add(self._ended, key, 1.0, now_s)
            if not self._slos[request.tier].met_by(completion):
                self._add(self._missed, key, 1.0, now_s)

    def _count_tokens(self, request: Request, tokens: int, now_s: float) -> None:
        table = self._interactive if request.tier.interactive else self._niw
        self._add(table, (request.model, request.region), tokens / self._bin_s, now_s)

    def _add(self, table: dict[Key, Series], key: Key, amount: float, now_s: float) -> None:
        index = self._bins_before + self._bins_until(now_s)
        series = table[key]
        if index >= len(series):
            series = table[key] = np.concatenate([series, np.zeros(max(len(series), index + 1 - len(series)))])
        series[index] += amount

    def history(self, now_s: float) -> DemandHistory:
        """The whole bins up to now. The arrays are views: past bins do not change any more."""
        bins = self._bins_until(now_s)
        count = self._bins_before + bins
        return DemandHistory(
            bin_s=self._bin_s,
            until_s=bins * self._bin_s,
            interactive={key: _past(series, count) for key, series in self._interactive.items()},
            niw={key: _past(series, count) for key, series in self._niw.items()},
            ended={key: _past(series, count) for key, series in self._ended.items()},
            missed={key: _past(series, count) for key, series in self._missed.items()},
        )

    def mix(self, now_s: float, *, least_requests: int = 400) -> Mapping[str, LengthMix]:
        """Lengths by model over the window's whole bins up to now; models with fewer requests are left out."""
        return self._lengths.mix(self._bins_until(now_s), least_requests=least_requests)

    def _bins_until(self, now_s: float) -> int:
        """Whole bins from 0 to now. A clock that reads a hair less than a bin's end means its end: what is counted then
        must not change a bin that has been shown as past."""
        return int(now_s / self._bin_s + 1e-9)


def _past(series: Series, count: int) -> Series:
    if count > len(series):
        series = np.concatenate([series, np.zeros(count - len(series))])
    past = series[:count]
    past.flags.writeable = False
    return past
