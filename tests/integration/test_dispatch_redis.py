"""Events in a Redis stream: a real server, killed and started again in the middle."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from bench import reactor
from twisted.internet.defer import ensureDeferred
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from wireclient import until

sys.path.insert(0, str(Path(__file__).parents[1]))

from redisserver import RedisServer

from llmproxyd.config.gateway import Capture, Dispatch, Events
from llmproxyd.model import Body, Captured, End, Finished
from llmproxyd.observe.bus import Bus
from llmproxyd.observe.dispatch import dispatcher
from llmproxyd.observe.dispatch.build import Means, bus_of
from llmproxyd.redaction import Redactor
from llmproxyd.redis.link import RedisLink

STREAM = "llmproxyd:events"


class Stream:
    """A bus with one stream."""

    def __init__(self, server: RedisServer, **more: Any) -> None:
        self._server = server
        self.link = RedisLink(reactor, server.url)
        settings = Dispatch("redis", stream=STREAM, **{"every": 0.01, "batch": 10} | more)
        means = Means(reactor, lambda: 1_700_000_000.0, lambda: 0.0, self.link)
        capture = Capture(request=1 << 20, response=1 << 20)
        self.bus: Bus = bus_of(Events(dispatch=(settings,), capture=capture), means, Redactor(), "p")

    def publish(self, first: int, last: int, **more: Any) -> None:
        for number in range(first, last + 1):
            request = f"r-{number}"
            self.bus.publish(
                Finished(number, request, "GET", "/", "openai", "openai", 200, 0.1, 2, End.COMPLETE, **more)
            )

    def state(self) -> dict[str, int]:
        (state,) = self.bus.state().values()
        return dict(state)

    async def settled(self, **counts: int) -> None:
        await until(lambda: counts.items() <= self.state().items(), f"{counts}")

    async def entries(self) -> list[tuple[str, dict[str, Any]]]:
        """Id and object of each entry."""
        found = []
        reading = RedisLink(reactor, self._server.url, timeout=5.0)
        entries = await reading.call("XRANGE", STREAM, "-", "+")
        await reading.close()
        for _, fields in entries:
            by_name = {bytes(name): value for name, value in zip(fields[::2], fields[1::2], strict=True)}
            assert set(by_name) == {b"id", b"event"}
            found.append((by_name[b"id"].decode(), json.loads(by_name[b"event"])))
        return found

    async def stop(self) -> None:
        await self.bus.stop()
        await self.link.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    made = RedisServer(tmp_path)
    yield made
    made.kill()


@pytest.fixture
def stream(server: RedisServer, _nothing_left: None) -> Iterator[Any]:
    made: list[Stream] = []

    def make(**more: Any) -> Stream:
        made.append(Stream(server, **more))
        return made[-1]

    yield make
    for one in made:
        pytest_twisted.blockon(ensureDeferred(one.stop()))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(dispatcher, "FLUSH", 1.0)


@pytest.fixture
def logged() -> Iterator[list[str]]:
    lines: list[str] = []

    def observe(event: LogEvent) -> None:
        if "Events to" in (text := formatEvent(event)):
            lines.append(text)

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)


@pytest_twisted.ensureDeferred
async def test_each_event_is_an_entry_in_order(stream: Any) -> None:
    made = stream()
    made.publish(1, 35)
    await made.settled(delivered=35)
    entries = await made.entries()
    assert [name for name, _ in entries] == [f"p-{number}" for number in range(1, 36)]
    assert all(event["id"] == name for name, event in entries)


@pytest_twisted.ensureDeferred
async def test_stream_is_bounded(stream: Any) -> None:
    made = stream(max_bytes=200 * 1024)
    made.publish(1, 900)
    await made.settled(delivered=900)
    entries = await made.entries()
    assert 200 <= len(entries) < 400  # "~" trims whole nodes, of a hundred entries each
    assert entries[-1][0] == "p-900"


@pytest_twisted.ensureDeferred
async def test_events_with_bodies_go_through(stream: Any) -> None:
    made = stream(batch=100)
    captured = Captured(response=Body(data="für ".encode() * 50_000, length=250_000))
    made.publish(1, 20, captured=captured)
    await made.settled(delivered=20, dropped=0)
    entries = await made.entries()
    assert {len(event["response_body"]["text"]) for _, event in entries} == {200_000}


@pytest_twisted.ensureDeferred
async def test_outage_delays_then_drops_and_recovers(
    stream: Any, server: RedisServer, logged: list[str]
) -> None:
    made = stream()
    made.publish(1, 5)
    await made.settled(delivered=5)
    server.kill()
    made.publish(6, 5 + dispatcher.LIMIT + 3)
    await until(lambda: made.state()["failures"] > 3)
    assert made.state()["dropped"] == 3
    server.start()
    await made.settled(queued=0, delivered=5 + dispatcher.LIMIT)
    entries = await made.entries()
    assert [name for name, _ in entries] == [f"p-{number}" for number in range(6, 6 + dispatcher.LIMIT)]
    assert sorted(line.split(" ", 5)[5] for line in logged) == [
        "are delivered again; 3 were dropped",
        "are dropped: they come faster than they are taken",
        "have to wait: the server does not answer",
    ]


@pytest_twisted.ensureDeferred
async def test_server_that_hangs_may_double_events_but_loses_none(stream: Any, server: RedisServer) -> None:
    made = stream()
    made.publish(1, 5)
    await made.settled(delivered=5)
    server.pause()
    made.publish(6, 50)
    await until(lambda: made.state()["failures"] > 2)
    server.resume()
    await made.settled(delivered=50, queued=0)
    names = [name for name, _ in await made.entries()]
    assert list(dict.fromkeys(names)) == [f"p-{number}" for number in range(1, 51)]


@pytest_twisted.ensureDeferred
async def test_key_of_another_kind_is_told_and_waited_for(
    stream: Any, server: RedisServer, logged: list[str]
) -> None:
    server.ask("SET", STREAM, "a secret of somebody's")
    made = stream()
    made.publish(1, 3)
    await until(lambda: made.state()["failures"] > 2)
    server.ask("DEL", STREAM)
    await made.settled(delivered=3, dropped=0)
    # A script's error may stand behind a word of the server's own.
    assert "secret" not in logged[0]
    assert "the server refuses" in logged[0]


@pytest_twisted.ensureDeferred
async def test_stop_is_bounded_while_the_server_is_gone(stream: Any, server: RedisServer) -> None:
    made = stream()
    server.kill()
    made.publish(1, 3)
    start = reactor.seconds()
    await made.bus.stop()
    assert reactor.seconds() - start < 3
    assert made.state()["dropped"] == 3


def test_events_to_redis_need_a_server() -> None:
    with pytest.raises(ValueError, match=r"cache\.redis_url"):
        bus_of(
            Events(dispatch=(Dispatch("redis"),)), Means(reactor, lambda: 0.0, lambda: 0.0), Redactor(), "p"
        )
