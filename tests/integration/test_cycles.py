"""Requests of every kind leave nothing that only the collector would take away.

A cycle costs nothing until the collector comes; then it stops the world, and the slowest requests
are slower.  The collector is off while ten thousand requests go through, and is asked
afterwards what it found.
"""

from __future__ import annotations

import gc
import socket
import struct
import time
import types
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import pytest_twisted
from bench import Bench, reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure
from wireclient import get, pause, request, until

from llmproxyd.model import Arrived, Finished
from llmproxyd.testing.proxy import ProxyUnderTest
from llmproxyd.testing.upstream import (
    LAST_CHUNK,
    Action,
    Close,
    FakeUpstream,
    Pour,
    Reset,
    Script,
    Send,
    Stall,
    Wait,
    chunk,
    event,
    head,
    json_answer,
    stream_head,
)

CHAT = b"/v1/chat/completions"
THREADS = 6
PATIENCE = 10.0
"""Seconds that a client waits for a byte."""

SMALL = Send(json_answer({"ok": True}))
EVENTS = [
    Send(chunk(event(b'{"choices":[{"index":0,"delta":{"content":"%d"}}]}' % number))) for number in range(3)
]
SCRIPTS: dict[bytes, Script] = {
    b"small": [SMALL],
    b"stream": [Send(stream_head()), *EVENTS, Send(LAST_CHUNK)],
    b"slow": [Send(stream_head()), EVENTS[0], Wait(0.002), EVENTS[1], Wait(0.002), Send(LAST_CHUNK)],
    b"interim": [Send(head(b"link: </x>", status=b"103 Early Hints")), Wait(0), SMALL],
    b"by-close": [Send(head()), EVENTS[0], Close()],
    b"short": [Send(head(b"content-length: 100") + b"{}"), Close()],
    b"cut": [Send(stream_head()), EVENTS[0], Wait(0), Close()],
    b"reset": [Send(stream_head()), EVENTS[0], Wait(0.002), Reset()],
    b"no-chunk": [Send(stream_head()), EVENTS[0], Wait(0), Send(b"zz\r\n")],
    b"garbage": [Send(b"SSH-2.0-OpenSSH_9.6\r\n")],
    b"bad-framing": [Send(head(b"content-length: 2", b"transfer-encoding: chunked"))],
    b"half-a-head": [Send(b"HTTP/1.1 200 OK\r\ncontent-le"), Close()],
    b"nothing": [Close()],
    b"stale": [SMALL, Close()],
    b"surplus": [Send(json_answer({}) + b"HTTP/1.1 200 OK\r\n")],
    b"silent": [Stall()],
    b"open": [Send(stream_head()), EVENTS[0], Stall()],
    b"early": [Send(json_answer({"error": "enough"}, status=b"400 Bad Request"))],
}


class Scripted(FakeUpstream):
    """The target says what is answered; what came is not kept."""

    def next_script(self) -> list[Action]:
        wish = self.requests.pop().target.partition(b"?")[2]
        if wish == b"big":
            return [Send(head(b"content-length: 3000000")), Pour(bytes(30_000), 100)]
        return list(SCRIPTS.get(wish, SCRIPTS[b"small"]))


