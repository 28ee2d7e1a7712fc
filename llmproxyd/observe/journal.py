"""The last requests, at hand for an operator who asks what became of one.

Events are kept as they come, and told of when somebody asks: that is rare, and requests are not.  No
bodies, unless they are asked for.  The number of requests is bounded, and so are the bytes that they hold:
:data:`AVERAGE` each and what their bodies may have, over all of them, so that one that was tried again many
times may take the place of several.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from sys import getsizeof
from typing import Any, NamedTuple, Protocol

from twisted.logger import Logger

from llmproxyd.errors import Refused
from llmproxyd.model import (
    BreakerChanged,
    Captured,
    CredentialRested,
    ErrorNoted,
    Event,
    Finished,
    Reading,
    Retrying,
    WallClock,
)
from llmproxyd.observe import explained
from llmproxyd.observe.eventjson import TEXT, EventFormat, Told
from llmproxyd.observe.explained import Moment, Try
from llmproxyd.observe.sink import Batched

AVERAGE = 1536
"""Bytes that a request may hold, on average over the journal."""

NOTES = 64
"""Failed attempts that are kept of one request: the first and the last ones."""

WAITING = 4096
"""Failed attempts that are kept of all requests under way: of 300 bytes each, about."""

CHANGES = 256
"""Changes of breakers and keys that are kept."""

FOLLOWERS = 64
"""Operators who may follow at a time."""

CANDIDATES = 5
"""Requests that are named where an id could mean several."""

SMALL = AVERAGE
"""Bytes that are counted for a request with nothing long in it, which holds less, whatever its answer told.

They are what a request may hold, so that nothing need be counted where all are such.  An upstream that
gives its answers ids of a hundred characters makes it a tenth more.
"""

_SHORT = 224
"""Characters of path, models, ``traceparent`` and test, together, with which a request is small."""

_WIDE = 4
"""Bytes of a character from an answer's JSON, at most; all else came as Latin-1, of one."""

_BASE = 560
_LARGE = _BASE + TEXT
_READING = 480
"""Bytes of what an answer told, without the name of its model."""

_NOTE = 320
_LONG = 2 * TEXT + 1
"""Characters of a text that others chose.  More are never shown; this many say that there were more."""

Row = dict[str, Any]


class Entry(NamedTuple):
    """A request that holds more than :data:`SMALL`, or of which more is known than its event tells.

    :ivar size: its bytes, about.
    :ivar tries: its failed attempts.
    :ivar decision: why no further attempt followed.
    """

    finished: Finished
    size: int = SMALL
    tries: list[Try] | None = None
    decision: str | None = None


class Filter(Protocol):
    """A condition that a request fulfils or not."""

    def matches(self, row: Mapping[str, object]) -> bool:
        """Whether *row* fulfils it; what of it is asked for is asked for by ``get``."""
        ...


_PLAIN = (
    "number",
    "status",
    "duration",
    "began",
    "first",
    "sent",
    "received",
    "attempts",
    "provider",
    "upstream",
    "operation",
    "kind",
    "fault",
    "code",
    "failed",
    "streamed",
    "cache",
    "project",
    "token",
    "peer",
    "upstream_id",
    "unreached",
    "injected",
)
"""Members of :class:`~llmproxyd.model.Finished` that a row has under the same names, as they are."""

_BODIES = ("request_body", "response_body")
_CLEANED = ("method", "path", "model", "detail", "traceparent", "test")
"""Those of them that others chose: told without secrets, and bounded."""


class _View(dict[str, object]):
    """A request as filters see it, of which most ask for one or two members: they are looked up then."""

    __slots__ = ("_finished",)

    def __init__(self, finished: Finished) -> None:
        self._finished = finished

    def get(self, name: str, default: object = None) -> object:
        """The member *name* of its row."""
        finished = self._finished
        if name == "id":
            return finished.request_id
        if name == "end":
            return finished.end.value
        if name == "model":
            return model_of(finished)
        return getattr(finished, name, default) if name in _PLAIN or name in _CLEANED else default


def model_of(finished: Finished) -> str | None:
    """The model that was asked for, where the request was looked at, else the one that answered."""
    if finished.model is not None or finished.reading is None:
        return finished.model
    return finished.reading.model


