"""Failed attempts are made again before anything is sent to the client, and never after."""

from __future__ import annotations

import gzip
import json
import time
from typing import Any

import pytest
import pytest_twisted
from bench import Bench, reactor
from twisted.logger import formatEvent, globalLogPublisher
from wireclient import Answer, pause, request, until

from llmproxyd.model import End, Retrying
from llmproxyd.testing.proxy import ProxyUnderTest
from llmproxyd.testing.upstream import (
    LAST_CHUNK,
    Action,
    Close,
    FakeUpstream,
    Gate,
    Send,
    Stall,
    Wait,
    answer,
    chunk,
    event,
    head,
    json_answer,
    stream_head,
)

CHAT = b"/v1/chat/completions"
ASKED = b'{"model":"gpt-4o","messages":[]}'
REPLY = {"id": "c-1", "object": "chat.completion", "choices": [{"index": 0, "message": {"content": "Hi"}}]}
OVERLOADED = {"error": {"message": "Overloaded, sorry", "type": "server_error", "code": None, "param": None}}
ROLE = b'{"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}'
HI = b'{"choices":[{"index":0,"delta":{"content":"Hi"}}]}'
STOP = b'{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}'

QUICK: dict[str, Any] = {"max_retries": 3, "base_delay": 0.01, "jitter": "none"}


def policy(*, retry: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """Settings with a policy for every upstream."""
    return {"resilience": {"default": {"retry": QUICK | (retry or {}), **more}}}


def failed(status: bytes = b"503 Service Unavailable", *fields: bytes) -> list[Action]:
    return [Send(json_answer(OVERLOADED, *fields, status=status))]


def works() -> list[Action]:
    return [Send(json_answer(REPLY))]


def streamed(*events: bytes, end: bool = True) -> list[Action]:
    data = b"".join(chunk(event(one)) for one in events)
    return [Send(stream_head() + data + LAST_CHUNK * end), *([] if end else [Close()])]


async def ask(bench: Bench, proxy: ProxyUnderTest, *fields: bytes, body: bytes = ASKED) -> Answer:
    client = await bench.client(proxy)
    return await client.ask(request(CHAT, *fields, body=body))


def retries(proxy: ProxyUnderTest) -> list[Retrying]:
    return [one for one in proxy.sink.events if isinstance(one, Retrying)]


@pytest_twisted.ensureDeferred
async def test_without_a_policy_a_failure_is_the_clients_at_once(
    bench: Bench, upstream: FakeUpstream
) -> None:
    upstream.scripts = [failed(), works()]
    got = await ask(bench, bench.proxy())
    assert (got.status, len(upstream.requests)) == (503, 1)
    assert b"x-should-retry" not in got.names


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, 520, 524, 529])
@pytest_twisted.ensureDeferred
async def test_a_failure_that_passes_is_never_seen(bench: Bench, upstream: FakeUpstream, status: int) -> None:
    upstream.scripts = [failed(b"%d Whatever" % status), works()]
    proxy = bench.proxy(**policy())
    got = await ask(bench, proxy)
    assert (got.status, got.json) == (200, REPLY)
    assert [one.body for one in upstream.requests] == [ASKED, ASKED]
    assert [one.retry for one in retries(proxy)] == [1]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422, 501])
@pytest_twisted.ensureDeferred
async def test_a_failure_that_stays_is_handed_on_as_it_is(
    bench: Bench, upstream: FakeUpstream, status: int
) -> None:
    upstream.scripts = [failed(b"%d Whatever" % status, b"X-Odd: 1"), works()]
    got = await ask(bench, bench.proxy(**policy()))
    assert (got.status, got.json, len(upstream.requests)) == (status, OVERLOADED, 1)
    assert got.get(b"x-odd") == b"1"
    assert b"x-should-retry" not in got.names


