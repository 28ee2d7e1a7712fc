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


def scenarios(*, quick: bool) -> list[Scenario]:
    """All of them."""
    window = {"warm": 0.2, "seconds": 0.7} if quick else {"warm": 0.5, "seconds": 2.5}
    repeats = 2 if quick else 3
    size = 128_000_000 if quick else 1_000_000_000
    idle = 2_000 if quick else 10_000

    def chat(number: int) -> Scenario:
        return Scenario(
            f"json-{number}",
            "json",
            f"2 KB JSON request, 1 KB JSON answer, {number} connections",
            {"kind": "json", "send": 2048, "receive": 1024, "connections": number, **window},
            REQUEST_COLUMNS,
            ("direct", *PROXIES, "aiohttp-app", "relay"),
            repeats=repeats,
        )

    def events(pace: int, several: int) -> Scenario:
        return Scenario(
            f"sse-{pace}",
            "sse",
            f"{pace:,} events a second over 50 streams",
            {"kind": "sse", "pace": pace // 50, "connections": 50, **window},
            EVENT_COLUMNS,
            ("direct", *PROXIES, "aiohttp-app"),
            repeats=several,
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
            repeats=1 if quick else 3,
        )

    large = {"kind": "json", "send": 51_200, "receive": 51_200, "connections": 16, **window}
    secure = {"kind": "json", "send": 2048, "receive": 1024, "connections": 16, **window}

    def policies(name: str, text: str, job: dict[str, Any], columns: dict[str, str]) -> Scenario:
        return Scenario(name, "policies", text, job | window, columns, POLICIES, repeats=repeats + 2)

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
            repeats=1 if quick else 3,
        ),
        Scenario(
            "tls",
            "tls",
            "as json-16, TLS to the upstream",
            secure,
            REQUEST_COLUMNS | {"connects": "new conn. per 1,000"},
            PROXIES,
            variant="tls",
            repeats=1 if quick else 3,
        ),
        events(5_000, repeats),
        events(50_000, 1 if quick else 3),
        Scenario(
            "streams",
            "streams",
            "memory of 1,000 open streams",
            {"kind": "streams", "connections": 1000, "settle": 0.5 if quick else 1.0},
            {"kilobytes": "KB per stream", "connections": "streams"},
            PROXIES,
            variant="streams",
            fresh=True,
            repeats=1 if quick else 3,
        ),
        policies("policies", "as json-16, with what absorbs and records failure", small, REQUEST_COLUMNS),
        Scenario(
            "gateway",
            "gateway",
            "as json-16, with what guards and measures",
            small | window,
            REQUEST_COLUMNS,
            GATEWAY,
            repeats=repeats + 2,
        ),
        policies("policies-sse", "as sse-5000, with the same", stream, EVENT_COLUMNS),
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