class Raw:
    """A blocking client, for a thread."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self.left = b""

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def until(self, mark: bytes, count: int = 1) -> bytes:
        """What comes, up to *mark*, *count* times."""
        while self.left.count(mark) < count:
            try:
                data = self._socket.recv(65536)
            except TimeoutError:
                data = b""
            assert data, f"no {mark!r} in {self.left[-300:]!r}"
            self.left += data
        got, self.left = self.left, b""
        return got

    def rest(self) -> bytes:
        """All that comes until the end; a reset is one, too."""
        try:
            while data := self._socket.recv(1 << 20):
                self.left += data
        except ConnectionError:
            pass
        except TimeoutError:
            raise AssertionError(f"no end behind {self.left[-300:]!r}") from None
        self.close()
        return self.left

    def close(self) -> None:
        self._socket.close()

    def reset(self) -> None:
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()


Kind = Callable[[int], int]
"""Goes to a port and back; how many requests that were."""


def ask(how: bytes, *fields: bytes, **more: Any) -> bytes:
    return request(CHAT + b"?" + how, *fields, **more)


def to(name: bytes, how: bytes, *fields: bytes, **more: Any) -> bytes:
    return request(b"/to/" + name + b"/v1/chat/completions?" + how, *fields, **more)


def pipelined(data: bytes, mark: bytes, number: int = 20) -> Kind:
    """*data*, *number* times over at once; *mark* ends each answer."""

    def go(port: int) -> int:
        client = Raw(port)
        client.send(data * number)
        client.until(mark, number)
        client.close()
        return number

    return go


def in_turn(data: bytes, mark: bytes, number: int = 10) -> Kind:
    """*data*, again after each answer."""

    def go(port: int) -> int:
        client = Raw(port)
        for _ in range(number):
            client.send(data)
            client.until(mark)
        client.close()
        return number

    return go


def closing(data: bytes, expected: bytes) -> Kind:
    """*data*, after whose answer the proxy ends the connection."""

    def go(port: int) -> int:
        client = Raw(port)
        client.send(data)
        got = client.rest()
        assert expected in got, got
        return 1

    return go


def left(data: bytes, mark: bytes | None, *, reset: bool = False) -> Kind:
    """*data*, and the client leaves after *mark* has come, or at once."""

    def go(port: int) -> int:
        client = Raw(port)
        client.send(data)
        if mark is not None:
            client.until(mark)
        if reset:
            client.reset()
        else:
            client.close()
        return 1

    return go


def in_pieces(*pieces: bytes, expected: bytes) -> Kind:
    """Each piece after a moment; the client may be answered before it has sent them all."""

    def go(port: int) -> int:
        client = Raw(port)
        try:
            for piece in pieces:
                client.send(piece)
                wait_a_moment()
        except ConnectionError:
            pass
        got = client.rest()
        assert expected in got, got
        return 1

    return go


def wait_a_moment() -> None:
    time.sleep(0.002)


DONE = b'{"ok":true}'
CLOSE = b"Connection: close"
CHUNKED = b"Transfer-Encoding: chunked"
BODY = chunk(b'{"model": "x",') + chunk(b' "stream": true}') + LAST_CHUNK
FAULT = b"x-llmproxyd-fault: r"
LARGE = b'{"model": "gpt-x", "text": "' + b"x" * 400_000 + b'"}'


def kinds() -> Iterator[tuple[int, str, Kind]]:
    """How often, what it is, and how it is done."""
    chat, stream = ask(b"small"), ask(b"stream")
    yield 100, "small answers", pipelined(chat, DONE)
    yield 100, "small answers, one by one", in_turn(chat, DONE)
    yield 150, "small answers, closing", closing(ask(b"small", CLOSE), DONE)
    yield 60, "small answers, HTTP/1.0", closing(ask(b"small", version=b"HTTP/1.0"), DONE)
    yield 60, "streams", pipelined(stream, b"\r\n0\r\n\r\n")
    yield 40, "slow streams", in_turn(ask(b"slow"), b"\r\n0\r\n\r\n")
    yield 40, "streams, closing", closing(ask(b"stream", CLOSE), LAST_CHUNK)
    yield 40, "streams, HTTP/1.0", closing(ask(b"stream", version=b"HTTP/1.0"), b"data: ")
    yield 10, "large answers", closing(ask(b"big", CLOSE), b"\0" * 100)
    yield 20, "103 before the answer", in_turn(ask(b"interim"), DONE)
    yield 40, "answers until the end of the upstream's connection", in_turn(ask(b"by-close"), LAST_CHUNK)
    yield 30, "HEAD", pipelined(get(CHAT + b"?small", method=b"HEAD"), b"\r\n\r\n")
    yield 30, "GET", pipelined(get(b"/v1/models?small"), DONE)
    yield 20, "a resource of our own", pipelined(get(b"/health"), b"}\n")
    # What is refused: by the connection, by the pipeline.
    yield 100, "no request", closing(b"nonsense\r\n\r\n", b" 400 ")
    yield 60, "bad framing", closing(ask(b"small", CHUNKED), b" 400 ")
    yield 40, "a bad field", closing(get(b"/v1/models", b"a b: c"), b" 400 ")
    yield (
        40,
        "a bad field that came in pieces",
        in_pieces(b"GET /v1/models HTTP/1.1\r\nHost: a\r\n", b"a b: c\r\nx: y\r\n\r\n", expected=b" 400 "),
    )
    yield 40, "a bad chunk", closing(ask(b"small", CHUNKED, body=None) + b"zz\r\n", b" 400 ")
    yield (
        40,
        "a bad chunk behind a good one",
        in_pieces(ask(b"small", CHUNKED, body=None) + chunk(b"{"), b"zz\r\n", expected=b" 400 "),
    )
    yield (
        40,
        "an upgrade",
        closing(get(b"/v1/models", b"Connection: upgrade", b"Upgrade: websocket"), b" 501 "),
    )
    yield 30, "404", pipelined(request(b"/to/nobody/v1/models"), b'"upstream_unknown"', 1)
    yield (
        40,
        "413 before the body",
        closing(request(CHAT, b"Content-Length: 9000000", b"Expect: 100-continue", body=None), b" 413 "),
    )
    yield (
        20,
        "413 in the body",
        closing(ask(b"small", CHUNKED, body=None) + chunk(bytes(100_000)) * 12, b" 413 "),
    )
    yield (
        20,
        "413 in a body that came after its head",
        in_pieces(ask(b"small", CHUNKED, body=None), chunk(bytes(100_000)) * 12, expected=b" 413 "),
    )
    # What is injected.
    yield 40, "injected", pipelined(ask(b"small", FAULT), b" 429 ")
    yield (
        40,
        "injected, in the middle of a body",
        in_pieces(
            request(CHAT, FAULT, CLOSE, b"Content-Length: 20", body=None), bytes(20), expected=b" 429 "
        ),
    )
    yield 40, "hasty: injected for a model", in_turn(request(CHAT, body=b'{"model": "broken"}'), b" 500 ")
    yield 40, "hasty: not injected for another model", in_turn(ask(b"small", body=LARGE), DONE, 2)
    # The upstream.
    yield 150, "refused connection", in_turn(to(b"closed", b""), b'"upstream_unreachable"', 2)
    for how in (b"short", b"cut", b"no-chunk"):
        yield 40, f"upstream: {how.decode()}", closing(ask(how), b" 200 ")
    # A reset may overtake what was sent before it.
    yield 40, "upstream: reset", closing(ask(b"reset", CLOSE), b"HTTP/1.1 ")
    for how in (b"garbage", b"bad-framing", b"half-a-head", b"nothing"):
        yield 40, f"upstream: {how.decode()}", in_turn(ask(how), b'"upstream_protocol_error"', 4)
    for how in (b"surplus", b"early"):
        yield 40, f"upstream: {how.decode()}", in_turn(ask(how), b"}", 4)
    # It closes connections that are kept, so it has a pool of its own: others would find them, too.
    yield 40, "upstream: stale", in_turn(to(b"moody", b"stale"), b"}", 4)
    yield 30, "hasty: silent", in_turn(ask(b"silent"), b" 504 ", 1)
    yield 30, "hasty: silent in a stream", closing(ask(b"open"), b"data: ")
    yield 20, "hasty: no connection", in_turn(to(b"deaf", b""), b" 504 ", 1)
    yield 20, "hasty: half a head", closing(b"POST / HTTP/1.1\r\nHost: x\r\n", b" 408 ")
    yield 20, "hasty: half a body", closing(request(CHAT, b"Content-Length: 9", body=None), b" 408 ")
    yield (
        20,
        "hasty: half a body, which is read first",
        closing(request(b"/v1/files", b"Content-Length: 9", body=None), b" 408 "),
    )
    # The client.
    for reset in (False, True):
        yield 100, f"left before the head, reset: {reset}", left(ask(b"silent"), None, reset=reset)
        yield 40, f"left a little later, reset: {reset}", leaves_late(ask(b"silent"), reset=reset)
        yield 100, f"left in a stream, reset: {reset}", left(ask(b"open"), b"data: ", reset=reset)
        yield 20, f"left in a large answer, reset: {reset}", left(ask(b"big"), b"\0", reset=reset)
        yield (
            40,
            f"left in its body, reset: {reset}",
            left(request(CHAT, b"Content-Length: 100", body=None) + b"{", None, reset=reset),
        )
        yield (
            40,
            f"left in its chunks, reset: {reset}",
            leaves_late(ask(b"small", CHUNKED, body=None) + chunk(b"{"), reset=reset),
        )
        yield (
            40,
            f"left in its head, reset: {reset}",
            leaves_late(b"GET /v1/models HTTP/1.1\r\nHost: x\r\nAccept: y\r\nx: ", reset=reset),
        )
        yield (
            20,
            f"hasty: left while its body is looked at, reset: {reset}",
            leaves_late(request(CHAT, b"Content-Length: 100", body=None) + b'{"model": "', reset=reset),
        )
        yield 20, f"left while it connects, reset: {reset}", leaves_late(to(b"deaf", b""), reset=reset)
    # Bodies.
    yield 60, "chunked upload", pipelined(ask(b"small", CHUNKED, body=None) + BODY, DONE, 10)
    yield (
        40,
        "chunked upload in pieces",
        in_pieces(ask(b"small", CHUNKED, CLOSE, body=None), BODY[:20], BODY[20:], expected=DONE),
    )
    yield 20, "large upload", in_turn(ask(b"small", body=LARGE), DONE, 3)
    yield (
        20,
        "upload in pieces",
        in_pieces(
            request(CHAT + b"?small", CLOSE, b"Content-Length: 30", body=None),
            bytes(10),
            bytes(20),
            expected=DONE,
        ),
    )
    yield 20, "100 Continue", expecting(b'{"model": "gpt-x"}')


def leaves_late(data: bytes, *, reset: bool) -> Kind:
    """The client leaves when the proxy has had time to begin."""

    def go(port: int) -> int:
        client = Raw(port)
        client.send(data)
        wait_a_moment()
        wait_a_moment()
        if reset:
            client.reset()
        else:
            client.close()
        return 1

    return go


def expecting(body: bytes) -> Kind:
    def go(port: int) -> int:
        client = Raw(port)
        asked = (CLOSE, b"Expect: 100-continue", b"Content-Length: %d" % len(body))
        client.send(request(CHAT + b"?small", *asked, body=None))
        client.until(b" 100 ")
        client.send(body)
        assert DONE in client.rest()
        return 1

    return go


# -- what the collector found -----------------------------------------------------------------

PLUMBING = (types.FrameType, types.TracebackType, types.CellType)


def ours(one: object) -> bool:
    """Whether *one* is of the daemon, or of a library's that only the daemon uses here."""
    if isinstance(one, Deferred | Failure):
        return True
    module = type(one).__module__
    if isinstance(one, types.FrameType):
        module = one.f_globals.get("__name__", "")
    return module.startswith(("llmproxyd", "httptools")) and not module.startswith("llmproxyd.testing")


