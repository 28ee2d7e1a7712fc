"""Which requests somebody wants to see: ``status>=500 upstream=openai model=gpt-4*``.  Pure.

::

    filter = [ term *( SPACE term ) ]     all terms hold
    term   = NAME OPERATOR value *( "," value )
    value  = WORD / DQUOTE *TEXT DQUOTE   quoted where spaces or commas stand in it

``=`` holds if any value fits, ``!=`` if none does.  Texts fit globs (``*``, ``?``, ``[a-c]``) whatever
their case, statuses ``5xx`` too.  ``-`` stands for nothing: ``code=-`` are the requests without a code of
ours, ``code=*`` those with one.  ``>``, ``>=``, ``<`` and ``<=`` compare numbers with one value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from enum import Enum
from fnmatch import translate
from operator import ge, gt, le, lt
from types import MappingProxyType

from llmproxyd.model import End, Finished
from llmproxyd.units import DURATION_HELP, SIZE_HELP, parse_duration, parse_size

LONGEST = 1000
"""Characters of a filter."""

EXAMPLE = 'such as "status>=500 upstream=openai"'

_TERM = re.compile(r'([A-Za-z_]+)(>=|<=|!=|=|>(?!=)|<(?!=))((?:"[^"]*"|[^\s"])+)(?=\s|$)')
_BEGUN = re.compile(r"([A-Za-z_]+)(>=|<=|!=|=|>|<)")
_VALUE = re.compile(r'(?:"[^"]*"|[^,"])+')
_STATUSES = re.compile("[1-5]xx", re.IGNORECASE)
_PLAIN = re.compile(r'[^\s,"]+')
_ORDERS: Mapping[str, Callable[[float, float], bool]] = {">": gt, ">=": ge, "<": lt, "<=": le}
OPERATORS = ("=", "!=", *_ORDERS)
NOTHING = "-"

Value = str | float | bool | None
Fits = Callable[[Value], bool]


class FilterError(ValueError):
    """It is no filter: what was found, where, and what is accepted.

    :ivar position: of the character where it goes wrong, from 0.
    """

    def __init__(self, message: str, position: int) -> None:
        super().__init__(message)
        self.position = position


class Kind(Enum):
    """What the values of a field are, in words."""

    TEXT = "a text or a glob"
    STATUS = 'a status, or all of a class such as "5xx"'
    NUMBER = "a whole number"
    DURATION = DURATION_HELP
    SIZE = SIZE_HELP
    FLAG = '"yes" or "no"'

    @property
    def ordered(self) -> bool:
        """Whether one can be more than another."""
        return self not in (Kind.TEXT, Kind.FLAG)


@dataclass(frozen=True, slots=True)
class Field:
    """What can be asked of a request.

    :param of: its value, ``None`` where there is none.
    """

    kind: Kind
    of: Callable[[Finished], Value]


FIELDS: Mapping[str, Field] = MappingProxyType(
    {
        "status": Field(Kind.STATUS, lambda one: one.status),
        "upstream": Field(Kind.TEXT, lambda one: _known(one.upstream)),
        "provider": Field(Kind.TEXT, lambda one: _known(one.provider)),
        "model": Field(Kind.TEXT, lambda one: one.model),
        "method": Field(Kind.TEXT, lambda one: one.method),
        "path": Field(Kind.TEXT, lambda one: one.path),
        "operation": Field(Kind.TEXT, lambda one: one.operation),
        "kind": Field(Kind.TEXT, lambda one: one.kind),
        "code": Field(Kind.TEXT, lambda one: one.code),
        "fault": Field(Kind.TEXT, lambda one: one.fault),
        "cache": Field(Kind.TEXT, lambda one: one.cache),
        "end": Field(Kind.TEXT, lambda one: _end(one)),
        "project": Field(Kind.TEXT, lambda one: one.project),
        "token": Field(Kind.TEXT, lambda one: one.token),
        "client": Field(Kind.TEXT, lambda one: _known(one.peer)),
        "id": Field(Kind.TEXT, lambda one: one.request_id),
        "attempts": Field(Kind.NUMBER, lambda one: one.attempts),
        "duration": Field(Kind.DURATION, lambda one: one.duration),
        "first_byte": Field(Kind.DURATION, lambda one: one.began),
        "first_token": Field(Kind.DURATION, lambda one: one.first),
        "request_bytes": Field(Kind.SIZE, lambda one: one.received),
        "response_bytes": Field(Kind.SIZE, lambda one: one.sent),
        "stream": Field(Kind.FLAG, lambda one: one.streamed),
        "failed": Field(Kind.FLAG, lambda one: one.failed),
    }
)
"""By name; the names are those of the events' members, without their units."""


@dataclass(frozen=True, slots=True)
class Term:
    """One condition.

    :param values: as written, without quotes; ``None`` for nothing.
    """

    name: str
    operator: str
    values: tuple[str | None, ...]
    fits: Fits = field(repr=False, compare=False)

    def __str__(self) -> str:
        return self.name + self.operator + ",".join(map(_written, self.values))


@dataclass(frozen=True, slots=True)
class Filter:
    """What requests are to be shown; without terms all are."""

    terms: tuple[Term, ...] = ()

    def __call__(self, finished: Finished) -> bool:
        """Whether all terms hold for *finished*."""
        return all(term.fits(FIELDS[term.name].of(finished)) for term in self.terms)

    def __str__(self) -> str:
        return " ".join(map(str, self.terms))


