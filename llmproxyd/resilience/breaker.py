"""The circuit breaker: an upstream that only fails is left alone for a while, then tried again.

::

    closed ──too many failures──▶ open ──the time is up, somebody asks──▶ half-open
       ▲                           ▲                                       │     │
       │                           └────────────a probe failed─────────────┘     │
       └─────────────────────────enough probes succeeded─────────────────────────┘

A client's request counts once, with the outcome of its last attempt.  Who wants to send one
asks :meth:`Breaker.admit` and tells the :class:`Permit` what came of it.  Each change of state
begins a new generation; permits of an older one change nothing any more, so neither an outage
nor a recovery is decided upon by what was sent before it.

:class:`Breaker` is a facade over one private machine, which makes every transition.  What
happens on the path of every request (being admitted and succeeding while closed, being refused
while open) is none, and is answered from the machine's own data: that costs 0.3 µs (0.9 with a
window), where a dispatch costs 2 to 5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, fields
from typing import Literal, Protocol

from automat import TypeMachineBuilder

from llmproxyd.model import BreakerChanged
from llmproxyd.resilience.window import Window
from llmproxyd.units import MAX_DURATION, Duration, format_duration

State = Literal["closed", "open", "half-open"]

PROBE_WAIT = 1.0
"""Seconds told to whoever is refused while probes are under way: nobody knows how long they take."""

_MOST_DOUBLINGS = 64


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """When to stop asking an upstream, and when to try it again.

    :param enabled: whether there is one.
    :param failure_threshold: consecutive failures that open it, where no ``window`` is set.
    :param recovery_timeout: seconds until a probe is let through.
    :param max_recovery_timeout: seconds; the time doubles up to it with each probe that fails.
    :param half_open_requests: probes at a time, and how many must succeed until it closes.
    :param window: seconds over which failures are counted instead.
    :param failure_rate: share of failures in the window that opens it, when one more comes.
    :param minimum_calls: outcomes in the window below which nothing opens it.
    :param key: what has a breaker of its own; a model is always that of one upstream.
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

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with the keys, also while it is switched off."""
        for name in ("failure_threshold", "half_open_requests", "minimum_calls"):
            if getattr(self, name) < 1:
                yield name, f"found {getattr(self, name)}; accepted: 1 at least"
        if self.recovery_timeout > self.max_recovery_timeout:
            found, most = format_duration(self.recovery_timeout), format_duration(self.max_recovery_timeout)
            yield "recovery_timeout", f"found {found}; accepted: max_recovery_timeout ({most}) at most"
        if self.window is not None and self.window <= 0:
            yield "window", "found 0, in which nothing can be counted; accepted: a longer duration"
        if not 0 < self.failure_rate <= 1:
            yield "failure_rate", f"found {self.failure_rate:g}; accepted: above 0, and 1 at most"
        if not self.key:
            yield "key", "found an empty list; accepted: upstream, or upstream and model"


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A breaker at one moment.

    :param failures: in a row.
    :param window_calls: outcomes in the window, ``None`` without one.
    :param window_failures: those of them that were failures.
    :param left: seconds until a probe may pass; 0 when open means that nobody has asked since.
    :param opened: how often it has opened so far.
    :param probes: under way.
    """

    name: str
    state: State
    failures: int
    window_calls: int | None
    window_failures: int | None
    left: float
    opened: int
    probes: int

    def told(self) -> dict[str, object]:
        """The same as JSON takes it, without what there is none of."""
        told = {one.name: getattr(self, one.name) for one in fields(self)}
        told["left"] = round(self.left, 3)
        return {name: value for name, value in told.items() if value is not None}


@dataclass(slots=True)
class _Core:
    """What the machine knows.

    :param generation: counts the changes of state.
    :param until: monotonic seconds at which an open one lets a probe through.
    :param doublings: of ``recovery_timeout``, since it was last closed.
    :param successes: of probes, since it became half-open.
    :param untold: changes that nobody was told of yet.
    """

    name: str
    policy: BreakerPolicy
    window: Window | None
    state: State = "closed"
    generation: int = 0
    failures: int = 0
    until: float = 0.0
    doublings: int = 0
    opened: int = 0
    probes: int = 0
    successes: int = 0
    untold: list[BreakerChanged] = field(default_factory=list)

    @property
    def recovery(self) -> float:
        """Seconds that it is open for when it opens now."""
        policy = self.policy
        return min(policy.recovery_timeout * 2.0**self.doublings, policy.max_recovery_timeout)

    def left(self, now: float) -> float:
        """Seconds until a probe may pass."""
        return max(self.until - now, 0.0) if self.state == "open" else 0.0

    def too_many(self) -> str | None:
        """Why it must open after one more failure, ``None`` when it need not."""
        policy, window = self.policy, self.window
        if window is None:
            if self.failures < policy.failure_threshold:
                return None
            return "a failure" if self.failures == 1 else f"{self.failures} failures in a row"
        # Divided, so that 7 of 100 are the 0.07 that somebody wrote: 100 times that is more than 7.
        if window.calls < policy.minimum_calls or window.failures / window.calls < policy.failure_rate:
            return None
        return f"{window.failures} of {window.calls} failed within {window.seconds:.10g} s"

    def open(self, now: float, seconds: float, cause: str) -> None:
        """Let nothing through for *seconds*."""
        self.until = now + seconds
        self.opened += self.state != "open"
        self._enter("open", cause, seconds)

    def half_open(self) -> None:
        """Let probes through."""
        self._enter("half-open", "the time is up")

    def close(self, cause: str) -> None:
        """Let everything through, as if nothing had happened."""
        self.failures = self.doublings = 0
        if self.window is not None:
            self.window.clear()
        self._enter("closed", cause)

    def _enter(self, state: State, cause: str, seconds: float = 0.0) -> None:
        before, self.state = self.state, state
        self.generation += 1
        self.probes = self.successes = 0
        if before != state:
            changed = BreakerChanged(name=self.name, before=before, after=state, cause=cause, seconds=seconds)
            self.untold.append(changed)


