"""How a store is opened: schema, key, and several processes at once."""

from __future__ import annotations

import builtins
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from storebench import KEY, Kind, full_project, project_named
from twisted.internet import reactor

from llmproxyd.redaction import Secret
from llmproxyd.store import migrate
from llmproxyd.store.interface import StoreUnavailable
from llmproxyd.store.sql import store_for

test = pytest_twisted.ensureDeferred
pytest_plugins = ["storefixtures"]
PROCESS = Path(__file__).with_name("storeprocess.py")


def process(command: str, kind: Kind, key: str = KEY.reveal()) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(PROCESS), command, kind.url, str(kind.folder), key],
        stdout=subprocess.PIPE,
        text=True,
    )


def all_open(kind: Kind, key: Secret | None) -> None:
    processes = [process("open", kind, key.reveal() if key else "") for _ in range(5)]
    assert [one.communicate(timeout=60)[0].strip() for one in processes] == ["opened"] * 5


@test
async def test_several_processes_may_start_at_once_on_an_empty_database(kind: Kind) -> None:
    all_open(kind, KEY)
    store = kind.store()
    await store.open()
    assert await store.projects() == []


@test
async def test_of_several_processes_that_start_at_once_one_makes_the_key_file(sqlite: Kind) -> None:
    all_open(sqlite, None)
    store = sqlite.store(None)
    await store.open()
    assert await store.projects() == []


@test
async def test_what_was_written_is_there_when_it_is_opened_again(kind: Kind) -> None:
    first = kind.store()
    await first.open()
    await first.create_project(full_project())
    await first.close()
    second = kind.store()
    await second.open()
    assert await second.projects() == [full_project()]


