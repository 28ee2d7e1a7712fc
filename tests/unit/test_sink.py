"""The sink: who is told of what, in which order, and what a subscriber that fails does to others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogEvent, globalLogPublisher

from llmproxyd.http.body import NO_BODY
from llmproxyd.inspection.prices import Prices
from llmproxyd.model import Arrived, BreakerChanged, End, Event, Finished, Request
from llmproxyd.observe.eventjson import EventFormat
from llmproxyd.observe.journal import Journal
from llmproxyd.observe.metrics import Metrics
from llmproxyd.observe.output import Output
from llmproxyd.observe.requestlog import FLUSH, RequestLog
from llmproxyd.observe.sink import BATCH, Batched, Sink
from llmproxyd.observe.targets import Targets
from llmproxyd.pipeline.exchange import Exchange
from llmproxyd.redaction import Redactor

CHANGED = BreakerChanged(name="openai", before="closed", after="open", cause="5 failures")


def done(number: int, **more: Any) -> Finished:
    event = Finished(number, f"r-{number}", "GET", "/", "openai", "openai", 200, 0.1, 2, End.COMPLETE)
    return replace(event, **more)


class Taker(Batched):
    """Remembers what it took; fails on the numbers *bad*."""

    def __init__(self, *bad: int) -> None:
        self.took: list[object] = []
        self.batches = self.awaited = 0
        self._bad = bad

    def __call__(self, event: Event) -> None:
        self.took.append(event if not isinstance(event, Finished) else event.number)

    def finished(self, events: Iterator[Finished]) -> None:
        self.batches += 1
        for event in events:
            if event.number in self._bad:
                raise ValueError(event.number)
            self.took.append(event.number)

    def waiting(self) -> None:
        self.awaited += 1


@pytest.fixture
def failures() -> Iterator[list[LogEvent]]:
    seen: list[LogEvent] = []

    def observe(event: LogEvent) -> None:
        if "log_failure" in event:
            seen.append(event)

    globalLogPublisher.addObserver(observe)
    yield seen
    globalLogPublisher.removeObserver(observe)


def sink_of(*subscribers: Any) -> Sink:
    made = Sink()
    for one in subscribers:
        made.subscribe(one, arrivals=False)
    return made


def test_a_plain_subscriber_is_told_at_once() -> None:
    told: list[Event] = []
    sink = sink_of(told.append)
    event = done(1)
    sink.emit(event)
    assert told == [event]


def test_batches_are_handed_over_when_they_are_full_or_asked_for() -> None:
    taker = Taker()
    sink = sink_of(taker)
    for number in range(BATCH - 1):
        sink.emit(done(number))
    assert (taker.took, taker.awaited) == ([], 1)
    sink.emit(done(BATCH - 1))
    assert taker.took == list(range(BATCH))
    assert taker.batches == 1
    sink.emit(done(BATCH))
    assert len(taker.took) == BATCH
    assert taker.awaited == 2
    taker.settle()
    taker.settle()
    assert taker.took == list(range(BATCH + 1))
    assert taker.batches == 2


def test_the_order_of_all_events_is_kept() -> None:
    taker = Taker()
    sink = sink_of(taker)
    for event in (done(1), CHANGED, done(2), done(3), CHANGED):
        sink.emit(event)
    assert taker.took == [1, CHANGED, 2, 3, CHANGED]


def test_who_subscribes_later_is_told_of_what_comes_later() -> None:
    first, later = Taker(), Taker()
    sink = sink_of(first)
    sink.emit(done(1))
    sink.subscribe(later)
    sink.emit(done(2))
    sink.settle()
    assert (first.took, later.took) == ([1, 2], [2])


def test_one_that_fails_harms_no_other_and_loses_what_it_failed_on_alone(failures: list[LogEvent]) -> None:
    def fails(event: Event) -> None:
        raise ZeroDivisionError

    bad, good = Taker(2, 3, 5), Taker()
    sink = sink_of(fails, bad, good)
    for number in range(1, 6):
        sink.emit(done(number))
    sink.settle()
    assert bad.took == [1, 4]
    assert good.took == [1, 2, 3, 4, 5]
    assert sink.failures == 5 + 3
    assert len(failures) == 1


def test_one_that_fails_before_it_takes_anything_is_not_asked_for_ever() -> None:
    class Broken(Taker):
        def finished(self, events: Iterator[Finished]) -> None:
            raise ZeroDivisionError

        def waiting(self) -> None:
            raise ZeroDivisionError

    good = Taker()
    sink = sink_of(Broken(), good)
    for number in range(3):
        sink.emit(done(number))
    sink.settle()
    assert good.took == [0, 1, 2]
    assert sink.failures == 1 + 3


def test_one_may_settle_and_tell_while_it_is_told() -> None:
    class Asks(Taker):
        def finished(self, events: Iterator[Finished]) -> None:
            self.settle()
            super().finished(events)

    asks, other = Asks(), Taker()
    sink = sink_of(asks, other)
    sink.emit(done(1))
    sink.emit(CHANGED)
    assert asks.took == other.took == [1, CHANGED]


def test_arrivals_are_announced_where_somebody_wants_them() -> None:
    sink = Sink()
    sink.subscribe(Taker(), arrivals=False)
    assert not sink.announcing
    sink.subscribe(Taker())
    assert sink.announcing
    sink.emit(Arrived(1, "r-1", "GET", "/", "openai", "openai"))


# Those that take batches in the daemon: whoever reads them sees all that is over.


def test_a_scrape_shows_every_request_that_was_over_before_it() -> None:
    metrics = Metrics()
    sink = sink_of(metrics)
    for number in range(1, 2 * BATCH):
        sink.emit(done(number))
        page = metrics.render()[0].decode()
        assert f'upstream="openai",provider="openai",operation="unknown",status="200",origin="upstream"}} {number}.0' in page  # fmt: skip


def test_an_upstreams_state_is_that_after_the_last_request() -> None:
    targets = Targets()
    sink = sink_of(targets)
    assert targets.status("openai") == "unknown"
    told = []
    for more in (
        {},
        {"failed": True, "code": "upstream_unreachable"},
        {"fault": "overloaded"},
        {"code": "model_not_allowed"},
        {},
        {"end": End.CLIENT_GONE},
        {"status": 503},
    ):
        sink.emit(done(1, upstream="other"))
        sink.emit(done(2, **more))
        told.append(targets.status("openai"))
    assert told == ["ok", "failing", "failing", "failing", "ok", "ok", "failing"]
    assert targets.status("other") == "ok"


def test_of_several_requests_the_last_that_tells_something_counts() -> None:
    targets = Targets()
    sink = sink_of(targets)
    for event in (done(1), done(2, failed=True), done(3, upstream="other"), done(4, fault="overloaded")):
        sink.emit(event)
    assert (targets.status("openai"), targets.status("other")) == ("failing", "ok")


def test_the_journal_has_every_request_that_is_over() -> None:
    journal = Journal(10, lambda: 1.0, EventFormat(Redactor(), Prices({})))
    sink = sink_of(journal)
    for number in range(1, 31):
        sink.emit(done(number, wall=float(number)))
        assert [row["time"] for row in journal.recent()] == list(range(max(1, number - 9), number + 1))
    sink.emit(done(31))
    assert journal.explain("#31") is not None
    sink.emit(done(32))
    assert journal.state()["requests"] == 10


def test_whoever_follows_sees_a_request_as_it_ends_and_none_before() -> None:
    journal = Journal(10, lambda: 1.0, EventFormat(Redactor(), Prices({})))
    sink = sink_of(journal)
    told: list[int] = []
    sink.emit(done(1))
    stop = journal.follow((), lambda row: told.append(row["number"]))
    sink.emit(done(2))
    assert told == [2]
    stop()
    sink.emit(done(3))
    sink.settle()
    assert told == [2]


class Written:
    """A request log before a sink, and what it has written."""

    def __init__(self, least: str = "info") -> None:
        self.text, self.clock = "", Clock()
        self.log = RequestLog(Output(self), self.clock, lambda: 1e9, as_json=False, least=least)  # type: ignore[arg-type]
        self.sink = sink_of(self.log)

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None: ...

    @property
    def numbers(self) -> list[str]:
        return [line.split("#")[1].split()[0] for line in self.text.splitlines()]


def test_lines_are_written_soon_however_few_requests_there_are() -> None:
    written = Written()
    written.sink.emit(done(1, wall=1e9))
    written.clock.advance(FLUSH)
    assert written.numbers == ["1"]
    assert written.clock.getDelayedCalls() == []
    for number in range(2, BATCH + 4):
        written.sink.emit(done(number, wall=1e9))
    written.clock.advance(FLUSH)
    assert written.numbers == [str(number) for number in range(1, BATCH + 4)]
    assert written.clock.getDelayedCalls() == []


def test_a_flush_writes_what_waits_and_a_level_holds_from_then_on() -> None:
    written = Written()
    written.sink.emit(done(1))
    written.log.set_level("llmproxyd", "error")
    written.sink.emit(done(2))
    written.log.flush()
    assert written.numbers == ["1"]
    assert written.clock.getDelayedCalls() == []


def test_a_log_that_writes_no_requests_starts_no_timer() -> None:
    written = Written(least="error")
    written.sink.emit(done(1))
    assert written.clock.getDelayedCalls() == []


# What is told.


class Silent:
    """A client that is sent nothing."""

    def finish(self) -> None: ...

    def cut(self) -> None: ...


def test_the_final_event_has_every_member() -> None:
    told: list[Finished] = []
    request = Request(b"POST", b"/v1/chat/completions", (), peer="127.0.0.1:5")
    exchange = Exchange(7, "ab-7", request, NO_BODY, Silent(), None, 1.0, lambda _, event: told.append(event))  # type: ignore[arg-type]
    exchange.cut(End.TRUNCATED, "shutting_down", "it stops", 3.5)
    [event] = told
    # Whoever adds a member to it finds here that it is made by hand.
    for one in fields(Finished):
        assert hasattr(event, one.name), one.name
    assert event == Finished(
        number=7,
        request_id="ab-7",
        method="-",
        path="-",
        provider="-",
        upstream="-",
        status=0,
        duration=2.5,
        sent=0,
        end=End.TRUNCATED,
        code="shutting_down",
        detail="it stops",
        received=NO_BODY.length,
        peer="127.0.0.1:5",
    )
