"""Whether long prompts get long answers."""

from scipy.stats import spearmanr

from workloads.trace import Trace

SAMPLE = 100_000  # requests of a model: enough for two digits
LEAST_REQUESTS = 10


def output_correlations(trace: Trace) -> dict[str, float]:
    """Spearman's rank correlation of prompt and output tokens by model, -1..1; models of one length are left out."""
    model, found = trace.labels("model"), {}
    for name in model.names:
        rows = model.rows(name)
        prompt, output = trace.numbers("prompt_tokens")[rows], trace.numbers("output_tokens")[rows]
        every = max(1, len(prompt) // SAMPLE)
        prompt, output = prompt[::every], output[::every]
        if len(prompt) >= LEAST_REQUESTS and prompt.min() < prompt.max() and output.min() < output.max():
            found[name] = float(spearmanr(prompt, output).statistic)
    return found
