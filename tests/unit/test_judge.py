"""What is an answer, and what is a failure under whatever status."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from llmproxyd.errors import Final, Retryable
from llmproxyd.http.body import NO_BODY
from llmproxyd.inspection.content import look
from llmproxyd.model import RawHeaders, Request, Response
from llmproxyd.pipeline.exchange import Exchange
from llmproxyd.pipeline.gate import Gate
from llmproxyd.pipeline.judge import Kind, Setback, evidently_good, judged, kind_of, models_instead, watch_of
from llmproxyd.pipeline.plan import plan_of
from llmproxyd.pipeline.policy import Policy, Upstream
from llmproxyd.pipeline.roles import Responder
from llmproxyd.pipeline.route import Router
from llmproxyd.providers.registry import registry
from llmproxyd.resilience.policy import Hold, Resilience
from llmproxyd.resilience.retry import Retry
from llmproxyd.resilience.verdict import HardStop, Recategorize
from llmproxyd.wire.response import DONE, WireResponse
from llmproxyd.wire.wheel import Wheel

PROVIDERS = registry()
CHAT = b"/v1/chat/completions"
JSON = (b"Content-Type", b"application/json; charset=utf-8")
SSE = (b"Content-Type", b"text/event-stream")
TEXT = (b"Content-Type", b"text/plain")
RULE = HardStop(pattern="pozzed", user_message="No.")


def upstream(**resilience: Any) -> Upstream:
    policy = Resilience(retry=Retry(max_retries=2), **resilience)
    return Upstream(name="openai", provider=PROVIDERS["openai"], base_url="http://u", resilience=policy)


def exchange_for(
    to: Upstream, method: bytes = b"POST", target: bytes = CHAT, headers: RawHeaders = ()
) -> Exchange:
    router = Router({"openai": to}, PROVIDERS, default="openai", single="openai")
    policy = Policy(router=router, max_body=1000, guard_browsers=False)
    request = Request(method, target, [(b"Host", b"h"), *headers])
    nobody = cast(Responder, None)
    exchange = Exchange(1, "x-1", request, NO_BODY, nobody, policy, 0.0, lambda *_: None)
    exchange.plan = plan_of(request, policy)
    return exchange


def response(status: int, *fields: tuple[bytes, bytes], length: int | None = None) -> Response:
    return Response(status, b"-", fields, length)


HEADS: list[Any] = [
    (b"POST", CHAT, response(200, JSON, length=50), True, True),
    (b"POST", CHAT, response(200, JSON), True, True),
    (b"POST", CHAT, response(200, JSON, length=65536), True, True),
    (b"POST", CHAT, response(200, JSON, length=65537), False, False),
    (b"POST", CHAT, response(200, JSON, (b"Content-Encoding", b"gzip")), True, True),
    (b"POST", CHAT, response(200, JSON, (b"Content-Encoding", b"br")), False, False),
    (b"POST", CHAT, response(200, SSE), True, True),
    (b"POST", CHAT, response(200, SSE, (b"Content-Encoding", b"gzip")), True, True),
    (b"POST", CHAT, response(200, SSE, (b"Content-Encoding", b"zstd")), False, False),
    (b"POST", CHAT, response(200, TEXT), False, True),
    (b"POST", CHAT, response(200), False, False),
    (b"POST", CHAT, response(200, (b"Content-Type", b"audio/mpeg")), False, False),
    (b"POST", CHAT, response(204, JSON), False, False),
    (b"POST", CHAT, response(205, JSON), False, False),
    (b"POST", CHAT, response(206, JSON), False, False),
    (b"POST", CHAT, response(301, JSON), False, False),
    (b"POST", CHAT, response(304, JSON), False, False),
    (b"POST", CHAT, response(400, TEXT), True, True),
    (b"POST", CHAT, response(503), True, True),
    (b"POST", CHAT, response(599, (b"Content-Encoding", b"br"), length=10**9), True, True),
    (b"HEAD", CHAT, response(200, JSON), False, False),
    (b"HEAD", CHAT, response(404), True, True),
    (b"GET", b"/v1/models", response(200, JSON), False, True),
    (b"GET", b"/v1/unheard/of", response(200, JSON), False, True),
    (b"GET", b"/v1/unheard/of", response(200, SSE), False, False),
]


@pytest.mark.parametrize(("method", "target", "head", "plain", "ruled"), HEADS)
def test_which_answers_are_held(
    method: bytes, target: bytes, head: Response, plain: bool, ruled: bool
) -> None:
    for to, held in ((upstream(), plain), (upstream(hard_stop=(RULE,)), ruled)):
        assert (kind_of(exchange_for(to, method, target), to, head) is not Kind.PASSES) is held


def whole(body: bytes) -> WireResponse:
    made = WireResponse((b"HTTP", 1, 1), 200, b"OK", [JSON], len(body))
    made.receive(body)
    made.completed()
    made.end(DONE)
    return made


WORDS = st.sampled_from(
    ["error", "failed", "ERROR", "TIMEOUT", "status", "object", "response", "interaction", "type", "event_type",
     "choices", "finish_reason", "delta", "message", "code", "x", ""]
)  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | WORDS,
    lambda one: st.lists(one, max_size=2) | st.dictionaries(WORDS, one, max_size=4),
    max_leaves=8,
)


OTHERWISE = (b'"failed"', b'"ERROR"', b'"TIMEOUT"')
"""How some dialects tell of an error without calling it so: their answers are read whole."""


@given(st.dictionaries(WORDS, VALUES, max_size=5))
def test_what_is_good_at_a_glance_is_no_error_when_it_is_read(value: dict[str, Any]) -> None:
    body = json.dumps(value).encode()
    if look(body, JSON[1]).trouble is not None and not any(word in body for word in OTHERWISE):
        assert not evidently_good(whole(body).whole)


@pytest.mark.parametrize(
    ("provider", "target", "kind"),
    [
        ("openai", CHAT, Kind.JSON),
        ("openai", b"/v1/responses", Kind.HELD),
        ("cohere", b"/v2/chat", Kind.HELD),
        ("anthropic", b"/v1/messages", Kind.JSON),
    ],
)
def test_where_an_error_may_be_called_otherwise_all_is_read(provider: str, target: bytes, kind: Kind) -> None:
    to = replace(upstream(), name=provider, provider=PROVIDERS[provider])
    router = Router({provider: to}, PROVIDERS, default=provider, single=provider)
    policy = Policy(router=router, max_body=1000, guard_browsers=False)
    request = Request(b"POST", target, [(b"Host", b"h")])
    exchange = Exchange(1, "x-1", request, NO_BODY, cast(Responder, None), policy, 0.0, lambda *_: None)
    exchange.plan = plan_of(request, policy)
    assert kind_of(exchange, to, response(200, JSON, length=50)) is kind
    assert kind_of(exchange, to, response(200, JSON, length=50)) is kind


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"x", b"{} x", b'{"a":1', b"\xef\xbb\xbf{}", b'{"error":1}']
)
def test_what_does_not_look_like_an_object_is_read(body: bytes) -> None:
    assert not evidently_good(whole(body).whole)


def test_what_is_not_all_there_is_not_good_at_a_glance() -> None:
    part = WireResponse((b"HTTP", 1, 1), 200, b"OK", [JSON], 9)
    part.receive(b"{}")
    assert not evidently_good(part.whole)
    assert evidently_good(whole(b"{}").whole)
    assert not evidently_good(None)


def held(
    to: Upstream,
    body: bytes,
    *,
    status: int = 200,
    media: tuple[bytes, bytes] = JSON,
    end: Failure | None = DONE,
    method: bytes = b"POST",
    target: bytes = CHAT,
) -> Setback | None:
    """What is judged of an answer that is held up to its *end*."""
    exchange = exchange_for(to, method, target)
    head = response(status, media)
    streams = kind_of(exchange, to, head) is Kind.STREAM
    watch = watch_of(exchange, head) if streams else None
    opened: list[Gate] = []
    incoming = WireResponse((b"HTTP", 1, 1), status, b"-", [media], None)
    hold = Hold(bytes=10**6, time=1)
    clock = Clock()
    incoming.deliverBody(Gate(incoming, head, watch, hold, Wheel(clock), opened.append))
    incoming.receive(body)
    if end is not None:
        if end is DONE:
            incoming.completed()
        incoming.end(end)
    clock.pump([0.1] * 13)
    (gate,) = opened
    return judged(gate, to, exchange)


def event(value: object) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


SORRY = {"error": {"message": "sorry", "type": "server_error", "code": 500}}
ROLE = event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
HI = event({"choices": [{"index": 0, "delta": {"content": "Hi"}}]})

JUDGED: list[Any] = [
    pytest.param(b'{"choices":[]}', {}, None, id="answer"),
    pytest.param(json.dumps(SORRY).encode(), {}, ("500", 500, True), id="error-under-200"),
    pytest.param(b'{"error":{"message":"x"}}', {}, ("502", 502, True), id="nameless-error"),
    pytest.param(b'{"error":{"message":"x","code":429}}', {}, ("429", 429, False), id="429-under-200"),
    pytest.param(
        b'{"error":{"message":"x"}}', {"target": b"/v1/models", "method": b"GET"}, None, id="metadata"
    ),
    pytest.param(
        b'{"object":"response","status":"failed"}',
        {"target": b"/v1/responses"},
        ("500", 500, True),
        id="failed-response-without-an-error",
    ),
    pytest.param(b"", {}, ("502", 502, True), id="empty"),
    pytest.param(b"<html>", {}, ("502", 502, True), id="no-json"),
    pytest.param(b"<html>", {"end": None}, None, id="late"),
    pytest.param(b"{}", {"status": 400}, ("400", 400, False), id="400"),
    pytest.param(b"", {"status": 500}, ("500", 500, True), id="500"),
    pytest.param(b"\xff\x00" * 9, {"status": 503}, ("503", 503, True), id="garbage"),
    pytest.param(b"{}", {"status": 499}, ("499", 499, False), id="unregistered"),
    pytest.param(b"{", {"status": 503, "end": None}, ("503", 503, True), id="late-error"),
    pytest.param(
        b"{", {"end": Failure(ConnectionLost())}, ("upstream_protocol_error", None, True), id="broken"
    ),
    pytest.param(ROLE + HI, {"media": SSE}, None, id="stream"),
    pytest.param(ROLE + event(SORRY), {"media": SSE}, ("500", 500, True), id="stream-error"),
    pytest.param(ROLE, {"media": SSE}, None, id="empty-stream"),
    pytest.param(ROLE, {"media": SSE, "end": None}, None, id="late-stream"),
]


@pytest.mark.parametrize(("body", "how", "expected"), JUDGED)
def test_what_an_answer_is_taken_for(body: bytes, how: dict[str, Any], expected: Any) -> None:
    setback = held(upstream(), body, **how)
    found = None if setback is None else (setback.code, setback.failed.status, setback.counts)
    assert found == expected


def test_an_empty_stream_is_a_failure_where_that_is_switched_on() -> None:
    policy = Resilience(retry=Retry(max_retries=1, retry_empty=True))
    to = Upstream(name="openai", provider=PROVIDERS["openai"], base_url="http://u", resilience=policy)
    setback = held(to, ROLE, media=SSE)
    assert setback is not None
    assert (setback.code, setback.failed.status, setback.counts) == ("empty_stream", None, False)


@pytest.mark.parametrize("original", [None, 200])
def test_a_rule_goes_by_the_status_that_came(original: int | None) -> None:
    rule = Recategorize(pattern="SORRY", new_status=429, original_status=original)
    setback = held(upstream(recategorize=(rule,)), json.dumps(SORRY).encode())
    assert setback is not None
    assert (setback.code, setback.failed.status, setback.counts) == ("429", 429, False)


def test_a_rule_for_another_status_is_none() -> None:
    rule = Recategorize(pattern="sorry", new_status=429, original_status=500)
    setback = held(upstream(recategorize=(rule,)), json.dumps(SORRY).encode())
    assert setback is not None
    assert setback.code == "500"


STOPPED: list[Any] = [
    pytest.param(b'{"a":"pozzed"}', {}, id="answer"),
    pytest.param(b"pozzed", {"media": TEXT}, id="text"),
    pytest.param(b"pozzed", {"status": 503, "media": TEXT}, id="error"),
    pytest.param(HI.replace(b"Hi", b"POZZED"), {"media": SSE}, id="stream"),
    pytest.param(b": pozzed\n\n", {"media": SSE}, id="empty-stream"),
    pytest.param(b"{pozzed", {"end": None}, id="late"),
]


@pytest.mark.parametrize(("body", "how"), STOPPED)
def test_a_hard_stop_is_found_wherever_it_is_read(body: bytes, how: dict[str, Any]) -> None:
    setback = held(upstream(hard_stop=(RULE,)), body, **how)
    assert setback is not None
    assert setback.stop is RULE


@given(
    st.binary(max_size=300),
    st.sampled_from([200, 201, 400, 404, 429, 500, 529, 599]),
    st.sampled_from([JSON, SSE, TEXT]),
)
def test_no_garbage_is_too_much(body: bytes, status: int, media: tuple[bytes, bytes]) -> None:
    rules = {"hard_stop": (RULE,), "recategorize": (Recategorize(pattern="a+", new_status=503),)}
    for to in (upstream(), upstream(**rules)):
        setback = held(to, body, status=status, media=media)
        assert setback is not None or status < 400


def test_words_of_an_attempt_without_an_answer() -> None:
    late = Setback.of_error(Retryable(504, "connect_timeout", "No connection."))
    assert (late.words, late.failed.sent, late.failed.permanent) == (
        "could not be connected to in time",
        False,
        False,
    )
    bad = Setback.of_error(Final(502, "upstream_unreachable", "No certificate."))
    assert (bad.words, bad.failed.permanent) == ("unreachable", True)
    odd = Setback.of_error(Retryable(502, "never_heard_of", "What?"))
    assert (odd.words, odd.failed.sent) == ("never_heard_of", True)


MODELS: list[Any] = [
    (b"GET", b"/v1/models", 404, True),
    (b"HEAD", b"/v1/models", 500, True),
    (b"GET", b"/v1/models", None, True),
    (b"GET", b"/v1/models", 401, False),
    (b"GET", b"/v1/models", 429, False),
    (b"POST", b"/v1/models", 404, False),
    (b"POST", CHAT, 404, False),
]


@pytest.mark.parametrize(("method", "target", "status", "listed"), MODELS)
def test_who_is_given_the_list_of_models(
    method: bytes, target: bytes, status: int | None, listed: bool
) -> None:
    to = Upstream(
        name="openai", provider=PROVIDERS["openai"], base_url="http://u", models_fallback=("one", "two")
    )
    if status is None:
        setback: Setback | None = Setback.of_error(Retryable(502, "upstream_unreachable", "-"))
    else:
        setback = held(to, b"{}", status=status)
    assert setback is not None
    found = models_instead(exchange_for(to, method, target), to, setback)
    assert found == (("one", "two") if listed else None)
