"""Sends mutants through a whole proxy, and looks at both of its sides."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import LogEvent, LogLevel, globalLogPublisher
from twisted.python.failure import Failure

from llmproxyd.model import Arrived, End, Finished
from llmproxyd.providers.registry import registry
from llmproxyd.testing.proxy import ProxyUnderTest

from .mutate import mutant
from .strict import Message, Unclear, answer, request

AT_ONCE = 80
"""Connections."""

PATIENCE = 10.0
"""Seconds in which each connection must have ended."""

_MARK = re.compile(rb"zq[0-9a-f]{8}qz")
_HEAD_END = re.compile(rb"\r\n\r\n")
_ORIGIN = re.compile(rb"https?://[^/?#]*", re.IGNORECASE)


@dataclass
class Finding:
    """Something that must not be.

    :param data: what the client sent, empty where nobody knows whose fault it is.
    """

    what: str
    seed: int
    number: int
    data: bytes = b""
    more: str = ""

    def __str__(self) -> str:
        sent = f"\n  sent: {self.data[:3000]!r}" if self.data else ""
        return f"{self.what}\n  seed {self.seed}, number {self.number}{sent}\n  {self.more}"


class Upstream(Factory):
    """Reads strictly, and answers with what it has seen.

    :ivar seen: requests by number.
    :ivar by_mark: their numbers by the mark that was in them.
    """

    noisy = False

    def __init__(self, report: Callable[[str, bytes], None]) -> None:
        self.report = report
        self.seen: dict[int, Message] = {}
        self.by_mark: dict[bytes, list[int]] = {}
        self.count = 0

    def buildProtocol(self, addr: object) -> _Serving:
        return _Serving(self)

    def take(self, message: Message, raw: bytes) -> bytes:
        """One more request; the answer to it."""
        self.count += 1
        number = self.count
        marks = sorted(set(_MARK.findall(raw)))
        self.seen[number] = message
        for mark in marks:
            self.by_mark.setdefault(mark, []).append(number)
        if len(marks) > 1:
            self.report("one request with what two clients sent", raw)
        body = b"seen " + b" ".join(marks)
        head = b"HTTP/1.1 200 OK\r\nx-n: %d\r\nx-method: %b\r\n" % (number, message.start[0])
        if number % 41 == 0:
            head += b"Connection: close\r\n"
        if number % 5 == 0:
            framing, body = b"Transfer-Encoding: chunked\r\n", b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        else:
            framing = b"Content-Length: %d\r\n" % len(body)
        return head + framing + b"\r\n" + (b"" if message.start[0] == b"HEAD" else body)


class _Serving(Protocol):
    """One connection of the proxy's to the upstream."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._buffer = b""

    def dataReceived(self, data: bytes) -> None:
        self._buffer += data
        try:
            while self._buffer and (found := request(self._buffer, plain=True)) is not None:
                message, end = found
                raw, self._buffer = self._buffer[:end], self._buffer[end:]
                self.transport.write(self._upstream.take(message, raw))
                if self._buffer:
                    self._upstream.report("something behind a request, before its answer", raw + self._buffer)
        except Unclear as error:
            self._upstream.report(f"upstream got what is not clear: {error}", self._buffer)
            self._buffer = b""
            self.transport.loseConnection()


class _Client(Protocol):
    """One connection to the proxy.

    :ivar ended: fires with all that came.
    :ivar left: it did not wait for the end.
    """

    def __init__(self, reactor: Any, pieces: list[bytes], pause: float, leaves: float | None) -> None:
        self.ended: Deferred[bytes] = Deferred()
        self.left = False
        self.late = False
        self._reactor = reactor
        self._pieces = pieces[::-1]
        self._pause = pause
        self._leaves = leaves
        self._received: list[bytes] = []
        self._patience: Any = None

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)
        self._patience = self._reactor.callLater(PATIENCE, self._too_late)
        if self._leaves is not None:
            self._reactor.callLater(self._leaves, self._leave)
        self._go_on()

    def _go_on(self) -> None:
        if not self.connected:
            return
        self.transport.write(self._pieces.pop())
        if self._pieces:
            self._reactor.callLater(self._pause, self._go_on)

    def _leave(self) -> None:
        if self.connected:
            self.left = True
            self.transport.abortConnection()

    def _too_late(self) -> None:
        self.late = True
        self.transport.abortConnection()

    def dataReceived(self, data: bytes) -> None:
        self._received.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._patience.active():
            self._patience.cancel()
        self.ended.callback(b"".join(self._received))


