"""A cache of somebody else's, which may fail: that is a miss, and counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from llmproxyd.cache.interface import Entry, Purge
from llmproxyd.library.bounded import bounded

TIMEOUT = 1.0
"""Seconds within which it has to answer."""

PURGE_TIMEOUT = 30.0


class GuardedCache:
    """A :class:`~llmproxyd.cache.interface.Cache` that never fails.

    :param cache: an :class:`~llmproxyd.library.interfaces.ICache`; closing it is its owner's affair.
    :ivar failures: calls that failed or took too long.
    """

    def __init__(self, cache: Any, clock: IReactorTime, logger: Logger) -> None:
        self._cache = cache
        self._clock = clock
        self._log = logger
        self.failures = 0

    def get(self, key: bytes) -> Sequence[Entry] | Deferred[Sequence[Entry]]:
        try:
            found = self._cache.get(key)
        except Exception:
            self._failed(Failure())
            return ()
        if isinstance(found, list | tuple):
            return found
        asked: Deferred[Any] = bounded(maybeDeferred(lambda: found), TIMEOUT, self._clock)
        return asked.addErrback(self._missed)

    def put(self, key: bytes, entry: Entry) -> None:
        self._do(self._cache.put, key, entry)

    def drop(self, key: bytes, project: str = "") -> None:
        self._do(self._cache.drop, key, project)

    def invalidate(self, url: bytes, project: str) -> None:
        self._do(self._cache.invalidate, url, project)

    def purge(self, what: Purge) -> Deferred[int]:
        return bounded(maybeDeferred(self._cache.purge, what), PURGE_TIMEOUT, self._clock)

    def stats(self) -> Mapping[str, object]:
        told: object = {}
        try:
            told = self._cache.stats()
            if not isinstance(told, Mapping):
                raise TypeError("stats did not tell a mapping")
        except Exception:
            self._failed(Failure())
            told = {}
        return {"backend": "own", **told, "failures": self.failures}

    def close(self) -> None:
        """Nothing."""

    def _do(self, call: Callable[..., object], *arguments: object) -> None:
        try:
            result = call(*arguments)
        except Exception:
            self._failed(Failure())
            return
        if result is not None:
            bounded(maybeDeferred(lambda: result), TIMEOUT, self._clock).addErrback(self._failed)

    def _missed(self, failure: Failure) -> Sequence[Entry]:
        self._failed(failure)
        return ()

    def _failed(self, failure: Failure) -> None:
        self.failures += 1
        if self.failures == 1:
            self._log.failure("the cache failed; further failures are only counted", failure)
