"""Heads of requests: what is taken, what is refused, and that what is remembered is what was read."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from httptools import HttpRequestParser
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from llmproxyd.model import Request
from llmproxyd.wire.fields import MAX_FIELDS, MAX_LENGTH
from llmproxyd.wire.head import MAX_LINE, METHODS, BadRequest, Head, Limits, begun, check_size, parse

LIMITS = Limits()
PEER = "203.0.113.9:5"
POST = b"POST /v1/chat/completions HTTP/1.1"
HOST = b"Host: localhost"


class Collector:
    """Takes fields from llhttp, as a connection does."""

    def __init__(self) -> None:
        self.fields: list[tuple[bytes, bytes]] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value))


def lines(*all_lines: bytes) -> bytes:
    """A head of exactly these lines."""
    return b"\r\n".join([*all_lines, b"", b""])


def read(raw: bytes) -> Head:
    """What *raw* says."""
    collector = Collector()
    return parse(raw, HttpRequestParser(collector), collector.fields, PEER)


def refusal(raw: bytes) -> tuple[int, str] | None:
    """Status and code of the refusal, ``None`` when it is taken."""
    try:
        read(raw)
    except BadRequest as error:
        return error.status, error.code
    return None


def said(head: Head) -> tuple[object, ...]:
    """Everything that a head means."""
    return head.raw, head.request, list(head.request.headers), *framing(head)


def framing(head: Head) -> tuple[object, ...]:
    return head.length, head.chunked, head.keep_alive, head.expects


# What is taken.

FRAMED: list[tuple[bytes, tuple[object, ...]]] = [
    # length, chunked, keep_alive, expects
    (lines(b"GET / HTTP/1.1", HOST), (0, False, True, False)),
    (lines(b"GET / HTTP/1.0"), (0, False, False, False)),
    (lines(b"GET / HTTP/1.0", b"Connection: keep-alive"), (0, False, True, False)),
    (lines(b"GET / HTTP/1.0", b"Connection: x, KEEP-Alive"), (0, False, True, False)),
    (lines(b"GET / HTTP/1.0", b"Connection: keep-alive, close"), (0, False, False, False)),
    (lines(b"GET / HTTP/1.1", HOST, b"Connection: close"), (0, False, False, False)),
    (lines(b"GET / HTTP/1.1", HOST, b"connection: Close,x-a"), (0, False, False, False)),
    (
        lines(b"GET / HTTP/1.1", HOST, b"Connection: x-a", b"Connection:close"),
        (0, False, False, False),
    ),
    (lines(b"GET / HTTP/1.1", HOST, b"Connection: closed"), (0, False, True, False)),
    (lines(POST, HOST, b"Content-Length: 0"), (0, False, True, False)),
    (lines(POST, HOST, b"Content-Length: 17"), (17, False, True, False)),
    (lines(POST, HOST, b"CONTENT-LENGTH:\t17 \t"), (17, False, True, False)),
    (lines(POST, HOST, b"Content-Length: 017"), (17, False, True, False)),
    (lines(POST, HOST, b"Content-Length: %d" % MAX_LENGTH), (MAX_LENGTH, False, True, False)),
    (lines(POST, HOST, b"Transfer-Encoding: chunked"), (None, True, True, False)),
    (lines(POST, HOST, b"transfer-encoding: Chunked"), (None, True, True, False)),
    (lines(POST, HOST, b"Expect: 100-continue", b"Content-Length: 3"), (3, False, True, True)),
    (lines(POST, HOST, b"expect: 100-CONTINUE", b"Content-Length: 3"), (3, False, True, True)),
    (lines(b"POST / HTTP/1.0", b"Expect: anything", b"Content-Length: 3"), (3, False, False, False)),
    (lines(b"GET / HTTP/1.1", HOST, b"Connection: Upgrade", b"Upgrade: h2c"), (0, False, True, False)),
    (
        lines(POST, HOST, b"Connection: Upgrade", b"Upgrade: h2c", b"Content-Length: 2"),
        (2, False, True, False),
    ),
    (lines(b"GET / HTTP/1.1", HOST, b"Upgrade: websocket"), (0, False, True, False)),
    (
        lines(b"GET / HTTP/1.0", HOST, b"Upgrade: websocket", b"Connection: upgrade")[:],
        (0, False, False, False),
    ),
]


@pytest.mark.parametrize(("raw", "meaning"), FRAMED)
def test_what_a_head_means_to_the_connection(raw: bytes, meaning: tuple[object, ...]) -> None:
    assert framing(read(raw)) == meaning


@pytest.mark.parametrize("method", sorted(METHODS))
def test_methods_that_llhttp_knows(method: bytes) -> None:
    assert read(lines(method + b" /x HTTP/1.1", HOST)).request.method == method


def test_fields_are_kept_in_order_case_and_number() -> None:
    raw = lines(POST, HOST, b"x-B:  2", b"X-a: 1\xe9", b"x-b:", b"COOKIE: a=1; b=2", b"x-c: a  b")
    request = read(raw).request
    assert request == Request(
        b"POST",
        b"/v1/chat/completions",
        [
            (b"Host", b"localhost"),
            (b"x-B", b"2"),
            (b"X-a", b"1\xe9"),
            (b"x-b", b""),
            (b"COOKIE", b"a=1; b=2"),
            (b"x-c", b"a  b"),
        ],
        (1, 1),
        PEER,
    )


TARGETS = [
    (b"/", b"/"),
    (b"//x//y", b"//x//y"),
    (b"/a/../b?q=%2F&&#f", b"/a/../b?q=%2F&&#f"),
    (b"/a\\b|c^d`{e}", b"/a\\b|c^d`{e}"),
    (b"http://localhost/v1?x", b"/v1?x"),
    (b"HTTP://LOCALHOST", b"/"),
    (b"https://localhost?x=/", b"/?x=/"),
    (b"http://localhost/#f", b"/#f"),
]


@pytest.mark.parametrize(("target", "origin_form"), TARGETS)
def test_targets_are_kept_from_their_path_on(target: bytes, origin_form: bytes) -> None:
    assert read(lines(b"GET " + target + b" HTTP/1.1", HOST)).request.target == origin_form


@pytest.mark.parametrize(
    "host", [b"a", b"127.0.0.1:8888", b"[::1]:80", b"[::1]", b"a.b-c_d~e:", b"x%41", b"localhost "]
)
def test_hosts(host: bytes) -> None:
    assert refusal(lines(b"GET / HTTP/1.1", b"Host: " + host)) is None


# What is refused.

BAD_LINES = [
    b"GET  / HTTP/1.1",
    b"GET / HTTP/1.1 ",
    b" GET / HTTP/1.1",
    b"GET /\tHTTP/1.1",
    b"GET\t/ HTTP/1.1",
    b"GET / http/1.1",
    b"GET / HTTP/1.1x",
    b"GET / HTTP/11",
    b"GET / HTTP/1.10",
    b"GET /",
    b"GET",
    b"",
    b"GET / HTTP/1.1\r",
    b"GET /\x00 HTTP/1.1",
    b"GET /\xc3\xa9 HTTP/1.1",
    b"GET /\x7f HTTP/1.1",
    b"G@T / HTTP/1.1",
    b"GET / ICE/1.1",
    b"GET / HTTP/1.1\n",
    b"GET /a b HTTP/1.1",
]


@pytest.mark.parametrize("line", BAD_LINES)
def test_what_is_no_request_line(line: bytes) -> None:
    assert refusal(lines(line, HOST)) == (400, "bad_request")


REFUSED: list[tuple[bytes, int, str]] = [
    (lines(b"GET / HTTP/2.0", HOST), 505, "http_version_not_supported"),
    (lines(b"GET / HTTP/0.9", HOST), 505, "http_version_not_supported"),
    (lines(b"GET / HTTP/1.2", HOST), 505, "http_version_not_supported"),
    (lines(b"TRACE / HTTP/1.1", HOST), 501, "method_not_implemented"),
    (lines(b"CONNECT a:1 HTTP/1.1", HOST), 501, "method_not_implemented"),
    (lines(b"get / HTTP/1.1", HOST), 501, "method_not_implemented"),
    (lines(b"FROB / HTTP/1.1", HOST), 501, "method_not_implemented"),
    (lines(b"PRI / HTTP/1.1", HOST), 501, "method_not_implemented"),
    (lines(b"OPTIONS * HTTP/1.1", HOST), 400, "bad_target"),
    (lines(b"GET x HTTP/1.1", HOST), 400, "bad_target"),
    (lines(b"GET @evil/x HTTP/1.1", HOST), 400, "bad_target"),
    (lines(b"GET ftp://localhost/ HTTP/1.1", HOST), 400, "bad_target"),
    (lines(b"GET http:/localhost/ HTTP/1.1", HOST), 400, "bad_target"),
    (lines(b"GET http://other/ HTTP/1.1", HOST), 400, "bad_host"),
    (lines(b"GET http://localhost:80/ HTTP/1.1", HOST), 400, "bad_host"),
    (lines(b"GET http:/// HTTP/1.1", HOST), 400, "bad_host"),
    (lines(b"GET http://a@localhost/ HTTP/1.1", HOST), 400, "bad_host"),
    (lines(b"GET http://localhost#f HTTP/1.1", HOST), 400, "bad_request"),
    (lines(b"GET / HTTP/1.1"), 400, "bad_host"),
    (lines(b"GET / HTTP/1.1", HOST, HOST), 400, "bad_host"),
    (lines(b"GET / HTTP/1.0", HOST, HOST), 400, "bad_host"),
    (lines(b"GET / HTTP/1.1", HOST, b"host: x"), 400, "bad_host"),
    (lines(b"GET / HTTP/1.1", b"Host:"), 400, "bad_host"),
    (lines(b"GET / HTTP/1.1", b"Host: a b"), 400, "bad_host"),
    (lines(b"GET / HTTP/1.1", b"Host: a/b"), 400, "bad_host"),
    (lines(b"GET / HTTP/1.1", b"Host: a@b"), 400, "bad_host"),
    (lines(b"GET / HTTP/1.1", b"Host: a:b"), 400, "bad_host"),
    (lines(b"GET / HTTP/1.1", b"Host: a:123456"), 400, "bad_host"),
    (lines(b"GET / HTTP/1.1", b"Host: a, b"), 400, "bad_host"),
    (lines(b"GET / HTTP/1.1", b"Host: \xe9"), 400, "bad_host"),
    (lines(POST, HOST, b"Content-Length: +3"), 400, "bad_framing"),
    (lines(POST, HOST, b"Content-Length: -3"), 400, "bad_framing"),
    (lines(POST, HOST, b"Content-Length: 3,3"), 400, "bad_framing"),
    (lines(POST, HOST, b"Content-Length: 3 3"), 400, "bad_framing"),
    (lines(POST, HOST, b"Content-Length: 0x3"), 400, "bad_framing"),
    (lines(POST, HOST, b"Content-Length: 1_0"), 400, "bad_framing"),
    (lines(POST, HOST, b"Content-Length: \xb2"), 400, "bad_framing"),
    (lines(POST, HOST, b"Content-Length:"), 400, "bad_framing"),
    (lines(POST, HOST, b"Content-Length: %d" % (MAX_LENGTH + 1)), 400, "bad_framing"),
    (lines(POST, HOST, b"Content-Length: 99999999999999999999"), 400, "bad_framing"),
    (lines(POST, HOST, b"Content-Length: 00000000000000000003"), 400, "bad_framing"),
    (lines(POST, HOST, b"Content-Length: 3", b"Content-Length: 3"), 400, "bad_framing"),
    (lines(POST, HOST, b"Content-Length: 3", b"content-length: 4"), 400, "bad_framing"),
    (lines(POST, HOST, b"Content-Length: 3", b"Transfer-Encoding: chunked"), 400, "bad_framing"),
    (lines(POST, HOST, b"Transfer-Encoding: chunked", b"Content-Length: 3"), 400, "bad_framing"),
    (lines(POST, HOST, b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"), 400, "bad_framing"),
    (lines(POST, HOST, b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"), 400, "bad_framing"),
    (lines(POST, HOST, b"Transfer-Encoding: chunked, chunked"), 400, "bad_framing"),
    (lines(POST, HOST, b"Transfer-Encoding: gzip, chunked"), 400, "bad_framing"),
    (lines(POST, HOST, b"Transfer-Encoding: identity"), 400, "bad_framing"),
    (lines(POST, HOST, b"Transfer-Encoding: xchunked"), 400, "bad_framing"),
    (lines(POST, HOST, b"Transfer-Encoding: chunked;q=1"), 400, "bad_framing"),
    (lines(POST, HOST, b"Transfer-Encoding:"), 400, "bad_framing"),
    (lines(b"POST / HTTP/1.0", HOST, b"Transfer-Encoding: chunked"), 400, "bad_framing"),
    (lines(POST, HOST, b"Content_Length: 3"), 400, "bad_framing"),
    (lines(POST, HOST, b"TRANSFER_ENCODING: chunked"), 400, "bad_framing"),
    (lines(POST, HOST, b"Expect: 200-ok"), 417, "expectation_failed"),
    (lines(POST, HOST, b"Expect:"), 417, "expectation_failed"),
    (lines(POST, HOST, b"Expect: 100-continue, x"), 417, "expectation_failed"),
    (
        lines(b"GET / HTTP/1.1", HOST, b"Upgrade: WebSocket", b"Connection: x, Upgrade"),
        501,
        "upgrade_not_supported",
    ),
    (
        lines(b"GET / HTTP/1.1", HOST, b"Upgrade: h2c, websocket", b"Connection: Upgrade"),
        501,
        "upgrade_not_supported",
    ),
    (lines(POST, HOST, b"a b: 1"), 400, "bad_request"),
    (lines(POST, HOST, b"a : 1"), 400, "bad_request"),
    (lines(POST, HOST, b" a: 1"), 400, "bad_request"),
    (lines(POST, HOST, b"a: 1", b" b"), 400, "bad_request"),
    (lines(POST, HOST, b"a: 1", b"\tb"), 400, "bad_request"),
    (lines(POST, b" x", HOST), 400, "bad_request"),
    (lines(POST, HOST, b": 1"), 400, "bad_request"),
    (lines(POST, HOST, b"a"), 400, "bad_request"),
    (lines(POST, HOST, b"a: 1\rb: 2"), 400, "bad_request"),
    (lines(POST, HOST, b"a: 1\nb: 2"), 400, "bad_request"),
    (lines(POST, HOST, b"a: 1\n\nGET /x HTTP/1.1"), 400, "bad_request"),
    (lines(POST, HOST, b"a: 1\r\n\n"), 400, "bad_request"),
    (lines(POST, HOST, b"a: \x00"), 400, "bad_request"),
    (lines(POST, HOST, b"\xe9: 1"), 400, "bad_request"),
    (lines(POST, HOST, b"a\x00: 1"), 400, "bad_request"),
    (lines(POST, HOST, b"Transfer-Encoding : chunked"), 400, "bad_request"),
    (lines(POST, HOST, *(b"x-%d: 1" % number for number in range(MAX_FIELDS))), 431, "headers_too_large"),
]


@pytest.mark.parametrize(("raw", "status", "code"), REFUSED)
def test_what_is_refused_and_how(raw: bytes, status: int, code: str) -> None:
    found = refusal(raw)
    if code == "bad_request" and found == (400, "bad_framing"):
        pytest.fail("it is not the framing that is wrong")
    assert found == (status, code)


def test_as_many_fields_as_are_allowed() -> None:
    raw = lines(POST, HOST, *(b"x-%d: 1" % number for number in range(MAX_FIELDS - 1)))
    assert len(read(raw).request.headers) == MAX_FIELDS


SECRET = b"sk-secret"


@pytest.mark.parametrize(("raw", "status", "code"), REFUSED)
def test_no_refusal_repeats_what_was_sent(raw: bytes, status: int, code: str) -> None:
    """Keys stand in heads, and the words of a refusal go to logs."""
    line, rest = raw.split(b"\r\n", 1)
    method, target, version = line.split(b" ", 2)
    hidden = b"%b %b/%b %b\r\n" % (method, target, SECRET, version)
    with pytest.raises(BadRequest) as caught:
        read(hidden + b"Authorization: Bearer " + SECRET + b"\r\n" + rest)
    error = caught.value
    assert "secret" not in str(error) + error.message + error.code + repr(error)
    assert error.__cause__ is None
    assert error.__suppress_context__ or error.__context__ is None


def test_a_refusal_tells_as_much_of_the_request_as_was_understood() -> None:
    with pytest.raises(BadRequest) as caught:
        read(lines(b"HEAD /v1/messages?k=1 HTTP/1.0", b"x-a: 1", b"x-b: 2", b"b b: 3"))
    request = caught.value.request
    assert request is not None
    assert (request.method, request.target, request.version, request.peer) == (
        b"HEAD",
        b"/v1/messages?k=1",
        (1, 0),
        PEER,
    )
    # llhttp tells of a field when the next one begins.
    assert list(request.headers) == [(b"x-a", b"1")]


def test_a_refused_absolute_target_is_not_taken_for_a_path() -> None:
    with pytest.raises(BadRequest) as caught:
        read(lines(b"GET http://evil.example/x HTTP/1.1", HOST))
    assert caught.value.request is None


# Size.


def line_of(size: int) -> bytes:
    return b"GET /" + b"x" * (size - len(b"GET / HTTP/1.1")) + b" HTTP/1.1"


def sized(fields: int) -> bytes:
    """A head with so many bytes of fields, their ends included."""
    raw = lines(b"GET / HTTP/1.1", HOST, b"x-a: ")
    start = raw.find(b"\r\n") + 2
    return raw[:-4] + b"a" * (fields - (len(raw) - 2 - start)) + raw[-4:]


def test_the_longest_request_line() -> None:
    raw = lines(line_of(MAX_LINE), HOST)
    check_size(raw, LIMITS)
    assert len(read(raw).request.target) > MAX_LINE - 20
    for size in (1, MAX_LINE // 2, MAX_LINE, MAX_LINE + 2, MAX_LINE + 3):
        begun(raw[:size], LIMITS)


def test_the_longest_request_line_may_be_cut_within_its_end() -> None:
    begun(lines(line_of(MAX_LINE), HOST)[: MAX_LINE + 1], LIMITS)


def test_one_byte_more_is_414_by_whatever_way() -> None:
    raw = lines(line_of(MAX_LINE + 1), HOST)
    assert refusal(raw) == (414, "uri_too_long")
    for judge in (
        lambda: check_size(raw, LIMITS),
        lambda: begun(raw, LIMITS),
        lambda: begun(raw[: MAX_LINE + 1], LIMITS),
    ):
        with pytest.raises(BadRequest) as caught:
            judge()
        assert (caught.value.status, caught.value.code) == (414, "uri_too_long")


@pytest.mark.parametrize("most", [1024, 4000, 64 * 1024])
def test_the_size_of_all_fields(most: int) -> None:
    limits = Limits(max_headers=most)
    check_size(sized(most), limits)
    begun(sized(most)[:-1], limits)
    with pytest.raises(BadRequest) as caught:
        check_size(sized(most + 1), limits)
    assert (caught.value.status, caught.value.code) == (431, "headers_too_large")
    with pytest.raises(BadRequest) as caught:
        begun(sized(most + 8)[:-2], limits)
    assert (caught.value.status, caught.value.code) == (431, "headers_too_large")


# A head that comes in part.

GOOD = [raw for raw, _ in FRAMED] + [
    lines(b"GET " + target + b" HTTP/1.1", HOST) for target, _ in TARGETS
]  # fmt: skip


@pytest.mark.parametrize("raw", GOOD)
def test_no_beginning_of_a_good_head_is_refused(raw: bytes) -> None:
    for end in range(1, len(raw)):
        begun(raw[:end], LIMITS)


TOKENS = st.text("!#$%&'*+-.^_`|~09azAZ", min_size=1, max_size=12).map(str.encode)
VALUES = st.binary(max_size=30).map(
    lambda some: bytes(byte for byte in some if byte >= 0x20 and byte != 0x7F)
)
PATHS = st.text([chr(byte) for byte in range(0x21, 0x7F)], max_size=30).map(lambda path: b"/" + path.encode())


@st.composite
def good_heads(draw: st.DrawFn) -> bytes:
    """Heads of all kinds, of which some are refused for what they say and not for how."""
    fields = draw(st.lists(st.tuples(TOKENS, VALUES), max_size=5))
    framed = draw(
        st.sampled_from([b"", b"Content-Length: 12", b"Transfer-Encoding: chunked", b"Connection: close"])
    )
    version = draw(st.sampled_from([b"1.1", b"1.0"]))
    all_lines = [b"%b: %b" % field for field in fields] + [HOST] + ([framed] if framed else [])
    order = draw(st.permutations(all_lines))
    method = draw(st.sampled_from(sorted(METHODS)))
    return lines(b"%b %b HTTP/%b" % (method, draw(PATHS), version), *order)


@settings(deadline=None)
@given(good_heads())
def test_no_beginning_of_a_generated_good_head_is_refused(raw: bytes) -> None:
    assume(refusal(raw) is None)
    for end in range(1, len(raw)):
        begun(raw[:end], LIMITS)


@pytest.mark.parametrize("line", [one for one in BAD_LINES if one and not one.endswith(b"\r")])
def test_a_bad_line_is_refused_when_its_end_is_there_at_the_latest(line: bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        begun(line + b"\r\n", LIMITS)
    assert caught.value.status == 400


EARLY = [
    b"\x16\x03\x01",
    b"GET\r",
    b"GET\x00",
    b"GET /\x00",
    b"GET / HTTP/1.1x",
    b"GET / X",
    b"\n",
    b" ",
    b"GET /\n",
]


@pytest.mark.parametrize("part", EARLY)
def test_what_can_no_more_become_a_request_line_is_refused_at_once(part: bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        begun(part, LIMITS)
    assert (caught.value.status, caught.value.code) == (400, "bad_request")


# What is read is what stands there.


def plainly(raw: bytes) -> list[tuple[bytes, bytes]]:
    """The fields of *raw*, read in the simplest way."""
    assert raw.endswith(b"\r\n\r\n")
    pairs = (one.partition(b":") for one in raw[:-4].split(b"\r\n")[1:])
    return [(name, value.strip(b" \t")) for name, _, value in pairs]


def is_cut(raw: bytes) -> bool:
    """Whether *raw* is what a connection would take for one head: up to the first empty line."""
    return raw.find(b"\r\n\r\n") == len(raw) - 4


def agrees(raw: bytes) -> None:
    """Whatever is taken is read as anybody would read it: no line is hidden in another one."""
    try:
        head = read(raw)
    except BadRequest:
        return
    found = [(name, value.strip(b" \t")) for name, value in head.request.headers]
    assert found == plainly(raw)
    assert raw.count(b"\r\n\r\n") == 1
    assert b"\r" not in raw.replace(b"\r\n", b"")
    assert b"\n" not in raw.replace(b"\r\n", b"")
    assert b"\x00" not in raw
    line = raw.partition(b"\r\n")[0]
    assert line.split(b" ")[0] == head.request.method
    assert line.split(b" ")[1].endswith(head.request.target.removeprefix(b"/"))


@settings(deadline=None, max_examples=300)
@given(good_heads(), st.data())
def test_what_is_taken_is_read_plainly(raw: bytes, data: st.DataObject) -> None:
    agrees(raw)
    for _ in range(20):
        at = data.draw(st.integers(0, len(raw) - 5))
        piece = data.draw(
            st.sampled_from([b"\r", b"\n", b"\r\n", b"\x00", b":", b" ", b"\t", b"", b"\x0b", b"\xa0", b"_"])
        )
        changed = raw[:at] + piece + raw[at + data.draw(st.integers(0, 2)) :]
        if is_cut(changed):
            agrees(changed)


# What is remembered of a head.

WIDE = lines(POST, HOST, b"Content-Length: \t 5 \t ", b"x: 1")
"""White space behind the value, which llhttp leaves there."""

KEPT = [
    lines(POST, HOST, b"Authorization: Bearer k", b"Content-Length: 17"),
    lines(POST, b"content-LENGTH:17", HOST, b"Authorization: Bearer k"),
    lines(POST, HOST, b"Content-Length: \t 5", b"x: 1"),
    lines(POST, HOST, b"X-Content-Length: 3", b"Content-Length: 4", b"x: 1"),
    lines(POST, HOST, b"x: content-length: 5", b"Content-Length: 5"),
    lines(POST, HOST, b"x:Content-Length: 5", b"Content-Length: 5", b"y: 17"),
    lines(POST, HOST, b"Content-Length: 007", b"Connection: close"),
    lines(POST, HOST, b"Content-Length: 9223372036854775807"),
    lines(POST, HOST, b"Content-Length: 3", b"Expect: 100-continue"),
    lines(POST, HOST, b"Content-Length: 3", b"Upgrade: h2c", b"Connection: upgrade"),
    lines(b"POST / HTTP/1.0", b"Content-Length: 31", b"Connection: keep-alive"),
    lines(b"POST http://localhost/x HTTP/1.1", HOST, b"Content-Length: 9"),
    lines(b"GET / HTTP/1.1", HOST),
    lines(POST, HOST, b"Transfer-Encoding: chunked"),
    lines(POST, HOST, b"Content-Length: 0"),
    lines(b"GET /?content-length:5 HTTP/1.1", HOST, b"Content-Length: 5"),
]


def same_or_anew(head: Head, raw: bytes) -> bool:
    """Assert that what *head* says of *raw* is what *raw* says itself; whether it says anything."""
    again = head.again(raw)
    if again is None:
        return False
    assert said(again) == said(read(raw))  # which raises where it is to be refused
    return True


@pytest.mark.parametrize("raw", KEPT)
def test_the_same_head_again_is_the_same(raw: bytes) -> None:
    head = read(raw)
    assert head.again(bytes(bytearray(raw))) is head


def with_length(raw: bytes, digits: bytes) -> bytes:
    """*raw* with another length."""
    value = next(value for name, value in read(raw).request.headers if name.lower() == b"content-length")
    at = raw.lower().index(b"\r\ncontent-length:") + len(b"\r\ncontent-length:")
    return raw[:at] + raw[at:].replace(value.strip(), digits, 1)


SIZED = [raw for raw in KEPT if read(raw).length]
LENGTHS = [b"1", b"9", b"10", b"123456", b"%d" % MAX_LENGTH, b"001"]


@pytest.mark.parametrize("raw", SIZED)
@pytest.mark.parametrize("digits", LENGTHS)
def test_another_length_is_read_without_parsing_again(raw: bytes, digits: bytes) -> None:
    head, changed = read(raw), with_length(raw, digits)
    again = head.again(changed)
    assert again is not None
    assert again.length == int(digits)
    assert said(again) == said(read(changed))
    assert again.request.memo is head.request.memo
    assert said(head) == said(read(raw))


NO_LENGTHS = [
    b"",
    b"0",
    b"00",
    b"-1",
    b"+1",
    b"1,1",
    b"1 1",
    b"0x1",
    b"1_0",
    b" 1",
    b"\xb2",
    "\u0663".encode(),
]
NO_LENGTHS += [b"%d" % (MAX_LENGTH + 1), b"99999999999999999999", b"1\r\nContent-Length: 1", b"1\r\nTransfer-Encoding: chunked", b"1\r\n", b"1\n", b"1\x00"]  # fmt: skip


@pytest.mark.parametrize("raw", SIZED)
@pytest.mark.parametrize("digits", NO_LENGTHS)
def test_what_is_no_length_is_judged_anew(raw: bytes, digits: bytes) -> None:
    same_or_anew(read(raw), with_length(raw, digits))
    assert digits == b" 1" or read(raw).again(with_length(raw, digits)) is None


def changes(raw: bytes) -> Iterator[bytes]:
    """*raw* with any one byte replaced by any other, taken out, put in, or doubled."""
    for at in range(len(raw)):
        for byte in range(256):
            one = bytes((byte,))
            yield raw[:at] + one + raw[at + 1 :]
            yield raw[:at] + one + raw[at:]
        yield raw[:at] + raw[at + 1 :]


@pytest.mark.parametrize("raw", KEPT)
def test_no_change_of_one_byte_is_taken_for_what_it_is_not(raw: bytes) -> None:
    """A head that a fresh look would refuse, or read otherwise, is never taken from memory."""
    head = read(raw)
    known = sum(same_or_anew(head, changed) for changed in changes(raw))
    if head.length:
        # The nine other digits for each of them at least, less a length of 0.
        assert known >= 8
    else:
        assert known == len([one for one in changes(raw) if one == raw])


@settings(deadline=None, max_examples=300)
@given(good_heads(), st.data())
def test_no_change_of_a_generated_head_is_taken_for_what_it_is_not(raw: bytes, data: st.DataObject) -> None:
    assume(refusal(raw) is None)
    head = read(raw)
    for _ in range(15):
        start = data.draw(st.integers(0, len(raw)))
        end = data.draw(st.integers(start, min(len(raw), start + 30)))
        piece = data.draw(
            st.one_of(
                st.binary(max_size=3),
                st.sampled_from(LENGTHS + NO_LENGTHS),
                st.sampled_from(plain_lines(raw)),
            )
        )
        changed = raw[:start] + piece + raw[end:]
        if is_cut(changed):
            same_or_anew(head, changed)


def plain_lines(raw: bytes) -> list[bytes]:
    return [one + b"\r\n" for one in raw[:-4].split(b"\r\n")]


@settings(deadline=None)
@given(st.sampled_from(SIZED), st.lists(st.integers(0, MAX_LENGTH + 5), min_size=1, max_size=8))
@example(SIZED[0], [0, 1])
def test_one_after_the_other(raw: bytes, lengths: list[int]) -> None:
    """As on a connection: what was taken from memory is remembered in its turn."""
    head = read(raw)
    for length in lengths:
        changed = with_length(raw, b"%d" % length)
        again = head.again(changed)
        if again is None:
            assert length == 0 or length > MAX_LENGTH
            continue
        assert said(again) == said(read(changed))
        head = again


def test_white_space_behind_the_length() -> None:
    assert same_or_anew(read(WIDE), with_length(WIDE, b"6"))


def test_heads_that_overlap_themselves_are_not_mistaken() -> None:
    """Too short to hold both what stood before the length and what stood behind it."""
    head = read(lines(POST, HOST, b"Content-Length: 11"))
    assert head.again(lines(POST, HOST, b"Content-Length: 1")) is not None
    assert head.again(lines(POST, HOST, b"Content-Length: ")) is None
    assert head.again(lines(POST, HOST, b"Content-Length:")) is None
    assert head.again(b"") is None
