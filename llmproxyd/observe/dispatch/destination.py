"""What a dispatcher expects of the place where it brings events, and how that says no."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from twisted.internet.defer import Deferred

from llmproxyd.observe.eventjson import Told


class Undelivered(Exception):
    """A batch, or the end of it, could not be delivered.

    :param why: for the log; it holds no secret.
    :param final: another attempt would fail too: it is given up.
    :param answered: the other side was there, so it may be the batch itself that it does not like.
    :param after: seconds that the other side asks for.
    :param done: so many of its events were delivered, those at its beginning.
    """

    def __init__(
        self,
        why: str,
        *,
        final: bool = False,
        answered: bool = False,
        after: float | None = None,
        done: int = 0,
    ) -> None:
        super().__init__(why)
        self.why = why
        self.final = final
        self.answered = answered
        self.after = after
        self.done = done


class Destination(Protocol):
    """Takes events.  The reactor's thread calls it, one batch after the other."""

    @property
    def name(self) -> str:
        """What the log and the counters call it; without secrets."""
        ...

    def deliver(self, batch: Sequence[Told]) -> Deferred[None]:
        """Fire when *batch* has arrived; fail with :exc:`Undelivered`, or once it is cancelled."""
        ...

    def close(self) -> Deferred[None]:
        """Let go of files and connections."""
        ...
