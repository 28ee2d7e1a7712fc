"""PostgreSQL: the store of several hosts."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import Any

from llmproxyd.redaction import Secret
from llmproxyd.store.session import Session

STATEMENT = 3.0
"""Seconds that a statement may take, waiting for others included."""

STATEMENT_SCHEMA = 25.0
"""The same while the schema is brought up to date."""

_SCHEMA_LOCK = 0x6C6C6D7072787964
"""Our number among the advisory locks of the database: ``llmprxyd``."""

_AGAIN = ("40001", "40P01", "57P01", "57P02", "57P03")
"""Serialization failure, deadlock, and a server that is shut down or starts."""

_DEFAULTS: dict[str, Any] = {
    "connect_timeout": 3,
    "application_name": "llmproxyd",
    # A server whose host is gone is noticed: seconds, and milliseconds.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}


class PostgreSQL:
    """The dialect of PostgreSQL.

    :param url: ``postgresql://…``, as libpq reads it.
    :raises ValueError: psycopg is not installed, or the URL cannot be read.
    """

    name = "postgresql"
    dbapi = "psycopg"
    mark = "%s"

    def __init__(self, url: Secret) -> None:
        try:
            import psycopg
            from psycopg.conninfo import conninfo_to_dict
        except ImportError as error:
            raise ValueError(
                "a store in PostgreSQL needs psycopg: pip install 'llmproxyd[postgres]'"
            ) from error
        self._psycopg = psycopg
        try:
            given = conninfo_to_dict(url.reveal())
        except psycopg.Error:
            given = None
        if given is None:  # outside: the error repeats the URL, with its password
            raise ValueError("access.store: the URL of the PostgreSQL database cannot be read")
        self._where = f"{given.get('host') or 'localhost'}/{given.get('dbname') or ''}"
        self._arguments: dict[str, Any] = {
            **{name: value for name, value in _DEFAULTS.items() if name not in given},
            **given,
            # Prepared statements do not go together with poolers such as PgBouncer.
            "prepare_threshold": None,
        }

    def arguments(self, writes: bool) -> dict[str, Any]:
        return self._arguments

    def prepare(self, writes: bool) -> None:
        """Nothing to do."""

    def opened(self, connection: Any, writes: bool) -> None:
        milliseconds = int(STATEMENT * 1000)
        connection.execute(f"SET statement_timeout = {milliseconds}")
        connection.execute(f"SET idle_in_transaction_session_timeout = {10 * milliseconds}")
        connection.commit()
        level = self._psycopg.IsolationLevel
        # Who reads a project and its credentials reads one state of both.
        connection.isolation_level = level.READ_COMMITTED if writes else level.REPEATABLE_READ
        connection.read_only = not writes

    def begin(self, session: Session, writes: bool) -> None:
        """Nothing to do: psycopg begins one before the first statement."""

    def lock_schema(self, session: Session) -> None:
        session.run(f"SET LOCAL statement_timeout = {int(STATEMENT_SCHEMA * 1000)}")
        session.run(f"SELECT pg_advisory_xact_lock({_SCHEMA_LOCK})")

    def lock_changes(self, session: Session) -> None:
        # Numbers taken from a sequence would show up in another order than they were taken in, and
        # who asked in between would never see the lower one.
        session.run("LOCK TABLE changes IN SHARE ROW EXCLUSIVE MODE")

    def has_meta(self, session: Session) -> bool:
        row = session.one("SELECT to_regclass('meta') IS NOT NULL")
        return row is not None and bool(row[0])

    def again(self, error: Exception, connection: Any) -> bool:
        if connection is not None and (connection.closed or connection.broken):
            return True
        return isinstance(error, self._psycopg.Error) and error.sqlstate in _AGAIN

    def lost(self, connection: Any) -> bool:
        return bool(connection.closed or connection.broken)

    def break_off(self, connection: Any) -> None:
        # Its own ``cancel`` would ask the server, which is what does not answer.
        with suppress(Exception), socket.socket(fileno=os.dup(connection.pgconn.socket)) as copy:
            copy.shutdown(socket.SHUT_RDWR)

    def reason(self, error: Exception) -> str:
        diag = getattr(error, "diag", None)
        said = (diag.message_primary if diag is not None else None) or str(error)
        # What libpq says of a connection stands on several lines.
        return f"PostgreSQL at {self._where}: {' '.join(said.split())}"
