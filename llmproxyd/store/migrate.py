"""The schema, brought up to date by the numbered files of ``schema/DIALECT``."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from llmproxyd.store.session import Session

VERSION = "schema"
"""The row of ``meta`` that tells how many of the files have been run."""


@cache
def scripts(dialect: str) -> tuple[str, ...]:
    """The files of *dialect* in order: 001, 002, …"""
    folder = files("llmproxyd.store").joinpath("schema", dialect)
    named = sorted((entry.name, entry.read_text("utf-8")) for entry in folder.iterdir())
    return tuple(text for name, text in named if name.endswith(".sql"))


def migrate(session: Session) -> None:
    """Run the files that have not been run yet.

    Within a transaction that no other process has at the same time.

    :raises ValueError: the schema is newer than this program.
    """
    known = scripts(session.dialect.name)
    version = 0
    if session.dialect.has_meta(session):
        row = session.one("SELECT value FROM meta WHERE name = ?", VERSION)
        version = int(row[0]) if row is not None else 0
    if version > len(known):
        raise ValueError(
            f"the schema of the store is of version {version}, newer than what this program knows "
            f"({len(known)}): use the program that last used it, or a later one"
        )
    for script in known[version:]:
        session.script(script)
    if version < len(known):
        put(session, VERSION, str(len(known)))


def get(session: Session, name: str) -> str | None:
    """The value of *name* in ``meta``."""
    row = session.one("SELECT value FROM meta WHERE name = ?", name)
    return None if row is None else str(row[0])


def put(session: Session, name: str, value: str) -> None:
    """Set the value of *name* in ``meta``."""
    session.run(
        "INSERT INTO meta (name, value) VALUES (?, ?) "
        "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        name,
        value,
    )
