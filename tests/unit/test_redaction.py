"""A secret shows itself to nobody who does not ask for it by name."""

from __future__ import annotations

import base64
import copy
import json
import logging
import pickle
import traceback
from dataclasses import dataclass
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmproxyd.model import Request, Response
from llmproxyd.observe.logs import json_line
from llmproxyd.pipeline.policy import Upstream
from llmproxyd.providers.detect import facts_of
from llmproxyd.providers.registry import registry
from llmproxyd.redaction import PRESENTED, REDACTED, Redactor, Secret, presented, printable
from llmproxyd.spellings import LEAST

KEY = "sk-proj-0123456789abcdef"


@dataclass(frozen=True)
class Holder:
    key: Secret


SHOWN = [
    lambda secret: repr(secret),
    lambda secret: str(secret),
    lambda secret: f"{secret}",
    lambda secret: f"{secret!r:>40}",
    lambda secret: f"{secret:>40}",
    lambda secret: f"{secret:.3}",
    lambda secret: "%s %r" % (secret, secret),  # noqa: UP031
    lambda secret: "{}".format(secret),  # noqa: UP032
    lambda secret: repr([secret, {"key": secret}]),
    lambda secret: repr(Holder(secret)),
    lambda secret: json_line({"key": secret}),
    lambda secret: repr(copy.copy(secret)) + repr(copy.deepcopy(Holder(secret))),
    lambda secret: repr(ValueError(secret)),
    lambda secret: "".join(traceback.format_exception(ValueError(secret))),
    lambda secret: logging.LogRecord("x", 20, "x", 1, "key %s", (secret,), None).getMessage(),
]


@pytest.mark.parametrize("show", SHOWN)
def test_secret_is_shown_as_redacted(show: object) -> None:
    text = show(Secret(KEY))  # type: ignore[operator]
    assert KEY[:4] not in text
    assert REDACTED[:3] in text


def test_secret_is_revealed_on_request() -> None:
    assert Secret(KEY).reveal() == KEY


def test_secret_does_not_leave_the_process() -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError):
            pickle.dumps(Secret(KEY), protocol)
    with pytest.raises(TypeError):
        json.dumps(Secret(KEY))


def test_secret_has_no_dictionary_of_attributes() -> None:
    with pytest.raises(TypeError):
        vars(Secret(KEY))


@settings(deadline=None)
@given(st.text(), st.text())
def test_secrets_are_equal_when_their_texts_are(one: str, other: str) -> None:
    assert (Secret(one) == Secret(other)) == (one == other)
    assert hash(Secret(one)) == hash(Secret(one))


def test_secret_is_no_text() -> None:
    assert Secret(KEY) != KEY


def test_nothing_that_carries_a_key_shows_it() -> None:
    fields = [(b"Authorization", b"Bearer " + KEY.encode()), (b"Set-Cookie", KEY.encode())]
    request = Request(b"POST", b"/v1/models?key=" + KEY.encode(), fields)
    upstream = Upstream(
        name="openai",
        provider=registry()["openai"],
        base_url="http://127.0.0.1:1",
        keys=(Secret(KEY),),
        headers=fields,
    )
    for one in (request, Response(200, b"OK", fields), facts_of(request), upstream):
        assert KEY[:6] not in repr(one)


# Records.

ODD = 'p/w+"q\\ü ?&x='
CONFIGURED = [Secret(KEY), Secret("dapi0123"), Secret("x"), Secret("none")]
REDACTOR = Redactor(CONFIGURED)

FIELDS = [
    (b"Authorization", b"Bearer abc", "Bearer [redacted]"),
    (b"authorization", b"Basic dTpw", "Basic [redacted]"),
    (b"AUTHORIZATION", b"AWS4-HMAC-SHA256 Credential=A/b, Signature=c", "AWS4-HMAC-SHA256 [redacted]"),
    (b"Authorization", b"abc", REDACTED),
    (b"Authorization", b"hunter 2", REDACTED),
    (b"Proxy-Authorization", b"Basic dTpw", REDACTED),
    (b"X-Api-Key", b"abc", REDACTED),
    (b"api-key", b"abc", REDACTED),
    (b"x-goog-api-key", b"abc", REDACTED),
    (b"X-Amz-Security-Token", b"abc", REDACTED),
    (b"X-Some-Secret", b"abc", REDACTED),
    (b"Cookie", b"a=b", REDACTED),
    (b"Set-Cookie", b"a=b; path=/", REDACTED),
    (b"X-Other", KEY.encode(), REDACTED),
    (b"X-Other", b"x", REDACTED),
    (b"X-Other", b"was " + KEY.encode() + b" here", "was [redacted] here"),
    (b"Location", b"https://u:p@h/?key=abc&alt=sse", "https://[redacted]@h/?key=[redacted]&alt=sse"),
    (b"X-RateLimit-Remaining-Tokens", b"12", "12"),
    (b"Content-Type", b"text/plain; charset=utf-8", "text/plain; charset=utf-8"),
    (b"User-Agent", b"a\x1b[2J\x85\xe9", "a\\x1b[2J\\x85é"),
    (b"X-Tokens", b"x y", "x y"),
]


