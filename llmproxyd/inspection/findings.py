"""What the JSON of an answer tells of model, tokens and end, gathered piece by piece."""

from __future__ import annotations

import json

from llmproxyd.model import Reading
from llmproxyd.providers.base import Place, Usage
from llmproxyd.providers.events import JsonObject, objects

MODEL = 256
"""Characters of a model's name; a longer one is none."""

WORD = 64
"""Characters of a reason to finish."""

MOST = 10**12
"""Tokens; a count above it is not believed."""

_PENDING = frozenset({"in_progress", "queued"})
"""What stands in the place of a reason to finish while there is none."""


class Findings:
    """Gathers what is told at the places that *usage* names.

    Of the model the first telling counts, of all else the last.

    :ivar cost: what the answer cost by the provider's own account, in its currency.
    """

    __slots__ = ("_finish", "_tokens", "_usage", "cost", "model")

    def __init__(self, usage: Usage) -> None:
        self._usage = usage
        self._tokens: dict[str, int] = {}
        self._finish: str | None = None
        self.model: str | None = None
        self.cost: float | None = None

    @property
    def counted(self) -> bool:
        """Whether any tokens were told."""
        return bool(self._tokens)

    def look(self, value: JsonObject) -> None:
        """Take what one object of the answer tells."""
        usage = self._usage
        for root in usage.roots:
            below = at(value, root)
            if not isinstance(below, dict):
                continue
            if self.model is None and usage.model:
                self.model = _word(at(below, usage.model), MODEL)
            for meaning, place in usage.tokens.items():
                number = _count(at(below, place))
                if number is not None:
                    self._tokens[meaning] = number
            self._finish = self._finished(below) or self._finish
            if usage.cost:
                cost = _cost(at(below, usage.cost))
                self.cost = self.cost if cost is None else cost

    def reading(self, failed: bool) -> Reading:
        """All of it; counts that the provider keeps apart are added to those that they belong to."""
        tokens = dict(self._tokens)
        for meaning, parts in self._usage.apart.items():
            extra = sum(self._tokens.get(part, 0) for part in parts)
            if extra:
                tokens[meaning] = tokens.get(meaning, 0) + extra
        return Reading(model=self.model, tokens=tokens, finish=self._finish, cost=self.cost, failed=failed)

    def _finished(self, value: JsonObject) -> str | None:
        for place in self._usage.finish:
            word = _word(at(value, place), WORD)
            if word is not None and word not in _PENDING:
                return word
        return None


def at(value: object, place: Place) -> object:
    """What stands at *place* in *value*, ``None`` if nothing does.

    Where an array stands in the way, the first of its objects that has the rest is taken.
    """
    for number, key in enumerate(place):
        if isinstance(value, list):
            rest = place[number:]
            return next((found for item in objects(value) if (found := at(item, rest)) is not None), None)
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value


def parsed(data: bytes) -> object:
    """The JSON value of *data*, ``None`` if it is none.  A broken character does not matter."""
    try:
        return json.loads(data.decode(json.detect_encoding(data), "replace"))
    except (ValueError, RecursionError):
        return None


def _count(value: object) -> int | None:
    """*value* as a number of tokens; some tell them as ``12.0``."""
    if isinstance(value, float) and value.is_integer() and abs(value) <= MOST:
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST:
        return value
    return None


def _cost(value: object) -> float | None:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= MOST:
        return float(value)
    return None


def _word(value: object, most: int) -> str | None:
    """*value* if it is a short text that can be shown and told in UTF-8."""
    if isinstance(value, str) and 0 < len(value) <= most and value.isprintable():
        return value
    return None
