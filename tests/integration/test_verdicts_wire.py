"""What clients do after a failure, watched on the wire: when it is, what is seen, and what it proves."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
import pytest_twisted
from bench import Bench
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from wireclient import pause, request, until

from llmproxyd.control.answers import Answer
from llmproxyd.testing.proxy import ProxyUnderTest
from llmproxyd.testing.upstream import (
    LAST_CHUNK,
    Action,
    Close,
    FakeUpstream,
    Send,
    Stall,
    chunk,
    event,
    head,
    json_answer,
    stream_head,
)

CHAT = b"/v1/chat/completions"
KEY = b"Authorization: Bearer sk-secret"
OK = Send(json_answer({"ok": True}))
LIMITED = Send(
    json_answer(
        {"error": {"message": "x", "type": "requests", "param": None, "code": "rate_limit_exceeded"}},
        b"retry-after: 2",
        status=b"429 Too Many Requests",
    )
)
CONTENT = event(b'{"choices":[{"delta":{"content":"Hi"},"finish_reason":null}]}')
DONE = event(b'{"choices":[{"delta":{},"finish_reason":"stop"}]}') + event(b"[DONE]")
QUICK = {"enabled": True, "window": "200ms"}


def asked(
    *fields: bytes, body: bytes = b'{"model": "gpt-4o", "messages": []}', target: bytes = CHAT
) -> bytes:
    return request(target, KEY, b"User-Agent: naive/1.0", *fields, body=body)


def verdicts(proxy: ProxyUnderTest, line: str = "verdicts") -> list[dict[str, Any]]:
    answer = proxy.daemon.control.run(line)
    assert isinstance(answer, Answer)
    assert answer.ok, answer.text
    data: Any = answer.data
    return list(data["verdicts"])


def command(proxy: ProxyUnderTest, line: str) -> None:
    answer = proxy.daemon.control.run(line)
    assert isinstance(answer, Answer)
    assert answer.ok, answer.text


def names(proxy: ProxyUnderTest, line: str = "verdicts --over") -> list[str]:
    return [one["name"] for one in verdicts(proxy, line)]


async def play(
    bench: Bench, upstream: FakeUpstream, *scripts: list[Action], **settings: Any
) -> ProxyUnderTest:
    """One request for each script, one after the other, on one connection as long as that lasts."""
    upstream.scripts = list(scripts)
    proxy = bench.proxy(verdicts={"enabled": True, **settings.pop("verdicts", {})}, **settings)
    client = await bench.client(proxy)
    for _ in scripts:
        if client.lost is not None:
            await pause(0.02)
            client = await bench.client(proxy)
        await client.ask(asked())
        await until(lambda: not proxy.daemon.pipeline.active, "the end of the request")
    return proxy


def stream(*pieces: bytes, coding: bytes = b"") -> list[Action]:
    fields = [b"content-encoding: " + coding] if coding else []
    return [Send(stream_head(b"text/event-stream", *fields)), *(Send(chunk(one)) for one in pieces)]


# When it watches.


@pytest_twisted.ensureDeferred
async def test_by_default_real_failures_are_nobodys_business(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [[LIMITED]]
    proxy = bench.proxy()
    client = await bench.client(proxy)
    for _ in range(3):
        await client.ask(asked())
    assert not proxy.daemon.works.watch.watching
    assert verdicts(proxy, "verdicts --over") == []


@pytest_twisted.ensureDeferred
async def test_a_rehearsed_failure_is_watched_until_nobody_is_waited_for(
    bench: Bench, upstream: FakeUpstream
) -> None:
    upstream.scripts = [[OK]]
    proxy = bench.proxy(verdicts={"window": "300ms"})
    watch = proxy.daemon.works.watch
    client = await bench.client(proxy)
    command(proxy, "r 1 retry_after=1")
    assert watch.watching
    assert (await client.ask(asked())).status == 429
    assert watch.watching  # the client may come back
    assert (await client.ask(asked())).status == 200
    [verdict] = verdicts(proxy)
    assert verdict["name"] == "retry_after_ignored"
    assert verdict["requests"] == [one.request_id for one in proxy.finished]
    await until(lambda: not watch.watching, "the end of the watch")
    assert names(proxy) == ["retry_after_ignored"]


@pytest_twisted.ensureDeferred
async def test_requests_that_go_on_meanwhile_do_not_keep_it_awake(
    bench: Bench, upstream: FakeUpstream
) -> None:
    upstream.scripts = [[LIMITED]]
    proxy = bench.proxy(verdicts={"window": "200ms"})
    client = await bench.client(proxy)
    command(proxy, "error overloaded 1")
    await client.ask(asked())
    for _ in range(200):
        await client.ask(asked(body=b'{"other": 1}'))
        if not proxy.daemon.works.watch.watching:
            break
        await pause(0.02)
    assert not proxy.daemon.works.watch.watching


@pytest_twisted.ensureDeferred
async def test_switched_off_it_never_watches(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [[OK]]
    proxy = bench.proxy(verdicts={"enabled": False})
    client = await bench.client(proxy)
    command(proxy, "r * retry_after=5")
    for _ in range(3):
        await client.ask(asked())
    assert names(proxy) == []


@pytest_twisted.ensureDeferred
async def test_a_fault_that_a_request_asks_for_is_watched(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [[OK]]
    proxy = bench.proxy(faults={"header": True})
    client = await bench.client(proxy)
    await client.ask(asked(b"x-llmproxyd-fault: r; retry_after=5"))
    await client.ask(asked())
    assert names(proxy) == ["retry_after_ignored"]


@pytest_twisted.ensureDeferred
async def test_a_fault_that_is_none_says_nothing_of_the_client(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [[OK]]
    proxy = bench.proxy(faults={"header": True})
    client = await bench.client(proxy)
    assert (await client.ask(asked(b"x-llmproxyd-fault: rate_limt"))).status == 400
    await client.ask(asked())
    assert names(proxy) == []


# What is seen.


@pytest_twisted.ensureDeferred
async def test_real_failure_is_read_as_a_client_reads_it(bench: Bench, upstream: FakeUpstream) -> None:
    proxy = await play(bench, upstream, [LIMITED], [OK])
    [verdict] = verdicts(proxy)
    assert verdict["name"] == "retry_after_ignored"
    assert verdict["severity"] == "problem"
    assert "2 s were asked for (retry-after)" in verdict["text"]
    assert verdict["client"].startswith("naive/1.0 (")
    assert (verdict["upstream"], verdict["path"], verdict["test"]) == ("openai", CHAT.decode(), None)
    assert verdict["docs"] == "docs/verdicts.rst#retry-after-ignored"
    assert verdict["times"] == sorted(verdict["times"])
    assert "sk-secret" not in json.dumps(verdict)


@pytest_twisted.ensureDeferred
async def test_coded_error_is_read_too(bench: Bench, upstream: FakeUpstream) -> None:
    body = gzip.compress(json.dumps({"error": {"code": "insufficient_quota", "message": "x"}}).encode())
    fields = [b"content-type: application/json", b"content-encoding: gzip", b"content-length: %d" % len(body)]
    spent: list[Action] = [Send(head(*fields, status=b"429 Too Many") + body)]
    proxy = await play(bench, upstream, spent, [OK])
    assert names(proxy) == ["retried_hopeless"]


@pytest.mark.parametrize("coding", [b"", b"gzip"])
@pytest_twisted.ensureDeferred
async def test_stream_without_its_end_is_told_when_nobody_came_back(
    bench: Bench, upstream: FakeUpstream, coding: bytes
) -> None:
    pieces = [CONTENT, CONTENT] if not coding else [gzip.compress(CONTENT + CONTENT)]
    script = [*stream(*pieces, coding=coding), Send(LAST_CHUNK)]
    proxy = await play(bench, upstream, script, verdicts=QUICK)
    assert names(proxy, "verdicts --over") == ["truncation_unnoticed"]
    watch = proxy.daemon.works.watch
    await until(lambda: watch.verdicts(), "the verdict")
    assert names(proxy, "verdicts") == ["truncation_unnoticed"]


@pytest_twisted.ensureDeferred
async def test_stream_that_a_fault_truncates_looks_whole(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [[*stream(CONTENT, DONE), Send(LAST_CHUNK)]]
    proxy = bench.proxy()
    command(proxy, "truncate at=end")
    client = await bench.client(proxy)
    got = await client.ask(asked())
    assert got.whole
    assert b"[DONE]" not in got.body
    await until(lambda: proxy.finished, "the end of the request")
    assert names(proxy) == ["truncation_unnoticed"]


@pytest_twisted.ensureDeferred
async def test_fault_whose_place_was_not_reached_has_done_nothing(
    bench: Bench, upstream: FakeUpstream
) -> None:
    upstream.scripts = [[*stream(CONTENT, DONE), Send(LAST_CHUNK)]]
    proxy = bench.proxy()
    command(proxy, "truncate at=50")
    client = await bench.client(proxy)
    await client.ask(asked())
    await until(lambda: proxy.finished, "the end of the request")
    assert names(proxy) == []


@pytest_twisted.ensureDeferred
async def test_whole_stream_is_a_good_answer(bench: Bench, upstream: FakeUpstream) -> None:
    whole = [*stream(CONTENT, DONE), Send(LAST_CHUNK)]
    proxy = await play(bench, upstream, whole, whole)
    assert names(proxy) == []


@pytest_twisted.ensureDeferred
async def test_stream_that_breaks_off_and_is_asked_for_again(bench: Bench, upstream: FakeUpstream) -> None:
    whole = [*stream(CONTENT, DONE), Send(LAST_CHUNK)]
    proxy = await play(bench, upstream, [*stream(CONTENT), Close()], whole)
    assert names(proxy) == ["repeated_begun_answer"]


@pytest_twisted.ensureDeferred
async def test_error_within_a_stream_is_a_failure(bench: Bench, upstream: FakeUpstream) -> None:
    error = event(b'{"error": {"message": "x", "code": "context_length_exceeded"}}')
    failing = [*stream(CONTENT + error), Send(LAST_CHUNK)]
    proxy = await play(bench, upstream, failing, failing)
    assert set(names(proxy)) == {"repeated_begun_answer", "retried_hopeless"}


@pytest_twisted.ensureDeferred
async def test_stream_that_is_unlike_any_is_not_judged(bench: Bench, upstream: FakeUpstream) -> None:
    script = [*stream(CONTENT, coding=b"br"), Send(LAST_CHUNK)]
    proxy = await play(bench, upstream, script)
    assert names(proxy) == []


@pytest_twisted.ensureDeferred
async def test_client_that_leaves_tells_nothing(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [[Stall()], [OK]]
    proxy = bench.proxy(verdicts={"enabled": True})
    client = await bench.client(proxy)
    client.send(asked())
    await until(lambda: upstream.requests, "the request")
    client.transport.abortConnection()
    await until(lambda: proxy.finished, "its end")
    other = await bench.client(proxy)
    await other.ask(asked())
    assert names(proxy) == []


@pytest_twisted.ensureDeferred
async def test_two_at_once_are_no_retries(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [[OK]]
    proxy = bench.proxy()
    command(proxy, "r * retry_after=2")
    clients = [await bench.client(proxy) for _ in range(8)]
    for client in clients:
        client.send(asked())
    for client in clients:
        await client.answer()
    assert names(proxy) == []


@pytest_twisted.ensureDeferred
async def test_metadata_is_not_watched(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [[LIMITED]]
    proxy = bench.proxy(verdicts={"enabled": True})
    client = await bench.client(proxy)
    for _ in range(2):
        await client.ask(request(b"/v1/models", KEY, method=b"GET", body=None))
    assert names(proxy) == []


@pytest_twisted.ensureDeferred
async def test_retries_of_our_own_are_not_the_clients(bench: Bench, upstream: FakeUpstream) -> None:
    failing: list[Action] = [Send(json_answer({}, status=b"503 Unavailable"))]
    upstream.scripts = [failing, failing, [OK]]
    policy = {"retry": {"max_retries": 2, "base_delay": "1ms"}}
    proxy = bench.proxy(
        verdicts={"enabled": True},
        resilience={"default": policy},
        upstreams={"openai": {"resilience": "default"}},
    )
    client = await bench.client(proxy)
    assert (await client.ask(asked())).status == 200
    assert names(proxy) == []


# Who it was.


@pytest_twisted.ensureDeferred
async def test_each_test_has_verdicts_of_its_own(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [[OK]]
    proxy = bench.proxy()
    client = await bench.client(proxy)
    command(proxy, "r * retry_after=5")
    for test in (b"one", b"two"):
        await client.ask(asked(b"x-llmproxyd-test: " + test))
    assert names(proxy, "verdicts") == []
    for test in (b"two", b"two", b"one"):
        await client.ask(asked(b"x-llmproxyd-test: " + test))
    assert [one["test"] for one in verdicts(proxy)] == ["two", "one"]
    assert [one["test"] for one in verdicts(proxy, "verdicts --test one")] == ["one"]
    assert verdicts(proxy, "verdicts --test three") == []
    assert [one["seen"] for one in verdicts(proxy, "verdicts --test two")] == [2]


@pytest_twisted.ensureDeferred
async def test_other_order_of_members_is_the_same_request(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [[LIMITED], [OK]]
    proxy = bench.proxy(verdicts={"enabled": True})
    client = await bench.client(proxy)
    await client.ask(asked(body=b'{"model": "x", "n": 1}'))
    await client.ask(asked(body=b'{"n":1,"model":"x"}'))
    assert names(proxy) == ["retry_after_ignored"]


# What operators do with it.


@pytest_twisted.ensureDeferred
async def test_each_new_verdict_is_a_line_of_the_log(bench: Bench, upstream: FakeUpstream) -> None:
    lines: list[str] = []

    def observe(logged: LogEvent) -> None:
        print(logged.get("log_namespace"))
        if "watching" in str(logged.get("log_namespace")):
            lines.append(formatEvent(logged))

    globalLogPublisher.addObserver(observe)
    try:
        proxy = await play(bench, upstream, [LIMITED], [LIMITED], [LIMITED], [OK])
    finally:
        globalLogPublisher.removeObserver(observe)
    [line] = lines
    first, second, *_ = [one.request_id for one in proxy.finished]
    assert line.startswith("Verdict retry_after_ignored: The client came back after ")
    assert f"[{first}, {second}]" in line
    assert "naive/1.0 (" in line


@pytest_twisted.ensureDeferred
async def test_people_are_shown_each_with_its_proof(bench: Bench, upstream: FakeUpstream) -> None:
    proxy = await play(bench, upstream, [LIMITED], [OK])
    answer = proxy.daemon.control.run("verdicts")
    assert isinstance(answer, Answer)
    assert answer.text.startswith("problem: retry_after_ignored\n  The client came back after ")
    for one in proxy.finished:
        assert one.request_id in answer.text
    command(proxy, "verdicts clear")
    answer = proxy.daemon.control.run("verdicts")
    assert isinstance(answer, Answer)
    assert answer.text.startswith("No verdict")


@pytest_twisted.ensureDeferred
async def test_after_clear_what_was_before_is_forgotten(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [[LIMITED], [OK]]
    proxy = bench.proxy(verdicts={"enabled": True})
    client = await bench.client(proxy)
    await client.ask(asked())
    command(proxy, "verdicts clear")
    await client.ask(asked())
    assert names(proxy) == []
