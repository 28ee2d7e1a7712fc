"""What counts as a request of a token, and how soon a change is seen."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted
from doorbench import (
    BODY,
    CHAT,
    MODELS,
    OK,
    DoorBench,
    SlowStore,
    bearer,
    chat,
    check_refused,
    door_of,
    key_for,
    models,
    nowhere,
)
from twisted.internet.defer import ensureDeferred, gatherResults
from wireclient import get, pause, request, until

from llmproxyd.access.allowlist import Allow
from llmproxyd.access.projects import Limits
from llmproxyd.redaction import Secret
from llmproxyd.store import statements
from llmproxyd.store.lane import Lane
from llmproxyd.testing.upstream import FakeUpstream, Gate, Send, Stall, json_answer

test = pytest_twisted.ensureDeferred


@pytest.fixture
def door(upstream: FakeUpstream) -> Iterator[DoorBench]:
    made = DoorBench(upstream)
    yield made
    pytest_twisted.blockon(ensureDeferred(made.close()))


REFUSED: list[tuple[str, dict[str, Any], bytes]] = [
    ("upstream_not_allowed", {"credentials": {"groq": "k"}}, chat(None)),
    ("endpoint_not_allowed", {"allow": Allow(endpoints=("/v1/models",))}, chat(None)),
    ("method_not_allowed", {"allow": Allow(methods=("GET",))}, chat(None)),
    ("model_not_allowed", {"allow": Allow(params={"model": ("other",)})}, chat(None)),
    ("malformed_body", {"allow": Allow(params={"model": ("other",)})}, chat(None, body=b"{")),
    ("bad_framing", {"allow": Allow(params={"model": ("other",)})}, b""),
]


@pytest.mark.parametrize(("code", "project", "data"), REFUSED, ids=[one[0] for one in REFUSED])
@test
async def test_refused_request_does_not_count(
    door: DoorBench, upstream: FakeUpstream, code: str, project: dict[str, Any], data: bytes
) -> None:
    proxy = await door.gateway()
    token = await door.token(await door.project(**project), max_requests=2)
    head = b"\r\n" + bearer(token) + b"\r\nHost"
    asked = data.replace(b"\r\nHost", head, 1) or (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n" + bearer(token) + b"\r\nContent-Type: "
        b"application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
    )
    for _ in range(4):
        client = await door.client(proxy)
        got = await client.ask(asked)
        assert got.get(b"x-llmproxyd-code") == code.encode(), got.raw
    assert await door.counted(proxy, token) == 0
    assert not upstream.requests
    await door_of(proxy).stop()
    assert [row.requests for row in (await door.store.usage("token", "2000-01-01")) if row.requests] == []


@test
async def test_request_that_was_refused_for_its_rate_does_not_count(door: DoorBench) -> None:
    proxy = await door.gateway()
    token = await door.token(limits=Limits(rpm=2), max_requests=100)
    client = await door.client(proxy)
    statuses = [(await client.ask(chat(token))).status for _ in range(5)]
    assert statuses == [200, 200, 429, 429, 429]
    assert await door.counted(proxy, token) == 2


@test
async def test_open_breaker_and_body_that_is_too_large_do_not_count(
    door: DoorBench, upstream: FakeUpstream
) -> None:
    breaker = {"enabled": True, "failure_threshold": 1, "recovery_timeout": 60}
    proxy = await door.gateway(resilience={"default": {"breaker": breaker}}, server={"max_body": 100})
    token = await door.token()
    client = await door.client(proxy)
    upstream.scripts = [[Send(json_answer({}, status=b"503 No"))]]
    assert (await client.ask(chat(token))).status == 503
    assert await door.counted(proxy, token) == 1
    check_refused(await client.ask(chat(token)), 503, "circuit_open")
    assert (await client.ask(chat(token, body=b"x" * 101))).status == 413
    assert await door.counted(proxy, token) == 1


@test
async def test_failed_answer_and_injected_failure_count(door: DoorBench, upstream: FakeUpstream) -> None:
    proxy = await door.gateway(operator={"stdin": False, "faults": True}, faults={"mode": "r 1"})
    token = await door.token()
    client = await door.client(proxy)
    assert (await client.ask(chat(token))).status == 429
    upstream.scripts = [[Send(json_answer({}, status=b"400 Bad"))]]
    assert (await client.ask(chat(token))).status == 400
    assert await door.counted(proxy, token) == 2


@test
async def test_max_requests_is_exact_under_concurrency(door: DoorBench, upstream: FakeUpstream) -> None:
    """Refused ones in between, a cold token, and every connection at once."""
    proxy = await door.gateway(store="sqlite")
    project = await door.project(allow=Allow(params={"model": ("gpt-4o",)}))
    token = await door.token(project, max_requests=37)
    clients = await gatherResults([ensureDeferred(door.client(proxy)) for _ in range(40)])
    bad = chat(token, body=b'{"model":"other"}')
    for client in clients:
        client.send((chat(token) + bad) * 3)
    answers = [[await client.answer() for _ in range(6)] for client in clients]
    good = [one.status for all in answers for one in all[::2]]
    refused = [one.status for all in answers for one in all[1::2]]
    assert good.count(200) == 37
    assert good.count(429) == 120 - 37
    assert set(refused) <= {403, 429}
    assert len(upstream.requests) == 37
    assert await door.counted(proxy, token) == 37
    got = await clients[0].ask(chat(token))
    check_refused(got, 429, "rate_limit_exceeded")
    assert got.get(b"retry-after") == b"86400"
    await door_of(proxy).stop()
    (row,) = await door.store.usage("token", "2000-01-01")
    assert row.requests == 37


# Changes.


@test
async def test_revocation_acts_on_the_next_request_of_a_connection(
    door: DoorBench, upstream: FakeUpstream
) -> None:
    proxy = await door.gateway()
    token = await door.token()
    client = await door.client(proxy)
    for _ in range(3):
        assert (await client.ask(chat(token))).status == 200
        await door.change_token(proxy, token, active=False)
        check_refused(await client.ask(chat(token)), 401, "token_inactive")
        await door.change_token(proxy, token, active=True)
    assert len(upstream.connections) == 1
    assert len(upstream.requests) == 3


@test
async def test_requests_that_are_pipelined_behind_a_revocation_are_refused(
    door: DoorBench, upstream: FakeUpstream
) -> None:
    proxy = await door.gateway()
    token = await door.token()
    client = await door.client(proxy)
    gate = Gate()
    upstream.scripts = [[gate, OK]]
    client.send(chat(token) * 3)
    await until(lambda: gate.reached)
    await door.change_token(proxy, token, active=False)
    gate.open()
    assert [(await client.answer()).status for _ in range(3)] == [200, 401, 401]


@test
async def test_rotated_credential_is_used_at_once(door: DoorBench, upstream: FakeUpstream) -> None:
    proxy = await door.gateway()
    project = await door.project()
    token = await door.token(project)
    client = await door.client(proxy)
    await client.ask(chat(token))
    await door.change(proxy, project, credentials={"openai": Secret("sk-new-credential")})
    await client.ask(chat(token))
    await door.change(proxy, project, credentials={})
    check_refused(await client.ask(chat(token)), 403, "upstream_not_allowed")
    old, new = upstream.requests
    assert old.all(b"authorization") == [b"Bearer " + key_for("openai").encode()]
    assert new.all(b"authorization") == [b"Bearer sk-new-credential"]
    nowhere(new, key_for("openai"))


@test
async def test_changed_allowlist_and_limits_of_a_project_hold_at_once(
    door: DoorBench, upstream: FakeUpstream
) -> None:
    proxy = await door.gateway()
    project = await door.project()
    token = await door.token(project)
    client = await door.client(proxy)
    assert (await client.ask(chat(token))).status == 200
    await door.change(proxy, project, allow=Allow(params={"model": ("other",)}))
    check_refused(await client.ask(chat(token)), 403, "model_not_allowed")
    await door.change(proxy, project, allow=Allow(endpoints=("/v1/models",)))
    check_refused(await client.ask(chat(token)), 403, "endpoint_not_allowed")
    await door.change(proxy, project, limits=Limits(rpm=1))
    assert [(await client.ask(chat(token))).status for _ in range(2)] == [200, 429]
    await door.change(proxy, project, active=False)
    check_refused(await client.ask(chat(token)), 403, "project_inactive")


@test
async def test_change_by_another_process_is_seen_within_a_second(
    door: DoorBench, upstream: FakeUpstream
) -> None:
    """The store is told of it, and this door is not."""
    proxy = await door.gateway(store="sqlite")
    project = await door.project()
    token = await door.token(project)
    client = await door.client(proxy)
    assert (await client.ask(chat(token))).status == 200
    await door.store.delete_project(project.id)
    await pause(1.0)
    check_refused(await client.ask(chat(token)), 401, "token_not_found")


@test
async def test_refusal_keeps_nothing_of_the_requests_that_it_ended(door: DoorBench) -> None:
    """It is worked out once for a connection, and raised for each request on it."""
    proxy = await door.gateway()
    project = await door.project(allow=Allow(endpoints=("/v1/models",)))
    token = await door.token(project)
    client = await door.client(proxy)
    seen: list[Any] = []
    begin = proxy.daemon.pipeline._begin

    def watched(*arguments: Any) -> Any:
        exchange = begin(*arguments)
        seen.append(exchange)
        return exchange

    proxy.daemon.pipeline._begin = watched  # type: ignore[method-assign]
    for _ in range(3):
        check_refused(await client.ask(chat(token)), 403, "endpoint_not_allowed")
    plan = seen[-1].plan
    assert plan is seen[0].plan
    assert plan.granted.refusal.__traceback__ is None


# Clients that leave, stores that do not answer.


@test
async def test_client_that_leaves_while_the_store_is_asked_leaves_nothing(
    door: DoorBench, upstream: FakeUpstream
) -> None:
    store = SlowStore()
    proxy = await door.gateway(store=store)
    token = await door.token()
    store.slow = True
    gone = await gatherResults([ensureDeferred(door.client(proxy)) for _ in range(5)])
    stays = await door.client(proxy)
    for client in (*gone, stays):
        client.send(chat(token))
    await until(lambda: len(proxy.daemon.pipeline.active) == 6)
    for client in gone:
        client.transport.abortConnection()
    await until(lambda: len(proxy.finished) == 5)
    assert {(one.status, one.code) for one in proxy.finished} == {(499, "client_gone")}
    assert not upstream.requests
    store.slow = False
    store.release()
    assert (await stays.answer()).status == 200
    assert len(upstream.requests) == 1
    assert await door.counted(proxy, token) == 1
    assert not proxy.daemon.pipeline.active
    assert store.calls["asked"] == 1


@test
async def test_client_that_leaves_while_its_body_is_read_does_not_count(
    door: DoorBench, upstream: FakeUpstream
) -> None:
    proxy = await door.gateway()
    token = await door.token(await door.project(allow=Allow(params={"model": ("gpt-4o",)})))
    client = await door.client(proxy)
    client.send(chat(token)[:-5])
    await until(lambda: len(proxy.daemon.pipeline.active) == 1)
    await until(lambda: door_of(proxy)._remembered.entries)
    assert await door.counted(proxy, token) == 1
    client.transport.abortConnection()
    await until(lambda: proxy.finished)
    assert await door.counted(proxy, token) == 0
    assert not upstream.requests


@test
async def test_client_that_leaves_after_its_request_was_sent_counts(
    door: DoorBench, upstream: FakeUpstream
) -> None:
    proxy = await door.gateway()
    token = await door.token()
    upstream.scripts = [[Stall()]]
    client = await door.client(proxy)
    client.send(chat(token))
    await until(lambda: upstream.requests)
    client.transport.abortConnection()
    await until(lambda: proxy.finished)
    assert await door.counted(proxy, token) == 1


@test
async def test_store_that_hangs_is_told_in_bounded_time(
    door: DoorBench, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(Lane.run.__kwdefaults__ or {}, "deadline", 0.3)
    proxy = await door.gateway(store="sqlite")
    token, cold = await door.token(), await door.token()
    client, other = await door.client(proxy), await door.client(proxy)
    assert (await client.ask(chat(token))).status == 200
    hang = threading.Event()
    select = statements.select_token

    def hanging(*arguments: Any) -> Any:
        hang.wait(8)
        return select(*arguments)

    monkeypatch.setattr(statements, "select_token", hanging)
    started = time.monotonic()
    other.send(chat(cold))
    assert (await client.ask(chat(token))).status == 200  # nobody else is held up
    assert time.monotonic() - started < 0.2
    check_refused(await other.answer(), 503, "store_unavailable")
    assert time.monotonic() - started < 1.5
    hang.set()
    await until(lambda: proxy.daemon.works.gateway.ready)
    assert (await other.ask(chat(cold))).status == 200


@test
async def test_thousand_requests_with_one_cold_token_at_once(door: DoorBench, upstream: FakeUpstream) -> None:
    proxy = await door.gateway(store="sqlite")
    token = await door.token()
    clients = await gatherResults([ensureDeferred(door.client(proxy)) for _ in range(100)])
    for client in clients:
        client.send(models(token) * 10)
    for client in clients:
        assert [(await client.answer()).status for _ in range(10)] == [200] * 10
    assert await door.counted(proxy, token) == 1000
    await until(lambda: not proxy.daemon.pipeline.active)


@test
async def test_hundreds_of_cold_tokens_at_once_are_let_in_or_told_to_come_again(
    door: DoorBench, upstream: FakeUpstream
) -> None:
    proxy = await door.gateway(store="sqlite")
    project = await door.project()
    tokens = await gatherResults([ensureDeferred(door.token(project)) for _ in range(450)])
    clients = [await door.client(proxy) for _ in range(450)]
    for client, token in zip(clients, tokens, strict=True):
        client.send(models(token))
    answers = [await client.answer() for client in clients]
    statuses = [one.status for one in answers]
    assert set(statuses) <= {200, 503}
    assert statuses.count(200) >= 400
    for one in answers:
        if one.status == 503:
            check_refused(one, 503, "store_unavailable")
            assert one.get(b"retry-after") == b"1"
    assert len(upstream.requests) == statuses.count(200)


@test
async def test_body_that_comes_before_the_stores_word_is_sent_on_whole(
    door: DoorBench, upstream: FakeUpstream
) -> None:
    store = SlowStore()
    proxy = await door.gateway(store=store)
    token = await door.token()
    store.slow = True
    client = await door.client(proxy)
    body = b'{"x":"' + b"y" * 200_000 + b'"}'
    client.send(request(CHAT, bearer(token), body=body))
    await until(lambda: store.waiting)
    await pause(0.05)
    store.slow = False
    store.release()
    assert (await client.answer()).status == 200
    assert upstream.requests[0].body == body


@test
async def test_stop_while_the_store_is_asked_answers_503(door: DoorBench, upstream: FakeUpstream) -> None:
    store = SlowStore()
    proxy = await door.gateway(store=store)
    token = await door.token()
    store.slow = True
    client = await door.client(proxy)
    client.send(get(MODELS, bearer(token)) + request(CHAT, bearer(token), body=BODY))
    await until(lambda: store.waiting)
    proxy.daemon.pipeline.cut_all()
    check_refused(await client.answer(), 503, "shutting_down")
    store.slow = False
    store.release()
    await until(lambda: not proxy.daemon.pipeline.active)


@test
async def test_what_is_revalidated_behind_a_clients_back_gives_nothing_back(
    door: DoorBench, upstream: FakeUpstream
) -> None:
    """The request that was answered counts; that its entry could not be renewed changes nothing."""
    fields = [b"cache-control: public, max-age=0, stale-while-revalidate=60", b'etag: "a"']
    upstream.scripts = [[Send(json_answer({"ok": True}, *fields))]]
    breaker = {"enabled": True, "failure_threshold": 1, "recovery_timeout": 60}
    proxy = await door.gateway(cache={"enabled": True}, resilience={"default": {"breaker": breaker}})
    token = await door.token()
    client = await door.client(proxy)
    assert (await client.ask(models(token))).status == 200
    upstream.scripts = [[Send(json_answer({}, status=b"503 No"))]]
    assert (await client.ask(chat(token))).status == 503
    for _ in range(3):
        got = await client.ask(models(token))
        assert got.status == 200, got.raw
        assert b"hit" in (got.get(b"cache-status") or b""), got.raw
    await until(lambda: not proxy.daemon.pipeline.active)
    assert len(upstream.requests) == 2
    assert await door.counted(proxy, token) == 5


@test
async def test_hit_counts_and_needs_a_token(door: DoorBench, upstream: FakeUpstream) -> None:
    upstream.scripts = [[Send(json_answer({"ok": True}, b"cache-control: public, max-age=60"))]]
    proxy = await door.gateway(cache={"enabled": True})
    token = await door.token(max_requests=3)
    client = await door.client(proxy)
    statuses = [(await client.ask(models(token))).status for _ in range(4)]
    assert statuses == [200, 200, 200, 429]
    check_refused(await client.ask(models(None)), 401, "token_missing")
    assert len(upstream.requests) == 1