@pytest.mark.parametrize(("name", "value", "shown"), FIELDS)
def test_field(name: bytes, value: bytes, shown: str) -> None:
    assert REDACTOR.fields([(name, value)]) == [(name.decode(), shown)]


def test_fields_keep_their_order_and_duplicates() -> None:
    found = REDACTOR.fields([(b"b", b"1"), (b"A", b"2"), (b"b", b"3"), (b"bad\nname", b"")])
    assert found == [("b", "1"), ("A", "2"), ("b", "3"), ("bad\\x0aname", "")]


URLS = [
    ("https://h/v1?alt=sse", "https://h/v1?alt=sse"),
    ("https://u:p@h:1/v1", "https://[redacted]@h:1/v1"),
    ("https://u:p@w@h/a@b", "https://[redacted]@h/a@b"),
    ("/v1?key=abc&alt=sse", "/v1?key=[redacted]&alt=sse"),
    ("/v1?%6Bey=abc", "/v1?%6Bey=[redacted]"),
    ("/v1?KEY=abc;api_key=d&access_token=e&token=f&sig=g", None),
    ("/v1?X-Amz-Signature=abc&X-Amz-Credential=abc%2Fd&X-Goog-Signature=abc&X-Amz-Date=1", None),
    ("/v1?q=x&r=y", "/v1?q=[redacted]&r=y"),
    ("/v1#access_token=abc", "/v1#access_token=[redacted]"),
    ("/v1?key=&a", "/v1?key=&a"),
    (f"/{KEY}/v1", "/[redacted]/v1"),
    ("", ""),
]


@pytest.mark.parametrize(("url", "shown"), URLS)
def test_url(url: str, shown: str | None) -> None:
    found = REDACTOR.url(url)
    if shown is not None:
        assert found == shown
    for value in ("abc", "=d", "=e", "=f", "=g"):
        assert value not in found


LIKE_KEYS = [
    "sk-0123456789abcdef",
    "sk-ant-api03-0123456789abcdef",
    "sk-or-v1-0123456789abcdef",
    "gsk_0123456789abcdef",
    "xai-0123456789abcdef",
    "AIzaSy0123456789-_abcd",
    "fw_0123456789abcdef",
    "dapi0123456789abcdef",
]


@pytest.mark.parametrize("key", LIKE_KEYS)
@pytest.mark.parametrize("before", ["", " ", '"', "=", "\\n", "%20", "\\u000a", "("])
def test_what_looks_like_a_key_is_taken_out_wherever_it_stands(key: str, before: str) -> None:
    assert (
        Redactor().text(f"a{before if before else ' '}{key} b") == f"a{before if before else ' '}{REDACTED} b"
    )
    assert Redactor().text(f"Authorization: bearer {key[:12]}1") == "Authorization: bearer [redacted]"


@pytest.mark.parametrize(
    "text",
    [
        "risk-management-of-all-things",
        "sk-short",
        "the bearer tokens are",
        "Bearer auth",
        "monkey=",
        "a://b/c",
        "",
    ],
)
def test_ordinary_text_stays(text: str) -> None:
    assert REDACTOR.text(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("GET https://u:p@h/x?key=abc failed", "GET https://[redacted]@h/x?key=[redacted] failed"),
        ('{"access_token": "a\\"b", "x": 1}', '{"access_token": "[redacted]", "x": 1}'),
        ('{"password": ""}', '{"password": ""}'),
        ("as Basic dXNlcjpwdw== it failed", "as Basic [redacted] it failed"),
        ("grant=x&client_secret=abc&y=1", "grant=x&client_secret=[redacted]&y=1"),
    ],
)
def test_what_a_name_makes_a_secret_is_taken_out(text: str, shown: str) -> None:
    assert Redactor().text(text) == shown


def forms(secret: str) -> list[str]:
    raw = secret.encode()
    found = [secret, quote(secret, safe=""), quote(secret, safe="").lower(), json.dumps(secret)[1:-1]]
    found += [json.dumps(secret, ensure_ascii=False)[1:-1], json.dumps(secret)[1:-1].replace("/", "\\/")]
    found += [json.dumps(form)[1:-1] for form in found]
    return found + [base64.b64encode(user + raw + b"!").decode() for user in (b"", b"u", b"us", b"user:")]


@pytest.mark.parametrize("secret", ["hunter22-and-more", ODD, "0123456789/+abcdef"])
def test_secret_is_found_in_every_form(secret: str) -> None:
    for redactor in (Redactor([Secret(secret)]), Redactor().knowing([secret])):
        for form in forms(secret):
            found = redactor.text(f"({form})")
            assert REDACTED in found
            assert form[4:-4] not in found
    assert secret not in Redactor().text(f"a {secret} b", [secret])


