"""The error log: one file for each failure, in a format that is known, and what is told of them."""

from __future__ import annotations

import gzip
import json
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from twisted.internet.task import Clock

from llmproxyd.config.schema import ErrorLogging
from llmproxyd.model import Arrived, Body, BreakerChanged, ErrorNoted, Event
from llmproxyd.observe.errorlog import LISTED, NAMES, ErrorLog
from llmproxyd.observe.writer import Writer
from llmproxyd.redaction import Redactor, Secret

WALL = 1_800_000_000.123456
NOTED = ErrorNoted(
    code="503",
    error_type="HTTPResponse",
    message="HTTP 503",
    wall=WALL,
    request_id="ab-7",
    status=503,
    url="https://target-proxy.com/chat/completions",
    headers=[(b"Content-Type", b"text/plain"), (b"Server", b"nginx/1.18.0")],
    body=Body(data=b"The model is overloaded. Please try again later.", length=48),
    context={"upstream": "target"},
    request_headers=[(b"User-Agent", b"SillyTavern/1.0")],
    attempt=2,
    delay=4.0,
    final=False,
    elapsed=1.5,
)
OPENED = BreakerChanged(
    name="openai", before="closed", after="open", cause="5 failures in a row", seconds=60.0
)

EXPECTED = """\
================================================================================
ERROR LOG - 2027-01-15T08:00:00.123456
================================================================================
Error Code: 503
File: 503_20270115_080000_123.log

----------------------------------------
RETRY ATTEMPT #2
Retry Delay: 4.00 seconds
----------------------------------------

ERROR DETAILS:
----------------------------------------
{
  "timestamp": "2027-01-15T08:00:00.123456",
  "error_type": "HTTPResponse",
  "error_message": "HTTP 503",
  "status_code": 503,
  "status_text": "Service Unavailable",
  "url": "https://target-proxy.com/chat/completions",
  "headers": {
    "Content-Type": "text/plain",
    "Server": "nginx/1.18.0"
  },
  "response_text": "The model is overloaded. Please try again later.",
  "context": {
    "request_type": "forward_request",
    "target_url": "https://target-proxy.com/chat/completions",
    "upstream": "target",
    "timestamp": 1800000000.123456,
    "request_headers": {
      "User-Agent": "SillyTavern/1.0"
    }
  },
  "retry_attempt": 2,
  "retry_delay": 4.0,
  "final": false,
  "request_id": "ab-7",
  "timing": {
    "elapsed": 1.5
  }
}
"""


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


class Bench:
    """An error log whose records are written when they are asked for."""

    def __init__(self, path: Path, *secrets: str, **settings: object) -> None:
        self.path = path
        self.writer = Writer(lambda call: call(), Clock())
        self.settings = ErrorLogging(enabled=True, folder=path, **settings)  # type: ignore[arg-type]
        self.log = ErrorLog(self.settings, self.writer, Redactor(map(Secret, secrets)), lambda: WALL)

    def write(self, *events: Event) -> list[str]:
        for event in events:
            self.log(event)
        self.writer.flush()
        return sorted(os.listdir(self.path)) if self.path.exists() else []

    def text(self, event: Event) -> str:
        (name,) = self.write(event)
        return (self.path / name).read_text()

    def details(self, event: Event) -> dict:
        text = self.text(event)
        return json.JSONDecoder().raw_decode(text[text.index("\n{\n") + 1 :])[0]


