"""What the tests of the wire layer share: bytes in every split, and verdicts on what comes back."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from bench import Bench, reactor
from twisted.internet.defer import ensureDeferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.interfaces import IHalfCloseableProtocol, IPullProducer
from wireclient import Answer, Client, get, parse, pause
from zope.interface import implementer

from llmproxyd.testing.proxy import ProxyUnderTest
from llmproxyd.testing.upstream import Action, FakeUpstream, Received, Send, json_answer

MODELS = b"/v1/models"
FILES = b"/v1/files"
CHAT = b"/v1/chat/completions"
OK = Send(json_answer({"ok": True}))
NEXT = get(MODELS + b"?next")
"""A good request, pipelined behind what is tried."""

FRAMING_CODES = ("bad_framing", "bad_request")

BATCH = 40
"""Connections that are made at once: fewer than a listening socket's queue holds."""

Way = Sequence[bytes]
"""The pieces in which one connection sends its bytes."""


def head_of(line: bytes, *fields: bytes) -> bytes:
    """A request's head of exactly these lines."""
    return b"\r\n".join([line, *fields, b"", b""])


def models(*fields: bytes, host: bytes | None = b"Host: localhost", version: bytes = b"HTTP/1.1") -> bytes:
    """A GET of exactly these fields after *host*."""
    first = () if host is None else (host,)
    return head_of(b"GET " + MODELS + b" " + version, *first, *fields)


def post(*fields: bytes, body: bytes = b"", target: bytes = FILES, version: bytes = b"HTTP/1.1") -> bytes:
    """A POST of exactly these fields after Host, and *body* as it is."""
    return head_of(b"POST " + target + b" " + version, b"Host: localhost", *fields) + body


def ways(data: bytes, behind: bytes, *, start: int = 1, end: int | None = None) -> list[Way]:
    """*data* in one piece, and in two at every position from *start* up to *end*."""
    last = len(data) if end is None else min(end, len(data))
    return [(data + behind,), *((data[:at], data[at:] + behind) for at in range(start, last))]


async def turns(count: int = 8) -> None:
    """Let the reactor turn, so that what was written has been read."""
    for _ in range(count):
        await pause(0)


async def send_all(bench: Bench, proxy: ProxyUnderTest, each: Sequence[Way]) -> list[Client]:
    """One connection for each way, all at once."""
    clients: list[Client] = []
    for at in range(0, len(each), BATCH):
        batch = each[at : at + BATCH]
        made = await gatherResults([ensureDeferred(bench.client(proxy)) for _ in batch])
        await turns()
        for index in range(max(map(len, batch))):
            if index:
                await turns()
            for client, way in zip(made, batch, strict=True):
                if index < len(way):
                    client.send(way[index])
        clients += made
    return clients


async def settled(
    clients: Iterable[Client], enough: Callable[[Client], object], seconds: float = 6.0
) -> None:
    """Wait until *enough* holds for all clients; who is late is told by the verdict."""
    left = list(clients)
    until = time.monotonic() + seconds
    while left and time.monotonic() < until:
        left = [one for one in left if not enough(one)]
        await pause(0.004)


def ended(client: Client) -> bool:
    """Whether the proxy has ended the connection."""
    return client.lost is not None or getattr(client, "eof", False)


def answered(client: Client, count: int = 1) -> list[Answer]:
    """The first *count* answers, fewer if they have not come."""
    found: list[Answer] = []
    rest = client.received
    try:
        while len(found) < count and (parsed := parse(rest, bodiless=False, ended=ended(client))) is not None:
            got, rest = parsed
            found.append(got)
    except (AssertionError, ValueError):
        pass
    return found


def code_of(got: Answer) -> Any:
    """``error.code`` of an answer in OpenAI's shape."""
    try:
        return got.json["error"]["code"]
    except (json.JSONDecodeError, KeyError, TypeError):
        return f"no OpenAI error: {got.body!r}"


def fault_of(
    client: Client,
    status: int,
    codes: Collection[str],
    *,
    closes: bool,
    code: Callable[[Answer], Any] = code_of,
) -> str | None:
    """What is wrong with a refusal, ``None`` if nothing is."""
    found = answered(client, 2)
    if not found:
        return f"no answer, {'' if ended(client) else 'not '}ended: {client.received[:300]!r}"
    got, *more = found
    try:
        told = code(got)
    except (json.JSONDecodeError, KeyError, TypeError, IndexError):
        told = None
    if got.status != status or not isinstance(told, str) or (codes and told not in codes):
        return f"{got.status} {told} {'' if told else got.body[:100]}"
    if not got.whole:
        return f"not whole: {got.raw!r}"
    if got.get(b"x-llmproxyd-error") != b"proxy" or got.get(b"x-llmproxyd-code") != told.encode():
        return f"not told as ours: {got.headers}"
    if len(got.all(b"date")) != 1 or got.get(b"content-type") != b"application/json":
        return f"fields: {got.headers}"
    if not closes:
        return None
    if more or client.received != got.raw:
        return f"something follows: {client.received[len(got.raw) :]!r}"
    if [value.lower() for value in got.all(b"connection")] != [b"close"]:
        return f"no connection: close in {got.headers}"
    if not ended(client):
        return "not closed"
    return "reset" if client.reset else None