@pytest_twisted.ensureDeferred
async def test_spent_attempts_end_in_the_upstreams_own_answer_and_tell_the_sdk(
    bench: Bench, upstream: FakeUpstream
) -> None:
    upstream.scripts = [failed(b"529 Overloaded", b"Retry-After: 0", b"X-Should-Retry: true")]
    proxy = bench.proxy(**policy())
    got = await ask(bench, proxy)
    assert (got.status, got.json, len(upstream.requests)) == (529, OVERLOADED, 4)
    assert got.all(b"x-should-retry") == [b"false"]
    assert b"x-llmproxyd-error" not in got.names
    assert [one.retry for one in retries(proxy)] == [1, 2, 3]


@pytest_twisted.ensureDeferred
async def test_the_sdk_is_told_nothing_where_that_is_switched_off(
    bench: Bench, upstream: FakeUpstream
) -> None:
    upstream.scripts = [failed()]
    got = await ask(bench, bench.proxy(**policy(retry={"tell_sdk_not_to_retry": False})))
    assert (got.status, len(upstream.requests)) == (503, 4)
    assert b"x-should-retry" not in got.names


@pytest_twisted.ensureDeferred
async def test_a_wait_that_the_upstream_asks_for_is_kept(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [failed(b"429 Too Many Requests", b"retry-after-ms: 400"), works()]
    began = time.monotonic()
    got = await ask(bench, bench.proxy(**policy()))
    assert got.status == 200
    assert time.monotonic() - began >= 0.4


@pytest_twisted.ensureDeferred
async def test_a_wait_that_is_too_long_is_the_clients(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [failed(b"429 Too Many Requests", b"Retry-After: 3600"), works()]
    got = await ask(bench, bench.proxy(**policy()))
    assert (got.status, got.get(b"retry-after"), len(upstream.requests)) == (429, b"3600", 1)
    assert b"x-should-retry" not in got.names


@pytest_twisted.ensureDeferred
async def test_nobody_listens(bench: Bench, closed_port: int) -> None:
    proxy = bench.proxy(base_url=f"http://127.0.0.1:{closed_port}", **policy())
    got = await ask(bench, proxy)
    assert (got.status, got.json["error"]["code"]) == (502, "upstream_unreachable")
    assert got.get(b"x-should-retry") == b"false"
    assert len(retries(proxy)) == 3


EARLY: list[Any] = [
    pytest.param([Close()], id="closed"),
    pytest.param([Send(b"HTTP/1.1 200 OK\r\ncontent-"), Close()], id="in-the-head"),
    pytest.param([Send(b"not http at all\r\n\r\n"), Close()], id="no-http"),
    pytest.param(
        [Send(head(b"content-type: application/json", b"content-length: 90") + b'{"id":'), Close()],
        id="in-json",
    ),
    pytest.param([Send(stream_head()), Close()], id="stream-before-anything"),
    pytest.param([Send(stream_head() + chunk(event(ROLE))), Close()], id="stream-before-content"),
    pytest.param(
        [Send(stream_head() + chunk(event(b'{"error":{"message":"sorry","code":500}}')) + LAST_CHUNK)],
        id="stream-error",
    ),
    pytest.param(
        [
            Send(
                stream_head()
                + chunk(event(ROLE))
                + chunk(event(b'{"error":{"message":"sorry"}}'))
                + LAST_CHUNK
            )
        ],
        id="stream-error-after-role",
    ),
    pytest.param(
        [Send(json_answer({"error": {"message": "overloaded", "code": 503}}))], id="error-under-200"
    ),
    pytest.param([Send(answer(b"<html>oops</html>", b"content-type: application/json"))], id="no-json"),
    pytest.param([Send(answer(b"", b"content-type: application/json"))], id="empty-json"),
]


@pytest.mark.parametrize("script", EARLY)
@pytest_twisted.ensureDeferred
async def test_what_is_no_answer_is_asked_for_again(
    bench: Bench, upstream: FakeUpstream, script: list[Action]
) -> None:
    upstream.scripts = [script, streamed(ROLE, HI, STOP, b"[DONE]")]
    got = await ask(bench, bench.proxy(**policy()))
    assert (got.status, len(upstream.requests)) == (200, 2)
    assert got.body == b"".join(map(event, (ROLE, HI, STOP, b"[DONE]")))
    assert got.whole


@pytest_twisted.ensureDeferred
async def test_a_stream_is_held_until_its_first_content(bench: Bench, upstream: FakeUpstream) -> None:
    gate, last = Gate(), Gate()
    upstream.scripts = [
        [
            Send(stream_head() + chunk(b": hello\n\n") + chunk(event(ROLE))),
            gate,
            Send(chunk(event(HI))),
            last,
            Send(chunk(event(b"[DONE]")) + LAST_CHUNK),
        ]
    ]
    client = await bench.client(bench.proxy(**policy()))
    client.send(request(CHAT, body=ASKED))
    await until(lambda: upstream.requests, "the request")
    await pause(0.1)
    assert not client.received
    gate.open()
    await client.has(chunk(b": hello\n\n" + event(ROLE) + event(HI)))
    last.open()
    assert (await client.answer()).whole


@pytest_twisted.ensureDeferred
async def test_with_retries_off_nothing_is_held(bench: Bench, upstream: FakeUpstream) -> None:
    gate = Gate()
    upstream.scripts = [[Send(stream_head() + chunk(event(ROLE))), gate, Send(LAST_CHUNK)]]
    client = await bench.client(bench.proxy(resilience={"default": {"breaker": {"enabled": True}}}))
    client.send(request(CHAT, body=ASKED))
    await client.has(event(ROLE))
    gate.open()
    assert (await client.answer()).whole


@pytest.mark.parametrize("hold", [{"time": 0.15}, {"bytes": len(event(ROLE))}])
@pytest_twisted.ensureDeferred
async def test_a_stream_is_held_so_long_and_no_longer(
    bench: Bench, upstream: FakeUpstream, hold: dict[str, Any]
) -> None:
    gate = Gate()
    upstream.scripts = [[Send(stream_head() + chunk(event(ROLE))), gate, Send(LAST_CHUNK)]]
    client = await bench.client(bench.proxy(**policy(hold=hold)))
    client.send(request(CHAT, body=ASKED))
    await client.has(event(ROLE))
    gate.open()
    assert (await client.answer()).whole


@pytest_twisted.ensureDeferred
async def test_silence_while_a_stream_is_held_is_a_failure(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [[Send(stream_head() + chunk(event(ROLE))), Stall()], works()]
    proxy = bench.proxy(timeouts={"idle": 0.2}, **policy(hold={"time": 5}))
    got = await ask(bench, proxy)
    assert (got.status, got.json, len(upstream.requests)) == (200, REPLY, 2)
    assert retries(proxy)[0].failed == "fell silent"


@pytest_twisted.ensureDeferred
async def test_pieces_that_come_keep_a_held_stream_alive(bench: Bench, upstream: FakeUpstream) -> None:
    slow = [one for _ in range(4) for one in (Send(chunk(b": wait\n\n")), Wait(0.15))]
    upstream.scripts = [[Send(stream_head()), *slow, Send(chunk(event(HI)) + LAST_CHUNK)]]
    proxy = bench.proxy(timeouts={"idle": 0.35}, **policy(hold={"time": 5}))
    got = await ask(bench, proxy)
    assert (got.whole, len(upstream.requests)) == (True, 1)


@pytest_twisted.ensureDeferred
async def test_after_the_first_content_nothing_is_made_again(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [streamed(ROLE, HI, end=False), streamed(ROLE, HI, STOP, b"[DONE]")]
    proxy = bench.proxy(**policy())
    got = await ask(bench, proxy)
    assert len(upstream.requests) == 1
    assert not got.whole
    start = event(ROLE) + event(HI)
    assert got.body.startswith(start)
    error = json.loads(got.body[len(start) :].removeprefix(b"data: "))["error"]
    assert error["code"] == "upstream_protocol_error"
    (finished,) = proxy.finished
    assert (finished.end, finished.failed) == (End.TRUNCATED, True)


@pytest.mark.parametrize("early", [True, False])
@pytest_twisted.ensureDeferred
async def test_a_coded_stream_that_dies_is_made_again_only_before_its_content(
    bench: Bench, upstream: FakeUpstream, early: bool
) -> None:
    whole = gzip.compress(b"".join(map(event, (ROLE, HI, STOP, b"[DONE]"))), mtime=0)
    packer = gzip.zlib.compressobj(wbits=31)  # type: ignore[attr-defined]
    part = packer.compress(event(ROLE) + (b"" if early else event(HI))) + packer.flush(2)
    start = stream_head(b"text/event-stream", b"content-encoding: gzip")
    upstream.scripts = [[Send(start + chunk(part)), Close()], [Send(start + chunk(whole) + LAST_CHUNK)]]
    got = await ask(bench, bench.proxy(**policy()), b"accept-encoding: gzip, br")
    assert got.whole is early
    assert len(upstream.requests) == 1 + early
    assert got.body == (whole if early else part)
    assert [one.all(b"accept-encoding") for one in upstream.requests] == [[b"gzip"]] * (1 + early)


@pytest_twisted.ensureDeferred
async def test_no_answer_in_time_is_final_unless_that_is_switched_on(
    bench: Bench, upstream: FakeUpstream
) -> None:
    upstream.scripts = [[Stall()], works()]
    got = await ask(bench, bench.proxy(timeouts={"headers": 0.1}, **policy()))
    assert (got.status, got.json["error"]["code"], len(upstream.requests)) == (504, "headers_timeout", 1)
    upstream.scripts = [[Stall()], works()]
    upstream.requests.clear()
    again = policy(retry={"retry_timeouts": True})
    got = await ask(bench, bench.proxy(timeouts={"headers": 0.1}, **again))
    assert (got.status, len(upstream.requests)) == (200, 2)


@pytest_twisted.ensureDeferred
async def test_a_stream_without_content_in_time(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [[Send(stream_head() + chunk(event(ROLE))), Stall()], streamed(HI, b"[DONE]")]
    got = await ask(bench, bench.proxy(timeouts={"first_content": 0.1}, **policy()))
    assert (got.status, got.whole, len(upstream.requests)) == (200, True, 2)


@pytest_twisted.ensureDeferred
async def test_a_stream_without_content_in_time_that_was_not_held(
    bench: Bench, upstream: FakeUpstream
) -> None:
    upstream.scripts = [[Send(stream_head() + chunk(event(ROLE))), Stall()]]
    proxy = bench.proxy(timeouts={"first_content": 0.1})
    got = await ask(bench, proxy)
    assert (got.status, got.whole) == (200, False)
    assert b"first_content_timeout" in got.body
    assert proxy.finished[0].code == "first_content_timeout"


@pytest_twisted.ensureDeferred
async def test_a_stream_whose_content_came_in_time_may_go_on(bench: Bench, upstream: FakeUpstream) -> None:
    script = [
        Send(stream_head() + chunk(event(HI))),
        Wait(0.4),
        Send(chunk(event(b"[DONE]")) + LAST_CHUNK),
    ]
    upstream.scripts = [script]
    for settings in ({}, policy()):
        got = await ask(bench, bench.proxy(timeouts={"first_content": 0.15}, **settings))
        assert got.whole


@pytest_twisted.ensureDeferred
async def test_the_whole_request_has_a_deadline(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [failed(), [Stall()]]
    proxy = bench.proxy(timeouts={"total": 0.3}, **policy())
    got = await ask(bench, proxy)
    assert (got.status, got.json["error"]["code"]) == (504, "total_timeout")
    await until(lambda: len(upstream.open) <= 1, "the stalled connection to be closed")


@pytest_twisted.ensureDeferred
async def test_the_deadline_cuts_a_running_stream(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [[Send(stream_head() + chunk(event(HI))), Stall()]]
    got = await ask(bench, bench.proxy(timeouts={"total": 0.2}))
    assert (got.status, got.whole) == (200, False)
    assert b"total_timeout" in got.body


@pytest_twisted.ensureDeferred
async def test_a_wait_past_the_deadline_is_not_begun(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [failed(b"429 Slow down", b"retry-after: 5"), works()]
    began = time.monotonic()
    got = await ask(bench, bench.proxy(**policy()), b"x-stainless-read-timeout: 3")
    assert (got.status, len(upstream.requests)) == (429, 1)
    assert time.monotonic() - began < 2


@pytest_twisted.ensureDeferred
async def test_an_sdks_patience_does_not_end_a_running_stream(bench: Bench, upstream: FakeUpstream) -> None:
    script = [Send(stream_head() + chunk(event(HI))), Wait(0.5), Send(chunk(event(b"[DONE]")) + LAST_CHUNK)]
    upstream.scripts = [script]
    got = await ask(bench, bench.proxy(**policy()), b"x-stainless-read-timeout: 0.2")
    assert got.whole


@pytest_twisted.ensureDeferred
async def test_the_budget_ends_retries_before_their_number_does(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [failed()]
    budget = {"ratio": 0, "min_per_second": 0.1, "window": 20}
    proxy = bench.proxy(**policy(retry={"max_retries": 10, "budget": budget}))
    got = await ask(bench, proxy)
    assert (got.status, len(upstream.requests)) == (503, 3)
    told: list[str] = []
    globalLogPublisher.addObserver(observer := lambda event: told.append(formatEvent(event)))
    try:
        got = await ask(bench, proxy)
    finally:
        globalLogPublisher.removeObserver(observer)
    assert (got.status, len(upstream.requests)) == (503, 4)
    assert got.get(b"x-should-retry") == b"false"
    line = f"openai unavailable (503), not trying again: its retry budget is spent [{proxy.finished[-1].request_id}]"
    assert line in told


@pytest_twisted.ensureDeferred
async def test_a_client_that_leaves_ends_the_waiting(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [failed(b"503 No", b"retry-after: 20")]
    proxy = bench.proxy(**policy())
    client = await bench.client(proxy)
    client.send(request(CHAT, body=ASKED))
    await until(lambda: retries(proxy), "the first retry to be announced")
    client.transport.abortConnection()
    await until(lambda: proxy.finished, "the request to end")
    assert (proxy.finished[0].status, len(upstream.requests)) == (499, 1)


@pytest_twisted.ensureDeferred
async def test_stopping_ends_the_waiting(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [failed(b"503 No", b"retry-after: 20")]
    proxy = bench.proxy(**policy())
    client = await bench.client(proxy)
    client.send(request(CHAT, body=ASKED))
    await until(lambda: retries(proxy), "the first retry to be announced")
    proxy.daemon.pipeline.cut_all()
    got = await client.answer()
    assert (got.status, got.json["error"]["code"]) == (503, "shutting_down")
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("size", [0, 10, 300_000, 2_000_000])
@pytest.mark.parametrize("chunked", [True, False])
@pytest_twisted.ensureDeferred
async def test_a_body_of_any_size_goes_out_again_whole(
    bench: Bench, upstream: FakeUpstream, size: int, chunked: bool
) -> None:
    upstream.scripts = [failed(), failed(), works()]
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    client = await bench.client(bench.proxy(**policy()))
    if chunked:
        client.send(request(CHAT, b"transfer-encoding: chunked", body=None))
        client.send((chunk(body) if body else b"") + b"0\r\n\r\n")
        got = await client.answer()
    else:
        got = await client.ask(request(CHAT, body=body))
    assert got.status == 200
    assert [one.body == body for one in upstream.requests] == [True] * 3


@pytest_twisted.ensureDeferred
async def test_an_empty_stream_is_made_again_where_that_is_switched_on(
    bench: Bench, upstream: FakeUpstream
) -> None:
    empty = streamed(ROLE, b"[DONE]")
    upstream.scripts = [empty, streamed(HI, b"[DONE]")]
    got = await ask(bench, bench.proxy(**policy()))
    assert (got.body, len(upstream.requests)) == (event(ROLE) + event(b"[DONE]"), 1)
    upstream.scripts = [empty, streamed(HI, b"[DONE]")]
    got = await ask(bench, bench.proxy(**policy(retry={"retry_empty": True})))
    assert (got.body, len(upstream.requests)) == (event(HI) + event(b"[DONE]"), 3)


@pytest_twisted.ensureDeferred
async def test_a_rule_gives_an_answer_another_status(bench: Bench, upstream: FakeUpstream) -> None:
    said = {"choices": [{"message": {"content": "The MODEL is overloaded, try later"}}]}
    upstream.scripts = [[Send(json_answer(said))], works()]
    rule = {"pattern": "model is overloaded", "original_status": 200, "new_status": 429}
    got = await ask(bench, bench.proxy(**policy(recategorize=[rule])))
    assert (got.json, len(upstream.requests)) == (REPLY, 2)
    upstream.scripts = [[Send(json_answer(said))]]
    got = await ask(bench, bench.proxy(**policy(recategorize=[rule])))
    assert (got.status, got.json, got.get(b"x-should-retry")) == (200, said, b"false")


@pytest.mark.parametrize("status", [b"200 OK", b"403 Forbidden", b"503 No"])
@pytest_twisted.ensureDeferred
async def test_a_hard_stop_is_final_and_says_so(bench: Bench, upstream: FakeUpstream, status: bytes) -> None:
    said = {"error": {"message": "quota pozzed for today"}}
    upstream.scripts = [[Send(json_answer(said, status=status))]]
    rule = {"pattern": "pozzed", "user_message": "Come back tomorrow."}
    got = await ask(bench, bench.proxy(**policy(hard_stop=[rule])))
    assert len(upstream.requests) == 1
    assert got.status == (502 if status.startswith(b"200") else int(status[:3]))
    error = got.json["error"]
    assert (error["code"], error["message"]) == ("hard_stop", "Come back tomorrow.")
    assert got.json["original_response"] == said


@pytest_twisted.ensureDeferred
async def test_a_silent_stream_is_kept_alive_by_comments(bench: Bench, upstream: FakeUpstream) -> None:
    script = [
        Send(stream_head() + chunk(event(HI))),
        Wait(0.7),
        Send(chunk(event(b"[DONE]")) + LAST_CHUNK),
    ]
    upstream.scripts = [script]
    got = await ask(bench, bench.proxy(resilience={"default": {"stream_keepalive": 0.2}}))
    assert got.whole
    assert got.body.startswith(event(HI) + b": keep-alive\n\n")
    assert got.body.endswith(event(b"[DONE]"))
    assert got.body.count(b": keep-alive\n\n") in (2, 3)


@pytest_twisted.ensureDeferred
async def test_the_next_key_is_tried_when_one_is_refused(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [failed(b"429 Slow", b"retry-after: 30"), works(), works(), failed(b"401 No"), works()]
    keys = ["first-key-1", "second-key-2", "third-key-3"]
    proxy = bench.proxy(upstreams={"openai": {"api_keys": keys}})
    for _ in range(3):
        got = await ask(bench, proxy, b"authorization: Bearer of-the-client")
        assert got.status == 200
    used = [one.all(b"authorization") for one in upstream.requests]
    assert used == [[f"Bearer {keys[n]}".encode()] for n in (0, 1, 1, 1, 2)]


@pytest_twisted.ensureDeferred
async def test_when_every_key_is_refused_the_upstreams_word_is_the_last(
    bench: Bench, upstream: FakeUpstream
) -> None:
    upstream.scripts = [failed(b"429 Slow", b"retry-after: 30")]
    proxy = bench.proxy(upstreams={"openai": {"api_keys": ["first-key-1", "second-key-2"]}})
    got = await ask(bench, proxy)
    assert (got.status, got.json, len(upstream.requests)) == (429, OVERLOADED, 2)
    got = await ask(bench, proxy)
    assert (got.status, got.json["error"]["code"]) == (429, "credentials_at_rest")
    assert 28 <= int(got.get(b"retry-after") or 0) <= 31
    assert len(upstream.requests) == 2


@pytest_twisted.ensureDeferred
async def test_another_upstream_stands_in_under_its_own_name_for_the_model(
    bench: Bench, upstream: FakeUpstream
) -> None:
    other = FakeUpstream(works()).listen(reactor)
    try:
        upstream.scripts = [failed()]
        fallback = {"upstream": "spare", "models": {"gpt-4o": "local-4o"}}
        proxy = bench.proxy(
            **policy(retry={"max_retries": 1}),
            upstreams={
                "openai": {"fallbacks": [fallback]},
                "spare": {"provider": "openai", "base_url": other.url, "api_key": "of-the-spare"},
            },
        )
        got = await ask(bench, proxy, b"authorization: Bearer of-the-client")
        assert (got.status, got.json) == (200, REPLY)
        assert (len(upstream.requests), len(other.requests)) == (2, 1)
        assert other.requests[0].body == ASKED.replace(b"gpt-4o", b"local-4o")
        assert other.requests[0].all(b"authorization") == [b"Bearer of-the-spare"]
        assert [one.upstream for one in proxy.finished] == ["spare"]
        assert [one.to for one in retries(proxy)] == ["openai", "spare"]
    finally:
        await other.stop()


@pytest_twisted.ensureDeferred
async def test_a_clients_credential_stays_with_the_host_that_it_is_for(
    bench: Bench, upstream: FakeUpstream
) -> None:
    other = FakeUpstream(works()).listen(reactor)
    try:
        upstream.scripts = [failed()]
        fallbacks = [{"upstream": "spare"}]
        proxy = bench.proxy(
            upstreams={
                "openai": {"fallbacks": fallbacks},
                "spare": {"provider": "openai", "base_url": other.url},
            }
        )
        secret = (b"authorization: Bearer of-the-client", b"cookie: a=b")
        client = await bench.client(proxy)
        got = await client.ask(request(CHAT + b"?key=of-the-client&a=b", *secret, b"x-other: c", body=ASKED))
        assert got.status == 200
        (sent,) = other.requests
        assert sent.target == CHAT + b"?a=b"
        assert sent.all(b"x-other") == [b"c"]
        for name in (b"authorization", b"cookie"):
            assert not sent.all(name)
            assert upstream.requests[0].all(name)
    finally:
        await other.stop()


@pytest_twisted.ensureDeferred
async def test_what_fails_everywhere_is_not_tried_elsewhere(bench: Bench, upstream: FakeUpstream) -> None:
    other = FakeUpstream(works()).listen(reactor)
    try:
        upstream.scripts = [failed(b"400 Bad Request")]
        proxy = bench.proxy(
            upstreams={
                "openai": {"fallbacks": [{"upstream": "spare"}]},
                "spare": {"provider": "openai", "base_url": other.url},
            }
        )
        got = await ask(bench, proxy)
        assert (got.status, len(other.requests)) == (400, 0)
    finally:
        await other.stop()


@pytest_twisted.ensureDeferred
async def test_a_list_of_models_stands_in_where_there_is_none(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [failed(b"404 Not Found")]
    proxy = bench.proxy(upstreams={"openai": {"models_fallback": ["one", "two"]}})
    client = await bench.client(proxy)
    got = await client.ask(request(b"/v1/models", method=b"GET", body=None))
    assert (got.status, got.get(b"x-llmproxyd-models")) == (200, b"fallback")
    assert [one["id"] for one in got.json["data"]] == ["one", "two"]


@pytest_twisted.ensureDeferred
async def test_a_transform_changes_what_it_names_and_nothing_else(
    bench: Bench, upstream: FakeUpstream
) -> None:
    upstream.scripts = [works()]
    rule = {"drop": ["logprobs"], "drop_unless": {"parallel_tool_calls": "boolean"}}
    proxy = bench.proxy(upstreams={"openai": {"transform": [rule]}})
    got = await ask(bench, proxy, body=b'{ "model" : "x",  "logprobs":true, "messages":[ 1.0 ] }')
    assert got.status == 200
    assert upstream.requests[0].body == b'{ "model" : "x", "messages":[ 1.0 ] }'
    assert upstream.requests[0].all(b"content-length") == [b"37"]


@pytest_twisted.ensureDeferred
async def test_a_head_request_is_made_again_too(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [
        [Send(b"HTTP/1.1 503 No\r\ncontent-length: 5\r\n\r\n")],
        [Send(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n")],
    ]
    client = await bench.client(bench.proxy(**policy()))
    got = await client.ask(request(b"/v1/models", method=b"HEAD", body=None))
    assert (got.status, len(upstream.requests)) == (200, 2)
