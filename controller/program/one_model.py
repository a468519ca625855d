"""The best plan of one model while all others stand: its pools lie in different regions, so they meet only in the
global row, and choosing what each pool holds is a multiple-choice knapsack (Kellerer, Pferschy, Pisinger, Knapsack
Problems, chapter 11), solved by dynamic programming over the tokens/s beyond what the pools serve at least.
"""

import numpy as np

from controller.program.table import TOLERANCE, Floats, Ints, Table

_MOST_OPTIONS = 2500
_CELLS = 2000
_MARGIN_CELLS = 3
"""Tokens are rounded to the nearest cell; the errors of tens of pools seldom add up to more."""


def best_of_model(table: Table, model: int, counts: Ints, free: Floats, hold: Floats) -> Ints | None:
    """Counts of the model's placements (in their order in the table) that cost least with `hold` per server, or None.

    `free`: GPUs by slot that nobody holds. Every pool may change by a few servers of each GPU type. None: no plan in
    reach satisfies the model's rows.
    """
    inside = np.flatnonzero(table.model == model)
    pools, pool = np.unique(table.pool[inside], return_inverse=True)
    options = [_options(table, inside[pool == own], counts, free, hold) for own in range(len(pools))]
    if any(len(each) == 0 for each, _, _ in options):
        return None
    needed = float(table.everything[model]) * (1 - TOLERANCE)
    chosen = _choose([tokens for _, tokens, _ in options], [cost for _, _, cost in options], needed)
    if chosen is None:
        return None
    best = np.zeros(len(inside), dtype=np.int64)
    for own, option in enumerate(chosen):
        best[pool == own] = options[own][0][option]
    return best


def _options(table: Table, at: Ints, counts: Ints, free: Floats, hold: Floats) -> tuple[Ints, Floats, Floats]:
    """What one pool may hold (option x placement), its tokens/s and cost: only what no other option beats in both,
    in ascending tokens and cost.
    """
    reach = next(r for r in (3, 2, 1, 0) if (2 * r + 1) ** len(at) <= _MOST_OPTIONS or r == 0)
    x = counts[at]
    most = np.minimum(
        table.most[at], x + np.floor((free[table.slot[at]] + TOLERANCE) / table.gpus[at]).astype(np.int64)
    )
    fewest, top = np.maximum(0, x - reach), np.maximum(x, np.minimum(x + reach, most))
    held = fewest + np.indices(tuple(top - fewest + 1)).reshape(len(at), -1).T
    own = table.pool[at[0]]
    tokens = held @ table.theta[at]
    allowed = (tokens >= table.local[own] * (1 - TOLERANCE)) & (held.sum(axis=1) >= table.minimum[own] - TOLERANCE)
    held, tokens = held[allowed], tokens[allowed]
    cost = held @ hold[at] + np.maximum(held - table.standing[at], 0) @ table.start[at]
    order = np.lexsort((-tokens, cost))
    held, tokens, cost = held[order], tokens[order], cost[order]
    best_before = np.concatenate([[-1.0], np.maximum.accumulate(tokens)[:-1]]) if len(tokens) else tokens
    undominated = tokens > best_before
    return held[undominated], tokens[undominated], cost[undominated]


def _choose(tokens: list[Floats], cost: list[Floats], needed: float) -> list[int] | None:
    """One option of each pool with at least `needed` tokens/s in all, at the least cost; None where all fall short."""
    least, most = sum(float(t[0]) for t in tokens), sum(float(t[-1]) for t in tokens)
    if least >= needed:
        return [0] * len(tokens)
    if most < needed:
        return None
    cell = (needed - least) / _CELLS
    for cells in (_CELLS + _MARGIN_CELLS, _CELLS + 10 * _MARGIN_CELLS):
        chosen = _knapsack([np.rint((t - t[0]) / cell).astype(np.int64) for t in tokens], cost, cells)
        if chosen is not None and sum(float(t[o]) for t, o in zip(tokens, chosen, strict=True)) >= needed:
            return chosen
    return [len(t) - 1 for t in tokens]


def _knapsack(weights: list[Ints], costs: list[Floats], cells: int) -> list[int] | None:
    """The cheapest choice, one option of each pool, whose weights add up to `cells` or more; None without one."""
    # least[n]: what the pools from here to the last cost at least when n cells are still needed.
    least = np.concatenate([[0.0], np.full(cells, np.inf)])
    choices = []
    for weight, cost in zip(reversed(weights), reversed(costs), strict=True):
        with_option = np.empty((len(weight), cells + 1))
        for option, w in enumerate(np.minimum(weight, cells).tolist()):
            with_option[option, :w] = least[0]
            with_option[option, w:] = least[: cells + 1 - w]
        with_option += cost[:, None]
        choice = np.argmin(with_option, axis=0)
        least = with_option[choice, np.arange(cells + 1)]
        choices.append(choice)
    if not np.isfinite(least[cells]):
        return None
    chosen, needed = [], cells
    for weight, choice in zip(weights, reversed(choices), strict=True):
        option = int(choice[needed])
        chosen.append(option)
        needed = max(0, needed - int(weight[option]))
    return chosen
