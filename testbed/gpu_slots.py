"""Which GPUs of a region are taken: whole ones, and shares of one."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

# Shares like 1/3 add up to a hair more or less than they should.
_EPSILON = 1e-9


class GpuSlots:
    """GPUs that a region owns, by index; it may own a share of a GPU that it has in common with another region.

    Pure bookkeeping. Several shares live on one GPU; a whole GPU is exclusive. A server that sleeps takes no GPU, but
    is bound to those it had: only there can it wake, so others are put elsewhere while they can be.
    Raises ValueError for an owned share outside of 0 (exclusive) to 1.
    """

    def __init__(self, owned: Iterable[int] | Mapping[int, float]) -> None:
        shares = dict(owned) if isinstance(owned, Mapping) else dict.fromkeys(owned, 1.0)
        for index, share in shares.items():
            if index < 0 or not 0 < share <= 1 + _EPSILON:
                raise ValueError(
                    f"GPU {index} with a share of {share}; wanted an index from 0 on, a share above 0 up to 1"
                )
        self._owned = shares
        self._used = dict.fromkeys(shares, 0.0)
        self._sleepers: Counter[int] = Counter()

    @property
    def owned_gpus(self) -> float:
        return math.fsum(self._owned.values())

    @property
    def used_gpus(self) -> float:
        return math.fsum(self._used.values())

    @property
    def free_gpus(self) -> float:
        """GPUs not taken; they may be too scattered for one large server."""
        return self.owned_gpus - self.used_gpus

    def take(self, gpus: float) -> tuple[int, ...] | None:
        """Indices for a server of `gpus` GPUs: a fraction below 1 on one GPU, or so many whole ones; None when full.

        GPUs of the fewest sleepers come first; of these, a share goes where it fits most tightly, so that whole GPUs
        stay whole.
        Raises ValueError for `gpus` that is neither a fraction between 0 and 1 nor a whole number.
        """
        chosen: tuple[int, ...]
        if _is_share(gpus):
            fitting = [i for i in self._owned if self._room(i) >= gpus - _EPSILON]
            if not fitting:
                return None
            chosen = (min(fitting, key=lambda i: (self._sleepers[i], self._room(i), i)),)
        else:
            empty = [i for i in self._owned if self._room(i) >= 1 - _EPSILON]
            if len(empty) < round(gpus):
                return None
            chosen = tuple(sorted(sorted(empty, key=lambda i: (self._sleepers[i], i))[: round(gpus)]))
        self._occupy(chosen, gpus)
        return chosen

    def give_back(self, indices: tuple[int, ...], gpus: float) -> None:
        """Undo `take(gpus)`, which gave `indices`. Raises ValueError for what was not taken."""
        share = _is_share(gpus)
        amount = gpus if share else 1.0
        if len(set(indices)) != (1 if share else round(gpus)) or any(
            self._used.get(i, 0.0) < amount - _EPSILON for i in indices
        ):
            raise ValueError(f"GPUs {indices} were not taken for {gpus:g} GPUs; give back what take() gave, once")
        for index in indices:
            left = self._used[index] - amount
            self._used[index] = left if left > _EPSILON else 0.0

    def lay_down(self, indices: tuple[int, ...], gpus: float) -> None:
        """A server falls asleep: `give_back`, and remember where it lies."""
        self.give_back(indices, gpus)
        self._sleepers.update(indices)

    def can_wake(self, indices: tuple[int, ...], gpus: float) -> bool:
        """Whether a sleeper finds its GPUs free."""
        needed = gpus if _is_share(gpus) else 1.0
        return all(self._room(index) >= needed - _EPSILON for index in indices)

    def wake(self, indices: tuple[int, ...], gpus: float) -> bool:
        """Undo `lay_down` and take the same GPUs again; False, and nothing is done, where they are not free."""
        if not self.can_wake(indices, gpus):
            return False
        self.forget(indices)
        self._occupy(indices, gpus)
        return True

    def forget(self, indices: tuple[int, ...]) -> None:
        """A sleeper is no more. Raises ValueError where none lies."""
        if any(self._sleepers[index] < 1 for index in indices):
            raise ValueError(f"nobody sleeps on GPUs {indices}; forget or wake what lay down, once")
        self._sleepers.subtract(indices)

    def _occupy(self, indices: tuple[int, ...], gpus: float) -> None:
        amount = gpus if _is_share(gpus) else 1.0
        for index in indices:
            self._used[index] += amount

    def _room(self, index: int) -> float:
        return self._owned[index] - self._used[index]


def _is_share(gpus: float) -> bool:
    if not gpus > 0 or (gpus > 1 and gpus != round(gpus)):
        raise ValueError(f"a server of {gpus} GPUs: wanted a fraction between 0 and 1, or a whole number")
    return gpus < 1


def deal_gpus(wanted: Sequence[float], indices: Sequence[int]) -> list[dict[int, float]]:
    """Deal a machine's GPUs to regions in order: what each owns, as `GpuSlots` takes it.

    A region's whole GPUs are whole; fractions are put together on as few GPUs as in-order filling allows.
    Raises ValueError when the GPUs do not suffice.
    """
    room = dict.fromkeys(indices, 1.0)
    dealt: list[dict[int, float]] = []
    for gpus in wanted:
        whole = math.floor(gpus + _EPSILON)
        share = gpus - whole
        empty = [i for i in room if room[i] >= 1 - _EPSILON]
        owned = dict.fromkeys(empty[:whole], 1.0)
        room.update(dict.fromkeys(owned, 0.0))
        if share > _EPSILON:
            shared = next((i for i in room if room[i] >= share - _EPSILON), None)
            if shared is not None:
                owned[shared] = share
                room[shared] -= share
        if abs(math.fsum(owned.values()) - gpus) > _EPSILON:
            raise ValueError(
                f"the regions want {math.fsum(wanted):g} GPUs ({', '.join(f'{g:g}' for g in wanted)}), "
                f"the machine has {len(indices)}; ask for fewer"
            )
        dealt.append(owned)
    return dealt
