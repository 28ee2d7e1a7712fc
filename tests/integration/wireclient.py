"""A client that knows of no HTTP beyond where a response ends: what it sends and gets is bytes."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

PATIENCE = 8.0
"""Seconds after which a test has failed for good."""


@dataclass(frozen=True)
class Answer:
    """One response.

    :param body: without its framing.
    :param whole: whether it ended as its framing says.
    :param raw: everything, framing included.
    """

    status: int
    reason: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes
    whole: bool
    raw: bytes

    def all(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.headers if key.lower() == name]

    def get(self, name: bytes) -> bytes | None:
        values = self.all(name)
        return values[0] if values else None

    @property
    def names(self) -> set[bytes]:
        return {key.lower() for key, _ in self.headers}

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def inflated(self) -> bytes:
        return gzip.decompress(self.body)


class Client(Protocol):
    """One connection to the proxy.

    :ivar total: how many bytes have come.
    :ivar lost: why it ended, ``None`` while it is open.
    """

    transport: Any

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self.total = 0
        self.lost: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        self._pieces.append(data)
        self.total += len(data)

    @property
    def received(self) -> bytes:
        """All bytes that have come and were not taken as an answer."""
        self._pieces = [b"".join(self._pieces)]
        return self._pieces[0]

    @property
    def last(self) -> bytes:
        """The last piece that came."""
        return self._pieces[-1] if self._pieces else b""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = reason

    @property
    def reset(self) -> bool:
        return self.lost is not None and not self.lost.check(ConnectionDone)

    def send(self, data: bytes) -> None:
        self.transport.write(data)

    async def closed(self) -> None:
        await until(lambda: self.lost is not None, "the connection to end")

    async def has(self, data: bytes) -> None:
        """Wait until *data* has come."""
        await until(lambda: data in self.received, f"{data!r} in {self.received!r}")

    async def answer(self, *, bodiless: bool = False) -> Answer:
        """The next response, as far as it comes."""
        found: list[tuple[Answer, bytes]] = []

        seen = (-1, False)

        def complete() -> bool:
            nonlocal seen
            now = (self.total, self.lost is not None)
            if now == seen:
                return False
            seen = now
            parsed = parse(self.received, bodiless=bodiless, ended=self.lost is not None)
            if parsed is not None:
                found.append(parsed)
            return parsed is not None

        await until(complete, "an answer")
        answer, rest = found[0]
        self._pieces = [rest]
        return answer

    async def ask(self, data: bytes) -> Answer:
        self.send(data)
        return await self.answer(bodiless=data.startswith(b"HEAD "))


def parse(data: bytes, *, bodiless: bool, ended: bool) -> tuple[Answer, bytes] | None:
    start, end, rest = data.partition(b"\r\n\r\n")
    if not end:
        if ended:
            raise AssertionError(f"the connection ended without an answer: {data!r}")
        return None
    if start.split(b" ")[1].startswith(b"1"):
        return parse(rest, bodiless=bodiless, ended=ended)
    line, *lines = start.split(b"\r\n")
    _, status, reason = line.split(b" ", 2)
    headers = [(name, value.strip()) for name, _, value in (one.partition(b":") for one in lines)]
    fields = {name.lower(): value for name, value in headers}

    def made(body: bytes, whole: bool, left: bytes) -> tuple[Answer, bytes]:
        return Answer(int(status), reason, headers, body, whole, data[: len(data) - len(left)]), left

    if bodiless or status in (b"204", b"304"):
        return made(b"", True, rest)
    if fields.get(b"transfer-encoding") == b"chunked":
        pieces: list[bytes] = []
        at = 0
        while True:
            line_end = rest.find(b"\r\n", at)
            length = int(rest[at:line_end], 16) if line_end >= 0 else 0
            start_of, end_of = line_end + 2, line_end + 2 + length
            if line_end < 0 or len(rest) < end_of + 2:
                pieces.append(rest[start_of:end_of] if line_end >= 0 else b"")
                return made(b"".join(pieces), False, b"") if ended else None
            pieces.append(rest[start_of:end_of])
            at = end_of + 2
            if not length:
                return made(b"".join(pieces), True, rest[at:])
    if b"content-length" in fields:
        length = int(fields[b"content-length"])
        if len(rest) >= length:
            return made(rest[:length], True, rest[length:])
        return made(rest, False, b"") if ended else None
    return made(rest, True, b"") if ended else None


async def pause(seconds: float) -> None:
    waiting: Deferred[None] = deferLater(reactor, seconds)
    await waiting


async def until(condition: Callable[[], object], what: str = "a condition") -> None:
    """Wait for *condition*; the test fails when it does not come."""
    for _ in range(int(PATIENCE / 0.004)):
        if condition():
            return
        await pause(0.004)
    raise AssertionError(f"waited in vain for {what}")


async def connect(port: int) -> Client:
    endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
    client: Client = await connectProtocol(endpoint, Client())
    return client


def request(
    target: bytes,
    *fields: bytes,
    method: bytes = b"POST",
    body: bytes | None = b"{}",
    version: bytes = b"HTTP/1.1",
    host: bytes = b"localhost",
) -> bytes:
    """A request of exactly these lines, Host and, with a body, Content-Length beside them."""
    lines = [b"%s %s %s" % (method, target, version), b"Host: " + host, *fields]
    if body is not None:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join([*lines, b"", body or b""])


def get(target: bytes, *fields: bytes, method: bytes = b"GET") -> bytes:
    return request(target, *fields, method=method, body=None)
