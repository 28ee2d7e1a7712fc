"""What moves while policies stand still: breakers, budgets, keys at rest; by upstream.

It lives outside of the policies, so that a reload keeps it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from llmproxyd.model import BreakerChanged
from llmproxyd.pipeline.policy import Upstream
from llmproxyd.redaction import Secret
from llmproxyd.resilience.breakers import Breakers
from llmproxyd.resilience.budget import Budget, BudgetPolicy
from llmproxyd.resilience.credentials import Ring


class Live:
    """The moving parts of all upstreams.

    :param now: monotonic seconds.
    :ivar drained: names of upstreams that are sent no further request, as an operator wants it.
    :param changed: is told of every breaker that opens or closes.
    """

    def __init__(self, now: Callable[[], float], changed: Callable[[BreakerChanged], None]) -> None:
        self._now = now
        self.breakers = Breakers(changed)
        self.drained: set[str] = set()
        self._budgets: dict[str, tuple[BudgetPolicy, Budget]] = {}
        self._rings: dict[str, tuple[tuple[Secret, ...], Ring]] = {}

    def budget(self, upstream: Upstream) -> Budget:
        """What *upstream* may get beyond its requests."""
        policy = upstream.resilience.retry.budget
        known = self._budgets.get(upstream.name)
        # The same object costs less to tell than an equal one, which a reload brings.
        if known is None or (known[0] is not policy and known[0] != policy):
            # Requests from before a reload go on asking for the former policy: what one of the two
            # was granted is not to be forgotten by the other.
            budget = known[1] if known is not None and known[1].adopt(policy) else Budget(policy, self._now())
            known = self._budgets[upstream.name] = policy, budget
        return known[1]

    def ring(self, upstream: Upstream) -> Ring | None:
        """The keys of *upstream*, if it has several."""
        if len(upstream.keys) < 2:
            return None
        known = self._rings.get(upstream.name)
        if known is None or (known[0] is not upstream.keys and known[0] != upstream.keys):
            known = self._rings[upstream.name] = upstream.keys, Ring(upstream.keys)
        return known[1]

    def budget_states(self) -> dict[str, Mapping[str, object]]:
        """By upstream what :meth:`Budget.state <llmproxyd.resilience.budget.Budget.state>` tells."""
        now = self._now()
        return {name: one.state(now) for name, (_, one) in sorted(self._budgets.items())}

    def report(self) -> dict[str, object]:
        """How all that was needed so far stands, for people."""
        now = self._now()
        return {
            "breakers": [one.snapshot(now).told() for one in self.breakers],
            "budgets": self.budget_states(),
            "credentials": {name: one.state(now) for name, (_, one) in sorted(self._rings.items())},
        }
