"""Projects and tokens in a database."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from twisted.internet.defer import Deferred, fail, gatherResults

from llmproxyd.access.projects import Project, Token
from llmproxyd.redaction import Secret
from llmproxyd.store import statements
from llmproxyd.store.encryption import Cipher, WrongKeyError
from llmproxyd.store.interface import Changes, StoreUnavailable, UsageRow, Used
from llmproxyd.store.keyfile import KeyFile
from llmproxyd.store.lane import Lane
from llmproxyd.store.migrate import migrate
from llmproxyd.store.postgresql import PostgreSQL
from llmproxyd.store.session import Dialect, Session
from llmproxyd.store.sqlite import SQLite
from llmproxyd.store.vault import Unlocked, Vault

T = TypeVar("T")

READERS = 3
"""Threads that read."""

OPEN = 30.0
"""Seconds to bring the schema up to date, waiting for other processes included, or to rotate the key."""


def store_for(
    url: Secret,
    secret_key: Secret | None,
    reactor: Any,
    *,
    state_folder: Path,
    random_bytes: Callable[[int], bytes] = os.urandom,
) -> SQLStore:
    """The store of the configuration, not opened yet.

    :param url: ``access.store``: ``sqlite:PATH`` or ``postgresql://…``.
    :param secret_key: ``access.secret_key``.
    :param state_folder: what a relative path of an SQLite file stands against.
    :raises ValueError: there is no such store; in words for the operator.
    """
    scheme, colon, rest = url.reveal().partition(":")
    if scheme == "sqlite" and colon:
        if not rest or rest == ":memory:" or "\0" in rest or rest.endswith("/"):
            raise ValueError("access.store: sqlite: needs the path of a file")
        path = state_folder / rest
        keys = KeyFile(path.with_name(path.name + ".key"), random_bytes)
        return SQLStore(SQLite(path), Vault(secret_key, keys, random_bytes), reactor)
    if scheme in ("postgresql", "postgres") and rest.startswith("//"):
        if secret_key is None:
            raise ValueError("a store in PostgreSQL needs access.secret_key: it encrypts the credentials")
        return SQLStore(PostgreSQL(url), Vault(secret_key, None, random_bytes), reactor)
    raise ValueError("access.store must be sqlite:PATH or postgresql://USER:PASSWORD@HOST/DATABASE")


class SQLStore:
    """A :class:`~llmproxyd.store.interface.Store` in a database.  Use it from the reactor's thread.

    One thread writes, :data:`READERS` read; none is the reactor's.

    :param reactor: for its threads and its clock.
    """

    def __init__(self, dialect: Dialect, vault: Vault, reactor: Any) -> None:
        self._dialect = dialect
        self._vault = vault
        self._reading = Lane(dialect, reactor, READERS, writes=False)
        self._writing = Lane(dialect, reactor, 1, writes=True)
        self._unlocked: Unlocked | None = None

    # Opened and closed.

    def open(self) -> Deferred[None]:
        return self._writing.run(self._set_up, deadline=OPEN, schema=True).addCallback(self._opened)

    def _set_up(self, session: Session) -> Unlocked:
        migrate(session)
        return self._vault.unlock(session)

    def _opened(self, unlocked: Unlocked) -> None:
        self._unlocked = unlocked

    def close(self) -> Deferred[None]:
        return gatherResults([self._reading.close(), self._writing.close()]).addCallback(lambda _: None)

    def _read(self, work: Callable[[Session, Cipher], T]) -> Deferred[T]:
        unlocked = self._unlocked
        if unlocked is None:
            return fail(StoreUnavailable("the store is not open"))

        def reading(session: Session) -> T:
            try:
                return work(session, unlocked.cipher)
            except WrongKeyError:
                Vault.confirm(session, unlocked)
                raise StoreUnavailable("a credential in the store was tampered with") from None

        return self._reading.run(reading)

    def _write(self, work: Callable[[Session, Cipher], T], conflict: str = "") -> Deferred[T]:
        """Do *work*, of which others hear through the sequence of changes."""
        unlocked = self._unlocked
        if unlocked is None:
            return fail(StoreUnavailable("the store is not open"))

        def writing(session: Session) -> T:
            session.dialect.lock_changes(session)
            Vault.confirm(session, unlocked)
            return work(session, unlocked.cipher)

        return self._writing.run(writing, conflict=conflict)

    # Projects.

    def create_project(self, project: Project) -> Deferred[None]:
        return self._write(
            lambda session, cipher: statements.insert_project(session, project, cipher),
            "there is a project of this id or name already",
        )

    def project(self, id: str) -> Deferred[Project | None]:
        def one(session: Session, cipher: Cipher) -> Project | None:
            found = statements.select_projects(session, cipher, id)
            return found[0] if found else None

        return self._read(one)

    def projects(self) -> Deferred[list[Project]]:
        return self._read(statements.select_projects)

    def update_project(self, project: Project, was: Project | None = None) -> Deferred[bool]:
        return self._write(
            lambda session, cipher: statements.update_project(session, project, cipher, was),
            "there is another project of this name already",
        )

    def delete_project(self, id: str) -> Deferred[bool]:
        return self._write(lambda session, _: statements.delete_project(session, id))

    # Tokens.

    def create_token(self, token: Token) -> Deferred[None]:
        return self._write(
            lambda session, _: statements.insert_token(session, token), "there is such a token already"
        )

    def token(self, id: str) -> Deferred[Token | None]:
        return self._read(lambda session, _: statements.select_token(session, "id", id))

    def token_by_digest(self, digest: bytes) -> Deferred[Token | None]:
        return self._read(lambda session, _: statements.select_token(session, "digest", digest))

    def tokens(self, project: str | None = None) -> Deferred[list[Token]]:
        return self._read(lambda session, _: statements.select_tokens(session, project))

    def update_token(self, token: Token, was: Token | None = None) -> Deferred[bool]:
        return self._write(
            lambda session, _: statements.update_token(session, token, was),
            "there is such a token already",
        )

    def delete_token(self, id: str) -> Deferred[bool]:
        return self._write(lambda session, _: statements.delete_token(session, id))

    # What is used, and what changes.

    def count(self, batch: Sequence[Used]) -> Deferred[dict[str, int]]:
        if self._unlocked is None:
            return fail(StoreUnavailable("the store is not open"))
        return self._writing.run(lambda session: statements.add_used(session, batch))

    def changes(self, since: int) -> Deferred[Changes]:
        return self._read(lambda session, _: statements.select_changes(session, since))

    def usage(self, by: Literal["project", "token", "model"], since: str) -> Deferred[list[UsageRow]]:
        return self._read(lambda session, _: statements.select_usage(session, by, since))

    # The key.

    def rotate_key(self, new: Secret) -> Deferred[int]:
        old = self._unlocked
        if old is None:
            return fail(StoreUnavailable("the store is not open"))

        def rotating(session: Session) -> tuple[Unlocked, int]:
            session.dialect.lock_changes(session)
            return self._vault.rotate(session, old, new)

        def rotated(found: tuple[Unlocked, int]) -> Deferred[int]:
            self._unlocked, count = found
            kept = self._writing.run(lambda _: self._vault.rotated(new))
            return kept.addCallback(lambda _: count)

        return self._writing.run(rotating, deadline=OPEN).addCallback(rotated)
