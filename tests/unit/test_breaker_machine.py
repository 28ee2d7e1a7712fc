"""The circuit breaker against a plain model of it, under every order of events."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule
from twisted.internet.task import Clock

from llmproxyd.model import BreakerChanged
from llmproxyd.resilience.breaker import PROBE_WAIT, Breaker, BreakerPolicy, Permit
from llmproxyd.resilience.window import BUCKETS

# Quarters of seconds and tenths of ten, so that no sum of them is rounded.
SECONDS = st.integers(0, 80).map(lambda quarters: quarters / 4)

POLICIES = st.builds(
    BreakerPolicy,
    enabled=st.just(True),
    failure_threshold=st.integers(1, 4),
    recovery_timeout=st.sampled_from([0.0, 1.0, 2.0]),
    max_recovery_timeout=st.sampled_from([2.0, 5.0, 16.0]),
    half_open_requests=st.integers(1, 3),
    window=st.sampled_from([None, 10.0]),
    failure_rate=st.sampled_from([0.25, 0.5, 1.0]),
    minimum_calls=st.integers(1, 5),
)

OUTCOMES = st.sampled_from(["succeeded", "failed", "abandoned"])


@dataclass
class Sent:
    """A permit, and what the model knows of it."""

    permit: Permit
    era: int
    spent: bool = False


@dataclass
class Model:
    """What a breaker is to do, told as plainly as can be.

    :param era: counts everything after which what is under way is late.
    :param log: time and failure of the outcomes that a window may hold.
    """

    policy: BreakerPolicy
    state: str = "closed"
    era: int = 0
    row: int = 0
    log: list[tuple[float, bool]] = field(default_factory=list)
    until: float = 0.0
    waits: float | None = None
    opened: int = 0
    probes: int = 0
    good: int = 0
    told: list[tuple[str, str, str, float]] = field(default_factory=list)

    def go(self, state: str, cause: str, seconds: float = 0.0) -> None:
        if state != self.state:
            self.told.append((self.state, state, cause, seconds))
            self.opened += state == "open"
        self.state = state
        self.era += 1
        self.probes = self.good = 0

    def first_wait(self) -> float:
        return self.waits if self.waits is not None else self.policy.recovery_timeout

    def open(self, now: float, seconds: float, cause: str) -> None:
        self.until = now + seconds
        self.go("open", cause, seconds)

    def close(self, cause: str) -> None:
        self.row, self.log, self.waits = 0, [], None
        self.go("closed", cause)

    def left(self, now: float) -> float:
        return max(0.0, self.until - now) if self.state == "open" else 0.0

    def window(self, now: float) -> list[bool]:
        assert self.policy.window is not None
        part = self.policy.window / BUCKETS
        return [failed for when, failed in self.log if now // part - when // part < BUCKETS]

    def admit(self, now: float) -> float | None:
        """Seconds to wait, or ``None`` for leave."""
        if self.state == "closed":
            return None
        if self.state == "open":
            if self.left(now) > 0:
                return self.left(now)
            self.go("half-open", "the time is up")
        elif self.probes >= self.policy.half_open_requests:
            return PROBE_WAIT
        self.probes += 1
        return None

    def outcome(self, now: float, what: str) -> None:
        if self.state == "closed":
            if what != "abandoned":
                self.count(now, what == "failed")
        elif what == "abandoned":
            self.probes -= 1
        elif what == "succeeded":
            self.row = 0
            self.probes -= 1
            self.good += 1
            if self.good >= self.policy.half_open_requests:
                self.close("a probe succeeded" if self.good == 1 else f"{self.good} probes succeeded")
        else:
            self.row += 1
            self.waits = min(2 * self.first_wait(), self.policy.max_recovery_timeout)
            self.open(now, self.waits, "a probe failed")

    def count(self, now: float, failed: bool) -> None:
        self.row = self.row + 1 if failed else 0
        self.log.append((now, failed))
        if not failed:
            return
        if self.policy.window is None:
            if self.row >= self.policy.failure_threshold:
                words = "a failure" if self.row == 1 else f"{self.row} failures in a row"
                self.open(now, self.first_wait(), words)
            return
        seen = self.window(now)
        if len(seen) >= self.policy.minimum_calls and sum(seen) / len(seen) >= self.policy.failure_rate:
            self.open(now, self.first_wait(), f"{sum(seen)} of {len(seen)} failed within 10 s")


class BreakerMachine(RuleBasedStateMachine):
    sent = Bundle("sent")

    @initialize(policy=POLICIES, begin=SECONDS)
    def begin(self, policy: BreakerPolicy, begin: float) -> None:
        policy = replace(policy, recovery_timeout=min(policy.recovery_timeout, policy.max_recovery_timeout))
        self.clock = Clock()
        self.clock.advance(begin)
        self.told: list[BreakerChanged] = []
        self.breaker = Breaker(policy, "openai", self.tell)
        self.model = Model(policy)

    def tell(self, event: BreakerChanged) -> None:
        self.told.append(event)
        assert self.breaker.state == event.after
        raise RuntimeError("whoever is told may fail")

    @property
    def now(self) -> float:
        return self.clock.seconds()

    @rule(target=sent)
    def admit(self) -> Any:
        expected = self.model.admit(self.now)
        found = self.breaker.admit(self.now)
        if expected is None:
            assert isinstance(found, Permit)
            return Sent(found, self.model.era)
        assert found == expected > 0
        return None

    @rule(one=sent, what=OUTCOMES)
    def finish(self, one: Sent | None, what: str) -> None:
        if one is None:
            return
        if not one.spent and one.era == self.model.era:
            self.model.outcome(self.now, what)
        one.spent = True
        getattr(one.permit, what)(self.now)

    @rule(what=OUTCOMES)
    def send(self, what: str) -> None:
        """One request, over at once."""
        self.finish(self.admit(), what)

    @rule(seconds=SECONDS)
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @precondition(lambda self: self.model.state == "open")
    @rule()
    def the_time_is_up(self) -> None:
        self.clock.advance(self.model.left(self.now))

    @rule(seconds=st.none() | SECONDS)
    def trip(self, seconds: float | None) -> None:
        self.model.open(
            self.now, self.model.first_wait() if seconds is None else seconds, "tripped by the operator"
        )
        self.breaker.trip(self.now, seconds)

    @rule()
    def reset(self) -> None:
        self.model.close("reset by the operator")
        self.breaker.reset(self.now)

    @rule(threshold=st.integers(1, 4), probes=st.integers(1, 3))
    def reload(self, threshold: int, probes: int) -> None:
        policy = replace(self.model.policy, failure_threshold=threshold, half_open_requests=probes)
        self.model.policy = policy
        self.breaker.adopt(policy)

    @invariant()
    def breaker_is_as_the_model_says(self) -> None:
        model, found = self.model, self.breaker.snapshot(self.now)
        assert self.breaker.state == found.state == model.state
        assert self.breaker.left(self.now) == found.left == model.left(self.now)
        assert (found.failures, found.opened, found.probes) == (model.row, model.opened, model.probes)
        if model.policy.window is None:
            assert found.window_calls is None
        else:
            seen = model.window(self.now)
            assert (found.window_calls, found.window_failures) == (len(seen), sum(seen))

    @invariant()
    def changes_are_told_as_the_model_says(self) -> None:
        assert [(one.before, one.after, one.cause, one.seconds) for one in self.told] == self.model.told

    @invariant()
    def probes_are_never_too_many(self) -> None:
        found = self.breaker.snapshot(self.now)
        assert 0 <= found.probes <= 3
        if found.state != "half-open":
            assert found.probes == 0


BreakerMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)
TestBreakerMachine = BreakerMachine.TestCase
