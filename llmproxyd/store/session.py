"""One transaction of a database, whatever its dialect."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, Protocol

Row = tuple[Any, ...]


class Dialect(Protocol):
    """What one kind of database does in its own way.

    Everything but the constructor is called in a thread that may wait.
    """

    name: str
    """Of its folder below ``schema``."""
    dbapi: str
    """The module to connect with."""
    mark: str
    """What stands for a value in a statement."""

    def arguments(self, writes: bool) -> dict[str, Any]:
        """What the module's ``connect`` is called with."""

    def prepare(self, writes: bool) -> None:
        """What is to be done before a connection is made.

        :raises OSError: it cannot be done.
        """

    def opened(self, connection: Any, writes: bool) -> None:
        """Make a new *connection* ready."""

    def begin(self, session: Session, writes: bool) -> None:
        """Begin a transaction, where the module does not do so by itself."""

    def lock_schema(self, session: Session) -> None:
        """Begin a transaction that no other process can have at the same time, or wait for it."""

    def lock_changes(self, session: Session) -> None:
        """Let no other transaction add to the sequence of changes until this one ends."""

    def has_meta(self, session: Session) -> bool:
        """Whether there is a table ``meta``."""

    def again(self, error: Exception, connection: Any) -> bool:
        """Whether what failed with *error* may well succeed when it is begun anew."""

    def lost(self, connection: Any) -> bool:
        """Whether *connection* is of no more use."""

    def break_off(self, connection: Any) -> None:
        """Make what hangs on *connection* fail.  Called in another thread than what hangs."""

    def reason(self, error: Exception) -> str:
        """What *error* says, for the log: no values, no password."""


@cache
def _marked(statement: str, mark: str) -> str:
    return statement.replace("?", mark)


class Session:
    """A connection in a transaction.  Values stand as ``?`` in statements.

    :ivar connection: as the module made it.
    """

    __slots__ = ("_cursor", "connection", "dialect")

    def __init__(self, dialect: Dialect, connection: Any) -> None:
        self.dialect = dialect
        self.connection = connection
        self._cursor = connection.cursor()

    def run(self, statement: str, *values: object) -> int:
        """Run *statement*; how many rows it changed."""
        self._cursor.execute(_marked(statement, self.dialect.mark), values or ())
        return int(self._cursor.rowcount)

    def many(self, statement: str, rows: Iterable[Sequence[object]]) -> None:
        """Run *statement* with each of *rows*."""
        self._cursor.executemany(_marked(statement, self.dialect.mark), rows)

    def all(self, statement: str, *values: object) -> list[Row]:
        """The rows that *statement* finds."""
        self.run(statement, *values)
        return list(self._cursor.fetchall())

    def one(self, statement: str, *values: object) -> Row | None:
        """The first row that *statement* finds."""
        self.run(statement, *values)
        row: Row | None = self._cursor.fetchone()
        return row

    def script(self, text: str) -> None:
        """Run the statements of *text*, each of which ends at a line's end.

        (``executescript`` of SQLite would commit first.)
        """
        lines = [line for line in text.splitlines() if not line.startswith("--")]
        for statement in "\n".join(lines).split(";\n"):
            if statement.strip(" \n;"):
                self._cursor.execute(statement.strip(" \n;"))

    def close(self) -> None:
        """No more is run."""
        self._cursor.close()
