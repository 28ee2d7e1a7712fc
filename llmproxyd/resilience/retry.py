"""Whether an attempt that failed is made again, and when."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from llmproxyd.resilience.budget import BudgetPolicy
from llmproxyd.units import Duration

Jitter = Literal["full", "equal", "quarter", "none"]


@dataclass(frozen=True, slots=True)
class Retry:
    """When to try again.  Without ``max_retries`` nothing is.

    :param max_retries: further attempts after the first.
    :param base_delay: seconds before the first of them; doubled for each further one.
    :param max_delay: seconds that a wait of ours has at most.
    :param jitter: what chance does to a wait of ours.
    :param respect_retry_after: wait as long as the upstream asks for.
    :param max_wait: seconds that the upstream may ask for; if it wants more the client is told at once.
    :param rate_limit_wait: seconds to wait after a 429 that names no time.
    :param retry_codes: statuses to try again after, ``None`` for the native list.
    :param fail_codes: statuses to hand on at once.
    :param conditional_retry_codes: statuses that depend on the kind of endpoint.
    :param retry_timeouts: try again when no head came in time, although the request may have
        been worked on (and billed).
    :param retry_empty: try again after a stream that ended without any content.
    :param tell_sdk_not_to_retry: say ``x-should-retry: false`` once our attempts are spent.
    """

    max_retries: int = 0
    base_delay: Duration = 1.0
    max_delay: Duration = 60.0
    jitter: Jitter = "full"
    respect_retry_after: bool = True
    max_wait: Duration = 60.0
    rate_limit_wait: Duration | None = None
    retry_codes: tuple[int, ...] | None = None
    fail_codes: tuple[int, ...] | None = None
    conditional_retry_codes: tuple[int, ...] | None = None
    conditional_retry_enabled: bool = True
    conditional_retry_max_attempts: int = 2
    conditional_retry_delay_multiplier: float = 0.5
    retry_timeouts: bool = False
    retry_empty: bool = False
    budget: BudgetPolicy = BudgetPolicy()
    tell_sdk_not_to_retry: bool = True
