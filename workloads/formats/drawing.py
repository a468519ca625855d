"""What formats that hold rates need from outside to become requests: a seed, and how long requests are."""

import numpy as np
import numpy.typing as npt

from workloads.formats.findings import Findings
from workloads.formats.options import ReadOptions
from workloads.lengths import at_quantiles
from workloads.trace_checks import TraceError

Lengths = npt.NDArray[np.int32]


def required_seed(options: ReadOptions, findings: Findings) -> int:
    """The seed given. Raises TraceError where there is none."""
    if options.seed is None:
        raise TraceError(
            f"{findings.source}: format {findings.format} holds rates; give a seed (--seed) to draw requests"
        )
    return options.seed


def drawn_lengths(
    rng: np.random.Generator, count: int, options: ReadOptions, findings: Findings
) -> tuple[Lengths, Lengths]:
    """Prompt and output tokens of `count` requests, independent. Raises TraceError where a table is missing."""
    if options.prompt_tokens is None or options.output_tokens is None:
        raise TraceError(
            f"{findings.source}: format {findings.format} does not say how long requests are; give quantiles such as "
            "--prompt-tokens 0:1,0.5:928,0.9:3830,1:7999 --output-tokens 0:1,0.5:41,0.9:342,1:1500"
        )
    uniform = rng.random((2, count))
    return at_quantiles(options.prompt_tokens, uniform[0]), at_quantiles(options.output_tokens, uniform[1])
