"""A public trace at its full rate as tokens/s, for fluid studies: millions of requests become a few thousand bins."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from controller.history import Series
from controller.types import Pool
from testbed.offered_load import LengthMix, length_mixes
from testbed.study import PublicTrace, StudyWorkload
from testbed.study_trace import ANY, made_once, stream_shares, whole_trace
from workloads.demand import demand_series
from workloads.relabel import ANY_OTHER, relabel
from workloads.request import Tier
from workloads.transforms import clip_lengths

SUFFIX = ".npz"


@dataclass(frozen=True, slots=True, kw_only=True)
class RateTrace:
    """Tokens/s of every pool in bins of `bin_s`, history and run end to end, and the lengths of all its requests."""

    bin_s: float
    interactive: Mapping[Pool, Series]
    niw: Mapping[Pool, Series]
    mix: Mapping[str, LengthMix]

    def write(self, path: Path) -> None:
        about = {
            "bin_s": self.bin_s,
            "pools": [list(pool) for pool in self.interactive],
            "mix": {
                model: {**asdict(mix), "tiers": sorted(tier.value for tier in mix.tiers)}
                for model, mix in self.mix.items()
            },
        }
        np.savez_compressed(
            path,
            about=np.array(json.dumps(about)),
            interactive=np.stack(list(self.interactive.values())),
            niw=np.stack([self.niw[pool] for pool in self.interactive]),
        )

    @classmethod
    def read(cls, path: Path) -> "RateTrace":
        """What `write` wrote; its writer is this very study."""
        with np.load(path, allow_pickle=False) as arrays:
            about = json.loads(str(arrays["about"]))
            interactive, niw = arrays["interactive"], arrays["niw"]
        pools = [Pool(*pool) for pool in about["pools"]]
        return cls(
            bin_s=about["bin_s"],
            interactive=dict(zip(pools, interactive, strict=True)),
            niw=dict(zip(pools, niw, strict=True)),
            mix={
                model: LengthMix(**{**mix, "tiers": frozenset(Tier(tier) for tier in mix["tiers"])})
                for model, mix in about["mix"].items()
            },
        )


def fitted_rates(name: str, workload: StudyWorkload, source: Path, seed: int, bin_s: float, study_folder: Path) -> str:
    """The rates of a workload, as `study_trace.made_once`."""

    def make(trace: PublicTrace, path: Path) -> None:
        _rates(trace, source, seed, bin_s).write(path)

    stem, settings = f"{name}-rates-s{seed}", f"{seed} {bin_s}"
    return made_once(name, workload, source, study_folder, stem=stem, settings=settings, suffix=SUFFIX, make=make)


def _rates(trace: PublicTrace, source: Path, seed: int, bin_s: float) -> RateTrace:
    whole = whole_trace(trace, source, seed)
    # A file's own models and tiers are not told apart: the study shares its requests out.
    whole = relabel(whole, model={ANY_OTHER: ANY}, region={ANY_OTHER: ANY}, tier={ANY_OTHER: Tier.IW_F.value})
    if trace.max_model_len is not None:
        whole = clip_lengths(whole, {ANY: trace.max_model_len})
    bins = int(whole.horizon_s / bin_s)
    series = demand_series(whole, bin_s, 0.0, bins * bin_s)
    total = series.interactive[ANY, ANY]
    shares: dict[bool, dict[Pool, float]] = {True: {}, False: {}}
    for (model, region, tier), share in stream_shares(trace).items():
        of_kind, pool = shares[tier.interactive], Pool(model, region)
        of_kind[pool] = of_kind.get(pool, 0.0) + share
    pools = [Pool(model, region) for model in trace.models for region in trace.regions]
    mix = replace(length_mixes(whole)[ANY], tiers=frozenset(trace.tiers))
    return RateTrace(
        bin_s=bin_s,
        interactive={pool: shares[True].get(pool, 0.0) * total for pool in pools},
        niw={pool: shares[False].get(pool, 0.0) * total for pool in pools},
        mix=dict.fromkeys(trace.models, mix),
    )
