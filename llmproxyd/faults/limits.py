"""Rehearsed rate limits: who may do how much in a minute, pure.

A limit is kept as its provider keeps it: a bucket that begins full, holds one minute's allowance and
fills up evenly.  What is left, when all of it is there again and how long to wait are read off it, so
that what clients are told is what happens: whoever waits for as long as told gets through, unless
somebody else was faster.

Tokens of models are known when an answer is over.  A request takes what it is estimated at, and the
account is put right at the end (:meth:`Ticket.settle`), below nothing if need be, by one minute's
allowance at most.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from math import ceil

from llmproxyd.faults.rules import Match, Subject
from llmproxyd.providers.limits import Meter

MINUTE = 60.0

MOST_KEYS = 1000
"""Keys of which a limit keeps an account; who was longest not seen begins anew."""

MOST_LIMITS = 100
"""Limits that an operator may have set."""

REQUESTS, TOKENS = "requests", "tokens"

_SLACK = 1e-6
"""Part of a unit that may be missing: nobody is refused by a rounding."""


class Each(StrEnum):
    """Who shares an account (``key=``)."""

    EACH = "each"
    """Every key that clients present has its own."""
    ALL = "all"
    """There is one for all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """One limit; it has *rpm*, *tpm* or both.

    :param rpm: requests a minute.
    :param tpm: tokens of models a minute, of questions and answers.
    :param match: the requests that it is for.
    :param lasts: seconds after which it is off, ``None`` for no end.
    """

    name: str
    rpm: int | None = None
    tpm: int | None = None
    match: Match = Match()
    key: Each = Each.EACH
    lasts: float | None = None


class Bucket:
    """What is left of one allowance.

    :param size: what flows in within a minute, and what it holds at most.
    """

    __slots__ = ("level", "since", "size")

    def __init__(self, size: int, now: float) -> None:
        self.size = size
        self.level = float(size)
        self.since = now

    def fill(self, now: float) -> None:
        """Let flow in what has until *now*, monotonic seconds."""
        elapsed, self.since = now - self.since, now
        if elapsed > 0:
            self.level = min(self.level + elapsed * self.size / MINUTE, float(self.size))

    def wait(self, amount: int) -> float:
        """Seconds until *amount* is there, 0 where it is; of a larger one than fits in, until it is full."""
        lacking = min(amount, self.size) - self.level
        return 0.0 if lacking <= _SLACK else lacking * MINUTE / self.size

    def take(self, amount: float) -> None:
        """Take it in any case; a negative *amount* gives it back."""
        self.level = max(min(self.level - amount, float(self.size)), float(-self.size))

    def meter(self, kind: str) -> Meter:
        """How it stands."""
        left = int(self.level + _SLACK) if self.level > 0 else 0
        return Meter(kind, self.size, left, (self.size - self.level) * MINUTE / self.size)


@dataclass(slots=True)
class Account:
    """The buckets of one key."""

    buckets: dict[str, Bucket]