def test_secret_sent_as_utf8_is_found_in_a_body() -> None:
    secrets = presented([(b"x-api-key", "schlüssel-1234".encode())], b"")
    assert Redactor().knowing(secrets).text("schlüssel-1234") == REDACTED


def test_short_secret_is_taken_out_as_a_whole_alone() -> None:
    assert len("none") < LEAST
    assert REDACTOR.text("none of x") == "none of x"
    assert REDACTOR.fields([(b"a", b"none"), (b"b", b"none else")]) == [("a", REDACTED), ("b", "none else")]


def test_secrets_within_and_across_one_another_leave_nothing() -> None:
    redactor = Redactor([Secret("abcdefgh"), Secret("efghijkl"), Secret("abcdef")])
    assert redactor.text("<abcdefghijkl>") == f"<{REDACTED}>"
    assert redactor.knowing(["abcdefgh-tail"]).text("<abcdefgh-tail>") == f"<{REDACTED}>"
    assert redactor.knowing(["redacted"]).text("abcdef [redacted]") == f"{REDACTED} [{REDACTED}]"


def test_bytes_of_any_kind_are_text() -> None:
    assert REDACTOR.text(b"\xff" + KEY.encode() + b"\x00") == f"\\xff{REDACTED}\x00"


def test_beginning_of_a_secret_at_a_cut_is_taken_out() -> None:
    assert REDACTOR.cut(f"text {KEY[:9]}") == f"text {REDACTED}"
    assert REDACTOR.cut("text") == "text"
    assert REDACTOR.cut("") == ""


@settings(deadline=None)
@given(st.text(min_size=LEAST), st.text(), st.text())
def test_no_secret_is_left_whatever_stands_around_it(secret: str, before: str, after: str) -> None:
    found = Redactor([Secret(secret)]).text(before + secret + after)
    assert secret not in found.replace(REDACTED, "") or secret in before + after or secret in REDACTED


@settings(deadline=None)
@given(st.lists(st.tuples(st.binary(), st.binary())), st.text(), st.binary())
def test_nothing_makes_it_fail(headers: list[tuple[bytes, bytes]], text: str, query: bytes) -> None:
    redactor = Redactor().knowing(presented(headers, query))
    for name, value in redactor.fields(headers):
        assert (name + value).isprintable() or not set(name + value) & {"\n", "\r", "\x1b", "\x00"}
    redactor.url(redactor.text(text))
    redactor.cut(text)


HUGE = 2**20


@pytest.mark.parametrize(
    "unit", ["a", "://", "sk-", '"password": "', "key=", "Bearer ", "?&;#", "%", "\\", "sk-0123456789abcdef "]
)
def test_large_bodies_of_anything_are_read_in_time(unit: str) -> None:
    """Quadratic time would be minutes."""
    redactor = Redactor([Secret("a" * 7), Secret(KEY)]).knowing(["?&;#" * 4])
    redactor.text(redactor.url(unit * (HUGE // len(unit))))


PRESENTED_BY = [
    ([(b"Authorization", b"Bearer abc")], b"", ("abc",)),
    ([(b"Authorization", b"abc")], b"", ("abc",)),
    ([(b"Authorization", b"Basic dXNlcjpwdw==")], b"", ("dXNlcjpwdw==", "user:pw", "pw")),
    (
        [(b"Authorization", b"AWS4-HMAC-SHA256 Credential=A/b, SignedHeaders=h, Signature=c")],
        b"",
        ("A/b", "c"),
    ),
    ([(b"X-Api-Key", b"a"), (b"api-key", b"b"), (b"x-goog-api-key", b"c")], b"", ("a", "b", "c")),
    ([(b"X-Api-Key", b"a"), (b"X-Api-Key", b"a")], b"key=a", ("a",)),
    ([], b"alt=sse&key=AI%2Fza", ("AI/za", "AI%2Fza")),
    ([], b"X-Amz-Signature=00ff", ("00ff",)),
    ([(b"Cookie", b"a=1; s=0123456789abcdef")], b"", ("0123456789abcdef",)),
    ([(b"Accept", b"a"), (b"Authorization", b"")], b"key=&x", ()),
]


@pytest.mark.parametrize(("headers", "query", "found"), PRESENTED_BY)
def test_presented_credentials(
    headers: list[tuple[bytes, bytes]], query: bytes, found: tuple[str, ...]
) -> None:
    assert presented(headers, query) == found


def test_presented_credentials_are_bounded() -> None:
    headers = [(b"x-a-token", b"%d" % number) for number in range(1000)]
    assert len(presented(headers, b"")) == PRESENTED


def test_printable_text_has_no_control_characters() -> None:
    assert printable("a\r\n\x1b\x9bé") == "a\\x0d\\x0a\\x1b\\x9bé"


def test_redactor_shows_no_secret() -> None:
    assert KEY not in repr(REDACTOR)
