"""The gate before the commit: an answer is held until it is known whether it is one.

A stream is held until its first content, a failed answer and a short one in one piece until
they are whole; all of them for so many bytes and so long at most.  What is held is inflated
and read on the side and handed on as it came.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

from twisted.internet.interfaces import IProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from llmproxyd.errors import Retryable
from llmproxyd.http.headers import first
from llmproxyd.inspection.content import CONTENT, Sign, StreamWatch, Trouble
from llmproxyd.inspection.inflate import inflater
from llmproxyd.model import Body, Response
from llmproxyd.pipeline import refusals
from llmproxyd.resilience.policy import Hold
from llmproxyd.wire.agent import abort
from llmproxyd.wire.response import DONE, WireResponse
from llmproxyd.wire.wheel import Timer, Wheel

TEXT = 64 * 1024
"""Bytes of an answer that are read as text at most."""


class Why(Enum):
    """Why the gate has opened."""

    CONTENT = "content"
    """A stream has said something."""
    TROUBLE = "trouble"
    """A stream has told of an error."""
    FULL = "full"
    """As much is held as may be."""
    LATE = "late"
    """It was held as long as may be."""
    WHOLE = "whole"
    """All of it has come."""
    BROKEN = "broken"
    """The rest will not come."""


@implementer(IProtocol)
class Gate:
    """Holds one answer, and then lets it through or throws it away.

    :param watch: reads along, where the answer is a stream.
    :param idle: seconds without a piece after which the upstream is given up; ``None`` for as long as
        it may be held.
    :param opened: called once, when there is nothing more to wait for.
    :ivar why: what there is to decide upon.
    :ivar trouble: the error that a stream told of.
    :ivar reason: how the body ended, ``None`` as long as it has not.
    :ivar error: why the upstream was given up.
    """

    __slots__ = (
        "_hold",
        "_idle",
        "_moved",
        "_opened",
        "_pieces",
        "_receiver",
        "_timer",
        "_until",
        "_wheel",
        "error",
        "head",
        "incoming",
        "reason",
        "size",
        "transport",
        "trouble",
        "watch",
        "why",
    )

    def __init__(
        self,
        incoming: WireResponse,
        head: Response,
        watch: StreamWatch | None,
        hold: Hold,
        wheel: Wheel,
        opened: Callable[[Gate], None],
        idle: float | None = None,
    ) -> None:
        self.incoming = incoming
        self.head = head
        self.watch = watch
        self.why: Why | None = None
        self.trouble: Trouble | None = None
        self.reason: Failure | None = None
        self.size = 0
        self.transport: WireResponse | None = None
        self.error: Retryable | None = None
        self._hold = hold
        self._idle = hold.time if idle is None else idle
        self._until = self._moved = 0.0
        self._wheel = wheel
        self._opened: Callable[[Gate], None] | None = opened
        self._pieces: list[bytes] = []
        self._receiver: Any = None
        self._timer: Timer | None = None

    @property
    def text(self) -> str:
        """What is held, inflated, as far as it can be read."""
        coding = first(self.head.headers, b"content-encoding") or b""
        reader = inflater(coding, TEXT)
        return "" if reader is None else reader.feed(self.held()).decode("utf-8", "replace")

    def held(self) -> bytes:
        """What is held, as it came."""
        data = b"".join(self._pieces)
        self._pieces = [data]
        return data

    def excerpt(self) -> Body:
        """The same for a record."""
        data = self.held()
        return Body(data=data[:TEXT], cut=self.reason is not DONE or len(data) > TEXT, length=len(data))

    # From the upstream.

    def makeConnection(self, transport: Any) -> None:
        """The body begins to flow."""
        self.transport = transport
        if not transport.complete:
            self._moved = self._wheel.seconds()
            self._until = self._moved + self._hold.time
            self._timer = self._wheel.start(min(self._hold.time, self._idle), self._late)

    def connectionMade(self) -> None:
        """See :meth:`makeConnection`."""

    def dataReceived(self, data: bytes) -> None:
        """A piece of the body."""
        if self._receiver is not None:
            self._receiver.dataReceived(data)
            return
        if self.why is not None:
            return
        self._pieces.append(data)
        self.size += len(data)
        self._moved = self._wheel.seconds()
        if self.watch is not None:
            self._read(self.watch.feed(data), blind=self.watch.blind)
        if self.why is None and self.size >= self._hold.bytes:
            self._open(Why.FULL)

    def connectionLost(self, reason: Failure) -> None:
        """The body is over, or broke off."""
        self.reason = reason
        if self._receiver is not None:
            receiver, self._receiver = self._receiver, None
            receiver.connectionLost(reason)
            return
        if self.watch is not None and self.why is None:
            sign = self.watch.end()
            # Half an event may tell of an error, but nobody has read content in it.
            if reason is DONE or sign is not CONTENT:
                self._read(sign, blind=False)
        self._open(Why.WHOLE if reason is DONE else Why.BROKEN)

    def _read(self, sign: Sign | None, *, blind: bool) -> None:
        if sign is CONTENT:
            self._open(Why.CONTENT)
        elif isinstance(sign, Trouble):
            self.trouble = sign
            self._open(Why.TROUBLE)
        elif blind:
            self._open(Why.FULL)

    # What becomes of it.

    def pass_on(self, receiver: Any) -> None:
        """Give what was held, and all that follows, to *receiver*: a protocol that reads a body."""
        self.incoming.forget_fields()
        receiver.makeConnection(self.incoming)
        held = self.held()
        self._pieces = []
        if held:
            receiver.dataReceived(held)
        if self.reason is not None:
            receiver.connectionLost(self.reason)
        else:
            self._receiver = receiver

    def throw_away(self) -> None:
        """Nobody will read it."""
        self._stop()
        self._opened = None
        if self.why is None:
            self.why = Why.BROKEN
        if self.reason is None:
            abort(self.incoming)

    def _late(self) -> None:
        """It was held as long as may be, or nothing has come for too long."""
        self._timer = None
        now = self._wheel.seconds()
        silent = self._moved + self._idle
        if now >= self._until:
            self._open(Why.LATE)
        elif now >= silent:
            self.error = refusals.idle_timeout(self._idle)
            abort(self.incoming)
            self._open(Why.BROKEN)
        else:
            self._timer = self._wheel.start(min(silent, self._until) - now, self._late)

    def _open(self, why: Why) -> None:
        self._stop()
        opened, self._opened = self._opened, None
        if opened is not None:
            self.why = why
            opened(self)

    def _stop(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
