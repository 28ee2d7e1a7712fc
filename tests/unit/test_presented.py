"""The token is found wherever a client's SDK puts a key, and nowhere that would let it go upstream."""

from __future__ import annotations

from base64 import b64encode
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxyd.access import presented
from llmproxyd.access.presented import credential_of, credentials_of
from llmproxyd.access.tokens import new_token
from llmproxyd.errors import Refused
from llmproxyd.model import Request
from llmproxyd.pipeline.policy import Upstream
from llmproxyd.pipeline.upstream import outgoing
from llmproxyd.providers.google import PROVIDER
from llmproxyd.redaction import Secret

TOKEN = new_token(b"a" * 16)
OTHER = new_token(b"b" * 16)
KEYED = Upstream(name="g", provider=PROVIDER, base_url="https://api.example", keys=(Secret("real-key"),))


def basic(login: str) -> bytes:
    return b"Basic " + b64encode(login.encode())


def request(*fields: tuple[bytes, bytes], target: bytes = b"/v1/models") -> Request:
    return Request(b"GET", target, fields)


BEARER = b"Bearer " + TOKEN.encode()
PLAIN = TOKEN.encode()
PLACES = [
    ((b"Authorization", BEARER), b""),
    ((b"authorization", b"bearer " + PLAIN), b""),
    ((b"AUTHORIZATION", b"BEARER   " + PLAIN + b" "), b""),
    ((b"Authorization", PLAIN), b""),
    ((b"Authorization", basic(f"{TOKEN}:")), b""),
    ((b"Authorization", basic(f"user:{TOKEN}")), b""),
    ((b"Authorization", basic(f"{TOKEN}:{TOKEN}")), b""),
    ((b"x-api-key", PLAIN), b""),
    ((b"X-Api-Key", PLAIN), b""),
    ((b"x-goog-api-key", PLAIN), b""),
    ((b"Api-Key", PLAIN), b""),
    (None, b"key=" + PLAIN),
    (None, b"alt=sse&key=" + PLAIN),
    (None, b"key=" + quote(TOKEN).replace("s", "%73").encode()),
]


@pytest.mark.parametrize(("field", "query"), PLACES)
def test_token_is_found_where_sdks_put_keys(field: tuple[bytes, bytes] | None, query: bytes) -> None:
    target = b"/v1/models" + (b"?" + query if query else b"")
    assert credential_of(request(*([field] if field else []), target=target)) == TOKEN


@pytest.mark.parametrize(("field", "query"), PLACES)
def test_no_place_that_counts_goes_upstream(field: tuple[bytes, bytes] | None, query: bytes) -> None:
    target = b"/v1/models" + (b"?" + query if query else b"")
    sent = outgoing(KEYED, request(*([field] if field else []), target=target), target)
    assert b"key=" not in sent.url
    assert [(name, value) for name, value in sent.headers.raw] == [(b"x-goog-api-key", b"real-key")]


PIECES = [
    "key=",
    "k%65y=",
    "Key=",
    "key[]=",
    "key",
    "=",
    "&",
    ";",
    "?",
    "%26",
    "%3D",
    "a=b",
    "+",
    TOKEN,
    OTHER,
]


@given(st.lists(st.sampled_from(PIECES), max_size=8).map("".join))
def test_no_spelling_of_the_argument_counts_and_goes_upstream(query: str) -> None:
    """Whatever is taken for a token is taken off: nothing that counts is left in what is sent."""
    target = b"/v1/models?" + query.encode()
    sent = outgoing(KEYED, request(target=target), target)
    left = sent.url.removeprefix(b"https://api.example")
    assert credentials_of(request(target=left)) == ()


@pytest.mark.parametrize(
    "target",
    [
        b"/v1/models?k%65y=" + PLAIN,
        b"/v1/models?Key=" + PLAIN,
        b"/v1/models?a=b;key=" + PLAIN,
        b"/v1/models?key[]=" + PLAIN,
        b"/v1/key=" + PLAIN,
        b"/v1/models?api_key=" + PLAIN,
    ],
)
def test_spelling_that_would_survive_does_not_count(target: bytes) -> None:
    assert credential_of(request(target=target)) is None


@pytest.mark.parametrize(
    "fields",
    [
        (),
        ((b"authorization", b""),),
        ((b"authorization", b"Bearer "),),
        ((b"x-api-key", b" "),),
        ((b"cookie", b"key=" + PLAIN),),
        ((b"proxy-authorization", BEARER),),
        ((b"x_api_key", PLAIN),),
        ((b"authorization", basic(":")),),
    ],
)
def test_nothing_is_presented(fields: tuple[tuple[bytes, bytes], ...]) -> None:
    assert credential_of(request(*fields)) is None


def test_same_token_in_several_places_is_one() -> None:
    one = request((b"authorization", BEARER), (b"x-api-key", PLAIN), target=b"/?key=" + PLAIN)
    assert credential_of(one) == TOKEN


def test_token_counts_beside_a_dummy_in_either_order() -> None:
    dummy = (b"authorization", b"Bearer dummy")
    ours = (b"x-api-key", PLAIN)
    assert credential_of(request(dummy, ours)) == TOKEN
    assert credential_of(request(ours, dummy)) == TOKEN


@pytest.mark.parametrize(
    "fields",
    [
        ((b"authorization", BEARER), (b"x-api-key", OTHER.encode())),
        ((b"authorization", BEARER), (b"Authorization", b"Bearer " + OTHER.encode())),
        ((b"authorization", basic(f"{TOKEN}:{OTHER}")),),
    ],
)
def test_different_tokens_are_refused(fields: tuple[tuple[bytes, bytes], ...]) -> None:
    with pytest.raises(Refused) as caught:
        credential_of(request(*fields))
    assert (caught.value.status, caught.value.code) == (401, "token_ambiguous")
    assert TOKEN not in caught.value.message
    assert OTHER not in caught.value.message


def test_different_tokens_in_field_and_query_are_refused() -> None:
    with pytest.raises(Refused, match="several different"):
        credential_of(request((b"authorization", BEARER), target=b"/?key=" + OTHER.encode()))


def test_what_is_no_token_is_told_as_presented() -> None:
    assert credential_of(request((b"authorization", b"Bearer sk-proj-real"))) == "sk-proj-real"
    assert credential_of(request((b"x-api-key", b"one"), (b"api-key", b"two"))) == "one"
    assert credential_of(request((b"authorization", b"Basic %%%"))) == "%%%"


def test_all_credentials_are_told_apart_and_in_order() -> None:
    one = request(
        (b"x-api-key", b"a"), (b"authorization", b"Bearer b"), (b"api-key", b"a"), target=b"/?key=c"
    )
    assert credentials_of(one) == ("a", "b", "c")


@given(st.lists(st.tuples(st.sampled_from([b"authorization", b"x-api-key", b"X"]), st.binary(max_size=40))))
def test_no_head_breaks_it(fields: list[tuple[bytes, bytes]]) -> None:
    credential_of(request(*fields))


def test_names_met_once_are_remembered_in_bounds() -> None:
    for number in range(5000):
        credential_of(request((b"x-%d" % number, b"v")))
    assert len(presented._place.__self__) <= presented._KNOWN  # type: ignore[attr-defined]
