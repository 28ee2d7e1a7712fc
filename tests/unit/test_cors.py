"""A browser is told what is really allowed, and nothing more."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxyd.access.allowlist import Allow, Allowlist
from llmproxyd.access.cors import allowed_origin, fields_for, is_preflight, preflight
from llmproxyd.errors import Refused
from llmproxyd.model import Request

ORIGIN = b"https://app.example"
LIST = Allowlist(Allow(origins=("https://APP.example", "http://localhost:3000"), methods=("GET", "POST")))


def asking(*fields: tuple[bytes, bytes], origin: bytes = ORIGIN, method: bytes = b"POST") -> Request:
    named = ((b"Origin", origin), (b"Access-Control-Request-Method", method), *fields)
    return Request(b"OPTIONS", b"/v1/chat/completions", named)


def refused(request: Request, origins: object = LIST.origins, methods: object = LIST.methods) -> Refused:
    with pytest.raises(Refused) as caught:
        preflight(request, origins, methods)  # type: ignore[arg-type]
    return caught.value


def test_preflight_names_the_one_origin_the_methods_and_the_fields() -> None:
    fields = (b"Access-Control-Request-Headers", b"Authorization, content-type,x-stainless-os")
    assert preflight(asking(fields), LIST.origins, LIST.methods) == [
        (b"access-control-allow-origin", ORIGIN),
        (b"access-control-allow-methods", b"GET, POST"),
        (b"access-control-allow-headers", b"authorization, content-type, x-stainless-os"),
        (b"access-control-max-age", b"600"),
        (b"vary", b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers"),
    ]


def test_answers_never_speak_of_credentials_nor_of_any_origin() -> None:
    told = [*preflight(asking(), {"*"}, ()), *fields_for(ORIGIN)]
    assert all(name != b"access-control-allow-credentials" for name, _ in told)
    assert all(value != b"*" for name, value in told if name == b"access-control-allow-origin")


def test_without_a_list_of_methods_the_one_asked_for_is_allowed() -> None:
    told = dict(preflight(asking(method=b"PATCH"), LIST.origins, ()))
    assert told[b"access-control-allow-methods"] == b"PATCH"


@pytest.mark.parametrize(
    "origin",
    [
        b"https://app.example.evil",
        b"https://app.exampl",
        b"http://app.example",
        b"https://app.example:8443",
        b"https://evil/https://app.example",
        b"https://app.example, https://evil",
        b"null",
        b"",
        b"https://\xc3\xa4pp.example",
    ],
)
def test_other_origins_are_refused(origin: bytes) -> None:
    error = refused(asking(origin=origin))
    assert (error.status, error.code) == (403, "origin_not_allowed")
    assert "app.example" not in error.message
    assert dict(error.headers)[b"vary"].startswith(b"Origin")


@pytest.mark.parametrize(
    "origin", [b"https://app.example", b"HTTPS://App.Example", b"https://app.example:443"]
)
def test_listed_origin_is_told_as_the_browser_spelt_it(origin: bytes) -> None:
    assert allowed_origin(asking(origin=origin), LIST.origins) == origin


def test_without_a_list_no_page_is_given_leave() -> None:
    assert allowed_origin(asking(), ()) is None
    assert refused(asking(), (), ()).code == "origin_not_allowed"


def test_star_gives_leave_to_any_page() -> None:
    assert allowed_origin(asking(origin=b"null"), {"*"}) == b"null"
    assert allowed_origin(asking(origin=b"no origin at all"), {"*"}) is None


def test_two_origins_are_none() -> None:
    assert allowed_origin(asking((b"origin", ORIGIN)), LIST.origins) is None


def test_method_that_is_not_listed_is_refused_with_those_that_are() -> None:
    error = refused(asking(method=b"DELETE"))
    assert (error.status, error.code) == (405, "method_not_allowed")
    assert dict(error.headers)[b"allow"] == b"GET, POST"
    assert refused(asking(method=b"no method")).code == "bad_preflight"


def test_fields_that_are_no_page_s_business_are_left_out() -> None:
    names = b"cookie, Host, Sec-Fetch-Mode, proxy-x, x-http-method-override, x-fine, b\xc3\xa4d, a b, ,"
    told = dict(preflight(asking((b"access-control-request-headers", names)), LIST.origins, ()))
    assert told[b"access-control-allow-headers"] == b"x-fine"


def test_no_more_than_a_hundred_fields_are_told() -> None:
    names = b",".join(b"x-%d" % number for number in range(1000))
    told = dict(preflight(asking((b"access-control-request-headers", names)), LIST.origins, ()))
    assert told[b"access-control-allow-headers"].count(b",") == 99


def test_only_an_options_request_with_both_fields_is_a_preflight() -> None:
    assert is_preflight(asking())
    assert not is_preflight(Request(b"OPTIONS", b"/", ((b"origin", ORIGIN),)))
    assert not is_preflight(Request(b"OPTIONS", b"/", ((b"access-control-request-method", b"GET"),)))
    assert not is_preflight(Request(b"GET", b"/", asking().headers))


def test_answer_to_a_page_may_be_read_and_differs_by_origin() -> None:
    told = dict(fields_for(ORIGIN))
    assert told[b"access-control-allow-origin"] == ORIGIN
    assert told[b"vary"] == b"Origin"
    assert b"access-control-expose-headers" in told


@given(st.binary(max_size=60), st.binary(max_size=60), st.binary(max_size=60))
def test_nothing_sent_can_add_a_field_or_an_origin(origin: bytes, method: bytes, names: bytes) -> None:
    request = asking((b"access-control-request-headers", names), origin=origin, method=method)
    for origins in (LIST.origins, frozenset({"*"})):
        try:
            told = preflight(request, origins, ())
        except Refused:
            continue
        assert all(b"\r" not in value and b"\n" not in value for _, value in told)
        assert dict(told)[b"access-control-allow-origin"] == origin
