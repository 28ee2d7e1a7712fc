"""The pace of the sandbox's streams, and what becomes of them when the client stalls or leaves."""

from __future__ import annotations

import json
from collections.abc import Iterable

import pytest
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from llmproxyd.config.schema import SandboxSettings
from llmproxyd.sandbox.site import make_site


class Transport(StringTransport):
    """Remembers its writes, and pauses its producer, as a socket does, once *room* bytes are in it."""

    room: float = float("inf")

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []

    def write(self, data: bytes) -> None:
        super().write(data)
        self.writes.append(data)
        if self.room < len(self.value()) and self.producer is not None:
            self.room = float("inf")
            self.producer.pauseProducing()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))


class Connection:
    """One connection in memory to a sandbox with a clock of its own."""

    def __init__(self, **settings: float) -> None:
        self.clock = Clock()
        site = make_site(self.clock, SandboxSettings(enabled=True, **settings))  # type: ignore[arg-type]
        self.transport = Transport()
        self.protocol = site.buildProtocol(None)
        self.protocol.makeConnection(self.transport)

    def ask(self, text: str = "one two three four", *, stream: bool = True) -> None:
        body = json.dumps({"messages": [{"role": "user", "content": text}], "stream": stream}).encode()
        head = b"POST /openai/v1/chat/completions HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(
            body
        )
        self.protocol.dataReceived(head + body)

    def run(self, turns: int = 50) -> None:
        """Let so many turns of the reactor pass, in no time."""
        for _ in range(turns):
            self.clock.advance(0)

    @property
    def tokens(self) -> int:
        return self.transport.value().count(b'"delta":{"content":')

    @property
    def complete(self) -> bool:
        return self.transport.value().endswith(b"0\r\n\r\n")


def test_without_a_pace_every_event_is_a_write_of_its_own() -> None:
    connection = Connection()
    connection.ask()
    connection.run()
    assert connection.complete
    assert b"[DONE]" in connection.transport.value()
    counts = [data.count(b"data: ") for data in connection.transport.writes]
    assert sum(counts) == 1 + 6 + 1 + 1
    assert max(counts) == 1


def test_first_token_waits_but_the_head_does_not() -> None:
    connection = Connection(first_token=5.0)
    connection.ask()
    connection.run()
    assert b"200 OK" in connection.transport.value()
    assert connection.tokens == 0
    connection.clock.advance(4.9)
    assert connection.tokens == 0
    connection.clock.advance(0.1)
    connection.run()
    assert connection.complete


def test_tokens_come_at_the_pace() -> None:
    connection = Connection(tokens_per_second=10.0, first_token=1.0)
    connection.ask()
    connection.run()
    connection.clock.advance(1)
    assert connection.tokens == 1
    for expected in (2, 3, 4, 5, 6):
        connection.clock.advance(0.05)
        connection.run()
        assert connection.tokens == expected - 1
        connection.clock.advance(0.05)
        connection.run()
        assert connection.tokens == expected
    assert connection.complete


def test_a_whole_answer_waits_for_its_first_token_only() -> None:
    connection = Connection(tokens_per_second=0.1, first_token=2.0)
    connection.ask(stream=False)
    connection.clock.advance(1.9)
    assert connection.transport.value() == b""
    connection.clock.advance(0.1)
    assert b"You said: one two" in connection.transport.value()


def test_a_client_that_does_not_read_stops_the_stream() -> None:
    connection = Connection()
    connection.transport.room = 5000
    connection.ask("word " * 500)
    connection.run()
    connection.clock.advance(60)
    stalled = len(connection.transport.value())
    assert 5000 < stalled < 5500
    connection.transport.producer.resumeProducing()
    connection.run()
    assert len(connection.transport.value()) > 50_000
    assert connection.complete


@pytest.mark.parametrize("settings", [{}, {"tokens_per_second": 1.0}, {"first_token": 9.0}])
def test_a_client_that_leaves_leaves_nothing_behind(settings: dict) -> None:
    connection = Connection(**settings)
    connection.ask()
    connection.run(3)
    connection.protocol.connectionLost(Failure(ConnectionDone()))
    connection.run()
    connection.clock.advance(1000)
    assert connection.clock.getDelayedCalls() == []


def test_a_connection_serves_one_request_after_the_other() -> None:
    connection = Connection()
    connection.ask()
    connection.ask("again")
    connection.run(100)
    assert connection.transport.value().count(b"[DONE]") == 2
    assert b"sandbox-00000001" in connection.transport.value()
    assert b"sandbox-00000002" in connection.transport.value()
