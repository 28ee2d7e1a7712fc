"""What the audit log shows of a value: anything but a secret, and never too much."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxyd.observe.shielded import ITEMS, TEXT, is_credential, shielded
from llmproxyd.redaction import REDACTED, Redactor, Secret

KEY = "hunter2-of-the-configuration"
PLAIN = Redactor([Secret(KEY)])


def shown(value: object) -> Any:
    return shielded(value, PLAIN)


@pytest.mark.parametrize(
    "name",
    [
        "key",
        "api_key",
        "apiKey",
        "API-KEY",
        "keys",
        "secret",
        "client_secret",
        "password",
        "token",
        "tokens",
        "access_token",
        "credential",
        "credentials",
        "authorization",
        "Authorization",
        "cookie",
        "secret_key",
        "secretKey",
        "digest",
        "upstream.key",
        "private_key_",
    ],
)
def test_members_named_like_credentials_are_hidden(name: str) -> None:
    assert is_credential(name)
    assert shown({name: "whatever it is"}) == {name: REDACTED}
    assert shown({name: ["a", {"b": "c"}]}) == {name: [REDACTED, {"b": REDACTED}]}


@pytest.mark.parametrize(
    "name",
    [
        "name",
        "token_id",
        "key_prefix",
        "shown",
        "max_tokens_per_minute",
        "monkey",
        "keyboard",
        "tokenizer",
        "model",
    ],
)
def test_other_members_are_shown(name: str) -> None:
    assert not is_credential(name)
    assert shown({name: "whatever"}) == {name: "whatever"}


def test_counts_flags_and_ids_are_no_secrets_whatever_they_are_called() -> None:
    value = {"tokens": 5, "token": "tok_abcdefgh234567ab", "key": None, "secret": True, "password": ""}
    assert shown(value) == value


def test_names_of_upstreams_with_a_credential_are_shown_the_keys_are_not() -> None:
    value = {"credentials": {"openai": Secret("k1"), "anthropic": "k2"}}
    assert shown(value) == {"credentials": {"openai": REDACTED, "anthropic": REDACTED}}


def test_secrets_are_hidden_wherever_they_stand() -> None:
    assert shown([Secret("x"), f"see {KEY}", "sk-abcdefghijklmnopqrstuv", b"raw"]) == [
        REDACTED,
        f"see {REDACTED}",
        REDACTED,
        "[bytes]",
    ]
    assert shown({KEY: 1, "store": "postgresql://u:p@db/x"}) == {
        REDACTED: 1,
        "store": f"postgresql://{REDACTED}@db/x",
    }


class Colour(StrEnum):
    RED = "red"


@dataclass(frozen=True)
class Thing:
    name: str
    key: Secret = field(repr=False, default_factory=lambda: Secret("s"))
    path: Path = Path("/x")
    colours: frozenset[Colour] = frozenset({Colour.RED})


def test_values_of_ours_are_told_by_their_members() -> None:
    assert shown(Thing("a")) == {"name": "a", "key": REDACTED, "path": "/x", "colours": ["red"]}


def test_what_is_unknown_is_told_by_its_kind_alone() -> None:
    class Odd:
        def __repr__(self) -> str:
            return KEY

    assert shown(Odd()) == "[Odd]"


def test_it_is_bounded() -> None:
    assert len(shown("a" * 10_000)) == TEXT + 1
    assert len(shown(list(range(1000)))) == ITEMS
    assert len(shown({str(number): 1 for number in range(1000)})) == ITEMS
    endless: list[Any] = []
    endless.append(endless)
    assert len(json.dumps(shown(endless))) < 100
    assert shown(10**4000) == "[a large number]"


@pytest.mark.parametrize("text", ["a" * (TEXT - 10) + KEY + "b" * 100, f"{KEY}," * 100])
def test_secret_across_the_cut_is_taken_out(text: str) -> None:
    assert KEY[:4] not in shown(text)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.just(Secret(KEY)),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner),
    max_leaves=20,
)


@given(VALUES)
def test_any_value_becomes_json_without_the_secret(value: object) -> None:
    text = json.dumps(shown(value), allow_nan=False)
    assert KEY not in text


@given(st.text(min_size=1), st.lists(st.sampled_from(["a", "b", "list"]), max_size=4))
def test_no_text_below_a_credential_is_shown(text: str, way: list[str]) -> None:
    value: object = f"zq{text}zq"
    for step in way:
        value = [value] if step == "list" else {step: value}
    assert "zq" not in json.dumps(shown({"my_secret": value}), ensure_ascii=False)
