"""All circuit breakers: one for each thing that may fail on its own."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping

from llmproxyd.model import BreakerChanged
from llmproxyd.resilience.breaker import Breaker, BreakerPolicy

LONGEST_MODEL = 200
"""Characters of a model's name; clients choose it, and it stands in logs.  What is longer is cut."""


class Breakers:
    """Circuit breakers by name, bounded.

    A breaker is made when it is first asked for.  Beyond *limit* the one that was not asked for
    the longest is forgotten, but one that keeps requests away only when all do.  What is told to
    a permit of a forgotten one counts no more.

    :param changed: told of every change of state.
    :param limit: how many are kept.
    """

    def __init__(self, changed: Callable[[BreakerChanged], None], limit: int = 1000) -> None:
        self._changed = changed
        self._limit = max(1, limit)
        self._breakers: OrderedDict[str, Breaker] = OrderedDict()

    def __len__(self) -> int:
        return len(self._breakers)

    def __iter__(self) -> Iterator[Breaker]:
        """All of them by name, for people: to look is not to use."""
        return iter([self._breakers[name] for name in sorted(self._breakers)])

    def of(self, policy: BreakerPolicy, upstream: str, model: str | None) -> Breaker:
        """The breaker for a request; with a key of models the upstream's own where none is named.

        To be asked for each request, and only where *policy* is enabled.  A breaker that was made
        with another policy keeps its state and goes by this one from now on, as an outage does
        not end with a reload.
        """
        name = upstream if not model or "model" not in policy.key else f"{upstream}/{_plain(model)}"
        breakers = self._breakers
        breaker = breakers.get(name)
        if breaker is None:
            return self._make(policy, name)
        breakers.move_to_end(name)
        if breaker.policy is not policy:
            breaker.adopt(policy)
        return breaker

    def find(self, name: str) -> Breaker | None:
        """The breaker called *name*: an upstream, or ``upstream/model``."""
        return self._breakers.get(name)

    def reload(self, policies: Mapping[str, BreakerPolicy]) -> None:
        """Go by other policies from now on.

        A breaker that none of them asks for is closed, and told so, and forgotten: its upstream
        has gone, its policy is switched off or counts models no longer by themselves.

        :param policies: by upstream.
        """
        for name, breaker in list(self._breakers.items()):
            upstream, _, model = name.partition("/")  # the name of an upstream has no slash
            policy = policies.get(upstream)
            if policy is not None and policy.enabled and ("model" in policy.key or not model):
                breaker.adopt(policy)
            else:
                self._breakers.pop(name, None)
                breaker.retire("the new configuration has no such breaker")

    def _make(self, policy: BreakerPolicy, name: str) -> Breaker:
        while len(self._breakers) >= self._limit:
            oldest = next(iter(self._breakers))
            forgotten = next((key for key, one in self._breakers.items() if one.state == "closed"), oldest)
            self._breakers.pop(forgotten).retire(f"forgotten: more than {self._limit} are in use")
        breaker = self._breakers[name] = Breaker(policy, name, self._changed)
        return breaker


def _plain(model: str) -> str:
    """*model* on one line and of bounded length."""
    if len(model) > LONGEST_MODEL:
        model = model[:LONGEST_MODEL]
    return model if model.isprintable() else model.encode("unicode_escape").decode("ascii")
