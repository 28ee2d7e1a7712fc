"""Scenarios: faults in an order, pure.

A scenario is a list of steps, each a fault or none, that requests take one after the other.  Each
model, or each test, may have a run of its own.  How it is written is in :mod:`llmproxyd.faults.scenariotext`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import accumulate
from random import Random

from llmproxyd.faults.rules import Rule, Share, Side, Subject
from llmproxyd.providers.base import EndpointKind

Randoms = Callable[[int | str], Random]
"""Makes random numbers from a seed; the same seed gives the same numbers."""

MOST_RUNS = 10_000
"""Runs of one scenario that are remembered; then the one that was idle for longest is forgotten."""

LONGEST_KEY = 200
"""Characters of a model or a test that tell runs apart."""

EVERYBODY = "all"
"""The one run of a scenario that all requests share."""

NO_MODEL = "-"
"""The run of requests that name no model."""


class Scope(StrEnum):
    """Whose requests share a run."""

    ALL = "all"
    MODEL = "model"
    TEST = "test"
    """Each value of ``x-llmproxyd-test``; requests without one pass."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step.

    :param rule: the fault, ``None`` for an answer that passes (``ok``).
    :param times: requests that take it; ``None`` for all that follow.
    :param text: as it is written, without how often.
    """

    rule: Rule | None
    times: int | None = 1
    text: str = "ok"

    @property
    def line(self) -> str:
        """As it is written: ``r``, ``ok x3``, ``cut at=3 *``."""
        if self.times is None:
            return f"{self.text} *"
        return self.text if self.times == 1 else f"{self.text} x{self.times}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What happens to which request.

    :param side: ``upstream`` has each attempt take a step, ``client`` each request.
    :param seed: makes shares and jitter repeatable; ``None`` leaves the daemon's.
    """

    name: str
    steps: tuple[Step, ...]
    scope: Scope = Scope.ALL
    side: Side = Side.CLIENT
    seed: int | None = None

    @property
    def reads_body(self) -> bool:
        """Whether a request's body tells which run or which step concerns it."""
        matches = (step.rule.match for step in self.steps if step.rule is not None)
        return self.scope is Scope.MODEL or any(match.reads_body for match in matches)

    @property
    def draws(self) -> bool:
        """Whether anything in it is left to chance, so that a seed matters."""
        rules = (step.rule for step in self.steps if step.rule is not None)
        return any(isinstance(rule.when, Share) or rule.manner.jitter for rule in rules)

    def missing(self, index: int, taken: int) -> int:
        """How many more requests than *taken* should have taken the step *index*.

        A fault should come as often as it is written, an answer that passes once at least.  ``ok *`` at
        the end says what is so without it (after the last step everything passes), so nobody misses it.
        """
        step = self.steps[index]
        if step.rule is None:
            return int(step.times is not None and not taken)
        return max((step.times or 1) - taken, 0)


@dataclass(slots=True)
class Run:
    """How far the requests of one model, one test, or all of them have come.

    :param index: of the step that the next one takes; the number of steps where all are done.
    :param taken: requests that have taken that step.
    :param requests: that have taken any.
    """

    index: int = 0
    taken: int = 0
    requests: int = 0

    def taken_of(self, scenario: Scenario, index: int) -> int:
        """How many requests have taken the step *index*."""
        if index == self.index:
            return self.taken
        return (scenario.steps[index].times or 0) if index < self.index else 0


@dataclass(slots=True)
class Forgotten:
    """What is left of runs that fell out.

    :param runs: how many.
    :param never: requests that should have come to their steps, and had not.
    """

    runs: int = 0
    never: int = 0


