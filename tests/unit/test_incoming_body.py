"""The body of a request: read while it comes, spooled, looked at, refused; and nothing hangs."""

from __future__ import annotations

import errno
import gc
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.logger import LogEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer
from zope.interface.verify import verifyObject

from llmproxyd.wire import body as wire_body
from llmproxyd.wire.body import AHEAD, IN_MEMORY, PIECE, BodyTooLarge, BytesBody, IncomingBody

LIMIT = 4 * 1024 * 1024


class Origin:
    """The connection: what it was asked for, in order."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def body_wanted(self) -> None:
        self.told.append("wanted")

    def body_pause(self) -> None:
        self.told.append("pause")

    def body_resume(self) -> None:
        self.told.append("resume")

    @property
    def paused(self) -> bool:
        steps = [one for one in self.told if one != "wanted"]
        return bool(steps) and steps[-1] == "pause"


class Consumer:
    """What was written, and a producer where one registers."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.pieces.append(data)

    @property
    def data(self) -> bytes:
        return b"".join(self.pieces)


class Rig:
    """A body, where it comes from, and time."""

    def __init__(self, length: int | None = None, limit: int = LIMIT) -> None:
        self.clock = Clock()
        self.origin = Origin()
        self.body = IncomingBody(length, limit, self.origin, self.clock)

    def receive(self, *pieces: bytes, end: bool = False) -> None:
        for piece in pieces:
            self.body.receive(piece)
        if end:
            self.body.end()

    def producer(self) -> IBodyProducer:
        found = self.body.producer()
        assert found is not None
        return found

    def read(self) -> tuple[Consumer, Result]:
        """Begin to read it."""
        consumer = Consumer()
        return consumer, Result(self.producer().startProducing(consumer))

    def let_it_run(self) -> None:
        for _ in range(1000):
            if not self.clock.getDelayedCalls():
                break
            self.clock.advance(0)


class Result:
    """What has become of a Deferred."""

    def __init__(self, deferred: Deferred[Any]) -> None:
        self.deferred = deferred
        self.seen: list[Any] = []
        deferred.addBoth(self.seen.append)

    @property
    def pending(self) -> bool:
        return not self.seen

    @property
    def value(self) -> Any:
        (found,) = self.seen
        assert not isinstance(found, Failure), found
        return found

    @property
    def error(self) -> BaseException:
        (found,) = self.seen
        assert isinstance(found, Failure), found
        assert found.value is not None
        return found.value


@pytest.fixture(autouse=True)
def _no_failure_is_left_unhandled() -> Iterator[None]:
    found: list[LogEvent] = []

    def observe(event: LogEvent) -> None:
        if event.get("log_failure") is not None:
            found.append(event)

    globalLogPublisher.addObserver(observe)
    try:
        yield
        gc.collect(1)  # what a test leaves is young
    finally:
        globalLogPublisher.removeObserver(observe)
    assert not found


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    assert made.clock.getDelayedCalls() == []


def lost() -> Failure:
    return Failure(ConnectionLost())


# Read as it comes.


def test_a_body_that_is_there_already_is_one_piece_of_known_length() -> None:
    rig = Rig(5)
    rig.receive(b"ab", b"cde", end=True)
    producer = rig.producer()
    assert isinstance(producer, BytesBody)
    assert (producer.data, producer.length) == (b"abcde", 5)
    consumer = Consumer()
    assert Result(producer.startProducing(consumer)).value is None
    assert consumer.pieces == [b"abcde"]


def test_a_whole_body_that_came_in_chunks_goes_on_in_chunks(rig: Rig) -> None:
    rig.receive(b"abc", end=True)
    assert rig.producer().length == UNKNOWN_LENGTH


def test_an_empty_body_has_no_producer() -> None:
    rig = Rig(0)
    assert rig.body.ended
    assert rig.body.producer() is None
    assert Result(rig.body.excerpt(10, 2)).value == b""


def test_an_empty_body_in_chunks_has_none_either(rig: Rig) -> None:
    rig.receive(end=True)
    assert rig.body.producer() is None


