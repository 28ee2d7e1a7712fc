"""Answers onto the wire: every framing, what is written at once, and every way to end."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxyd.model import RawHeaders, Response
from llmproxyd.wire.outgoing import BODILESS, Answer, field_lines


@dataclass
class Connection:
    """What an answer does to the connection that it goes out on.

    :ivar keeps: it would be kept after the answer.
    :ivar told: everything else, in order.
    """

    modern: bool = True
    keeps: bool = True
    sent: list[bytes] = field(default_factory=list)
    told: list[Any] = field(default_factory=list)
    decided: int = 0

    def persists(self) -> bool:
        self.decided += 1
        return self.keeps

    def lose_persistence(self) -> None:
        assert not self.decided, "it was decided already"
        self.keeps = False

    def send(self, data: bytes) -> None:
        assert data, "an empty write"
        self.sent.append(data)

    def answered(self) -> None:
        self.told.append("answered")

    def break_off(self, *, reset: bool) -> None:
        self.told.append("reset" if reset else "half-close")

    def feed_from(self, producer: object) -> None:
        self.told.append(producer)

    @property
    def data(self) -> bytes:
        return b"".join(self.sent)


def begun(
    connection: Connection,
    length: int | None = None,
    *,
    status: int = 200,
    head: bool = False,
    headers: RawHeaders = ((b"A", b"1"),),
    told: bool = False,
) -> Answer:
    """An answer whose head was begun."""
    answer = Answer(connection, head=head)
    answer.start(Response(status, b"Fine", headers, length, told=told))
    return answer


def split(data: bytes) -> tuple[bytes, list[bytes], bytes]:
    """Status line, field lines and body."""
    start, end, body = data.partition(b"\r\n\r\n")
    assert end
    line, *lines = start.split(b"\r\n")
    return line, lines, body


# Framing.

METHODS = (False, True)
STATUSES = (200, 204, 304, 404, 500)
LENGTHS = (None, 0, 5)


@pytest.mark.parametrize("keeps", [True, False])
@pytest.mark.parametrize("modern", [True, False])
@pytest.mark.parametrize(("head", "status", "length"), list(itertools.product(METHODS, STATUSES, LENGTHS)))
def test_every_framing(head: bool, status: int, length: int | None, modern: bool, keeps: bool) -> None:
    connection = Connection(modern, keeps)
    answer = begun(connection, length, status=status, head=head)
    answer.write(b"12345"[: 5 if length is None else length])
    answer.finish()
    line, lines, body = split(connection.data)
    bodiless = head or status in BODILESS
    chunked = not bodiless and length is None and modern
    open_ended = not bodiless and length is None and not modern

    assert line == b"HTTP/1.1 %d Fine" % status
    expected = [b"A: 1"]
    if length is not None and status not in BODILESS:
        expected.append(b"Content-Length: %d" % length)
    if chunked:
        expected.append(b"Transfer-Encoding: chunked")
    if not keeps or open_ended:
        expected.append(b"Connection: close")
    elif not modern:
        expected.append(b"Connection: keep-alive")
    assert lines == expected

    assert answer.chunked is chunked
    if bodiless:
        assert body == b""
    elif chunked:
        assert body == b"5\r\n12345\r\n0\r\n\r\n"
    else:
        assert body == b"12345"[: 5 if length is None else length]
    assert connection.told == ["answered"]
    assert connection.keeps is (keeps and not open_ended)
    assert connection.decided == 1


@pytest.mark.parametrize("status", [204, 304])
def test_no_length_is_made_up_where_no_body_can_be(status: int) -> None:
    """RFC 9110 §8.6."""
    connection = Connection()
    begun(connection, 5, status=status, head=True).finish()
    assert split(connection.data)[1] == [b"A: 1"]


@pytest.mark.parametrize("name", [b"Content-Length", b"content-length", b"CONTENT-LENGTH"])
@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("head", [True, False])
def test_a_length_among_the_fields_is_not_said_twice(name: bytes, place: int, head: bool) -> None:
    connection = Connection()
    fields = [(b"A", b"1")]
    fields.insert(place, (name, b"5"))
    answer = begun(connection, 5, headers=fields, head=head, told=True)
    answer.write(b"12345")
    answer.finish()
    _, lines, body = split(connection.data)
    assert lines == [b"%b: %b" % pair for pair in fields]
    assert body == (b"" if head else b"12345")


@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize("head", [True, False])
def test_a_length_that_belongs_to_no_body_passes(status: int, head: bool) -> None:
    """A 304 may tell how long the 200 would be (RFC 9110 §15.4.5)."""
    connection = Connection()
    answer = begun(
        connection, None, status=status, headers=[(b"content-length", b"99")], head=head, told=True
    )
    answer.write(b"never")
    answer.finish()
    assert split(connection.data) == (b"HTTP/1.1 %d Fine" % status, [b"content-length: 99"], b"")


@pytest.mark.parametrize("name", [b"X-Content-Length", b"Content-Length-X", b"A"])
def test_only_the_field_of_that_name_is_a_length(name: bytes) -> None:
    connection = Connection()
    begun(connection, 5, headers=[(name, b"content-length: 7")]).flush()
    assert connection.data.count(b"\r\nContent-Length: 5\r\n") == 1


def test_fields_stand_as_they_were_given() -> None:
    fields = [(b"B", b""), (b"a", b"\xff"), (b"B", b" x "), (b"Set-Cookie", b"a"), (b"set-cookie", b"b")]
    assert field_lines(fields) == b"B: \r\na: \xff\r\nB:  x \r\nSet-Cookie: a\r\nset-cookie: b\r\n"
    assert field_lines([]) == b""


@pytest.mark.parametrize("reason", [b"", b"OK", b"Very \xe9 Well"])
def test_the_reason_is_the_upstreams(reason: bytes) -> None:
    connection = Connection()
    answer = Answer(connection, head=False)
    answer.start(Response(299, reason, [], 0))
    answer.flush()
    assert connection.data.startswith(b"HTTP/1.1 299 " + reason + b"\r\n")


# What goes out together.


def test_the_head_waits_for_the_first_piece() -> None:
    connection = Connection()
    answer = begun(connection)
    assert connection.sent == []
    answer.write(b"one")
    assert len(connection.sent) == 1
    assert connection.sent[0].endswith(b"\r\n\r\n3\r\none\r\n")
    answer.write(b"two")
    assert connection.sent[1:] == [b"3\r\ntwo\r\n"]
    answer.finish()
    assert connection.sent[2:] == [b"0\r\n\r\n"]


def test_flush_sends_the_head_alone_and_once() -> None:
    connection = Connection()
    answer = begun(connection)
    answer.flush()
    assert len(connection.sent) == 1
    assert connection.data.endswith(b"\r\n\r\n")
    answer.flush()
    assert len(connection.sent) == 1
    answer.write(b"x")
    assert connection.sent[1:] == [b"1\r\nx\r\n"]


def test_flush_before_the_head_sends_nothing() -> None:
    connection = Connection()
    answer = Answer(connection, head=False)
    answer.flush()
    assert connection.sent == []


@pytest.mark.parametrize("length", [3, None])
def test_a_last_piece_goes_out_with_the_head_and_the_end(length: int | None) -> None:
    connection = Connection()
    answer = begun(connection, length)
    answer.write(b"one", last=True)
    answer.finish()
    assert len(connection.sent) == 1
    assert split(connection.data)[2] == (b"one" if length else b"3\r\none\r\n0\r\n\r\n")


@pytest.mark.parametrize("length", [6, None])
def test_a_last_piece_goes_out_with_the_end_where_the_head_is_out(length: int | None) -> None:
    connection = Connection()
    answer = begun(connection, length)
    answer.write(b"one")
    answer.write(b"two", last=True)
    answer.finish()
    assert len(connection.sent) == 2
    assert connection.sent[1] == (b"two" if length else b"3\r\ntwo\r\n0\r\n\r\n")


def test_a_piece_that_was_said_to_be_the_last_is_not_lost_if_it_is_not() -> None:
    connection = Connection()
    answer = begun(connection, 6)
    answer.write(b"one", last=True)
    answer.write(b"two")
    answer.finish()
    assert split(connection.data)[2] == b"onetwo"


def test_a_head_without_a_body_goes_out_at_the_end() -> None:
    connection = Connection()
    answer = begun(connection, 0)
    answer.finish()
    assert len(connection.sent) == 1
    assert split(connection.data)[2] == b""


@pytest.mark.parametrize("last", [True, False])
def test_an_empty_piece_does_not_end_a_chunked_body(last: bool) -> None:
    connection = Connection()
    answer = begun(connection)
    answer.write(b"one")
    answer.write(b"", last=last)
    answer.write(b"two")
    answer.finish()
    assert split(connection.data)[2] == b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"


def dechunked(data: bytes) -> bytes:
    found = b""
    while True:
        size, _, data = data.partition(b"\r\n")
        count = int(size, 16)
        assert data[count : count + 2] == b"\r\n"
        found, data = found + data[:count], data[count + 2 :]
        if not count:
            assert data == b""
            return found


Steps = st.lists(st.one_of(st.binary(max_size=40), st.just("flush")), max_size=8)


@given(Steps, st.booleans(), st.booleans(), st.sampled_from(["chunked", "sized", "open"]))
def test_whatever_is_written_arrives_once_and_in_order(
    steps: list[Any], last: bool, finished: bool, framing: str
) -> None:
    pieces = [one for one in steps if one != "flush"]
    body = b"".join(pieces)
    connection = Connection(modern=framing != "open")
    answer = begun(connection, len(body) if framing == "sized" else None)
    for number, step in enumerate(steps):
        if step == "flush":
            answer.flush()
        else:
            answer.write(step, last=last and number == len(steps) - 1)
    if not finished:
        answer.cut()
        assert (
            split(connection.data)[2].count(b"0\r\n\r\n") == 0 or framing != "chunked" or b"0\r\n\r\n" in body
        )
        return
    answer.finish()
    got = split(connection.data)[2]
    assert (dechunked(got) if framing == "chunked" else got) == body


# Interim answers.


def test_an_interim_answer_goes_out_at_once() -> None:
    connection = Connection()
    answer = Answer(connection, head=False)
    answer.inform(Response(103, b"Early Hints", [(b"Link", b"</a>"), (b"link", b"</b>")]))
    assert connection.sent == [b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nlink: </b>\r\n\r\n"]
    answer.start(Response(200, b"OK", [], 2))
    answer.write(b"ok", last=True)
    answer.finish()
    assert connection.sent[1:] == [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"]


def test_an_old_client_is_sent_none() -> None:
    connection = Connection(modern=False)
    answer = Answer(connection, head=False)
    answer.inform(Response(103, b"Early Hints", []))
    assert connection.sent == []


# Broken off.


@pytest.mark.parametrize(
    ("modern", "length", "head", "how"),
    [
        (True, None, False, "half-close"),
        (True, 10, False, "half-close"),
        (False, 10, False, "half-close"),
        (False, None, False, "reset"),
        (True, None, True, "half-close"),
        (False, None, True, "half-close"),
    ],
)
def test_a_body_that_would_look_whole_is_reset(
    modern: bool, length: int | None, head: bool, how: str
) -> None:
    connection = Connection(modern)
    answer = begun(connection, length, head=head)
    answer.write(b"12345")
    answer.cut()
    assert connection.told == [how]
    assert b"\r\n0\r\n" not in connection.data
    if not head:
        assert b"12345" in connection.data


@pytest.mark.parametrize("last", [True, False])
def test_what_was_written_is_sent_before_the_cut(last: bool) -> None:
    connection = Connection()
    answer = begun(connection)
    answer.write(b"one", last=last)
    answer.cut()
    assert split(connection.data)[2] == b"3\r\none\r\n"
    assert connection.told == ["half-close"]


def test_a_head_that_waited_is_sent_before_the_cut() -> None:
    connection = Connection()
    begun(connection, 10).cut()
    assert split(connection.data)[1] == [b"A: 1", b"Content-Length: 10"]


def test_a_cut_before_the_head_is_a_reset() -> None:
    """A clean end without an answer says nothing of why."""
    connection = Connection()
    Answer(connection, head=False).cut()
    assert (connection.sent, connection.told) == ([], ["reset"])


# After the end.


def after(answer: Answer) -> None:
    """Everything that may still be called."""
    answer.write(b"late")
    answer.write(b"late", last=True)
    answer.flush()
    answer.inform(Response(103, b"Early Hints", []))
    answer.feed_from(None)  # type: ignore[arg-type]
    answer.fed()
    answer.finish()
    answer.cut()
    answer.client_gone()


@pytest.mark.parametrize("end", ["finish", "cut", "client_gone"])
@pytest.mark.parametrize("length", [4, None])
def test_nothing_happens_after_the_end(end: str, length: int | None) -> None:
    connection = Connection()
    gone: list[str] = []
    answer = begun(connection, length)
    answer.gone = lambda: gone.append("gone")
    answer.write(b"body")
    getattr(answer, end)()
    sent, told = list(connection.sent), list(connection.told)
    after(answer)
    assert (connection.sent, connection.told) == (sent, told)
    assert gone == (["gone"] if end == "client_gone" else [])


def test_who_wants_to_know_is_told_once_that_the_client_is_gone() -> None:
    connection = Connection()
    gone: list[str] = []
    answer = begun(connection)
    answer.gone = lambda: gone.append("gone")
    answer.client_gone()
    answer.client_gone()
    assert gone == ["gone"]
    assert (connection.sent, connection.told) == ([], [])


def test_an_answer_that_is_over_when_it_tells_of_the_client() -> None:
    """Whoever is told may try to write, or to end it."""
    connection = Connection()
    answer = begun(connection)
    answer.gone = lambda: after(answer)
    answer.client_gone()
    assert (connection.sent, connection.told) == ([], [])


def test_the_connection_is_let_go_before_it_goes_on() -> None:
    """The next request may be answered within the end of this one."""
    connection = Connection()
    answer = begun(connection, 0)

    def answered() -> None:
        connection.told.append("answered")
        after(answer)

    connection.answered = answered  # type: ignore[method-assign]
    answer.finish()
    assert connection.told == ["answered"]


def test_a_producer_is_handed_to_the_connection_and_taken_back() -> None:
    connection = Connection()
    answer = begun(connection)
    producer: Any = object()
    answer.feed_from(producer)
    answer.fed()
    assert connection.told == [producer, None]
