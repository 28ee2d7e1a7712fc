"""What an answer cost, by the configured prices of its model's tokens."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import lru_cache

from llmproxyd.config.gateway import Price

MILLION = 1_000_000

MOST = 10**12
"""Tokens; a count above it is not believed."""


class Prices:
    """The price table.

    :param table: by the model's name, a glob; the first that matches counts.
    """

    def __init__(self, table: Mapping[str, Price]) -> None:
        self._table = tuple(table.items())
        self._of = lru_cache(maxsize=1024)(self._look_up)

    def cost(self, answered: str | None, asked: str | None, tokens: Mapping[str, int]) -> float | None:
        """What *tokens* cost, ``None`` if the price or the counts are not known.

        The model that *answered* decides (``gpt-4o-2024-08-06``); where the table does not know
        it, the one that was *asked* for (``gpt-4o``).

        :param tokens: ``input`` holds those that are ``cached``, too.
        """
        price = self._of(answered, asked) if self._table else None
        if price is None:
            return None
        given, made = tokens.get("input"), tokens.get("output")
        if given is None and made is None:
            return None
        given, made, cached = given or 0, made or 0, tokens.get("cached") or 0
        if not all(0 <= count <= MOST for count in (given, made, cached)):
            return None
        cached = min(cached, given)
        cheaper = price.input if price.cached is None else price.cached
        total = (given - cached) * price.input + cached * cheaper + made * price.output
        return round(total / MILLION, 9)

    def _look_up(self, *models: str | None) -> Price | None:
        for model in models:
            for name, price in self._table:
                if model is not None and fnmatchcase(model, name):
                    return price
        return None
