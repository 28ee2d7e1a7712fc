"""The record of what clients ask, and of what became of it: requests come in, verdicts come out.

It holds the chains of requests that have failed, until the client has been answered well, or until it need
not be waited for any more.  Everything in it is bounded; what is forgotten for that is counted.
"""

from __future__ import annotations

from collections import OrderedDict
from math import inf

from llmproxyd.verdicts.chain import Chain, Try, follows, given_up, judged
from llmproxyd.verdicts.failure import Answered
from llmproxyd.verdicts.mark import Asked, Client
from llmproxyd.verdicts.rhythm import Rhythm, Wait
from llmproxyd.verdicts.verdict import Verdict, Verdicts

MOST_CHAINS = 4096
"""Requests that are held at a time; the one that was touched longest ago goes first."""

PAUSE = 0.1
"""Seconds between two looks for those that need not be waited for any more."""


class Book:
    """All that is known.

    :param window: seconds for which a client is waited for after a failure, beyond what it was asked to
        wait.
    :param max_retries: more of them are too many.
    :ivar verdicts: that were given.
    :ivar dropped: requests that are not held any more, although their client might have come back.
    """

    def __init__(self, *, window: float, max_retries: int, most: int = MOST_CHAINS) -> None:
        self._window = window
        self._max_retries = max_retries
        self._most = most
        self._chains: OrderedDict[bytes, Chain] = OrderedDict()
        self._open: dict[str, tuple[Chain, Try]] = {}
        # Those that have failed once and are waited for, by client.
        self._alone: dict[Client, dict[bytes, Chain]] = {}
        self._rhythm = Rhythm()
        self._next = inf
        self.verdicts = Verdicts()
        self.dropped = 0

    @property
    def due(self) -> float:
        """When :meth:`passed` must be called at the latest, monotonic seconds; infinite for never."""
        return self._next

    def arrived(self, asked: Asked) -> list[Verdict]:
        """A request has come; the verdicts that are new by it."""
        found = self.passed(asked.at)
        chain, now = self._chains.get(asked.mark), Try(asked)
        if chain is not None and not chain.under_way and chain.deadline <= asked.at:
            self._expire(chain, asked.at, found)
            chain = None
        if chain is None:
            chain = self._begin(asked)
            chain.add(now)
        else:
            self._chains.move_to_end(asked.mark)
            self._settled(chain)
            before = chain.last
            chain.add(now)
            found += self._again(chain, before, now)
        chain.under_way += 1
        self._open[asked.id] = chain, now
        return found

    def ended(self, id: str, answered: Answered) -> list[Verdict]:
        """The request *id* is over; the verdicts that are new by it."""
        found = self.passed(answered.over)
        known = self._open.pop(id, None)
        if known is None:
            return found  # it was forgotten meanwhile
        chain, one = known
        chain.under_way -= 1
        one.answered = answered
        failure = one.failure
        if chain.unclear:
            # Others that asked beside it may come back as well.
            self._wait(chain, answered.over)
        elif failure is None or not answered.clear:
            self._drop(chain)
        else:
            self._wait(chain, answered.over + (failure.wait or 0.0))
            if failure.retryable and not chain.retries:
                self._alone.setdefault(chain.client, {})[chain.mark] = chain
        return found

    def passed(self, now: float) -> list[Verdict]:
        """It is *now*: the verdicts on those that have not come back in time."""
        if now < self._next:
            return []
        found: list[Verdict] = []
        for chain in [one for one in self._waiting() if one.deadline <= now]:
            self._expire(chain, now, found)
        # Each look is at all of them: not again for every single one.
        self._next = max(min((one.deadline for one in self._waiting()), default=inf), now + PAUSE)
        return found

    def pending(self, now: float) -> list[Verdict]:
        """The verdicts that there would be if nobody came back any more.  Nothing changes."""
        return [one for chain in self._waiting() if (one := given_up(chain, None, now)) is not None]

    def let_go(self) -> None:
        """Forget all requests; what was said of them stays."""
        self._chains.clear()
        self._open.clear()
        self._alone.clear()
        self._rhythm.clear()
        self._next = inf

    def clear(self) -> int:
        """Forget everything; how many verdicts there were."""
        self.let_go()
        self.dropped = 0
        return self.verdicts.clear()

    def _begin(self, asked: Asked) -> Chain:
        # It may be what failed before, in other words.
        for other in self._alone.pop(asked.client, {}).values():
            other.doubted = True
        chain = self._chains[asked.mark] = Chain(asked.client, asked.mark)
        if len(self._chains) > self._most:
            self._drop(next(iter(self._chains.values())))
            self.dropped += 1
        return chain

    def _again(self, chain: Chain, before: Try, now: Try) -> list[Verdict]:
        """The same request once more."""
        found: list[Verdict] = []
        if chain.under_way or not follows(before, now.asked):
            chain.unclear = True
        answered, failure = before.answered, before.failure
        if chain.unclear or answered is None or failure is None:
            return found
        if not chain.retries:
            chain.peak = before.asked.count or 0
        chain.retries += 1
        for verdict in judged(chain, before, now, self._max_retries):
            self._give(verdict, found)
        if failure.wait is None and failure.retryable:
            wait = Wait(
                chain.mark,
                chain.client,
                chain.retries,
                answered.over,
                now.asked.at - answered.over,
                (before, now),
            )
            self._give(self._rhythm.add(wait), found)
        return found

    def _give(self, verdict: Verdict | None, found: list[Verdict]) -> None:
        if verdict is not None and self.verdicts.give(verdict):
            found.append(verdict)

    def _waiting(self) -> list[Chain]:
        """Chains of which nothing is under way."""
        return [one for one in self._chains.values() if not one.under_way]

    def _wait(self, chain: Chain, since: float) -> None:
        chain.deadline = since + self._window
        if not chain.under_way:
            self._next = min(self._next, chain.deadline)

    def _expire(self, chain: Chain, now: float, found: list[Verdict]) -> None:
        self._drop(chain)
        self._give(given_up(chain, self._window, now), found)

    def _settled(self, chain: Chain) -> None:
        """Its client has come back, or is not waited for any more."""
        alone = self._alone.get(chain.client)
        if alone is not None:
            alone.pop(chain.mark, None)
            if not alone:
                del self._alone[chain.client]

    def _drop(self, chain: Chain) -> None:
        del self._chains[chain.mark]
        self._settled(chain)
        for one in chain.tries:
            self._open.pop(one.asked.id, None)
