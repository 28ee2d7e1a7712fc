"""An upstream, the proxy before it, clients; and proof that each test leaves nothing behind."""

from __future__ import annotations

import gc
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted
from bench import Ask, Bench, reactor
from twisted.internet.defer import ensureDeferred
from twisted.logger import LogEvent, LogLevel, globalLogPublisher
from wireclient import pause

from llmproxyd.testing.upstream import Action, FakeUpstream

SETTLE = 1.0
"""Seconds for closed connections to be gone."""


def _alive() -> set[object]:
    """What the reactor still holds: sockets and delayed calls."""
    return {*reactor.getReaders(), *reactor.getWriters(), *reactor.getDelayedCalls()}


async def _left(before: set[object]) -> set[object]:
    for _ in range(int(SETTLE / 0.005)):
        left = {one for one in _alive() - before if not type(one).__name__.endswith("Waker")}
        if not left:
            break
        await pause(0.005)
    return left


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    """Fail a test that leaves an unhandled failure, a logged error, a socket or a timer."""
    critical: list[str] = []

    def observe(event: LogEvent) -> None:
        if event.get("log_level") is LogLevel.critical:
            failure = event.get("log_failure")
            critical.append(f"{event.get('log_format')} {failure.getTraceback() if failure else ''}")

    before = _alive()
    globalLogPublisher.addObserver(observe)
    try:
        yield
        left = pytest_twisted.blockon(ensureDeferred(_left(before)))
        gc.collect()
        # What lives on is not looked at again after each of a thousand tests.
        gc.freeze()
    finally:
        globalLogPublisher.removeObserver(observe)
    assert not critical, "\n".join(critical)
    assert not left, f"left behind: {left}"


@pytest.fixture
def upstream(_nothing_left: None) -> Iterator[FakeUpstream]:
    """An upstream that waits for its scripts."""
    made = FakeUpstream([]).listen(reactor)
    yield made
    pytest_twisted.blockon(made.stop())


@pytest.fixture
def bench(upstream: FakeUpstream) -> Iterator[Bench]:
    made = Bench(upstream)
    yield made
    pytest_twisted.blockon(ensureDeferred(made.close()))


@pytest.fixture
def ask(bench: Bench, upstream: FakeUpstream) -> Ask:
    """One request through a proxy of its own: the answer, after *script* was played."""

    async def one(data: bytes, *script: Action, **settings: Any) -> Any:
        upstream.scripts = [script]
        client = await bench.client(bench.proxy(**settings))
        return await client.ask(data)

    return one


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port on which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.fixture
def deaf_port() -> Iterator[int]:
    """A port that never accepts: its queue is full, so that a connection does not come about."""
    queue = []
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(8):
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(listening.getsockname())
            queue.append(one)
        yield listening.getsockname()[1]
        for one in queue:
            one.close()
