"""One finished request as one JSON object: names, numbers, and what never stands in it."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxyd.config.gateway import Price
from llmproxyd.inspection.prices import Prices
from llmproxyd.model import Body, Captured, End, Finished, Reading
from llmproxyd.observe.eventjson import TEXT, EventFormat, Told
from llmproxyd.redaction import REDACTED, Redactor, Secret

KEY = "hunter2-the-providers-key"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
NAMES = [
    "id",
    "event",
    "ts",
    "request_id",
    "project",
    "token",
    "client",
    "traceparent",
    "test",
    "method",
    "path",
    "upstream",
    "provider",
    "operation",
    "kind",
    "model",
    "response_model",
    "status",
    "end",
    "stream",
    "attempts",
    "cache",
    "fault",
    "injected",
    "unreached",
    "code",
    "detail",
    "upstream_failed",
    "first_byte_ms",
    "first_token_ms",
    "duration_ms",
    "request_bytes",
    "response_bytes",
    "usage",
    "cost",
    "finish_reason",
    "upstream_request_id",
]


def finished(**more: Any) -> Finished:
    told: dict[str, Any] = {
        "number": 7,
        "request_id": "1f0c9a7e-7",
        "method": "POST",
        "path": "/v1/chat/completions",
        "provider": "openai",
        "upstream": "openai",
        "status": 200,
        "duration": 1.23456,
        "sent": 263,
        "end": End.COMPLETE,
    }
    return Finished(**told | more)


def form(prices: dict[str, Price] | None = None) -> EventFormat:
    return EventFormat(Redactor([Secret(KEY)]), Prices(prices or {}))


def told(event: Finished, prices: dict[str, Price] | None = None) -> dict[str, Any]:
    line = form(prices).line(Told("ab12-1", 1_700_000_000.25, event))
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    members: dict[str, Any] = json.loads(line)
    return members


def test_all_members_stand_in_every_event_in_the_documented_order() -> None:
    assert list(told(finished())) == NAMES


def test_whole_event_of_a_stream() -> None:
    event = finished(
        operation="chat",
        kind="inference",
        model="gpt-4o",
        attempts=2,
        began=0.2,
        first=0.31,
        received=120,
        streamed=True,
        project="proj_abc",
        token="tok_abc",
        cache="miss",
        reading=Reading(
            model="gpt-4o-2024-08-06",
            tokens={"input": 1000, "output": 50, "cached": 600, "reasoning": 10, "total": 1050},
            finish="stop",
        ),
        peer="192.0.2.7:4711",
        traceparent=TRACE,
        test="login",
    )
    assert told(event, {"gpt-4o*": Price(input=2.5, output=10.0, cached=1.25)}) == {
        "id": "ab12-1",
        "event": "request",
        "ts": "2023-11-14T22:13:20.250Z",
        "request_id": "1f0c9a7e-7",
        "project": "proj_abc",
        "token": "tok_abc",
        "client": "192.0.2.7:4711",
        "traceparent": TRACE,
        "test": "login",
        "method": "POST",
        "path": "/v1/chat/completions",
        "upstream": "openai",
        "provider": "openai",
        "operation": "chat",
        "kind": "inference",
        "model": "gpt-4o",
        "response_model": "gpt-4o-2024-08-06",
        "status": 200,
        "end": "complete",
        "stream": True,
        "attempts": 2,
        "cache": "miss",
        "fault": None,
        "injected": None,
        "unreached": False,
        "code": None,
        "detail": None,
        "upstream_failed": False,
        "first_byte_ms": 200.0,
        "first_token_ms": 310.0,
        "duration_ms": 1234.6,
        "request_bytes": 120,
        "response_bytes": 263,
        "usage": {
            "input_tokens": 1000,
            "output_tokens": 50,
            "cached_tokens": 600,
            "reasoning_tokens": 10,
            "total_tokens": 1050,
        },
        "cost": 0.00225,
        "finish_reason": "stop",
        "upstream_request_id": None,
    }


def test_every_field_of_finished_stands_in_the_event() -> None:
    other = {"number": "request_id tells it apart", "failed": "upstream_failed", "began": "first_byte_ms"}
    other |= {"first": "first_token_ms", "duration": "duration_ms", "received": "request_bytes"}
    other |= {"sent": "response_bytes", "streamed": "stream", "reading": "usage", "peer": "client"}
    other |= {"captured": "request_body", "upstream_id": "upstream_request_id", "wall": "ts"}
    assert set(Finished.__dataclass_fields__) <= set(NAMES) | set(other)


def test_every_member_stands_in_the_documentation() -> None:
    text = (Path(__file__).parents[2] / "docs" / "events.rst").read_text()
    members = re.findall(r"^``([a-z_]+)``  ", text.partition("Bodies\n")[0], re.MULTILINE)
    assert members == [*NAMES, "request_body", "response_body"]
    example = text[text.index('{"id": ') : text.index("All members stand")]
    assert list(json.loads(example)) == NAMES


@pytest.mark.parametrize(
    ("end", "word"),
    [
        (End.COMPLETE, "complete"),
        (End.TRUNCATED, "truncated"),
        (End.IDLE, "idle"),
        (End.CLIENT_GONE, "client_abort"),
        (End.IN_BAND_ERROR, "in_band_error"),
    ],
)
def test_each_end_has_its_word(end: End, word: str) -> None:
    assert told(finished(end=end))["end"] == word


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (TRACE, TRACE),
        (f" {TRACE}", TRACE),
        (f"{TRACE}-of-a-later-version", TRACE),
        ("sk-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", None),
        ("", None),
        (None, None),
    ],
)
def test_only_a_traceparent_is_shown_as_one(given: str | None, shown: str | None) -> None:
    assert told(finished(traceparent=given))["traceparent"] == shown


# Prices.


@pytest.mark.parametrize(
    ("answered", "asked", "cost"),
    [
        ("gpt-4o-mini-2024", "gpt-4o-mini", 1.0),  # the first that matches counts
        ("gpt-4o-2024", None, 2.0),
        (None, "gpt-4o", 2.0),
        ("custom", "gpt-4o", 2.0),  # the table does not know what answered
        ("custom", "other", None),
        (None, None, None),
        ("GPT-4o", None, None),
    ],
)
def test_first_matching_price_counts(answered: str | None, asked: str | None, cost: float | None) -> None:
    table = {"gpt-4o-mini*": Price(input=1.0), "gpt-4o*": Price(input=2.0)}
    event = finished(model=asked, reading=Reading(model=answered, tokens={"input": 1_000_000}))
    assert told(event, table)["cost"] == cost


@pytest.mark.parametrize(
    ("tokens", "cost"),
    [
        ({"input": 100, "output": 10}, 0.00014),
        ({"input": 100, "output": 10, "cached": 40}, 0.000104),
        ({"input": 100, "cached": 4000}, 0.00001),  # not more than there were
        ({"output": 10}, 0.00004),
        ({"total": 10}, None),
        ({}, None),
        ({"input": 10**400}, None),
        ({"input": -5}, None),
    ],
)
def test_cost_of_tokens(tokens: dict[str, int], cost: float | None) -> None:
    event = finished(model="m", reading=Reading(tokens=tokens))
    assert told(event, {"m": Price(input=1.0, output=4.0, cached=0.1)})["cost"] == cost


def test_cached_tokens_cost_what_others_do_unless_they_have_a_price() -> None:
    event = finished(model="m", reading=Reading(tokens={"input": 1_000_000, "cached": 500_000}))
    assert told(event, {"m": Price(input=3.0)})["cost"] == 3.0
    assert told(event, {"m": Price(input=3.0, cached=0.0)})["cost"] == 1.5


def test_counts_that_no_model_has_are_left_out() -> None:
    event = finished(reading=Reading(tokens={"input": 10**30, "output": 3}))
    assert told(event)["usage"] == {"output_tokens": 3}


# Bodies.


def bodies(**captured: Body) -> dict[str, Any]:
    return told(finished(captured=Captured(**captured)))


def test_bodies_stand_there_only_when_they_were_captured() -> None:
    assert "response_body" not in bodies(request=Body(data=b"{}", length=2))
    assert bodies(request=Body(data=b"{}", length=2))["request_body"] == {
        "text": "{}",
        "bytes": 2,
        "truncated": False,
    }


def test_compressed_body_is_shown_in_the_clear() -> None:
    data = gzip.compress(b'{"answer": 42}')
    shown = bodies(response=Body(data=data, length=len(data)))["response_body"]
    assert shown == {"text": '{"answer": 42}', "bytes": len(data), "truncated": False}


def test_bomb_is_cut() -> None:
    data = gzip.compress(b"a" * 10_000_000)
    shown = bodies(response=Body(data=data, length=len(data)))["response_body"]
    assert shown["truncated"]
    assert len(shown["text"]) <= 4 * len(data)


def test_cut_within_a_character_is_still_text() -> None:
    data = "für".encode()[:2]
    assert bodies(request=Body(data=data, cut=True, length=4))["request_body"]["text"] == "f"


def test_body_that_is_no_text_has_none() -> None:
    shown = bodies(response=Body(data=b"\x89PNG\xff\x00", length=6))["response_body"]
    assert shown == {"text": None, "bytes": 6, "truncated": False}


def test_secrets_in_bodies_are_taken_out() -> None:
    data = json.dumps({"api_key": "abc", "note": f"{KEY} sk-abcdefghijklmnopqrstuv"}).encode()
    text = bodies(request=Body(data=data, length=len(data)))["request_body"]["text"]
    assert json.loads(text) == {"api_key": REDACTED, "note": f"{REDACTED} {REDACTED}"}


def test_half_of_a_secret_at_a_cut_is_taken_out() -> None:
    data = f"see {KEY[:-3]}".encode()
    text = bodies(request=Body(data=data, cut=True, length=100))["request_body"]["text"]
    assert text == f"see {REDACTED}"


# What others chose.


@pytest.mark.parametrize("name", ["path", "model", "detail", "method"])
def test_no_secret_in_what_others_chose(name: str) -> None:
    for secret in (KEY, "sk-abcdefghijklmnopqrstuv"):
        assert told(finished(**{name: f"/x/{secret}/y"}))[name] == f"/x/{REDACTED}/y"


def test_no_secret_in_what_the_upstream_chose() -> None:
    event = told(finished(reading=Reading(model=KEY, finish=KEY)))
    assert event["response_model"] == event["finish_reason"] == REDACTED


def test_long_text_is_cut() -> None:
    assert told(finished(path="/" + "a" * 10_000))["path"] == "/" + "a" * (TEXT - 1) + "…"


@pytest.mark.parametrize("path", ["/" + "a" * (TEXT - 10) + KEY + "b" * 100, f"{KEY}," * 60])
def test_secret_across_the_cut_is_taken_out(path: str) -> None:
    assert KEY[:4] not in told(finished(path=path))["path"]


@given(st.text(st.characters()), st.text(st.characters(categories=["Cs", "Cc", "Zl", "Zp"])), st.binary())
def test_whatever_others_send_is_one_line_of_json(path: str, model: str, body: bytes) -> None:
    event = finished(
        path=path,
        model=model,
        traceparent=path,
        reading=Reading(model=path, finish=model),
        captured=Captured(request=Body(data=body, length=len(body)), response=Body(data=body, cut=True)),
    )
    assert told(event)["status"] == 200


def test_time_that_is_none_does_no_harm() -> None:
    line = form().line(Told("1", 1e300, finished()))
    assert json.loads(line)["ts"] == "1970-01-01T00:00:00.000Z"