EVERYTHING = Filter()


def parse(text: str) -> Filter:
    """The filter that *text* says.

    :raises FilterError: with the place and what is accepted.
    """
    if len(text) > LONGEST:
        raise FilterError(f"a filter has {LONGEST} characters at most", LONGEST)
    return Filter(tuple(_terms(text)))


def _terms(text: str) -> Iterator[Term]:
    place = 0
    while True:
        place += len(text[place:]) - len(text[place:].lstrip())
        if place == len(text):
            return
        match = _TERM.match(text, place)
        if match is None:
            raise _no_term(text, place)
        name, operator, written = match.groups()
        name = name.lower()
        wanted = FIELDS.get(name)
        if wanted is None:
            raise _no_field(name, place)
        yield _term(name, wanted.kind, operator, written, match.start(3))
        place = match.end()


def _term(name: str, kind: Kind, operator: str, written: str, place: int) -> Term:
    values = tuple(_values(written, place))
    order = _ORDERS.get(operator)
    try:
        if order is None:
            tests = [_test(kind, value) for value in values]
            fits = _any(tests) if operator == "=" else _none(tests)
        elif not kind.ordered:
            raise ValueError(f'{name} is not compared; accepted: "{name}=" and "{name}!="')
        elif len(values) > 1 or values[0] is None:
            raise ValueError(f'"{operator}" takes one value')
        else:
            fits = _compared(order, _number(kind, values[0]))
    except ValueError as error:
        raise FilterError(f"{name}: {error}", place) from None
    return Term(name, operator, values, fits)


def _values(written: str, place: int) -> Iterator[str | None]:
    """The values of a term, which begin at *place* of the filter."""
    at = 0
    while True:
        match = _VALUE.match(written, at)
        text = None if match is None else match.group().replace('"', "")
        if match is None or not text:
            raise FilterError(f'a value is missing; "{NOTHING}" stands for nothing', place + at)
        yield None if match.group() == NOTHING else text
        at = match.end() + 1
        if at > len(written):
            return


def _written(value: str | None) -> str:
    """*value* as it is read back."""
    if value is None:
        return NOTHING
    return value if value != NOTHING and _PLAIN.fullmatch(value) else f'"{value}"'


# What fits.


def _any(tests: list[Fits]) -> Fits:
    return tests[0] if len(tests) == 1 else lambda value: any(test(value) for test in tests)


def _none(tests: list[Fits]) -> Fits:
    return lambda value: not any(test(value) for test in tests)


def _compared(order: Callable[[float, float], bool], bound: float) -> Fits:
    def fits(value: Value) -> bool:
        return isinstance(value, int | float) and order(value, bound)

    return fits


def _test(kind: Kind, text: str | None) -> Fits:
    """Whether a value is what *text* says.

    :raises ValueError: no value of the kind is.
    """
    if text is None:
        return lambda value: value is None
    if kind is Kind.TEXT:
        matches = re.compile(translate(text), re.IGNORECASE).match
        return lambda value: isinstance(value, str) and matches(value) is not None
    if kind is Kind.FLAG:
        if text.lower() not in ("yes", "no"):
            raise _unreadable(kind, text)
        wanted = text.lower() == "yes"
        return lambda value: value is wanted
    if text == "*":
        return lambda value: value is not None
    if kind is Kind.STATUS and _STATUSES.fullmatch(text):
        hundred = int(text[0])
        return lambda value: isinstance(value, int) and value // 100 == hundred
    number = _number(kind, text)
    return lambda value: value == number


def _number(kind: Kind, text: str) -> float:
    """:raises ValueError: *text* is none of the kind."""
    if kind is Kind.DURATION:
        return parse_duration(text)
    if kind is Kind.SIZE:
        return parse_size(text)
    if not re.fullmatch("[0-9]{1,9}", text):
        raise _unreadable(kind, text)
    return int(text)


def _known(text: str) -> str | None:
    return None if text == "-" else text


def _end(finished: Finished) -> str:
    """As events call it."""
    return "client_abort" if finished.end is End.CLIENT_GONE else finished.end.value


# What is wrong.


def _unreadable(kind: Kind, text: str) -> ValueError:
    return ValueError(f"found {_quoted(text)}; accepted: {kind.value}")


def _no_field(name: str, place: int) -> FilterError:
    meant = get_close_matches(name[:80], list(FIELDS), 1, 0.65)
    near = f'; did you mean "{meant[0]}"?' if meant else ""
    return FilterError(f"no such field: {_quoted(name)}{near} (accepted: {', '.join(FIELDS)})", place)


def _no_term(text: str, place: int) -> FilterError:
    """Why there is no term at *place*."""
    begun = _BEGUN.match(text, place)
    word = text[place:].split(maxsplit=1)[0]
    if begun is None:
        return FilterError(f"{_quoted(word)} is no condition; accepted: NAME=VALUE, {EXAMPLE}", place)
    if begun.group(1).lower() not in FIELDS:
        return _no_field(begun.group(1).lower(), place)
    rest = text[begun.end() :]
    if not rest or rest[0].isspace():
        return FilterError(f"{_quoted(word)} has no value; write it without spaces, {EXAMPLE}", begun.end())
    return FilterError(f"{_quoted(word)}: a quotation mark has no other one", begun.end())


def _quoted(text: str) -> str:
    """*text*, short and in one line."""
    text = text if len(text) <= 60 else text[:60] + "…"
    return json.dumps(text, ensure_ascii=not text.isprintable())
