"""The admin listener: a stock site of twisted.web with bounds, for any endpoint."""

from __future__ import annotations

import os
from collections.abc import Callable
from io import BytesIO
from typing import Any

from twisted.internet.interfaces import IAddress
from twisted.web import server
from twisted.web.resource import Resource

from llmproxyd.admin.body import MAX_BODY
from llmproxyd.admin.gate import Admit, Gate
from llmproxyd.admin.operations import Operations
from llmproxyd.admin.resource import AdminResource
from llmproxyd.model import Denied
from llmproxyd.redaction import Secret

CONNECTIONS = 64
"""Open at once; further ones are closed."""
IDLE = 60.0
"""Seconds in which nothing comes from a client."""
PATIENCE = 1024 * 1024
"""Bytes of a body that is too long which are read still, so that the client reads the answer."""


def make_admin(
    operations: Operations,
    *,
    reactor: Any,
    token: Secret | None = None,
    admit: Admit | None = None,
    denied: Callable[[Denied], None] = lambda event: None,
    uid: int | None = None,
) -> AdminSite:
    """The site of the admin API, for any endpoint.

    :param token: ``admin.token``; not asked of the daemon's own user over a Unix socket.
    :param admit: the grant of a project's token, where access is on.
    :param denied: told of refused callers.
    :param uid: the user who is let in over a Unix socket beside root; by default this process's.
    """
    owner = os.geteuid() if uid is None else uid
    gate = Gate(
        token=token, admit=admit, uids={owner, 0}, owner=owner, monotonic=reactor.seconds, denied=denied
    )
    return AdminSite(AdminResource(operations, gate), reactor)


class AdminRequest(server.Request):
    """A request whose body is bounded.

    :ivar too_long: the body is longer than is taken; what of it was there is gone.
    """

    too_long = False

    def gotLength(self, length: int | None) -> None:
        """The head is complete; a body of *length* follows (``None``: in chunks)."""
        self._taken = 0
        self.too_long = length is not None and length > MAX_BODY
        self.content: BytesIO = BytesIO()

    def handleContentChunk(self, data: bytes) -> None:
        """A part of the body."""
        self._taken += len(data)
        if self._taken > MAX_BODY:
            self.too_long = True
            self.content.seek(0)
            self.content.truncate()
            if self._taken > PATIENCE:
                transport: Any = self.channel.transport
                transport.abortConnection()
        else:
            self.content.write(data)


class AdminSite(server.Site):
    """The site: bounded connections, no access log, no traces for clients."""

    noisy = False
    displayTracebacks = False
    requestFactory = AdminRequest

    def __init__(self, resource: Resource, reactor: Any) -> None:
        super().__init__(
            resource,
            requestFactory=AdminRequest,
            timeout=IDLE,
            reactor=reactor,
            parsePOSTFormSubmission=False,
        )
        self._open = 0

    def startFactory(self) -> None:
        """A port was opened.  There is no access log here, so none is opened."""

    def stopFactory(self) -> None:
        """The last port was closed."""

    def log(self, request: object) -> None:
        """Nothing: what changes is in the audit log."""

    def acceptableProtocols(self) -> list[bytes]:
        """HTTP/1.1 alone, over TLS too."""
        return [b"http/1.1"]

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """A connection, unless there are too many."""
        if self._open >= CONNECTIONS:
            return None
        protocol: Any = super().buildProtocol(addr)
        self._open += 1
        lost = protocol.connectionLost

        def gone(reason: Any) -> None:
            self._open -= 1
            protocol.connectionLost = lost
            lost(reason)

        protocol.connectionLost = gone
        return protocol
