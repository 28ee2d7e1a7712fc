"""Disks that are full, folders that are none, a process that is killed: requests never notice."""

from __future__ import annotations

import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path

import flaky
import pytest
import raw
from daemon import Daemon
from flaky import CHAT, Flaky, answer, openai_error

SETTINGS = """\
upstreams: {{openai: {{base_url: "{url}"}}}}
logging: {{enabled: true, max_files: {requests}, folder: {folder}}}
error_logging: {{enabled: true, max_files: {errors}, folder: {folder}/errors}}
"""


@pytest.fixture(scope="module")
def upstream() -> Iterator[Flaky]:
    with flaky.flaky() as made:
        yield made


def written(
    folder: Path, upstream: Flaky, *, requests: int = 1000, errors: int = 100, logs: str = "logs"
) -> Path:
    file = folder / "llmproxyd.yaml"
    text = SETTINGS.format(url=upstream.url, requests=requests, errors=errors, folder=logs)
    file.write_text(text)
    return file


def good(proxy: Daemon, upstream: Flaky, times: int = 1) -> None:
    """Requests that succeed, as they do without any log."""
    upstream.play(answer(CHAT))
    for _ in range(times):
        got = raw.openai(proxy.url)
        assert (got.status, got.json) == (200, CHAT)


def bad(proxy: Daemon, upstream: Flaky, times: int = 1) -> None:
    """Requests that fail, as they do without any log."""
    upstream.play(openai_error("503 Service Unavailable", "sorry"))
    for _ in range(times):
        got = raw.openai(proxy.url)
        assert (got.status, got.error["message"]) == (503, "sorry")


def settled(proxy: Daemon) -> dict[str, int]:
    """The counts of records once none waits."""
    deadline = time.monotonic() + 20
    while True:
        told: dict[str, int] = raw.ask(proxy.url, "/health/detailed").json["records"]
        if not told["queued"]:
            return told
        assert time.monotonic() < deadline, told
        time.sleep(0.01)


def logs_in(folder: Path) -> list[Path]:
    return sorted(one for one in folder.glob("*.log") if one.is_file() and not one.is_symlink())


def warnings(proxy: Daemon, count: int = 0) -> list[str]:
    """All that the log has warned of, once there are *count*: the thread that writes tells it later."""
    if count:
        proxy.wait_for(r"(?s)" + "WARN .*" * count)
    return [line.partition("WARN ")[2] for line in proxy.output.splitlines() if "WARN " in line]


