"""The bus and its dispatchers: nobody waits for another, what does not fit is counted and told."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from llmproxyd.inspection.prices import Prices
from llmproxyd.model import Arrived, Body, Captured, End, Finished
from llmproxyd.observe.bus import Bus
from llmproxyd.observe.dispatch.destination import Undelivered
from llmproxyd.observe.dispatch.dispatcher import ATTEMPTS, FLUSH, LONGEST_WAIT, Dispatcher, Pace
from llmproxyd.observe.eventjson import EventFormat, Told
from llmproxyd.observe.sink import Sink
from llmproxyd.redaction import Redactor


class Place:
    """A destination that answers when it is told to, or at once with *answers*."""

    def __init__(self, name: str = "place", answers: Sequence[Exception | None] | None = ()) -> None:
        self.name = name
        self.answers = None if answers is None else list(answers)
        self.got: list[list[str]] = []
        self.open: list[Deferred[None]] = []
        self.cancelled = 0
        self.closed = 0

    def deliver(self, batch: Sequence[Told]) -> Deferred[None]:
        self.got.append([told.id for told in batch])
        done: Deferred[None] = Deferred(self._cancel)
        if self.answers is None:
            self.open.append(done)
        else:
            self.answer(done, self.answers.pop(0) if self.answers else None)
        return done

    def _cancel(self, _: Deferred[None]) -> None:
        self.cancelled += 1

    def answer(self, done: Deferred[None], answer: Exception | None = None) -> None:
        if answer is None:
            done.callback(None)
        else:
            done.errback(answer)

    def close(self) -> Deferred[None]:
        self.closed += 1
        return succeed(None)

    @property
    def ids(self) -> list[str]:
        return [one for batch in self.got for one in batch]


@pytest.fixture
def logged() -> Iterator[list[str]]:
    lines: list[str] = []

    def observe(event: LogEvent) -> None:
        if str(event.get("log_namespace", "")).startswith("llmproxyd"):
            lines.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def dispatcher(place: Place, clock: Clock, **pace: Any) -> Dispatcher:
    return Dispatcher(place, Pace(**pace), clock, lambda: 0.0)


def finished(**more: Any) -> Finished:
    return Finished(1, "r-1", "GET", "/", "openai", "openai", 200, 0.1, 2, End.COMPLETE, **more)


def told(number: int, **more: Any) -> Told:
    return Told(f"e{number}", 0.0, finished(**more))


def fill(sender: Dispatcher, count: int, start: int = 1) -> None:
    for number in range(start, start + count):
        sender.put(told(number))


def names(first: int, last: int) -> list[str]:
    return [f"e{number}" for number in range(first, last + 1)]


# Batches.


def test_full_batch_goes_at_once(clock: Clock) -> None:
    place = Place()
    sender = dispatcher(place, clock, batch=3)
    fill(sender, 2)
    assert place.got == []
    fill(sender, 1, 3)
    assert place.got == [["e1", "e2", "e3"]]


def test_one_event_waits_no_longer_than_it_may(clock: Clock) -> None:
    place = Place()
    sender = dispatcher(place, clock, every=2.0)
    fill(sender, 1)
    clock.advance(1.9)
    assert place.got == []
    clock.advance(0.1)
    assert place.got == [["e1"]]
    clock.advance(10)
    assert place.got == [["e1"]]


def test_one_batch_at_a_time_in_order(clock: Clock) -> None:
    place = Place(answers=None)
    sender = dispatcher(place, clock, batch=2)
    fill(sender, 5)
    clock.advance(60)
    assert place.got == [["e1", "e2"]]
    place.answer(place.open[0])
    clock.advance(0)
    assert place.got == [["e1", "e2"], ["e3", "e4"]]
    place.answer(place.open[1])
    clock.advance(1)
    assert place.got[2:] == [["e5"]]


def test_batch_is_bounded_in_bytes(clock: Clock) -> None:
    place = Place(answers=None)
    sender = dispatcher(place, clock, batch=10, batch_bytes=150_000)
    for number in range(1, 4):
        body = Body(data=b"x" * 100_000, length=100_000)
        sender.put(told(number, captured=Captured(request=body)))
    clock.advance(1)
    assert place.got == [["e1"]]


# Bounds.


def test_what_does_not_fit_is_dropped_counted_and_told_once(clock: Clock, logged: list[str]) -> None:
    place = Place(answers=None)
    sender = dispatcher(place, clock, batch=2, limit=4)
    fill(sender, 10)
    assert sender.state() == {"queued": 4, "delivered": 0, "dropped": 6, "failures": 0}
    assert logged == ["Events to place are dropped: they come faster than they are taken"]
    place.answer(place.open[0])
    assert logged[1:] == ["Events to place are delivered again; 6 were dropped"]
    clock.advance(1)
    place.answer(place.open[1])
    assert place.ids == names(1, 4)
    assert sender.state() == {"queued": 0, "delivered": 4, "dropped": 6, "failures": 0}


def test_bytes_that_wait_are_bounded(clock: Clock) -> None:
    sender = dispatcher(Place(answers=None), clock, max_bytes=250_000)
    for number in range(1, 5):
        body = Body(data=b"x" * 100_000, length=100_000)
        sender.put(told(number, captured=Captured(response=body)))
    assert sender.state()["queued"] == 2
    assert sender.dropped == 2


def test_bytes_are_free_again_once_delivered(clock: Clock) -> None:
    place = Place()
    sender = dispatcher(place, clock, max_bytes=4000)
    for _ in range(20):
        fill(sender, 3)
        clock.advance(1)
    assert sender.state() == {"queued": 0, "delivered": 60, "dropped": 0, "failures": 0}


def test_single_event_larger_than_the_bound_is_still_taken(clock: Clock) -> None:
    place = Place()
    sender = dispatcher(place, clock, max_bytes=10)
    fill(sender, 1)
    clock.advance(1)
    assert place.ids == ["e1"]


def test_slow_one_holds_up_nobody_else(clock: Clock) -> None:
    slow, fast = Place("slow", answers=None), Place("fast")
    form = EventFormat(Redactor(), Prices({}))
    both = [dispatcher(slow, clock, batch=1, limit=3), dispatcher(fast, clock, batch=1, limit=3)]
    bus = Bus(form, lambda: 0.0, "p", both)
    for _ in range(50):
        bus(finished())
        clock.advance(1)
    assert len(slow.ids) == 1
    assert fast.ids == [f"p-{number}" for number in range(1, 51)]
    assert {name: state["dropped"] for name, state in bus.state().items()} == {"slow": 47, "fast": 0}
    assert bus.dropped == 47


def test_two_dispatchers_to_one_place_are_counted_apart(clock: Clock) -> None:
    form = EventFormat(Redactor(), Prices({}))
    both = [dispatcher(Place(), clock), dispatcher(Place(), clock)]
    assert list(Bus(form, lambda: 0.0, "p", both).state()) == ["place", "place (2)"]


# Failure.


def test_failed_batch_comes_again_with_growing_waits(clock: Clock) -> None:
    place = Place(answers=[Undelivered("down")] * 9)
    sender = dispatcher(place, clock, batch=1)
    fill(sender, 1)
    at = []
    for _ in range(3000):
        if len(place.got) > len(at):
            at.append(clock.seconds())
        clock.advance(0.1)
    waits = [round(later - before, 1) for before, later in itertools.pairwise(at)]
    assert waits == pytest.approx([0.5, 1, 2, 4, 8, 16, 32, LONGEST_WAIT, LONGEST_WAIT], abs=0.2)
    assert sender.state() == {"queued": 0, "delivered": 1, "dropped": 0, "failures": 9}


@pytest.mark.parametrize(("drawn", "wait"), [(0.0, 0.5), (0.5, 0.375), (1.0, 0.25)])
def test_waits_are_spread(clock: Clock, drawn: float, wait: float) -> None:
    place = Place(answers=[Undelivered("down")])
    sender = Dispatcher(place, Pace(batch=1), clock, lambda: drawn)
    fill(sender, 1)
    clock.advance(wait - 0.01)
    assert len(place.got) == 1
    clock.advance(0.02)
    assert len(place.got) == 2


def test_not_sooner_than_was_asked_for(clock: Clock) -> None:
    place = Place(answers=[Undelivered("429", answered=True, after=17.0)])
    sender = dispatcher(place, clock, batch=1)
    fill(sender, 3)
    clock.advance(16.9)
    assert len(place.got) == 1
    clock.advance(0.2)
    assert place.got[1] == ["e1"]


def test_who_is_not_there_is_waited_for_without_end(clock: Clock, logged: list[str]) -> None:
    place = Place(answers=[Undelivered("Connection refused")] * 100)
    sender = dispatcher(place, clock, batch=1, limit=5)
    fill(sender, 8)
    for _ in range(7000):
        clock.advance(1)
    assert sender.state() == {"queued": 0, "delivered": 5, "dropped": 3, "failures": 100}
    assert place.ids[-5:] == names(1, 5)
    assert logged == [
        "Events to place are dropped: they come faster than they are taken",
        "Events to place have to wait: Connection refused",
        "Events to place are delivered again; 3 were dropped",
    ]


def test_who_answers_but_never_takes_a_batch_loses_it_alone(clock: Clock, logged: list[str]) -> None:
    place = Place(answers=[Undelivered("the server answered 500", answered=True)] * ATTEMPTS)
    sender = dispatcher(place, clock, batch=2)
    fill(sender, 4)
    for _ in range(1000):
        clock.advance(1)
    assert place.got == [["e1", "e2"]] * ATTEMPTS + [["e3", "e4"]]
    assert sender.state() == {"queued": 0, "delivered": 2, "dropped": 2, "failures": ATTEMPTS}
    assert logged == [
        "Events to place have to wait: the server answered 500",
        "Events to place are dropped: the server answered 500",
        "Events to place are delivered again; 2 were dropped",
    ]


def test_batch_that_is_refused_for_good_is_dropped_with_one_line(clock: Clock, logged: list[str]) -> None:
    place = Place(answers=[Undelivered("the server answered 401", final=True, answered=True)] * 3)
    sender = dispatcher(place, clock, batch=2)
    fill(sender, 6)
    clock.pump([1] * 10)
    assert place.got == [["e1", "e2"], ["e3", "e4"], ["e5", "e6"]]
    assert sender.state() == {"queued": 0, "delivered": 0, "dropped": 6, "failures": 3}
    assert logged == ["Events to place are dropped: the server answered 401"]


def test_single_failure_is_not_worth_a_line(clock: Clock, logged: list[str]) -> None:
    sender = dispatcher(Place(answers=[Undelivered("closed")]), clock, batch=1)
    fill(sender, 1)
    clock.pump([1] * 3)
    assert sender.state()["delivered"] == 1
    assert logged == []


def test_only_the_rest_of_a_batch_comes_again(clock: Clock) -> None:
    place = Place(answers=[Undelivered("No space left on device", done=2)])
    sender = dispatcher(place, clock, batch=3)
    fill(sender, 3)
    clock.pump([1] * 3)
    assert place.got == [["e1", "e2", "e3"], ["e3"]]
    assert sender.state()["delivered"] == 3


def test_only_the_rest_of_a_batch_is_given_up(clock: Clock) -> None:
    place = Place(answers=[Undelivered("no", done=1, final=True)])
    sender = dispatcher(place, clock, batch=3)
    fill(sender, 5)
    clock.pump([1] * 3)
    assert place.got == [["e1", "e2", "e3"], ["e4", "e5"]]
    assert sender.state() == {"queued": 0, "delivered": 3, "dropped": 2, "failures": 1}


def test_fault_of_ours_is_told_without_its_text(clock: Clock, logged: list[str]) -> None:
    sender = dispatcher(Place(answers=[ValueError("sk-secret")] * 2), clock, batch=1)
    fill(sender, 1)
    clock.pump([1] * 4)
    assert sender.state()["delivered"] == 1
    assert logged[0] == "Events to place have to wait: ValueError"


# The end.


def test_stop_delivers_what_waits(clock: Clock) -> None:
    place = Place()
    sender = dispatcher(place, clock, batch=2, every=60.0)
    fill(sender, 1)
    done = sender.stop()
    clock.advance(0)
    assert place.ids == ["e1"]
    assert done.called
    assert place.closed == 1
    assert clock.getDelayedCalls() == []


def test_stop_goes_through_all_batches(clock: Clock) -> None:
    place = Place(answers=None)
    sender = dispatcher(place, clock, batch=2, every=60.0)
    fill(sender, 5)
    done = sender.stop()
    for number in range(3):
        assert not done.called
        place.answer(place.open[number])
        clock.advance(0)
    assert done.called
    assert place.ids == names(1, 5)


def test_stop_tries_again_at_once_and_until_the_time_is_up(clock: Clock, logged: list[str]) -> None:
    place = Place(answers=[Undelivered("down")] * 100)
    sender = dispatcher(place, clock, batch=1)
    fill(sender, 3)
    clock.pump([0.5] * 40)
    tried = len(place.got)
    done = sender.stop()
    assert len(place.got) == tried + 1
    clock.advance(FLUSH)
    assert done.called
    assert sender.state() == {"queued": 0, "delivered": 0, "dropped": 3, "failures": len(place.got)}
    assert logged[-1] == "3 events to place were dropped"
    clock.advance(1000)
    assert clock.getDelayedCalls() == []


def test_stop_waits_for_nobody_for_ever(clock: Clock) -> None:
    place = Place(answers=None)
    sender = dispatcher(place, clock, batch=1)
    fill(sender, 2)
    done = sender.stop()
    clock.advance(FLUSH)
    assert done.called
    assert place.cancelled == 1
    assert sender.state() == {"queued": 0, "delivered": 0, "dropped": 2, "failures": 0}
    assert clock.getDelayedCalls() == []


def test_what_comes_after_the_stop_is_dropped(clock: Clock) -> None:
    place = Place()
    sender = dispatcher(place, clock)
    assert sender.stop().called
    fill(sender, 2)
    assert sender.state() == {"queued": 0, "delivered": 0, "dropped": 2, "failures": 0}
    assert clock.getDelayedCalls() == []
    assert sender.stop().called


# The bus.


def bus() -> Bus:
    return Bus(EventFormat(Redactor(), Prices({})), lambda: 1.5, "p")


def test_subscriber_gets_each_finished_request_as_the_documented_object() -> None:
    got: list[Any] = []
    made = bus()
    assert not made.wanted
    end = made.subscribe(got.append)
    assert made.wanted
    sink = Sink()
    sink.subscribe(made, arrivals=False)
    sink.emit(Arrived(1, "r-1", "GET", "/", "openai", "openai"))
    sink.emit(finished())
    made.publish(finished())
    assert [(one["id"], one["ts"], one["status"]) for one in got] == [
        ("p-1", "1970-01-01T00:00:01.500Z", 200),
        ("p-2", "1970-01-01T00:00:01.500Z", 200),
    ]
    end()
    end()
    made.publish(finished())
    assert len(got) == 2


def test_subscriber_that_raises_harms_nobody(logged: list[str]) -> None:
    def fails(event: object) -> None:
        raise RuntimeError("of its own")

    got: list[Any] = []
    made = bus()
    made.subscribe(fails)
    made.subscribe(got.append)
    for _ in range(3):
        made.publish(finished())
    assert len(got) == 3
    assert made.failures == 3
    assert len(logged) == 1


def test_subscriber_may_end_itself_while_it_is_told() -> None:
    made = bus()
    got: list[Any] = []
    end = made.subscribe(lambda event: end())
    made.subscribe(got.append)
    made.publish(finished())
    made.publish(finished())
    assert len(got) == 2


def test_stop_waits_for_all_dispatchers(clock: Clock) -> None:
    slow, fast = Place("slow", answers=None), Place("fast")
    form = EventFormat(Redactor(), Prices({}))
    made = Bus(form, lambda: 0.0, "p", [dispatcher(fast, clock), dispatcher(slow, clock)])
    made.publish(finished())
    done = made.stop()
    clock.advance(0)
    assert fast.closed
    assert not done.called
    place = slow.open[0]
    slow.answer(place)
    clock.advance(0)
    assert done.called


def test_bus_without_dispatchers_stops_at_once() -> None:
    assert bus().stop().called
