"""Watches what clients do after a failure, for the verdicts.

It looks at nothing until something has failed or is meant to: until then requests go the short way.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import Protocol

from twisted.logger import Logger

from llmproxyd.faults.render import kind_at
from llmproxyd.faults.rules import UNKNOWN, Breakage
from llmproxyd.http.body import Kept
from llmproxyd.model import End, Finished, WallClock
from llmproxyd.pipeline.exchange import Exchange
from llmproxyd.pipeline.overheard import Overheard
from llmproxyd.verdicts.book import Book
from llmproxyd.verdicts.failure import UNCLEAR, Answered, Unclear, failure_of
from llmproxyd.verdicts.mark import Asked, client_of, count_of, mark_of
from llmproxyd.verdicts.verdict import Verdict
from llmproxyd.wire.wheel import Timer, Wheel

Row = dict[str, object]

LARGEST = 8 * 1024 * 1024
"""Bytes of a request's body; one with more is not watched, as it would have to be read as a whole."""


class Watcher:
    """Is told of requests while it watches, and how each ended.  This one never does.

    :ivar awake: it watches even when no fault is at work.  Every request asks.
    """

    awake = False

    @property
    def watching(self) -> bool:
        """Whether requests must be looked at; else it is told nothing."""
        return False

    def arrived(self, exchange: Exchange, body: Kept) -> None:
        """A request for inference is here, with its whole body; nothing is decided yet."""

    def ended(self, exchange: Exchange, event: Finished) -> None:
        """A request of which it was told is over."""

    def verdicts(self, *, test: str | None = None, over: bool = False) -> list[Row]:
        """What there is to say of clients, the oldest first.

        :param test: only of this test's requests.
        :param over: also what there would be to say if no client came back any more.
        """
        return []

    def clear(self) -> int:
        """Forget everything; how many verdicts there were."""
        return 0

    def dropped(self) -> dict[str, int]:
        """What had to be forgotten before its time, as it was too much."""
        return {"requests": 0, "verdicts": 0}

    def stop(self) -> None:
        """Wait for nobody any more."""


class Rehearsal(Protocol):
    """Makes failures.

    :ivar active: it may make one now.
    """

    @property
    def active(self) -> bool: ...


class _Nothing:
    """Makes none."""

    active = False


