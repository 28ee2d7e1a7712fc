"""Who may ask for a failure of their own, and that nothing secret is told of anybody."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator

import pytest
import pytest_twisted
from doorbench import (
    CANARY,
    CHAT,
    DoorBench,
    bearer,
    chat,
    check_refused,
    models,
)
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.logger import LogEvent, eventAsText, globalLogPublisher
from wireclient import get, request, until

from llmproxyd.access.allowlist import Allow
from llmproxyd.access.projects import Limits, Scope
from llmproxyd.access.tokens import new_token
from llmproxyd.control.answers import Answer
from llmproxyd.model import ErrorNoted, Recorded
from llmproxyd.testing.upstream import Close, FakeUpstream, Send, json_answer

test = pytest_twisted.ensureDeferred

FAULT = b"x-llmproxyd-fault: r"


@pytest.fixture
def door(upstream: FakeUpstream) -> Iterator[DoorBench]:
    made = DoorBench(upstream)
    yield made
    pytest_twisted.blockon(ensureDeferred(made.close()))


@test
async def test_token_with_the_scope_may_ask_for_its_own_fault(
    door: DoorBench, upstream: FakeUpstream
) -> None:
    proxy = await door.gateway()
    token = await door.token(scopes=frozenset({Scope.FAULT}))
    client = await door.client(proxy)
    got = await client.ask(chat(token, FAULT))
    assert got.status == 429
    assert got.get(b"x-llmproxyd-error") == b"injected"
    check_refused(await client.ask(chat(token, b"X-LLMproxyd-Fault: what?")), 400, "bad_fault")
    assert not upstream.requests
    assert (await client.ask(chat(token))).status == 200


@pytest.mark.parametrize("scopes", [frozenset(), frozenset({Scope.ADMIN})])
@pytest.mark.parametrize("header", [True, False])
@test
async def test_field_is_ignored_without_the_scope_and_goes_nowhere(
    door: DoorBench, upstream: FakeUpstream, scopes: frozenset[Scope], header: bool
) -> None:
    """What the configuration allows to all is for proxies without a door."""
    operator = {"stdin": False, "faults": True}
    proxy = await door.gateway(faults={"header": header}, operator=operator)
    token = await door.token(scopes=scopes)
    client = await door.client(proxy)
    assert (await client.ask(chat(token, FAULT))).status == 200
    assert (await client.ask(chat(token, b"x-llmproxyd-fault: what?"))).status == 200
    assert len(upstream.requests) == 2
    for sent in upstream.requests:
        assert b"llmproxyd" not in sent.raw


@test
async def test_fault_needs_a_token_first(door: DoorBench, upstream: FakeUpstream) -> None:
    proxy = await door.gateway(faults={"header": True})
    client = await door.client(proxy)
    check_refused(await client.ask(chat(None, FAULT)), 401, "token_missing")


@test
async def test_without_access_the_configuration_decides(door: DoorBench, upstream: FakeUpstream) -> None:
    allowed, ignored = door.proxy(faults={"header": True}), door.proxy()
    assert (await (await door.client(allowed)).ask(chat(None, FAULT))).status == 429
    assert (await (await door.client(ignored)).ask(chat(None, FAULT))).status == 200


@test
async def test_nobody_breaks_customers_by_a_stray_key(door: DoorBench, upstream: FakeUpstream) -> None:
    guarded, open_ = await door.gateway(), door.proxy()
    assert guarded.daemon.config.operator.faults is False
    assert open_.daemon.config.operator.faults is True
    # Where there is an audit log, an answer comes when what was asked for is on record.
    refused = guarded.daemon.control.run("c")
    assert not (await refused if isinstance(refused, Deferred) else refused).ok
    taken = open_.daemon.control.run("c")
    assert isinstance(taken, Answer)
    assert taken.ok
    token = await door.token()
    assert (await (await door.client(guarded)).ask(chat(token))).status == 200


@test
async def test_armed_fault_hits_only_who_was_let_in(door: DoorBench, upstream: FakeUpstream) -> None:
    proxy = await door.gateway(operator={"stdin": False, "faults": True}, faults={"mode": "r 1"})
    token = await door.token(await door.project(allow=Allow(params={"model": ("gpt-4o",)})))
    client = await door.client(proxy)
    check_refused(await client.ask(chat(None)), 401, "token_missing")
    check_refused(await client.ask(chat(token, body=b'{"model":"x"}')), 403, "model_not_allowed")
    got = await client.ask(chat(token))
    assert got.get(b"x-llmproxyd-error") == b"injected"
    assert (await client.ask(chat(token))).status == 200


@test
async def test_nothing_of_token_or_credential_is_told_anywhere(
    door: DoorBench, upstream: FakeUpstream
) -> None:
    """Every log there is is on, and the upstream echoes what it was sent."""
    told = io.StringIO()

    def observe(event: LogEvent) -> None:
        told.write(eventAsText(event) + "\n" + repr(event) + "\n")

    globalLogPublisher.addObserver(observe)
    folder = door.folder
    settings = {
        "logging": {"enabled": True, "level": "debug", "folder": str(folder / "requests")},
        "error_logging": {"enabled": True, "folder": str(folder / "errors")},
        "events": {
            "usage": True,
            "capture": {"request": 1000, "response": 1000},
            "dispatch": [{"to": "file", "path": str(folder / "events.jsonl"), "every": 0.05}],
        },
        "audit": {"file": str(folder / "audit.jsonl")},
        "resilience": {"default": {"retry": {"max_retries": 1, "base_delay": 0.01}}},
    }
    try:
        proxy = await door.gateway(store="sqlite", **settings)
        project = await door.project(
            limits=Limits(rpm=1000), allow=Allow(params={"model": ("gpt-4o", "echo")})
        )
        token, unknown = await door.token(project), new_token(b"u" * 16)
        off = await door.token(project, active=False)

        def echo() -> list[object]:
            request = upstream.requests[-1]
            fields = {name.decode(): value.decode("latin-1") for name, value in request.headers}
            if b"drop" in request.target:
                return [Close()]
            status = b"500 Oh" if b"fail" in request.target else b"200 OK"
            auth = fields.get("authorization", "")
            message = f"Incorrect API key provided: {auth.removeprefix('Bearer ')}."
            return [Send(json_answer({"error": {"message": message}, "echo": fields}, status=status))]

        upstream.next_script = echo  # type: ignore[method-assign,assignment]
        client = await door.client(proxy)
        for text in (token, unknown, off):
            for data in (
                chat(text),
                chat(text, target=CHAT + b"?fail=1&key=" + text.encode()),
                chat(text, target=CHAT + b"?drop&k%65y=" + text.encode()),
                chat(text, b"X-Mine: " + text.encode(), body=b'{"model":"no"}'),
                chat(text, body=b"{"),
                models(text, target=b"/to/none/" + b"?key=" + text.encode()),
                get(b"/v1/models?key=" + text.encode()),
                request(CHAT, b"x-goog-api-key: " + text.encode(), bearer(text)),
            ):
                await client.ask(data)
        assert len(upstream.requests) > 5
        await until(lambda: not proxy.daemon.pipeline.active)
        for event in proxy.sink.events:
            # What upstreams say stands in these as it came; whoever writes it down takes secrets out.
            if not isinstance(event, ErrorNoted | Recorded):
                told.write(repr(event))
        told.write(repr(proxy.daemon.pages.details()) + proxy.log.getvalue())
        told.write(str(proxy.daemon.works.metrics.render()))
        stopping = proxy.stop()
        if stopping is not None:
            await stopping
        door._proxies.remove(proxy)
    finally:
        globalLogPublisher.removeObserver(observe)
    files = [path for path in folder.rglob("*") if path.is_file() and ".db" not in path.name]
    texts = {str(path): path.read_text(errors="replace") for path in files}
    assert any("requests" in name for name in texts)
    assert any("errors" in name for name in texts)
    assert "Denied" in told.getvalue()
    texts["told"] = told.getvalue()
    for name, text in texts.items():
        for secret in (token, unknown, off, CANARY):
            at = text.find(secret)
            assert at < 0, f"{name}: {text[max(at - 200, 0) : at + 80]}"
    raw = b"".join(path.read_bytes() for path in folder.glob("*.db*"))
    for secret in (token, off, CANARY):
        assert secret.encode() not in raw
    lines = [json.loads(line) for line in texts[str(folder / "events.jsonl")].splitlines()]
    assert {line.get("project") for line in lines} >= {project.id}