class Journal(Batched):
    """A subscriber of the sink; it needs no arrivals.

    :param requests: so many are kept at most; 0 keeps none, and they can still be followed.
    :param form: tells of requests as events do, without secrets.
    :param bodies: bytes that may be kept of the body of each request, and of its answer.
    """

    log = Logger()

    def __init__(self, requests: int, wall: WallClock, form: EventFormat, *, bodies: int = 0) -> None:
        self._most = requests
        self._bodies = bool(bodies)
        self._budget = requests * (AVERAGE + 2 * bodies)
        self._wall = wall
        self._form = form
        # Most stand there as they came: to work out the size of each would cost more than all else here.
        self._entries: deque[Finished | Entry] = deque(maxlen=requests)
        self._excess = 0
        self._tries: dict[str, list[Try]] = {}
        self._waiting = 0
        self._decisions: dict[str, str] = {}
        self._changes: deque[tuple[float, BreakerChanged | CredentialRested]] = deque(maxlen=CHANGES)
        self._followers: list[tuple[Sequence[Filter], Callable[[Row], None]]] = []

    def __call__(self, event: Event) -> None:
        """Take *event*."""
        kind = type(event)
        if kind is Finished:
            self.finished(iter((event,)))  # type: ignore[arg-type]
        elif kind is Retrying:
            self._retrying(event)  # type: ignore[arg-type]
        elif isinstance(event, BreakerChanged | CredentialRested):
            self._changes.append((self._wall(), event))
        elif isinstance(event, ErrorNoted):
            self._noted(event)

    # Asked by operators.

    def recent(self, filters: Sequence[Filter] = (), limit: int = 20) -> list[Row]:
        """The last *limit* requests that all *filters* let through, the newest last.

        A row has the members of :class:`~llmproxyd.model.Finished` under the same names, in seconds and
        bytes, ``id`` for our id, ``time`` (seconds since the epoch) of its end; secrets are left out.
        """
        self.settle()
        kept = (one.finished if isinstance(one, Entry) else one for one in reversed(self._entries))
        found = (event for event in kept if _fits(filters, event))
        return [self._row(event) for event in reversed(list(islice(found, max(limit, 0))))]

    def follow(self, filters: Sequence[Filter], emit: Callable[[Row], None]) -> Callable[[], None]:
        """Hand each request to *emit* that all *filters* let through from now on, as it ends.

        One that raises is told no more.

        :returns: to be called when it is enough; more than once does no harm.
        :raises Refused: too many follow already.
        """
        if len(self._followers) >= FOLLOWERS:
            raise Refused(
                429,
                "too_many_followers",
                f"{FOLLOWERS} consoles follow the requests already; leave one of them.",
            )
        self.settle()
        follower = (tuple(filters), emit)
        self._followers.append(follower)

        def stop() -> None:
            self._followers[:] = [one for one in self._followers if one is not follower]

        return stop

    def explain(self, name: str) -> Row | None:
        """What became of the request *name*; ``None`` if it is not known, or no longer.

        :param name: our id or an upstream's, or the beginning of one; ``#7`` for the seventh.
        A row with a list of its ``attempts``, and of the ``changes`` of breakers and keys meanwhile;
        :func:`~llmproxyd.observe.explained.explain_text` makes it a text.

        :raises Refused: several ids begin so.
        """
        self.settle()
        entry = self._find(name)
        if entry is not None:
            finished, _, tries, decision = entry
            moment = Moment(finished.wall, finished.wall - finished.duration, self._changes)
            return explained.finished(self._row(finished), finished, tries or [], decision, moment)
        tries = self._tries.get(name)
        return None if tries is None else explained.under_way(name, tries, self._changes)

    def state(self) -> dict[str, int]:
        """How many requests are kept, and about how many bytes they hold."""
        self.settle()
        return {"requests": len(self._entries), "bytes": self._held(), "following": len(self._followers)}

    # Told by the sink.

    def finished(self, events: Iterator[Finished]) -> None:
        """Keep *events*."""
        keep = self._entries.append
        tries, decisions = self._tries, self._decisions
        for event in events:
            reading = event.reading
            texts = len(event.path)
            if event.model is not None:
                texts += len(event.model)
            if event.traceparent is not None:
                texts += len(event.traceparent)
            if event.test is not None:
                texts += len(event.test)
            if reading is not None and reading.model is not None:
                texts += _WIDE * len(reading.model)
            if (
                texts > _SHORT
                or event.detail is not None
                or event.captured is not None
                or self._followers
                or (tries and event.request_id in tries)
                or (decisions and event.request_id in decisions)
            ):
                self._finished(event)
                continue
            if self._excess:
                self._make_room(SMALL)
            keep(event)  # where all are small, the oldest one leaves by itself

    def waiting(self) -> None:
        """Those who follow want to see a request as it ends."""
        if self._followers:
            self.settle()

    def _finished(self, event: Finished) -> None:
        """Keep *event*, whatever is known of it, and tell those who follow."""
        tries = self._take(event.request_id)
        decision = self._decisions.pop(event.request_id, None)
        if self._most:
            size = _BASE + _texts(event)
            if size > _LARGE or event.captured is not None:
                event = _slim(event, bodies=self._bodies)
                size = _BASE + _texts(event) + _bytes(event.captured)
            size += _answer(event.reading)
            if tries is not None:
                size += _NOTE * len(tries)
            if decision is not None:
                size += _NOTE
            self._keep(event, max(size, SMALL), tries, decision)
        if self._followers:
            self._tell(event)

    def _keep(self, event: Finished, size: int, tries: list[Try] | None, decision: str | None) -> None:
        """Keep *event*, which stays, whatever it holds."""
        self._make_room(size)
        if size > SMALL or tries is not None or decision is not None:
            self._entries.append(Entry(event, size, tries, decision))
            self._excess += size - SMALL
        else:
            self._entries.append(event)

    def _make_room(self, size: int) -> None:
        """Forget the oldest ones until another one of *size* bytes has room."""
        entries = self._entries
        if len(entries) >= self._most:
            self._forget()
        while entries and self._held() + size > self._budget:
            self._forget()

    def _forget(self) -> None:
        oldest = self._entries.popleft()
        if isinstance(oldest, Entry):
            self._excess -= oldest.size - SMALL

    def _held(self) -> int:
        return len(self._entries) * SMALL + self._excess

    def _retrying(self, event: Retrying) -> None:
        tries = self._tries.get(event.request_id)
        if tries is None:
            tries = self._tries[event.request_id] = []
        number = tries[-1].number + 1 if tries else 1
        if len(tries) >= NOTES:
            del tries[NOTES // 2]
            self._waiting -= 1
        tries.append(Try(number, self._wall(), event))
        self._waiting += 1
        while self._waiting > WAITING and len(self._tries) > 1:
            self._take(next(iter(self._tries)))

    def _take(self, request_id: str) -> list[Try] | None:
        tries = self._tries.pop(request_id, None)
        if tries is not None:
            self._waiting -= len(tries)
        return tries

    def _noted(self, event: ErrorNoted) -> None:
        """Why no further attempt follows, where the error log is on."""
        decision = event.context.get("decision")
        if not event.final or event.request_id is None or not isinstance(decision, str):
            return
        if len(self._decisions) >= WAITING:
            del self._decisions[next(iter(self._decisions))]
        self._decisions[event.request_id] = decision

    def _tell(self, event: Finished) -> None:
        row: Row | None = None
        for follower in list(self._followers):
            filters, emit = follower
            try:
                if _fits(filters, event):
                    if row is None:
                        row = self._row(event)
                    emit(dict(row))
            except Exception:
                self.log.failure("an operator can follow the requests no more")
                self._followers[:] = [one for one in self._followers if one is not follower]

    # Found.

    def _row(self, finished: Finished) -> Row:
        if not self._bodies:
            # They are not told, so that nothing need be made of them.
            finished = replace(finished, captured=None)
        told = self._form.members(Told("", finished.wall, finished))
        row: Row = {"id": told["request_id"], "time": finished.wall}
        row |= {name: getattr(finished, name) for name in _PLAIN}
        row |= {name: told[name] for name in _CLEANED}
        if told["model"] is None:
            row["model"] = told["response_model"]
        row |= {"upstream_id": told["upstream_request_id"]}
        row |= {"end": finished.end.value, "response_model": told["response_model"], "usage": told["usage"]}
        row |= {"cost": told["cost"], "finish": told["finish_reason"]}
        return row | {name: told[name] for name in _BODIES if name in told}

    def _find(self, name: str) -> Entry | None:
        """The entry that *name* means.

        :raises Refused: several begin so.
        """
        if not name:
            return None
        begin: dict[str, Entry] = {}
        for one in reversed(self._entries):
            entry = one if isinstance(one, Entry) else Entry(one)
            if name == f"#{entry.finished.number}":
                return entry
            for known in _names(entry):
                if known == name:
                    return entry
                if known.startswith(name):
                    begin[entry.finished.request_id] = entry
        if name in self._tries or not begin:
            return None
        if len(begin) > 1:
            some = ", ".join(islice(begin, CANDIDATES))
            more = f" and {len(begin) - CANDIDATES} more" if len(begin) > CANDIDATES else ""
            raise Refused(409, "ambiguous_id", f"{len(begin)} requests have ids that begin so: {some}{more}.")
        return next(iter(begin.values()))


def _fits(filters: Sequence[Filter], finished: Finished) -> bool:
    view = _View(finished)
    return all(one.matches(view) for one in filters)


def _names(entry: Entry) -> Iterator[str]:
    """The ids by which an entry can be found: ours, and those that the upstreams gave."""
    finished = entry.finished
    yield finished.request_id
    if finished.upstream_id is not None:
        yield finished.upstream_id
    for one in entry.tries or ():
        if one.event.upstream_id is not None:
            yield one.event.upstream_id


def _texts(event: Finished) -> int:
    """Bytes of the texts in *event* that others chose."""
    size = getsizeof(event.path)
    if event.model is not None:
        size += getsizeof(event.model)
    if event.detail is not None:
        size += getsizeof(event.detail)
    if event.traceparent is not None:
        size += getsizeof(event.traceparent)
    if event.test is not None:
        size += getsizeof(event.test)
    return size


def _answer(reading: Reading | None) -> int:
    """Bytes of what an answer told."""
    if reading is None:
        return 0
    return _READING if reading.model is None else _READING + getsizeof(reading.model)


def _bytes(captured: Captured | None) -> int:
    """What the bodies hold."""
    if captured is None:
        return 0
    return sum(len(body.data) for body in (captured.request, captured.response) if body is not None)


def _slim(event: Finished, *, bodies: bool) -> Finished:
    """*event* with texts no longer than can be shown, and without bodies unless they are asked for."""
    return replace(
        event,
        path=event.path[:_LONG],
        model=_cut(event.model),
        detail=_cut(event.detail),
        traceparent=_cut(event.traceparent),
        captured=event.captured if bodies else None,
    )


def _cut(text: str | None) -> str | None:
    return None if text is None else text[:_LONG]
