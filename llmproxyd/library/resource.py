"""The proxy as a resource of twisted.web."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, Logger
from twisted.web.iweb import IRequest
from twisted.web.resource import IResource, Resource

from llmproxyd.assembly import Assembly
from llmproxyd.config.load import load
from llmproxyd.config.scenariofile import folder_of
from llmproxyd.config.schema import Config
from llmproxyd.control.commanded import completed
from llmproxyd.errors import Refused
from llmproxyd.faults.language import SetFault, parse
from llmproxyd.gateway import Parts
from llmproxyd.library.door import ValidatorDoor
from llmproxyd.library.guarded import GuardedCache
from llmproxyd.library.lines import RequestLines, logger_of
from llmproxyd.library.outlets import Denials, Outlet
from llmproxyd.listen import StartError
from llmproxyd.model import End, Event, Finished
from llmproxyd.observe.recording import secrets_in
from llmproxyd.providers.registry import registry
from llmproxyd.redaction import Redactor
from llmproxyd.site.proxy import Mounted
from llmproxyd.site.root import PublicSite, Root
from llmproxyd.wire.site import WireSite


def configured(
    settings: Mapping[str, object] | None = None,
    *,
    file: str | os.PathLike[str] | None = None,
    preset: str | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Config:
    """A configuration: *settings* over *file* over *preset*.

    :param settings: keys as in the file, as nested mappings.
    :param environ: of ``${VARIABLE}`` in the file, and of the variables that set keys.
    :raises llmproxyd.config.load.ConfigError: with everything that is wrong.
    """
    return load(
        file=file,
        preset=preset,
        environ=environ,
        overrides={(key,): (value, "settings") for key, value in (settings or {}).items()},
        providers=registry(),
    )


@dataclass(frozen=True, slots=True)
class ProxyMetrics:
    """What was counted since the resource was made.

    :param requests: that are over.
    :param errors: of those: answered with a status of 400 or more, broken off, or with an error within
        the stream.  A client that leaves makes no error.
    :param cache_hits: answered from the cache, stale ones too.
    :param cache_misses: that the cache had nothing for.
    :param cache_bypass: that were not for the cache.
    :param cache_stores: answers that were stored.
    """

    requests: int = 0
    errors: int = 0
    cache_hits: int = 0
    cache_misses: int = 0
    cache_bypass: int = 0
    cache_stores: int = 0


class ProxyResource(Mounted):
    """A resource that proxies, for any place of any site of twisted.web; see docs/library.rst.

    What is handed in is somebody else's: it is neither opened nor closed here.

    :param config: from :func:`configured`.  ``listen``, ``metrics.listen``, ``admin`` and ``operator``
        are the daemon's and not looked at.
    :param validator: an :class:`~llmproxyd.library.interfaces.ITokenValidator`; switches access on.
    :param projects: an :class:`~llmproxyd.library.interfaces.IProjectStore`, with a validator.
    :param audit: an :class:`~llmproxyd.library.interfaces.IAuditLogger`.
    :param bus: an :class:`~llmproxyd.library.interfaces.IEventBus`; has models and usage read.
    :param cache: an :class:`~llmproxyd.library.interfaces.ICache`; switches the cache on.
    :param logger: gets a line for each request, and failures; without one failures go to the global log.
    :raises StartError: what is configured cannot be had, in one line.
    """

    def __init__(
        self,
        config: Config,
        reactor: Any,
        *,
        validator: Any = None,
        projects: Any = None,
        audit: Any = None,
        bus: Any = None,
        cache: Any = None,
        logger: Logger | ILogObserver | None = None,
    ) -> None:
        if (validator is None) is not (projects is None):
            raise TypeError("a validator needs projects, and projects a validator")
        if config.sandbox.enabled:
            raise StartError("sandbox.enabled: the sandbox is the daemon's")
        config = self._config = _switched(config, access=validator, events=bus, cache=cache)
        log = self._log = logger_of(logger, Redactor(secrets_in(config)))
        door = None
        if validator is not None:
            door = ValidatorDoor(
                validator,
                projects,
                reactor,
                time.time,
                upstream=config.server.single_upstream or config.default_upstream,
                enforce_active=config.access.enforce_active,
                logger=log,
            )
        shelf = None if cache is None else GuardedCache(cache, reactor, log)
        works = self._works = Assembly(
            config, reactor, providers=registry(), parts=Parts(door=door, cache=shelf)
        )
        pipeline = works.build()
        pipeline.log = log
        super().__init__(pipeline, reactor, works.wheel, config.server.idle_timeout)
        self._counts = _Counts()
        works.sink.subscribe(self._counts, arrivals=False)
        if logger is not None:
            works.sink.subscribe(RequestLines(log, config.logging.level), arrivals=False)
        if audit is not None:
            recording = Outlet("the audit logger", audit.record, reactor, log)
            works.sink.subscribe(Denials(recording, time.time), arrivals=False)
        if bus is not None:
            works.gateway.bus.subscribe(Outlet("the event bus", bus.publish, reactor, log).put)
        if config.faults.seed is not None:
            works.engine.reseed(config.faults.seed)
        self.rehearse(config.faults.mode)
        self._started = False
        self._alone: WireSite | None = None
        self._stopping: Deferred[None] | None = None

    def start(self) -> Deferred[None]:
        """Open what is to be opened; before it requests are answered with 503.

        :returns: fires when clients can be let in; fails with :exc:`StartError`, in one line, where
            waiting would not help.
        """
        if self._started:
            raise RuntimeError("it was started already")
        for warning in self._config.warnings:
            self._log.warn("{warning}", warning=warning)
        self._started = True
        return self._works.start()

    def stop(self, timeout: float | None = None) -> Deferred[None]:
        """Take no more requests, let those under way end, write what waits and close what was opened.

        :param timeout: seconds after which requests under way are cut; ``server.drain_timeout`` by
            default.
        """
        if self._stopping is None:
            seconds = self._config.server.drain_timeout if timeout is None else timeout
            self._stopping = Deferred.fromCoroutine(self._stop(seconds))
        stopped: Deferred[None] = Deferred()
        self._stopping.addBoth(_told, stopped)
        return stopped

    def metrics(self) -> ProxyMetrics:
        """What was counted."""
        counts, shelf = self._counts, self.pipeline.shelf
        stats: Mapping[str, Any] = {} if shelf is None else shelf.stats()
        return ProxyMetrics(
            requests=counts.requests,
            errors=counts.errors,
            cache_hits=stats.get("hit", 0) + stats.get("stale", 0),
            cache_misses=stats.get("miss", 0),
            cache_bypass=stats.get("bypass", 0),
            cache_stores=stats.get("store", 0),
        )

    def rehearse(self, line: str) -> None:
        """Fail as *line* says, in the operator's language: ``c 2`` is two errors, ``n`` none.

        :raises llmproxyd.faults.language.LanguageError: it is not understood, and nothing has changed.
        """
        command = parse(line)
        rule = completed(command.rule, folder_of(self._config)) if isinstance(command, SetFault) else None
        self._works.engine.set_mode(rule)

    def prometheus(self, accept: bytes = b"") -> tuple[bytes, bytes]:
        """All metrics as Prometheus reads them, and the media type.

        :param accept: value of the request's ``Accept``.
        """
        return self._works.metrics.render(accept)

    def metrics_page(self) -> IResource:
        """A resource that shows them, to whoever reaches it."""
        return _MetricsPage(self)

    def site(self, root: IResource | None = None) -> WireSite:
        """A site of the daemon's own kind: bodies flow, fields keep order and spelling.

        :param root: its tree, somewhere in which this resource stands; by default it is alone, and
            :meth:`stop` closes connections that wait for a request.
        """
        works = self._works
        if root is not None:
            return WireSite(root, **works.wire())
        alone = self._alone = PublicSite(Root(self, {}), self.pipeline, **works.wire())
        works.connections = lambda: len(alone.channels)
        return alone

    def closed(self) -> Refused | None:
        """Why no request is taken at present."""
        if self._stopping is not None:
            return Refused(503, "shutting_down", "The proxy is stopping.", ((b"retry-after", b"1"),))
        if not self._started:
            return Refused(503, "starting", "The proxy is not started yet.", ((b"retry-after", b"1"),))
        return None

    async def _stop(self, timeout: float) -> None:
        if self._alone is not None:
            self._alone.close_idle()
        late = self._reactor.callLater(timeout, self.pipeline.cut_all)
        await self.pipeline.when_idle()
        if late.active():
            late.cancel()
        await self._works.stop()


class _Counts:
    """Counts requests.  A subscriber of the sink."""

    def __init__(self) -> None:
        self.requests = self.errors = 0

    def __call__(self, event: Event) -> None:
        if type(event) is Finished:
            self.requests += 1
            if event.end is not End.CLIENT_GONE and (event.status >= 400 or event.end is not End.COMPLETE):
                self.errors += 1


class _MetricsPage(Resource):
    isLeaf = True

    def __init__(self, proxy: ProxyResource) -> None:
        super().__init__()
        self._proxy = proxy

    def render_GET(self, request: IRequest) -> bytes:
        """The page, made anew."""
        page, media = self._proxy.prometheus(request.getHeader(b"accept") or b"")
        request.setHeader(b"content-type", media)
        request.setHeader(b"cache-control", b"no-store")
        return page


def _switched(config: Config, *, access: Any, events: Any, cache: Any) -> Config:
    """*config* with that switched on which somebody brings a part for."""
    if access is not None:
        config = replace(config, access=replace(config.access, enabled=True))
    if events is not None:
        config = replace(config, events=replace(config.events, usage=True))
    if cache is not None:
        config = replace(config, cache=replace(config.cache, enabled=True, backend="memory"))
    return config


def _told(result: Any, waiting: Deferred[None]) -> Any:
    """Fire *waiting* with *result*, which goes on."""
    waiting.callback(result)
    return result