@pytest.mark.parametrize(("length", "told"), [(6, 6), (None, UNKNOWN_LENGTH)])
def test_a_body_on_its_way_is_passed_on_piece_by_piece(length: int | None, told: int | str) -> None:
    rig = Rig(length)
    rig.receive(b"a", b"b")
    assert rig.producer().length == told
    consumer, result = rig.read()
    assert consumer.pieces == [b"ab"]
    assert rig.origin.told == ["wanted"]
    rig.receive(b"cd")
    rig.receive(b"ef")
    assert consumer.pieces == [b"ab", b"cd", b"ef"]
    assert result.pending
    rig.receive(end=True)
    assert result.value is None
    assert rig.body.received == 6


def test_a_reader_that_comes_before_any_byte_is_told_of_each(rig: Rig) -> None:
    consumer, result = rig.read()
    assert consumer.pieces == []
    rig.receive(b"x", end=True)
    assert (consumer.pieces, result.value) == ([b"x"], None)


def test_a_body_that_ends_between_asking_and_reading(rig: Rig) -> None:
    """An agent waits for a connection meanwhile."""
    producer = rig.producer()
    rig.receive(b"abc", end=True)
    consumer = Consumer()
    assert Result(producer.startProducing(consumer)).value is None
    assert consumer.data == b"abc"


def test_a_body_that_fails_between_asking_and_reading(rig: Rig) -> None:
    producer = rig.producer()
    rig.receive(b"abc")
    rig.body.fail(lost())
    consumer = Consumer()
    assert isinstance(Result(producer.startProducing(consumer)).error, ConnectionLost)
    assert consumer.pieces == []


def test_the_producers_are_what_an_agent_asks_for(rig: Rig) -> None:
    verifyObject(IBodyProducer, rig.producer())
    rig.receive(b"x", end=True)
    whole = rig.producer()
    verifyObject(IBodyProducer, whole)
    whole.pauseProducing()
    whole.resumeProducing()
    whole.stopProducing()


# Pace.


def test_no_more_than_a_little_is_taken_before_somebody_reads(rig: Rig) -> None:
    rig.receive(b"x" * AHEAD)
    assert rig.origin.told == []
    rig.receive(b"x")
    assert rig.origin.told == ["pause"]
    consumer, _ = rig.read()
    assert rig.origin.told == ["pause", "wanted", "resume"]
    assert len(consumer.data) == AHEAD + 1


def test_more_than_that_at_once_is_taken_and_not_the_next(rig: Rig) -> None:
    rig.receive(b"x" * (3 * AHEAD))
    assert rig.origin.told == ["pause"]
    rig.receive(end=True)
    assert rig.origin.told == ["pause"]
    assert len(rig.producer().data) == 3 * AHEAD  # type: ignore[attr-defined]


def test_the_readers_pace_is_the_clients(rig: Rig) -> None:
    producer = rig.producer()
    producer.startProducing(Consumer())
    del rig.origin.told[:]
    producer.pauseProducing()
    producer.pauseProducing()
    assert rig.origin.told == ["pause"]
    producer.resumeProducing()
    producer.resumeProducing()
    assert rig.origin.told == ["pause", "resume"]


def test_after_its_end_the_connection_is_left_alone(rig: Rig) -> None:
    """It serves the next request by then."""
    producer = rig.producer()
    producer.startProducing(Consumer())
    rig.receive(b"x", end=True)
    del rig.origin.told[:]
    producer.pauseProducing()
    producer.resumeProducing()
    producer.stopProducing()
    rig.body.throw_away()
    assert rig.origin.told == []


def test_a_reader_that_wants_no_more_lets_the_rest_come_and_go(rig: Rig) -> None:
    producer = rig.producer()
    consumer = Consumer()
    result = Result(producer.startProducing(consumer))
    producer.pauseProducing()
    producer.stopProducing()
    assert rig.origin.told[-1] == "resume"
    rig.receive(b"x" * (2 * AHEAD))
    assert rig.origin.told[-1] == "resume"
    assert consumer.pieces == []
    rig.receive(end=True)
    assert rig.body.ended
    assert result.pending


# Spooled.


