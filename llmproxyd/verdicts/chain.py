"""The tries of one request by one client, from its first failure on, and what they prove.

A chain is a row of tries of which each came when the one before was over.  As soon as that is not so, or
may not be so, nobody can say which try followed which: the chain is unclear then, and proves nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from llmproxyd.units import format_duration
from llmproxyd.verdicts.failure import Answered, Failure
from llmproxyd.verdicts.mark import Asked, Client
from llmproxyd.verdicts.verdict import MOST_REQUESTS, Name, Verdict

TOLERANCE = 0.05
"""Share by which a client may be early, as its clock is not ours."""

LEAST = 0.05
"""Seconds by which it may be early in any case."""

PROMPT = 30.0
"""Seconds within which a program tries again; later it may be a person who has mended something."""

REACTION = 0.005
"""Seconds that a client needs at least to hear of a failure and to ask again on another connection.  What
comes sooner was on its way already."""

SHORT = 2.0
"""Seconds; who waits longer than that each time does no harm by waiting as long as before."""

ALIKE = 0.1
"""Share by which waits that are meant to be equal may differ."""

AT_ONCE = 0.02
"""Seconds below which no wait was meant."""

SHRINKING = 0.9

KEPT = 64
"""Tries that are kept of a chain: the first one and the last ones."""


@dataclass(slots=True)
class Try:
    """A request, and how it ended once it has."""

    asked: Asked
    answered: Answered | None = None

    @property
    def failure(self) -> Failure | None:
        """What went wrong, as far as it is known."""
        return None if self.answered is None else self.answered.failure


@dataclass(slots=True)
class Chain:
    """One row of tries.

    :param under_way: tries that are not over.
    :param retries: how many came after the first one.
    :param waits: seconds between a failure and the next try, the last ones of those for which no wait was
        asked for.
    :param rounds: how often the client's SDK has begun to count anew, after it had tried again.
    :param peak: its last count.
    :param doubted: something else of this client came meanwhile, which may have been the next try in other
        words.
    :param deadline: when the client need not be waited for any more, monotonic seconds.
    """

    client: Client
    mark: bytes
    tries: list[Try] = field(default_factory=list)
    under_way: int = 0
    retries: int = 0
    unclear: bool = False
    waits: list[float] = field(default_factory=list)
    rounds: int = 0
    peak: int = 0
    doubted: bool = False
    deadline: float = 0.0
    told: set[Name] = field(default_factory=set)

    @property
    def last(self) -> Try:
        """The last try."""
        return self.tries[-1]

    def add(self, one: Try) -> None:
        """The next try."""
        self.tries.append(one)
        if len(self.tries) > KEPT:
            del self.tries[1]

    def verdict(self, name: Name, text: str, tries: list[Try], at: float) -> Verdict:
        """A verdict that *tries* prove."""
        proof = tries[-MOST_REQUESTS:]
        return Verdict(
            name=name,
            text=text,
            client=self.client,
            requests=tuple(one.asked.id for one in proof),
            times=tuple(one.asked.at for one in proof),
            at=at,
        )


def follows(before: Try, now: Asked) -> bool:
    """Whether *now* is the next try after the failure of *before*, beyond doubt."""
    answered, counted, count = before.answered, before.asked.count, now.count
    assert answered is not None
    same, late = before.asked.peer == now.peer, now.at - answered.over >= REACTION
    if counted is not None and count is not None:
        if count == 0 and counted == 0:
            # Its SDK would have counted on: another call, of the same program or one beside it.
            return same or (answered.cut and late)
        return count in (counted + 1, 0)
    return same or late


def seconds(number: float) -> str:
    """*number* of seconds for people: ``3 ms``, ``0.4 s``, ``2m``."""
    if number < 0.01:
        return f"{number * 1000:.0f} ms"
    return f"{number:.2g} s" if number < 10 else format_duration(round(number))


def judged(chain: Chain, before: Try, now: Try, max_retries: int) -> Iterator[Verdict]:
    """What it proves that *now* came after the failure of *before*, both being of *chain*."""
    answered, failure = before.answered, before.failure
    assert answered is not None
    assert failure is not None
    pair = [before, now]
    waited = max(now.asked.at - answered.over, 0.0)
    at = now.asked.at
    # A count above 0 is the SDK's own doing, whenever it comes.
    prompt = waited <= PROMPT or bool(now.asked.count)
    if failure.wait and at - answered.at < failure.wait - _slack(failure):
        text = (
            f"The client came back after {seconds(at - answered.at)} although "
            f"{seconds(failure.wait)} were asked for ({failure.told_by})."
        )
        yield chain.verdict(Name.RETRY_AFTER_IGNORED, text, pair, at)
    elif failure.again is False and prompt:
        text = f"The client came back after {seconds(waited)} although it was told x-should-retry: false."
        yield chain.verdict(Name.RETRY_AFTER_IGNORED, text, pair, at)
    if failure.hopeless is not None and prompt:
        text = f"The client sent a request again that cannot succeed: {failure.hopeless} ({failure.what})."
        yield chain.verdict(Name.RETRIED_HOPELESS, text, pair, at)
    if failure.begun and not failure.silent:
        text = f"The client sent a request again whose answer had begun ({failure.what})."
        yield chain.verdict(Name.REPEATED_BEGUN_ANSWER, text, pair, at)
    for check in (_backoff, _too_many(max_retries), _stacked):
        found = check(chain, failure, waited)
        if found is not None and found.name not in chain.told:
            chain.told.add(found.name)
            yield found


def given_up(chain: Chain, window: float | None, at: float) -> Verdict | None:
    """What it proves that nobody has come back to *chain*.

    :param window: seconds in which nobody has, ``None`` where nobody will.
    """
    last, failure = chain.last, chain.last.failure
    if chain.unclear or failure is None:
        return None
    within = "" if window is None else f" within {format_duration(round(window, 3))}"
    if failure.silent:
        text = (
            f"A stream ended without its end, and the client did not ask again{within}: it took it for whole."
        )
        return chain.verdict(Name.TRUNCATION_UNNOTICED, text, [last], at)
    if failure.retryable and not chain.retries and not chain.doubted:
        text = f"The client did not come back{within} after a failure that may pass ({failure.what})."
        return chain.verdict(Name.NEVER_CAME_BACK, text, [last], at)
    return None


def _slack(failure: Failure) -> float:
    assert failure.wait is not None
    return max(failure.wait * TOLERANCE, LEAST) + failure.slack


def _backoff(chain: Chain, failure: Failure, waited: float) -> Verdict | None:
    """Three waits that are equal, or four of which each is shorter than the one before."""
    waits = chain.waits
    if failure.wait is not None or failure.retryable is not True or failure.begun:
        # It was told when to come, or it should not have come: that says nothing of its own waits.
        waits.clear()
        return None
    waits.append(waited)
    del waits[:-4]
    last = waits[-3:]
    if len(last) == 3 and max(last) <= SHORT:
        most = max(last)
        if most <= AT_ONCE or most - min(last) <= ALIKE * most:
            how = "at once" if most <= AT_ONCE else f"each time after {seconds(sum(last) / 3)}"
            text = f"The client tried again three times in a row, {how}: it does not back off."
            return chain.verdict(Name.NO_BACKOFF, text, chain.tries[-4:], chain.last.asked.at)
    falling = all(later < SHRINKING * earlier for earlier, later in pairwise(waits))
    if len(waits) == 4 and waits[0] <= SHORT and falling:
        shown = ", ".join(seconds(one) for one in waits)
        text = (
            f"The client tried again four times in a row, each time sooner ({shown}): it does not back off."
        )
        return chain.verdict(Name.NO_BACKOFF, text, chain.tries[-5:], chain.last.asked.at)
    return None


def _too_many(most: int) -> Callable[[Chain, Failure, float], Verdict | None]:
    def check(chain: Chain, failure: Failure, waited: float) -> Verdict | None:
        if chain.retries <= most:
            return None
        text = f"The client tried again {chain.retries} times; {most} are enough (verdicts.max_retries)."
        return chain.verdict(Name.TOO_MANY_RETRIES, text, chain.tries, chain.last.asked.at)

    return check


def _stacked(chain: Chain, failure: Failure, waited: float) -> Verdict | None:
    """The SDK's count went up, began anew, and went up again: somebody retries on top of it."""
    count = chain.last.asked.count
    if count is None:
        chain.rounds = chain.peak = 0  # others ask as well, who do not count
        return None
    if count == 0 and chain.peak:
        chain.rounds += 1
    chain.peak = count
    if not (chain.rounds and count):
        return None
    counts = ", ".join(str(one.asked.count) for one in chain.tries[-10:])
    text = (
        f"The client's SDK tries again, and something above it does, too (x-stainless-retry-count: {counts})."
    )
    return chain.verdict(Name.STACKED_RETRIES, text, chain.tries, chain.last.asked.at)
