"""What a list says of methods, origins, header fields and arguments of the query; what may stand in it."""

from __future__ import annotations

import pytest

from llmproxyd.access.allowlist import Allow, Allowlist
from llmproxyd.errors import Refused
from llmproxyd.model import Request


def request(
    *fields: tuple[bytes, bytes], method: bytes = b"POST", target: bytes = b"/v1/chat/completions"
) -> Request:
    return Request(method, target, fields)


def refusal(allow: Allow, request: Request) -> Refused | None:
    try:
        Allowlist(allow).check_head(request, request.target)
    except Refused as error:
        return error
    return None


def code(allow: Allow, request: Request) -> str | None:
    error = refusal(allow, request)
    return None if error is None else error.code


def test_empty_list_allows_everything_and_says_so() -> None:
    empty = Allowlist(Allow())
    assert empty.open
    assert not empty.reads_body
    odd = request((b"origin", b"https://evil"), method=b"PURGE", target=b"//../x;%00?model=a")
    assert code(Allow(), odd) is None
    empty.check_body(odd, b"\xff no JSON", "evil")


@pytest.mark.parametrize(
    "allow",
    [
        Allow(endpoints=("/v1/models",)),
        Allow(methods=("GET",)),
        Allow(params={"model": ("a",)}),
        Allow(origins=("*",)),
        Allow(required_headers=("x-team",)),
    ],
)
def test_list_with_anything_in_it_is_not_open(allow: Allow) -> None:
    assert not Allowlist(allow).open


# Methods.

GET_ALONE = Allow(methods=("GET", "HEAD"))


def test_method_that_is_not_listed_gets_405_with_those_that_are() -> None:
    error = refusal(GET_ALONE, request())
    assert error is not None
    assert (error.status, error.code) == (405, "method_not_allowed")
    assert error.headers == ((b"allow", b"GET, HEAD"),)
    assert code(GET_ALONE, request(method=b"GET")) is None
    assert code(GET_ALONE, request(method=b"get")) == "method_not_allowed"


@pytest.mark.parametrize("name", [b"X-HTTP-Method-Override", b"x-http-method", b"X-Method-Override"])
def test_method_is_not_smuggled_in_a_field(name: bytes) -> None:
    assert code(GET_ALONE, request((name, b"DELETE"), method=b"GET")) == "method_not_allowed"
    assert code(GET_ALONE, request((name, b"HEAD"), method=b"GET")) is None


# Origins.

PAGES = Allow(origins=("https://App.example", "http://localhost:3000", "https://with.port:443"))


@pytest.mark.parametrize(
    "origin",
    [
        b"https://app.example",
        b"https://APP.example",
        b"https://app.example:443",
        b"http://localhost:3000",
        b"https://with.port",
    ],
)
def test_listed_origin_passes(origin: bytes) -> None:
    assert code(PAGES, request((b"Origin", origin))) is None


@pytest.mark.parametrize(
    "origin",
    [
        b"https://evil.example",
        b"https://app.example.evil.example",
        b"http://app.example",
        b"http://localhost",
        b"http://localhost:30000",
        b"https://app.example:8443",
        b"https://app.example:80",
        b"null",
        b"",
        b"\xff",
        b"https://app.example https://evil.example",
    ],
)
def test_other_origin_is_refused_without_telling_those_listed(origin: bytes) -> None:
    error = refusal(PAGES, request((b"oRigin", origin)))
    assert error is not None
    assert (error.status, error.code) == (403, "origin_not_allowed")
    assert "example" not in error.message


def test_every_origin_named_must_be_listed() -> None:
    both = request((b"origin", b"https://app.example"), (b"origin", b"https://evil"))
    assert code(PAGES, both) == "origin_not_allowed"


def test_program_without_an_origin_passes_and_star_takes_all() -> None:
    assert code(PAGES, request()) is None
    assert code(Allow(origins=("*",)), request((b"origin", b"null"))) is None


# Required fields.

TEAM = Allow(required_headers=("X-Team", "x-stage: prod"))


@pytest.mark.parametrize(
    ("fields", "missing"),
    [
        (((b"X-TEAM", b""), (b"X-Stage", b" prod ")), None),
        (((b"x-team", b"a"),), b"x-stage"),
        (((b"x-stage", b"prod"),), b"x-team"),
        (((b"x-team", b"a"), (b"x-stage", b"Prod")), b"x-stage"),
        (((b"x-team", b"a"), (b"x-stage", b"prod"), (b"x-stage", b"dev")), b"x-stage"),
        (((b"x_team", b"a"), (b"x-stage", b"prod")), b"x-team"),
    ],
)
def test_required_fields_must_be_there_with_their_value(
    fields: tuple[tuple[bytes, bytes], ...], missing: bytes | None
) -> None:
    error = refusal(TEAM, request(*fields))
    if missing is None:
        assert error is None
    else:
        assert error is not None
        assert (error.status, error.code) == (400, "required_header_missing")
        assert missing.decode() in error.message
        assert "prod" not in error.message


# Arguments of the query.

MODELS = Allow(params={"model": ("gpt-4o", "gpt-4o-*"), "Api-Version": ("2024-10-21",)})


