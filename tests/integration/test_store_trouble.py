"""What goes wrong with a database: killed, hanging, locked, full; and what is kept of it."""

from __future__ import annotations

import sqlite3
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from storebench import Kind, project_named, token_named
from test_store_start import process
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import LoopingCall, deferLater

from llmproxyd.errors import Refused
from llmproxyd.store.batches import BATCH
from llmproxyd.store.doorkeeper import Doorkeeper
from llmproxyd.store.interface import StoreUnavailable, Used
from llmproxyd.store.lane import MAX_LOST, MAX_WAITING, Lane
from llmproxyd.store.session import Session
from llmproxyd.store.sql import SQLStore
from llmproxyd.store.sqlite import BUSY, SQLite

reactor: Any = _reactor
test = pytest_twisted.ensureDeferred
pytest_plugins = ["storefixtures"]

ONE = Used("tok_t", "proj_team", "m", "2025-08-30", 1.0, 1)


async def ready(store: SQLStore) -> SQLStore:
    """*store*, opened, with a project and a token."""
    await store.open()
    await store.create_project(project_named())
    await store.create_token(token_named())
    return store


async def pause(seconds: float) -> None:
    await deferLater(reactor, seconds)


class Pulse:
    """Finds out whether the reactor was held up: the longest time between two looks at it."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._last = time.monotonic()
        self._loop = LoopingCall(self._look)

    def _look(self) -> None:
        now = time.monotonic()
        self.longest = max(self.longest, now - self._last)
        self._last = now

    def __enter__(self) -> Pulse:
        self._loop.start(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.stop()


# Killed.


@test
async def test_what_was_acknowledged_outlives_kill_9_of_the_writer(kind: Kind) -> None:
    gone: set[str] = set()
    for _ in range(2):
        writer = process("write", kind)
        told = _until(writer, 40)
        writer.kill()
        told += (writer.communicate()[0] or "").split()
        store = kind.store()
        await store.open()
        projects = {one.id: one.credentials["openai"].reveal() for one in await store.projects()}
        tokens = {one.id for one in await store.tokens()}
        assert {id: id for id in told} == {id: projects[id] for id in told}
        assert tokens >= set(told)
        changes = await store.changes(0)
        # That one was deleted is a change, too.
        assert set(changes.projects) == projects.keys() | gone
        gone |= projects.keys()
        for id in projects:
            await store.delete_project(id)
        # The next writer finds what this one left behind, and begins anew.


@test
async def test_kill_9_costs_one_batch_of_counts_at_most(kind: Kind) -> None:
    admitting = process("admit", kind)
    told = _until(admitting, BATCH + 50)
    admitting.kill()
    told += (admitting.communicate()[0] or "").split()
    store = kind.store()
    await store.open()
    token = await store.token("t")
    assert token is not None
    assert int(told[-1]) - BATCH <= token.requests <= int(told[-1]) + 1
    assert token.requests > 0


def _until(process: subprocess.Popen[str], lines: int) -> list[str]:
    assert process.stdout is not None
    assert process.stdout.readline() == "opened\n"
    return [process.stdout.readline().strip() for _ in range(lines)]


@test
async def test_postgresql_that_is_started_again_is_used_again_without_a_failure(
    postgres: Any,
    postgresql: Kind,
) -> None:
    store = await ready(postgresql.store())
    await gatherResults([store.projects() for _ in range(10)])  # every thread has its connection
    for _ in range(2):
        postgres.kill()
        started = time.monotonic()
        with Pulse() as pulse:
            results: list[Any] = await gatherResults(
                [call().addErrback(lambda failure: failure.value) for call in (store.projects,) * 5]
                + [store.count([ONE]).addErrback(lambda failure: failure.value)]
            )
        assert {type(one) for one in results} == {StoreUnavailable}
        assert time.monotonic() - started < 5
        assert pulse.longest < 0.5
        postgres.start()
        assert len(await store.projects()) == 1
    postgres.kill()
    postgres.start()
    # Nobody noticed: the connections are dead all the same.
    found = await gatherResults([store.projects() for _ in range(10)])
    assert [len(one) for one in found] == [1] * 10
    assert await store.count([ONE]) == {"tok_t": 1}


@test
async def test_connection_that_the_server_ends_is_replaced(
    postgres: Any,
    postgresql: Kind,
) -> None:
    store = await ready(postgresql.store())
    for expected in (1, 2, 3):
        postgres.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'llmproxyd'"
        )
        assert await store.count([ONE]) == {"tok_t": expected}
        assert len(await store.projects()) == 1


# Hanging.


@test
async def test_postgresql_that_hangs_is_given_up_in_time_and_used_when_it_is_back(
    postgres: Any,
    postgresql: Kind,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = await ready(postgresql.store())
    await gatherResults([store.projects() for _ in range(10)])
    postgres.pause()
    try:
        started = time.monotonic()
        with Pulse() as pulse:
            results: list[Any] = await gatherResults(
                [store.projects().addErrback(lambda failure: failure.value) for _ in range(10)]
                + [store.count([ONE]).addErrback(lambda failure: failure.value)]
            )
        assert {type(one) for one in results} == {StoreUnavailable}
        assert time.monotonic() - started < 6
        assert pulse.longest < 0.5
    finally:
        postgres.resume()
    await pause(0.2)
    found = await gatherResults([store.projects() for _ in range(10)])
    assert [len(one) for one in found] == [1] * 10
    await store.count([ONE])


@test
async def test_table_that_another_one_locks_is_given_up_in_time(
    postgres: Any,
    postgresql: Kind,
) -> None:
    import psycopg

    store = await ready(postgresql.store())
    with psycopg.connect(postgresql.url) as other:
        other.execute("LOCK TABLE tokens IN ACCESS EXCLUSIVE MODE")
        started = time.monotonic()
        with pytest.raises(StoreUnavailable, match=r"timeout|within"):
            await store.count([ONE])
        assert time.monotonic() - started < 6
        assert len(await store.projects()) == 1
    assert (await store.count([ONE])) == {"tok_t": 1}


@pytest.fixture
def lane(tmp_path: Path, _nothing_left: None) -> Any:
    """One that reads: of those who write, SQLite lets one begin at a time."""
    sqlite3.connect(tmp_path / "x.db").close()
    made = Lane(SQLite(tmp_path / "x.db"), reactor, 1, writes=False)
    yield made
    pytest_twisted.blockon(made.close())


@pytest.fixture
def writing(tmp_path: Path, _nothing_left: None) -> Any:
    made = Lane(SQLite(tmp_path / "x.db"), reactor, 1, writes=True)
    yield made
    pytest_twisted.blockon(made.close())


@test
async def test_thread_that_hangs_holds_up_nobody_else_for_long(lane: Lane) -> None:
    free = threading.Event()
    hangs = lane.run(lambda _: free.wait(20), deadline=0.2)
    behind = lane.run(lambda session: session.one("SELECT 7"), deadline=2.0)
    with pytest.raises(StoreUnavailable, match=r"no answer within 0\.2 seconds"):
        await hangs
    assert await behind == (7,)
    assert await lane.run(lambda session: session.one("SELECT 8")) == (8,)
    free.set()


@test
async def test_threads_that_hang_are_bounded_and_count_no_more_when_they_are_back(lane: Lane) -> None:
    free = threading.Event()
    for _ in range(MAX_LOST):
        with pytest.raises(StoreUnavailable):
            await lane.run(lambda _: free.wait(20), deadline=0.05)
    with pytest.raises(StoreUnavailable, match="too many"):
        await lane.run(lambda session: session.one("SELECT 1"))
    free.set()
    await pause(0.2)
    assert await lane.run(lambda session: session.one("SELECT 1")) == (1,)


@test
async def test_call_that_came_too_late_commits_nothing(writing: Lane) -> None:
    await writing.run(lambda session: session.run("CREATE TABLE t (x INTEGER)"))
    free = threading.Event()

    def insert(session: Session) -> None:
        session.run("INSERT INTO t VALUES (1)")
        free.wait(20)

    with pytest.raises(StoreUnavailable):
        await writing.run(insert, deadline=0.1)
    free.set()
    await pause(0.2)
    assert await writing.run(lambda session: session.all("SELECT * FROM t")) == []


@test
async def test_calls_that_wait_are_bounded(lane: Lane) -> None:
    free = threading.Event()
    first = lane.run(lambda _: free.wait(20), deadline=10)
    waiting = [lane.run(lambda _: None) for _ in range(MAX_WAITING - 1)]
    with pytest.raises(StoreUnavailable, match="too many"):
        await lane.run(lambda _: None)
    free.set()
    await gatherResults([first, *waiting])


@test
async def test_cancelled_call_does_nothing(writing: Lane) -> None:
    await writing.run(lambda session: session.run("CREATE TABLE t (x INTEGER)"))
    free = threading.Event()
    first = writing.run(lambda _: free.wait(20))
    second = writing.run(lambda session: session.run("INSERT INTO t VALUES (1)"))
    second.addErrback(lambda _: None)
    second.cancel()
    free.set()
    await first
    assert await writing.run(lambda session: session.all("SELECT * FROM t")) == []


@test
async def test_close_does_not_wait_for_a_thread_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmproxyd.store.lane.STOP", 0.2)
    lane = Lane(SQLite(tmp_path / "x.db"), reactor, 1, writes=True)
    free = threading.Event()
    hangs = lane.run(lambda _: free.wait(20))
    started = time.monotonic()
    await lane.close()
    assert time.monotonic() - started < 1
    with pytest.raises(StoreUnavailable, match="closed"):
        await hangs
    free.set()
    await pause(0.1)


# Locked, full, read-only.


@test
async def test_sqlite_that_another_process_locks_is_read_and_written_again_later(sqlite: Kind) -> None:
    store = await ready(sqlite.store())
    other = sqlite3.connect(sqlite.folder / "llmproxyd.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    started = time.monotonic()
    with Pulse() as pulse:
        writing = store.count([ONE])
        assert len(await store.projects()) == 1, "who reads does not wait"
        assert time.monotonic() - started < BUSY / 2
        with pytest.raises(StoreUnavailable, match="locked"):
            await writing
    assert pulse.longest < 0.5
    other.execute("ROLLBACK")
    other.close()
    assert await store.count([ONE]) == {"tok_t": 1}


@test
async def test_full_disk_refuses_writes_and_keeps_what_is_there(sqlite: Kind) -> None:
    store = await ready(sqlite.store())

    def room(pages: int) -> Deferred[Any]:
        return store._writing.run(lambda session: session.all(f"PRAGMA max_page_count = {pages}"))

    async def fill(name: str) -> str:
        """Write until that is refused; the reason."""
        for number in range(200):
            try:
                await store.create_project(project_named(f"{name}{number}{'x' * 900}"))
            except StoreUnavailable as error:
                return str(error)
        return ""

    await room(1)  # what it has, that is
    assert "full" in await fill("a")
    before = await store.projects()
    last = (await store.changes(0)).last
    assert "full" in await fill("b")
    assert len(await store.projects()) - len(before) == (await store.changes(0)).last - last
    await room(1_000_000)
    await store.create_project(project_named("again"))


@test
async def test_read_only_file_refuses_writes(sqlite: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    await ready(sqlite.store())
    path = sqlite.folder / "llmproxyd.db"
    monkeypatch.setattr(
        SQLite,
        "arguments",
        lambda self, writes: {
            "database": f"file:{path}?mode=ro",
            "uri": True,
            "isolation_level": None,
            "check_same_thread": False,
        },
    )
    store = sqlite.store()
    await store.open()
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="readonly"):
            await store.count([ONE])
    assert len(await store.projects()) == 1


# Several at once.


@test
async def test_what_one_changes_another_hears_of_in_turn_and_without_a_gap(kind: Kind) -> None:
    """A number that is taken before another one, but committed after it, must not be passed over."""
    stores = [kind.store() for _ in range(3)]
    for store in stores:
        await store.open()
    heard: list[str] = []
    last = 0

    async def listen() -> None:
        nonlocal last
        changes = await stores[0].changes(last)
        assert not changes.all
        heard.extend(changes.projects)
        last = changes.last

    making = [
        store.create_project(project_named(f"{which}-{number}"))
        for number in range(40)
        for which, store in enumerate(stores)
    ]
    everything = gatherResults(making)
    while not everything.called:
        await listen()
    await everything
    await listen()
    assert sorted(heard) == sorted(f"proj_{which}-{number}" for number in range(40) for which in range(3))


@test
async def test_two_hosts_that_count_the_same_tokens_lose_nothing(kind: Kind) -> None:
    one, other = await ready(kind.store()), kind.store()
    await other.open()
    for number in range(20):
        await one.create_token(token_named(str(number)))
    there = [Used(f"tok_{number}", "proj_team", "m", "2025-08-30", 1.0, 1) for number in range(20)]
    back = list(reversed(there))
    await gatherResults(
        [store.count(batch) for _ in range(20) for store, batch in ((one, there), (other, back))]
    )
    assert {token.requests for token in await one.tokens() if token.id != "tok_t"} == {40}


@test
async def test_tokens_are_deleted_while_they_are_counted(kind: Kind) -> None:
    one, other = await ready(kind.store()), kind.store()
    await other.open()
    batch = []
    for number in range(50):
        await one.create_token(token_named(str(number)))
        batch.append(Used(f"tok_{number}", "proj_team", "m", "2025-08-30", 1.0, 1))
    results = await gatherResults([one.delete_project("proj_team"), *(other.count(batch) for _ in range(10))])
    assert results[0] is True
    assert await other.count(batch) == {}
    assert (await one.usage("project", "2025-01-01"))[0].requests == 550


# At the door.


async def until_seen(door: Doorkeeper) -> int:
    """Ask until the token is remembered, and has stayed so over a look at what changed; how often."""
    asked = 0
    for _ in range(2):
        while isinstance(found := door.admit("sk-t"), Deferred):
            await found
            asked += 1
        asked += 1
        await pause(0.7)
    return asked


@test
async def test_door_before_a_database_that_dies_and_comes_back(
    postgres: Any,
    postgresql: Kind,
) -> None:
    store = await ready(postgresql.store())
    door = Doorkeeper(store, reactor, time.time)
    door.start()
    try:
        # Until it has looked at what changed before its start, nothing is sure to be remembered.
        asked = await until_seen(door)
        grant = door.admit("sk-t")
        postgres.kill()
        await pause(1)
        assert door.admit("sk-t") is grant
        assert not door.ready
        with pytest.raises(Refused) as caught:
            door.admit("sk-other")
        assert caught.value.code == "store_unavailable"
        postgres.start()
        await pause(1.5)
        assert door.ready
        found = door.admit("sk-other")
        assert isinstance(found, Deferred)
        with pytest.raises(Refused) as caught:
            await found
        assert caught.value.code == "token_not_found"
    finally:
        await door.stop()
    token = await store.token("tok_t")
    assert token is not None
    assert token.requests == asked + 2


@test
async def test_token_that_is_revoked_on_one_host_is_refused_on_another_within_a_second(kind: Kind) -> None:
    one, other = await ready(kind.store()), kind.store()
    await other.open()
    door = Doorkeeper(other, reactor, time.time)
    door.start()
    found = door.admit("sk-t")
    assert isinstance(found, Deferred)
    await found
    await one.delete_token("tok_t")
    revoked = time.monotonic()
    code = ""
    while not code and time.monotonic() - revoked < 5:
        try:
            found = door.admit("sk-t")
            if isinstance(found, Deferred):
                await found
        except Refused as refused:
            code = refused.code
        await pause(0.02)
    assert code == "token_not_found"
    assert time.monotonic() - revoked < 1
    await door.stop()


@test
async def test_thousand_clients_with_a_cold_token_ask_once(kind: Kind) -> None:
    store = await ready(kind.store())
    asked = 0
    known = store.token_by_digest

    def counting(digest: bytes) -> Any:
        nonlocal asked
        asked += 1
        return known(digest)

    store.token_by_digest = counting  # type: ignore[method-assign]
    door = Doorkeeper(store, reactor, time.time)
    door.start()
    while not door.ready:
        await pause(0.01)
    waiting = [door.admit("sk-t") for _ in range(1000)]
    grants = await gatherResults([one for one in waiting if isinstance(one, Deferred)])
    assert (len(grants), len({id(one) for one in grants}), asked) == (1000, 1, 1)
    await door.stop()
    token = await store.token("tok_t")
    assert token is not None
    assert token.requests == 1000