def test_spooling_waits_for_the_end(rig: Rig) -> None:
    rig.receive(b"ab")
    spooled = Result(rig.body.spool())
    assert rig.origin.told == ["wanted"]
    rig.receive(b"cd")
    assert spooled.pending
    rig.receive(end=True)
    assert spooled.value is None
    assert rig.body.file.read() == b"abcd"
    assert rig.body.file.read() == b"abcd"


def test_spooling_takes_all_of_a_large_body(rig: Rig) -> None:
    rig.receive(b"x" * (AHEAD + 1))
    assert rig.origin.paused
    spooled = Result(rig.body.spool())
    assert not rig.origin.paused
    for _ in range(10):
        rig.receive(b"y" * AHEAD)
    assert not rig.origin.paused
    rig.receive(end=True)
    assert spooled.value is None
    assert rig.body.file.read() == b"x" * (AHEAD + 1) + b"y" * (10 * AHEAD)


def test_spooling_what_is_there_needs_no_wait(rig: Rig) -> None:
    rig.receive(b"abc", end=True)
    assert Result(rig.body.spool()).value is None
    assert rig.body.file.read() == b"abc"
    assert rig.origin.told == []


def test_spooling_nothing() -> None:
    rig = Rig(0)
    assert Result(rig.body.spool()).value is None
    assert rig.body.file.read() == b""


def on_disk(rig: Rig) -> bool:
    return bool(rig.body.file._rolled)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("size", "disk"), [(IN_MEMORY - 1, False), (IN_MEMORY, False), (IN_MEMORY + 1, True)]
)
@pytest.mark.parametrize("known", [True, False])
def test_a_spooled_body_is_sent_from_memory_or_from_a_file(size: int, disk: bool, known: bool) -> None:
    rig = Rig(size if known else None)
    sent = bytes(range(256)) * (size // 256 + 1)
    sent = sent[:size]
    rig.body.spool()
    for at in range(0, size, 50_000):
        rig.receive(sent[at : at + 50_000])
    rig.receive(end=True)
    assert on_disk(rig) is disk
    producer = rig.producer()
    assert isinstance(producer, BytesBody) is not disk
    assert producer.length == (size if known or disk else UNKNOWN_LENGTH)
    consumer = Consumer()
    result = Result(producer.startProducing(consumer))
    rig.let_it_run()
    assert result.value is None
    assert consumer.data == sent
    assert max(map(len, consumer.pieces)) <= max(PIECE, IN_MEMORY)
    assert rig.clock.getDelayedCalls() == []


def test_a_body_that_was_looked_at_and_is_still_coming_cannot_be_seen_in_part(rig: Rig) -> None:
    excerpt = Result(rig.body.excerpt(100, 10))
    rig.receive(b"abc")
    assert excerpt.pending
    rig.receive(b"def", end=True)
    assert excerpt.value == b"abcdef"


class Slow(Consumer):
    """An upstream that pauses its producer after so many pieces, or stops it."""

    def __init__(self, pieces: int, then: Callable[[], None]) -> None:
        super().__init__()
        self._left = pieces
        self._then = then

    def write(self, data: bytes) -> None:
        super().write(data)
        self._left -= 1
        if not self._left:
            self._then()


@pytest.mark.parametrize("pieces", [1, 3, 11])
def test_a_spooled_file_that_is_not_sent_to_its_end_leaves_nothing(rig: Rig, pieces: int) -> None:
    rig.body.spool()
    rig.receive(b"x" * (12 * PIECE), end=True)
    file = rig.body.file
    producer = rig.producer()
    consumer = Slow(pieces, producer.stopProducing)
    producer.startProducing(consumer)
    rig.let_it_run()
    assert len(consumer.pieces) == pieces
    assert rig.clock.getDelayedCalls() == []
    assert file.closed


def test_a_spooled_file_that_is_never_begun(rig: Rig) -> None:
    """No connection came about."""
    rig.body.spool()
    rig.receive(b"x" * (12 * PIECE), end=True)
    producer = rig.producer()
    producer.startProducing(Consumer())
    producer.stopProducing()
    rig.let_it_run()
    assert rig.clock.getDelayedCalls() == []


@pytest.mark.parametrize("pieces", [1, 3, 11])
def test_a_spooled_file_is_sent_at_the_upstreams_pace(rig: Rig, pieces: int) -> None:
    rig.body.spool()
    rig.receive(b"x" * (12 * PIECE), end=True)
    producer = rig.producer()
    consumer = Slow(pieces, producer.pauseProducing)
    result = Result(producer.startProducing(consumer))
    rig.let_it_run()
    assert (len(consumer.pieces), result.pending) == (pieces, True)
    producer.resumeProducing()
    rig.let_it_run()
    assert (len(consumer.data), result.value) == (12 * PIECE, None)


def test_after_its_end_a_sent_file_is_closed(rig: Rig) -> None:
    rig.body.spool()
    rig.receive(b"x" * (IN_MEMORY * 2), end=True)
    file = rig.body.file
    rig.producer().startProducing(Consumer())
    rig.let_it_run()
    assert file.closed


# Looked at.


SIZES = [1, 9, 10, 11, 20, 21, AHEAD, AHEAD + 1, IN_MEMORY - 1, IN_MEMORY, IN_MEMORY + 1, IN_MEMORY * 2]


def expected(sent: bytes, whole: int, end: int) -> bytes:
    return sent if len(sent) <= whole else sent[:end] + sent[-end:]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("whole", "end"), [(10, 3), (20, 10), (IN_MEMORY, 1000)])
