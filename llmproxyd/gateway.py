"""What guards and measures, built from a configuration: door, limits, cache, events, audit, metrics.

Each part may be handed in instead (:class:`Parts`): the library lets a site bring its own.
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, maybeDeferred, succeed
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from llmproxyd.cache.interface import Cache
from llmproxyd.cache.memory import MemoryCache
from llmproxyd.cache.redis import RedisCache
from llmproxyd.config.schema import Config
from llmproxyd.inspection.prices import Prices
from llmproxyd.limits.interface import Limiter
from llmproxyd.limits.memory import MemoryLimiter
from llmproxyd.limits.redis import RedisLimiter
from llmproxyd.listen import StartError
from llmproxyd.model import Finished
from llmproxyd.observe.audit import AuditLog, NoAudit, audit_of
from llmproxyd.observe.bus import Bus
from llmproxyd.observe.dispatch.build import Means, bus_of
from llmproxyd.observe.sink import Sink
from llmproxyd.pipeline.door import Entrance
from llmproxyd.redaction import Redactor
from llmproxyd.redis.link import RedisLink
from llmproxyd.store.doorkeeper import Doorkeeper
from llmproxyd.store.interface import Door, Store, StoreUnavailable
from llmproxyd.store.sql import store_for

AGAIN = 2.0
"""Seconds until a store that did not answer at the start is asked again."""


EVENTS = 2.0
"""Seconds that Redis has for a batch of events."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What somebody brings in place of what the configuration asks for."""

    door: Door | None = None
    limiter: Limiter | None = None
    cache: Cache | None = None
    bus: Bus | None = None
    audit: AuditLog | NoAudit | None = None


NO_PARTS = Parts()
"""Everything is built as the configuration asks for."""