class _Inputs(Protocol):
    """What can happen to a breaker.  Outcomes are those of permits of its generation."""

    def admit(self, now: float) -> float:
        """Somebody asks, and the time is up: 0 for a place as a probe, else seconds to wait."""

    def succeeded(self, now: float) -> None:
        """A request got its answer."""

    def failed(self, now: float) -> None:
        """A request failed for the upstream's sake."""

    def abandoned(self, now: float) -> None:
        """A request says nothing about the upstream."""

    def trip(self, now: float, seconds: float | None, cause: str) -> None:
        """The operator wants it open."""

    def reset(self, cause: str) -> None:
        """The operator wants it closed."""

    def _exceeded(self, now: float, cause: str) -> None:
        """The failures are too many."""

    def _recovered(self, cause: str) -> None:
        """Enough probes have succeeded."""


_builder = TypeMachineBuilder(_Inputs, _Core)
_closed = _builder.state("closed")
_open = _builder.state("open")
_half_open = _builder.state("half-open")

_closed.upon(_Inputs.abandoned).loop().returns(None)


@_closed.upon(_Inputs.failed).loop()
def _count_failure(machine: _Inputs, core: _Core, now: float) -> None:
    core.failures += 1
    if core.window is not None:
        core.window.add(now, True)
    cause = core.too_many()
    if cause is not None:
        machine._exceeded(now, cause)  # taken up when this has returned, as inputs within inputs are


@_closed.upon(_Inputs._exceeded).to(_open)
def _give_up(machine: _Inputs, core: _Core, now: float, cause: str) -> None:
    core.open(now, core.recovery, cause)


@_open.upon(_Inputs.admit).to(_half_open)
def _admit_first_probe(machine: _Inputs, core: _Core, now: float) -> float:
    core.half_open()
    core.probes = 1
    return 0.0


@_half_open.upon(_Inputs.admit).loop()
def _admit_probe(machine: _Inputs, core: _Core, now: float) -> float:
    if core.probes >= core.policy.half_open_requests:
        return PROBE_WAIT
    core.probes += 1
    return 0.0


@_half_open.upon(_Inputs.succeeded).loop()
def _count_probe(machine: _Inputs, core: _Core, now: float) -> None:
    core.failures = 0
    core.probes -= 1
    core.successes += 1
    if core.successes >= core.policy.half_open_requests:
        several = f"{core.successes} probes succeeded"
        machine._recovered("a probe succeeded" if core.successes == 1 else several)


@_half_open.upon(_Inputs._recovered).to(_closed)
def _recover(machine: _Inputs, core: _Core, cause: str) -> None:
    core.close(cause)


@_half_open.upon(_Inputs.failed).to(_open)
def _give_up_again(machine: _Inputs, core: _Core, now: float) -> None:
    core.failures += 1
    core.doublings = min(core.doublings + 1, _MOST_DOUBLINGS)
    core.open(now, core.recovery, "a probe failed")


@_half_open.upon(_Inputs.abandoned).loop()
def _hand_place_on(machine: _Inputs, core: _Core, now: float) -> None:
    core.probes -= 1


@_closed.upon(_Inputs.trip).to(_open)
@_open.upon(_Inputs.trip).loop()
@_half_open.upon(_Inputs.trip).to(_open)
def _trip(machine: _Inputs, core: _Core, now: float, seconds: float | None, cause: str) -> None:
    core.open(now, core.recovery if seconds is None else seconds, cause)


@_closed.upon(_Inputs.reset).loop()
@_open.upon(_Inputs.reset).to(_closed)
@_half_open.upon(_Inputs.reset).to(_closed)
def _reset(machine: _Inputs, core: _Core, cause: str) -> None:
    core.close(cause)


_Machine = _builder.build()