@test
async def test_schema_newer_than_the_program_is_told_in_words(
    kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(migrate, "scripts", _with("CREATE TABLE later (x TEXT);"))
        await kind.store().open()
    with pytest.raises(ValueError, match="version 2, newer than what this program knows"):
        await kind.store().open()


@test
async def test_later_script_runs_once_and_leaves_what_is_there(
    kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = kind.store()
    await first.open()
    await first.create_project(full_project())
    monkeypatch.setattr(migrate, "scripts", _with("CREATE TABLE later (x TEXT);\n-- a; comment;\n"))
    for _ in range(2):
        store = kind.store()
        await store.open()
        assert await store.projects() == [full_project()]


@test
async def test_script_that_fails_leaves_nothing_behind(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    await kind.store().open()
    with monkeypatch.context() as patch:
        patch.setattr(migrate, "scripts", _with("CREATE TABLE later (x TEXT);\nCREATE NONSENSE;"))
        with pytest.raises(StoreUnavailable, match="NONSENSE"):
            await kind.store().open()
    monkeypatch.setattr(migrate, "scripts", _with("CREATE TABLE later (x TEXT);"))
    await kind.store().open()


def _with(script: str) -> Any:
    known = {dialect: migrate.scripts(dialect) for dialect in ("sqlite", "postgresql")}
    return lambda dialect: (*known[dialect], script)


def test_both_dialects_have_as_many_scripts() -> None:
    assert len(migrate.scripts("sqlite")) == len(migrate.scripts("postgresql")) >= 1


@test
async def test_before_it_is_opened_nothing_is_answered(kind: Kind) -> None:
    store = kind.store()
    for call in (store.projects, lambda: store.count([]), lambda: store.rotate_key(KEY)):
        with pytest.raises(StoreUnavailable, match="not open"):
            await call()  # type: ignore[operator]


@test
async def test_after_it_is_closed_nothing_is_answered(kind: Kind) -> None:
    store = kind.store()
    await store.open()
    await store.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.projects()
    await store.close()


# Keys.


@test
async def test_wrong_key_is_noticed_when_it_is_opened(kind: Kind) -> None:
    await kind.store().open()
    with pytest.raises(ValueError, match=r"access\.secret_key is not the key"):
        await kind.store(Secret("wrong")).open()


@test
async def test_rotated_key_is_the_one_that_opens(kind: Kind) -> None:
    first = kind.store()
    await first.open()
    await first.create_project(full_project())
    assert await first.rotate_key(Secret("new")) == 2
    assert await first.rotate_key(Secret("newer")) == 2
    await first.close()
    for old in (KEY, Secret("new")):
        with pytest.raises(ValueError, match="not the key"):
            await kind.store(old).open()
    second = kind.store(Secret("newer"))
    await second.open()
    assert await second.projects() == [full_project()]


@test
async def test_who_has_a_key_that_another_process_changed_reads_and_writes_no_credential(kind: Kind) -> None:
    first, second = kind.store(), kind.store()
    await first.open()
    await second.open()
    await first.create_project(full_project())
    await second.rotate_key(Secret("new"))
    for call in (lambda: first.project("proj_full"), lambda: first.create_project(project_named())):
        with pytest.raises(StoreUnavailable, match="changed by another process"):
            await call()  # type: ignore[operator]
    assert await second.projects() == [full_project()]


@test
async def test_credentials_do_not_stand_in_the_file(sqlite: Kind) -> None:
    store = sqlite.store(None)
    await store.open()
    await store.create_project(full_project())
    await store.close()
    raw = b"".join(path.read_bytes() for path in sqlite.folder.glob("llmproxyd.db*"))
    assert b"proj_full" in raw
    assert b"sk-real-key" not in raw


@test
async def test_credential_that_was_moved_to_another_project_is_not_used(sqlite: Kind) -> None:
    store = sqlite.store()
    await store.open()
    await store.create_project(full_project())
    await store.create_project(project_named())
    with sqlite3.connect(sqlite.folder / "llmproxyd.db") as other:
        other.execute("UPDATE credentials SET project = 'proj_team' WHERE upstream = 'openai'")
    with pytest.raises(StoreUnavailable, match="tampered"):
        await store.project("proj_team")


@test
async def test_files_are_for_their_owner_alone(sqlite: Kind) -> None:
    sqlite.url = "sqlite:deep/er/llmproxyd.db"
    store = sqlite.store(None)
    await store.open()
    await store.create_project(project_named())
    await store.projects()
    found = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (sqlite.folder / "deep/er").iterdir()}
    assert {"llmproxyd.db", "llmproxyd.db.key"} <= found.keys()
    assert set(found.values()) == {0o600}


@test
async def test_key_file_is_made_and_used_from_then_on(sqlite: Kind) -> None:
    first = sqlite.store(None)
    await first.open()
    await first.create_project(full_project())
    made = (sqlite.folder / "llmproxyd.db.key").read_text()
    second = sqlite.store(None)
    await second.open()
    assert await second.projects() == [full_project()]
    third = sqlite.store(Secret(made.strip()))
    await third.open()
    assert await third.projects() == [full_project()]
    assert (sqlite.folder / "llmproxyd.db.key").read_text() == made


@test
async def test_key_file_that_is_missing_is_not_made_anew(sqlite: Kind) -> None:
    await sqlite.store(None).open()
    (sqlite.folder / "llmproxyd.db.key").unlink()
    with pytest.raises(ValueError, match=r"llmproxyd\.db\.key is missing"):
        await sqlite.store(None).open()
    assert not (sqlite.folder / "llmproxyd.db.key").exists()


@pytest.mark.parametrize(("content", "said"), [("", "holds no key"), ("another", "is not the one")])
@test
async def test_key_file_with_something_else_is_told_in_words(
    sqlite: Kind,
    content: str,
    said: str,
) -> None:
    await sqlite.store(None).open()
    (sqlite.folder / "llmproxyd.db.key").write_text(content)
    with pytest.raises(ValueError, match=said):
        await sqlite.store(None).open()


@test
async def test_given_key_beside_a_key_file_is_told_of_it(sqlite: Kind) -> None:
    await sqlite.store(None).open()
    with pytest.raises(ValueError, match=r"is it the one in .*llmproxyd\.db\.key"):
        await sqlite.store(Secret("mine")).open()


@test
async def test_rotation_changes_the_key_file(sqlite: Kind) -> None:
    first = sqlite.store(None)
    await first.open()
    await first.create_project(full_project())
    assert await first.rotate_key(Secret("new")) == 2
    assert (sqlite.folder / "llmproxyd.db.key").read_text() == "new\n"
    assert not (sqlite.folder / "llmproxyd.db.key.new").exists()
    second = sqlite.store(None)
    await second.open()
    assert await second.projects() == [full_project()]


@pytest.mark.parametrize("committed", [True, False])
@test
async def test_rotation_that_was_cut_short_is_mended(
    sqlite: Kind,
    committed: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = sqlite.store(None)
    await first.open()
    await first.create_project(full_project())
    keys = sqlite.folder / "llmproxyd.db.key"
    before = keys.read_text()
    if committed:
        with monkeypatch.context() as patch:
            patch.setattr("llmproxyd.store.keyfile.KeyFile.promote", lambda _: None)
            await first.rotate_key(Secret("new"))
    else:
        keys.with_name(keys.name + ".new").write_text("new\n")
    second = sqlite.store(None)
    await second.open()
    assert await second.projects() == [full_project()]
    assert keys.read_text() == ("new\n" if committed else before)


# What cannot be a store.


@pytest.mark.parametrize(
    "url",
    [
        "",
        "sqlite",
        "sqlite:",
        "sqlite::memory:",
        "sqlite:x/",
        "sqlite:a\0b",
        "mysql://h/d",
        "postgresql:x",
        "x.db",
    ],
)
def test_url_that_names_no_store_is_refused_in_words(tmp_path: Path, url: str) -> None:
    with pytest.raises(ValueError, match=r"access\.store"):
        store_for(Secret(url), KEY, reactor, state_folder=tmp_path)


def test_url_of_postgresql_is_not_repeated_when_it_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"access\.store") as caught:
        store_for(Secret("postgresql://u:hunter2@h:x:y/d?nonsense=%zz"), KEY, reactor, state_folder=tmp_path)
    assert "hunter2" not in repr(caught.value.__cause__) + repr(caught.value.__context__) + str(caught.value)


def test_postgresql_without_a_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"access\.secret_key"):
        store_for(Secret("postgresql://h/d"), None, reactor, state_folder=tmp_path)


def test_postgresql_without_psycopg_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = builtins.__import__

    def importing(name: str, *args: Any, **kw: Any) -> Any:
        if name.startswith("psycopg"):
            raise ImportError(name)
        return known(name, *args, **kw)

    monkeypatch.setattr(builtins, "__import__", importing)
    with pytest.raises(ValueError, match=r"pip install 'llmproxyd\[postgres\]'"):
        store_for(Secret("postgresql://h/d"), KEY, reactor, state_folder=tmp_path)


@test
async def test_password_is_in_no_error(tmp_path: Path, postgresql: Kind) -> None:
    socket = postgresql.url.partition("host=")[2]
    store = store_for(
        Secret(f"postgresql://nobody:hunter2@/nowhere?host={socket}"), KEY, reactor, state_folder=tmp_path
    )
    with pytest.raises(StoreUnavailable, match="nobody") as caught:
        await store.open()
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None
    await store.close()


@test
async def test_file_that_is_no_database_is_told(sqlite: Kind) -> None:
    (sqlite.folder / "llmproxyd.db").write_bytes(b"something else " * 1000)
    with pytest.raises(StoreUnavailable, match="not a database"):
        await sqlite.store().open()


@test
async def test_folder_in_the_files_place_is_told(sqlite: Kind) -> None:
    (sqlite.folder / "llmproxyd.db").mkdir()
    with pytest.raises(StoreUnavailable, match="directory"):
        await sqlite.store().open()
