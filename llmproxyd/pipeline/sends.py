"""What attempts are made through: the network, or whatever stands before it or in its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.web.iweb import IBodyProducer

from llmproxyd.model import Response
from llmproxyd.pipeline.upstream import Outgoing
from llmproxyd.wire.response import WireResponse


class Sends(Protocol):
    """Sends requests to upstreams."""

    def send(
        self,
        going: Outgoing,
        body: IBodyProducer | None,
        interim: Callable[[Response], None] | None = None,
    ) -> Deferred[WireResponse]:
        """See :meth:`llmproxyd.pipeline.upstream.Sender.send`."""
        ...


def target_of(going: Outgoing) -> str:
    """Raw path and query of *going*, less what belongs to its upstream's base URL."""
    upstream = going.upstream
    base = upstream.base if going.url.startswith(upstream.base + b"/") else upstream.origin
    return going.url.removeprefix(base).decode("latin-1")
