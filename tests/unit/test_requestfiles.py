"""The request log as files: their sections, what a body looks like, and that no secret is in any."""

from __future__ import annotations

import base64
import gzip
import json
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest
from twisted.internet.task import Clock

from llmproxyd.config.schema import ErrorLogging, Logging
from llmproxyd.model import (
    AttemptMade,
    Body,
    End,
    ErrorNoted,
    Event,
    Finished,
    RawHeaders,
    Recorded,
    Request,
    Response,
)
from llmproxyd.observe.errorlog import ErrorLog
from llmproxyd.observe.requestfiles import NAMES, PRETTY, RequestFiles, body_text, status_line
from llmproxyd.observe.writer import Writer
from llmproxyd.redaction import Redactor, Secret, presented

WALL = 1_800_000_000.123456
JSON = [(b"Content-Type", b"application/json")]


def body(data: bytes) -> Body:
    return Body(data=data, length=len(data))


FINISHED = Finished(7, "ab-7", "POST", "/chat/completions", "openai", "target", 200, 1.111, 99, End.COMPLETE)
RECORDED = Recorded(
    finished=FINISHED,
    request=Request(b"POST", b"/chat/completions?a=b", [*JSON, (b"Authorization", b"Bearer sk-x")]),
    started=WALL,
    ended=WALL + 1.111,
    body=body(b'{"model":"m","messages":[{"role":"user","content":"H\xc3\xa9"}]}'),
    attempts=(
        AttemptMade(
            number=1,
            upstream="target",
            url="https://target/chat/completions?a=b",
            started=WALL,
            duration=0.25,
            status=529,
            code="overloaded",
            message="The upstream is overloaded.",
            headers=[(b"Server", b"nginx")],
            body=body(b"busy"),
            delay=0.5,
        ),
        AttemptMade(
            number=2,
            upstream="target",
            url="https://target/chat/completions?a=b",
            started=WALL + 0.75,
            duration=0.361,
            status=200,
        ),
    ),
    response=Response(200, b"OK", JSON),
    response_body=body(b'{"id":"c","choices":[]}'),
)

EXPECTED = """\
================================================================================
UNIFIED REQUEST LOG - 2027-01-15T08:00:00.123456
================================================================================
Request ID: ab-7
Endpoint: /chat/completions
Timestamp: 2027-01-15T08:00:00.123456
Start Time: 1800000000.123456
Method: POST
Target: /chat/completions?a=b
Provider: openai
Upstream: target

----------------------------------------
REQUEST HEADERS:
----------------------------------------
Content-Type: application/json
Authorization: Bearer [redacted]

----------------------------------------
REQUEST DATA:
----------------------------------------
{
  "model": "m",
  "messages": [
    {
      "role": "user",
      "content": "Hé"
    }
  ]
}

----------------------------------------
ATTEMPT 1 of 2:
----------------------------------------
Upstream: target
URL: https://target/chat/completions?a=b
Status: 529 Overloaded
Error: overloaded: The upstream is overloaded.
Started: 2027-01-15T08:00:00.123456
Duration: 0.250 seconds
Retry Delay: 0.50 seconds

Server: nginx

busy

----------------------------------------
ATTEMPT 2 of 2:
----------------------------------------
Upstream: target
URL: https://target/chat/completions?a=b
Status: 200 OK
Started: 2027-01-15T08:00:00.873456
Duration: 0.361 seconds

----------------------------------------
FINAL RESPONSE HEADERS:
----------------------------------------
Content-Type: application/json

----------------------------------------
FINAL RESPONSE DATA:
----------------------------------------
{
  "id": "c",
  "choices": []
}

----------------------------------------
OUTCOME:
----------------------------------------
Status: 200 OK
Bytes Sent: 99

----------------------------------------
TIMING INFORMATION:
----------------------------------------
End Time: 1800000001.234456
Total Duration: 1.111 seconds

================================================================================
LOG COMPLETE - 2027-01-15T08:00:01.234456
================================================================================
"""


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