def _pieces(rng: Random, data: bytes) -> list[bytes]:
    how = rng.random()
    if how < 0.5 or len(data) < 2:
        return [data]
    if how < 0.7:
        cuts = sorted({rng.randrange(1, len(data)) for _ in range(rng.choice((1, 1, 2, 4)))})
    elif how < 0.93:
        heads = [match.end() for match in _HEAD_END.finditer(data[:20_000])][:40]
        near = (end - rng.choice((0, 2, rng.randrange(1, 30), rng.randrange(1, 100))) for end in heads)
        cuts = sorted({cut for cut in near if 0 < cut < len(data)})
    else:
        near = data[:400]
        cuts = list(range(1, len(near)))
    return [data[one:other] for one, other in zip([0, *cuts], [*cuts, len(data)], strict=True)]


@dataclass
class Tally:
    """What happened.

    :ivar statuses: of the answers that clients got.
    """

    findings: list[Finding] = field(default_factory=list)
    statuses: Counter[bytes] = field(default_factory=Counter)
    connections: int = 0
    forwarded: int = 0
    reset: int = 0


class Run:
    """Connections *first* up to *last* of one seed."""

    def __init__(self, reactor: Any, seed: int, first: int, last: int) -> None:
        self.tally = Tally()
        self._reactor = reactor
        self._seed = seed
        self._next = first
        self._last = last
        self._open = 0
        self._done: Deferred[None] = Deferred()
        self._claimed: set[int] = set()
        self._answers = 0
        self._upstream = Upstream(self._report)
        self._port: Any = None
        self._proxy: ProxyUnderTest | None = None

    async def go(self) -> Tally:
        """Do all of it."""
        reactor = self._reactor
        self._port = reactor.listenTCP(0, self._upstream, interface="127.0.0.1")
        url = f"http://127.0.0.1:{self._port.getHost().port}"
        proxy = self._proxy = ProxyUnderTest(
            reactor,
            {
                "upstreams": {name: {"base_url": url} for name in registry()},
                "server": {"header_timeout": 0.4, "idle_timeout": 0.4, "max_body": 100_000},
                "faults": {"header": True},
            },
        ).start()
        globalLogPublisher.addObserver(self._observe)
        try:
            for _ in range(AT_ONCE):
                self._start()
            await self._done
            daemon: Any = proxy.daemon
            told = Counter(type(event) for event in proxy.sink.events)
            numbers = [event.number for event in proxy.finished]
            if not told[Arrived] == told[Finished] == daemon.pipeline.handled == len(set(numbers)):
                self._report(f"events: {told}, {daemon.pipeline.handled} handled", b"")
            if daemon.pipeline.active:
                self._report(f"{len(daemon.pipeline.active)} requests never end", b"")
            whole = sum(event.end is not End.CLIENT_GONE for event in proxy.finished)
            if abs(whole - self._answers) > self.tally.reset:
                self._report(f"{self._answers} answers came of {whole}, {self.tally.reset} left early", b"")
        finally:
            globalLogPublisher.removeObserver(self._observe)
            stopping = proxy.stop()
            if stopping is not None:
                await stopping
            await self._port.stopListening()
        self.tally.forwarded = self._upstream.count
        return self.tally

    def _start(self) -> None:
        if self._next >= self._last:
            if not self._open and not self._done.called:
                self._done.callback(None)
            return
        number = self._next
        self._next += 1
        self._open += 1
        mark = b"zq%08xqz" % number
        data, rng = mutant(self._seed, number, mark)
        leaves = rng.random() * 0.05 if rng.random() < 0.04 else None
        pieces = _pieces(rng, data)
        pause = rng.choice((0, 0.005)) if len(pieces) < 50 else 0
        client = _Client(self._reactor, pieces, pause, leaves)
        assert self._proxy is not None
        connecting = connectProtocol(TCP4ClientEndpoint(self._reactor, "127.0.0.1", self._proxy.port), client)
        connecting.addErrback(lambda failure: self._report(f"no connection: {failure.value}", b"", number))
        client.ended.addCallback(self._ended, client, number, mark, data)
        client.ended.addErrback(lambda failure: self._report(failure.getTraceback(), data, number))
        client.ended.addCallback(lambda _: self._closed())

    def _closed(self) -> None:
        self._open -= 1
        self._start()

    def _report(self, what: str, data: bytes, number: int = -1, more: str = "") -> None:
        self.tally.findings.append(Finding(what, self._seed, number, data, more))

    def _observe(self, event: LogEvent) -> None:
        if event.get("log_level") is LogLevel.critical:
            failure = event.get("log_failure")
            self._report(
                f"logged: {event.get('log_format')}", b"", more=failure.getTraceback() if failure else ""
            )

    # What a client got, beside what it sent and what came of that upstream.

    def _ended(self, got: bytes, client: _Client, number: int, mark: bytes, data: bytes) -> None:
        tally, upstream = self.tally, self._upstream
        tally.connections += 1

        def wrong(what: str) -> None:
            self._report(what, data, number, f"got: {got[:1500]!r}")

        if client.late:
            wrong("a connection that does not end")
        if foreign := set(_MARK.findall(got)) - {mark}:
            wrong(f"the marks of others: {foreign}")
        answers: list[Message] = []
        at = 0
        try:
            while at < len(got):
                message, at = answer(got, at)
                if not message.start[0].startswith(b"1"):
                    answers.append(message)
        except Unclear as error:
            if not client.left:
                wrong(f"the client gets what is not clear: {error}")
        tally.statuses.update(message.start[0] for message in answers)
        own = [one for one in answers if not one.all(b"x-n")]
        self._answers += sum(not one.first(b"cache-control") for one in own) + len(answers) - len(own)
        if client.left or client.late:
            tally.reset += 3
        elif not all(message.whole for message in answers):
            wrong("an answer that is not whole")
        numbers = [int(message.first(b"x-n")) for message in answers if message.all(b"x-n")]
        if numbers != sorted(set(numbers)) or not self._claimed.isdisjoint(numbers):
            wrong(f"answers to others, or in disorder: {numbers}")
        self._claimed.update(numbers)
        mine = sorted({*numbers, *upstream.by_mark.pop(mark, ())})
        if not client.left and len(mine) > len(numbers):
            wrong(f"upstream answered {mine}, the client got {numbers}")
        sent = _sent(data)
        self._compare(sent, [upstream.seen.pop(one) for one in mine if one in upstream.seen], wrong)
        if len(answers) > len(sent) + 1:
            wrong(f"{len(answers)} answers to {len(sent)} requests")

    def _compare(self, sent: list[Message], forwarded: list[Message], wrong: Callable[[str], None]) -> None:
        """All that upstream got must be what the client sent, in that order."""
        at = 0
        for message in forwarded:
            # Those with an unknown upstream's name in the target look alike, but go nowhere.
            said = [(_essence(one), one.passing) for one in sent[at:]]
            essence = (message.start[0], message.start[1], message.body)
            if (essence, message.passing) not in said:
                told = f"{str(essence)[:300]} with {message.passing}"
                return wrong(f"upstream got what was not sent: {told}")
            at += said.index((essence, message.passing)) + 1
        return None


