"""Scenarios: faults in an order, pure.

A scenario is a list of steps, each a fault or none, that requests take one after the other.  Each
model, or each test, may have a run of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from llmproxyd.faults.rules import Rule, Side, Subject


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
    :param text: as it was written.
    """

    rule: Rule | None
    times: int | None = 1
    text: str = ""


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


class Play:
    """A scenario at work.  Not thread-safe: it is asked on the reactor's thread."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario

    def next(self, subject: Subject) -> Rule | None:
        """The fault of the step that *subject* takes, spent; ``None`` when it passes."""
        return None