class Bench:
    """Request files that are written when they are asked for."""

    def __init__(self, path: Path, **settings: object) -> None:
        self.path = path
        self.writer = Writer(lambda call: call(), Clock())
        chosen = Logging(enabled=True, folder=path, **settings)  # type: ignore[arg-type]
        self.files = RequestFiles(chosen, self.writer, Redactor())

    def text(self, event: Event) -> str:
        self.files(event)
        self.writer.flush()
        assert self.writer.state()["failed"] == 0
        (name,) = os.listdir(self.path)
        return (self.path / name).read_text()


def test_file_is_as_the_format_says(tmp_path: Path) -> None:
    assert Bench(tmp_path).text(RECORDED) == EXPECTED
    assert os.listdir(tmp_path) == ["20270115_080000_123_ab-7.log"]


def test_name_is_harmless_and_known_again(tmp_path: Path) -> None:
    for request_id in ("../x/y", "", "\n", "é", "a" * 300):
        bench = Bench(tmp_path / quote(request_id, safe="")[:20] / "logs")
        bench.text(replace(RECORDED, finished=replace(FINISHED, request_id=request_id)))
        (name,) = os.listdir(bench.path)
        assert NAMES.fullmatch(name)
        assert len(name) < 100


def test_other_events_are_none(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "logs")
    bench.files(FINISHED)
    bench.files(ErrorNoted(code="1", error_type="x", message="x", wall=WALL))
    bench.writer.flush()
    assert not bench.path.exists()


SWITCHES = [
    ("include_request_data", ["REQUEST DATA", "Hé"]),
    ("include_response_data", ["FINAL RESPONSE DATA", "busy", "choices"]),
    ("include_headers", ["REQUEST HEADERS", "FINAL RESPONSE HEADERS", "nginx", "Bearer"]),
    ("include_timing", ["TIMING INFORMATION", "Duration"]),
]


@pytest.mark.parametrize(("switch", "parts"), SWITCHES)
def test_switch_leaves_its_parts_out_and_no_other(tmp_path: Path, switch: str, parts: list[str]) -> None:
    text = Bench(tmp_path, **{switch: False}).text(RECORDED)
    for other, shown in SWITCHES:
        for part in shown:
            assert (part in text) == (other != switch)
    assert "LOG COMPLETE" in text


def test_request_without_an_answer_says_what_happened(tmp_path: Path) -> None:
    finished = replace(FINISHED, status=499, end=End.CLIENT_GONE, code="client_gone", detail="it left")
    text = Bench(tmp_path).text(
        replace(RECORDED, finished=finished, response=None, response_body=None, attempts=(), body=Body())
    )
    assert "FINAL RESPONSE" not in text
    assert (
        "Status: 499 Client Closed Request\nBytes Sent: 99\nEnd: client_gone\nError: client_gone: it left"
        in text
    )


def test_no_more_than_max_files_are_kept(tmp_path: Path) -> None:
    bench = Bench(tmp_path, max_files=2)
    for number in range(5):
        bench.files(replace(RECORDED, started=WALL + number))
    bench.writer.flush()
    assert len(os.listdir(tmp_path)) == 2


def test_stream_is_shown_as_the_answer_it_amounts_to(tmp_path: Path) -> None:
    pieces = [
        b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % part for part in (b"Hel", b"lo")
    ]
    data = gzip.compress(b"".join(pieces))
    event = replace(
        RECORDED,
        response=Response(200, b"OK", [(b"content-type", b"text/event-stream")]),
        response_body=body(data),
        form="chat",
        coding=b"gzip",
    )
    assert '"content": "Hello"' in Bench(tmp_path).text(event)


# Bodies.

BODIES = [
    (b"", b"application/json", ""),
    (b'{"a":1}', b"application/json; charset=utf-8", '{\n  "a": 1\n}'),
    (b'{"a":1}', b"", '{\n  "a": 1\n}'),
    (b'{"a":1', b"application/json", '{"a":1'),
    (b"[" * 3000, b"application/json", "[" * 3000),
    (b"plain", b"text/plain", "plain"),
    (b"a\r\nb\tc\x1b[2J\x07", b"text/plain", "a\nb\tc\\x1b[2J\\x07"),
    (b"\xff", b"text/plain", "\\xff"),
    (b"ID3\x00\x01", b"audio/mpeg", "<5 bytes of audio/mpeg>"),
    (b"\xff\xfe\xfd\xfc\xfb", b"", "<5 bytes>"),
    (b"\x00\x01", b"application/octet-stream", "<2 bytes of application/octet-stream>"),
    (b"--b\r\nhi\r\n--b--", b"multipart/form-data; boundary=b", "--b\nhi\n--b--"),
    (b"--b\r\n\x89PNG\r\n--b--", b"multipart/form-data", "<16 bytes of multipart/form-data>"),
]


