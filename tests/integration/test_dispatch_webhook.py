"""Events to a web server that takes them, refuses them, hangs, or is not there."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted
from bench import reactor
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from wireclient import pause, until

from llmproxyd.config.gateway import Dispatch, Events
from llmproxyd.model import Body, Captured, End, Finished
from llmproxyd.observe.bus import Bus
from llmproxyd.observe.dispatch import dispatcher, webhook
from llmproxyd.observe.dispatch.build import Means, bus_of
from llmproxyd.redaction import Redactor, Secret
from llmproxyd.testing.upstream import (
    Action,
    Close,
    FakeUpstream,
    Pour,
    Reset,
    Send,
    Stall,
    Wait,
    answer,
    head,
)

OK: list[Action] = [Send(answer(b"thanks"))]


def finished(number: int = 1, **more: Any) -> Finished:
    return Finished(number, f"r-{number}", "GET", "/", "openai", "openai", 200, 0.1, 2, End.COMPLETE, **more)


def status(line: bytes, *fields: bytes) -> list[Action]:
    return [Send(answer(b"", *fields, status=line))]


class Hook:
    """A bus with one webhook."""

    def __init__(self, url: str, **more: Any) -> None:
        settings = Dispatch("webhook", url=Secret(url), **{"batch": 2, "every": 0.01} | more)
        means = Means(reactor, lambda: 1_700_000_000.0, lambda: 0.0)
        self.bus: Bus = bus_of(Events(dispatch=(settings,)), means, Redactor(), "p")

    def publish(self, *numbers: int, **more: Any) -> None:
        for number in numbers:
            self.bus.publish(finished(number, **more))

    @property
    def name(self) -> str:
        return next(iter(self.bus.state()))

    def state(self) -> dict[str, int]:
        (state,) = self.bus.state().values()
        return dict(state)

    async def settled(self, **counts: int) -> None:
        await until(lambda: counts.items() <= self.state().items(), f"{counts}")


@pytest.fixture
def hook(upstream: FakeUpstream) -> Iterator[Any]:
    made: list[Hook] = []

    def make(url: str | None = None, **more: Any) -> Hook:
        made.append(Hook(url or f"{upstream.url}/events", **more))
        return made[-1]

    yield make
    for one in made:
        pytest_twisted.blockon(one.bus.stop())


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(dispatcher, "FLUSH", 1.0)
    monkeypatch.setattr(webhook, "TIMEOUT", 0.2)


@pytest.fixture
def logged() -> Iterator[list[str]]:
    lines: list[str] = []

    def observe(event: LogEvent) -> None:
        lines.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)


def ids(upstream: FakeUpstream) -> list[list[str]]:
    return [[event["id"] for event in json.loads(request.body)] for request in upstream.requests]


@pytest_twisted.ensureDeferred
async def test_batches_arrive_as_arrays_of_json_on_one_connection(hook: Any, upstream: FakeUpstream) -> None:
    upstream.scripts = [OK]
    made = hook()
    made.publish(1, 2, 3)
    await made.settled(delivered=3)
    assert ids(upstream) == [["p-1", "p-2"], ["p-3"]]
    first = upstream.requests[0]
    assert (first.method, first.target) == (b"POST", b"/events")
    assert first.all(b"content-type") == [b"application/json"]
    assert first.all(b"user-agent") == [b"llmproxyd"]
    assert json.loads(first.body)[0]["request_id"] == "r-1"
    assert len(upstream.connections) == 1


@pytest_twisted.ensureDeferred
async def test_login_and_fields_are_sent_and_shown_nowhere(
    hook: Any, upstream: FakeUpstream, logged: list[str]
) -> None:
    upstream.scripts = [status(b"403 Forbidden")]
    place = f"127.0.0.1:{upstream.port}"
    url = f"http://us%40er:pass%3Aword@{place}/services/T0/secretpath?key=secretquery#secretpart"
    made = hook(url, headers={"X-Token": Secret("secrettoken"), "User-Agent": Secret("mine")})
    made.publish(1, 2)
    await made.settled(dropped=2)
    (request,) = upstream.requests
    assert request.target == b"/services/T0/secretpath?key=secretquery"
    assert request.all(b"authorization") == [b"Basic dXNAZXI6cGFzczp3b3Jk"]
    assert request.all(b"x-token") == [b"secrettoken"]
    assert request.all(b"user-agent") == [b"mine"]
    assert request.all(b"host") == [place.encode()]
    assert made.name == f"webhook http://{place}"
    text = "\n".join(logged)
    assert f"Events to webhook http://{place} are dropped: the server answered 403" in text
    assert "secret" not in text
    assert "pass" not in text


@pytest.mark.parametrize("line", [b"500 Oops", b"503 Busy", b"429 Slowly", b"408 Late", b"599 Odd"])
@pytest_twisted.ensureDeferred
async def test_what_may_pass_is_tried_again(hook: Any, upstream: FakeUpstream, line: bytes) -> None:
    upstream.scripts = [status(line), status(line), OK]
    made = hook()
    made.publish(1)
    await made.settled(delivered=1, failures=2, dropped=0)
    assert ids(upstream) == [["p-1"]] * 3


@pytest.mark.parametrize("line", [b"400 Bad", b"401 No", b"404 Gone", b"413 Large", b"304 Same"])
@pytest_twisted.ensureDeferred
async def test_what_will_not_pass_is_dropped(
    hook: Any, upstream: FakeUpstream, line: bytes, logged: list[str]
) -> None:
    upstream.scripts = [status(line), status(line), OK]
    made = hook()
    made.publish(1, 2, 3, 4, 5)
    await made.settled(delivered=1, dropped=4)
    assert ids(upstream) == [["p-1", "p-2"], ["p-3", "p-4"], ["p-5"]]
    assert len([one for one in logged if "are dropped" in one]) == 1
    assert next(one for one in logged if "delivered again" in one).endswith("4 were dropped")


@pytest_twisted.ensureDeferred
async def test_redirect_is_not_followed(hook: Any, upstream: FakeUpstream, logged: list[str]) -> None:
    place = b"location: http://127.0.0.1:%d/elsewhere" % upstream.port
    upstream.scripts = [status(b"307 There", place), OK]
    made = hook()
    made.publish(1)
    await made.settled(dropped=1)
    await pause(0.05)
    assert [request.target for request in upstream.requests] == [b"/events"]
    assert any("redirects are not followed" in line for line in logged)


@pytest_twisted.ensureDeferred
async def test_retry_after_is_obeyed(hook: Any, upstream: FakeUpstream) -> None:
    upstream.scripts = [status(b"429 Slowly", b"retry-after: 1"), OK]
    made = hook()
    start = reactor.seconds()
    made.publish(1)
    await made.settled(delivered=1)
    assert 1.0 <= reactor.seconds() - start < 3.0


BROKEN: list[Any] = [
    pytest.param([Reset()], id="reset"),
    pytest.param([Close()], id="closed"),
    pytest.param([Stall()], id="hangs"),
    pytest.param([Send(b"HTTP/1.1 200"), Stall()], id="half-a-head"),
    pytest.param([Send(b"\x15\x03\x01 what?\r\n\r\n"), Stall()], id="no-http"),
    pytest.param([Send(b"HTTP/1.1 2"), Close()], id="torn-head"),
]


@pytest.mark.parametrize("script", BROKEN)
@pytest_twisted.ensureDeferred
async def test_connection_that_fails_is_tried_again(hook: Any, upstream: FakeUpstream, script: Any) -> None:
    upstream.scripts = [script, script, OK]
    made = hook()
    made.publish(1)
    await made.settled(delivered=1, failures=2, dropped=0)
    assert ids(upstream) == [["p-1"]] * 3


@pytest_twisted.ensureDeferred
async def test_server_that_hangs_is_told(hook: Any, upstream: FakeUpstream, logged: list[str]) -> None:
    upstream.scripts = [[Stall()], [Stall()], OK]
    made = hook()
    made.publish(1)
    await made.settled(delivered=1)
    assert [line for line in logged if "have to wait: no answer within 0.2 s" in line]


@pytest.mark.parametrize(
    "script",
    [
        pytest.param([Send(head(b"content-length: 100")), Stall()], id="hangs"),
        pytest.param([Send(head(b"content-length: 100")), Wait(0.05), Reset()], id="resets"),
        pytest.param([Send(head()), Pour(b"x" * 65536, 10_000)], id="endless"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_taken_is_taken_whatever_becomes_of_the_rest_of_the_answer(
    hook: Any, upstream: FakeUpstream, script: Any
) -> None:
    upstream.scripts = [script, OK]
    made = hook()
    made.publish(1)
    await made.settled(delivered=1, failures=0)
    made.publish(2)
    await made.settled(delivered=2, failures=0)
    assert ids(upstream) == [["p-1"], ["p-2"]]
    await until(lambda: upstream.connections[0].lost, "its connection is given up")
    poured = [action for action in script if isinstance(action, Pour)]
    assert all(one.poured < 16 * 1024**2 for one in poured)


@pytest_twisted.ensureDeferred
async def test_cookies_are_not_sent_back(hook: Any, upstream: FakeUpstream) -> None:
    upstream.scripts = [status(b"200 OK", b"set-cookie: a=b; path=/")]
    made = hook()
    for number in (1, 2):
        made.publish(number)
        await made.settled(delivered=number)
    assert upstream.requests[1].all(b"cookie") == []


@pytest_twisted.ensureDeferred
async def test_connection_closed_while_idle_costs_nothing_but_a_second_try(
    hook: Any, upstream: FakeUpstream, logged: list[str]
) -> None:
    upstream.scripts = [[*OK, Close()], OK]
    made = hook()
    for number in (1, 2):
        made.publish(number)
        await made.settled(delivered=number, dropped=0)
        await until(lambda: upstream.connections[0].lost)
    assert [line for line in logged if "Events to" in line] == []


@pytest_twisted.ensureDeferred
async def test_nobody_there_then_somebody(
    hook: Any, logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook, "TIMEOUT", 5.0)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    made = hook(f"http://127.0.0.1:{port}/")
    made.publish(1, 2, 3)
    await until(lambda: made.state()["failures"] > 3)
    server = FakeUpstream(OK)
    server.clock = reactor
    server._port = reactor.listenTCP(port, server, interface="127.0.0.1")
    try:
        await made.settled(delivered=3, dropped=0)
    finally:
        await made.bus.stop()
        await server.stop()
    told = [line for line in logged if "Events to" in line]
    assert told[0].endswith("have to wait: Connection was refused by other side")
    assert told[1].endswith("are delivered again; 0 were dropped")


@pytest_twisted.ensureDeferred
async def test_requests_go_on_while_the_server_hangs_and_memory_is_bounded(
    hook: Any, upstream: FakeUpstream
) -> None:
    upstream.scripts = [[Stall()]]
    made = hook()
    body = Captured(response=Body(data=b"x" * 200_000, length=200_000))
    start = reactor.seconds()
    made.publish(*range(5000), captured=body)
    assert reactor.seconds() - start < 0.5
    state = made.state()
    assert state["queued"] * 200_000 <= dispatcher.MAX_BYTES
    assert state["queued"] + state["dropped"] == 5000


@pytest_twisted.ensureDeferred
async def test_stop_delivers_what_waits(hook: Any, upstream: FakeUpstream) -> None:
    upstream.scripts = [OK]
    made = hook(every=60.0, batch=100)
    made.publish(*range(250))
    await made.bus.stop()
    assert [len(batch) for batch in ids(upstream)] == [100, 100, 50]


@pytest.mark.parametrize("script", BROKEN)
@pytest_twisted.ensureDeferred
async def test_stop_is_bounded_whatever_the_server_does(
    hook: Any, upstream: FakeUpstream, script: Any
) -> None:
    upstream.scripts = [script]
    made = hook()
    made.publish(1, 2, 3)
    await until(lambda: upstream.requests)
    start = reactor.seconds()
    await made.bus.stop()
    assert reactor.seconds() - start < 2
    assert made.state()["dropped"] == 3
