"""What an answer cost, by a table of what models' tokens cost."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import translate
from functools import lru_cache
from typing import Protocol

from llmproxyd.inspection.findings import MOST
from llmproxyd.model import Reading

MILLION = 1_000_000

_REMEMBERED = 1024
"""Models whose price need not be looked up again."""


class Price(Protocol):
    """What a million tokens cost; :class:`llmproxyd.config.gateway.Price` is one."""

    @property
    def input(self) -> float:
        """Of the input that was not cached."""
        ...

    @property
    def output(self) -> float:
        """Of the output, reasoning included."""
        ...

    @property
    def cached(self) -> float | None:
        """Of the input that the provider had cached, ``None`` for the price of any other."""
        ...


class Prices:
    """The price table.

    :param table: by the model's name, a glob; the first that matches counts.
    """

    def __init__(self, table: Mapping[str, Price]) -> None:
        self._table = [(re.compile(translate(glob)).match, price) for glob, price in table.items()]
        self._of = lru_cache(maxsize=_REMEMBERED)(self._look_up)

    def price_of(self, model: str) -> Price | None:
        """The price of *model*, ``None`` if the table has none for it."""
        return self._of(model) if self._table else None

    def cost(self, answered: str | None, asked: str | None, tokens: Mapping[str, int]) -> float | None:
        """What *tokens* cost, ``None`` if the price or the counts are not known.

        The model that *answered* decides (``gpt-4o-2024-08-06``); where the table does not know
        it, the one that was *asked* for (``gpt-4o``).
        """
        if not self._table or not tokens:
            return None
        for model in (answered, asked):
            price = None if model is None else self.price_of(model)
            if price is not None:
                return cost(price, tokens)
        return None

    def of(self, reading: Reading, asked: str | None) -> float | None:
        """What an answer cost: by the table, else what the provider itself told.

        :param asked: the model that was asked for.
        """
        cost = self.cost(reading.model, asked, reading.tokens)
        return reading.cost if cost is None else cost

    def _look_up(self, model: str) -> Price | None:
        return next((price for matches, price in self._table if matches(model)), None)


def cost(price: Price, tokens: Mapping[str, int]) -> float | None:
    """What *tokens* cost, ``None`` if neither input nor output is known or a count is none.

    :param tokens: as a :class:`~llmproxyd.model.Reading` has them: ``input`` holds those that are
        ``cached``, whatever the provider counts, and ``output`` those of reasoning.
    """
    given, made = tokens.get("input"), tokens.get("output")
    if given is None and made is None:
        return None
    given, made, cached = given or 0, made or 0, tokens.get("cached", 0)
    if not all(0 <= count <= MOST for count in (given, made, cached)):
        return None
    cached = min(cached, given)
    cheaper = price.input if price.cached is None else price.cached
    return ((given - cached) * price.input + cached * cheaper + made * price.output) / MILLION