@pytest.mark.parametrize(("data", "media", "shown"), BODIES)
def test_body(data: bytes, media: bytes, shown: str) -> None:
    assert body_text(body(data), [(b"content-type", media)], Redactor()) == shown


CODINGS = [
    (gzip.compress(b'{"a":1}', mtime=0), b"gzip", '{\n  "a": 1\n}'),
    (b"\x1b\x00", b"br", "<2 bytes of application/json coded br>"),
    (b"no gzip", b"gzip", "<7 bytes of application/json coded gzip>"),
]


@pytest.mark.parametrize(("data", "coding", "shown"), CODINGS)
def test_coded_body(data: bytes, coding: bytes, shown: str) -> None:
    headers = [*JSON, (b"Content-Encoding", coding)]
    assert body_text(body(data), headers, Redactor()) == shown


def test_body_that_was_cut_says_so_and_is_not_laid_out() -> None:
    assert body_text(Body(data=b'{"a":1}', cut=True, length=90), JSON, Redactor()) == (
        '{"a":1}\n[cut after 7 of 90 bytes]'
    )
    packed = gzip.compress(os.urandom(500).hex().encode())
    headers = [(b"content-type", b"text/plain"), (b"content-encoding", b"gzip")]
    assert body_text(Body(data=packed[:300], cut=True, length=len(packed)), headers, Redactor()).endswith(
        f"\n[cut after 300 of {len(packed)} bytes]"
    )
    assert body_text(Body(data="é".encode()[:1], cut=True, length=9), [], Redactor()).startswith("\n[cut")


def test_bomb_is_bounded() -> None:
    packed = gzip.compress(b"a" * 50_000_000)
    headers = [(b"content-type", b"text/plain"), (b"content-encoding", b"gzip")]
    text = body_text(body(packed), headers, Redactor())
    assert len(text) < 2_000_000
    assert "[cut after" in text


def test_secret_at_a_cut_is_not_begun() -> None:
    secret = "hunter22-and-a-long-tail"
    text = body_text(
        Body(data=b"x " + secret[:12].encode(), cut=True, length=99), [], Redactor([Secret(secret)])
    )
    assert text == "x [redacted]\n[cut after 14 of 99 bytes]"


