"""Makes agents, and receives what they get."""

from __future__ import annotations

from typing import Any

from bench import reactor
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import BrowserLikePolicyForHTTPS, ResponseDone
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer
from wireclient import until
from zope.interface import implementer

from llmproxyd.wire.agent import ProxyAgent, WireHeaders, WireResponse
from llmproxyd.wire.wheel import Wheel


class Bytes:
    """A whole body at hand."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.length: Any = len(data)


@implementer(IBodyProducer)
class Pieces:
    """A body that comes when the test says so."""

    def __init__(self, length: Any = UNKNOWN_LENGTH) -> None:
        self.length = length
        self.consumer: Any = None
        self.done: Deferred[None] = Deferred()
        self.paused = 0
        self.stopped = 0

    def startProducing(self, consumer: Any) -> Deferred[None]:
        self.consumer = consumer
        return self.done

    def pauseProducing(self) -> None:
        self.paused += 1

    def resumeProducing(self) -> None:
        self.paused -= 1

    def stopProducing(self) -> None:
        self.stopped += 1


class Body(Protocol):
    """What was received of one body."""

    def __init__(self, response: WireResponse) -> None:
        self.response = response
        self.pieces: list[bytes] = []
        self.complete: list[bool] = []
        self.lost: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        self.pieces.append(data)
        self.complete.append(self.response.complete)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        assert self.lost is None
        self.lost = reason

    @property
    def data(self) -> bytes:
        return b"".join(self.pieces)

    @property
    def whole(self) -> bool:
        return self.lost is not None and bool(self.lost.check(ResponseDone))

    async def end(self) -> Body:
        await until(lambda: self.lost is not None, "the end of the body")
        return self


class Agents:
    """Makes agents and takes them away."""

    def __init__(self) -> None:
        self.wheel = Wheel(reactor, 0.01)
        self.deaf_port = 0
        self._made: list[ProxyAgent] = []

    def agent(self, tls: Any = None, **settings: Any) -> ProxyAgent:
        settings = {"connect_timeout": 5.0, **settings}
        made = ProxyAgent(reactor, tls or BrowserLikePolicyForHTTPS(), wheel=self.wheel, **settings)
        self._made.append(made)
        return made

    async def close(self) -> None:
        await DeferredList([agent.close() for agent in self._made])
        self.wheel.stop()


def start(
    agent: ProxyAgent,
    url: str,
    *fields: tuple[bytes, bytes],
    method: bytes = b"GET",
    target: bytes = b"/",
    body: Any = None,
    **more: Any,
) -> Deferred[Any]:
    """Send a request of exactly these fields."""
    return agent.request(method, url.encode() + target, WireHeaders(fields), body, **more)


async def fetch(agent: ProxyAgent, url: str, *fields: tuple[bytes, bytes], **settings: Any) -> Body:
    """Send a request; its answer, whole or broken off."""
    response = await start(agent, url, *fields, **settings)
    body = Body(response)
    response.deliverBody(body)
    return await body.end()
