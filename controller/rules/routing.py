"""Where a request goes: the first region with room, then the shortest queue. On the path of every request."""

from collections.abc import Callable, Sequence


def choose_region(preferred: Sequence[str], utilisation: Callable[[str], float], threshold: float = 0.70) -> str:
    """The first preferred region whose effective utilisation is below `threshold`; if none is, the least utilised, the
    more preferred one on ties (SageServe, arXiv 2502.14617).

    `utilisation` gives a region's effective KV utilisation for the request's model, `math.inf` where the model
    cannot be served now; it is asked for no more regions than needed. Raises ValueError for an empty preference.
    """
    least, best = "", None
    for region in preferred:
        used = utilisation(region)
        if used < threshold:
            return region
        if best is None or used < best:
            least, best = region, used
    if best is None:
        raise ValueError("a request needs at least one region to go to; its preference is empty")
    return least


def choose_server(outstanding_tokens: Sequence[int]) -> int:
    """Join the shortest queue: the index of the fewest remaining tokens, the lowest index on ties.

    Raises ValueError when there is no server to choose from.
    """
    return outstanding_tokens.index(min(outstanding_tokens))
