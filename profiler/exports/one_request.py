"""The request for which a format is written that knows only one length."""

from dataclasses import dataclass

from profiler.exports.settings import ExportError, ExportSettings
from profiler.exports.step_times import StepTimes

USUAL_PROMPT_TOKENS = 1024
USUAL_OUTPUT_TOKENS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class OneRequest:
    """Lengths in tokens; a decoding sequence has read half of its answer on average."""

    prompt_tokens: int
    output_tokens: int

    @property
    def context_tokens(self) -> int:
        return self.prompt_tokens + self.output_tokens // 2

    def in_words(self) -> str:
        return f"{self.prompt_tokens} prompt and {self.output_tokens} output tokens"


def one_request(times: StepTimes, settings: ExportSettings) -> OneRequest:
    """The lengths that were asked for, else the usual ones as far as the profile covers them.

    Raises ExportError when the lengths asked for are not covered.
    """
    longest_prompt, longest = times.largest_prompt_tokens, times.largest_context_tokens
    output = settings.output_tokens or max(1, min(USUAL_OUTPUT_TOKENS, longest // 4))
    prompt = settings.prompt_tokens or max(1, min(USUAL_PROMPT_TOKENS, longest_prompt, longest - output))
    if prompt > longest_prompt or prompt + output > longest:
        raise ExportError(
            f"profile {times.profile.name}: {prompt} prompt and {output} output tokens; it covers prompts of"
            f" {longest_prompt} and {longest} together: ask for less, or for --extrapolate"
        )
    return OneRequest(prompt_tokens=prompt, output_tokens=output)
