"""The circuit breaker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from llmproxyd.units import Duration


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """When to stop asking an upstream, and when to try it again.

    :param failure_threshold: consecutive failures that open it, where no ``window`` is set.
    :param recovery_timeout: seconds until a probe is let through.
    :param max_recovery_timeout: seconds; the time doubles up to it with each probe that fails.
    :param half_open_requests: probes at a time.
    :param window: seconds over which failures are counted instead.
    :param failure_rate: share of failures in the window that opens it.
    :param minimum_calls: outcomes in the window below which nothing opens it.
    :param key: what has a breaker of its own.
    """

    enabled: bool = False
    failure_threshold: int = 5
    recovery_timeout: Duration = 60.0
    max_recovery_timeout: Duration = 600.0
    half_open_requests: int = 1
    window: Duration | None = None
    failure_rate: float = 0.5
    minimum_calls: int = 10
    key: tuple[Literal["upstream", "model"], ...] = ("upstream",)
