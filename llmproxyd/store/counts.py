"""What was used and is not written yet."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from weakref import WeakValueDictionary

from twisted.logger import Logger

from llmproxyd.store.interface import Used

MAX_ROWS = 1000
"""Rows in one batch."""

MAX_UNWRITTEN = 20_000
"""Rows that are kept while the store does not take them."""

MAX_MODELS = 50
"""Models of one token in one batch; what else there is counts as :data:`OTHER`."""

OTHER = "(other)"

MAX_MODEL = 200
"""Characters of a model's name."""

MAX_AMOUNT = 10**12
"""What a single request may add: sums of it stay far below 64 bits."""

Key = tuple[str, str, str, str]


class Count:
    """The requests of one token.

    :ivar known: those that are known of, written or not: what ``max_requests`` is held against.
    :ivar fresh: of these, those that no batch holds yet.
    :ivar named: requests of which the model has become known since the last batch.
    :ivar last_used: seconds since the epoch.
    """

    __slots__ = ("__weakref__", "fresh", "known", "last_used", "models", "named", "project", "token")

    def __init__(self, token: str, project: str, known: int) -> None:
        self.token = token
        self.project = project
        self.known = known
        self.fresh = self.named = 0
        self.last_used = 0.0
        self.models: dict[str, list[float]] = {}
        """By the model: requests, input, output, cost."""


class Counts:
    """All counts, and the batches that are made of them.

    :ivar dirty: counts that changed since they were last put into a batch, by their token's id.
    :ivar fresh: requests that were counted since.
    :ivar lost: requests that could not be kept.
    """

    log = Logger()

    def __init__(self) -> None:
        self.dirty: dict[str, Count] = {}
        self.fresh = 0
        self.lost = 0
        # A count lives for as long as its token is remembered, or it is dirty.
        self._all: WeakValueDictionary[str, Count] = WeakValueDictionary()
        self._rows: dict[Key, Used] = {}
        self._flying: list[Used] = []

    @property
    def unwritten(self) -> int:
        """Requests that the store does not have yet."""
        rows = sum(row.requests for row in (*self._rows.values(), *self._flying))
        return rows + sum(count.fresh for count in self.dirty.values())

    @property
    def empty(self) -> bool:
        """Whether nothing is left to be written."""
        return not self.dirty and not self._rows

    def of(self, token: str, project: str, stored: int) -> Count:
        """The count of a token of which the store has *stored* requests."""
        count = self._all.get(token)
        if count is None:
            pending = sum(row.requests for row in (*self._rows.values(), *self._flying) if row.token == token)
            count = self._all[token] = Count(token, project, stored + pending)
        else:
            # What flies may be among those stored or not: what is known of is never too low.
            count.known = max(count.known, stored + count.fresh)
        return count

    def used(self, count: Count, model: str, input: int, output: int, cost: float, requests: int = 1) -> None:
        """Note what so many *requests* of *count*, counted before, have used."""
        sums = count.models.get(model)
        if sums is None:
            sums = _sums(count, model)
        most = MAX_AMOUNT * requests
        sums[0] += requests
        count.named += requests
        sums[1] += min(max(input, 0), most)
        sums[2] += min(max(output, 0), most)
        if cost and math.isfinite(cost):
            sums[3] += min(max(cost, 0.0), most)
        self.dirty[count.token] = count

    def batch(self) -> list[Used]:
        """What is to be written next, to be followed by :meth:`written`, :meth:`failed`, :meth:`drop`."""
        for count in self.dirty.values():
            self._seal(count)
        self.dirty.clear()
        self.fresh = 0
        keys = list(self._rows)[:MAX_ROWS]
        self._flying = [self._rows.pop(key) for key in keys]
        return self._flying

    def _seal(self, count: Count) -> None:
        """Put what *count* holds into rows."""
        unnamed = count.fresh - count.named
        if unnamed:
            # Less than none where requests of the last batch were counted before their model was known.
            _sums(count, "")[0] += unnamed
        count.fresh = count.named = 0
        day = day_of(count.last_used)
        self._keep(
            Used(count.token, count.project, model, day, count.last_used, int(a), int(b), int(c), cost)
            for model, (a, b, c, cost) in count.models.items()
            if a or b or c or cost
        )
        count.models = {}

    def _keep(self, rows: Iterable[Used]) -> None:
        for row in rows:
            key = (row.day, row.project, row.token, row.model)
            known = self._rows.get(key)
            if known is None and len(self._rows) >= MAX_UNWRITTEN:
                if not self.lost:
                    self.log.warn("The store takes no counts for too long: some requests are not counted")
                self.lost += max(row.requests, 0)
                continue
            self._rows[key] = row if known is None else _sum(known, row)

    def written(self, stored: dict[str, int]) -> None:
        """The store has the batch; *stored* are its requests by the token's id."""
        self._flying = []
        waiting: dict[str, int] = {}
        for row in self._rows.values():
            waiting[row.token] = waiting.get(row.token, 0) + row.requests
        for token, requests in stored.items():
            count = self._all.get(token)
            if count is not None:
                count.known = max(count.known, requests + count.fresh + waiting.get(token, 0))

    def failed(self) -> None:
        """The store does not have the batch: keep it for the next one."""
        flying, self._flying = self._flying, []
        self._keep(flying)

    def drop(self) -> None:
        """The store will never take the batch."""
        self.lost += sum(max(row.requests, 0) for row in self._flying)
        self._flying = []


def day_of(wall: float) -> str:
    """The day (UTC) of *wall*, seconds since the epoch."""
    try:
        return time.strftime("%Y-%m-%d", time.gmtime(wall))
    except (ValueError, OverflowError, OSError):  # a clock that is far off
        return "1970-01-01"


def _sums(count: Count, model: str) -> list[float]:
    """What *model* adds up in, made if need be."""
    name = _proper(model)
    if name and name not in count.models and len(count.models) >= MAX_MODELS:
        name = OTHER
    return count.models.setdefault(name, [0, 0, 0, 0.0])


def _proper(model: str) -> str:
    """The name of a model as a store takes it: a client may have made it up."""
    if len(model) > MAX_MODEL:
        model = model[:MAX_MODEL]
    if model.isascii() and model.isprintable():
        return model
    return model.encode("utf-8", "replace").decode().replace("\0", "?")


def _sum(one: Used, other: Used) -> Used:
    return Used(
        one.token,
        one.project,
        one.model,
        one.day,
        max(one.last_used, other.last_used),
        one.requests + other.requests,
        one.input + other.input,
        one.output + other.output,
        one.cost + other.cost,
    )
