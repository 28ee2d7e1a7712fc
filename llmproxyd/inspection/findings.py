"""What the JSON of an answer tells of model, tokens and end, gathered piece by piece."""

from __future__ import annotations

import json
from collections.abc import Mapping

from llmproxyd.model import Reading
from llmproxyd.providers.base import Usage
from llmproxyd.providers.events import JsonObject
from llmproxyd.providers.places import at

MODEL = 256
"""Characters of a model's name; a longer one is none."""

WORD = 64
"""Characters of a reason to finish."""

MOST = 10**12
"""Tokens; a count above it is not believed."""

_DECODER = json.JSONDecoder()
_SPACE = " \t\n\r"
"""What may stand around a value.  RFC 8259 §2."""

PENDING = frozenset({"in_progress", "queued"})
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
            below = at(value, root) if root else value
            if not isinstance(below, dict):
                continue
            if self.model is None and usage.model:
                self.model = _word(at(below, usage.model), MODEL)
            usage.finder.gather(below, _count, self._tokens)
            self._finish = self._finished(below) or self._finish
            if usage.cost:
                cost = _cost(at(below, usage.cost))
                self.cost = self.cost if cost is None else cost

    def reading(self, failed: bool) -> Reading:
        """All of it; counts that the provider keeps apart are added to those that they belong to."""
        tokens = with_apart(self._tokens, self._usage.apart)
        return Reading(model=self.model, tokens=tokens, finish=self._finish, cost=self.cost, failed=failed)

    def _finished(self, value: JsonObject) -> str | None:
        for place in self._usage.finish:
            word = _word(at(value, place), WORD)
            if word is not None and word not in PENDING:
                return word
        return None


def with_apart(tokens: dict[str, int], apart: Mapping[str, tuple[str, ...]]) -> dict[str, int]:
    """*tokens*, and those that the provider keeps *apart* added to what they belong to."""
    if not apart:
        return tokens
    found = dict(tokens)
    for meaning, parts in apart.items():
        extra = 0
        for part in parts:
            extra += tokens.get(part, 0)
        if extra:
            found[meaning] = found.get(meaning, 0) + extra
    return found


def parsed(data: bytes) -> object:
    """The JSON value of *data*, ``None`` if it is none.  A broken character does not matter."""
    try:
        if not data.startswith(b'{"'):
            return json.loads(data.decode(json.detect_encoding(data), "replace"))
        # As nearly all do that are read here: UTF-8, and nothing before it.
        text = data.decode("utf-8", "replace")
        value, end = _DECODER.raw_decode(text)
    except (ValueError, RecursionError):
        return None
    return None if text[end:].strip(_SPACE) else value


def _count(value: object) -> int | None:
    """*value* as a number of tokens; some tell them as ``12.0``."""
    if type(value) is int:
        return value if 0 <= value <= MOST else None
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
