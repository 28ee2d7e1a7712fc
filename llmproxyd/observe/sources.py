"""What others know and tell when they are asked: gauges that are read when Prometheus scrapes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import Metric
from twisted.logger import Logger

from llmproxyd.observe.cells import Labels, Models, counter, gauge

BREAKER_STATES = {"closed": 0, "half-open": 1, "open": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Who is asked at each scrape, at once and without waiting; what nobody knows is left out.

    :param uptime: seconds since the start.
    :param active: requests under way.
    :param connections: open ones of clients.
    :param pools: connections to upstreams, by upstream and state (``idle``, ``busy``).
    :param breakers: name (an upstream, or ``upstream/model``) and state of each.
    :param budgets: by upstream what :meth:`llmproxyd.resilience.budget.Budget.state` tells.
    :param lag: seconds by which the event loop was late at most, lately.
    :param events_dropped: events that a dispatcher could not deliver.
    :param sink_failures: events that a subscriber failed to take.
    :param cache: what :meth:`llmproxyd.cache.interface.Cache.stats` tells.
    :param store_up: whether the store of projects and tokens answers.
    :param redis_up: whether the Redis server answers.
    """

    uptime: Callable[[], float] | None = None
    active: Callable[[], int] | None = None
    connections: Callable[[], int] | None = None
    pools: Callable[[], Mapping[str, Mapping[str, int]]] | None = None
    breakers: Callable[[], Iterable[tuple[str, str]]] | None = None
    budgets: Callable[[], Mapping[str, Mapping[str, object]]] | None = None
    lag: Callable[[], float] | None = None
    events_dropped: Callable[[], int] | None = None
    sink_failures: Callable[[], int] | None = None
    cache: Callable[[], Mapping[str, object]] | None = None
    store_up: Callable[[], bool] | None = None
    redis_up: Callable[[], bool] | None = None


class Readings:
    """Asks the sources.  One that fails is left out, and told of once.

    :param models: that stand in labels.
    """

    log = Logger()

    def __init__(self, sources: Sources, models: Models) -> None:
        self._sources = sources
        self._models = models
        self._failed: set[str] = set()

    def collect(self) -> Iterator[Metric]:
        """All families."""
        for name, make in self._makers().items():
            source = getattr(self._sources, name)
            if source is None:
                continue
            try:
                found = make(source())
            except Exception:
                if name not in self._failed:
                    self._failed.add(name)
                    self.log.failure("metrics: {name} cannot be told", name=name)
            else:
                yield from found

    def _makers(self) -> Mapping[str, Callable[[object], list[Metric]]]:
        makers: dict[str, Callable[..., list[Metric]]] = {
            "uptime": _one("llmproxyd_uptime_seconds", "Seconds since the start."),
            "active": _one("llmproxyd_active_requests", "Requests under way."),
            "connections": _one("llmproxyd_connections_open", "Open connections of clients."),
            "pools": _pools,
            "breakers": self._breakers,
            "budgets": _budgets,
            "lag": _one(
                "llmproxyd_event_loop_lag_seconds",
                "The longest by which the event loop was late within the last minute.",
            ),
            "events_dropped": _total(
                "llmproxyd_events_dropped", "Events that a dispatcher could not deliver."
            ),
            "sink_failures": _total(
                "llmproxyd_sink_failures", "Events that a subscriber (log, metrics, audit) failed to take."
            ),
            "cache": _cache,
            "store_up": _one("llmproxyd_store_up", "Whether the store of projects and tokens answers."),
            "redis_up": _one("llmproxyd_redis_up", "Whether the Redis server answers."),
        }
        return makers

    def _breakers(self, found: Iterable[tuple[str, str]]) -> list[Metric]:
        values: dict[Labels, float] = {}
        for name, state in found:
            upstream, _, model = name.partition("/")  # the name of an upstream has no slash
            key = (upstream, self._models.label(model, answered=True) if model else "")
            # Of those that share a label the one that is worst off tells.
            values[key] = max(values.get(key, 0), BREAKER_STATES.get(state, 0))
        help = "State of a circuit breaker: 0 closed, 1 half-open, 2 open."
        return [gauge("llmproxyd_breaker_state", help, ("upstream", "model"), values)]


def _one(name: str, help: str) -> Callable[[float], list[Metric]]:
    return lambda value: [gauge(name, help, (), {(): float(value)})]


def _total(name: str, help: str) -> Callable[[float], list[Metric]]:
    return lambda value: [counter(name, help, (), {(): float(value)})]


def _pools(found: Mapping[str, Mapping[str, int]]) -> list[Metric]:
    values: dict[Labels, float] = {
        (upstream, state): float(number)
        for upstream, states in found.items()
        for state, number in states.items()
    }
    help = "Connections to upstreams: idle ones are kept for use, busy ones serve or are being made."
    return [gauge("llmproxyd_pool_connections", help, ("upstream", "state"), values)]


def _budgets(found: Mapping[str, Mapping[str, object]]) -> list[Metric]:
    left: dict[Labels, object] = {(upstream,): state.get("left") for upstream, state in found.items()}
    help = "Retries that the budget of an upstream still grants."
    return [gauge("llmproxyd_retry_budget_left", help, ("upstream",), _numbers(left))]


def _cache(stats: Mapping[str, object]) -> list[Metric]:
    families = []
    for member, help in (("entries", "Responses in the cache."), ("bytes", "Bytes in the cache.")):
        found = _numbers({(): stats.get(member)})
        families.append(gauge(f"llmproxyd_cache_{member}", help, (), found))
    for member, help in (
        ("evictions", "Responses that made room for others."),
        ("errors", "Calls that the cache's backend did not answer."),
    ):
        found = _numbers({(): stats.get(member)})
        families.append(counter(f"llmproxyd_cache_{member}", help, (), found))
    return [family for family in families if family.samples]


def _numbers(values: Mapping[Labels, object]) -> dict[Labels, float]:
    return {key: float(value) for key, value in values.items() if isinstance(value, (int, float))}
