"""What ``llmproxyctl top`` asks of the daemon, and what follows from several looks."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmproxyd.admin.client import Client, Failed
from llmproxyd.admin.scrape import Samples, differences, quantile

WINDOW = 10.0
"""Seconds over which rates and latencies are told."""
LAST = 50
"""Requests that are asked for."""

_REQUESTS = "llmproxyd_requests_total"
_DURATIONS = "llmproxyd_request_duration_seconds"
_CACHE = "llmproxyd_cache_requests_total"
_SERVED = ("hit", "stale", "revalidation")
_WORST = {"open": 2, "half-open": 1}

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Look:
    """The daemon at one moment.

    :param at: monotonic seconds.
    :param samples: ``None`` where metrics are off.
    :param requests: the last ones, the newest first.
    """

    at: float
    status: Row
    samples: Samples | None
    upstreams: Sequence[Row]
    requests: Sequence[Row]

    @property
    def handled(self) -> float:
        """Requests since the start."""
        return float(self.status.get("requests", 0))


def look(client: Client, last: int = LAST) -> Look:
    """Ask the daemon.

    :param last: how many of the last requests are wanted.
    :raises Failed: it refuses.
    :raises Unreachable: there is none.
    """
    status = client.call("GET", "status")
    samples = None
    requests: Sequence[Row] = ()
    try:
        samples = Samples(client.page("metrics"))
    except Failed as error:
        if error.code != "metrics_disabled":
            raise
    try:
        requests = client.call("GET", "requests", query={"limit": last})["requests"]
    except Failed as error:
        if error.code != "journal_unavailable":
            raise
    answer = client.call("POST", "faults", body={"command": "upstream list"})
    return Look(time.monotonic(), status, samples, answer["data"]["upstreams"], requests)


@dataclass(frozen=True, slots=True)
class Figures:
    """What is told of the last seconds; ``None`` is not known.

    :param rate: requests a second.
    :param errors: share of answers with 429 or 5xx, 0 to 1.
    :param median: seconds until an answer was complete, for half of them.
    :param late: the same for 95 of 100.
    :param cache_share: of the requests that the cache was asked for, 0 to 1; since the start.
    :param rates: requests a second by upstream.
    :param failing: share of answers with 429 or 5xx by upstream.
    """

    rate: float | None = None
    errors: float | None = None
    median: float | None = None
    late: float | None = None
    cache_share: float | None = None
    active: int | None = None
    streams: int | None = None
    connections: int | None = None
    rates: Mapping[str, float] | None = None
    failing: Mapping[str, float] | None = None
    used: frozenset[str] = frozenset()


class Past:
    """The looks of the last :data:`WINDOW` seconds."""

    def __init__(self) -> None:
        self._looks: deque[Look] = deque()

    def add(self, now: Look) -> Figures:
        """Take a look; what follows from it and those before."""
        looks = self._looks
        # A daemon that was started again counts from nought; so do metrics that were switched on.
        if looks and _anew(now, looks[-1]):
            looks.clear()
        looks.append(now)
        while len(looks) > 2 and now.at - looks[1].at >= WINDOW:
            looks.popleft()
        return figures(now, looks[0])


def _anew(now: Look, before: Look) -> bool:
    return (
        now.handled < before.handled
        or now.status.get("uptime", 0) < before.status.get("uptime", 0)
        or (now.samples is None) != (before.samples is None)
    )


def figures(now: Look, before: Look) -> Figures:
    """What happened between two looks."""
    seconds = now.at - before.at
    serving = now.status.get("serving", {})
    told: dict[str, Any] = {"active": serving.get("active"), "streams": serving.get("streams")}
    if seconds > 0:
        told["rate"] = (now.handled - before.handled) / seconds
    if now.samples is not None and before.samples is not None:
        told |= _measured(now.samples, before.samples, seconds)
    return Figures(**told)


def _measured(now: Samples, before: Samples, seconds: float) -> dict[str, Any]:
    told: dict[str, Any] = {"connections": int(now.total("llmproxyd_connections_open"))}
    answers, failed = now.by("upstream", _REQUESTS), _failed(now)
    told["used"] = frozenset(name for name, count in answers.items() if count)
    results = now.by("result", _CACHE)
    asked = sum(results.get(name, 0.0) for name in (*_SERVED, "miss"))
    if asked:
        told["cache_share"] = sum(results.get(name, 0.0) for name in _SERVED) / asked
    if seconds <= 0:
        return told
    new = _since(answers, before.by("upstream", _REQUESTS))
    failing = _since(failed, _failed(before))
    told["rates"] = {name: count / seconds for name, count in new.items()}
    told["failing"] = {name: failing.get(name, 0.0) / count for name, count in new.items() if count > 0}
    if total := sum(new.values()):
        told["errors"] = sum(failing.values()) / total
    counts = differences(now.buckets(_DURATIONS), before.buckets(_DURATIONS))
    return told | {"median": quantile(0.5, counts), "late": quantile(0.95, counts)}


def _failed(samples: Samples) -> dict[str, float]:
    sums: dict[str, float] = {}
    for labels, value in samples.each(_REQUESTS):
        status = labels.get("status", "")
        if status == "429" or status.startswith("5"):
            sums[labels.get("upstream", "")] = sums.get(labels.get("upstream", ""), 0.0) + value
    return sums


def _since(now: Mapping[str, float], before: Mapping[str, float]) -> dict[str, float]:
    return {name: count - before.get(name, 0.0) for name, count in now.items()}


def breakers(status: Row) -> dict[str, str]:
    """The breaker of each upstream in words; of several (by model) that which is worst off."""
    found: dict[str, tuple[int, str]] = {}
    for one in status.get("upstreams", {}).get("breakers", ()):
        state = str(one.get("state"))
        left = one.get("left") or 0
        words = f"{state}, {left:.0f} s" if state == "open" and left else state
        upstream, rank = str(one.get("name")).partition("/")[0], _WORST.get(state, 0)
        if upstream not in found or rank > found[upstream][0]:
            found[upstream] = rank, words
    return {name: words for name, (_, words) in found.items()}


def sorted_upstreams(now: Look, figures: Figures) -> list[Row]:
    """Those first that were used, or are not as they are at the start; each part by name."""

    def idle(row: Row) -> bool:
        return (
            row.get("name") not in figures.used
            and row.get("state") == "enabled"
            and not row.get("active")
            and row.get("last") in (None, "unknown")
        )

    return sorted(now.upstreams, key=lambda row: (idle(row), str(row.get("name"))))
