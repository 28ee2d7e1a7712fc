"""Filters of requests: ``status>=500``, ``upstream=openai``, ``model=gpt-*``, ``path~embeddings``."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

from llmproxyd.faults.language import Incomplete, LanguageError, shown
from llmproxyd.units import parse_duration

NUMBERS = ("status", "attempts", "sent")
DURATIONS = ("duration", "first")
TEXTS = (
    "id",
    "method",
    "path",
    "upstream",
    "provider",
    "operation",
    "model",
    "project",
    "end",
    "fault",
    "code",
    "cache",
    "peer",
    "test",
)
FIELDS: tuple[str, ...] = (*NUMBERS, *DURATIONS, *TEXTS)
"""Members of a row that can be asked for; durations are in seconds.

They are those of :class:`~llmproxyd.model.Finished` under the same names, beside ``id``, which is our
id of the request.  A member that is missing or ``None`` differs from every value.
"""

ACCEPTED = (
    "FIELD=VALUE or !=, of texts also as a glob, ~ (contains) or, of numbers, <, <=, >, >= "
    f"(fields: {', '.join(FIELDS)}; "
    'such as "status>=500 upstream=openai model=gpt-* duration>2s")'
)

_FILTER = re.compile(r"([A-Za-z_]+)(>=|<=|!=|=|<|>|~)(.*)", re.DOTALL)
_GLOB = re.compile(r"[*?[]")
_NUMBER = re.compile(r"[0-9]{1,15}")
_COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True, slots=True)
class Filter:
    """One condition.

    :param value: a number where the field is one, seconds where it is a duration, else a text; where that
        holds ``*``, ``?`` or ``[`` also a glob, which tells upper case from lower.
    """

    field: str
    sign: str
    value: float | str

    def matches(self, row: Mapping[str, object]) -> bool:
        """Whether *row* fulfils it."""
        found = row.get(self.field)
        if self.sign == "~":
            return isinstance(found, str) and str(self.value).lower() in found.lower()
        if isinstance(self.value, str):
            same = found is not None and _fits(str(found), self.value)
            return same is (self.sign == "=")
        if not isinstance(found, int | float):
            return self.sign == "!="
        return _COMPARE[self.sign](found, self.value)


def parse_filter(text: str) -> Filter:
    """The condition that *text* is.

    :raises LanguageError: it is none.
    """
    match = _FILTER.fullmatch(text)
    if match is None:
        raise LanguageError(f'"{shown(text)}" is no filter; accepted: {ACCEPTED}')
    name, sign, value = match.group(1).lower(), match.group(2), match.group(3)
    if name not in FIELDS:
        near = get_close_matches(name, FIELDS, 1)
        hint = f'; did you mean "{near[0]}"?' if near else ""
        raise LanguageError(f'"{shown(name)}" is no field{hint} (accepted: {", ".join(FIELDS)})')
    if not value:
        raise Incomplete(f"{name}{sign} needs a value")
    if name in TEXTS:
        if sign not in ("=", "!=", "~"):
            raise LanguageError(f"{name} is no number; accepted: {name}=, {name}!=, {name}~")
        return Filter(name, sign, value)
    if sign == "~":
        raise LanguageError(f"{name} is a number; accepted: =, !=, <, <=, >, >=")
    return Filter(name, sign, _number(name, value))


def _fits(text: str, value: str) -> bool:
    return text == value or (_GLOB.search(value) is not None and fnmatchcase(text, value))


def _number(name: str, value: str) -> float:
    if name in DURATIONS:
        try:
            return parse_duration(value)
        except ValueError:
            raise LanguageError(
                f'{name}: found "{shown(value)}"; accepted: a duration such as "2s"'
            ) from None
    if not _NUMBER.fullmatch(value):
        raise LanguageError(f'{name}: found "{shown(value)}"; accepted: a whole number')
    return int(value)
