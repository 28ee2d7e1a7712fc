"""The request log: what a line holds, when it is written, and what never stands in it."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from twisted.internet.task import Clock

from llmproxyd.http.body import NO_BODY
from llmproxyd.model import (
    Arrived,
    Body,
    BreakerChanged,
    CredentialRested,
    End,
    ErrorNoted,
    Event,
    FaultsChanged,
    Finished,
    Recorded,
    Request,
    Retrying,
)
from llmproxyd.observe.logs import json_time, text_time
from llmproxyd.observe.output import Output
from llmproxyd.observe.requestlog import BATCH, FLUSH, RequestLog, json_event, text_event
from llmproxyd.pipeline.exchange import Exchange
from llmproxyd.pipeline.plan import Plan
from llmproxyd.providers.registry import registry

WALL = 1_800_000_000.123
ARRIVED = Arrived(7, "ab-7", "POST", "/v1/chat/completions", "openai", "openai")
FINISHED = Finished(
    number=7,
    request_id="ab-7",
    method="POST",
    path="/v1/chat/completions",
    provider="openai",
    upstream="openai",
    status=200,
    duration=0.1234,
    sent=512,
    end=End.COMPLETE,
    wall=WALL,
)
INJECTED = replace(FINISHED, status=429, fault="rate_limit")
FAILED = replace(FINISHED, status=502, code="upstream_unreachable", detail="connection refused")
GONE = replace(FINISHED, status=499, end=End.CLIENT_GONE, code="client_gone")
COMMANDED = FaultsChanged("Rate limit exceeded (every request)", "by command", commanded=True)
RAN_OUT = FaultsChanged("No error (pass through)", "its count is used up", commanded=False)
RETRYING = Retrying(
    number=7,
    request_id="ab-7",
    upstream="openai",
    failed="overloaded (529)",
    delay=4.0,
    retry=2,
    of=10,
    to="openai",
)
ELSEWHERE = replace(RETRYING, to="anthropic-eu", delay=0.0)
OPENED = BreakerChanged(
    name="openai", before="closed", after="open", cause="5 failures in a row", seconds=60.0
)
CLOSED = BreakerChanged(name="openai", before="half-open", after="closed", cause="a probe succeeded")
RESTED = CredentialRested(upstream="openai", which=2, status=429, seconds=30.0, left=1)
NOTED = ErrorNoted(code="503", error_type="HTTPResponse", message="HTTP 503", wall=WALL)
RECORDED = Recorded(
    finished=FINISHED, request=Request(b"POST", b"/", ()), started=WALL, ended=WALL, body=Body()
)


class Counting(io.StringIO):
    """Knows how often it was written to."""

    writes = 0

    def write(self, text: str) -> int:
        self.writes += 1
        return super().write(text)


class Log:
    """A request log with its clock and what it wrote."""

    def __init__(self, *, terminal: bool = False, as_json: bool = False, least: str = "info") -> None:
        self.stream = Counting()
        self.clock = Clock()
        self.wall = WALL
        self.log = RequestLog(
            Output(self.stream, terminal=terminal),
            self.clock,
            lambda: self.wall,
            as_json=as_json,
            least=least,
        )

    def tell(self, *events: Event) -> list[str]:
        for event in events:
            self.log(event)
        self.clock.advance(FLUSH)
        return self.lines

    @property
    def lines(self) -> list[str]:
        return self.stream.getvalue().splitlines()


# Lines.

TEXTS: list[tuple[Event, str]] = [
    (ARRIVED, "#7 POST /v1/chat/completions -> openai"),
    (replace(ARRIVED, upstream="my-vllm"), "#7 POST /v1/chat/completions -> openai at my-vllm"),
    (FINISHED, "#7 POST /v1/chat/completions -> openai: 200 in 123 ms, 512 bytes [ab-7]"),
    (
        INJECTED,
        "#7 POST /v1/chat/completions -> openai: 429 in 123 ms, 512 bytes (injected rate_limit) [ab-7]",
    ),
    (
        FAILED,
        "#7 POST /v1/chat/completions -> openai: 502 in 123 ms, 512 bytes "
        "upstream_unreachable: connection refused [ab-7]",
    ),
    (GONE, "#7 POST /v1/chat/completions -> openai: 499 in 123 ms, 512 bytes client_gone [ab-7]"),
    (
        replace(FINISHED, end=End.TRUNCATED, code="upstream_protocol_error"),
        "#7 POST /v1/chat/completions -> openai: 200 in 123 ms, 512 bytes (cut: truncated) "
        "upstream_protocol_error [ab-7]",
    ),
    (RAN_OUT, "Mode: No error (pass through) (its count is used up)"),
    (RETRYING, "openai overloaded (529), trying again in 4.0 s (2 of 10) [ab-7]"),
    (ELSEWHERE, "openai overloaded (529), trying anthropic-eu instead [ab-7]"),
    (replace(RETRYING, retry=0), "openai overloaded (529), trying another key [ab-7]"),
    (OPENED, "Breaker openai: closed -> open, 5 failures in a row; next probe in 60 s"),
    (CLOSED, "Breaker openai: half-open -> closed, a probe succeeded"),
    (RESTED, "openai: key 2 rests for 30 s after a 429; 1 left"),
    (replace(RESTED, seconds=1.26), "openai: key 2 rests for 1.3 s after a 429; 1 left"),
]


@pytest.mark.parametrize(("event", "line"), TEXTS)
def test_text_of_an_event(event: Event, line: str) -> None:
    assert text_event(event, symbols=False) == line


SIGNS: list[tuple[Event, str]] = [
    (ARRIVED, "📨"),
    (FINISHED, "✅"),
    (INJECTED, "💥"),
    (FAILED, "⚠️"),
    (replace(FINISHED, status=404), "⚠️"),
    (GONE, "👋"),
    (RAN_OUT, "🔧"),
    (RETRYING, "🔁"),
    (OPENED, "⚠️"),
    (CLOSED, "✅"),
    (RESTED, "🔑"),
]


@pytest.mark.parametrize(("event", "sign"), SIGNS)
def test_symbol_tells_how_it_went(event: Event, sign: str) -> None:
    assert text_event(event, symbols=True) == f"{sign} {text_event(event, symbols=False)}"


@pytest.mark.parametrize(
    "event", [ARRIVED, FINISHED, INJECTED, FAILED, GONE, COMMANDED, RAN_OUT, RETRYING, OPENED, RESTED]
)
def test_json_event_is_one_valid_line(event: Event) -> None:
    line = json_event(event, WALL)
    assert line.endswith("\n")
    assert line.count("\n") == 1
    members = json.loads(line)
    assert members["ts"] == json_time(WALL) == "2027-01-15T08:00:00.123Z"


def test_json_of_a_request_holds_every_fact() -> None:
    assert json.loads(json_event(FAILED, WALL)) == {
        "ts": "2027-01-15T08:00:00.123Z",
        "level": "warn",
        "event": "request",
        "number": 7,
        "request_id": "ab-7",
        "method": "POST",
        "path": "/v1/chat/completions",
        "provider": "openai",
        "upstream": "openai",
        "status": 502,
        "ms": 123.4,
        "bytes": 512,
        "injected": None,
        "end": "complete",
        "code": "upstream_unreachable",
        "detail": "connection refused",
    }
    assert json.loads(json_event(INJECTED, WALL))["injected"] == "rate_limit"
    assert json.loads(json_event(INJECTED, WALL))["level"] == "info"


JSONS: list[tuple[Event, dict[str, object]]] = [
    (
        RETRYING,
        {
            "event": "retry",
            "number": 7,
            "request_id": "ab-7",
            "upstream": "openai",
            "failed": "overloaded (529)",
            "delay": 4.0,
            "retry": 2,
            "of": 10,
            "to": "openai",
            "upstream_id": None,
        },
    ),
    (
        OPENED,
        {
            "event": "breaker",
            "name": "openai",
            "before": "closed",
            "after": "open",
            "cause": "5 failures in a row",
            "seconds": 60.0,
        },
    ),
    (
        RESTED,
        {"event": "credential_rested", "upstream": "openai", "which": 2, "status": 429, "seconds": 30.0}
        | {"left": 1},
    ),
]


@pytest.mark.parametrize(("event", "members"), JSONS)
def test_json_of_what_was_absorbed_is_a_warning(event: Event, members: dict[str, object]) -> None:
    found = json.loads(json_event(event, WALL))
    assert found == {"ts": "2027-01-15T08:00:00.123Z", "level": "warn", **members}


@pytest.mark.parametrize("path", ['/a"b\\c', "/é\x85", "/x\x1b[2J", "/a b"])
def test_json_is_valid_whatever_the_path(path: str) -> None:
    line = json_event(replace(FINISHED, path=path), WALL)
    assert line.count("\n") == 1
    assert json.loads(line)["path"] == path


def test_text_line_begins_with_the_time_of_the_event() -> None:
    log = Log()
    log.log(FINISHED)
    log.wall += 3600
    log.clock.advance(FLUSH)
    assert log.lines == [f"{text_time(WALL)} {text_event(FINISHED, symbols=False)}"]


# When.


def test_lines_wait_for_others_and_are_written_in_one_piece_and_in_order() -> None:
    log = Log()
    for number in range(20):
        log.log(replace(FINISHED, number=number))
    assert log.stream.writes == 0
    log.clock.advance(FLUSH)
    assert log.stream.writes == 1
    assert [line.split()[2] for line in log.lines] == [f"#{number}" for number in range(20)]
    assert log.clock.getDelayedCalls() == []


def test_full_batch_is_written_at_once() -> None:
    log = Log()
    for _ in range(BATCH - 1):
        log.log(FINISHED)
    assert log.stream.writes == 0
    log.log(FINISHED)
    assert log.stream.writes == 1
    assert len(log.lines) == BATCH
    assert log.clock.getDelayedCalls() == []


def test_line_after_a_batch_is_not_forgotten() -> None:
    log = Log()
    log.tell(*[FINISHED] * (BATCH + 1))
    assert len(log.lines) == BATCH + 1
    log.tell(FINISHED)
    assert len(log.lines) == BATCH + 2


def test_flush_writes_what_waits_and_stops_the_timer() -> None:
    log = Log()
    log.log(FINISHED)
    log.log.flush()
    assert len(log.lines) == 1
    assert log.clock.getDelayedCalls() == []
    log.log.flush()
    assert log.stream.writes == 1


# Which.

ABSORBED = [RETRYING, OPENED, RESTED]
WANTED = [
    ("info", False, False, [FINISHED, INJECTED, FAILED, RAN_OUT, COMMANDED, *ABSORBED]),
    ("debug", False, False, [FINISHED, INJECTED, FAILED, RAN_OUT, COMMANDED, *ABSORBED]),
    ("info", True, False, [ARRIVED, FINISHED, INJECTED, FAILED, RAN_OUT, *ABSORBED]),
    ("info", True, True, [FINISHED, INJECTED, FAILED, RAN_OUT, COMMANDED, *ABSORBED]),
    ("info", False, True, [FINISHED, INJECTED, FAILED, RAN_OUT, COMMANDED, *ABSORBED]),
    ("warn", False, False, [FAILED, *ABSORBED]),
    ("warn", True, False, [FAILED, *ABSORBED]),
    ("error", True, False, []),
]


@pytest.mark.parametrize(("least", "terminal", "as_json", "wanted"), WANTED)
def test_what_is_written_at_each_level(
    least: str, terminal: bool, as_json: bool, wanted: list[Event]
) -> None:
    for event in (ARRIVED, FINISHED, INJECTED, FAILED, RAN_OUT, COMMANDED, *ABSORBED, NOTED, RECORDED):
        log = Log(terminal=terminal, as_json=as_json, least=least)
        assert len(log.tell(event)) == (1 if event in wanted else 0), event


def test_arrival_is_announced_on_a_terminal_alone() -> None:
    assert len(Log(terminal=True).tell(ARRIVED, FINISHED)) == 2
    assert len(Log().tell(ARRIVED, FINISHED)) == 1


def test_nothing_wanted_starts_no_timer() -> None:
    log = Log(least="error")
    log.log(FINISHED)
    assert log.clock.getDelayedCalls() == []


def test_lines_of_json_are_all_valid() -> None:
    log = Log(as_json=True)
    for line in log.tell(FINISHED, INJECTED, FAILED, GONE, COMMANDED, RAN_OUT):
        assert isinstance(json.loads(line), dict)
    assert len(log.lines) == 6


# What never stands in it.


class Silent:
    """A client that is sent nothing."""

    def finish(self) -> None:
        """The answer is over."""


@pytest.mark.parametrize("as_json", [False, True])
def test_no_query_no_header_and_no_key_is_written(as_json: bool) -> None:
    """Gemini's key stands in the query."""
    log = Log(as_json=as_json, terminal=True)
    request = Request(
        b"POST",
        b"/v1beta/models/m:generateContent?key=AIza-secret&alt=sse",
        [(b"Authorization", b"Bearer sk-secret"), (b"Cookie", b"a=secret")],
        peer="203.0.113.9:5",
    )
    exchange = Exchange(1, "ab-1", request, NO_BODY, Silent(), None, 0.0, lambda _, event: log.log(event))  # type: ignore[arg-type]
    plan = exchange.plan = Plan(request, registry()["google"])
    log.log(replace(ARRIVED, path=plan.path))
    exchange.finish(1.0)
    log.clock.advance(FLUSH)
    text = log.stream.getvalue()
    assert "/v1beta/models/m:generateContent" in text
    for hidden in ("secret", "alt=sse", "?", "Bearer", "203.0.113.9"):
        assert hidden not in text


