"""A body that is let through says nothing that is not allowed, however an upstream may read it."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Iterator
from email import message_from_bytes
from urllib.parse import parse_qsl, unquote_plus

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llmproxyd.access.allowlist import Allow, Allowlist
from llmproxyd.errors import Refused
from llmproxyd.model import Request

LIST = Allowlist(
    Allow(params={"model": ("gpt-4o", "gpt-4o-*"), "n": ("1", "2"), "tier": ("auto",), "stop": ("a", "b*")})
)
JSON = b"application/json"
FORM = b"application/x-www-form-urlencoded"


def code(
    body: bytes | str,
    media: bytes | None = JSON,
    *fields: tuple[bytes, bytes],
    model: str | None = None,
    method: bytes = b"POST",
    target: bytes = b"/v1/chat/completions",
    inference: bool = True,
) -> str | None:
    """The code of the refusal, ``None`` for what passes."""
    headers = (*fields, *(() if media is None else ((b"Content-Type", media),)))
    raw = body.encode() if isinstance(body, str) else body
    refused: Refused | None = None
    try:
        LIST.check_body(Request(method, target, headers), raw, model, inference=inference)
    except Refused as error:
        refused = error
    if refused is None:
        return None
    statuses = {"malformed_body": 400, "content_encoding_not_allowed": 415}
    assert refused.status == statuses.get(refused.code, 403)
    assert "evil" not in refused.message
    return refused.code


GOOD = '{"model": "gpt-4o", "messages": []}'


@pytest.mark.parametrize(
    "body",
    [
        GOOD,
        ' \r\n\t{"model":"gpt-4o-mini"}\n',
        '{"messages": [{"model": "evil"}], "model": "gpt-4o"}',
        '{"content": "\\"model\\": \\"evil\\"", "model": "gpt-4o"}',
        '{"\\u006dodel": "gpt-4o"}',
        '{"model": "gpt\\u002d4o"}',
        '{"model": "gpt-4o", "supermodel": "evil"}',
        '{"model": "gpt-4o", "models": ["gpt-4o", "gpt-4o-mini"]}',
    ],
)
def test_allowed_model_passes(body: str) -> None:
    assert code(body) is None


@pytest.mark.parametrize(
    "body",
    [
        '{"model": "evil"}',
        '{"model": ""}',
        '{"model": "GPT-4O"}',
        '{"model": " gpt-4o"}',
        '{"model": "gpt-4"}',
        '{"model": "xgpt-4o"}',
        '{"model": "gpt-4o-\\u0000evil"}',
        '{"model": "gpt-4o-\\nevil"}',
        '{"model": "gpt-4o-\\ud800"}',
        '{"model": "gpt-4o-%00"}',
        '{"model": "gpt-4o-' + "a" * 2000 + '"}',
        '{"model": null}',
        '{"model": 1}',
        '{"model": ["gpt-4o"]}',
        '{"model": {"id": "gpt-4o"}}',
        '{"Model": "evil"}',
        '{"MODEL": "evil"}',
        '{"\\u006d\\u006F\\u0064\\u0065\\u006c": "evil"}',
        '{"model": "gpt-4o", "models": ["evil"]}',
        '{"model": "gpt-4o", "models": [{"id": "gpt-4o"}]}',
        "{}",
        '{"messages": []}',
        "",
    ],
)
def test_other_model_or_none_is_refused(body: str) -> None:
    assert code(body) == "model_not_allowed"


@pytest.mark.parametrize(
    "body",
    [
        '{"model": "gpt-4o", "model": "gpt-4o"}',
        '{"model": "evil", "model": "gpt-4o"}',
        '{"model": "gpt-4o", "Model": "evil"}',
        '{"model": "gpt-4o", "mode\\u006c": "evil"}',
        '{"tier": "auto", "t\u0131er": "x", "model": "gpt-4o", "TIER": "flex"}',
        '{"model": "gpt-4o", "model\\u0000": "evil"}',
        '{"model": "gpt-4o", "model\\ud800": "evil"}',
        '{"model": "gpt-4o",}',
        '{"model": "gpt-4o"',
        '{"model": "gpt-4o"}}',
        '{"model": "gpt-4o"}{"model": "evil"}',
        '{,"model": "gpt-4o"}',
        '{"x": 1 "model": "gpt-4o"}',
        '{"model" "gpt-4o"}',
        '{"model": "gpt-4o", "t": NaN}',
        '{"model": "gpt-4o", "t": -Infinity}',
        '{"model": "gpt-4o" /* "model": "evil" */}',
        '{"model": "gpt-4o" // x\n}',
        "{'model': 'gpt-4o'}",
        '{model: "gpt-4o"}',
        '{"model": "gpt-4o", "x": "a\nb"}',
        '{"model": "gpt-4o", "x": "\\q"}',
        '{"a\nb": 1, "model": "gpt-4o"}',
        '{"model": "gpt-4o", "x": 01}',
        '{"model": "gpt-4o", "x": ' + "9" * 5000 + "}",
        '{"model": "gpt-4o", "x": ' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"model": "gpt-4o", "x": [' + "[],[]," * 600_000 + "1]}",
        "{" + ",".join(f'"m{number}": 1' for number in range(1500)) + ', "model": "gpt-4o"}',
        '[{"model": "gpt-4o"}]',
        '"gpt-4o"',
        "null",
        "model=gpt-4o",
        "\x00",
    ],
    ids=range(33),
)
def test_what_not_all_read_alike_is_refused(body: str) -> None:
    assert code(body) == "malformed_body"


@pytest.mark.parametrize(
    ("member", "wrong"),
    [
        ('"n": 1', None),
        ('"n": 1.0', None),
        ('"n": 1e0', None),
        ('"n": "2"', None),
        ('"n": 3', "param_not_allowed"),
        ('"n": 1.5', "param_not_allowed"),
        ('"n": true', "param_not_allowed"),
        ('"n": null', "param_not_allowed"),
        ('"n": 1e999', "param_not_allowed"),
        ('"n": {"1": 1}', "param_not_allowed"),
        ('"tier": "auto"', None),
        ('"tier": "flex"', "param_not_allowed"),
        ('"stop": "a"', None),
        ('"stop": ["a", "bcd"]', None),
        ('"stop": []', None),
        ('"stop": ["a", "c"]', "param_not_allowed"),
        ('"stop": ["a", ["b"]]', "param_not_allowed"),
        ('"other": "evil"', None),
    ],
)
def test_other_parameters_have_the_values_that_are_listed(member: str, wrong: str | None) -> None:
    assert code('{"model": "gpt-4o", ' + member + "}") == wrong


# Media types, charsets, codings.

ANY_MEDIA = [
    None,
    b"",
    JSON,
    b"Application/JSON ; charset=utf-8",
    b'application/json; charset="UTF-8"',
    b"application/json;charset=utf8;x=y",
    b"application/vnd.api+json",
    b"text/plain",
    b"application/octet-stream",
    b"application/x-ndjson",
    b"application/x-www-form-urlencoded",
    b"nonsense",
    b"application/json, text/html",
]


@pytest.mark.parametrize("media", ANY_MEDIA)
def test_model_is_checked_whatever_the_media_type(media: bytes | None) -> None:
    assert code(GOOD, media) is None
    assert code('{"model": "evil"}', media) == "model_not_allowed"


@pytest.mark.parametrize("coding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
def test_model_is_checked_in_every_unicode_encoding(coding: str) -> None:
    for media in (None, JSON, FORM):
        assert code(GOOD.encode(coding), media) is None
        assert code('{"model": "evil"}'.encode(coding), media) == "model_not_allowed"


@pytest.mark.parametrize(
    ("body", "charset", "wrong"),
    [
        (GOOD.encode("utf-16-le"), b"utf-16le", None),
        (GOOD.encode("utf-16"), b"UTF-16", None),
        (GOOD.encode(), b"iso-8859-1", None),
        (GOOD.encode(), b"us-ascii", None),
        (GOOD.replace("[]", '"é"').encode(), b"iso-8859-1", "malformed_body"),
        (GOOD.encode("utf-16-le"), b"utf-8", "malformed_body"),
        (GOOD.encode(), b"utf-16", "malformed_body"),
        (GOOD.encode(), b"utf-7", "malformed_body"),
        (GOOD.encode(), b"ibm037", "malformed_body"),
        (GOOD.encode(), b"shift_jis", "malformed_body"),
        (GOOD.encode(), b"", "malformed_body"),
        (GOOD.encode(), b"'utf-8'", "malformed_body"),
        (GOOD.encode(), b"utf-8; charset=utf-7", "malformed_body"),
        (GOOD.encode(), b"utf-8; Charset*=utf-7''x", "malformed_body"),
        ('{"model": "gpt-4o", "x": "é"}'.encode("latin-1"), b"utf-8", "malformed_body"),
        (b'{"model": "gpt-4o", "mod\xffel": "evil"}', b"utf-8", "malformed_body"),
        (b'{"model": "gpt-4o", "x": "\xed\xa0\x80"}', b"utf-8", "malformed_body"),
    ],
)
def test_charset_must_be_the_one_of_the_body(body: bytes, charset: bytes, wrong: str | None) -> None:
    assert code(body, b"application/json; charset=" + charset) == wrong


@pytest.mark.parametrize("coding", [b"gzip", b"br", b"identity, gzip", b"x"])
def test_coded_body_is_refused_with_what_would_do(coding: bytes) -> None:
    headers = ((b"content-encoding", coding),)
    with pytest.raises(Refused) as caught:
        LIST.check_body(Request(b"POST", b"/", headers), gzip.compress(b'{"model": "evil"}'), None)
    assert (caught.value.status, caught.value.code) == (415, "content_encoding_not_allowed")
    assert caught.value.headers == ((b"accept-encoding", b"identity"),)


def test_coding_is_found_in_any_field_and_identity_is_none() -> None:
    assert code(GOOD, JSON, (b"Content-Encoding", b"identity")) is None
    twice = ((b"content-encoding", b"identity"), (b"CONTENT-ENCODING", b"gzip"))
    assert code(GOOD, JSON, *twice) == "content_encoding_not_allowed"


def test_two_media_types_are_refused_unless_they_are_the_same() -> None:
    assert code(GOOD, JSON, (b"content-type", JSON)) is None
    assert code(GOOD, JSON, (b"content-type", FORM)) == "malformed_body"


# Where a model may be missing, and where the path names it.


def test_request_that_can_ask_nothing_needs_no_model() -> None:
    for method in (b"GET", b"HEAD", b"OPTIONS", b"DELETE"):
        assert code("", None, method=method) is None
        assert code("{}", method=method) == "model_not_allowed"
    assert code("", None) == "model_not_allowed"


def test_model_may_be_missing_where_nothing_is_inferred() -> None:
    assert code("{}", inference=False) is None
    assert code('{"model": "evil"}', inference=False) == "model_not_allowed"
    assert code("no JSON", inference=False) == "malformed_body"


@pytest.mark.parametrize(
    ("model", "body", "wrong"),
    [
        ("gpt-4o", "{}", None),
        ("gpt%2D4o", "", None),
        ("evil", "{}", "model_not_allowed"),
        ("evil", '{"model": "gpt-4o"}', "model_not_allowed"),
        ("gpt-4o", '{"model": "gpt-4o-mini"}', None),
        ("gpt-4o", '{"model": "models/gpt-4o"}', None),
        ("gpt-4o", '{"model": "evil"}', "model_not_allowed"),
        ("gpt-4o", '{"model": "models/evil"}', "model_not_allowed"),
        ("gpt-4o-%2500", "{}", "model_not_allowed"),
        ("gpt-4o-%00", "{}", "model_not_allowed"),
    ],
)
def test_model_that_the_path_names_counts_and_so_does_the_body_s(
    model: str, body: str, wrong: str | None
) -> None:
    assert code(body, model=model, target=b"/v1/models/M:generateContent") == wrong


@pytest.mark.parametrize(
    "target",
    [
        b"/openai/Deployments/evil/chat/completions?api-version=1",
        b"/openai/deployments/evil/extensions/chat/completions",
        b"/v1/engines/evil/completions",
        b"/model/evil/async-invoke",
        b"/v1beta/models/evil:somethingNew",
        b"/to/google/v1/publishers/google/models/evil:generateContent",
        b"/serving-endpoints/evil/invocations",
    ],
)
def test_model_in_a_path_that_nobody_knows_counts_too(target: bytes) -> None:
    assert code(GOOD, target=target) == "model_not_allowed"
    assert code(GOOD, target=target.replace(b"evil", b"gpt-4o")) is None
    assert code("{}", target=target.replace(b"evil", b"gpt-4o")) is None


@pytest.mark.parametrize(
    "target", [b"/to/model/v1/chat/completions", b"/serving-endpoints/chat/completions", b"/v1/models", b"/"]
)
def test_no_model_is_seen_where_there_is_none(target: bytes) -> None:
    assert code(GOOD, target=target) is None


@pytest.mark.parametrize(
    "path",
    [
        b"/v1beta/%6dodels/evil:generateContent",
        b"/v1beta%2Fmodels/evil:generateContent",
        b"/v1beta/models//evil:generateContent",
        b"/v1beta/models/evil%3AgenerateContent",
        b"/v1beta/models/x/../evil:generateContent",
        b"/v1beta\\models\\evil:generateContent",
        b"/v1beta/models;x/evil:generateContent",
        b"/v1beta/models/evil:generateContent/",
    ],
)
def test_path_that_could_name_a_model_in_disguise_is_refused(path: bytes) -> None:
    assert code(GOOD, target=path) in ("endpoint_not_allowed", "model_not_allowed")
    assert code("", None, method=b"GET", target=path) is None


@pytest.mark.parametrize(
    "path",
    [
        b"/model/evil/converse#/model/gpt-4o/converse",
        b"/model/evil/converse%3F/model/gpt-4o/converse",
        b"/model/evil/converse;/model/gpt-4o/converse",
        b"/model/evil/..;/model/gpt-4o/converse",
    ],
)
def test_path_that_names_an_allowed_model_behind_another_is_refused(path: bytes) -> None:
    assert code("{}", model="gpt-4o", target=path) == "endpoint_not_allowed"


def test_encoded_model_of_a_path_is_checked_decoded() -> None:
    arns = Allowlist(Allow(params={"model": ("arn:aws:bedrock:*:inference-profile/good",)}))
    for name, passes in (("good", True), ("evil", False)):
        raw = f"arn%3Aaws%3Abedrock%3Aus%3A1%3Ainference-profile%2F{name}"
        request = Request(b"POST", f"/model/{raw}/converse".encode(), ())
        if passes:
            arns.check_body(request, b"{}", raw)
        else:
            with pytest.raises(Refused, match="not among those"):
                arns.check_body(request, b"{}", raw)


def test_list_without_parameters_reads_no_body() -> None:
    heads = Allowlist(Allow(methods=("POST",), params={"model": ("*",)}))
    assert not heads.reads_body
    heads.check_body(Request(b"POST", b"/%", ()), b"\xff", None)
    assert LIST.reads_body


def test_list_for_another_parameter_asks_for_no_model() -> None:
    tier = Allowlist(Allow(params={"tier": ("auto",)}))
    tier.check_body(Request(b"POST", b"/v1/%2F/x", ()), b'{"model": ["any"], "models": 1}', None)
    with pytest.raises(Refused, match='This value of "tier"'):
        tier.check_body(Request(b"POST", b"/", ()), b'{"tier": "flex"}', None)


# Forms.


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ("model=gpt-4o&x=1", None),
        ("model=gpt-4o&stop[]=a&stop[]=b", None),
        ("model=evil", "model_not_allowed"),
        ("x=1", "model_not_allowed"),
        ("model=gpt-4o&model=evil", "model_not_allowed"),
        ("model=gpt-4o&x=1;model=evil", "model_not_allowed"),
        ("model=gpt-4o&Mod%65l=evil", "model_not_allowed"),
        ("model=gpt-4o&stop%5B%5D=c", "param_not_allowed"),
        ("model=gpt-4o&tier=%FF", "malformed_body"),
        ('{"model":"gpt-4o","x":"&model=evil"}', "model_not_allowed"),
        ('{"model":"evil"}&model=gpt-4o', "malformed_body"),
        ("&" * 2000 + "model=gpt-4o", "malformed_body"),
    ],
)
def test_form_is_checked(body: str, wrong: str | None) -> None:
    assert code(body, FORM) == wrong


HEAD = b'--X\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n'
FILE = (
    b'--X\r\nContent-Disposition: form-data; name="file"; filename="a b.mp3"\r\n'
    b"Content-Type: audio/mpeg\r\n\r\n\x00\xff--\r\n\r\n\r\n"
)
MULTIPART = b"multipart/form-data; boundary=X"


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        (HEAD % (b"model", b"gpt-4o") + FILE + b"--X--\r\n", None),
        (FILE + HEAD % (b"model", b"gpt-4o") + b"--X--", None),
        (HEAD % (b"model", b"evil") + FILE + b"--X--\r\n", "model_not_allowed"),
        (FILE + b"--X--\r\n", "model_not_allowed"),
        (HEAD % (b"MODEL", b"evil") + b"--X--\r\n", "model_not_allowed"),
        (HEAD % (b"model[]", b"evil") + b"--X--\r\n", "model_not_allowed"),
        (HEAD % (b"model", b"gpt-4o") + HEAD % (b"model", b"evil") + b"--X--\r\n", "model_not_allowed"),
        (HEAD % (b"model", b"gpt-4o\r\n") + b"--X--\r\n", "model_not_allowed"),
        (HEAD % (b"model", b"gpt-4o\n--X\nevil") + b"--X--\r\n", "malformed_body"),
        (HEAD % (b"model", b"\xff") + b"--X--\r\n", "malformed_body"),
        (HEAD % (b"m%6fdel", b"evil") + b"--X--\r\n", "malformed_body"),
        (HEAD % (b'model"; name="x', b"evil") + b"--X--\r\n", "malformed_body"),
        (HEAD % (b"x\"; name*=\"UTF-8''model", b"evil") + b"--X--\r\n", "malformed_body"),
        (HEAD % (b'x"; filename="\\"; name="model', b"evil") + b"--X--\r\n", "malformed_body"),
        (HEAD % (b'model"; filename="f', b"gpt-4o") + b"--X--\r\n", "malformed_body"),
        (HEAD % (b"_charset_", b"utf-7") + HEAD % (b"model", b"gpt-4o") + b"--X--\r\n", "malformed_body"),
        (b"preamble\r\n" + HEAD % (b"model", b"gpt-4o") + b"--X--\r\n", "malformed_body"),
        (HEAD % (b"model", b"gpt-4o") + b"--X--\r\nepilogue", "malformed_body"),
        (HEAD % (b"model", b"gpt-4o"), "malformed_body"),
        ((HEAD % (b"model", b"gpt-4o") + b"--X--").replace(b"\r\n", b"\n"), "malformed_body"),
        (
            HEAD.replace(b"form-data;", b"form-data;\r\n ") % (b"model", b"gpt-4o") + b"--X--",
            "malformed_body",
        ),
        (
            HEAD.replace(b"\r\n\r\n", b"\r\nContent-Transfer-Encoding: base64\r\n\r\n")
            % (b"model", b"gpt-4o")
            + b"--X--",
            "malformed_body",
        ),
        (
            HEAD.replace(b"\r\n\r\n", b"\r\nContent-Type: text/plain; charset=utf-7\r\n\r\n")
            % (b"model", b"gpt-4o")
            + b"--X--",
            "malformed_body",
        ),
        (b"--X\r\nX-A: b\r\n\r\nx\r\n--X--", "malformed_body"),
        ((HEAD % (b"model", b"gpt-4o")).replace(b"--X\r\n", b"--X  ") + b"--X--", "malformed_body"),
        (HEAD % (b"model", b"gpt-4o") + b"--X-- ", "malformed_body"),
        (b"", "model_not_allowed"),
        (b"--X--", "model_not_allowed"),
        (GOOD.encode(), "malformed_body"),
    ],
    ids=range(29),
)
def test_multipart_form_is_checked(body: bytes, wrong: str | None) -> None:
    assert code(body, MULTIPART) == wrong


@pytest.mark.parametrize(
    ("media", "wrong"),
    [
        (b'Multipart/Form-Data; charset=utf-8; boundary="X"', None),
        (b"multipart/form-data; boundary=X; boundary=Y", "malformed_body"),
        (b"multipart/form-data; boundary=Y; boundary=X", "malformed_body"),
        (b"multipart/form-data; boundary=X, multipart/form-data; boundary=Y", "malformed_body"),
        (b"multipart/form-data; boundary*=utf-8''X", "malformed_body"),
        (b"multipart/form-data; boundary*0=X", "malformed_body"),
        (b"multipart/form-data; boundary=X; x=y", "malformed_body"),
        (b"multipart/form-data; boundary=X; charset=utf-7", "malformed_body"),
        (b"multipart/form-data", "malformed_body"),
        (b"multipart/form-data; boundary=", "malformed_body"),
        (b"multipart/mixed; boundary=X", "malformed_body"),
    ],
)
def test_boundary_must_be_plain(media: bytes, wrong: str | None) -> None:
    assert code(HEAD % (b"model", b"gpt-4o") + b"--X--\r\n", media) == wrong


# A little model of upstreams, each of which reads bodies in its own way.

GIVEN = ["gpt-4o", "evil", "gpt-4o-mini"]


def fits(value: object) -> bool:
    return isinstance(value, str) and (value == "gpt-4o" or value.startswith("gpt-4o-"))


def last(pairs: list[tuple[str, object]]) -> object:
    return dict(pairs)


def first(pairs: list[tuple[str, object]]) -> object:
    return dict(reversed(pairs))


def caseless(pairs: list[tuple[str, object]]) -> object:
    return {name.casefold(): value for name, value in pairs}


def truncating(pairs: list[tuple[str, object]]) -> object:
    return {re.split("[\0\ud800-\udfff\ufffd]", name)[0]: value for name, value in pairs}


PARSERS: list[Callable[[list[tuple[str, object]]], object]] = [last, first, caseless, truncating]
DECODERS: list[tuple[str | None, str]] = [
    (None, "surrogatepass"),
    ("utf-8", "ignore"),
    ("utf-8", "replace"),
    ("utf-8-sig", "replace"),
    ("utf-16", "ignore"),
    ("latin-1", "strict"),
]


def as_json(body: bytes, charset: str | None) -> Iterator[object]:
    """Models that upstreams read from *body* as JSON."""
    for coding, errors in [*DECODERS, *([(charset, "ignore")] if charset else [])]:
        for parse in PARSERS:
            try:
                text = body.decode(coding or json.detect_encoding(body), errors)
                value, _ = json.JSONDecoder(object_pairs_hook=parse, strict=False).raw_decode(text.lstrip())
            except (ValueError, LookupError, RecursionError):
                continue
            if isinstance(value, dict) and "model" in value:
                yield value["model"]


def as_form(body: bytes) -> Iterator[object]:
    text = body.decode("utf-8", "replace")
    for form in (text, text.replace(";", "&")):
        for name, value in parse_qsl(form, True):
            for one in (name, unquote_plus(name)):
                if one.partition("[")[0].strip().casefold() == "model":
                    yield value


NAMES = st.sampled_from(
    [
        "model",
        "Model",
        "mod\\u0065l",
        "model\\u0000",
        "model\\ud800",
        "x",
        "models ",
        " model",
        "ſ",
        "content",
    ]
)
VALUES = st.one_of(
    st.sampled_from(GIVEN).map(json.dumps),
    st.sampled_from(
        [
            '"&model=evil&"', '";model=evil"', '"+ACI-,+ACI-model+ACI-:+ACI-evil"', '["evil"]', "null", "NaN", "1",
            '{"model":"evil"}', '"\\\\"', '"é"', '"\xa0"', '"\x1b"', '"//"', '"gpt-4o-\\u0000evil"', '"gpt-4o-\\n"',
        ]
    ),
)  # fmt: skip


def mostly(usual: str | None, *others: str | None) -> st.SearchStrategy[str | None]:
    """*usual*, and now and then another one: what is all odd is refused for one reason and tries no other."""
    return st.integers(0, 7).flatmap(lambda n: st.sampled_from(others) if n == 0 else st.just(usual))


OPENINGS = mostly("{", " {", "\ufeff{", "[{", "")
GLUE = mostly(",", ", ", ",,", " ", ",\n", "/**/,", ";", "&")
CLOSINGS = mostly("}", "} ", "}}", "}]", "", "}&model=evil", '}{"model":"evil"}')
CODINGS = mostly("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1", "utf-7")
CHARSETS = mostly(None, "utf-8", "utf-16", "utf-7", "latin-1", "iso-8859-1", "utf-16-le", "cp037")
MEDIA = mostly("application/json", "text/json", "application/x+json", FORM.decode(), "", "text/plain")


@st.composite
def objects(draw: st.DrawFn) -> str:
    """Objects that name an allowed model, and something beside it."""
    members = [f'"{name}":{value}' for name, value in draw(st.lists(st.tuples(NAMES, VALUES), max_size=2))]
    members.insert(draw(st.integers(0, len(members))), '"model":"gpt-4o"')
    pieces = [str(draw(OPENINGS)), members[0]]
    for member in members[1:]:
        pieces += [str(draw(GLUE)), member]
    return "".join(pieces) + str(draw(CLOSINGS))


@settings(max_examples=500, deadline=None)
@given(objects(), CODINGS, MEDIA, CHARSETS)
@example('{"model":"gpt-4o","x":"+ACI-,+ACI-model+ACI-:+ACI-evil"}', "utf-8", "application/json", "utf-7")
@example('{"model":"gpt-4o","Model":"evil"}', "utf-8", "application/json", None)
@example('{"model":"gpt-4o","x":";model=evil"}', "utf-8", FORM.decode(), None)
def test_no_upstream_reads_another_model_than_is_allowed(
    text: str, coding: str, media: str, charset: str | None
) -> None:
    body = text.encode(coding, "ignore")
    named = media + (f"; charset={charset}" if charset else "")
    if code(body, named.encode()) is not None:
        return
    found = list(as_json(body, charset))
    assert found or media == FORM.decode()
    assert all(map(fits, found)), (body, found)
    if media == FORM.decode():
        assert all(map(fits, as_form(body)))


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                "model",
                "m%6fdel",
                "MODEL",
                "=",
                "&",
                ";",
                "gpt-4o",
                "evil",
                "[]",
                "%5B",
                "+",
                "%3D",
                "%26",
                "x",
                "%00",
            ]
        ),
        max_size=12,
    )
)
def test_no_upstream_reads_another_model_from_a_form_or_a_query(pieces: list[str]) -> None:
    raw = "".join(pieces).encode()
    if code(raw, FORM) is None:
        assert all(map(fits, as_form(raw)))
    target = b"/v1/x?" + raw
    try:
        LIST.check_head(Request(b"GET", target, ()), target)
    except Refused:
        return
    assert all(map(fits, as_form(raw)))


PARTS = st.sampled_from(
    [
        HEAD % (b"x", b"1"),
        HEAD % (b"y", b"a\nb"),
        FILE,
        HEAD % (b"model", b"gpt-4o"),
        HEAD % (b"model", b"evil"),
    ]
)
SPLINTERS = st.sampled_from(
    [
        b"--X", b"--X--", b"\r\n--X\r\n", b"\n--X\n", b"\r\n", b"\n", b"\r\n\r\n", b"\n\n", b"evil", b"--", b" ", b"\0",
        b'Content-Disposition: form-data; name="model"', b'\r\ncontent-disposition: form-data; name="model"\r\n',
        b"\r\nContent-Transfer-Encoding: base64", b"ZXZpbA==", b'; filename="f"', b"\r\n\tx", b'; name="model"',
    ]
)  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(st.lists(PARTS, max_size=3), st.lists(st.tuples(SPLINTERS, st.integers(0, 400)), max_size=2))
def test_no_upstream_reads_another_model_from_a_multipart_form(
    parts: list[bytes], splinters: list[tuple[bytes, int]]
) -> None:
    body = HEAD % (b"model", b"gpt-4o") + b"".join(parts) + b"--X--\r\n"
    for splinter, at in splinters:
        body = body[:at] + splinter + body[at:]
    if code(body, MULTIPART) is not None:
        return
    parsed = message_from_bytes(b"Content-Type: " + MULTIPART + b"\r\n\r\n" + body)
    assert parsed.is_multipart()
    found = [
        part.get_payload(decode=True)
        for part in parsed.walk()
        if part.get_param("name", header="content-disposition") == "model"
    ]
    assert found
    assert all(isinstance(one, bytes) and fits(one.decode()) for one in found)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=80), st.binary(max_size=40), st.sampled_from(["a", "%", None]))
def test_no_bytes_break_it(body: bytes, media: bytes, model: str | None) -> None:
    for one in (media, MULTIPART, FORM):
        assert code(body, one, model=model) in (
            None,
            "malformed_body",
            "model_not_allowed",
            "param_not_allowed",
        )