class Gateway:
    """All of it; what is switched off is ``None``.

    :raises StartError: what is configured cannot be had, in one line.
    :ivar ready: the store, where there is one, has been opened.
    """

    log = Logger(namespace="llmproxyd")

    def __init__(self, config: Config, reactor: Any, redactor: Redactor, parts: Parts = NO_PARTS) -> None:
        self._config = config
        self._reactor = reactor
        self._stopping = False
        self._why_not_open = ""
        self.opened = False
        try:
            self.redis = self._redis()
            self.store: Store | None = None
            self.door: Door | None = parts.door
            if config.access.enabled and self.door is None:
                self.store = store_for(
                    config.access.store,
                    config.access.secret_key,
                    reactor,
                    state_folder=config.state_folder,
                )
                self.door = Doorkeeper(
                    self.store, reactor, time.time, enforce_active=config.access.enforce_active
                )
            self.limiter: Limiter = parts.limiter or self._limiter()
            self.cache = (parts.cache or self._cache()) if config.cache.enabled else None
            self._events_redis = self._redis_for_events()
            means = Means(reactor, time.time, random.random, self._events_redis)
            self.bus = parts.bus or bus_of(config.events, means, redactor, secrets.token_hex(8))
            self.audit = parts.audit or audit_of(config.audit, reactor, time.time, redactor)
        except (ValueError, ImportError) as error:
            raise StartError(str(error)) from error
        self._prices = Prices(config.events.prices)

    def _redis(self) -> RedisLink | None:
        config = self._config
        wanted = (config.cache.enabled and config.cache.backend == "redis") or (
            config.access.enabled and config.access.limits == "redis"
        )
        if not wanted or config.cache.redis_url is None:
            return None
        return RedisLink(self._reactor, config.cache.redis_url)

    def _redis_for_events(self) -> RedisLink | None:
        """A link of their own: a batch that takes its time holds up no request."""
        config = self._config
        url = config.cache.redis_url
        if url is None or all(one.to != "redis" for one in config.events.dispatch):
            return None
        return RedisLink(self._reactor, url, timeout=EVENTS, connections=1)

    def _limiter(self) -> Limiter:
        if self.redis is not None and self._config.access.limits == "redis":
            return RedisLimiter(self.redis, self._reactor.seconds)
        return MemoryLimiter(self._reactor.seconds)

    def _cache(self) -> Cache:
        settings = self._config.cache
        if self.redis is not None and settings.backend == "redis":
            return RedisCache(self.redis, settings.key_prefix, max_object_bytes=settings.max_object_bytes)
        return MemoryCache(settings.max_bytes)

    def entrance(self, sink: Sink) -> Entrance | None:
        """The door as the pipeline knows it; ``None`` where access is off."""
        if self.door is None or not self._config.access.enabled:
            return None
        priced = bool(self._config.events.prices)
        entrance = Entrance(self.door, self.limiter, sink.emit, time.time, self._cost, priced=priced)
        if isinstance(self.door, Doorkeeper):
            self.door.settle = entrance.settle
        return entrance

    def _cost(self, finished: Finished) -> float:
        reading = finished.reading
        return 0.0 if reading is None else self._prices.of(reading, finished.model) or 0.0

    @property
    def ready(self) -> bool:
        """Whether clients can be let in."""
        return self.door is None or (self.opened and self.door.ready)

    def start(self, sink: Sink) -> Deferred[None]:
        """Open what is to be opened.

        :returns: fires when clients can be let in; fails with :exc:`StartError`, in one line, where
            waiting would not help.
        """
        if self.bus.wanted:
            sink.subscribe(self.bus, arrivals=False)
        if self.redis is not None:
            self.redis.open()
        starting: Deferred[Any] = succeed(None)
        if isinstance(self.audit, AuditLog):
            sink.subscribe(self.audit, arrivals=False)
            starting = self.audit.start().addErrback(_unstartable, "audit.file")
        if self.store is not None:
            starting.addCallback(lambda _: self._open())
        return starting.addCallback(self._started)

    def _open(self) -> Deferred[Any]:
        assert self.store is not None
        return self.store.open().addErrback(self._not_opened)

    def _not_opened(self, failure: Failure) -> Any:
        if failure.check(StoreUnavailable) and not self._stopping:
            if self._why_not_open != str(failure.value):  # once, however long it takes
                self._why_not_open = str(failure.value)
                self.log.warn("The store does not answer: {why}; it is tried again", why=failure.value)
            return deferLater(self._reactor, AGAIN, self._open)
        if failure.check(ValueError):
            raise StartError(f"access.store: {failure.value}") from failure.value
        return failure

    def _started(self, result: object) -> Deferred[None] | None:
        self.opened = True
        if isinstance(self.door, Doorkeeper) and not self._stopping:
            return self.door.start()
        return None

    def stop(self) -> Deferred[None]:
        """Write what waits, and close everything; bounded in time by each part."""
        self._stopping = True
        parts: list[Deferred[Any]] = []
        if isinstance(self.door, Doorkeeper) and self.opened:
            parts.append(maybeDeferred(self.door.stop))
        parts.append(self.bus.stop())
        parts.append(maybeDeferred(self.limiter.close))
        if self.cache is not None:
            parts.append(maybeDeferred(self.cache.close))
        return DeferredList(parts, consumeErrors=True).addCallback(lambda _: self._close())

    def _close(self) -> Deferred[None]:
        links = (self.store, self.redis, self._events_redis)
        closing: list[Deferred[Any]] = [maybeDeferred(one.close) for one in links if one is not None]
        if isinstance(self.audit, AuditLog):
            # Last: until now something could be changed.
            closing.append(self.audit.stop())
        return DeferredList(closing, consumeErrors=True).addCallback(lambda _: None)

    def state(self) -> Mapping[str, object]:
        """How the parts stand, for people."""
        told: dict[str, object] = {"events": self.bus.state()}
        if self.door is not None:
            told["access"] = {"ready": self.ready, **getattr(self.door, "state", dict)()}
            told["limits"] = self.limiter.state()
        if isinstance(self.audit, AuditLog):
            told["audit"] = self.audit.state()
        if self.redis is not None:
            told["redis"] = {"up": self.redis.up}
        return told


def _unstartable(failure: Failure, key: str) -> None:
    raise StartError(f"{key}: {failure.value}") from failure.value
