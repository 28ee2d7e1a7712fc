"""Tokens and ids are made of bytes that are passed in, and are known by their form."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxyd.access.tokens import digest_of, looks_like, new_id, new_token, shown

RANDOM = st.binary(min_size=16, max_size=40)


@given(RANDOM)
def test_token_has_the_form_of_tokens(random: bytes) -> None:
    token = new_token(random)
    assert looks_like(token)
    assert token.startswith("sk-")
    assert len(token) == 25


@given(st.binary(min_size=16, max_size=16), st.binary(min_size=16, max_size=16))
def test_token_holds_all_sixteen_bytes(one: bytes, other: bytes) -> None:
    assert (new_token(one) == new_token(other)) == (one == other)


def test_too_little_randomness_makes_no_token() -> None:
    with pytest.raises(ValueError, match="16 random bytes"):
        new_token(bytes(15))
    with pytest.raises(ValueError, match="10 random bytes"):
        new_id("proj_", bytes(9))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sk-",
        "sk-abc",
        "sk-" + "a" * 21,
        "sk-" + "a" * 23,
        "SK-" + "a" * 22,
        "sk-" + "a" * 21 + "+",
        "sk-" + "a" * 21 + "é",
        "sk-" + "a" * 21 + "\n",
        "sk-proj-" + "a" * 40,
        " sk-" + "a" * 21,
    ],
)
def test_other_texts_do_not_look_like_a_token(text: str) -> None:
    assert not looks_like(text)


def test_digest_is_sha256_and_takes_any_text() -> None:
    token = new_token(bytes(16))
    assert digest_of(token) == sha256(token.encode()).digest()
    assert len(digest_of("\ud800 whatever")) == 32


@given(RANDOM)
def test_what_is_shown_keeps_the_token_secret(random: bytes) -> None:
    token = new_token(random)
    assert shown(token) == token[:7] + "…"
    assert len(token) - 7 >= 17  # of 6 bits each


@given(st.binary(min_size=10, max_size=20))
def test_ids_are_lower_case_base32(random: bytes) -> None:
    for id, prefix in ((new_id("proj_", random), "proj_"), (new_id("tok_", random), "tok_")):
        assert id.startswith(prefix)
        rest = id.removeprefix(prefix)
        assert len(rest) == 16
        assert set(rest) <= set("abcdefghijklmnopqrstuvwxyz234567")
