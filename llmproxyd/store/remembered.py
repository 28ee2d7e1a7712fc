"""What is remembered of tokens: bounded, and in two parts that do not push each other out."""

from __future__ import annotations

from collections.abc import Callable
from hmac import compare_digest
from math import inf

from llmproxyd.access.projects import Grant, Project, Token
from llmproxyd.store.counts import Count
from llmproxyd.store.rows import same_but_counts

LIFETIME = 60.0
"""Seconds for which a token is remembered."""

RENEW = 45.0
"""Seconds after which it is asked for again, if it is still used."""

UNKNOWN = 10.0
"""Seconds for which it is remembered that there is no such token."""

MAX_ENTRIES = 10_000
"""Tokens that are remembered, and again as many that are not there."""


class Entry:
    """What is remembered of one token; the clock's seconds are monotonic.

    :ivar renew_at: when it is looked at more closely.
    :ivar stale_at: when it is good no more, unless the store is down.
    :ivar trusted: nothing is known to have changed.
    :ivar free: nothing but a change can end it: it is active and knows no bounds.
    """

    __slots__ = ("count", "digest", "free", "grant", "renew_at", "stale_at", "trusted")

    def __init__(self, digest: bytes, grant: Grant, count: Count, now: float) -> None:
        self.digest = digest
        self.grant = grant
        self.count = count
        self.renew_at = now + RENEW
        self.stale_at = now + LIFETIME
        self.trusted = True
        token = grant.token
        bounded = token.expires_at is not None or token.max_requests is not None
        self.free = token.active and grant.project.active and not bounded


class Remembered:
    """The entries by digest.

    :param most: so many at most, and again as many that are not there.
    :ivar entries: in the order in which they were loaded; who is used is loaded again and again, so
        that the first is one that was not used for long.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.entries: dict[bytes, Entry] = {}
        self._unknown: dict[bytes, float] = {}
        self._projects: dict[str, Project] = {}

    def load(
        self,
        digest: bytes,
        token: Token,
        project: Project,
        count: Count,
        now: float,
    ) -> Entry:
        """Remember *token* from *now* on."""
        before = self.entries.pop(digest, None)
        if len(self.entries) >= self._most:
            del self.entries[next(iter(self.entries))]
        entry = self.entries[digest] = Entry(digest, self._same(before, project, token), count, now)
        return entry

    def _same(self, before: Entry | None, project: Project, token: Token) -> Grant:
        """The grant of *token*: the one that was given before, if nothing but counts is new."""
        known = self._projects.get(project.id)
        if known is not None and known == project:
            project = known  # all tokens of a project share one
        else:
            if len(self._projects) >= self._most:
                self._projects.clear()
            self._projects[project.id] = project
        old = None if before is None else before.grant
        if old is not None and old.project is project and same_but_counts(token, old.token):
            return old
        return Grant(project, token)

    def miss(self, digest: bytes, now: float) -> None:
        """Remember that there is no such token."""
        self.entries.pop(digest, None)
        if len(self._unknown) >= self._most:
            del self._unknown[next(iter(self._unknown))]
        self._unknown[digest] = now + UNKNOWN

    def missing(self, digest: bytes, now: float) -> bool:
        """Whether it is remembered that there is no such token."""
        return now < self._unknown.get(digest, -inf)

    def distrust(self, which: Callable[[Token], bool]) -> None:
        """Something changed: of *which* nothing is good any more, and others may be there now.

        The entries stay, so that a grant that did not change is given again.
        """
        self._unknown.clear()
        for entry in self.entries.values():
            if which(entry.grant.token):
                entry.renew_at = entry.stale_at = -inf
                entry.trusted = False

    def forget(self) -> None:
        """Remember nothing."""
        self.entries.clear()
        self._unknown.clear()
        self._projects.clear()


def is_of(token: Token, digest: bytes) -> bool:
    """Whether *token* is the one that was presented; takes as long whether it is or not."""
    return compare_digest(token.digest, digest)
