"""A cache in Redis, shared by all hosts: an outage is a miss, a hit is one round trip.

Two kinds of keys stand under the prefix:

``e:KEY``
    a hash with all variants of one key, the key in hex; ``o`` holds the order of the others, the
    most recent first, and ``i`` the name of the index that lists it.
``u:PROJECT:CLASS:URL``
    an index: a sorted set of the KEYs of one URL of one project, by when they expire.  PROJECT is a
    hash in hex, CLASS is ``g`` for GET and HEAD and ``x`` for the rest.

**An entry that its index does not list is a miss.**  So one command forgets a URL at once, and an
index that Redis dropped for want of memory takes its entries along: nothing that a purge would not
find can be served.

All hosts must reach the same server; a Redis Cluster is none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any, Final

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from llmproxyd.cache import luascripts
from llmproxyd.cache.codec import decode, encode
from llmproxyd.cache.interface import Entry, Purge
from llmproxyd.redis.interface import Redis

VARIANTS: Final = 32
"""Variants of one key; the oldest makes room.  All of a key together take four bodies at most."""

LONGEST: Final = 30 * 86400.0
"""Seconds after which an entry is gone, however long it is said to be fresh."""

GRACE: Final = 60.0
"""Seconds for which a stale entry stays, for a client that takes one."""

VALIDATION: Final = 3600.0
"""The same where the upstream can be asked whether it still holds."""

PUTS: Final = 32
"""Stores that may be under way."""

OWED: Final = 1_000
"""Forgettings that failed and are to be made up for."""

STEP: Final = 500
"""Keys that one step of a purge looks at."""


class RedisCache:
    """A :class:`~llmproxyd.cache.interface.Cache` on a Redis server.

    :param prefix: of all keys; nothing else on the server is touched.
    :param max_object_bytes: of one body; larger ones are not stored.
    """

    def __init__(self, redis: Redis, prefix: str, *, max_object_bytes: int) -> None:
        self._redis = redis
        self._prefix = prefix.encode("utf-8", "surrogatepass")
        self._max = max_object_bytes
        self._bytes_under_way = 0
        self._puts = 0
        self._errors = 0
        self._skipped = 0
        self._owed: dict[bytes, None] = {}
        self._lost_track = False
        self._settling = False

    # Looking up.

    def get(self, key: bytes) -> Sequence[Entry] | Deferred[Sequence[Entry]]:
        """All variants under *key*, the most recent first."""
        if self._owed or self._lost_track or self._settling:
            self._settle()
            self._errors += 1
            return ()
        call: Deferred[Any] = self._redis.script(luascripts.GET, [self._entry(key)], [key.hex()])
        return call.addCallbacks(self._found, self._missed)

    def _found(self, reply: Any) -> Sequence[Entry]:
        if not isinstance(reply, list):
            self._errors += 1
            return ()
        found = []
        for raw in reply:
            entry = decode(raw) if isinstance(raw, bytes) else None
            if entry is not None:
                found.append(entry)
            else:
                self._errors += 1
        return found

    def _missed(self, _: Failure) -> Sequence[Entry]:
        self._errors += 1
        return ()

    # Storing.

    def put(self, key: bytes, entry: Entry) -> None:
        """Keep *entry*; nobody waits for it.

        What is too large, or comes while too much is under way already, is not kept; what it would
        have replaced is dropped all the same, for it is out of date.
        """
        size = len(entry.body)
        raw = None
        if size <= self._max and self._puts < PUTS and self._bytes_under_way + size <= 8 * self._max:
            raw = _encoded(entry)
        if raw is None:
            self._skipped += 1
            self.drop(key, entry.project)
            return
        self._puts += 1
        self._bytes_under_way += size
        index = self._index(entry.url, entry.project, entry.method)
        call = self._redis.script(
            luascripts.PUT,
            [self._entry(key), index],
            [_variant(entry), raw, _milliseconds(entry), key.hex(), VARIANTS, 4 * self._max + 65536],
        )
        call.addBoth(self._stored, size)

    def _stored(self, result: Any, size: int) -> None:
        self._puts -= 1
        self._bytes_under_way -= size
        if isinstance(result, Failure):
            self._errors += 1

    # Forgetting.

    def drop(self, key: bytes, project: str = "") -> None:
        """Forget all variants under *key*; nobody waits for it."""
        self._unlink(self._entry(key))

    def invalidate(self, url: bytes, project: str) -> None:
        """Forget GET and HEAD entries of *url* of one project; nobody waits for it."""
        self._unlink(self._index(url, project, b"GET"))

    def _unlink(self, name: bytes) -> None:
        """Remove one key; an entry whose index is gone is a miss, and expires."""
        self._redis.call("UNLINK", name).addErrback(lambda _: self._owe(name))

    def _owe(self, name: bytes) -> None:
        """*name* could not be removed: until it is, this host serves nothing that it might stand for."""
        self._errors += 1
        if len(self._owed) < OWED:
            self._owed[name] = None
        else:
            self._lost_track = True

    def _settle(self) -> None:
        """Make up for what failed; one attempt at a time, made by those who look something up."""
        if self._settling or not self._redis.up:
            return
        self._settling = True
        names = tuple(self._owed)
        everything, self._lost_track = self._lost_track, False
        done: Deferred[Any]
        done = self.purge(Purge(everything=True)) if everything else self._redis.call("UNLINK", *names)
        done.addBoth(self._settled, names, everything)

    def _settled(self, result: Any, names: tuple[bytes, ...], everything: bool) -> None:
        self._settling = False
        if isinstance(result, Failure):
            self._errors += 1
            self._lost_track = self._lost_track or everything
            return
        for name in names:
            self._owed.pop(name, None)

    def purge(self, what: Purge) -> Deferred[int]:
        """Forget what *what* says; how many entries there were.

        It walks all keys of the server in small steps.  Unlike all else it fails when the server
        does: what was not done must not be taken for done.

        :raises RedisUnavailable: some of it may be left.
        """
        pattern = self._pattern(what)
        return Deferred.fromCoroutine(self._purge(pattern)) if pattern else succeed(0)

    async def _purge(self, pattern: bytes) -> int:
        gone, cursor, more = 0, b"0", 1
        prefix = self._prefix + b"e:"
        while more:
            step: list[Any] = await self._redis.script(luascripts.PURGE, [], [cursor, pattern, STEP, prefix])
            count, cursor, more = step
            gone += count
        return gone

    def _pattern(self, what: Purge) -> bytes:
        """The indexes that *what* means, as a glob; empty where it says nothing."""
        project, url = b"?" * 32, b"*"
        if what.project is not None:
            project = _project(what.project)
        elif what.url is not None:
            url = _literal(what.url)
        elif what.prefix is not None:
            url = _literal(what.prefix) + b"*"
        elif not what.everything:
            return b""
        return b"%su:%s:?:%s" % (_literal(self._prefix), project, url)

    # What there is to say.

    def stats(self) -> Mapping[str, object]:
        """How many entries there are, the server alone knows, and what makes room there."""
        return {"backend": "redis", "up": self._redis.up, "errors": self._errors, "skipped": self._skipped}

    def close(self) -> None:
        """The link is not ours to close."""

    def _entry(self, key: bytes) -> bytes:
        return self._prefix + b"e:" + key.hex().encode()

    def _index(self, url: bytes, project: str, method: bytes) -> bytes:
        kind = b"g" if method in (b"GET", b"HEAD") else b"x"
        return b"%su:%s:%s:%s" % (self._prefix, _project(project), kind, url)


def _encoded(entry: Entry) -> bytes | None:
    try:
        return encode(entry)
    except ValueError:
        return None


def _project(project: str) -> bytes:
    return blake2b(project.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest().encode()


def _variant(entry: Entry) -> bytes:
    """16 bytes for the fields that select *entry*."""
    digest = blake2b(digest_size=16)
    for name, value in entry.varied:
        digest.update(b"%d %d %s" % (len(name), -1 if value is None else len(value), name))
        digest.update(value or b"")
    return digest.digest()


def _milliseconds(entry: Entry) -> int:
    """How long the server keeps *entry*: while it is of use, and a while for those who take it stale."""
    validated = entry.etag is not None or entry.last_modified is not None
    fresh = max(0.0, min(entry.lifetime - max(0.0, entry.age), LONGEST))
    stale = min(max(entry.stale_if_error, entry.stale_while_revalidate, 0.0), LONGEST)
    return int(min(fresh + stale + (VALIDATION if validated else GRACE), LONGEST) * 1000)


def _literal(text: bytes) -> bytes:
    """*text* in a glob of Redis, standing for itself."""
    for sign in b"\\*?[":
        text = text.replace(bytes((sign,)), b"\\%c" % sign)
    return text
