"""The way to an operator over TCP, with an end to what is kept for one who does not read."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

LINGER = 10.0
"""Seconds for what is waiting, when the connection is closed."""


@implementer(IPushProducer)
class TCPLink:
    """A transport that is not read from while much is waiting to be sent.

    So whoever sends commands and does not read their answers is not heard either.

    :param transport: a TCP (or TLS) connection.
    """

    def __init__(self, reactor: Any, transport: Any) -> None:
        self.blocked = False
        self._reactor = reactor
        self._transport = transport
        self._closing: Any = None
        self._over = False
        transport.registerProducer(self, True)

    def write(self, data: bytes) -> None:
        """Send *data*."""
        if not self._over and self._closing is None:
            self._transport.write(data)

    def close(self) -> None:
        """Send what is waiting, then no more."""
        if not self._over and self._closing is None:
            self._closing = self._reactor.callLater(LINGER, self.abort)
            self._transport.unregisterProducer()
            self._transport.loseConnection()

    def abort(self) -> None:
        """Send nothing more."""
        if not self._over:
            self._transport.abortConnection()

    def lost(self) -> None:
        """The connection is gone."""
        self._over = True
        if self._closing is not None and self._closing.active():
            self._closing.cancel()

    def pauseProducing(self) -> None:
        """Much is waiting."""
        self.blocked = True
        self._transport.pauseProducing()

    def resumeProducing(self) -> None:
        """All was sent."""
        if self.blocked:
            self.blocked = False
            self._transport.resumeProducing()

    def stopProducing(self) -> None:
        """The connection is gone, as :meth:`lost` says too."""