@pytest.mark.parametrize("when", ["before", "while", "after"])
def test_an_excerpt_is_the_whole_or_both_ends_and_all_is_sent_on(
    size: int, whole: int, end: int, when: str
) -> None:
    rig = Rig()
    sent = (b"%06d" * (size // 6 + 1) % tuple(range(size // 6 + 1)))[:size]
    pieces = [sent[at : at + 40_000] for at in range(0, size, 40_000)]
    half = {"before": 0, "while": len(pieces) // 2, "after": len(pieces)}[when]
    rig.receive(*pieces[:half], end=when == "after")
    excerpt = Result(rig.body.excerpt(whole, end))
    if when != "after":
        rig.receive(*pieces[half:], end=True)
    assert excerpt.value == expected(sent, whole, end)
    consumer, result = rig.read()
    rig.let_it_run()
    assert result.value is None
    assert consumer.data == sent
    assert rig.clock.getDelayedCalls() == []


@settings(deadline=None)
@given(
    st.lists(st.binary(max_size=60), max_size=12),
    st.integers(0, 12),
    st.integers(2, 300),
    st.integers(1, 400),
    st.integers(1, 64),
)
def test_whatever_is_looked_at_and_whenever_all_of_it_is_sent_on(
    pieces: list[bytes], looked: int, whole: int, in_memory: int, end: int
) -> None:
    end = min(end, whole // 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wire_body, "IN_MEMORY", in_memory)
        rig = Rig()
        rig.receive(*pieces[:looked])
        excerpt = Result(rig.body.excerpt(whole, end))
        rig.receive(*pieces[looked:], end=True)
        sent = b"".join(pieces)
        assert excerpt.value == expected(sent, whole, end)
        producer = rig.body.producer()
        if producer is None:
            assert not sent
            return
        consumer = Consumer()
        result = Result(producer.startProducing(consumer))
        rig.let_it_run()
        assert (result.value, consumer.data) == (None, sent)


def test_an_excerpt_can_be_taken_twice(rig: Rig) -> None:
    rig.receive(b"abcdef", end=True)
    assert Result(rig.body.excerpt(10, 2)).value == b"abcdef"
    assert Result(rig.body.excerpt(4, 2)).value == b"abef"
    assert rig.read()[0].data == b"abcdef"


# Too long.


def test_a_body_without_a_length_is_refused_beyond_the_limit() -> None:
    rig = Rig(limit=10)
    consumer, result = rig.read()
    rig.receive(b"x" * 10)
    assert (len(consumer.data), result.pending) == (10, True)
    rig.receive(b"y")
    error = result.error
    assert isinstance(error, BodyTooLarge)
    assert error.limit == 10
    assert b"y" not in consumer.data


def test_exactly_the_limit_is_not_too_long() -> None:
    rig = Rig(limit=10)
    consumer, result = rig.read()
    rig.receive(b"x" * 10, end=True)
    assert (consumer.data, result.value) == (b"x" * 10, None)


def test_a_body_with_a_length_was_judged_by_it_already() -> None:
    rig = Rig(20, limit=10)
    consumer, result = rig.read()
    rig.receive(b"x" * 20, end=True)
    assert (len(consumer.data), result.value) == (20, None)


def test_a_body_that_is_too_long_before_anybody_reads() -> None:
    rig = Rig(limit=10)
    rig.receive(b"x" * 11)
    consumer, result = rig.read()
    assert isinstance(result.error, BodyTooLarge)
    assert consumer.pieces == []
    assert isinstance(Result(rig.body.spool()).error, BodyTooLarge)
    assert isinstance(Result(rig.body.excerpt(100, 10)).error, BodyTooLarge)


def test_a_body_that_is_too_long_while_it_is_spooled() -> None:
    rig = Rig(limit=10)
    spooled = Result(rig.body.spool())
    rig.receive(b"x" * 9, b"y" * 9)
    assert isinstance(spooled.error, BodyTooLarge)


def test_what_comes_behind_a_refusal_goes_nowhere() -> None:
    rig = Rig(limit=10)
    consumer, result = rig.read()
    rig.receive(b"x" * 11, b"y" * 11, end=True)
    assert isinstance(result.error, BodyTooLarge)
    assert consumer.pieces == []


# Broken off.


Begin = Callable[[Rig], Result]

BEGUN: dict[str, Begin] = {
    "flow": lambda rig: rig.read()[1],
    "spool": lambda rig: Result(rig.body.spool()),
    "excerpt": lambda rig: Result(rig.body.excerpt(1000, 10)),
}


@pytest.mark.parametrize("begin", BEGUN)
@pytest.mark.parametrize("before", [0, 5, AHEAD + 1, IN_MEMORY + 1])
@pytest.mark.parametrize("more", [0, 5, IN_MEMORY + 1])
def test_a_failure_in_the_middle_is_told_to_whoever_waits(begin: str, before: int, more: int) -> None:
    rig = Rig()
    if before:
        rig.receive(b"x" * before)
    result = BEGUN[begin](rig)
    if more:
        rig.receive(b"y" * more)
    rig.body.fail(lost())
    assert isinstance(result.error, ConnectionLost)
    rig.body.fail(Failure(RuntimeError("a second one")))
    rig.receive(b"z")
    rig.body.end()
    assert isinstance(result.error, ConnectionLost)
    assert rig.clock.getDelayedCalls() == []


@pytest.mark.parametrize("begin", BEGUN)
def test_a_failure_before_anybody_waits_is_told_to_who_comes(begin: str) -> None:
    rig = Rig()
    rig.receive(b"abc")
    rig.body.fail(lost())
    assert isinstance(BEGUN[begin](rig).error, ConnectionLost)
    assert isinstance(BEGUN["spool"](rig).error, ConnectionLost)


@pytest.mark.parametrize("begin", BEGUN)
def test_a_connection_lost_after_the_whole_body_came_changes_nothing(begin: str) -> None:
    rig = Rig()
    rig.receive(b"abc", end=True)
    rig.body.fail(lost())
    result = BEGUN[begin](rig)
    rig.let_it_run()
    assert result.value in (None, b"abc")


def test_a_failure_nobody_asks_about_is_no_unhandled_one(rig: Rig) -> None:
    rig.receive(b"abc")
    rig.body.fail(lost())
    del rig.body
    gc.collect()  # the fixture looks
    rig.body = IncomingBody(0, 1, rig.origin, rig.clock)


# Nobody wants it.


def test_what_is_thrown_away_is_taken_and_forgotten(rig: Rig) -> None:
    rig.receive(b"x" * (AHEAD + 1))
    assert rig.origin.paused
    rig.body.throw_away()
    assert not rig.origin.paused
    rig.receive(b"y" * (10 * AHEAD))
    assert not rig.origin.paused
    assert rig.body.received == 11 * AHEAD + 1
    rig.body.fail(lost())


@pytest.mark.parametrize("begin", ["spool", "excerpt"])
@pytest.mark.parametrize("size", [0, 5, IN_MEMORY + 1])
def test_who_gives_up_waiting_for_it_lets_it_go(begin: str, size: int) -> None:
    rig = Rig()
    result = BEGUN[begin](rig)
    rig.receive(b"x" * size)
    result.deferred.cancel()
    assert isinstance(result.error, CancelledError)
    rig.receive(b"y" * (AHEAD * 2))
    assert not rig.origin.paused
    rig.receive(end=True)
    assert rig.body._file is None


def test_a_spooled_body_nobody_sends_is_closed(rig: Rig) -> None:
    rig.body.spool()
    rig.receive(b"x" * (IN_MEMORY + 1), end=True)
    file = rig.body.file
    rig.body.throw_away()
    assert file.closed


# A full disk.


class FullDisk:
    """A file that takes so many bytes.

    :ivar left: bytes that it still takes.
    """

    left = 0
    made: list[FullDisk]

    def __init__(self, max_size: int) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size)  # noqa: SIM115
        type(self).made.append(self)

    def write(self, data: bytes) -> int:
        if len(data) > type(self).left:
            raise OSError(errno.ENOSPC, "No space left on device")
        type(self).left -= len(data)
        return self._file.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FullDisk]]:
    class Disk(FullDisk):
        made: list[FullDisk] = []  # noqa: RUF012

    monkeypatch.setattr(wire_body, "SpooledTemporaryFile", Disk)
    yield Disk
    for one in Disk.made:
        one._file.close()


@pytest.mark.parametrize("begin", ["spool", "excerpt"])
def test_a_full_disk_fails_the_body(disk: type[FullDisk], begin: str) -> None:
    disk.left = 8
    rig = Rig()
    result = BEGUN[begin](rig)
    rig.receive(b"12345")
    assert result.pending
    rig.receive(b"67890")
    error = result.error
    assert isinstance(error, OSError)
    assert error.errno == errno.ENOSPC
    rig.receive(b"more")
    assert not rig.origin.paused
    rig.receive(end=True)
    assert rig.clock.getDelayedCalls() == []


@pytest.mark.parametrize("begin", ["spool", "excerpt"])
@pytest.mark.parametrize("whole", [True, False])
def test_a_disk_that_is_full_from_the_start(disk: type[FullDisk], begin: str, whole: bool) -> None:
    disk.left = 8
    rig = Rig()
    rig.receive(b"x" * 2000, end=whole)
    result = BEGUN[begin](rig)
    error = result.error
    assert isinstance(error, OSError)
    assert error.errno == errno.ENOSPC


def test_after_a_full_disk_no_part_of_the_body_passes_for_all_of_it(disk: type[FullDisk]) -> None:
    disk.left = 8
    rig = Rig()
    result = Result(rig.body.spool())
    rig.receive(b"12345", b"67890", end=True)
    assert isinstance(result.error, OSError)
    consumer, sent = rig.read()
    assert consumer.pieces == []
    assert isinstance(sent.error, OSError)


def test_a_disk_that_was_full_from_the_start_leaves_nothing_that_passes_for_the_body(
    disk: type[FullDisk],
) -> None:
    disk.left = 8
    rig = Rig()
    rig.receive(b"x" * 20)
    assert isinstance(Result(rig.body.spool()).error, OSError)
    rig.receive(b"more", end=True)
    consumer, sent = rig.read()
    assert consumer.pieces == []
    assert isinstance(sent.error, OSError)


def test_the_file_on_a_full_disk_is_closed(disk: type[FullDisk]) -> None:
    """Its bytes are what the disk is full of."""
    disk.left = 8
    rig = Rig()
    result = Result(rig.body.spool())
    rig.receive(b"12345", b"67890")
    assert isinstance(result.error, OSError)
    rig.body.throw_away()
    assert [one.closed for one in disk.made] == [True]


# Along with the head.


@pytest.mark.parametrize("size", [1, AHEAD + 1])
def test_body_that_came_with_its_head_is_whole_and_asks_nothing_of_the_connection(size: int) -> None:
    rig = Rig(size)
    rig.body.came_whole(b"x" * size)
    assert rig.body.ended
    assert rig.body.received == size
    producer = rig.body.producer()
    assert isinstance(producer, BytesBody)
    assert producer.data == b"x" * size
    assert rig.origin.told == []
