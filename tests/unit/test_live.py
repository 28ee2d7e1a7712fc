"""What moves at an upstream lives on when its policy is read anew."""

from __future__ import annotations

from typing import Any

from llmproxyd.pipeline.live import Live
from llmproxyd.pipeline.policy import Upstream
from llmproxyd.providers.registry import registry
from llmproxyd.redaction import Secret
from llmproxyd.resilience.budget import BudgetPolicy
from llmproxyd.resilience.policy import Resilience
from llmproxyd.resilience.retry import Retry

PROVIDERS = registry()


def upstream(*keys: str, **budget: Any) -> Upstream:
    """One as it comes out of a configuration: nothing of it is the same object as before."""
    policy = Resilience(retry=Retry(max_retries=1, budget=BudgetPolicy(**budget)))
    secrets = tuple(map(Secret, keys))
    return Upstream(
        name="openai", provider=PROVIDERS["openai"], base_url="http://h", keys=secrets, resilience=policy
    )


def live() -> Live:
    return Live(lambda: 0.0, lambda _: None)


def test_a_budget_outlives_every_policy_with_the_same_window() -> None:
    moving = live()
    budget = moving.budget(upstream(ratio=0.5))
    assert moving.budget(upstream(ratio=0.5)) is budget
    assert moving.budget(upstream(ratio=0.6)) is budget
    assert moving.budget(upstream(ratio=0.6, window=3.0)) is not budget


def test_a_reload_in_the_middle_of_an_outage_grants_nothing_twice() -> None:
    """Requests of both policies take turns, as those from before it still have retries to come."""
    moving = live()
    before, after = (upstream(ratio=0, min_per_second=most) for most in (1, 2))
    granted = sum(moving.budget(one).take(0.0) for _ in range(100) for one in (before, after))
    assert granted == 20


def test_keys_rest_on_as_long_as_they_are_the_same() -> None:
    moving = live()
    ring = moving.ring(upstream("first-key", "second-key"))
    assert ring is not None
    ring.rest(0, 30.0, 0.0)
    again = moving.ring(upstream("first-key", "second-key"))
    assert again is ring
    other = moving.ring(upstream("first-key", "third-key"))
    assert other is not None
    assert other.awake(0.0) == 2


def test_one_key_needs_no_ring() -> None:
    assert live().ring(upstream("only-key")) is None