def name_of(one: object) -> str:
    if isinstance(one, types.FrameType):
        return f"frame {one.f_code.co_qualname}:{one.f_lineno}"
    if isinstance(one, types.MethodType | types.FunctionType | types.BuiltinMethodType):
        return one.__qualname__
    if isinstance(one, dict):
        return f"dict of {', '.join(map(str, list(one)[:4]))}"
    return type(one).__qualname__


def ring(one: object, among: dict[int, object]) -> list[object]:
    """The shortest way from *one* back to itself, empty if there is none."""
    before: dict[int, object] = {}
    waiting = deque([one])
    while waiting:
        here = waiting.popleft()
        for there in gc.get_referents(here):
            if there is one:
                way = [here]
                while way[-1] is not one:
                    way.append(before[id(way[-1])])
                return way[::-1]
            if id(there) in among and id(there) not in before:
                before[id(there)] = here
                waiting.append(there)
    return []


def holder(one: object, among: dict[int, object]) -> list[object]:
    """The nearest cycle from which *one* is held."""
    holders: dict[int, list[object]] = {}
    for other in among.values():
        for held in gc.get_referents(other):
            holders.setdefault(id(held), []).append(other)
    waiting, seen = deque([one]), {id(one)}
    while waiting:
        here = waiting.popleft()
        if way := ring(here, among):
            return way
        for other in holders.get(id(here), ()):
            if id(other) not in seen:
                seen.add(id(other))
                waiting.append(other)
    return []


