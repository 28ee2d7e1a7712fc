"""What is stored, and what a cache does with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from twisted.internet.defer import Deferred

from llmproxyd.model import RawHeaders
from llmproxyd.wire.fields import Lines

_OF_ENTRY = 1024
"""Bytes of an entry with nothing in it, and of its places in a store."""

_OF_PAIR = 136
"""Bytes of a pair of empty byte strings."""

_OF_LINE = 4
"""Bytes of a line in a block beside name and value: CRLF, colon, space."""


@dataclass(slots=True, kw_only=True)
class Entry:
    """One stored response.  Nobody changes one that is stored; a new one takes its place.

    What policy needs of its fields is parsed once, when it is stored, and stands beside them.

    Who stores one fills in ``body``, ``url`` and ``project``; the rest is policy's.

    :param headers: end-to-end fields as they came, order and case kept, less ``Age`` and
        ``Content-Length``, which are told anew.
    :param varied: the request's fields that select it, normalised, by lower-case name; ``None`` for
        a field that was not there.  Values may be hashes: any bytes.
    :param requested: when it was asked for, seconds since the epoch (RFC 9111 §4.2.3 request_time).
    :param received: when its head came (response_time).
    :param lifetime: seconds for which it is fresh.
    :param age: corrected initial age, seconds.
    :param url: upstream's name, a space, raw path and query without credentials; for purging.
    :param must_revalidate: it must not be reused once it is stale, whatever the client wants.
    :param no_cache: it must not be reused without asking.
    :param stale_if_error: seconds beyond *lifetime* for which it may stand in for a failure.
    :param stale_while_revalidate: seconds beyond *lifetime* for which it may be served while it is
        asked for anew.
    :param project: id of the project or hash of the credential that it is for; empty where shared.
    :param ready: what whoever serves it has found out of it, for the next time; it is not stored.
    """

    status: int
    reason: bytes
    headers: RawHeaders = field(repr=False)
    body: bytes = field(repr=False)
    varied: tuple[tuple[bytes, bytes | None], ...] = ()
    requested: float
    received: float
    lifetime: float
    age: float
    etag: bytes | None = None
    last_modified: bytes | None = None
    must_revalidate: bool = False
    no_cache: bool = False
    stale_if_error: float = 0.0
    stale_while_revalidate: float = 0.0
    url: bytes = b""
    method: bytes = b"GET"
    project: str = ""
    ready: object = field(default=None, repr=False, compare=False)

    @property
    def size(self) -> int:
        """Bytes that it takes in memory, about; rather more than less."""
        size = _OF_ENTRY + len(self.body) + 2 * len(self.url) + len(self.reason)
        headers = self.headers
        block = headers.block if isinstance(headers, Lines) else None
        # Pairs may be made of a block at any time, and a block of pairs: both count.
        if block is not None:
            size += 2 * len(block) + (_OF_PAIR - _OF_LINE) * block.count(b"\r\n")
        else:
            for name, value in headers:
                size += _OF_PAIR + _OF_LINE + 2 * (len(name) + len(value))
        for name, selected in self.varied:
            size += _OF_PAIR + len(name) + len(selected or b"")
        return size


@dataclass(frozen=True, slots=True, kw_only=True)
class Purge:
    """What is to be dropped; exactly one of these, or *everything*.

    :param url: all methods and variants of one URL (see :attr:`Entry.url`).
    :param prefix: of URLs.
    :param project: all of one project.
    """

    url: bytes | None = None
    prefix: bytes | None = None
    project: str | None = None
    everything: bool = False

    def means(self, url: bytes, project: str) -> bool:
        """Whether an entry of *url* and *project* is to be dropped."""
        if self.url is not None:
            return url == self.url
        if self.prefix is not None:
            return url.startswith(self.prefix)
        return self.everything or (self.project is not None and project == self.project)


class Cache(Protocol):
    """Keeps entries by key, several variants under one.  It never fails: an outage is a miss."""

    def get(self, key: bytes) -> Sequence[Entry] | Deferred[Sequence[Entry]]:
        """All variants under *key*, the most recent first; at once where nothing need be waited for."""
        ...

    def put(self, key: bytes, entry: Entry) -> None:
        """Keep *entry*, in place of a variant that has the same ``varied``."""
        ...

    def drop(self, key: bytes, project: str = "") -> None:
        """Forget all variants under *key*."""
        ...

    def invalidate(self, url: bytes, project: str) -> None:
        """Forget GET and HEAD entries of *url* (see :attr:`Entry.url`) of one project."""
        ...

    def purge(self, what: Purge) -> Deferred[int]:
        """Forget what *what* says; how many entries there were."""
        ...

    def stats(self) -> Mapping[str, object]:
        """``backend``, ``entries``, ``bytes``, ``evictions``, ``errors``; what is not known is left out."""
        ...

    def close(self) -> Deferred[None] | None:
        """No more is asked."""
        ...