@dataclass(slots=True)
class Working:
    """A limit at work.

    :param ends: monotonic seconds at which it is off, ``None`` for no end.
    :param file: it is one of the configuration file's.
    :ivar passed: requests that it let through.
    :ivar refused: those that it did not.
    """

    limit: Limit
    ends: float | None
    file: bool = False
    passed: int = 0
    refused: int = 0
    accounts: OrderedDict[str, Account] = field(default_factory=OrderedDict)

    def account(self, key: str, now: float) -> Account:
        """The account of *key*, with what has flowed in until *now*."""
        name = key if self.limit.key is Each.EACH else ""
        account = self.accounts.get(name)
        if account is None:
            sizes = {REQUESTS: self.limit.rpm, TOKENS: self.limit.tpm}
            account = self.accounts[name] = Account(
                {kind: Bucket(size, now) for kind, size in sizes.items() if size is not None}
            )
            if len(self.accounts) > MOST_KEYS:
                self.accounts.popitem(last=False)
            return account
        self.accounts.move_to_end(name)
        for bucket in account.buckets.values():
            bucket.fill(now)
        return account


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request has to wait.

    :param wait: seconds, in whole milliseconds, until every limit has room for it.
    :param requested: units that it asks for.
    """

    limit: Limit
    kind: str
    wait: float
    meter: Meter
    requested: int


class Ticket:
    """What one request was charged.

    :ivar refusal: ``None`` where it was let through.
    """

    __slots__ = ("_accounts", "_estimate", "_monotonic", "refusal")

    def __init__(
        self,
        accounts: list[Account],
        estimate: int,
        monotonic: Callable[[], float],
        refusal: Refusal | None = None,
    ) -> None:
        self._accounts = accounts
        self._estimate = estimate
        self._monotonic = monotonic
        self.refusal = refusal

    @property
    def counts_tokens(self) -> bool:
        """Whether anybody wants to know what the answer used."""
        return self.refusal is None and any(TOKENS in one.buckets for one in self._accounts)

    def meters(self) -> list[Meter]:
        """How its limits stand now; of several of a kind the one with least left."""
        now = self._monotonic()
        found: dict[str, Meter] = {}
        for account in self._accounts:
            for kind, bucket in account.buckets.items():
                bucket.fill(now)
                meter = bucket.meter(kind)
                known = found.get(kind)
                if known is None or (meter.remaining, -meter.reset) < (known.remaining, -known.reset):
                    found[kind] = meter
        return list(found.values())

    def settle(self, tokens: int) -> None:
        """The answer is over: charge *tokens* instead of what was estimated."""
        if self.refusal is not None:
            return
        now = self._monotonic()
        more, self._estimate = tokens - self._estimate, tokens
        for account in self._accounts:
            bucket = account.buckets.get(TOKENS)
            if bucket is not None:
                bucket.fill(now)
                bucket.take(more)


class Limits:
    """All limits at work.  Not thread-safe: it is asked on the reactor's thread.

    :param monotonic: seconds.
    :ivar working: the operator's, then the file's.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self.working: list[Working] = []

    @property
    def reads_body(self) -> bool:
        """Whether one asks for the model or the wish for a stream."""
        return any(one.limit.match.reads_body for one in self.working)

    def add(self, limit: Limit) -> None:
        """Go by *limit* as well; its name is not taken yet."""
        files = next((at for at, one in enumerate(self.working) if one.file), len(self.working))
        self.working.insert(files, self._start(limit))

    def remove(self, name: str) -> bool:
        """Take the limit of this name away; whether there was one."""
        before = len(self.working)
        self.working = [one for one in self.working if one.limit.name != name]
        return len(self.working) < before

    def clear(self) -> None:
        """Take all away."""
        self.working.clear()

    def replace_file(self, limits: Iterable[Limit]) -> None:
        """Go by *limits* instead of the file's; one that is the same goes on counting."""
        known = {one.limit: one for one in self.working if one.file}
        files = [known.get(limit) or self._start(limit, file=True) for limit in limits]
        self.working = [*(one for one in self.working if not one.file), *files]

    def expire(self, now: float) -> bool:
        """Take those away whose time is over; whether an operator's is among them."""
        over = [one for one in self.working if one.ends is not None and one.ends <= now]
        if over:
            self.working = [one for one in self.working if one.ends is None or one.ends > now]
        return any(not one.file for one in over)

    def ask(self, subject: Subject, key: str, estimate: int) -> Ticket | None:
        """Whether *subject* may go on, charged at once; ``None`` where no limit is for it.

        :param key: who asks; it is no secret.
        :param estimate: of tokens.
        """
        now = self._monotonic()
        concerned = [one for one in self.working if one.limit.match.matches(subject)]
        if not concerned:
            return None
        accounts = [one.account(key, now) for one in concerned]
        wanted = {REQUESTS: 1, TOKENS: max(estimate, 1)}
        refusal = self._refusal(zip(concerned, accounts, strict=True), wanted)
        for one in concerned:
            if refusal is None:
                one.passed += 1
            elif one.limit is refusal.limit:
                one.refused += 1
        if refusal is None:
            for account in accounts:
                for kind, bucket in account.buckets.items():
                    bucket.take(wanted[kind])
        return Ticket(accounts, wanted[TOKENS], self._monotonic, refusal)

    def _refusal(self, accounts: Iterable[tuple[Working, Account]], wanted: dict[str, int]) -> Refusal | None:
        """The longest wait."""
        waits = [
            (bucket.wait(wanted[kind]), one.limit, kind, bucket)
            for one, account in accounts
            for kind, bucket in account.buckets.items()
        ]
        wait, limit, kind, bucket = max(waits, key=lambda found: found[0])
        if not wait:
            return None
        # A millisecond too late is better than one too early.
        return Refusal(limit, kind, ceil(wait * 1000) / 1000, bucket.meter(kind), wanted[kind])

    def _start(self, limit: Limit, *, file: bool = False) -> Working:
        return Working(limit, None if limit.lasts is None else self._monotonic() + limit.lasts, file)