def _sent(data: bytes) -> list[Message]:
    """The requests in what a client sent, up to where it is not clear."""
    found = []
    at = 0
    try:
        while (one := request(data, at)) is not None:
            found.append(one[0])
            at = one[1]
    except Unclear:
        pass
    return found


def _essence(message: Message) -> tuple[bytes, bytes, bytes]:
    """Method, target and body as upstream must get them."""
    target = _ORIGIN.sub(b"", message.start[1], count=1) if message.start[1][:1] != b"/" else message.start[1]
    if not target.startswith(b"/"):
        target = b"/" + target
    target = re.sub(rb"\A/to/[^/?]*(?:/@[^/?]*)?", b"", target)
    return message.start[0], target if target.startswith(b"/") else b"/" + target, message.body


def in_a_process(seed: int, first: int, last: int) -> Tally:
    """The connections *first* up to *last*, in a process that has no reactor yet."""
    from twisted.internet import reactor

    made = Run(reactor, seed, first, last)
    failed: list[str] = []
    going = ensureDeferred(made.go())
    going.addErrback(lambda failure: failed.append(failure.getTraceback()))
    going.addCallback(lambda _: reactor.callLater(0, reactor.stop))  # type: ignore[attr-defined]
    reactor.run(installSignalHandlers=False)  # type: ignore[attr-defined]
    if failed:
        raise RuntimeError(failed[0])
    return made.tally
