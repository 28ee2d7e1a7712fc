"""A cache in this process's memory: least recently used goes first, bounded in bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from twisted.internet.defer import Deferred, succeed

from llmproxyd.cache.interface import Entry, Purge

VARIANTS: Final = 32
"""Variants of one key; the oldest makes room."""

_SAFE: Final = (b"GET", b"HEAD")


class MemoryCache:
    """A :class:`~llmproxyd.cache.interface.Cache` that answers at once.

    ``get`` and ``put`` cost the same however much is stored; ``purge`` walks, except by URL.

    :param max_bytes: of all entries together (:attr:`Entry.size <llmproxyd.cache.interface.Entry.size>`).
    """

    def __init__(self, max_bytes: int) -> None:
        self._max = max_bytes
        self._bytes = 0
        self._entries = 0
        self._evictions = 0
        # What is served may be held on to: a tuple is replaced, never changed.
        self._by_key: OrderedDict[bytes, tuple[Entry, ...]] = OrderedDict()
        self._by_url: dict[bytes, set[bytes]] = {}

    def get(self, key: bytes) -> Sequence[Entry]:
        """All variants under *key*, the most recent first."""
        found = self._by_key.get(key)
        if found is None:
            return ()
        self._by_key.move_to_end(key)
        return found

    def put(self, key: bytes, entry: Entry) -> None:
        """Keep *entry*, in place of a variant that has the same ``varied``.

        One that is larger than all that may be stored is not kept, and what it would have
        replaced is gone all the same: it is out of date.
        """
        variants, size = self._by_key.get(key), entry.size
        if variants is None and size <= self._max:
            self._add(key, entry, size)
        else:
            self._replace(key, variants or (), entry, size)
        while self._bytes > self._max:
            self._evict()

    def _add(self, key: bytes, entry: Entry, size: int) -> None:
        """Keep *entry*, the first under *key*: what :meth:`_set` does, for most."""
        self._by_key[key] = (entry,)
        self._bytes += size
        self._entries += 1
        keys = self._by_url.get(entry.url)
        if keys is None:
            self._by_url[entry.url] = {key}
        else:
            keys.add(key)

    def _replace(self, key: bytes, variants: tuple[Entry, ...], entry: Entry, size: int) -> None:
        kept = [one for one in variants if one.varied != entry.varied]
        if size <= self._max:
            kept.insert(0, entry)
        if len(kept) > VARIANTS:
            self._evictions += len(kept) - VARIANTS
            del kept[VARIANTS:]
        self._set(key, variants, tuple(kept))
        if kept:
            self._by_key.move_to_end(key)

    def _evict(self) -> None:
        """Drop the oldest variant of the key that was longest not asked for."""
        self._evictions += 1
        key, variants = self._by_key.popitem(last=False)
        if len(variants) == 1:
            entry = variants[0]
            self._bytes -= entry.size
            self._entries -= 1
            self._unlist(entry.url, key)
        else:
            self._by_key[key] = variants
            self._by_key.move_to_end(key, last=False)
            self._set(key, variants, variants[:-1])

    def _unlist(self, url: bytes, key: bytes) -> None:
        """Nothing of *url* is under *key* any more."""
        keys = self._by_url[url]
        keys.discard(key)
        if not keys:
            del self._by_url[url]

    def _set(self, key: bytes, before: tuple[Entry, ...], after: tuple[Entry, ...]) -> None:
        """Put *after* in the place of *before*, and keep count."""
        if after:
            self._by_key[key] = after
        else:
            self._by_key.pop(key, None)
        stays = {id(one) for one in after}
        self._bytes -= sum(one.size for one in before if id(one) not in stays)
        stays = {id(one) for one in before}
        self._bytes += sum(one.size for one in after if id(one) not in stays)
        self._entries += len(after) - len(before)
        urls = {one.url for one in after}
        for url in urls:
            self._by_url.setdefault(url, set()).add(key)
        for url in {one.url for one in before} - urls:
            self._unlist(url, key)

    def drop(self, key: bytes, project: str = "") -> None:
        """Forget all variants under *key*."""
        self._set(key, self._by_key.get(key, ()), ())

    def invalidate(self, url: bytes, project: str) -> None:
        """Forget GET and HEAD entries of *url* of one project."""
        self._forget(
            tuple(self._by_url.get(url, ())),
            lambda one: one.url == url and one.project == project and one.method in _SAFE,
        )

    def purge(self, what: Purge) -> Deferred[int]:
        """Forget what *what* says; how many entries there were."""
        if what.everything:
            gone = self._entries
            self._clear()
            return succeed(gone)
        if what.url is not None:
            url = what.url
            return succeed(self._forget(tuple(self._by_url.get(url, ())), lambda one: one.url == url))
        keys = tuple(self._by_key)
        if what.prefix is not None:
            prefix = what.prefix
            return succeed(self._forget(keys, lambda one: one.url.startswith(prefix)))
        if what.project is not None:
            project = what.project
            return succeed(self._forget(keys, lambda one: one.project == project))
        return succeed(0)

    def _forget(self, keys: Sequence[bytes], condemned: Callable[[Entry], bool]) -> int:
        gone = 0
        for key in keys:
            before = self._by_key[key]
            after = tuple(one for one in before if not condemned(one))
            if len(after) < len(before):
                gone += len(before) - len(after)
                self._set(key, before, after)
        return gone

    def _clear(self) -> None:
        self._by_key.clear()
        self._by_url.clear()
        self._bytes = self._entries = 0

    def stats(self) -> Mapping[str, object]:
        """What is stored, and how many entries had to make room."""
        return {
            "backend": "memory",
            "entries": self._entries,
            "bytes": self._bytes,
            "max_bytes": self._max,
            "evictions": self._evictions,
            "errors": 0,
        }

    def close(self) -> None:
        """Forget everything."""
        self._clear()