def rings(garbage: list[object]) -> Counter[str]:
    """The cycles through what is ours, or that hold it, in words, and how often each is there."""
    among = {id(one): one for one in garbage}
    found: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    for one in garbage:
        if not ours(one):
            continue
        seen[name_of(one)] += 1
        if seen[name_of(one)] > 50:
            continue
        way = ring(one, among)
        if way:
            names = list(map(name_of, way))
            least = names.index(min(names))
            found[" → ".join(names[least:] + names[:least])] += 1
        elif seen[name_of(one)] <= 3:
            found[f"{name_of(one)}, held by {' → '.join(map(name_of, holder(one, among)))}"] += 1
    return found


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.freeze()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
        gc.unfreeze()


@pytest.fixture
def scripted(_nothing_left: None) -> Iterator[Scripted]:
    made = Scripted().listen(reactor)
    yield made
    pytest_twisted.blockon(made.stop())


def all_of(patient: ProxyUnderTest, hasty: ProxyUnderTest) -> Iterator[tuple[str, Kind, int]]:
    """Every kind as often as it is wanted, mixed."""
    wanted = list(kinds())
    for number in range(max(count for count, _, _ in wanted)):
        for count, name, kind in wanted:
            if number < count:
                yield name, kind, (hasty if name.startswith("hasty: ") else patient).port


