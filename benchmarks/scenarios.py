"""What is measured, and how long."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

POLICIES = (
    "llmproxyd",
    "with-breaker",
    "with-retry",
    "with-both",
    "with-error-log",
    "with-request-log",
    "with-all",
)
GATEWAY = ("without-metrics", "llmproxyd", "with-tokens", "with-misses", "with-gateway", "with-hits")
PROXIES = ("llmproxyd", "nginx", "aiohttp", "stock")
PEOPLES = ("llmproxyd", "nginx", "fastapi", "portkey", "litellm")
PACE = 3_000
"""Requests a second at which what something costs is told: fewer than any of them can take."""
REQUEST_COLUMNS = {"rate": "req/s", "cpu": "CPU µs/req", "p50": "p50 µs", "p99": "p99 µs", "busy": "CPU busy"}
EVENT_COLUMNS = {
    "rate": "events/s",
    "cpu": "CPU µs/event",
    "p50": "p50 µs",
    "p99": "p99 µs",
    "added_p50": "added p50 µs",
    "added_p99": "added p99 µs",
    "busy": "CPU busy",
}
BODY_COLUMNS = {"megabytes": "MB/s", "cpu": "CPU ns/byte", "grown": "peak MB above start"}


@dataclass(frozen=True)
class Scenario:
    """One of them.

    :ivar group: the name by which it is chosen; several may share one.
    :ivar fresh: each measurement has a process of its own, so that memory is its own.
    :ivar columns: figures of the result and what they are called.
    :ivar asked: it is measured only when it is asked for by name.
    """

    name: str
    group: str
    text: str
    job: dict[str, Any]
    columns: dict[str, str]
    peers: tuple[str, ...] = ("direct", *PROXIES)
    variant: str = "plain"
    fresh: bool = False
    repeats: int = 1
    asked: bool = False


def scenarios(*, quick: bool) -> list[Scenario]:
    """All of them."""
    window = {"warm": 0.2, "seconds": 0.6} if quick else {"warm": 0.5, "seconds": 2.5}
    repeats = 1 if quick else 3
    size = 128_000_000 if quick else 1_000_000_000
    idle = 2_000 if quick else 10_000

    def chat(number: int) -> Scenario:
        return Scenario(
            f"json-{number}",
            "json",
            f"2 KB JSON request, 1 KB JSON answer, {number} connection{'s' * (number > 1)}",
            {"kind": "json", "send": 2048, "receive": 1024, "connections": number, **window},
            REQUEST_COLUMNS,
            ("direct", *PROXIES, "aiohttp-app", "relay"),
            repeats=2 if quick and number == 16 else repeats,
        )

    def events(pace: int) -> Scenario:
        return Scenario(
            f"sse-{pace}",
            "sse",
            f"{pace:,} events a second over 50 streams",
            {"kind": "sse", "pace": pace // 50, "connections": 50, **window},
            EVENT_COLUMNS,
            ("direct", *PROXIES, "aiohttp-app"),
            repeats=repeats,
        )

    def body(kind: str, text: str, variant: str) -> Scenario:
        return Scenario(
            f"big-{kind}",
            "big",
            f"{text} of {size / 1e6:,.0f} MB",
            {"kind": kind, "size": size},
            BODY_COLUMNS,
            variant=variant,
            fresh=True,
            repeats=repeats,
        )

    large = {"kind": "json", "send": 51_200, "receive": 51_200, "connections": 16, **window}
    secure = {"kind": "json", "send": 2048, "receive": 1024, "connections": 16, **window}

    # Differences between the daemon and itself are small.
    often = 1 if quick else 5

    small = {"kind": "json", "send": 2048, "receive": 1024, "connections": 16}
    stream = {"kind": "sse", "pace": 100, "connections": 50}
    return [
        chat(1),
        chat(16),
        chat(64),
        Scenario(
            "json50",
            "json50",
            "50 KB JSON request, 50 KB JSON answer, 16 connections",
            large,
            REQUEST_COLUMNS,
            repeats=repeats,
        ),
        Scenario(
            "tls",
            "tls",
            "as json-16, TLS to the upstream",
            secure,
            REQUEST_COLUMNS | {"connects": "new conn. per 1,000"},
            PROXIES,
            variant="tls",
            repeats=repeats,
        ),
        events(5_000),
        events(50_000),
        Scenario(
            "streams",
            "streams",
            "memory of 1,000 open streams",
            {"kind": "streams", "connections": 1000, "settle": 0.5 if quick else 1.0},
            {"kilobytes": "KB per stream", "connections": "streams"},
            PROXIES,
            variant="streams",
            fresh=True,
            repeats=repeats,
        ),
        Scenario(
            "policies",
            "policies",
            "as json-16, with what absorbs and records failure",
            small | window,
            REQUEST_COLUMNS,
            POLICIES,
            repeats=often,
        ),
        Scenario(
            "gateway",
            "gateway",
            "as json-16, with what guards and measures",
            small | window,
            REQUEST_COLUMNS,
            GATEWAY,
            repeats=often,
        ),
        Scenario(
            "policies-paced",
            "policies",
            f"as policies, {PACE:,} requests a second",
            small | window | {"pace": PACE},
            REQUEST_COLUMNS,
            POLICIES,
            repeats=often,
        ),
        Scenario(
            "gateway-paced",
            "gateway",
            f"as gateway, {PACE:,} requests a second",
            small | window | {"pace": PACE},
            REQUEST_COLUMNS,
            GATEWAY,
            repeats=often,
        ),
        Scenario(
            "proxies",
            "proxies",
            "as json-16, beside the proxies that people run",
            # The slowest answer some fifty a second: they need time.
            small | ({"warm": 1.0, "seconds": 2.0} if quick else {"warm": 2.0, "seconds": 5.0}),
            REQUEST_COLUMNS | {"rate_ratio": "us ÷ it, req/s", "cpu_ratio": "it ÷ us, CPU"},
            PEOPLES,
            repeats=2 if quick else 3,
            asked=True,
        ),
        Scenario(
            "policies-sse",
            "policies",
            "as sse-5000, with the same",
            stream | window,
            EVENT_COLUMNS,
            POLICIES,
            repeats=often,
            asked=quick,
        ),
        body("download", "answer", "plain"),
        body("upload", "request", "upload"),
        Scenario(
            "idle",
            "idle",
            f"100 requests in turn among {idle:,} connections that are kept open",
            {"kind": "idle", "connections": idle},
            {
                "p50": "median µs",
                "worst": "worst µs",
                "kilobytes": "KB per connection",
                "connections": "connections",
            },
            fresh=True,
            repeats=1 if quick else 2,
        ),
    ]
