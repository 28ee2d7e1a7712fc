"""Whether clients wait for times of their own, or all for the same one."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from llmproxyd.verdicts.chain import ALIKE, LEAST, Try, seconds
from llmproxyd.verdicts.mark import Client
from llmproxyd.verdicts.verdict import MOST_REQUESTS, Name, Verdict

KEPT = 512
"""Waits that are looked at: the last ones of all clients."""

TOGETHER = 4
"""So many that fail at once and come back at once do not draw their waits: drawn over no more than an eighth
of a second, as the official SDKs do, that happens once in thousands of times."""

AGAIN = 6
"""So many equal waits one after the other, of one client, are not drawn."""

SAME_TIME = 0.1
"""Seconds within which failures count as one."""

CLOSE = 0.005
"""Seconds by which waits of the same length may differ."""


@dataclass(frozen=True, slots=True)
class Wait:
    """A wait that a client chose itself.

    :param mark: of the request that it was for.
    :param number: which retry followed, from 1.
    :param failed: when it began, monotonic seconds.
    """

    mark: bytes
    client: Client
    number: int
    failed: float
    length: float
    tries: tuple[Try, Try]


class Rhythm:
    """The last waits."""

    def __init__(self) -> None:
        self._waits: deque[Wait] = deque(maxlen=KEPT)

    def clear(self) -> None:
        """Forget them."""
        self._waits.clear()

    def add(self, wait: Wait) -> Verdict | None:
        """One more; what it proves together with those before."""
        if wait.length < LEAST:
            return None  # none was meant
        self._waits.append(wait)
        # Tests that run side by side may have been meant to fail at once.
        together = self._together(wait) if wait.client.test is None else None
        return together or self._again(wait)

    def _together(self, wait: Wait) -> Verdict | None:
        """Several that failed at once and waited for the same time."""
        found: dict[bytes, Wait] = {}
        for one in self._waits:
            if (
                one.number == wait.number
                and one.client.test is None
                and one.client.upstream == wait.client.upstream
                and abs(one.failed - wait.failed) <= SAME_TIME
                and abs(one.length - wait.length) <= CLOSE
            ):
                found[one.mark] = one
        if len(found) != TOGETHER:
            return None  # not enough, or said already
        text = (
            f"{len(found)} requests failed at once and came back at once, "
            f"each after {seconds(wait.length)}: no wait is drawn."
        )
        return _verdict(text, list(found.values()))

    def _again(self, wait: Wait) -> Verdict | None:
        """One client whose waits before the same retry are all equal."""
        own = [one for one in self._waits if one.client == wait.client and one.number == wait.number][-AGAIN:]
        lengths = [one.length for one in own]
        least = min(lengths)
        if len({one.mark for one in own}) < AGAIN or max(lengths) - least > max(CLOSE, 0.1 * ALIKE * least):
            return None
        text = (
            f"The client waited for {seconds(wait.length)} before retry {wait.number} "
            f"{len(own)} times in a row: no wait is drawn."
        )
        return _verdict(text, own)


def _verdict(text: str, waits: list[Wait]) -> Verdict:
    tries = sorted((one for wait in waits for one in wait.tries), key=lambda one: one.asked.at)
    proof = tries[-MOST_REQUESTS:]
    return Verdict(
        name=Name.NO_JITTER,
        text=text,
        client=waits[-1].client,
        requests=tuple(one.asked.id for one in proof),
        times=tuple(one.asked.at for one in proof),
        at=proof[-1].asked.at,
    )
