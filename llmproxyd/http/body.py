"""A request's body as something that can be looked at, or sent on."""

from __future__ import annotations

from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.web.iweb import IBodyProducer


class BodySource(Protocol):
    """The body of one request.

    :param length: bytes, ``None`` when it is not known before the end.
    """

    @property
    def length(self) -> int | None: ...

    def excerpt(self, whole: int, end: int) -> Deferred[bytes]:
        """The body if it has at most *whole* bytes, else its first and last *end* bytes."""
        ...

    def producer(self) -> IBodyProducer | None:
        """What writes it to an upstream; ``None`` for an empty one."""
        ...