class Permit:
    """Leave to send one request, made by :meth:`Breaker.admit`.

    The first outcome told is the one that counts, so that ``finally: permit.abandoned(now)``
    is right after whatever came before.  A permit that is told none keeps a probe's place.

    :ivar probes: the request is let through to see how the upstream does.
    """

    __slots__ = ("_breaker", "_generation", "probes")

    def __init__(self, breaker: Breaker, generation: int, probes: bool) -> None:
        self._breaker: Breaker | None = breaker
        self._generation = generation
        self.probes = probes

    def succeeded(self, now: float) -> None:
        """The upstream answered."""
        breaker, self._breaker = self._breaker, None
        if breaker is not None:
            core = breaker._core
            if self._generation != core.generation:
                return
            if self.probes:
                breaker._probed(now)
                return
            # One that is no probe and still counts: it is closed, as it was then.
            core.failures = 0
            if core.window is not None:
                core.window.add(now, False)

    def failed(self, now: float) -> None:
        """The upstream failed."""
        breaker, self._breaker = self._breaker, None
        if breaker is not None:
            breaker._failed(self._generation, now)

    def abandoned(self, now: float) -> None:
        """The client left, or what came says nothing about the upstream (a refusal of ours)."""
        breaker, self._breaker = self._breaker, None
        if breaker is not None:
            breaker._abandoned(self._generation, now)


class Breaker:
    """One circuit breaker.  Every *now* is in monotonic seconds.

    :param name: of what it guards: an upstream, or ``upstream/model``.
    :param changed: told of every change of state, when all is done: it may use the breaker.
    """

    __slots__ = ("_changed", "_core", "_machine")

    def __init__(
        self, policy: BreakerPolicy, name: str, changed: Callable[[BreakerChanged], None] = lambda _: None
    ) -> None:
        self._core = _Core(name, policy, _window(policy))
        self._machine = _Machine(self._core)
        self._changed = changed

    def __repr__(self) -> str:
        return f"<Breaker {self.name!r} {self.state}>"

    @property
    def name(self) -> str:
        """Of what it guards."""
        return self._core.name

    @property
    def policy(self) -> BreakerPolicy:
        """What is in force."""
        return self._core.policy

    @property
    def state(self) -> State:
        """``half-open`` only once a probe was let through: until then ``open``, with no time left."""
        return self._core.state

    def left(self, now: float) -> float:
        """Seconds until a probe may pass; 0 unless it is open."""
        return self._core.left(now)

    def admit(self, now: float) -> Permit | float:
        """Leave to send a request, or the seconds (above 0) after which to ask again."""
        core = self._core
        if core.state == "closed":
            return Permit(self, core.generation, False)
        wait = core.left(now) or self._machine.admit(now)
        if wait:
            return wait
        permit = Permit(self, core.generation, True)  # before anybody who is told can change it again
        self._tell()
        return permit

    def trip(self, now: float, seconds: float | None = None, cause: str = "tripped by the operator") -> None:
        """Open it, or let the time of an open one begin anew.

        :param seconds: until a probe may pass, a year at most; ``None`` for those of the policy,
            doubled as often as they are already.
        """
        limited = None if seconds is None else min(max(0.0, seconds), MAX_DURATION)
        self._machine.trip(now, limited, cause)
        self._tell()

    def reset(self, now: float, cause: str = "reset by the operator") -> None:
        """Close it, and forget what it has counted.  What is under way counts no more."""
        self._machine.reset(cause)
        self._tell()

    def retire(self, cause: str) -> None:
        """Close it for good: nobody asks it any more, and what is under way counts no more."""
        self._machine.reset(cause)
        self._tell()

    def adopt(self, policy: BreakerPolicy) -> None:
        """Go by *policy* from now on.

        State, counts and the time that it is open for stay; outcomes of a window stay if the
        window does.
        """
        core = self._core
        if policy.window != core.policy.window:
            core.window = _window(policy)
        core.policy = policy

    def snapshot(self, now: float) -> Snapshot:
        """All that people may want to know."""
        core, window = self._core, self._core.window
        if window is not None:
            window.age(now)
        return Snapshot(
            name=core.name,
            state=core.state,
            failures=core.failures,
            window_calls=None if window is None else window.calls,
            window_failures=None if window is None else window.failures,
            left=core.left(now),
            opened=core.opened,
            probes=core.probes,
        )

    def _probed(self, now: float) -> None:
        self._machine.succeeded(now)
        self._tell()

    def _failed(self, generation: int, now: float) -> None:
        if generation == self._core.generation:
            self._machine.failed(now)
            self._tell()

    def _abandoned(self, generation: int, now: float) -> None:
        if generation == self._core.generation:
            self._machine.abandoned(now)

    def _tell(self) -> None:
        # Outside the machine, which can answer nobody while it is at work.
        untold = self._core.untold
        while untold:
            # Who is told (the sink) counts and logs failures of its own; a request has none of it.
            with suppress(Exception):
                self._changed(untold.pop(0))


def _window(policy: BreakerPolicy) -> Window | None:
    return None if policy.window is None else Window(policy.window)
