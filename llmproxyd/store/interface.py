"""What a store of projects and tokens does, and what the pipeline asks at the door."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from twisted.internet.defer import Deferred

from llmproxyd.access.projects import Grant, Project, Token
from llmproxyd.redaction import Secret


class StoreUnavailable(Exception):
    """The store does not answer, or not in time."""


class Conflict(Exception):
    """What was to be made is there already (a project's name, an id), or its project is not."""


class Outdated(Conflict):
    """What was to be changed is not any more what the change was made of: somebody else was quicker."""


@dataclass(frozen=True, slots=True)
class Used:
    """Requests of one token with one model on one day, added to what the store has.

    :param day: UTC, ``2025-08-30``.
    :param last_used: seconds since the epoch.
    :param cost: by the price table, in its currency.
    """

    token: str
    project: str
    model: str
    day: str
    last_used: float
    requests: int = 0
    input: int = 0
    output: int = 0
    cost: float = 0.0


@dataclass(frozen=True, slots=True)
class UsageRow:
    """What was used under one project, token or model."""

    name: str
    requests: int
    input: int
    output: int
    cost: float


@dataclass(frozen=True, slots=True)
class Changes:
    """What changed since a number in the sequence of changes.

    :param last: the number to ask from next time.
    :param projects: ids, as are *tokens*.
    :param all: too much changed, or too long ago: forget everything.
    """

    last: int
    projects: tuple[str, ...] = ()
    tokens: tuple[str, ...] = ()
    all: bool = False


class Store(Protocol):
    """Projects and tokens at rest.  Every call is bounded in time.

    All fail with :exc:`StoreUnavailable` when the database does not answer.  Those that write fail
    with :exc:`ValueError` where a value cannot be kept: an id or a name with a NUL or of more than
    1,000 bytes in UTF-8, a number beyond 64 bits, a time that is none.
    """

    def open(self) -> Deferred[None]:
        """Bring the schema up to date (under a lock) and check the secret key.

        Fails with :exc:`~llmproxyd.store.interface.StoreUnavailable`, or :exc:`ValueError` in words
        for the operator (wrong key, schema newer than this program).
        """
        ...

    def close(self) -> Deferred[None]: ...

    def create_project(self, project: Project) -> Deferred[None]:
        """Fails with :exc:`Conflict` where the id or the name is taken."""
        ...

    def project(self, id: str) -> Deferred[Project | None]: ...

    def projects(self) -> Deferred[list[Project]]:
        """All, by name."""
        ...

    def update_project(self, project: Project, was: Project | None = None) -> Deferred[bool]:
        """Replace all that may change; ``False`` where there is none of this id.

        All but ``id`` and ``created`` may.  Fails with :exc:`Conflict` where the name is taken.

        :param was: what the change was made of; fails with :exc:`Outdated` where it is another now.
        """
        ...

    def delete_project(self, id: str) -> Deferred[bool]:
        """With its tokens and credentials; what was used under it stays in ``usage``."""
        ...

    def create_token(self, token: Token) -> Deferred[None]:
        """Fails with :exc:`Conflict` where the id or the digest is taken, or the project is not there."""
        ...

    def token(self, id: str) -> Deferred[Token | None]: ...

    def token_by_digest(self, digest: bytes) -> Deferred[Token | None]: ...

    def tokens(self, project: str | None = None) -> Deferred[list[Token]]:
        """The newest first."""
        ...

    def update_token(self, token: Token, was: Token | None = None) -> Deferred[bool]:
        """Replace all that may change; ``False`` where there is none of this id.

        All but ``id``, ``project``, ``created``, ``last_used`` and the counts may: the digest too,
        with which a token is replaced by another one.

        :param was: what the change was made of; fails with :exc:`Outdated` where it is another now,
            whatever was counted meanwhile.
        """
        ...

    def delete_token(self, id: str) -> Deferred[bool]: ...

    def count(self, batch: Sequence[Used]) -> Deferred[dict[str, int]]:
        """Add *batch* in one transaction.

        :returns: by the id of each token in it that still is: requests, those of other hosts too.
        """
        ...

    def changes(self, since: int) -> Deferred[Changes]:
        """What was changed after the change of the number *since*; 0 for all that is known.

        A project's deletion stands for that of its tokens.  Counting changes nothing.
        """
        ...

    def usage(self, by: Literal["project", "token", "model"], since: str) -> Deferred[list[UsageRow]]:
        """What was used from the day *since* on, the most first: by cost, model tokens, requests.

        The model of requests whose model nobody noted is the empty text.

        :param since: UTC, ``2025-08-30``.
        """
        ...

    def rotate_key(self, new: Secret) -> Deferred[int]:
        """Encrypt all credentials under *new*, in one transaction; how many there were.

        Other processes that have the old one open can neither read nor write credentials from then on.
        Fails with :exc:`ValueError` where *new* is no key.
        """
        ...


class Door(Protocol):
    """What the pipeline asks: who is this, and may they?"""

    def admit(self, token: str) -> Grant | Deferred[Grant]:
        """The grant of *token*, counted as one request; at once where it is remembered.

        :raises Refused: 401 ``token_not_found``, ``token_inactive``, ``token_expired``; 403
            ``project_inactive``; 429 ``rate_limit_exceeded``; 503 ``store_unavailable`` with
            ``Retry-After``.  A Deferred fails with the same.
        """
        ...

    def again(self, grant: Grant) -> bool:
        """Count one more request of *grant*, if it is known to hold still; else :meth:`admit` tells.

        :raises Refused: as there.
        """
        ...

    def returned(self, grant: Grant) -> None:
        """The request that was admitted last was refused after all: it does not count."""
        ...

    def used(self, grant: Grant, model: str, input: int, output: int, cost: float, requests: int = 1) -> None:
        """Note what so many *requests* of *grant* have used."""
        ...

    @property
    def ready(self) -> bool:
        """Whether the store answers."""
        ...