@pytest.mark.parametrize(
    "query",
    [
        b"",
        b"x=1",
        b"model=gpt-4o",
        b"model=gpt-4o-mini&model=gpt-4o",
        b"api-version=2024-10-21",
        b"m%6fdel=gpt%2d4o",
        b"models=gpt-4o",
        b"supermodel=evil",
    ],
)
def test_allowed_arguments_pass(query: bytes) -> None:
    assert code(MODELS, request(method=b"GET", target=b"/v1/x?" + query)) is None


@pytest.mark.parametrize(
    ("query", "wrong"),
    [
        (b"model=evil", "model_not_allowed"),
        (b"model", "model_not_allowed"),
        (b"MODEL=evil", "model_not_allowed"),
        (b"m%6Fdel=evil", "model_not_allowed"),
        (b"m%256Fdel=evil", "model_not_allowed"),
        (b"m%25256Fdel=evil", "model_not_allowed"),
        (b"model[]=evil", "model_not_allowed"),
        (b"model%5B0%5D=evil", "model_not_allowed"),
        (b"+model=evil", "model_not_allowed"),
        (b"model%00x=evil", "model_not_allowed"),
        (b"models=evil", "model_not_allowed"),
        (b"model=gpt-4o&model=evil", "model_not_allowed"),
        (b"model=evil&model=gpt-4o", "model_not_allowed"),
        (b"x=1;model=evil", "model_not_allowed"),
        (b"model=gpt-4o;model=evil", "model_not_allowed"),
        (b"model=gpt-4o-%2500evil", "model_not_allowed"),
        (b"model=gpt-4o-%00evil", "model_not_allowed"),
        (b"model=gpt-4o-%0aevil", "model_not_allowed"),
        (b"model=%FF", "malformed_body"),
        (b"api-version=2023-01-01", "param_not_allowed"),
        (b"&".join(b"a%d=1" % number for number in range(1500)) + b"&model=evil", "malformed_body"),
    ],
)
def test_other_arguments_are_refused_however_they_are_written(query: bytes, wrong: str) -> None:
    assert code(MODELS, request(method=b"GET", target=b"/v1/x?" + query)) == wrong


def test_refusal_names_what_is_allowed_and_not_what_was_sent() -> None:
    error = refusal(MODELS, request(target=b"/?model=evil"))
    assert error is not None
    assert "gpt-4o, gpt-4o-*" in error.message
    assert "evil" not in error.message
    many = Allow(params={"model": tuple(f"m{number}" for number in range(50))})
    error = refusal(many, request(target=b"/?model=evil"))
    assert error is not None
    assert error.message.count(",") == 9


# The list itself.


@pytest.mark.parametrize(
    "allow",
    [
        Allow(endpoints=("/v1/models", "/v1/files/", "/v1/models/*", "/v1/**", "/v1/**/content", "/", "/é")),
        Allow(methods=("GET", "M-SEARCH")),
        Allow(params={"model": ("*",), "n": ("1",)}),
        Allow(origins=("*", "http://[::1]:3000", "chrome-extension://abc", "HTTPS://A")),
        Allow(required_headers=("x-team", "X-Team: a b")),
    ],
)
def test_list_without_problems_is_taken(allow: Allow) -> None:
    assert list(allow.problems()) == []
    Allowlist(allow)


@pytest.mark.parametrize(
    ("allow", "key", "words"),
    [
        (Allow(endpoints=("v1/models",)), "endpoints", 'starts with "/"'),
        (Allow(endpoints=("",)), "endpoints", 'starts with "/"'),
        (Allow(endpoints=("/v1?x=1",)), "endpoints", "params"),
        (Allow(endpoints=("/v1/%2e",)), "endpoints", "percent-encoding"),
        (Allow(endpoints=("/v1//x",)), "endpoints", "empty segments"),
        (Allow(endpoints=("/v1/../x",)), "endpoints", "dots"),
        (Allow(endpoints=("/v1/a b",)), "endpoints", "visible"),
        (Allow(endpoints=("/v1/a;b",)), "endpoints", "visible"),
        (Allow(endpoints=("/v1/a**",)), "endpoints", "** between"),
        (Allow(endpoints=("/**/a/**",)), "endpoints", "** once"),
        (Allow(endpoints=("/**/a/",)), "endpoints", "** once"),
        (Allow(endpoints=("/" + "a" * 5000,)), "endpoints", "4096"),
        (Allow(methods=("get",)), "methods", "upper case"),
        (Allow(methods=("GET, POST",)), "methods", "upper case"),
        (Allow(params={"": ("a",)}), "params", "name of a parameter"),
        (Allow(params={"model": ()}), "params.model", "found nothing"),
        (Allow(params={"model": ("a",), "Model": ("b",)}), "params", "stands there twice"),
        (Allow(origins=("https://a/",)), "origins", "without a path"),
        (Allow(origins=("a.example",)), "origins", "an origin such as"),
        (Allow(origins=("https://*.a",)), "origins", "an origin such as"),
        (Allow(origins=("null",)), "origins", "an origin such as"),
        (Allow(required_headers=("x team",)), "required_headers", "name: value"),
        (Allow(required_headers=("x-team:",)), "required_headers", "name: value"),
        (Allow(required_headers=("x-team: a\nb",)), "required_headers", "name: value"),
    ],
)
def test_problem_is_told_with_its_key_and_the_list_is_not_taken(allow: Allow, key: str, words: str) -> None:
    ((found, text),) = allow.problems()
    assert found == key
    assert words in text
    with pytest.raises(ValueError, match=r"accepted|twice"):
        Allowlist(allow)
