"""A request's body as something that can be looked at, or sent on."""

from __future__ import annotations

from typing import Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.web.iweb import IBodyProducer


class Kept(Protocol):
    """A whole body at hand, to be sent as often as it takes.

    :ivar length: bytes.
    """

    @property
    def length(self) -> int: ...

    def read(self, limit: int) -> bytes:
        """Its first *limit* bytes."""
        ...

    def producer(self) -> IBodyProducer | None:
        """What writes it to an upstream, a new one for each attempt; ``None`` for an empty one."""
        ...


class BodySource(Protocol):
    """The body of one request.

    :param length: bytes, ``None`` when it is not known before the end.
    """

    @property
    def length(self) -> int | None: ...

    def excerpt(self, whole: int, end: int) -> Deferred[bytes]:
        """The body if it has at most *whole* bytes, else its first and last *end* bytes."""
        ...

    def at_hand(self) -> Kept | None:
        """All of it, if it is at hand already; it can be sent more than once then."""
        ...

    def keep(self) -> Deferred[Kept]:
        """Fires with all of it once it is at hand."""
        ...

    def producer(self) -> IBodyProducer | None:
        """What writes it to an upstream, once; ``None`` for an empty one."""
        ...


class _NoBody:
    """Of a request that has none, or none that anybody will read."""

    length = 0

    def excerpt(self, whole: int, end: int) -> Deferred[bytes]:
        """Nothing."""
        return succeed(b"")

    def read(self, limit: int) -> bytes:
        """Nothing."""
        return b""

    def at_hand(self) -> Kept:
        """It is."""
        return self

    def keep(self) -> Deferred[Kept]:
        """It is at hand."""
        return succeed(self)

    def producer(self) -> None:
        """Nothing is sent."""
        return


NO_BODY = _NoBody()
