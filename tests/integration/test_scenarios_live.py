"""Scenarios on real sockets: whose requests take steps, and what of it the upstream sees."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted
from bench import Bench
from twisted.internet.defer import ensureDeferred
from wireclient import Client, get, request, until

from llmproxyd.control.answers import Answer
from llmproxyd.testing.proxy import ProxyUnderTest
from llmproxyd.testing.upstream import FakeUpstream, Send, answer, json_answer

test = pytest_twisted.ensureDeferred

CHAT = b"/v1/chat/completions"
REPLY = {"id": "c-1", "object": "chat.completion", "choices": [{"index": 0, "message": {"content": "Hi"}}]}
RETRIES: dict[str, Any] = {"default": {"retry": {"max_retries": 3, "base_delay": 0.01, "jitter": "none"}}}


@pytest.fixture
def bench(upstream: FakeUpstream) -> Iterator[Bench]:
    upstream.scripts = [[Send(json_answer(REPLY))]]
    made = Bench(upstream)
    yield made
    pytest_twisted.blockon(ensureDeferred(made.close()))


def scenario(bench: Bench, text: str, **settings: Any) -> ProxyUnderTest:
    return bench.proxy(faults={"scenario": text}, **settings)


def command(proxy: ProxyUnderTest, line: str) -> Answer:
    done = proxy.daemon.control.run(line)
    assert isinstance(done, Answer)
    return done


async def statuses(client: Client, *requests: bytes) -> list[int]:
    return [(await client.ask(one)).status for one in requests]


def chat(*fields: bytes, path: bytes = CHAT, model: bytes = b"gpt-4o") -> bytes:
    return request(path, *fields, body=b'{"model":"' + model + b'","messages":[]}')


def of(name: bytes) -> bytes:
    return chat(b"x-llmproxyd-test: " + name)


@test
async def test_tests_are_told_apart_by_field_and_by_path_and_the_upstream_sees_neither(
    bench: Bench, upstream: FakeUpstream
) -> None:
    proxy = scenario(bench, "r, ok scope=test")
    client = await bench.client(proxy)
    by_path = chat(path=b"/to/openai/@b" + CHAT + b"?x=1")
    assert await statuses(client, of(b"a"), by_path, of(b"a"), by_path, chat()) == [429, 429, 200, 200, 200]
    assert [one.target for one in upstream.requests] == [CHAT, CHAT + b"?x=1", CHAT]
    fields = {name.lower() for one in upstream.requests for name, _ in one.headers}
    assert b"x-llmproxyd-test" not in fields
    assert [one.test for one in proxy.sink.finished] == ["a", "b", "a", "b", None]


@test
async def test_field_goes_before_the_path(bench: Bench) -> None:
    proxy = scenario(bench, "r, ok scope=test")
    client = await bench.client(proxy)
    both = chat(b"x-llmproxyd-test: a", path=b"/to/openai/@b" + CHAT)
    assert await statuses(client, both, of(b"a"), chat(path=b"/to/openai/@b" + CHAT)) == [429, 200, 429]


@test
async def test_same_test_on_several_connections_is_one_run(bench: Bench) -> None:
    proxy = scenario(bench, "r x2, ok, error overloaded scope=test")
    clients = [await bench.client(proxy) for _ in range(4)]
    assert [(await client.ask(of(b"a"))).status for client in clients] == [429, 429, 200, 503]


@test
async def test_models_are_read_from_bodies(bench: Bench, upstream: FakeUpstream) -> None:
    proxy = scenario(bench, "r, ok scope=model")
    client = await bench.client(proxy)
    asked = [chat(model=b"gpt-4o"), chat(model=b"o3"), chat(model=b"gpt-4o"), chat(model=b"o3")]
    assert await statuses(client, *asked) == [429, 429, 200, 200]
    assert upstream.requests[0].body == b'{"model":"gpt-4o","messages":[]}'


@test
async def test_step_for_some_requests_waits_for_them(bench: Bench) -> None:
    proxy = scenario(bench, "r model=o3*, error overloaded stream=yes, ok")
    client = await bench.client(proxy)
    stream = request(CHAT, body=b'{"model":"gpt-4o","stream":true,"messages":[]}')
    asked = [chat(), stream, chat(model=b"o3-mini"), chat(model=b"o3"), stream, stream]
    assert await statuses(client, *asked) == [200, 200, 429, 200, 503, 200]


@test
async def test_only_inference_takes_steps(bench: Bench) -> None:
    proxy = scenario(bench, "r, ok")
    client = await bench.client(proxy)
    assert await statuses(client, get(b"/v1/models"), get(b"/health"), chat(), chat()) == [200, 200, 429, 200]


@test
async def test_refused_requests_take_no_step(bench: Bench) -> None:
    proxy = scenario(bench, "r, ok", server={"max_body": 10_000})
    client = await bench.client(proxy)
    large = await bench.client(proxy)
    assert (await large.ask(request(CHAT, body=b"x" * 20_000))).status == 413
    assert await statuses(client, chat(path=b"/to/nobody" + CHAT), chat(), chat()) == [404, 429, 200]


@test
async def test_attempts_take_the_steps_of_an_upstream_and_the_client_sees_the_last(
    bench: Bench, upstream: FakeUpstream
) -> None:
    proxy = scenario(bench, "error overloaded x2, ok, u x4 place=upstream", resilience=RETRIES)
    client = await bench.client(proxy)
    assert await statuses(client, chat(), chat()) == [200, 500]
    assert len(upstream.requests) == 1
    first, second = proxy.sink.finished
    assert (first.attempts, second.attempts) == (3, 4)
    # Its client was answered: what the attempts met with is no fault of the client's side.
    told: Any = command(proxy, "scenario export").data
    assert told["line"] == "ok, error server_error"
    assert await statuses(client, chat()) == [200]


@test
async def test_export_as_from_the_upstream_is_every_attempt(bench: Bench, upstream: FakeUpstream) -> None:
    failing = [Send(json_answer({"error": {"message": "later"}}, status=b"503 Service Unavailable"))]
    upstream.scripts = [failing, failing, [Send(json_answer(REPLY))], failing, [Send(json_answer(REPLY))]]
    proxy = bench.proxy(resilience=RETRIES)
    client = await bench.client(proxy)
    assert await statuses(client, chat(), chat(), chat()) == [200, 200, 200]
    done = command(proxy, "scenario export place=upstream")
    assert done.data is not None
    assert done.data["line"] == "error overloaded x2, ok, error overloaded, ok *"  # type: ignore[index]
    assert command(proxy, "scenario export").data["line"] == "ok *"  # type: ignore[index]
    # The same again, with an upstream that is well.
    again = scenario(bench, f"{done.data['line']} place=upstream", resilience=RETRIES)  # type: ignore[index]
    client = await bench.client(again)
    assert await statuses(client, chat(), chat(), chat()) == [200, 200, 200]
    assert [one.attempts for one in again.sink.finished] == [one.attempts for one in proxy.sink.finished]


@test
async def test_streams_that_break_off_are_exported_as_they_broke(
    bench: Bench, upstream: FakeUpstream
) -> None:
    body = b'data: {"choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n'
    whole = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\ncontent-length: 500\r\n\r\n"
    from llmproxyd.testing.upstream import Close

    upstream.scripts = [[Send(whole + body), Close()], [Send(json_answer(REPLY))]]
    proxy = bench.proxy()
    client = await bench.client(proxy)
    broken = await client.ask(chat())
    assert broken.body == body
    data: Any = command(proxy, "scenario export").data
    assert data["line"] == f"cut at={len(body)}B"


@test
async def test_scenario_changes_nothing_for_what_passes(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [[Send(answer(b'{"a":  1}', b"X-Odd: Case", b"content-type: application/json"))]]
    plain, other = bench.proxy(), scenario(bench, "ok x5, r scope=test")
    answers = []
    for proxy in (plain, other):
        client = await bench.client(proxy)
        got = await client.ask(of(b"a"))
        answers.append((got.status, got.body, [one for one in got.headers if one[0].lower() != b"date"]))
    assert answers[0] == answers[1]
    seen = [[one for one in sent.headers if one[0].lower() != b"host"] for sent in upstream.requests]
    assert seen[0] == seen[1]


@test
async def test_rehearsed_faults_are_exported_with_their_options(bench: Bench) -> None:
    line = "error quota retry_after=7.5, status=418, cut at=start, ok, delay for=10ms"
    proxy = scenario(bench, line)
    for number in range(1, 6):
        client = await bench.client(proxy)
        client.send(chat())
        await until(lambda number=number: len(proxy.sink.finished) == number, "its end")
    told: Any = command(proxy, "scenario export").data
    assert told["line"] == line
