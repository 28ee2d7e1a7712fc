"""What a rate limiter does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from twisted.internet.defer import Deferred


@dataclass(frozen=True, slots=True)
class Want:
    """What one request asks of one bucket.

    :param key: of the bucket: ``token:tok_…:requests``.  The wants of one request differ in it.
    :param per_minute: what flows in, and what it holds at most; 1 at least.
    :param amount: taken at once; 0 only asks that something is left (model tokens, whose number is
        known when the answer ends).
    """

    key: str
    per_minute: int
    amount: int = 1


class Standing(NamedTuple):
    """How a bucket stands.  A tuple, as is :class:`Taken`: two of each are made for every request.

    :param remaining: whole units left, 0 at least.
    :param reset: seconds until it is full again.
    """

    want: Want
    remaining: int
    reset: float


class Taken(NamedTuple):
    """What came of asking.

    :param wait: seconds until all buckets would have admitted it; 0 where they did.
    :param standings: of each want, in order, after taking.
    """

    wait: float
    standings: tuple[Standing, ...]

    @property
    def admitted(self) -> bool:
        """Whether it was taken; if not, nothing was taken of any bucket."""
        return self.wait <= 0


class Limiter(Protocol):
    """Token buckets by key.  All wants of one request are taken together, or none."""

    def take(self, wants: Sequence[Want]) -> Taken | Deferred[Taken]:
        """Take *wants*, at once where nothing need be waited for.  Never fails.

        Where all hosts share the buckets, the answer comes after one round trip.
        """
        ...

    def spend(self, wants: Sequence[Want]) -> None:
        """Take the amounts in any case, below nothing if need be: by one minute's inflow at most."""
        ...

    def state(self) -> dict[str, object]:
        """``backend``, ``buckets`` and, where it depends on a server, whether that answers."""
        ...

    def close(self) -> Deferred[None] | None:
        """No more is asked."""
        ...
