"""What a client presented is taken off its request, and nothing else of it changes."""

from __future__ import annotations

from urllib.parse import quote, unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxyd.access.tokens import new_token
from llmproxyd.access.withheld import fields_without, secrets_in_head, target_without
from llmproxyd.model import Request

TOKEN = new_token(b"a" * 16)
SECRET = TOKEN.encode()

pieces = st.lists(
    st.sampled_from(["a", "=", "%", "%2", "%3D", "+", ";", "b%20c", "k", "[", "]", "\xe4"]), max_size=8
)
arguments = st.lists(pieces.map("".join), max_size=5)


@given(arguments)
def test_query_without_a_credential_stays_as_it_came(parts: list[str]) -> None:
    target = b"/v1/models?" + "&".join(parts).encode("latin-1")
    assert target_without(target, [SECRET]) == target


def spellings(text: str) -> st.SearchStrategy[str]:
    """*text* with some of its characters percent-encoded, once or twice."""

    def coded(choices: list[int]) -> str:
        ways = [lambda char: char, lambda char: f"%{ord(char):02x}", lambda char: f"%25{ord(char):02X}"]
        return "".join(ways[choice](char) for choice, char in zip(choices, text, strict=True))

    return st.lists(st.integers(0, 2), min_size=len(text), max_size=len(text)).map(coded)


@given(spellings("key"), st.text("abc", min_size=1), st.sampled_from(["{}", "x=1&{}", "x=1;{}", "{}&y"]))
def test_argument_for_a_key_is_taken_off_however_it_is_spelt(name: str, value: str, query: str) -> None:
    left = target_without(b"/p?" + query.format(f"{name}={value}").encode(), [])
    assert left in (b"/p", b"/p?x=1", b"/p?y")


@given(spellings(TOKEN), st.sampled_from(["a={}", "{}", "{}=1", "x=y+{}", "a[]={}", "a=;{};"]))
def test_token_is_taken_off_wherever_in_the_query_it_stands(token: str, argument: str) -> None:
    left = target_without(b"/p?x=%2F&" + argument.format(token).encode() + b"&z", [SECRET])
    assert left == b"/p?x=%2F&z"
    for _ in range(3):
        left = unquote_to_bytes(left)
        assert SECRET not in left


@pytest.mark.parametrize(
    "query",
    [
        b"pageToken=abc",
        b"max_tokens=5",
        b"key_id=1",
        b"keys=2",
        b"monkey=3",
        b"a=key",
        b"alt=sse",
        b"api-version=1",
    ],
)
def test_arguments_that_only_sound_alike_stay(query: bytes) -> None:
    assert target_without(b"/p?" + query, [SECRET]) == b"/p?" + query


def test_path_and_empty_query_stay() -> None:
    for target in (b"/p", b"/p?", b"/p?&&", b"/key=1/x"):
        assert target_without(target, [SECRET]) == target


def test_fields_that_hold_the_token_are_left_out_and_others_keep_their_order() -> None:
    fields = [
        (b"A", b"1"),
        (b"X-Key", b"v=" + SECRET),
        (b"a", b"2"),
        (b"Cookie", b"s=" + SECRET),
        (b"B", b""),
    ]
    assert fields_without(fields, [SECRET]) == [(b"A", b"1"), (b"a", b"2"), (b"B", b"")]
    assert fields_without(fields, []) == fields


def test_only_what_cannot_stand_anywhere_by_chance_is_looked_for() -> None:
    fields = [(b"Authorization", b"Bearer none"), (b"x-api-key", SECRET)]
    assert secrets_in_head(Request(b"GET", b"/p?key=1", fields)) == (SECRET,)
    quoted = quote(TOKEN).replace("s", "%73").encode()
    assert secrets_in_head(Request(b"GET", b"/p?key=" + quoted, ())) == (SECRET,)