def test_file_is_as_the_format_says(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    assert bench.write(NOTED) == ["503_20270115_080000_123.log"]
    assert (tmp_path / "503_20270115_080000_123.log").read_text() == EXPECTED


def test_name_in_the_file_is_its_own_where_two_would_have_one(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    assert bench.write(NOTED, NOTED) == ["503_20270115_080000_123.log", "503_20270115_080000_123_1.log"]
    assert "File: 503_20270115_080000_123_1.log\n" in (tmp_path / "503_20270115_080000_123_1.log").read_text()


@pytest.mark.parametrize(
    ("attempt", "delay", "section"),
    [
        (1, 1.0, "RETRY ATTEMPT #1\nRetry Delay: 1.00 seconds\n"),
        (3, None, "RETRY ATTEMPT #3\nRetry Delay: none, it was the last\n"),
        (1, None, None),
        (None, None, None),
    ],
)
def test_retry_section_stands_where_there_were_retries(
    tmp_path: Path, attempt: int | None, delay: float | None, section: str | None
) -> None:
    text = Bench(tmp_path).text(replace(NOTED, attempt=attempt, delay=delay))
    assert ("RETRY ATTEMPT" in text) == (section is not None)
    assert section is None or section in text


def test_code_is_no_path(tmp_path: Path) -> None:
    (name,) = Bench(tmp_path / "logs").write(replace(NOTED, code="../../x y\n"))
    assert name == "x_y_20270115_080000_123.log"
    assert NAMES.fullmatch(name)


@pytest.mark.parametrize("code", ["503", "circuit_open", "", "ä", "20250101_000000_000", "a_1", "-", ".."])
def test_name_of_every_file_is_known_again(tmp_path: Path, code: str) -> None:
    for name in Bench(tmp_path).write(replace(NOTED, code=code), replace(NOTED, code=code)):
        assert NAMES.fullmatch(name)
    assert Bench(tmp_path).log.summary()["total_files"] == 2


def test_opened_breaker_is_a_record(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    details = bench.details(OPENED)
    assert os.listdir(tmp_path) == ["circuit_open_20270115_080000_123.log"]
    assert details["error_type"] == "CircuitBreaker"
    assert details["error_message"] == "The circuit breaker of openai is open: 5 failures in a row"
    assert details["circuit_breaker"]["seconds"] == 60.0
    assert details["context"]["request_type"] == "circuit_breaker"


def test_half_open_and_closed_breakers_are_records_too(tmp_path: Path) -> None:
    found = Bench(tmp_path).write(replace(OPENED, after="half-open"), replace(OPENED, after="closed"))
    assert [name.partition("_2")[0] for name in found] == ["circuit_closed", "circuit_half_open"]


def test_other_events_are_none(tmp_path: Path) -> None:
    assert Bench(tmp_path).write(Arrived(1, "a", "GET", "/", "openai", "openai")) == []


def test_switches_leave_their_parts_out(tmp_path: Path) -> None:
    noted = replace(NOTED, trace="Traceback\n  boom\n", breaker={"state": "closed", "failures": 2})
    text = Bench(tmp_path / "on").text(noted)
    assert "\nSTACK TRACE:\n" + "-" * 40 + "\nTraceback\n  boom\n" in text
    assert '"failures": 2' in text
    off = Bench(
        tmp_path / "off", include_stack_traces=False, include_request_context=False, include_timing=False
    )
    text = off.text(noted)
    for part in ("STACK TRACE", '"context"', '"timing"', "SillyTavern"):
        assert part not in text


def test_coded_answer_is_shown_in_the_clear(tmp_path: Path) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-encoding", b"gzip")]
    body = Body(data=gzip.compress(b'{"error": "busy"}'), length=40)
    assert Bench(tmp_path).details(replace(NOTED, headers=headers, body=body))["response_text"] == (
        '{"error": "busy"}'
    )


def test_answer_that_was_cut_says_so(tmp_path: Path) -> None:
    details = Bench(tmp_path).details(replace(NOTED, body=Body(data=b"abc", cut=True, length=999)))
    assert details["response_text"] == "abc\n[cut after 3 of 999 bytes]"


def test_tokens_in_an_answer_that_is_json_are_taken_out(tmp_path: Path) -> None:
    body = Body(data=b'{"access_token": "abc", "x": "y"}', length=33)
    details = Bench(tmp_path).details(replace(NOTED, body=body))
    assert details["response_text"] == '{"access_token": "[redacted]", "x": "y"}'


def test_fields_of_one_name_are_told_together(tmp_path: Path) -> None:
    details = Bench(tmp_path).details(replace(NOTED, headers=[(b"Via", b"a"), (b"Via", b"b")]))
    assert details["headers"] == {"Via": "a, b"}


def test_status_without_a_registered_name(tmp_path: Path) -> None:
    assert Bench(tmp_path).details(replace(NOTED, status=529))["status_text"] == "Overloaded"


def test_file_is_bounded_and_says_so(tmp_path: Path) -> None:
    text = Bench(tmp_path, max_file_size_mb=1).text(replace(NOTED, trace="x" * 3_000_000))
    assert len(text) <= 1_000_000
    assert text.rstrip().endswith("a file at most 1000000]")


def test_no_more_than_max_files_are_kept(tmp_path: Path) -> None:
    bench = Bench(tmp_path, max_files=3)
    bench.write(*(replace(NOTED, wall=WALL + number) for number in range(10)))
    assert len(os.listdir(tmp_path)) == 3


@pytest.mark.parametrize("value", [object(), {1: [b"\xff", None]}, float("nan"), Secret("hunter22")])
def test_context_may_hold_anything(tmp_path: Path, value: object) -> None:
    assert "hunter22" not in Bench(tmp_path).text(replace(NOTED, context={"x": value}))


# The summary.


def test_summary_tells_what_is_there(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.write(NOTED, replace(NOTED, wall=WALL + 1), OPENED)
    (tmp_path / "notes.txt").write_text("")
    for name, ago in (("503_20270115_080000_123.log", 90 * 60), ("503_20270115_080001_123.log", 30 * 3600)):
        os.utime(tmp_path / name, (WALL - ago, WALL - ago))
    os.utime(tmp_path / "circuit_open_20270115_080000_123.log", (WALL, WALL))
    found = bench.log.summary()
    assert found["enabled"] is True
    assert found["total_files"] == 3
    assert found["total_size"] == sum(path.stat().st_size for path in tmp_path.glob("*.log"))
    assert found["by_code"] == {"503": 2, "circuit_open": 1}
    files = found["files"]
    assert isinstance(files, list)
    assert [file["code"] for file in files] == ["circuit_open", "503", "503"]
    assert found["newest"] == files[0]["modified"] == "2027-01-15T08:00:00.123+00:00"
    assert found["oldest"] == files[2]["modified"]
    hours = found["last_24_hours"]
    assert isinstance(hours, dict)
    assert hours["total"] == 2
    assert hours["by_hour"] == [0] * 22 + [1, 1]
    assert (found["queued"], found["dropped"], found["failed"]) == (0, 0, 0)
    json.dumps(found)


def test_summary_of_nothing(tmp_path: Path) -> None:
    found = Bench(tmp_path / "none").log.summary()
    assert (found["total_files"], found["files"], found["oldest"], found["newest"]) == (0, [], None, None)


def test_summary_lists_the_newest_only(tmp_path: Path) -> None:
    for number in range(LISTED + 5):
        path = tmp_path / f"500_20270115_080000_{number:03d}.log"
        path.write_text("")
        os.utime(path, (WALL + number, WALL + number))
    found = Bench(tmp_path).log.summary()
    files = found["files"]
    assert isinstance(files, list)
    assert len(files) == LISTED
    assert files[0]["name"] == f"500_20270115_080000_{LISTED + 4:03d}.log"
    assert found["total_files"] == LISTED + 5


def test_arguments_of_a_url_that_are_secrets_are_taken_out(tmp_path: Path) -> None:
    text = Bench(tmp_path).text(
        replace(NOTED, url="https://h/cb?code=abc1", context={"u": "https://h/?code=abc1"})
    )
    assert "abc1" not in text
    assert text.count("https://h/cb?code=[redacted]") == 2
