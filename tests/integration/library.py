"""Sites with a proxy in them, and clients."""

from __future__ import annotations

import io
from typing import Any

from bench import reactor
from twisted.web.resource import IResource, Resource
from twisted.web.server import Site
from wireclient import Client, connect

from llmproxyd.library.resource import ProxyResource, configured
from llmproxyd.model import Finished
from llmproxyd.providers.registry import registry
from llmproxyd.testing.proxy import RecordingSink
from llmproxyd.testing.upstream import FakeUpstream
from llmproxyd.wire.site import WireSite


class Workshop:
    """Makes proxies, sites and clients, and takes them away."""

    def __init__(self, upstream: FakeUpstream) -> None:
        self._upstream = upstream
        self._proxies: list[ProxyResource] = []
        self._clients: list[Client] = []
        self._ports: list[Any] = []
        self._sites: list[Site] = []
        self._access = io.StringIO()
        self.sink = RecordingSink()

    @property
    def finished(self) -> list[Finished]:
        """How each request ended."""
        return self.sink.finished

    @property
    def access_log(self) -> str:
        return self._access.getvalue()

    def proxy(self, parts: dict[str, Any] | None = None, **settings: Any) -> ProxyResource:
        """A proxy all of whose providers are the one upstream, but for *settings*."""
        upstreams: dict[str, Any] = {name: {"base_url": self._upstream.url} for name in registry()}
        for name, more in settings.pop("upstreams", {}).items():
            upstreams[name] = upstreams.get(name, {}) | more
        config = configured({"upstreams": upstreams, **settings}, environ={"STATE_DIRECTORY": "/nonexistent"})
        made = ProxyResource(config, reactor, **(parts or {}))
        made._works.sink.subscribe(self.sink)
        self._proxies.append(made)
        return made

    async def serve(
        self,
        parts: dict[str, Any] | None = None,
        *,
        site: str = "stock",
        place: bytes = b"",
        start: bool = True,
        access_log: bool = False,
        **settings: Any,
    ) -> ProxyResource:
        """A proxy at *place* of a site of its own, listening."""
        proxy = self.proxy(parts, **settings)
        if start:
            await proxy.start()
        root: IResource = proxy
        for name in reversed(place.split(b"/")[1:]):
            parent = Resource()
            parent.putChild(name, root)
            root = parent
        self.listen(proxy, root, site=site, access_log=access_log)
        return proxy

    def listen(
        self, proxy: ProxyResource, root: IResource, *, site: str = "stock", access_log: bool = False
    ) -> int:
        """Open a port for a site with this tree; its number."""
        if site == "stock":
            made = Site(root)
            # Without a log file of its own it would write to the global log.
            made.startFactory = lambda: None  # type: ignore[method-assign]
            made.stopFactory = lambda: None  # type: ignore[method-assign]
            if access_log:
                made.logFile = self._access
                made._logDateTime = "[now]"
        else:
            made = proxy.site(None if root is proxy else root)
        port = reactor.listenTCP(0, made, interface="127.0.0.1")
        self._ports.append(port)
        self._sites.append(made)
        proxy.test_port = port.getHost().port  # type: ignore[attr-defined]
        return int(port.getHost().port)

    async def client(self, proxy: ProxyResource) -> Client:
        return await self.connect(proxy.test_port)  # type: ignore[attr-defined]

    async def connect(self, port: int) -> Client:
        made = await connect(port)
        self._clients.append(made)
        return made

    async def close(self) -> None:
        for client in self._clients:
            if client.lost is None:
                client.transport.abortConnection()
        for port in self._ports:
            await port.stopListening()
        for site in self._sites:
            if isinstance(site, WireSite):
                site.close_idle()
        for proxy in self._proxies:
            await proxy.stop(0)