@dataclass(slots=True)
class Play:
    """A scenario at work.  Not thread-safe: it is asked on the reactor's thread.

    :param randoms: makes the random numbers of shares and jitter.
    :param seed: of them, where the scenario has none.
    :param most: runs that are remembered.
    :param ended: called once everybody has taken the last step, where that can be known.
    """

    scenario: Scenario
    randoms: Randoms
    seed: int = 0
    most: int = MOST_RUNS
    ended: Callable[[], object] = lambda: None
    forgotten: Forgotten = field(default_factory=Forgotten)
    _rules: tuple[Rule | None, ...] = ()
    _open: tuple[int, ...] = ()
    _runs: OrderedDict[str, Run] = field(default_factory=OrderedDict)
    _last: str = ""

    def __post_init__(self) -> None:
        scenario = self.scenario
        if scenario.seed is not None:
            self.seed = scenario.seed
        rules = (step.rule for step in scenario.steps)
        self._rules = tuple(None if rule is None else replace(rule, side=scenario.side) for rule in rules)
        # From each step on: what is missing of a run that has not come so far.
        each = [scenario.missing(index, 0) for index in range(len(scenario.steps))]
        self._open = (*reversed([*accumulate(reversed(each))]), 0)
        if scenario.scope is Scope.ALL:
            self._runs[EVERYBODY] = Run()

    def next(self, subject: Subject) -> Rule | None:
        """The fault of the step that *subject* takes, spent; ``None`` when it passes."""
        if subject.kind is not EndpointKind.INFERENCE:
            return None
        key = self._key(subject)
        if key is None:
            return None
        run, steps = self._run(key), self.scenario.steps
        if run.index >= len(steps):
            return None
        step, rule = steps[run.index], self._rules[run.index]
        if rule is not None and not rule.match.matches(subject):
            return None
        run.taken += 1
        run.requests += 1
        self._last = f"{self.seed}/{key}/{run.requests}"
        if step.times is not None and run.taken >= step.times:
            run.index, run.taken = run.index + 1, 0
            if self.over:
                self.ended()
        if rule is not None and isinstance(rule.when, Share):
            return rule if self.random().random() < rule.when.fraction else None
        return rule

    def random(self) -> Random:
        """The random numbers of the request that took the last step.

        They follow from the seed, the run and the place within it alone: runs beside it, however their
        requests mix, change nothing.
        """
        return self.randoms(self._last)

    @property
    def over(self) -> bool:
        """Whether no request can take a step any more."""
        if self.scenario.scope is not Scope.ALL:
            return False
        return self._runs[EVERYBODY].index >= len(self.scenario.steps)

    @property
    def runs(self) -> Iterable[tuple[str, Run]]:
        """The runs that are remembered; the one that was idle for longest comes first."""
        return self._runs.items()

    @property
    def remembered(self) -> int:
        """How many they are."""
        return len(self._runs)

    @property
    def begun(self) -> int:
        """How many runs there have been, forgotten ones too."""
        return len(self._runs) + self.forgotten.runs

    def missing(self, run: Run) -> int:
        """How many more requests should have come to the steps of *run*."""
        if run.index >= len(self.scenario.steps):
            return 0
        return self.scenario.missing(run.index, run.taken) + self._open[run.index + 1]

    @property
    def never(self) -> int:
        """The same of all runs together; where there was no run, of one that nobody began."""
        runs: Iterable[Run] = self._runs.values() if self.begun else (Run(),)
        return self.forgotten.never + sum(map(self.missing, runs))

    def _key(self, subject: Subject) -> str | None:
        scope = self.scenario.scope
        if scope is Scope.ALL:
            return EVERYBODY
        if scope is Scope.TEST:
            return subject.test[:LONGEST_KEY] if subject.test else None
        return subject.model[:LONGEST_KEY] if subject.model else NO_MODEL

    def _run(self, key: str) -> Run:
        run = self._runs.get(key)
        if run is not None:
            self._runs.move_to_end(key)
            return run
        run = self._runs[key] = Run()
        if len(self._runs) > self.most:
            _, lost = self._runs.popitem(last=False)
            self.forgotten.runs += 1
            self.forgotten.never += self.missing(lost)
        return run
