"""What Prometheus is told.  docs/metrics.rst lists it; a test holds both against each other.

Labels are bounded: statuses, operations, names of upstreams, a hundred models.  Never ids of
requests, tokens or projects.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Any

from prometheus_client import CollectorRegistry, Metric, ProcessCollector

from llmproxyd.inspection.prices import Prices
from llmproxyd.model import (
    BreakerChanged,
    CredentialRested,
    Denied,
    End,
    Event,
    Finished,
    Reading,
    Retrying,
)
from llmproxyd.observe.alike import Batch, Used
from llmproxyd.observe.cells import (
    OTHER,
    SERIES,
    Cell,
    Counter,
    Histogram,
    Labels,
    Models,
    counter,
    gauge,
)
from llmproxyd.observe.exposition import OPEN_METRICS, TEXT, exposition
from llmproxyd.observe.genai import GenAI
from llmproxyd.observe.sink import Batched
from llmproxyd.observe.sources import Readings
from llmproxyd.observe.sources import Sources as Sources

DURATIONS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600)
"""Seconds of whole answers: from a model list to a long stream."""

FIRST = (0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5, 10, 20, 30, 60)
"""Seconds until the first content."""

_RETRIED = 100_000
"""Requests under way whose retries are remembered; nobody has as many."""


class _Series:
    """What requests with the same labels have in common."""

    __slots__ = ("attempts", "count", "durations")

    def __init__(self, durations: Cell, attempts: list[int]) -> None:
        self.count = 0
        self.durations = durations
        self.attempts = attempts


class Metrics(Batched):
    """Counts events, and tells what was counted.  A subscriber of the sink.

    :param sources: who is asked at each scrape for what is not counted here.
    :param genai: tell OpenTelemetry's metrics, too.
    :param prices: what tokens cost.
    :ivar registry: of its own: these metrics, and those of the process.
    """

    def __init__(
        self, sources: Sources | None = None, *, genai: bool = False, prices: Prices | None = None
    ) -> None:
        self._prices = prices
        self._build = _build_info()
        self._models = Models()
        self._genai = GenAI(self._models) if genai else None
        self._readings = Readings(sources or Sources(), self._models)
        self._series: dict[tuple[str, str, str, int, str], _Series] = {}
        self._attempts: dict[str, list[int]] = {}
        self._retried: dict[int, int] = {}
        self._declare()
        self._handlers: dict[type[Any], Callable[[Any], None]] = {
            Retrying: self._retrying,
            BreakerChanged: lambda event: self._breaker_changes.add(
                (event.name.partition("/")[0], event.after)
            ),
            CredentialRested: lambda event: self._rested.add((event.upstream,)),
            Denied: lambda event: self._denied.add((event.code,)),
        }
        self.registry = CollectorRegistry()
        self.registry.register(self)
        ProcessCollector(registry=self.registry)

    def _declare(self) -> None:
        self._durations = Histogram(
            "llmproxyd_request_duration_seconds",
            "Seconds from the end of a request's head to the end of its answer.",
            ("upstream", "operation", "origin"),
            DURATIONS,
        )
        self._first = Histogram(
            "llmproxyd_first_content_seconds",
            "Seconds until the first content of a stream.",
            ("upstream", "operation"),
            FIRST,
        )
        self._failures = Counter(
            "llmproxyd_upstream_failures",
            "Requests that failed by their upstream's fault, after all attempts.",
            ("upstream",),
        )
        self._retries = Counter("llmproxyd_retries", "Attempts that followed a failed one.", ("upstream",))
        self._faults = Counter("llmproxyd_faults_injected", "Answers that rehearsed a failure.", ("kind",))
        self._streams = Counter(
            "llmproxyd_streams", "Answers that were streams, by how they ended.", ("upstream", "end")
        )
        self._cache = Counter(
            "llmproxyd_cache_requests", "Requests by what the cache did for them.", ("result",)
        )
        self._tokens = Counter(
            "llmproxyd_tokens", "Tokens used, as answers told.", ("upstream", "model", "kind")
        )
        self._cost = Counter(
            "llmproxyd_cost", "What tokens cost by the price table, in its currency.", ("upstream", "model")
        )
        self._breaker_changes = Counter(
            "llmproxyd_breaker_changes", "Changes of a circuit breaker's state.", ("upstream", "state")
        )
        self._rested = Counter(
            "llmproxyd_credentials_rested", "Keys of an upstream that were put at rest.", ("upstream",)
        )
        self._denied = Counter("llmproxyd_denied", "Clients that were refused at the door.", ("code",))
        self._counted: tuple[Counter | Histogram, ...] = (
            self._durations,
            self._first,
            self._failures,
            self._retries,
            self._faults,
            self._streams,
            self._cache,
            self._tokens,
            self._cost,
            self._breaker_changes,
            self._rested,
            self._denied,
        )

    def __call__(self, event: Event) -> None:
        """Count *event*."""
        if type(event) is Finished:
            self.finished(iter((event,)))
        else:
            handler = self._handlers.get(type(event))
            if handler is not None:
                handler(event)

    def finished(self, events: Iterator[Finished]) -> None:
        """Count *events*, those that are alike together."""
        batch = Batch()
        try:
            self._gather(events, batch)
        finally:
            for event, durations in batch.alike.values():
                self._count(event, durations)
            for where, seconds in batch.firsts.items():
                self._first.of(where).observe_all(seconds)
            for used in batch.used.values():
                for kind, number in used.sums():
                    self._tokens.add((used.upstream, used.model, kind), number)
            for upstream, attempts in batch.retried:
                self._attempts_at(upstream)[0] -= attempts

    def _gather(self, events: Iterator[Finished], batch: Batch) -> None:
        """Sort *events* into *batch*."""
        alike, retried, genai = batch.alike, self._retried, self._genai
        same: tuple[object, ...] = ()
        durations: list[float] = []
        for event in events:
            key = (
                event.upstream,
                event.provider,
                event.operation,
                event.status,
                event.attempts,
                event.code,
                event.fault,
                event.cache,
                event.failed,
                event.streamed,
                event.end,
            )
            if key != same:  # as the key of the one before it, mostly
                same = key
                if key not in alike:
                    alike[key] = event, []
                _, durations = alike[key]
            durations.append(event.duration)
            if event.streamed and event.first is not None:
                batch.firsts.setdefault((event.upstream, event.operation), []).append(event.first)
            if retried and (attempts := min(retried.pop(event.number, 0), event.attempts)) > 0:
                batch.retried.append((event.upstream, attempts))
            reading = event.reading
            if reading is not None and reading.tokens:
                self._use(event, reading, batch)
            if genai is not None:
                genai.finished(event, reading)

    def _use(self, event: Finished, reading: Reading, batch: Batch) -> None:
        tokens = reading.tokens
        key = (event.upstream, reading.model, event.model, *tokens)
        used = batch.used.get(key)
        if used is None:
            used = batch.used[key] = self._new_used(event, reading)
        used.rows.append(tokens.values())
        if used.priced or reading.cost is not None:
            self._spend(event, reading, used.model)

    def _new_used(self, event: Finished, reading: Reading) -> Used:
        names, prices = (reading.model, event.model), self._prices
        model = self._models.label(reading.model or event.model, answered=True)
        priced = prices is not None and any(name is not None and prices.price_of(name) for name in names)
        return Used(event.upstream, model, tuple(reading.tokens), priced)

    def _spend(self, event: Finished, reading: Reading, model: str) -> None:
        """Count the cost by itself: sums of fractions depend on the order."""
        cost = None if self._prices is None else self._prices.of(reading, event.model)
        if cost is not None:
            self._cost.add((event.upstream, model), cost)

    def _count(self, event: Finished, durations: list[float]) -> None:
        """Count requests like *event*, which took so many seconds each."""
        origin = origin_of(event)
        key = (event.upstream, event.provider, event.operation, event.status, origin)
        series = self._series.get(key)
        if series is None:
            series = self._new(key)
        number = len(durations)
        series.count += number
        series.durations.observe_all(durations)
        if event.attempts > 0:
            series.attempts[0] += number * event.attempts
        if event.failed:
            self._failures.add((event.upstream,), number)
        if event.fault is not None:
            self._faults.add((event.fault,), number)
        if event.cache is not None:
            self._cache.add((event.cache,), number)
        if event.streamed:
            self._streams.add((event.upstream, event.end), number)

    def _retrying(self, event: Retrying) -> None:
        """An attempt is over: it is counted where it was made, as the next may be made elsewhere."""
        self._attempts_at(event.upstream)[0] += 1
        if len(self._retried) < _RETRIED:
            self._retried[event.number] = self._retried.get(event.number, 0) + 1
        if event.retry:
            self._retries.add((event.upstream,))

    def _new(self, key: tuple[str, str, str, int, str]) -> _Series:
        upstream, provider, operation, status, origin = key
        if not 100 <= status <= 599:
            # An upstream may answer with any number of three digits.
            key = (upstream, provider, operation, 0, origin)
        if len(self._series) >= SERIES:
            key = (OTHER, OTHER, OTHER, 0, origin)
        if (known := self._series.get(key)) is not None:
            return known
        durations = self._durations.of((upstream, operation, origin))
        series = self._series[key] = _Series(durations, self._attempts_at(upstream))
        return series

    def _attempts_at(self, upstream: str) -> list[int]:
        return self._attempts.setdefault(upstream, [0])

    # What is told.

    def render(self, accept: bytes = b"") -> tuple[bytes, bytes]:
        """All of it, as text or as OpenMetrics, and its media type.

        :param accept: the value of the field ``Accept``.
        """
        wanted = b"application/openmetrics-text" in accept
        page = exposition(self.registry.collect(), open_metrics=wanted)
        return page, OPEN_METRICS if wanted else TEXT

    def collect(self) -> Iterator[Metric]:
        """All families, for the registry."""
        self.settle()
        yield self._build
        yield from self._requests()
        for one in self._counted:
            yield from one.collect()
        yield from self._readings.collect()
        if self._genai is not None:
            yield from self._genai.collect()

    def _requests(self) -> Iterator[Metric]:
        labels = ("upstream", "provider", "operation", "status", "origin")
        requests: dict[Labels, float] = {}
        for (upstream, provider, operation, status, origin), series in self._series.items():
            shown = str(status) if status else OTHER
            requests[upstream, provider, operation, shown, origin] = series.count
        yield counter("llmproxyd_requests", "Requests, by who answered.", labels, requests)
        attempts: dict[Labels, float] = {(name,): number for name, (number,) in self._attempts.items()}
        yield counter("llmproxyd_upstream_attempts", "Attempts made at upstreams.", ("upstream",), attempts)


def origin_of(event: Finished) -> str:
    """Whose answer the client got: ``upstream``, ``cache``, ``proxy`` or ``injected``.

    An answer of the upstream's that broke off, or that the client did not wait for, has a code of
    ours and is the upstream's all the same.
    """
    if event.fault is not None:
        return "injected"
    if event.code is not None and (event.end is End.COMPLETE or event.status == 499):
        return "proxy"
    if not event.attempts and event.cache in ("hit", "stale"):
        return "cache"
    return "upstream"


def _build_info() -> Metric:
    labels = ("version", "python", "twisted")
    values = (version("llmproxyd"), platform.python_version(), version("twisted"))
    found: dict[Labels, float] = {values: 1}
    return gauge("llmproxyd_build_info", "Versions; the value is always 1.", labels, found)
