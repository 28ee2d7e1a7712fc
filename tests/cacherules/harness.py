"""Plays transcripts: a cache between a client and an upstream, without any wire.

``play`` does what a proxy does with the policy, in as few lines as that takes, and compares what
became of each request with what the transcript says.  Times are seconds after the start; the
only clock is the transcript.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any

from twisted.internet.defer import Deferred

from llmproxyd.cache.interface import Cache, Entry
from llmproxyd.cache.key import key_of, url_of
from llmproxyd.cache.policy import (
    STAND_IN,
    Ask,
    Serve,
    Unavailable,
    Wants,
    confirmed,
    decide,
    invalidates,
    is_confirmed,
    may_be_kept,
    may_stand_in,
    served,
    storable,
    wants_of,
)
from llmproxyd.model import Request, Response
from llmproxyd.wire.fields import HOP_BY_HOP

START = 1_700_000_000.0
"""Seconds since the epoch at which a transcript begins, unless a backend lives in real time."""

UPSTREAM = "openai"


@dataclass(frozen=True)
class When:
    """A date, so many seconds after the start; written in *form*."""

    seconds: float
    form: str = "fixed"

    def text(self, start: float) -> str:
        fixed = formatdate(start + self.seconds, usegmt=True)
        day, number, month, year, time, _ = fixed.replace(",", "").split()
        if self.form == "rfc850":
            long = {
                "Mon": "Mon",
                "Tue": "Tues",
                "Wed": "Wednes",
                "Thu": "Thurs",
                "Fri": "Fri",
                "Sat": "Satur",
            }
            return f"{long.get(day, 'Sun')}day, {number}-{month}-{year[2:]} {time} GMT"
        if self.form == "asctime":
            return f"{day} {month} {number.lstrip('0'):>2} {time} {year}"
        return fixed


Values = Mapping[str, Any] | Sequence[tuple[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Step:
    """One request: what it says, what the upstream would answer, and what must become of it.

    :param expect: see :class:`Became`; also ``upstream`` for any way in which nothing is served from
        the cache.
    :param res: fields of the upstream's answer; ``cc`` is short for its ``Cache-Control``.
    :param took: seconds from the request to the head of the answer.
    :param down: the upstream cannot be reached.
    :param sees: fields that the client must see; ``None`` for one that it must not.
    :param sends: fields that the upstream must see, as in *sees*.
    """

    expect: str = "miss"
    at: float = 0.0
    method: str = "GET"
    target: str = "/v1/models"
    req: Values = ()
    body: str = ""
    status: int = 200
    res: Values = ()
    cc: str | None = None
    text: str = "one"
    took: float = 0.0
    down: bool = False
    tenant: str = "alice"
    authorized: bool = False
    rule: float | None = None
    ttl: float | None = None
    gets: str | None = None
    code: int | None = None
    sees: Mapping[str, Any] = field(default_factory=dict)
    sends: Mapping[str, Any] = field(default_factory=dict)


def ask(expect: str = "miss", **said: Any) -> Step:
    return Step(expect=expect, **said)


@dataclass(frozen=True)
class Case:
    """A transcript, named by the section of RFC 9111 (or another document) that it shows."""

    section: str
    name: str
    steps: tuple[Step, ...]

    @property
    def id(self) -> str:
        return f"{self.section} {self.name}".replace(" ", "-")


def case(section: str, name: str, *steps: Step) -> Case:
    return Case(section, name, steps)


@dataclass
class Became:
    """What became of a request.

    :ivar how: ``hit``; ``stale``; ``meanwhile`` (served stale, and asked behind the client's
        back); ``unmodified`` (304 from the cache); ``unavailable`` (504); ``miss`` (asked without
        conditions of ours); ``asked`` (asked with some, and told anew); ``confirmed`` (asked, and
        served what was stored); ``not-confirmed`` (the 304 speaks of something else);
        ``stands-in`` (asked, failed, served); ``failed``; ``passed`` (not for the cache).
    """

    how: str
    head: Response
    body: bytes
    sent: list[tuple[bytes, bytes]] | None = None
    entry: Entry | None = None


def pairs(values: Values, start: float) -> list[tuple[bytes, bytes]]:
    """Fields as the wire has them."""
    items = values.items() if isinstance(values, Mapping) else values
    return [
        (
            name.encode("latin-1"),
            value.text(start).encode()
            if isinstance(value, When)
            else value
            if isinstance(value, bytes)
            else str(value).encode("latin-1"),
        )
        for name, value in items
    ]


async def _settled() -> None:
    """Nothing to wait for: the backend is in memory."""


class Proxy:
    """The smallest proxy that uses a cache as it should.

    :param settle: waits until what was put is there.
    """

    def __init__(
        self, cache: Cache, start: float = START, settle: Callable[[], Awaitable[None]] = _settled
    ) -> None:
        self.cache, self.start, self.settle = cache, start, settle

    async def exchange(self, step: Step) -> Became:
        now = self.start + step.at
        headers = pairs(step.req, self.start)
        request = Request(step.method.encode(), step.target.encode("latin-1"), headers)
        wants = wants_of(request, authorized=step.authorized, ttl=step.rule)
        key = key_of(step.tenant, UPSTREAM, request, request.target, step.body.encode())
        entries: Sequence[Entry] = ()
        if wants.lookup:
            found = self.cache.get(key)
            entries = await found if isinstance(found, Deferred) else found
        decision = decide(entries, request, wants, now)
        if isinstance(decision, Unavailable):
            return Became("unavailable", Response(504, b"Gateway Timeout", []), b"")
        if isinstance(decision, Serve):
            how = "stale" if decision.stale else "hit"
            if decision.revalidate:
                how = "meanwhile"
                entry = decision.entry
                await self._asked(step, request, wants, key, Ask(entry), now)
            elif decision.head.status == 304:
                how = "unmodified"
            return Became(how, decision.head, decision.body, None, decision.entry)
        return await self._asked(step, request, wants, key, decision, now)

    async def _asked(
        self, step: Step, request: Request, wants: Wants, key: bytes, asking: Ask, now: float
    ) -> Became:
        sent = list(request.headers)
        if asking.fields:
            own = (b"if-none-match", b"if-modified-since")
            sent = [pair for pair in sent if pair[0].lower() not in own] + list(asking.fields)
        answer = self._answer(step)
        received = now + step.took
        stored = asking.entry
        if (answer is None or answer.status in STAND_IN) and stored and may_stand_in(stored, wants, received):
            serve = served(stored, request, received)
            return Became("stands-in", serve.head, serve.body, sent, stored)
        if answer is None:
            return Became("failed", Response(502, b"Bad Gateway", []), b"", sent)
        if answer.status == 304 and asking.fields and stored is not None:
            if not is_confirmed(stored, answer.headers, received):
                # A proxy would now ask again without conditions.
                return Became("not-confirmed", Response(502, b"Bad Gateway", []), b"", sent, stored)
            entry = confirmed(stored, answer, requested=now, received=received)
            if may_be_kept(entry):
                self.cache.put(key, entry)
            else:
                self.cache.drop(key, step.tenant)
            await self.settle()
            serve = served(entry, request, received)
            return Became("confirmed", serve.head, serve.body, sent, entry)
        url = url_of(UPSTREAM, request.target)
        if invalidates(request, answer):
            self.cache.invalidate(url, step.tenant)
            await self.settle()
        bodiless = request.method == b"HEAD" or answer.status in (204, 304)
        body = b"" if bodiless else step.text.encode()
        entry = storable(request, wants, answer, requested=now, received=received, ttl=step.ttl)
        if isinstance(entry, Entry):
            entry.body, entry.url, entry.project = body, url, step.tenant
            self.cache.put(key, entry)
            await self.settle()
            return Became("asked" if asking.fields else "miss", answer, body, sent, entry)
        how = "asked" if asking.fields else "miss" if wants.lookup else "passed"
        return Became(how, answer, body, sent)

    def _answer(self, step: Step) -> Response | None:
        if step.down:
            return None
        fields = pairs(step.res, self.start)
        if step.cc is not None:
            fields.append((b"Cache-Control", step.cc.encode("latin-1")))
        return Response(step.status, b"OK", fields, None)


FROM_UPSTREAM = ("miss", "asked", "failed", "passed", "not-confirmed")


async def play(
    one: Case, cache: Cache, start: float = START, settle: Callable[[], Awaitable[None]] = _settled
) -> None:
    """Play a transcript.

    :param cache: empty, or holding nothing that the transcript asks for.
    :param start: seconds since the epoch; now, for a backend that forgets by a real clock.
    :param settle: waits until what was put is there, for a backend that does not put it at once.
    :raises AssertionError: something became of a request that should not.
    """
    proxy = Proxy(cache, start, settle)
    for number, step in enumerate(one.steps, 1):
        became = await proxy.exchange(step)
        place = f"{one.id}, step {number}"
        if step.expect == "upstream":
            assert became.how in FROM_UPSTREAM, f"{place}: {became.how}"
        else:
            assert became.how == step.expect, f"{place}: {became.how}, not {step.expect}"
        _check(place, step, became, start)


def _check(place: str, step: Step, became: Became, start: float) -> None:
    seen = _fields(became.head.headers)
    _compare(f"{place}, client sees", step.sees, seen, start)
    if step.sends:
        assert became.sent is not None, f"{place}: the upstream was not asked"
        _compare(f"{place}, upstream sees", step.sends, _fields(became.sent), start)
    if step.gets is not None:
        assert became.body == step.gets.encode(), f"{place}: the body is {became.body!r}"
    if step.code is not None:
        assert became.head.status == step.code, f"{place}: the status is {became.head.status}"
    asked = {name.lower() for name, _ in pairs(step.req, start)}
    if became.head.status == 304:
        assert asked & {b"if-none-match", b"if-modified-since"}, f"{place}: a bare 304"
    if became.how not in FROM_UPSTREAM and became.how != "unavailable":
        assert b"age" in seen, f"{place}: no Age"
        assert not seen.keys() & HOP_BY_HOP, f"{place}: fields of another connection"
        assert seen[b"age"][0].isdigit()
        assert len(seen[b"age"]) == 1


def _fields(headers: Sequence[tuple[bytes, bytes]]) -> dict[bytes, list[bytes]]:
    found: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        found.setdefault(name.lower(), []).append(value)
    return found


def _compare(place: str, wanted: Mapping[str, Any], seen: dict[bytes, list[bytes]], start: float) -> None:
    for name, value in wanted.items():
        got = seen.get(name.lower().encode())
        if value is None:
            assert got is None, f"{place} {name}: {got}"
        else:
            text = pairs({name: value}, start)[0][1]
            assert got == [text], f"{place} {name}: {got}, not {text!r}"