def test_fault_whose_place_was_never_reached_is_told_so() -> None:
    event = replace(FINISHED, fault="cut", unreached=True)
    assert "(injected cut, never reached)" in text_event(event, symbols=False)
    assert json.loads(json_event(event, WALL))["unreached"] is True
    assert "unreached" not in json.loads(json_event(replace(FINISHED, fault="cut"), WALL))


@pytest.mark.parametrize(
    ("namespace", "heeded"),
    [("llmproxyd", True), ("llmproxyd.requests", True), ("llmproxyd.requests.x", False), ("llm", False)],
)
def test_level_can_be_set_later_by_the_namespace_of_the_lines(namespace: str, heeded: bool) -> None:
    stream = io.StringIO()
    log = RequestLog(Output(stream), Clock(), lambda: WALL, as_json=False)
    log.set_level(namespace, "warn")
    log(FINISHED)
    log(FAILED)
    log.flush()
    assert stream.getvalue().count("\n") == (1 if heeded else 2)


# Several at a time.


def test_lines_of_a_batch_are_those_that_each_request_has_by_itself() -> None:
    elsewhere = replace(FINISHED, path="/v1/models", method="GET", upstream="my-vllm")
    events = [FINISHED, FINISHED, FAILED, FINISHED, elsewhere, elsewhere, INJECTED, GONE]
    events += [replace(elsewhere, provider="-", upstream="-"), replace(FINISHED, status=404), FINISHED]
    events += [replace(FINISHED, duration=n / 4000, number=n, request_id=f"ab-{n}") for n in range(10)]
    for terminal in (False, True):
        log = Log(terminal=terminal)
        log.log.finished(iter(events))
        log.clock.advance(FLUSH)
        symbols = log.log._output.symbols
        assert log.lines == [f"{text_time(WALL)} {text_event(one, symbols=symbols)}" for one in events]


def test_a_batch_at_the_level_of_failures_has_their_lines_alone() -> None:
    log = Log(least="warn")
    log.log.finished(iter([FINISHED, FAILED, FINISHED]))
    log.clock.advance(FLUSH)
    assert len(log.lines) == 1