def test_a_file_in_the_folders_place_costs_records_alone(upstream: Flaky, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    with Daemon("--config", str(written(tmp_path, upstream))) as proxy:
        logs.write_text("not a folder")
        good(proxy, upstream, 3)
        bad(proxy, upstream, 2)
        assert settled(proxy) == {"queued": 0, "written": 0, "dropped": 0, "failed": 7}
        assert warnings(proxy, 2) == [
            f"Records in {logs} cannot be written: Not a directory",
            f"Records in {logs / 'errors'} cannot be written: Not a directory",
        ]
        assert raw.ask(proxy.url, "/logs/errors").json["total_files"] == 0
        assert raw.ask(proxy.url, "/logs/errors").json["failed"] == 7
        logs.unlink()
        bad(proxy, upstream)
        good(proxy, upstream)
        assert settled(proxy)["written"] == 3
        assert sorted(warnings(proxy, 4)[2:]) == sorted(
            [
                f"Records in {logs} are written again: 5 lost",
                f"Records in {logs / 'errors'} are written again: 2 lost",
            ]
        )
        assert logs.is_dir()


@pytest.mark.parametrize("place", ["/dev/null/llmproxyd", "/proc/llmproxyd/logs"])
def test_a_folder_that_cannot_be_made_costs_records_alone(
    place: str, upstream: Flaky, tmp_path: Path
) -> None:
    with Daemon("--config", str(written(tmp_path, upstream, logs=place))) as proxy:
        if place.startswith("/dev/null"):
            # What can be seen without trying is told at the start.
            assert "; error_logging.folder is to name a folder that" in warnings(proxy, 2)[1]
        good(proxy, upstream, 2)
        bad(proxy, upstream)
        assert settled(proxy)["failed"] == 4
        assert len(warnings(proxy, 2)) == 2
        assert warnings(proxy)[0].startswith(f"Records in {place} cannot be written: ")
        assert raw.ask(proxy.url, "/logs/errors").status == 200


@contextmanager
def no_room(proxy: Daemon, room: int) -> Iterator[None]:
    """No file of the daemon's may become larger than *room* bytes: its disk is full."""
    number = proxy.process.pid
    before = resource.prlimit(number, resource.RLIMIT_FSIZE)  # type: ignore[attr-defined,unused-ignore]
    resource.prlimit(number, resource.RLIMIT_FSIZE, (room, before[1]))  # type: ignore[attr-defined,unused-ignore]
    try:
        yield
    finally:
        resource.prlimit(number, resource.RLIMIT_FSIZE, before)  # type: ignore[attr-defined,unused-ignore]


@pytest.mark.skipif(sys.platform != "linux", reason="limits of another process are Linux's")
@pytest.mark.parametrize("room", [0, 100])
def test_a_full_disk_costs_records_alone_and_leaves_no_half_of_one(
    room: int, upstream: Flaky, tmp_path: Path
) -> None:
    logs = tmp_path / "logs"
    with Daemon("--config", str(written(tmp_path, upstream))) as proxy:
        good(proxy, upstream, 2)
        assert settled(proxy)["written"] == 2
        before = logs_in(logs)
        with no_room(proxy, room):
            good(proxy, upstream, 3)
            bad(proxy, upstream, 2)
            assert settled(proxy)["failed"] == 7
        assert logs_in(logs) == before
        assert logs_in(logs / "errors") == []
        assert [warning.partition(":")[0] for warning in warnings(proxy, 2)] == [
            f"Records in {logs} cannot be written",
            f"Records in {logs / 'errors'} cannot be written",
        ]
        good(proxy, upstream)
        assert settled(proxy)["written"] == 3
        assert warnings(proxy, 3)[2:] == [f"Records in {logs} are written again: 5 lost"]
        with no_room(proxy, room):
            good(proxy, upstream)
            settled(proxy)
        assert len(warnings(proxy, 4)) == 4


def test_a_folder_that_is_taken_away_is_made_again(upstream: Flaky, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    with Daemon("--config", str(written(tmp_path, upstream, requests=3))) as proxy:
        good(proxy, upstream, 4)
        settled(proxy)
        logs.rename(tmp_path / "archive")
        good(proxy, upstream, 2)
        settled(proxy)
        assert (len(logs_in(logs)), len(logs_in(tmp_path / "archive"))) == (2, 3)
        good(proxy, upstream, 5)
        settled(proxy)
        assert (len(logs_in(logs)), len(logs_in(tmp_path / "archive"))) == (3, 3)
        assert warnings(proxy) == []


def test_no_more_files_than_were_allowed_over_a_restart(upstream: Flaky, tmp_path: Path) -> None:
    file = written(tmp_path, upstream, requests=5, errors=3)
    logs = tmp_path / "logs"
    (logs / "errors").mkdir(parents=True)
    victim = tmp_path / "victim"
    victim.write_text("mine")
    link = logs / "20200101_000000_000_0.log"
    link.symlink_to(victim)
    others = [logs / "notes.txt", logs / "my.log", logs / "errors" / "README", logs / "errors" / "my.log"]
    for one in others:
        one.write_text("mine")
    (logs / "20200101_000000_000_1.log").mkdir()

    def kept(folder: Path) -> set[str]:
        return {one.name for one in logs_in(folder) if one not in others}

    seen: list[set[str]] = []
    for count in (4, 1, 3):
        with Daemon("--config", str(file)) as proxy:
            for _ in range(count):
                bad(proxy, upstream)
                settled(proxy)
                assert len(kept(logs)) <= 5
                assert len(kept(logs / "errors")) <= 3
            seen.append(kept(logs))
            proxy.stop()
            assert warnings(proxy) == []
        assert len(kept(logs / "errors")) == 3
    assert [len(names) for names in seen] == [4, 5, 5]
    # The oldest have gone, one for each that came.
    assert seen[0] < seen[1]
    assert seen[1] - seen[2] == set(sorted(seen[0])[:3])
    assert all(one.read_text() == "mine" for one in (*others, victim, link))


def test_what_is_written_is_for_the_owner_alone_whatever_the_umask(upstream: Flaky, tmp_path: Path) -> None:
    file = written(tmp_path, upstream, logs="var/log/mine")
    before = os.umask(0)
    try:
        with Daemon("--config", str(file)) as proxy:
            bad(proxy, upstream)
            proxy.stop()
    finally:
        os.umask(before)
    found = list((tmp_path / "var").rglob("*"))
    assert {one.stat().st_mode & 0o777 for one in found if one.is_file()} == {0o600}
    folders = [tmp_path / "var", *(one for one in found if one.is_dir())]
    assert len(folders) == 4
    assert {one.stat().st_mode & 0o777 for one in folders} == {0o700}


def test_a_link_in_the_folders_place_leads_to_the_folder(upstream: Flaky, tmp_path: Path) -> None:
    there = tmp_path / "another-disk"
    there.mkdir(mode=0o755)
    there.chmod(0o755)
    (tmp_path / "logs").symlink_to(there)
    with Daemon("--config", str(written(tmp_path, upstream, requests=2))) as proxy:
        bad(proxy, upstream, 3)
        settled(proxy)
        assert raw.ask(proxy.url, "/logs/errors").json["total_files"] == 3
        assert warnings(proxy) == []
    assert (tmp_path / "logs").is_symlink()
    assert len(logs_in(there)) == 2
    assert {one.stat().st_mode & 0o777 for one in there.rglob("*.log")} == {0o600}
    # Whose it is, and who may look into it, is the owner's own affair.
    assert there.stat().st_mode & 0o777 == 0o755


def test_a_link_that_leads_nowhere_costs_records_alone(upstream: Flaky, tmp_path: Path) -> None:
    (tmp_path / "logs").symlink_to(tmp_path / "nowhere")
    with Daemon("--config", str(written(tmp_path, upstream))) as proxy:
        good(proxy, upstream, 2)
        assert settled(proxy)["failed"] == 2
        requests, errors = warnings(proxy, 2)
        assert requests.startswith(f"Records in {tmp_path / 'logs'} cannot be written: ")
        assert errors.startswith(f"Records in {tmp_path / 'logs' / 'errors'} cannot be written: ")
        assert not (tmp_path / "nowhere").exists()
        (tmp_path / "nowhere").mkdir()
        good(proxy, upstream)
        assert settled(proxy)["written"] == 1


def test_killed_while_it_writes_it_starts_again_as_ever(upstream: Flaky, tmp_path: Path) -> None:
    file = written(tmp_path, upstream, requests=40, errors=30)
    logs = tmp_path / "logs"
    upstream.play(openai_error("503 Service Unavailable", "sorry " * 20_000))
    for _ in range(3):
        with Daemon("--config", str(file)) as proxy:
            assert raw.openai(proxy.url).status == 503
            threads = [threading.Thread(target=hammer, args=(proxy.url,)) for _ in range(4)]
            for thread in threads:
                thread.start()
            proxy.wait_for(r" #30 ")
            assert proxy.stop(signal.SIGKILL) == -signal.SIGKILL
            for thread in threads:
                thread.join(30)
        assert len(logs_in(logs)) <= 40
        assert len(logs_in(logs / "errors")) <= 30
    # As if it had been cut off within a file, and before its first byte.
    newest = max(logs_in(logs / "errors"), key=lambda one: one.stat().st_mtime_ns)
    newest.write_bytes(newest.read_bytes()[:100])
    max(logs_in(logs), key=lambda one: one.stat().st_mtime_ns).write_bytes(b"")
    with Daemon("--config", str(file)) as proxy:
        told = raw.ask(proxy.url, "/logs/errors").json
        assert told["total_files"] == len(logs_in(logs / "errors"))
        assert told["total_size"] == sum(one.stat().st_size for one in logs_in(logs / "errors"))
        bad(proxy, upstream, 45)
        settled(proxy)
        assert (len(logs_in(logs)), len(logs_in(logs / "errors"))) == (40, 30)
        assert warnings(proxy) == []
        assert proxy.stop() == 0


def hammer(url: str) -> None:
    """Ask until nobody answers."""
    with suppress(OSError, HTTPException):
        while True:
            raw.openai(url)
