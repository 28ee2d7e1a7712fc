"""What is said of a client, and all that was said so far."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from llmproxyd.verdicts.mark import Client

MOST = 1000
"""Verdicts that are kept; the one that was given longest ago goes first."""

MOST_REQUESTS = 32
"""Requests that are named as proof: the last ones."""

DOCS = "docs/verdicts.rst"


class Name(StrEnum):
    """Every verdict."""

    RETRY_AFTER_IGNORED = "retry_after_ignored"
    RETRIED_HOPELESS = "retried_hopeless"
    NO_BACKOFF = "no_backoff"
    NO_JITTER = "no_jitter"
    TOO_MANY_RETRIES = "too_many_retries"
    STACKED_RETRIES = "stacked_retries"
    REPEATED_BEGUN_ANSWER = "repeated_begun_answer"
    TRUNCATION_UNNOTICED = "truncation_unnoticed"
    NEVER_CAME_BACK = "never_came_back"


class Severity(StrEnum):
    """What to do about it."""

    PROBLEM = "problem"
    """It will break in production, or break the provider's rules."""
    WARNING = "warning"
    """It costs time and money, for nothing."""
    NOTE = "note"
    """It may be meant so."""


SEVERITIES = {
    Name.RETRY_AFTER_IGNORED: Severity.PROBLEM,
    Name.RETRIED_HOPELESS: Severity.WARNING,
    Name.NO_BACKOFF: Severity.PROBLEM,
    Name.NO_JITTER: Severity.WARNING,
    Name.TOO_MANY_RETRIES: Severity.WARNING,
    Name.STACKED_RETRIES: Severity.WARNING,
    Name.REPEATED_BEGUN_ANSWER: Severity.NOTE,
    Name.TRUNCATION_UNNOTICED: Severity.PROBLEM,
    Name.NEVER_CAME_BACK: Severity.NOTE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One.

    :param text: what was seen, one sentence.
    :param requests: ids of those that prove it, in order.
    :param times: when each of them came, monotonic seconds.
    :param at: when it could be given.
    :param seen: how often it was found of this client.
    """

    name: Name
    text: str
    client: Client
    requests: tuple[str, ...]
    times: tuple[float, ...]
    at: float
    seen: int = 1

    @property
    def severity(self) -> Severity:
        """What to do about it."""
        return SEVERITIES[self.name]

    @property
    def docs(self) -> str:
        """Where it is explained."""
        return f"{DOCS}#{self.name.replace('_', '-')}"


class Verdicts:
    """Those that were given: one of a name for each client, with its first proof, and how often it was found.

    :param most: that are kept.
    :ivar dropped: how many are not kept any more.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._given: OrderedDict[tuple[Name, Client], Verdict] = OrderedDict()
        self.dropped = 0

    def __iter__(self) -> Iterator[Verdict]:
        return iter(self._given.values())

    def __len__(self) -> int:
        return len(self._given)

    def give(self, verdict: Verdict) -> bool:
        """Take *verdict*; whether it is new."""
        about = (verdict.name, verdict.client)
        known = self._given.get(about)
        if known is not None:
            self._given[about] = replace(known, seen=known.seen + 1)
            return False
        self._given[about] = verdict
        if len(self._given) > self._most:
            self._given.popitem(last=False)
            self.dropped += 1
        return True

    def clear(self) -> int:
        """Forget all; how many there were."""
        count = len(self._given)
        self._given.clear()
        self.dropped = 0
        return count
