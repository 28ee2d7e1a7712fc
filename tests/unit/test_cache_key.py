"""Cache keys: whatever differs in anything that matters has another one, however it is written."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxyd.cache.key import CREDENTIALS, key_of, url_of
from llmproxyd.model import Request

HOSTILE = b'ab=&?;:,/%\x00\x01 "\n#0123456789\xff'
raw = st.lists(st.sampled_from(HOSTILE), max_size=12).map(bytes)
value = raw.filter(lambda text: text == text.strip(b" \t"))
text = st.text(alphabet="ab:0123456789/ \x00", max_size=8)


def request(method: bytes = b"GET", headers: Any = ()) -> Request:
    return Request(method, b"/", list(headers))


def key(
    tenant: str = "p", upstream: str = "u", method: bytes = b"GET", target: bytes = b"/", **more: Any
) -> bytes:
    body, fields = more.pop("body", b""), more.pop("fields", ())
    return key_of(tenant, upstream, request(method, **more), target, body, fields)


def test_a_key_is_32_bytes_and_stays_the_same() -> None:
    assert len(key()) == 32
    assert key() == key()


def matters(parts: tuple[str, str, bytes, bytes, bytes, bytes]) -> tuple[Any, ...]:
    """All that may change an answer: the arguments of a query sorted, credentials left out."""
    tenant, upstream, method, target, body, version = parts
    path, mark, query = target.partition(b"?")
    arguments = [one for one in query.split(b"&") if not is_credential(one)] if mark else []
    arguments.sort(key=lambda one: one.partition(b"=")[0])
    return tenant, upstream, method.replace(b"HEAD", b"GET"), path, tuple(arguments), body, version


def is_credential(argument: bytes) -> bool:
    return b"=" in argument and b";" not in argument and argument.partition(b"=")[0] in CREDENTIALS


arguments = st.lists(
    st.tuples(
        st.sampled_from([b"key", b"api_key", b"a", b"b", b"", b"pageToken"]),
        st.sampled_from([b"", b"="]),
        st.sampled_from([b"", b"1", b"a=1", b"1;a=2", b";key=1", b"%26a=1"]),
    ).map(b"".join),
    max_size=4,
).map(b"&".join)
target = st.one_of(raw, st.tuples(raw.filter(lambda one: b"?" not in one), arguments).map(b"?".join))
whole = st.tuples(text, text, st.sampled_from([b"GET", b"HEAD", b"POST", b"PUT"]), target, raw, value)


@given(whole, whole)
def test_two_requests_share_a_key_only_if_nothing_that_matters_differs(one: Any, other: Any) -> None:
    keys = [
        key(tenant, upstream, method, target, body=body, headers=[(b"Anthropic-Version", version)])
        for tenant, upstream, method, target, body, version in (one, other)
    ]
    assert (keys[0] == keys[1]) == (matters(one) == matters(other))


Parts = dict[str, Any]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"tenant": "GET", "upstream": "u"}, {"tenant": "", "upstream": "GETu"}),
        ({"target": b"/a", "body": b"b"}, {"target": b"/ab", "body": b""}),
        ({"method": b"P", "upstream": "u"}, {"method": b"Pu", "upstream": ""}),
        ({"tenant": "3:GET", "upstream": "u"}, {"tenant": "", "upstream": "3:GETu"}),
        ({"body": b"", "headers": [(b"X-Host", b"a")]}, {"body": b"x-host=a"}),
        ({"headers": [(b"X-Host", b"a=b")]}, {"headers": [(b"X-Host", b"a"), (b"X-Host", b"b")]}),
        ({"headers": [(b"X-Host", b"openai-beta")]}, {"headers": [(b"X-Host", b""), (b"OpenAI-Beta", b"")]}),
        ({"tenant": "a", "upstream": "b c"}, {"tenant": "a b", "upstream": "c"}),
    ],
)
def test_no_byte_moves_from_one_part_to_the_next(one: Parts, other: Parts) -> None:
    assert key(**one) != key(**other)


@given(raw, raw)
def test_bodies_are_told_apart_whatever_the_client_says_of_them(one: bytes, other: bytes) -> None:
    claimed = [(b"X-Body-Hash", b"0" * 64), (b"X-Cache-Key", b"k"), (b"Content-Digest", b"sha-256=:x:")]
    keys = [key(method=b"POST", body=body, headers=claimed) for body in (one, other)]
    assert (keys[0] == keys[1]) == (one == other)


@given(raw, raw, st.sampled_from(sorted(CREDENTIALS)), st.sampled_from(sorted(CREDENTIALS)))
def test_credentials_in_the_query_change_no_key(one: bytes, other: bytes, name: bytes, second: bytes) -> None:
    keys = [
        key(target=b"/x?a=1&%b=%b&b=2" % (which, quote(secret).encode()))
        for which, secret in ((name, one), (second, other))
    ]
    assert keys[0] == keys[1] == key(target=b"/x?b=2&a=1")


def test_a_name_that_is_escaped_is_the_same_name() -> None:
    assert url_of("u", b"/x?%6bey=secret-secret&a=1") == b"u /x?a=1"


@pytest.mark.parametrize("name", [b"Key", b"keys", b"pageToken", b"page_token", b"code", b"key[]", b"monkey"])
def test_an_argument_that_only_looks_like_a_credential_belongs_to_the_key(name: bytes) -> None:
    assert key(target=b"/x?%b=1" % name) != key(target=b"/x?%b=2" % name)


def test_a_semicolon_smuggles_nothing_out_of_the_key() -> None:
    assert key(target=b"/x?key=1;a=1") != key(target=b"/x?key=1;a=2")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b"/v1/models", b"/v1//models"),
        (b"/v1/models", b"/v1/./models"),
        (b"/v1/models", b"/v1/x/../models"),
        (b"/v1/models", b"/v1/%6dodels"),
        (b"/v1/models", b"/v1/models/"),
        (b"/v1/models", b"/v1/models?"),
        (b"/v1/models", b"/V1/models"),
        (b"/v1/models", b"/v1/models#x"),
        (b"/v1/models?a=1", b"/v1/models?a=1&"),
        (b"/v1/models?a=1", b"/v1/models?a=1&a=1"),
        (b"/v1/models?a", b"/v1/models?a="),
        (b"/a?b=1", b"/a%3fb=1"),
    ],
)
def test_paths_and_queries_are_taken_raw(one: bytes, other: bytes) -> None:
    assert key(target=one) != key(target=other)


@given(st.permutations([b"a=1", b"b=2", b"c=3", b"d"]))
def test_the_order_of_arguments_with_different_names_does_not_matter(parts: list[bytes]) -> None:
    assert key(target=b"/x?" + b"&".join(parts)) == key(target=b"/x?a=1&b=2&c=3&d")


def test_the_order_of_arguments_with_one_name_does() -> None:
    assert key(target=b"/x?a=1&b=0&a=2") == key(target=b"/x?b=0&a=1&a=2") != key(target=b"/x?a=2&a=1&b=0")


def test_head_has_the_key_of_get_and_no_other_method_has() -> None:
    assert key(method=b"HEAD") == key(method=b"GET")
    assert len({key(method=one) for one in (b"GET", b"POST", b"PUT", b"get", b"")}) == 5


@pytest.mark.parametrize(
    "name",
    [
        b"anthropic-version",
        b"Anthropic-Beta",
        b"OpenAI-Organization",
        b"x-goog-user-project",
        b"X-Forwarded-Host",
    ],
)
def test_fields_that_no_vary_tells_of_belong_to_the_key(name: bytes) -> None:
    assert key(headers=[(name, b"1")]) != key(headers=[(name, b"2")]) != key()


@pytest.mark.parametrize("name", [b"Accept", b"Content-Type", b"content-encoding"])
def test_fields_that_tell_how_a_body_is_to_be_read_belong_to_the_key_of_a_post(name: bytes) -> None:
    assert key(method=b"POST", headers=[(name, b"1")]) != key(method=b"POST", headers=[(name, b"2")])
    assert key(headers=[(name, b"1")]) == key(headers=[(name, b"2")])


def test_fields_that_are_asked_for_belong_to_the_key() -> None:
    def with_field(*headers: tuple[bytes, bytes]) -> bytes:
        return key(headers=headers, fields=(b"x-a", b"x-b"))

    assert with_field((b"X-A", b"1")) == with_field((b"x-a", b" 1 "), (b"x-c", b"2"))
    assert (
        len(
            {
                with_field(),
                with_field((b"X-A", b"")),
                with_field((b"X-A", b"1")),
                with_field((b"X-B", b"1")),
                with_field((b"X-A", b"1"), (b"X-A", b"2")),
                with_field((b"X-A", b"2"), (b"X-A", b"1")),
                with_field((b"X-A", b"1, 2")),
                with_field((b"X-A", b"1"), (b"X-B", b"2")),
            }
        )
        == 8
    )


@given(raw, st.sampled_from([b"token", b"client_secret", b"X-Amz-Signature", b"password", b"a;key"]))
def test_a_url_shows_no_secret(secret: bytes, name: bytes) -> None:
    shown = b"s3cr3t" + secret.replace(b"&", b"")
    url = url_of("u", b"/x?%b=%b&a=1" % (name, shown))
    assert b"s3cr3t" not in url
    assert url == url_of("u", b"/x?a=1&%b=%b" % (name, shown))


@given(st.text(max_size=5), raw)
def test_nothing_raises(tenant: str, target: bytes) -> None:
    assert len(key(tenant + "\udc80", tenant, target=target)) == 32


def test_a_url_is_the_upstream_and_the_canonical_target() -> None:
    assert url_of("openai", b"/v1/models?b=2&key=x&a=1") == b"openai /v1/models?a=1&b=2"
    assert url_of("openai", b"/v1/models?key=x") == b"openai /v1/models"