class Watch(Watcher):
    """Watches from the first rehearsed failure on, until nobody is waited for any more; or always.

    :param key: of the marks by which clients are known; random, of this process.
    :param enabled: ``True`` watches always, ``False`` never, ``None`` as above.
    :param window: seconds for which a client is waited for after a failure.
    :param max_retries: more of them are too many.
    :param rehearsal: tells whether a failure may be made now.
    """

    log = Logger()

    def __init__(
        self,
        *,
        key: bytes,
        wheel: Wheel,
        wall: WallClock,
        enabled: bool | None,
        window: float,
        max_retries: int,
        rehearsal: Rehearsal,
    ) -> None:
        self._key = key
        self._wheel = wheel
        self._wall = wall
        self._never = enabled is False
        self._enabled = self._always = enabled is True
        self._window = window
        self._rehearsal: Rehearsal = _Nothing() if self._never else rehearsal
        self._book = Book(window=window, max_retries=max_retries)
        self._heard: dict[int, Overheard] = {}
        self._until = -inf
        self._timer: Timer | None = None
        self.awake = self._always

    @property
    def watching(self) -> bool:
        """Whether requests must be looked at."""
        return self.awake or self._rehearsal.active

    def rehearse(self, *, on_request: bool) -> None:
        """Whether requests may ask for failures themselves, so that any of them may meet one."""
        self._always = self._enabled or (on_request and not self._never)
        self.awake = self._always or self._until > self._wheel.seconds()

    # Told by the pipeline.

    def arrived(self, exchange: Exchange, body: Kept) -> None:
        """A request for inference is here, with its whole body; nothing is decided yet."""
        try:
            self._arrived(exchange, body)
        except Exception:
            # It goes its way, whoever watches.
            self.log.failure("a request cannot be watched")

    def ended(self, exchange: Exchange, event: Finished) -> None:
        """A request of which it was told is over."""
        try:
            self._ended(exchange, event)
        except Exception:
            self.log.failure("the end of a request cannot be watched")

    def _arrived(self, exchange: Exchange, body: Kept) -> None:
        plan, route, request, responder = exchange.plan, exchange.route, exchange.request, exchange.responder
        if plan is None or route is None or responder is None or body.length > LARGEST:
            return
        client = client_of(self._key, request, route.upstream.name, route.target, plan.test)
        if client is None:
            return  # whose it is cannot be told, so nothing can be said of anybody
        heard = exchange.responder = Overheard(exchange, responder, self._wheel.seconds)
        self._heard[exchange.number] = heard
        asked = Asked(
            id=exchange.request_id,
            client=client,
            mark=mark_of(self._key, client, request, route.target, body.read(body.length)),
            at=exchange.arrived,
            peer=request.peer,
            count=count_of(request),
        )
        self._tell(self._book.arrived(asked))

    def _ended(self, exchange: Exchange, event: Finished) -> None:
        heard = self._heard.pop(exchange.number, None)
        if heard is None:
            return
        sent = heard.sent
        sent.end, sent.fault = event.end, _kind(exchange)
        sent.ours = event.code is not None and event.fault is None
        if sent.end is End.TRUNCATED and heard.finished:
            sent.end = End.COMPLETE  # that is what it looks like
        if sent.fault == Breakage.TRUNCATE and sent.complete is not None:
            sent.complete = heard.closed
        over = exchange.arrived + event.duration
        failure = failure_of(sent, self._wall())
        at = over if heard.began is None else heard.began
        answered = Answered(
            at=at,
            over=over,
            failure=None if isinstance(failure, Unclear) else failure,
            clear=failure is not UNCLEAR,
            cut=not heard.finished,
        )
        self._tell(self._book.ended(event.request_id, answered))
        failed = answered.failure
        if failed is not None and (exchange.fault is not None or self._rehearsal.active):
            self._until = max(self._until, over + (failed.wait or 0.0) + self._window)
        self._plan()

    # Asked by operators.

    def verdicts(self, *, test: str | None = None, over: bool = False) -> list[Row]:
        """What there is to say of clients, the oldest first."""
        now = self._wheel.seconds()
        self._tell(self._book.passed(now))
        found = [*self._book.verdicts, *(self._book.pending(now) if over else ())]
        return [self._told(one) for one in found if test is None or one.client.test == test]

    def clear(self) -> int:
        """Forget everything; how many verdicts there were."""
        count = self._book.clear()
        self._heard.clear()
        self._rest()
        return count

    def dropped(self) -> dict[str, int]:
        """What had to be forgotten before its time, as it was too much."""
        return {"requests": self._book.dropped, "verdicts": self._book.verdicts.dropped}

    def stop(self) -> None:
        """Wait for nobody any more."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    # By and by.

    def _plan(self) -> None:
        """Look again when there is something to say, or nothing to wait for."""
        self.awake = self._always or self._until > self._wheel.seconds()
        due = self._book.due
        if self.awake and not self._always:
            due = min(due, self._until)
        self.stop()
        if due < inf:
            self._timer = self._wheel.start(max(due - self._wheel.seconds(), 0.0), self._look)

    def _look(self) -> None:
        self._timer = None
        now = self._wheel.seconds()
        self._tell(self._book.passed(now))
        self.awake = self._always or self._until > now
        if self.watching:
            self._plan()
        else:
            self._rest()

    def _rest(self) -> None:
        """Nothing is looked at any more, so nothing more can be said of those that are left."""
        self.stop()
        self._until = -inf
        self.awake = self._always
        self._book.let_go()

    def _tell(self, found: Iterable[Verdict]) -> None:
        for one in found:
            self.log.warn(
                "Verdict {name}: {text} {client} at {upstream} {path} [{requests}] {docs}",
                name=one.name.value,
                text=one.text,
                client=one.client.name,
                upstream=one.client.upstream,
                path=one.client.path,
                requests=", ".join(one.requests),
                docs=one.docs,
            )

    def _told(self, one: Verdict) -> Row:
        """*one* as JSON takes it."""
        ahead = self._wall() - self._wheel.seconds()
        client = one.client
        return {
            "name": one.name.value,
            "severity": one.severity.value,
            "text": one.text,
            "client": client.name,
            "upstream": client.upstream,
            "path": client.path,
            "test": client.test,
            "requests": list(one.requests),
            "times": [round(ahead + time, 3) for time in one.times],
            "time": round(ahead + one.at, 3),
            "seen": one.seen,
            "docs": one.docs,
        }


def _kind(exchange: Exchange) -> str | None:
    """The kind of the fault that was chosen for a request, as the catalogue calls it."""
    if exchange.fault is None or exchange.unreached:
        return None
    kind = exchange.fault.rule.kind
    return str(kind_at(kind, exchange.dialect)) if kind == UNKNOWN else str(kind)
