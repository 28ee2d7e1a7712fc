"""Which header fields pass from one connection to the next, and that those are untouched."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmproxyd.http.headers import (
    HOP_BY_HOP,
    connection_named,
    end_to_end,
    first,
    for_upstream,
    relayed,
)
from llmproxyd.wire import fields as wire_fields

Pairs = list[tuple[bytes, bytes]]

UPSTREAM = b"api.example:8443"
FRAMED = frozenset({b"host", b"content-length", b"transfer-encoding"})
"""Fields that keep their places on the way up, whatever ``Connection`` says."""

NAMES = st.sampled_from(
    b"Accept accept X-A x-a X-B Connection CONNECTION TE Host HOST Cookie x-llmproxyd-fault Expect Upgrade"
    b" Content-Type content-type Content-Encoding Content-Length Transfer-Encoding Keep-Alive".split()
)
VALUES = st.sampled_from(
    sorted(
        {
            b"",
            b"1",
            b"x-a",
            b"X-B, close",
            b" keep-alive ,,x-a",
            b"gzip",
            b"\xff\x00",
            b"close",
            b"keep-alive",
        }
        | {b"host, content-length", b"content-type,Content-Encoding", b"Keep-Alive"}
    )
)
FIELDS = st.lists(st.tuples(NAMES, VALUES), max_size=12)


@pytest.mark.parametrize("name", sorted(HOP_BY_HOP))
@pytest.mark.parametrize("change", [bytes.lower, bytes.upper, bytes.title])
def test_hop_by_hop_field_ends_here_in_any_case(name: bytes, change: object) -> None:
    written = change(name)  # type: ignore[operator]
    fields: Pairs = [(b"A", b"1"), (written, b"x"), (b"B", b"2"), (written, b"y")]
    assert end_to_end(fields) == [(b"A", b"1"), (b"B", b"2")]
    if name != b"transfer-encoding":
        # What that one says is for whoever writes the body; it keeps its place.
        assert for_upstream(fields, UPSTREAM) == [(b"A", b"1"), (b"B", b"2")]
    assert relayed(fields) == [(b"A", b"1"), (b"B", b"2")]


def test_hop_by_hop_fields_are_those_of_the_rfc() -> None:
    names = b"connection proxy-connection keep-alive te trailer transfer-encoding upgrade".split()
    assert {*names, b"proxy-authenticate", b"proxy-authorization"} == HOP_BY_HOP


NAMED: list[tuple[Pairs, set[bytes]]] = [
    ([], set()),
    ([(b"Connection", b"close")], {b"close"}),
    ([(b"Connection", b"close, X-Private")], {b"close", b"x-private"}),
    ([(b"connection", b"A,B"), (b"CONNECTION", b" c ,\td ")], {b"a", b"b", b"c", b"d"}),
    ([(b"Connection", b""), (b"Connection", b",,")], {b""}),
    ([(b"X-Connection", b"A")], set()),
]


@pytest.mark.parametrize(("fields", "named"), NAMED)
def test_fields_named_by_connection(fields: Pairs, named: set[bytes]) -> None:
    assert connection_named(fields) - {b""} == named - {b""}


def test_fields_that_connection_names_end_here_wherever_they_stand() -> None:
    fields: Pairs = [
        (b"X-One", b"1"),
        (b"Connection", b"keep-alive, x-one"),
        (b"X-TWO", b"2"),
        (b"x-two", b"3"),
        (b"Keep", b"4"),
        (b"connection", b"X-Two"),
    ]
    assert end_to_end(fields) == [(b"Keep", b"4")]
    assert for_upstream(fields, UPSTREAM) == [(b"Keep", b"4")]
    assert relayed(fields) == [(b"Keep", b"4")]


def test_order_case_and_duplicates_are_kept() -> None:
    fields: Pairs = [
        (b"Set-Cookie", b"a=1"),
        (b"x-B", b" spaced  value "),
        (b"SET-COOKIE", b"b=2"),
        (b"set-cookie", b"a=1"),
        (b"Accept-Encoding", b"gzip, br"),
        (b"x-empty", b""),
        (b"x-latin", b"\xe9"),
    ]
    assert end_to_end(fields) == fields
    assert for_upstream(fields, UPSTREAM) == fields
    assert relayed(fields) == fields


@pytest.mark.parametrize("name", [b"Host", b"host", b"HOST"])
def test_host_names_the_upstream_in_the_place_of_the_clients(name: bytes) -> None:
    fields: Pairs = [(b"A", b"1"), (name, b"localhost:8888"), (b"B", b"2")]
    assert for_upstream(fields, UPSTREAM) == [(b"A", b"1"), (name, UPSTREAM), (b"B", b"2")]


def test_without_a_host_none_is_made_up() -> None:
    """HTTP/1.0: whoever sends it on adds one."""
    assert for_upstream([(b"A", b"1")], UPSTREAM) == [(b"A", b"1")]


@pytest.mark.parametrize(
    "named", [b"host", b"content-length", b"transfer-encoding", b"Host, X-A, Content-Length"]
)
def test_connection_takes_no_framing_field_away(named: bytes) -> None:
    fields: Pairs = [
        (b"Host", b"x"),
        (b"Connection", named),
        (b"Content-Length", b"3"),
        (b"Transfer-Encoding", b"chunked"),
    ]
    expected = [(b"Host", UPSTREAM), (b"Content-Length", b"3"), (b"Transfer-Encoding", b"chunked")]
    assert for_upstream(fields, UPSTREAM) == expected


@pytest.mark.parametrize("name", [b"EXPECT", b"expect"])
def test_expect_is_answered_here(name: bytes) -> None:
    assert for_upstream([(name, b"100-continue"), (b"Content-Type", b"t")], UPSTREAM) == [
        (b"Content-Type", b"t")
    ]


def test_framing_passes_to_the_client() -> None:
    fields: Pairs = [(b"Host", b"x"), (b"Content-Length", b"3"), (b"EXPECT", b"1"), (b"Content-Type", b"t")]
    assert end_to_end(fields) == fields
    assert relayed(fields) == fields


def test_transfer_encoding_does_not() -> None:
    assert relayed([(b"Transfer-Encoding", b"chunked"), (b"A", b"1")]) == [(b"A", b"1")]


@settings(deadline=None)
@given(FIELDS)
def test_what_is_relayed_is_what_ends_nowhere(fields: Pairs) -> None:
    """The quick walk and the plain one agree, whatever was remembered before."""
    assert relayed(fields) == end_to_end(fields)


@settings(deadline=None)
@given(st.lists(st.binary(max_size=70).map(lambda rest: b"X-" + rest), min_size=1, max_size=20))
def test_no_multitude_of_names_is_remembered_for_ever(names: list[bytes]) -> None:
    for name in names:
        assert relayed([(name, b"1"), (b"TE", b"x")]) == [(name, b"1")]
    known = wire_fields.meaning.__self__  # type: ignore[attr-defined]
    assert len(known) <= wire_fields._KNOWN
    assert max(map(len, known)) <= 64


@pytest.mark.parametrize(
    "name", [b"x-llmproxyd-fault", b"X-LLMProxyd-Fault", b"X-LLMPROXYD-", b"x-llmproxyd-anything"]
)
def test_field_of_ours_never_goes_upstream(name: bytes) -> None:
    assert for_upstream([(name, b"rate_limit"), (b"x-llmproxy", b"1")], UPSTREAM) == [(b"x-llmproxy", b"1")]


def test_credentials_and_cookies_of_the_client_pass() -> None:
    fields: Pairs = [
        (b"Authorization", b"Bearer k"),
        (b"x-api-key", b"k"),
        (b"Cookie", b"c"),
        (b"User-Agent", b"u"),
    ]
    assert for_upstream(fields, UPSTREAM) == fields


def test_further_names_can_be_left_out() -> None:
    assert end_to_end([(b"Server", b"x"), (b"Date", b"y")], without=[b"server"]) == [(b"Date", b"y")]


@settings(deadline=None)
@given(FIELDS)
def test_what_passes_is_a_subsequence_and_nothing_else_is_lost(fields: Pairs) -> None:
    dropped = (HOP_BY_HOP | {b"expect"} | connection_named(fields)) - FRAMED
    expected = [
        (name, UPSTREAM) if name.lower() == b"host" else (name, value)
        for name, value in fields
        if name.lower() not in dropped and not name.lower().startswith(b"x-llmproxyd-")
    ]
    assert for_upstream(fields, UPSTREAM) == expected


def test_first_of_several_values_in_any_case() -> None:
    fields: Pairs = [(b"a", b"0"), (b"X-A", b"1"), (b"x-a", b"2")]
    assert first(fields, b"x-a") == b"1"
    assert first(fields, b"x-b") is None
