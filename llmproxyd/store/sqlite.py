"""SQLite: the store in one file, for one host."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path
from typing import Any

from llmproxyd.store.session import Session

BUSY = 2.0
"""Seconds to wait for another process that writes."""

BUSY_SCHEMA = 20.0
"""Seconds to wait for another process that brings the schema up to date."""


class SQLite:
    """The dialect of SQLite.

    :param path: of the file, which is made for its owner alone when it is opened.
    """

    name = "sqlite"
    dbapi = "sqlite3"
    mark = "?"

    def __init__(self, path: Path) -> None:
        self.path = path

    def arguments(self, writes: bool) -> dict[str, Any]:
        # Transactions are begun in words; a connection is closed by another thread than its own.
        return {
            "database": str(self.path),
            "timeout": BUSY,
            "isolation_level": None,
            "check_same_thread": False,
        }

    def prepare(self, writes: bool) -> None:
        """Make the file, its folder too, for the owner alone; leave it be if it is there."""
        if not writes:
            return
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))

    def opened(self, connection: Any, writes: bool) -> None:
        if writes:
            _write_ahead(connection)
        connection.execute("PRAGMA foreign_keys = ON")
        # A revocation that was acknowledged must outlive a power cut.
        connection.execute("PRAGMA synchronous = FULL")
        # What count() adds each second is rewritten in place: the log need not grow beyond this.
        connection.execute("PRAGMA journal_size_limit = 16777216")

    def begin(self, session: Session, writes: bool) -> None:
        session.run("BEGIN IMMEDIATE" if writes else "BEGIN")

    def lock_schema(self, session: Session) -> None:
        session.run(f"PRAGMA busy_timeout = {int(BUSY_SCHEMA * 1000)}")
        try:
            session.run("BEGIN EXCLUSIVE")
        finally:
            session.run(f"PRAGMA busy_timeout = {int(BUSY * 1000)}")

    def lock_changes(self, session: Session) -> None:
        """Nothing to do: there is one writer at a time."""

    def has_meta(self, session: Session) -> bool:
        return session.one("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'meta'") is not None

    def again(self, error: Exception, connection: Any) -> bool:
        return False

    def lost(self, connection: Any) -> bool:
        return False

    def break_off(self, connection: Any) -> None:
        connection.interrupt()

    def reason(self, error: Exception) -> str:
        return f"{self.path}: {error}"


def _write_ahead(connection: Any) -> None:
    """Switch the file to a write-ahead log, so that those who read never wait.

    SQLite does not wait here for another process that does the same.
    """
    end = time.monotonic() + BUSY
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL").fetchone()
        except sqlite3.OperationalError:
            if time.monotonic() > end:
                raise
            time.sleep(0.01)
        else:
            return
