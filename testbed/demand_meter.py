"""Counts tokens as they come: the demand that forecasts see."""

from collections.abc import Iterable, Mapping

import numpy as np

from controller.history import DemandHistory, Key, Series
from workloads.completion import Completion
from workloads.request import Request


class DemandMeter:
    """Tokens/s in bins of `bin_s`, by (model, region of origin), interactive and NIW apart.

    Prompt tokens count when the request arrives, output tokens when the answer has ended. `interactive_before` and
    `niw_before` are tokens/s of bins before time 0, oldest first.
    """

    def __init__(
        self,
        keys: Iterable[Key],
        *,
        bin_s: float,
        interactive_before: Mapping[Key, Series],
        niw_before: Mapping[Key, Series],
    ) -> None:
        self._bin_s = bin_s
        keys = tuple(keys)
        self._bins_before = max(
            (len(series) for before in (interactive_before, niw_before) for series in before.values()), default=0
        )
        self._interactive = {key: self._opened(interactive_before.get(key)) for key in keys}
        self._niw = {key: self._opened(niw_before.get(key)) for key in keys}

    def _opened(self, before: Series | None) -> Series:
        series = np.zeros(self._bins_before + 1024)
        if before is not None and len(before):
            series[self._bins_before - len(before) : self._bins_before] = before
        return series

    def arrived(self, request: Request, now_s: float) -> None:
        self._add(request, request.prompt_tokens, now_s)

    def ended(self, completion: Completion, now_s: float) -> None:
        if completion.output_tokens:
            self._add(completion.request, completion.output_tokens, now_s)

    def _add(self, request: Request, tokens: int, now_s: float) -> None:
        table = self._interactive if request.tier.interactive else self._niw
        key = (request.model, request.region)
        index = self._bins_before + self._bins_until(now_s)
        series = table[key]
        if index >= len(series):
            series = table[key] = np.concatenate([series, np.zeros(max(len(series), index + 1 - len(series)))])
        series[index] += tokens / self._bin_s

    def history(self, now_s: float) -> DemandHistory:
        """The whole bins up to now. The arrays are views: past bins do not change any more."""
        bins = self._bins_until(now_s)
        count = self._bins_before + bins
        return DemandHistory(
            bin_s=self._bin_s,
            until_s=bins * self._bin_s,
            interactive={key: _past(series, count) for key, series in self._interactive.items()},
            niw={key: _past(series, count) for key, series in self._niw.items()},
        )

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
