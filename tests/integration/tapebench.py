"""Proxies that record what the one upstream does, and proxies that replay it with nobody behind them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from bench import Bench
from wireclient import Answer, until

from llmproxyd.cassettes.folder import load
from llmproxyd.cassettes.format import Exchange
from llmproxyd.testing.proxy import ProxyUnderTest

NOWHERE = "http://127.0.0.1:9"
"""Whoever sends there in vain has asked the network."""


class Deck:
    """Recording and replay in one folder.

    :ivar folder: where the recordings are.
    """

    def __init__(self, bench: Bench, folder: Path) -> None:
        self._bench = bench
        self.folder = folder

    async def recorder(self, **settings: Any) -> ProxyUnderTest:
        record = {"folder": str(self.folder), **settings.pop("record", {})}
        proxy = self._bench.proxy(record=record, **settings)
        await proxy.open()
        return proxy

    async def player(self, **settings: Any) -> ProxyUnderTest:
        replay = {"folder": str(self.folder), "speed": 0, **settings.pop("replay", {})}
        settings = {"base_url": NOWHERE, **settings}
        proxy = self._bench.proxy(replay=replay, **settings)
        await proxy.open()
        return proxy

    async def ask(self, proxy: ProxyUnderTest, *requests: bytes) -> list[Answer]:
        client = await self._bench.client(proxy)
        return [await client.ask(one) for one in requests]

    def recordings(self) -> list[Exchange]:
        return [one.exchange for one in load(self.folder)]


def state(proxy: ProxyUnderTest) -> dict[str, Any]:
    """What ``/health/detailed`` tells."""
    found: Any = proxy.daemon.works.deck.state()
    return found["recording"] if "recording" in found else found["replaying"]


async def recorded(proxy: ProxyUnderTest, count: int) -> None:
    """Wait until so many are written, and nothing more is on its way."""
    await until(
        lambda: (state(proxy)["recorded"], state(proxy)["waiting"]) == (count, 0), f"{count} recordings"
    )


Ask = Callable[..., Awaitable[list[Answer]]]