def work(jobs: Iterator[tuple[str, Kind, int]]) -> Counter[str]:
    """In a thread: one job after the other; how many requests there were of each."""
    done: Counter[str] = Counter()
    for name, kind, port in jobs:
        try:
            done[name] += kind(port)
        except Exception as error:
            done[f"FAILED {name}: {error!r}"] += 1
    return done


class Shared(Iterator[tuple[str, Kind, int]]):
    """Jobs for several threads."""

    def __init__(self, jobs: Iterator[tuple[str, Kind, int]]) -> None:
        self._jobs = deque(jobs)

    def __next__(self) -> tuple[str, Kind, int]:
        try:
            return self._jobs.popleft()
        except IndexError:
            raise StopIteration from None


ABSORBING: dict[str, Any] = {
    "retry": {"max_retries": 1, "base_delay": "1ms", "budget": {"min_per_second": 1_000_000}},
    "breaker": {"enabled": True, "failure_threshold": 1_000_000},
    "stream_keepalive": "100ms",
    "timeouts": {"first_content": "5s", "total": "30s"},
}
POLICIES = [pytest.param({}, id="nothing absorbed"), pytest.param({"default": ABSORBING}, id="absorbing")]


@pytest.mark.parametrize("policies", POLICIES)
@pytest_twisted.ensureDeferred
async def test_nothing_is_left_to_the_collector(
    scripted: Scripted, closed_port: int, deaf_port: int, no_collector: None, policies: dict[str, Any]
) -> None:
    bench = Bench(scripted)
    elsewhere = {
        name: {"provider": "openai", "base_url": f"http://127.0.0.1:{port}"}
        for name, port in (("closed", closed_port), ("deaf", deaf_port), ("moody", scripted.port))
    }
    patient = bench.proxy(
        upstreams=elsewhere, server={"max_body": 1_000_000}, faults={"header": True}, resilience=policies
    )
    hasty = bench.proxy(
        resilience=policies,
        upstreams=elsewhere,
        server={"header_timeout": 0.2, "idle_timeout": 0.3},
        timeouts={"connect": 0.2, "headers": 0.6, "idle": 0.2},
        faults={"rules": [{"name": "broken", "error": "server_error", "model": "broken"}]},
    )
    jobs = Shared(all_of(patient, hasty))
    try:
        done = sum(await gatherResults([deferToThread(work, jobs) for _ in range(THREADS)]), Counter())
        for proxy in (patient, hasty):
            daemon: Any = proxy.daemon
            await until(lambda daemon=daemon: not daemon.pipeline.active, "the end of all requests")
            told = Counter(type(event) for event in proxy.sink.events)
            assert told[Arrived] == told[Finished] == daemon.pipeline.handled
        await pause(0.3)
        gc.collect()
        garbage = list(gc.garbage)
        gc.garbage.clear()
        found = rings(garbage)
    finally:
        await bench.close()
    failed = [what for what in done if what.startswith("FAILED")]
    assert not failed, "\n".join(failed)
    assert sum(done.values()) >= 10_000, done
    words = "\n".join(f"{count:6}  {what}" for what, count in found.most_common(40))
    assert not found, f"cycles, among {len(garbage)} objects:\n{words}"
