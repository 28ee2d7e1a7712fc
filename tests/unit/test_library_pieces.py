"""The pieces between a site's own parts and the proxy."""

from __future__ import annotations

from tempfile import TemporaryFile
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import Clock
from twisted.logger import LogEvent, Logger
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers

from llmproxyd.library.bounded import bounded
from llmproxyd.library.lines import logger_of
from llmproxyd.library.outlets import TIMEOUT, WAITING, Outlet
from llmproxyd.redaction import Redactor
from llmproxyd.site.stock import WholeBody, below, head_of
from llmproxyd.wire.head import BadRequest

LOG = Logger(observer=lambda event: None)


def outcome(of: Deferred[Any]) -> Any:
    """What *of* has fired with; a failure's exception."""
    found: list[Any] = []
    of.addBoth(found.append)
    assert found, "it has not fired"
    return found[0].value if isinstance(found[0], Failure) else found[0]


def test_bounded_work_at_hand_needs_no_timer() -> None:
    clock = Clock()
    assert outcome(bounded(succeed(1), 5, clock)) == 1
    assert not clock.getDelayedCalls()


def test_bounded_work_in_time_stops_its_timer() -> None:
    clock, work = Clock(), Deferred[int]()
    waiting = bounded(work, 5, clock)
    work.callback(1)
    assert outcome(waiting) == 1
    assert not clock.getDelayedCalls()


@pytest.mark.parametrize("late", ["in vain", "fails", "never"])
def test_bounded_work_that_takes_too_long_is_cancelled_and_forgotten(late: str) -> None:
    clock = Clock()
    cancelled: list[object] = []

    def cancel(one: Deferred[int]) -> None:
        cancelled.append(one)
        if late == "in vain":
            one.callback(1)
        elif late == "fails":
            one.errback(RuntimeError())

    work = Deferred[int](cancel)
    waiting = bounded(work, 5, clock)
    clock.advance(4.9)
    assert not waiting.called
    clock.advance(0.2)
    assert isinstance(outcome(waiting), TimeoutError)
    assert cancelled == [work]


def test_bounded_work_is_cancelled_by_whoever_waits() -> None:
    clock, work = Clock(), Deferred[int]()
    waiting = bounded(work, 5, clock)
    waiting.cancel()
    assert isinstance(outcome(waiting), CancelledError)
    clock.advance(10)
    assert not clock.getDelayedCalls()


def test_outlet_is_bounded() -> None:
    clock = Clock()
    calls: list[Deferred[None]] = []

    def call(entry: object) -> Deferred[None]:
        calls.append(Deferred())
        return calls[-1]

    outlet = Outlet("it", call, clock, LOG)
    for _ in range(WAITING + 5):
        outlet.put({})
    assert (len(calls), outlet.dropped) == (WAITING, 5)
    calls[0].callback(None)
    outlet.put({})
    assert (len(calls), outlet.dropped) == (WAITING + 1, 5)
    clock.advance(TIMEOUT)
    assert outlet.failures == WAITING
    outlet.put({})
    assert len(calls) == WAITING + 2


def test_failure_in_the_log_has_no_secret_and_nothing_that_holds_one() -> None:
    seen: list[LogEvent] = []
    log = logger_of(seen.append, Redactor())
    log.failure(
        "{what} broke",
        Failure(ValueError("bad sk-secret-one-two-three")),
        what="sk-secret-one-two-three",
        secrets=("sk-secret-one-two-three",),
        request=object(),
    )
    (event,) = seen
    assert "sk-secret" not in str(event)
    assert "ValueError" in event["trace"]
    assert not {"log_failure", "secrets", "request"} & event.keys()


@given(
    st.lists(st.text("ab%2F.~", max_size=4), min_size=1, max_size=6),
    st.integers(0, 6),
    st.text("ab/?&=", max_size=6),
)
def test_what_is_below_a_place_is_raw_and_begins_with_a_slash(
    parts: list[str], segments: int, query: str
) -> None:
    path = "/" + "/".join(parts)
    got = below(f"{path}?{query}".encode(), segments)
    assert got == f"/{'/'.join(parts[segments:])}?{query}".encode()
    assert below(path.encode(), 0) == path.encode()


@pytest.mark.parametrize(
    ("name", "value"), [(b"X", b"a\nEvil: 1"), (b"X", b"a\r\nEvil: 1"), (b"X\n", b"a"), (b"X", b"a\0")]
)
def test_field_that_holds_more_than_itself_is_refused(name: bytes, value: bytes) -> None:
    class Fields:
        def getAllRawHeaders(self) -> list[tuple[bytes, list[bytes]]]:
            return [(b"Host", [b"x"]), (name, [value])]

    request = SimpleNamespace(
        method=b"GET",
        uri=b"/",
        clientproto=b"HTTP/1.1",
        prepath=[],
        requestHeaders=Fields(),
        getClientAddress=lambda: None,
    )
    with pytest.raises(BadRequest):
        head_of(request)


class _Stock:
    """As much of a request as a body needs."""

    def __init__(self, data: bytes) -> None:
        self.content: Any = TemporaryFile()  # noqa: SIM115
        self.content.write(data)
        self.requestHeaders = Headers()


@pytest.mark.parametrize("size", [0, 10, 262_144, 262_145])
def test_whole_body_can_be_read_and_sent_again(size: int) -> None:
    data = bytes(n % 251 for n in range(size))
    stock = _Stock(data)
    body = WholeBody(stock, Clock())
    assert stock.content is None
    assert body.length == size
    assert outcome(body.excerpt(size, 3)) == data
    assert body.at_hand().read(size) == data
    if size > 10:
        assert outcome(body.excerpt(size - 1, 3)) == data[:3] + data[-3:]
    assert outcome(body.keep()).read(size) == data
    first, second = body.producer(), body.producer()
    if size == 0:
        assert first is second is None
    else:
        assert first is not None
        assert second is not None
        assert first.length == second.length == size
