"""What a site brings of its own: who may ask, what is kept, what is told."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import pytest_twisted
from bench import reactor
from library import Workshop
from twisted.internet.defer import Deferred, ensureDeferred, succeed
from twisted.internet.task import deferLater
from twisted.logger import LogEvent, Logger, LogLevel
from wireclient import Answer, get, pause, request, until
from zope.interface.verify import verifyObject

from llmproxyd.access.allowlist import Allow
from llmproxyd.access.projects import Limits
from llmproxyd.cache.interface import Entry, Purge
from llmproxyd.cache.memory import MemoryCache
from llmproxyd.library import door, guarded
from llmproxyd.library.interfaces import (
    Conflict,
    ExpiredToken,
    IAuditLogger,
    ICache,
    IEventBus,
    InactiveToken,
    InvalidToken,
    IProjectStore,
    ITokenValidator,
    LimitReached,
    Project,
    ProjectNotFound,
    StoreUnavailable,
)
from llmproxyd.library.resource import ProxyMetrics, ProxyResource, configured
from llmproxyd.redaction import Secret
from llmproxyd.testing.library import MemoryAudit, MemoryBus, MemoryProjects, MemoryValidator
from llmproxyd.testing.upstream import (
    LAST_CHUNK,
    FakeUpstream,
    Send,
    answer,
    chunk,
    event,
    json_answer,
    stream_head,
)

CHAT = b"/v1/chat/completions"
TOKEN = "sk-AAAAAAAAAAAAAAAAAAAAAA"
KEY = "sk-the-providers-own-key-1234"
USAGE = {"model": "gpt-4o", "usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}}
SITES = pytest.mark.parametrize("site", ["stock", "ours"])


@pytest.fixture
def workshop(upstream: FakeUpstream) -> Iterator[Workshop]:
    upstream.scripts = [[Send(json_answer(USAGE))]]
    made = Workshop(upstream)
    yield made
    pytest_twisted.blockon(ensureDeferred(made.close()))


def chat(token: str | None = TOKEN, *fields: bytes, path: bytes = CHAT) -> bytes:
    presented = () if token is None else (b"Authorization: Bearer " + token.encode(),)
    return request(path, *presented, *fields, body=b'{"model": "gpt-4o"}')


class Brought:
    """The parts of one site."""

    def __init__(self) -> None:
        self.validator = MemoryValidator({TOKEN: "team"})
        self.projects = MemoryProjects({"team": KEY})
        self.audit = MemoryAudit()
        self.bus = MemoryBus()
        self.log: list[LogEvent] = []

    @property
    def parts(self) -> dict[str, Any]:
        return {
            "validator": self.validator,
            "projects": self.projects,
            "audit": self.audit,
            "bus": self.bus,
            "logger": self.log.append,
        }

    @property
    def lines(self) -> str:
        return "\n".join(f"{one}" for one in self.log)


@pytest.fixture
def brought() -> Brought:
    return Brought()


async def asked(workshop: Workshop, parts: dict[str, Any], sent: bytes | None = None, **more: Any) -> Answer:
    proxy = await workshop.serve(parts, **more)
    client = await workshop.client(proxy)
    got: Answer = await client.ask(sent or chat())
    return got


def test_parts_in_memory_provide_what_they_stand_for(brought: Brought) -> None:
    verifyObject(ITokenValidator, brought.validator)
    verifyObject(IProjectStore, brought.projects)
    verifyObject(IAuditLogger, brought.audit)
    verifyObject(IEventBus, brought.bus)
    verifyObject(ICache, MemoryCache(1000))


@SITES
@pytest_twisted.ensureDeferred
async def test_token_is_replaced_by_the_projects_key(
    workshop: Workshop, upstream: FakeUpstream, brought: Brought, site: str
) -> None:
    got = await asked(workshop, brought.parts, site=site)
    assert (got.status, got.json) == (200, USAGE)
    (sent,) = upstream.requests
    assert sent.all(b"authorization") == [b"Bearer " + KEY.encode()]
    assert TOKEN.encode() not in sent.raw
    assert brought.validator.tracked == {TOKEN: 1}


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (InvalidToken(), 401, b"token_not_found"),
        (InactiveToken(), 401, b"token_inactive"),
        (ExpiredToken(), 401, b"token_expired"),
        (ProjectNotFound(), 401, b"token_not_found"),
        (LimitReached(2.5), 429, b"rate_limit_exceeded"),
        (StoreUnavailable("down"), 503, b"store_unavailable"),
        (RuntimeError(f"broken by {TOKEN}"), 503, b"store_unavailable"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_error_of_the_validator_has_its_answer(
    workshop: Workshop, upstream: FakeUpstream, brought: Brought, error: Exception, status: int, code: bytes
) -> None:
    brought.validator.error = error
    got = await asked(workshop, brought.parts)
    assert (got.status, got.get(b"x-llmproxyd-code")) == (status, code)
    if status == 429:
        assert got.get(b"retry-after") == b"3"
    if status == 503:
        assert got.get(b"retry-after") == b"1"
    assert b"broken" not in got.body
    assert b"Traceback" not in got.body
    assert TOKEN not in brought.lines
    assert not upstream.requests


@pytest.mark.parametrize("error", [StoreUnavailable("down"), ProjectNotFound(), KeyError(KEY)])
@pytest_twisted.ensureDeferred
async def test_error_of_the_store_has_its_answer(
    workshop: Workshop, upstream: FakeUpstream, brought: Brought, error: Exception
) -> None:
    brought.projects.error = error
    got = await asked(workshop, brought.parts)
    assert got.status == (401 if isinstance(error, ProjectNotFound) else 503)
    assert KEY not in brought.lines
    assert not upstream.requests


@pytest_twisted.ensureDeferred
async def test_outage_is_logged_once_and_its_end(workshop: Workshop, brought: Brought) -> None:
    proxy = await workshop.serve(brought.parts)
    client = await workshop.client(proxy)
    brought.validator.error = RuntimeError("no connection")
    for _ in range(3):
        assert (await client.ask(chat())).status == 503
    brought.validator.error = None
    assert (await client.ask(chat())).status == 200
    told = [one for one in brought.log if "okens can" in str(one.get("message", one["log_format"]))]
    assert [one["log_level"] for one in told] == [LogLevel.critical, LogLevel.info]
    assert "no connection" in told[0]["trace"]


@pytest_twisted.ensureDeferred
async def test_request_without_a_token_asks_nobody(workshop: Workshop, brought: Brought) -> None:
    got = await asked(workshop, brought.parts, chat(None))
    assert (got.status, got.get(b"x-llmproxyd-code")) == (401, b"token_missing")
    assert not brought.validator.tracked


class Slow(MemoryValidator):
    """Answers when it likes."""

    def __init__(self, answers: Any) -> None:
        super().__init__({TOKEN: "team"})
        self.answers = answers

    def validate_with_tracking(self, token: str) -> Any:
        return self.answers()


async def _coroutine() -> str:
    await deferLater(reactor, 0.01)
    return "team"


@pytest.mark.parametrize("answers", [lambda: deferLater(reactor, 0.01, lambda: "team"), _coroutine])
@pytest_twisted.ensureDeferred
async def test_deferreds_and_coroutines_are_waited_for(
    workshop: Workshop, brought: Brought, answers: Any
) -> None:
    got = await asked(workshop, brought.parts | {"validator": Slow(answers)})
    assert got.status == 200


async def _stubborn() -> str:
    while True:
        try:
            await Deferred()
        except Exception:
            continue


@pytest.mark.parametrize("answers", [Deferred, _stubborn])
@pytest_twisted.ensureDeferred
async def test_validator_that_never_answers_is_not_waited_for(
    workshop: Workshop, brought: Brought, answers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "TIMEOUT", 0.1)
    got = await asked(workshop, brought.parts | {"validator": Slow(answers)})
    assert (got.status, got.get(b"x-llmproxyd-code")) == (503, b"store_unavailable")
    assert "no answer within" in brought.lines


@pytest.mark.parametrize("told", [None, "", 7, b"team"])
@pytest_twisted.ensureDeferred
async def test_validator_that_tells_no_project_lets_nobody_in(
    workshop: Workshop, upstream: FakeUpstream, brought: Brought, told: object
) -> None:
    got = await asked(workshop, brought.parts | {"validator": Slow(lambda: told)})
    assert got.status == 503
    assert not upstream.requests


@pytest.mark.parametrize("key", [f"{KEY}\n", "sk-a\r\nX-Evil: 1", "schlüssel", "two words"])
@pytest_twisted.ensureDeferred
async def test_key_that_cannot_be_sent_is_not(
    workshop: Workshop, upstream: FakeUpstream, brought: Brought, key: str
) -> None:
    brought.projects.keys["team"] = key
    got = await asked(workshop, brought.parts)
    assert got.status == 503
    assert not upstream.requests
    assert "credentials.openai" in brought.lines
    assert key.strip() not in brought.lines


@pytest_twisted.ensureDeferred
async def test_key_goes_to_the_default_upstream_alone(
    workshop: Workshop, upstream: FakeUpstream, brought: Brought
) -> None:
    proxy = await workshop.serve(brought.parts)
    client = await workshop.client(proxy)
    got = await client.ask(chat(path=b"/to/mistral" + CHAT))
    assert (got.status, got.get(b"x-llmproxyd-code")) == (403, b"upstream_not_allowed")
    assert not upstream.requests
    project = brought.projects.projects["team"]
    own = {"mistral": Secret("mistral-key-of-the-project")}
    brought.projects.update_project(replace(project, credentials=own))
    assert (await client.ask(chat(path=b"/to/mistral" + CHAT))).status == 200
    assert (await client.ask(chat())).status == 200
    assert [one.all(b"authorization") for one in upstream.requests] == [
        [b"Bearer mistral-key-of-the-project"],
        [b"Bearer " + KEY.encode()],
    ]


@pytest.mark.parametrize("key", [None, ""])
@pytest_twisted.ensureDeferred
async def test_project_without_a_key_uses_nothing_instead(
    workshop: Workshop, upstream: FakeUpstream, brought: Brought, key: Any
) -> None:
    brought.projects.keys["team"] = key
    stored = {"openai": {"api_key": "sk-the-operators-own-key-12345"}}
    got = await asked(workshop, brought.parts, upstreams=stored)
    assert (got.status, got.get(b"x-llmproxyd-code")) == (403, b"upstream_not_allowed")
    assert not upstream.requests


@pytest.mark.parametrize("enforced", [True, False])
@pytest_twisted.ensureDeferred
async def test_inactive_project(workshop: Workshop, brought: Brought, enforced: bool) -> None:
    brought.projects.set_active("team", False)
    got = await asked(workshop, brought.parts, access={"enforce_active": enforced})
    assert got.status == (403 if enforced else 200)
    if enforced:
        assert got.get(b"x-llmproxyd-code") == b"project_inactive"


@pytest_twisted.ensureDeferred
async def test_changes_of_a_project_hold_at_once(
    workshop: Workshop, upstream: FakeUpstream, brought: Brought
) -> None:
    proxy = await workshop.serve(brought.parts)
    client = await workshop.client(proxy)
    project = brought.projects.projects["team"]
    changes = (
        project,
        replace(project, allow=Allow(params={"model": ("gpt-4o-*",)})),
        replace(project, limits=Limits(rpm=1)),
        replace(project, limits=Limits(rpm=1)),
    )
    seen = []
    for changed in changes:
        brought.projects.update_project(changed)
        seen.append((await client.ask(chat())).get(b"x-llmproxyd-code"))
    assert seen == [None, b"model_not_allowed", None, b"rate_limit_exceeded"]
    brought.projects.keys["team"] = "sk-another-key-of-the-provider"
    brought.projects.update_project(project)
    await client.ask(chat())
    assert upstream.requests[-1].all(b"authorization") == [b"Bearer sk-another-key-of-the-provider"]


@pytest_twisted.ensureDeferred
async def test_bus_and_audit_and_log_are_told(workshop: Workshop, brought: Brought) -> None:
    proxy = await workshop.serve(brought.parts)
    client = await workshop.client(proxy)
    await client.ask(chat())
    await client.ask(chat("sk-BBBBBBBBBBBBBBBBBBBBBB"))
    first, second = brought.bus.events
    assert (first["project"], first["model"], first["status"]) == ("team", "gpt-4o", 200)
    assert first["usage"]["total_tokens"] == 12
    assert (second["status"], second["code"]) == (401, "token_not_found")
    (entry,) = brought.audit.entries
    assert (entry["event"], entry["code"], entry["address"]) == ("denied", "token_not_found", "127.0.0.1")
    assert entry["shown"].startswith("sk-BBBB")
    lines = [one for one in brought.log if "line" in one]
    assert [(one["log_level"], one["status"]) for one in lines] == [
        (LogLevel.info, 200),
        (LogLevel.warn, 401),
    ]
    assert "POST /v1/chat/completions -> openai: 200" in lines[0]["line"]
    for secret in (TOKEN, KEY, "sk-BBBBBBBBBBBBBBBBBBBBBB"):
        assert secret not in f"{brought.lines}{brought.bus.events}{brought.audit.entries}"


@pytest_twisted.ensureDeferred
async def test_logger_of_twisted_gets_the_lines_under_its_own_name(workshop: Workshop) -> None:
    seen: list[LogEvent] = []
    await asked(workshop, {"logger": Logger("mine", observer=seen.append)}, chat(None))
    assert [one["log_namespace"] for one in seen if "line" in one] == ["mine"]


@pytest.mark.parametrize("level", ["info", "warn", "error"])
@pytest_twisted.ensureDeferred
async def test_level_of_the_configuration_holds(workshop: Workshop, brought: Brought, level: str) -> None:
    proxy = await workshop.serve(brought.parts, logging={"level": level})
    client = await workshop.client(proxy)
    await client.ask(chat())
    await client.ask(chat(None))
    lines = [one["status"] for one in brought.log if "line" in one]
    assert lines == {"info": [200, 401], "warn": [401], "error": []}[level]


class Broken:
    """Fails in every way."""

    def __init__(self, fails: Any) -> None:
        self.fails = fails

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: self.fails()


def _raises() -> None:
    raise RuntimeError("broken")


async def _fails() -> None:
    await succeed(None)
    raise RuntimeError("broken")


@pytest.mark.filterwarnings("ignore:coroutine '_fails':RuntimeWarning")  # stats must answer at once
@pytest.mark.parametrize("fails", [_raises, _fails, Deferred])
@pytest_twisted.ensureDeferred
async def test_bus_audit_and_cache_that_fail_harm_no_request(
    workshop: Workshop, upstream: FakeUpstream, brought: Brought, fails: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guarded, "TIMEOUT", 0.1)
    monkeypatch.setattr("llmproxyd.library.outlets.TIMEOUT", 0.1)
    upstream.scripts = [[Send(answer(b"ok", b"cache-control: public, max-age=60"))]]
    broken = Broken(fails)
    parts = brought.parts | {"bus": broken, "audit": broken, "cache": broken}
    proxy = await workshop.serve(parts)
    client = await workshop.client(proxy)
    authorized = b"Authorization: Bearer " + TOKEN.encode()
    for _ in range(2):
        assert (await client.ask(get(b"/v1/models", authorized))).body == b"ok"
    assert (await client.ask(chat(None))).status == 401
    await pause(0.15)
    failed = [one["message"] for one in brought.log if "trace" in one]
    assert any("cache" in one for one in failed)
    assert any("event bus" in one for one in failed)
    assert any("audit logger" in one for one in failed)
    assert len(failed) == 3
    assert proxy.metrics().cache_misses == 2


class SlowCache:
    """A cache that answers later, as one on another machine does."""

    def __init__(self) -> None:
        self.inner = MemoryCache(1_000_000)
        self.closed = False

    async def get(self, key: bytes) -> Sequence[Entry]:
        await deferLater(reactor, 0.01)
        found = self.inner.get(key)
        assert not isinstance(found, Deferred)
        return found

    def put(self, key: bytes, entry: Entry) -> None:
        self.inner.put(key, entry)

    def drop(self, key: bytes, project: str = "") -> None:
        self.inner.drop(key, project)

    def invalidate(self, url: bytes, project: str) -> None:
        self.inner.invalidate(url, project)

    def purge(self, what: Purge) -> Deferred[int]:
        return self.inner.purge(what)

    def stats(self) -> Mapping[str, object]:
        return self.inner.stats()

    def close(self) -> None:
        self.closed = True


@SITES
@pytest_twisted.ensureDeferred
async def test_cache_of_ones_own_is_used_and_not_closed(
    workshop: Workshop, upstream: FakeUpstream, site: str
) -> None:
    upstream.scripts = [[Send(answer(b"ok", b"cache-control: public, max-age=60"))]]
    cache = SlowCache()
    proxy = await workshop.serve({"cache": cache}, site=site)
    client = await workshop.client(proxy)
    for _ in range(3):
        assert (await client.ask(get(b"/v1/models"))).body == b"ok"
    assert len(upstream.requests) == 1
    assert proxy.metrics() == ProxyMetrics(requests=3, cache_hits=2, cache_misses=1, cache_stores=1)
    await proxy.stop()
    assert not cache.closed


@SITES
@pytest_twisted.ensureDeferred
async def test_stream_through_a_slow_door(
    workshop: Workshop, upstream: FakeUpstream, brought: Brought, site: str
) -> None:
    upstream.scripts = [[Send(stream_head() + chunk(event(b"1")) + LAST_CHUNK)]]
    got = await asked(workshop, brought.parts | {"validator": Slow(_coroutine)}, site=site)
    assert got.body == event(b"1")


@pytest_twisted.ensureDeferred
async def test_client_that_leaves_at_the_door(
    workshop: Workshop, upstream: FakeUpstream, brought: Brought
) -> None:
    waiting: Deferred[str] = Deferred()
    proxy = await workshop.serve(brought.parts | {"validator": Slow(lambda: waiting)})
    client = await workshop.client(proxy)
    client.send(chat())
    await until(lambda: proxy.pipeline.active, "the request")
    client.transport.abortConnection()
    await until(lambda: workshop.finished, "the end of the request")
    waiting.callback("team")
    await pause(0.02)
    assert not upstream.requests


@pytest_twisted.ensureDeferred
async def test_store_of_the_daemon_is_opened_where_nobody_brings_one(
    upstream: FakeUpstream, tmp_path: Any
) -> None:
    settings = {
        "access": {"enabled": True, "store": f"sqlite:{tmp_path}/x.db"},
        "audit": {"file": f"{tmp_path}/audit.jsonl"},
    }
    made = Workshop(upstream)
    try:
        got = await asked(made, {}, **settings)
        assert (got.status, got.get(b"x-llmproxyd-code")) == (401, b"token_not_found")
    finally:
        await made.close()


@pytest.mark.parametrize("parts", [{"validator": MemoryValidator()}, {"projects": MemoryProjects()}])
def test_validator_and_projects_come_together(parts: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="a validator needs projects"):
        ProxyResource(configured(environ={}), reactor, **parts)


def test_projects_in_memory_do_what_the_interface_says() -> None:
    projects = MemoryProjects({"a": KEY})
    projects.create_project(Project(id="b", name="B"))
    assert {one.id for one in projects.list_projects()} == {"a", "b"}
    assert projects.get_api_key_for_project("b") is None
    with pytest.raises(Conflict):
        projects.create_project(Project(id="b", name="B"))
    projects.update_project(Project(id="b", name="C", active=False))
    assert not projects.get_project_active("b")
    projects.delete_project("a")
    for call in (projects.get_project_by_id, projects.get_api_key_for_project, projects.delete_project):
        with pytest.raises(ProjectNotFound):
            call("a")


def test_asyncio_can_wait_for_start_and_stop() -> None:
    """A Deferred is what asyncio calls a future, by :meth:`~twisted.internet.defer.Deferred.asFuture`."""
    proxy = ProxyResource(configured(environ={}), reactor)

    async def run() -> None:
        loop = asyncio.get_running_loop()
        await proxy.start().asFuture(loop)
        await proxy.stop(0).asFuture(loop)

    asyncio.run(run())
