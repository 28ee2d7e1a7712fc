"""Several keys of one upstream: which one is used, and which are at rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llmproxyd.redaction import Secret

LIMITED = 30.0
"""Seconds of rest after a 429 that names no time: limits are counted by the minute, and half of
one frees a good part of them."""

REFUSED = 600.0
"""Seconds of rest for a key that is not accepted, or not paid for.  It does not heal by itself, so
asking sooner only spends an attempt; but people replace keys and top up accounts, and a provider's
fault at authentication goes by, so it is not given up for good."""

LONGEST = 86400.0
"""Seconds of any rest: nobody is believed for longer than a day."""

_REFUSALS = frozenset({401, 402, 403})


@dataclass(frozen=True, slots=True)
class Taken:
    """A key, and its place on the list."""

    index: int
    key: Secret


class Ring:
    """The keys of one upstream, and until when each is at rest.

    One key is used until it is put to rest: providers keep their prompt caches by account, and a
    cold cache costs more than an even load gains.  Then the next one on the list that is awake
    takes over, and stays when the first has woken.

    :param keys: at least one; times are monotonic seconds.
    :raises ValueError: there is none.
    """

    __slots__ = ("_current", "_keys", "_until")

    def __init__(self, keys: Sequence[Secret]) -> None:
        if not keys:
            raise ValueError("a ring of no keys")
        self._keys = tuple(keys)
        self._until = [float("-inf")] * len(keys)
        self._current = 0

    def take(self, now: float) -> Taken | None:
        """The key to use, ``None`` while all are at rest."""
        count = len(self._keys)
        for step in range(count):
            index = (self._current + step) % count
            if self._until[index] <= now:
                self._current = index
                return Taken(index, self._keys[index])
        return None

    def rest(self, index: int, seconds: float, now: float) -> None:
        """Do not use the key at *index* for *seconds*; a longer rest that it has is kept."""
        if seconds > 0:
            self._until[index] = max(self._until[index], now + min(seconds, LONGEST))

    def soonest(self, now: float) -> float:
        """Seconds until a key is awake, 0 if one is."""
        return max(0.0, min(self._until) - now)

    def awake(self, now: float) -> int:
        """How many keys are not at rest."""
        return sum(until <= now for until in self._until)

    def state(self, now: float) -> Mapping[str, object]:
        """For people: how many keys there are and are awake, the place of the one in use (from 1),
        and the seconds of rest that each has left.
        """
        return {
            "keys": len(self._keys),
            "awake": self.awake(now),
            "current": self._current + 1,
            "rests": [max(0.0, until - now) for until in self._until],
        }


def rest_for(status: int | None, asked: float | None) -> float | None:
    """Seconds of rest for the key that got *status*, ``None`` where it is not the key's fault.

    :param asked: seconds that the upstream asked for, ``None`` or 0 if it named no time.
    """
    if status == 429:
        rest = asked or LIMITED
    elif status in _REFUSALS:
        rest = asked or REFUSED
    else:
        return None
    return min(rest, LONGEST)
