"""Makes what a test on real sockets needs: proxies before one upstream, and clients."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from wireclient import Client, connect

from llmproxyd.providers.registry import registry
from llmproxyd.testing.proxy import ProxyUnderTest
from llmproxyd.testing.upstream import FakeUpstream

reactor: Any = _reactor

Ask = Callable[..., Awaitable[Any]]
"""One request through a proxy of its own: the answer, after a script was played."""


class Bench:
    """Makes proxies and clients, and takes them away."""

    def __init__(self, upstream: FakeUpstream) -> None:
        self._upstream = upstream
        self._proxies: list[ProxyUnderTest] = []
        self._clients: list[Client] = []

    def proxy(self, *, base_url: str | None = None, **settings: Any) -> ProxyUnderTest:
        """A proxy all of whose providers are the one upstream, but for *settings*."""
        url = base_url or self._upstream.url
        upstreams: dict[str, Any] = {name: {"base_url": url} for name in registry()}
        for name, more in settings.pop("upstreams", {}).items():
            upstreams[name] = upstreams.get(name, {}) | more
        made = ProxyUnderTest(reactor, {"upstreams": upstreams, **settings}).start()
        self._proxies.append(made)
        return made

    async def client(self, proxy: ProxyUnderTest) -> Client:
        made = await connect(proxy.port)
        self._clients.append(made)
        return made

    async def close(self) -> None:
        for client in self._clients:
            if client.lost is None:
                client.transport.abortConnection()
        for proxy in self._proxies:
            stopping: Deferred[None] | None = proxy.stop()
            if stopping is not None:
                await stopping