def test_large_json_is_not_laid_out() -> None:
    data = b"[" + b'"aaaaaaaa",' * (PRETTY // 10) + b"1]"
    assert body_text(body(data), JSON, Redactor()) == data.decode()


@pytest.mark.parametrize(("status", "line"), [(200, "200 OK"), (529, "529 Overloaded"), (799, "799")])
def test_status_line(status: int, line: str) -> None:
    assert status_line(status) == line


# Canaries.

CONFIGURED = "canary-configured-0001"
PRESENTED = 'canary-presented/"ö+1'
QUERY = "canary-query/002"
COOKIE = "canary-cookie-000003"
CANARY = "canary"
LOOKS_LIKE = "sk-canary0123456789abc"


def everywhere(secret: str) -> str:
    """*secret* in every way in which it may come along."""
    return " ".join(
        [
            secret,
            quote(secret, safe=""),
            json.dumps({"key": secret}),
            json.dumps({"key": secret}, ensure_ascii=False),
            "Basic " + base64.b64encode(f"user:{secret}".encode()).decode(),
            f"https://user:{quote(secret)}@host/?key={quote(secret)}",
            f"Bearer {secret}",
        ]
    )


def planted_headers() -> RawHeaders:
    text = " ".join(everywhere(secret) for secret in (CONFIGURED, PRESENTED, QUERY, LOOKS_LIKE))
    return [
        (b"Authorization", b"Bearer " + PRESENTED.encode()),
        (b"x-api-key", CONFIGURED.encode()),
        (b"Cookie", b"s=" + COOKIE.encode()),
        (b"Set-Cookie", b"s=canary"),
        (b"X-Amz-Security-Token", b"canary-session-04"),
        (b"X-Echo", text.encode()),
        (b"Location", b"https://u:canary@h/?key=canary&X-Amz-Signature=canary"),
    ]


def planted_text() -> str:
    return "\n".join(everywhere(secret) for secret in (CONFIGURED, PRESENTED, QUERY, COOKIE, LOOKS_LIKE))


def planted_bodies() -> list[tuple[bytes, bytes, str | None]]:
    """Bodies, their codings and stream forms."""
    text = planted_text()
    value = json.dumps({"message": text, "nested": {"list": [text]}, "access_token": "canary-token"}).encode()
    stream = b"".join(
        b'data: {"choices":[{"delta":{"content":%b}}]}\n\n' % json.dumps(text[at : at + 7]).encode()
        for at in range(0, len(text), 7)
    )
    return [
        (value, b"", None),
        (text.encode(), b"", None),
        (gzip.compress(value), b"gzip", None),
        (stream, b"", "chat"),
        (gzip.compress(stream), b"gzip", "chat"),
    ]


def test_no_canary_gets_into_any_file(tmp_path: Path) -> None:
    target = f"/v1/{CONFIGURED}?key={quote(QUERY, safe='')}&alt=sse".encode()
    request = Request(b"POST", target, planted_headers())
    secrets = presented(request.headers, request.query)
    redactor = Redactor([Secret(CONFIGURED)])
    writer = Writer(lambda call: call(), Clock())
    requests = RequestFiles(Logging(folder=tmp_path / "logs"), writer, redactor)
    errors = ErrorLog(ErrorLogging(folder=tmp_path / "errors"), writer, redactor, lambda: WALL)
    url = f"https://u:{CONFIGURED}@h/v1?key={quote(QUERY, safe='')}"
    text = planted_text()
    for data, coding, form in planted_bodies():
        media = b"text/event-stream" if form is not None else b"application/json"
        headers = [*planted_headers(), (b"content-encoding", coding), (b"content-type", media)]
        for kept in (body(data), Body(data=data[: len(data) * 2 // 3], cut=True, length=len(data))):
            if kept.cut and form is not None:
                continue  # what is cut within an event is shown as it came
            attempt = replace(RECORDED.attempts[0], url=url, message=text, headers=headers, body=kept)
            requests(
                Recorded(
                    finished=replace(FINISHED, path=f"/{CONFIGURED}", code="x", detail=text),
                    request=request,
                    started=WALL,
                    ended=WALL,
                    body=kept if form is None and not coding else body(text.encode()),
                    attempts=(attempt,),
                    response=Response(200, b"OK", headers),
                    response_body=kept,
                    form=form,
                    coding=coding,
                    secrets=secrets,
                )
            )
            errors(
                ErrorNoted(
                    code="503",
                    error_type="HTTPResponse",
                    message=text,
                    wall=WALL,
                    status=503,
                    url=url,
                    headers=headers,
                    body=kept,
                    context={"message": text, "url": url, "more": {"list": [text]}},
                    request_headers=headers,
                    breaker={"cause": text},
                    trace=text,
                    secrets=secrets,
                )
            )
    writer.flush()
    assert writer.state() == {"queued": 0, "written": 16, "dropped": 0, "failed": 0}
    known = (CONFIGURED, PRESENTED, QUERY, COOKIE, LOOKS_LIKE)
    coded = [base64.b64encode(f"user:{secret}".encode())[8:-4].decode() for secret in known]
    for path in tmp_path.rglob("*.log"):
        found = path.read_text()
        assert len(found) > 1000
        for hidden in (CANARY, *coded):
            assert hidden not in found, path.name


def test_arguments_that_are_secrets_are_taken_out(tmp_path: Path) -> None:
    attempt = replace(RECORDED.attempts[0], url="https://h/cb?code=abc1")
    request = Request(b"GET", b"/cb?code=abc1", ())
    text = Bench(tmp_path).text(replace(RECORDED, request=request, attempts=(attempt,)))
    assert "abc1" not in text
    assert text.count("/cb?code=[redacted]") == 2
