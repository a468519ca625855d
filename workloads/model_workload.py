"""What is asked of one model: its share, its context, how long its prompts and outputs are; four built-in ones."""

from collections.abc import Mapping
from types import MappingProxyType

from pydantic import Field

from workloads.file_part import FilePart
from workloads.lengths import QuantileTable
from workloads.shapes import Regime

# Shares are relative; beyond this their sums would lose the small ones.
LARGEST_SHARE = 1e9


class ModelWorkload(FilePart):
    """Demand for one model.

    `share` is relative, of tokens or of requests as the workload says; `niw_share` replaces it for the NIW tier, where
    models have another mix. `region_shares` (relative, by region of origin)
    replaces the workload's own for this model; a region it leaves out gets none. `regime` makes its interactive
    level jump.
    """

    share: float = Field(default=1.0, gt=0, le=LARGEST_SHARE)
    niw_share: float | None = Field(default=None, ge=0, le=LARGEST_SHARE)
    max_model_len: int = Field(ge=2)
    prompt_tokens: QuantileTable
    output_tokens: QuantileTable
    region_shares: dict[str, float] | None = None
    regime: Regime | None = None


# Shapes as in SageServe's production week: medians of 3-6 thousand prompt tokens with template steps (equal
# neighbours), outputs of a few hundred, both with a long tail. Contexts are the models' own. Prompts are longer
# than the contexts of the two older models, as in production, which ran longer-context variants: they are clipped.
BUILT_IN_MODELS: Mapping[str, ModelWorkload] = MappingProxyType(
    {
        "llama-2-70b": ModelWorkload(
            share=0.26,
            max_model_len=4096,
            prompt_tokens=(
                (0.0, 200), (0.1, 3400), (0.25, 5000), (0.45, 5400), (0.55, 5400),
                (0.74, 8900), (0.9, 9000), (0.98, 11500), (1.0, 16000),
            ),
            output_tokens=((0.0, 4), (0.25, 25), (0.5, 90), (0.75, 240), (0.9, 520), (0.99, 1400), (1.0, 2000)),
        ),
        "bloom-176b": ModelWorkload(
            share=0.24,
            max_model_len=2048,
            prompt_tokens=(
                (0.0, 60), (0.1, 430), (0.25, 540), (0.48, 3400), (0.55, 3400),
                (0.75, 6900), (0.9, 9800), (0.98, 11400), (1.0, 15000),
            ),
            output_tokens=((0.0, 8), (0.25, 70), (0.5, 105), (0.75, 190), (0.9, 400), (0.99, 1100), (1.0, 1600)),
        ),
        "llama-3.1-8b": ModelWorkload(
            share=0.22,
            max_model_len=131072,
            prompt_tokens=(
                (0.0, 100), (0.1, 950), (0.25, 1450), (0.45, 3500), (0.55, 3700),
                (0.75, 5800), (0.9, 10500), (0.98, 26000), (1.0, 60000),
            ),
            output_tokens=((0.0, 6), (0.25, 50), (0.5, 115), (0.75, 310), (0.9, 660), (0.99, 1700), (1.0, 2000)),
        ),
        "llama-3.2-3b": ModelWorkload(
            share=0.28,
            max_model_len=131072,
            prompt_tokens=(
                (0.0, 100), (0.1, 1250), (0.25, 2200), (0.45, 4300), (0.55, 4500),
                (0.75, 8000), (0.9, 15500), (0.98, 34000), (1.0, 80000),
            ),
            output_tokens=((0.0, 6), (0.25, 60), (0.5, 138), (0.75, 340), (0.9, 800), (0.99, 1900), (1.0, 2000)),
        ),
    }
)  # fmt: skip
