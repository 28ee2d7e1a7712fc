"""Which header fields pass from one connection to the next, and that those are untouched."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmproxyd.http.headers import (
    FRAMING,
    HOP_BY_HOP,
    connection_named,
    end_to_end,
    first,
    for_upstream,
)

Pairs = list[tuple[bytes, bytes]]

NAMES = st.sampled_from(
    [b"Accept", b"accept", b"X-A", b"x-a", b"X-B", b"Connection", b"CONNECTION", b"TE", b"Host", b"Cookie", b"x-llmproxyd-fault"]
)  # fmt: skip
VALUES = st.sampled_from([b"", b"1", b"x-a", b"X-B, close", b" keep-alive ,,x-a", b"gzip", b"\xff\x00"])
FIELDS = st.lists(st.tuples(NAMES, VALUES), max_size=12)


@pytest.mark.parametrize("name", sorted(HOP_BY_HOP))
@pytest.mark.parametrize("change", [bytes.lower, bytes.upper, bytes.title])
def test_hop_by_hop_field_ends_here_in_any_case(name: bytes, change: object) -> None:
    written = change(name)  # type: ignore[operator]
    fields: Pairs = [(b"A", b"1"), (written, b"x"), (b"B", b"2"), (written, b"y")]
    assert end_to_end(fields) == [(b"A", b"1"), (b"B", b"2")]
    assert for_upstream(fields) == [(b"A", b"1"), (b"B", b"2")]


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
    assert for_upstream(fields) == fields


def test_framing_is_set_by_each_side_but_passes_to_the_client() -> None:
    fields: Pairs = [
        (b"Host", b"x"),
        (b"Content-Length", b"3"),
        (b"EXPECT", b"100-continue"),
        (b"Content-Type", b"t"),
    ]
    assert frozenset({b"host", b"content-length", b"expect"}) == FRAMING
    assert for_upstream(fields) == [(b"Content-Type", b"t")]
    assert end_to_end(fields) == fields


@pytest.mark.parametrize(
    "name", [b"x-llmproxyd-fault", b"X-LLMProxyd-Fault", b"X-LLMPROXYD-", b"x-llmproxyd-anything"]
)
def test_field_of_ours_never_goes_upstream(name: bytes) -> None:
    assert for_upstream([(name, b"rate_limit"), (b"x-llmproxy", b"1")]) == [(b"x-llmproxy", b"1")]


def test_credentials_and_cookies_of_the_client_pass() -> None:
    fields: Pairs = [
        (b"Authorization", b"Bearer k"),
        (b"x-api-key", b"k"),
        (b"Cookie", b"c"),
        (b"User-Agent", b"u"),
    ]
    assert for_upstream(fields) == fields


def test_further_names_can_be_left_out() -> None:
    assert end_to_end([(b"Server", b"x"), (b"Date", b"y")], without=[b"server"]) == [(b"Date", b"y")]


@settings(deadline=None)
@given(FIELDS)
def test_what_passes_is_a_subsequence_and_nothing_else_is_lost(fields: Pairs) -> None:
    passed = for_upstream(fields)
    rest = iter(fields)
    assert all(any(pair is one for one in rest) for pair in passed)
    dropped = HOP_BY_HOP | FRAMING | connection_named(fields)
    expected = [
        pair
        for pair in fields
        if pair[0].lower() not in dropped and not pair[0].lower().startswith(b"x-llmproxyd-")
    ]
    assert passed == expected


def test_first_of_several_values_in_any_case() -> None:
    fields: Pairs = [(b"a", b"0"), (b"X-A", b"1"), (b"x-a", b"2")]
    assert first(fields, b"x-a") == b"1"
    assert first(fields, b"x-b") is None