async def refused(
    bench: Bench,
    upstream: FakeUpstream,
    data: bytes,
    status: int,
    *codes: str,
    behind: bytes = NEXT,
    split: bool = True,
    start: int = 1,
    end: int | None = None,
    closes: bool = True,
    untouched: bool = True,
    code: Callable[[Answer], Any] = code_of,
    **settings: Any,
) -> ProxyUnderTest:
    """Assert that *data* is refused, however it is cut, and that nothing of it goes upstream.

    :param codes: one of them is given; any, if there are none.
    :param closes: the answer says so, and nothing behind it is answered.
    :param untouched: no connection to the upstream is even made.
    """
    upstream.scripts = [[OK]]
    before = len(upstream.requests)
    proxy = bench.proxy(**settings)
    each = ways(data, behind, start=start, end=end) if split else [(data + behind,)]
    clients = await send_all(bench, proxy, each)
    await settled(clients, ended if closes else answered)
    wrong: dict[str, list[int]] = {}
    for client, way in zip(clients, each, strict=True):
        fault = fault_of(client, status, codes, closes=closes, code=code)
        if fault is not None:
            wrong.setdefault(fault, []).append(len(way[0]) if len(way) > 1 else 0)
    assert not wrong, f"what came, and at which cuts (0: in one piece), for {data[:200]!r}: {wrong}"
    arrived = [one.target for one in upstream.requests[before:] if not one.target.endswith(b"?next")]
    assert not arrived, f"it went upstream: {arrived}"
    told = [one.status for one in proxy.finished]
    if closes:
        assert not upstream.requests[before:], "something went upstream"
        assert told == [status] * len(clients), f"events: {told}"
        assert not (untouched and upstream.connections), "the upstream was connected to"
    assert told.count(status) == len(clients), f"events: {told}"
    return proxy


async def accepted(
    bench: Bench,
    upstream: FakeUpstream,
    data: bytes,
    *,
    behind: bytes = NEXT,
    split: bool = True,
    start: int = 1,
    **settings: Any,
) -> list[Received]:
    """Assert that *data* is answered, however it is cut, as is what follows it.

    :return: the requests as they arrived, one for each way of cutting.
    """
    upstream.scripts = [[OK]]
    before = len(upstream.requests)
    proxy = bench.proxy(**settings)
    each = ways(data, behind, start=start) if split else [(data + behind,)]
    count = 2 if behind else 1
    clients = await send_all(bench, proxy, each)
    await settled(clients, lambda one: len(answered(one, count)) == count or ended(one))
    wrong: dict[str, list[int]] = {}
    for client, way in zip(clients, each, strict=True):
        statuses = [one.status for one in answered(client, count)]
        if statuses != [200] * count:
            what = f"{statuses} {client.received[:300]!r}"
            wrong.setdefault(what, []).append(len(way[0]) if len(way) > 1 else 0)
    assert not wrong, f"what came, and at which cuts (0: in one piece), for {data[:200]!r}: {wrong}"
    arrived = [one for one in upstream.requests[before:] if not one.target.endswith(b"?next")]
    assert len(arrived) == len(clients), f"{len(arrived)} of {len(clients)} arrived"
    return arrived


def echo(upstream: FakeUpstream, *before: Action) -> None:
    """Each answer tells which request it is for."""

    def script() -> list[Action]:
        request = upstream.requests[-1]
        told = {"target": request.target.decode(), "body": request.body.decode("latin-1")}
        return [*before, Send(json_answer(told))]

    upstream.next_script = script  # type: ignore[method-assign]


@implementer(IHalfCloseableProtocol)
class HalfClient(Client):
    """A client that goes on writing when the other side has ended.

    :ivar eof: the proxy has half-closed.
    """

    eof = False

    def readConnectionLost(self) -> None:
        self.eof = True

    def writeConnectionLost(self) -> None:
        """It does not end itself."""


async def half_client(bench: Bench, proxy: ProxyUnderTest, *, small: bool = False) -> HalfClient:
    """One more connection.

    :param small: the kernel keeps little of what this side sends.
    """
    endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", proxy.port)
    client: HalfClient = await connectProtocol(endpoint, HalfClient())
    if small:
        client.transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    bench._clients.append(client)
    return client


def small_buffers(*ports: Any) -> None:
    """Connections that these listening ports accept from now on keep little in the kernel."""
    for port in ports:
        port.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        port.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)


@implementer(IPullProducer)
class Flood:
    """Sends *piece*, *times* over, as fast as it is taken.

    :ivar sent: bytes that were taken.
    """

    def __init__(self, client: Client, piece: bytes, times: int) -> None:
        self._client = client
        self._piece = piece
        self._left = times
        self.sent = 0
        client.transport.registerProducer(self, False)

    @property
    def done(self) -> bool:
        return not self._left

    def resumeProducing(self) -> None:
        if not self._left:
            self._client.transport.unregisterProducer()
            return
        self._left -= 1
        self.sent += len(self._piece)
        self._client.transport.write(self._piece)

    def stopProducing(self) -> None:
        """The connection is gone."""

    async def stuck(self) -> int:
        """How much was taken when no more is."""
        before = -1
        while self.sent != before:
            before = self.sent
            await pause(0.15)
        return before
