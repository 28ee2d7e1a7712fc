"""A short answer in one piece, of which only both ends are read: its beginning tells the model, its end
the counts.

To parse all of an answer costs more than all else that is made of it, and nearly everything in it is
what the model said.  The dialects of OpenAI and Anthropic, which most servers speak, have the model
in front of that and the counts behind it.  Where it is not just so, nothing is told here, and whoever
asked has to read the whole.

A server lays out answer after answer in one way.  Now and then an answer that was read so teaches its
form: two expressions, which differ from it in the values alone and take those that follow at once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from llmproxyd.inspection.findings import MODEL, MOST, PENDING, WORD, with_apart
from llmproxyd.model import Reading
from llmproxyd.providers.base import Usage
from llmproxyd.providers.places import Place

LONGEST = 64 * 1024
"""Bytes of an answer that is looked at so."""

_scan: Callable[[str, int], tuple[Any, int]] = json.JSONDecoder().scan_once  # type: ignore[attr-defined]

# Members whose values nest nothing.  What follows each part cannot belong to it, so that nothing is tried
# twice; the possessive quantifiers of early releases of Python 3.11 are not to be relied on here.
_PLAIN = rb'"[^"\\]*"\s*:\s*(?:"[^"\\]*"|[-+.\w]+)\s*'

MAX_SHAPES = 1000
"""Shapes that are remembered."""

_BEFORE = b",{ \t\r\n"
"""What stands before a member; the quote of one that is part of a text has a backslash before it."""

MAX_TEXTS = 256
"""Names of models, and reasons to finish, that are remembered."""


FORMS = 8
"""Forms that are remembered of one shape; the one that was not met for longest makes room."""

OFTEN = 16
"""Answers that no form fits before one teaches its own, which takes a millisecond; then twice as many."""

SELDOM = 4096
"""The most of such answers: who invents forms without end does not keep us at work with them."""

_LAID = 2048
"""Bytes of beginning and end that a form is made of."""

# A form takes less than JSON allows, and nothing that JSON does not.
_TEXT = rb"[ !#-\[\]-~]*"
_WHOLE = rb"(?:0|[1-9]\d{0,11})"
_NUMBER = rb"-?(?:0|[1-9]\d{0,11})(?:\.\d+)?(?:[eE][-+]?\d+)?"
# A number is taken whole or not at all: side by side, two of them could match digits in endless ways.
_TOKENS = re.compile(rb'"(%b)"(\s*:)?|(%b)(?![-+.\w])|[{}\],\s]|null|true|false' % (_TEXT, _NUMBER))

_COUNTS = range(MOST + 1)

Places = tuple[tuple[str, str], ...]
"""Names of members, and what they mean."""


class _Shape:
    """How answers must look that can be read so; it follows from the places of one dialect.

    :ivar member: the one that holds all counts, as *counts* in quotes.
    :ivar here: its members that are counts.
    :ivar below: its members that hold counts themselves.
    :ivar begins: matches the beginning, up to the model.
    :ivar finish: the member that tells why the model stopped.
    :ivar several: it stands in each object of an array.
    :ivar ends: matches from there to the counts, so that there can be no doubt where it stands.
    :ivar find: the first of the finish reasons where they are several, else the last, which is found sooner.
    :ivar forms: those that answers were met in, the latest first.
    """

    __slots__ = (
        "_every",
        "_left",
        "_usage",
        "begins",
        "below",
        "counts",
        "ends",
        "find",
        "finish",
        "forms",
        "here",
        "member",
        "several",
    )

    def __init__(self, usage: Usage) -> None:
        places = usage.tokens
        self.member = next(iter(places.values()))[0]
        self.counts = b'"%b"' % self.member.encode()
        self.here: Places = tuple((p[1], meaning) for meaning, p in places.items() if len(p) == 2)
        below: dict[str, list[tuple[str, str]]] = {}
        for meaning, place in places.items():
            if len(place) == 3:
                below.setdefault(place[1], []).append((place[2], meaning))
        self.below: tuple[tuple[str, Places], ...] = tuple((n, tuple(p)) for n, p in below.items())
        model = re.escape(usage.model[0].encode())
        self.begins = re.compile(rb'\s*\{\s*(?:%b,\s*)*?"%b"\s*:\s*"([^"\\]+)"' % (_PLAIN, model)).match
        place = usage.finish[0]
        self.finish = b'"%b"' % place[-1].encode()
        self.several = len(place) == 2
        closed = rb"\}\s*\]\s*" if self.several else b""
        word = rb'%b\s*:\s*(?:"([^"\\]*)"|null)\s*' % re.escape(self.finish)
        self.ends = re.compile(rb"%b(?:,\s*%b)*%b,\s*" % (word, _PLAIN, closed)).fullmatch
        self.find = bytes.find if self.several else bytes.rfind
        self.forms: list[_Form] = []
        self._usage = usage
        self._every = self._left = OFTEN

    def start(self, data: bytes) -> int:
        """Where the end of *data* starts: at the finish reason, or at the counts where there is none."""
        stands = self.find(data, self.finish)
        return stands if stands >= 0 else data.rfind(self.counts)

    def learn(self, data: bytes, reading: Reading) -> None:
        """Take the form of *data*, in which *reading* was told, if it is its turn."""
        self._left -= 1
        if self._left:
            return
        self._every = self._left = min(2 * self._every, SELDOM)
        start, begins = self.start(data), self.begins(data)
        if begins is None or begins.end() + len(data) - start > _LAID:
            return
        usage, finish = self._usage, self._usage.finish[0]
        # The end begins where the finish reason does, which may be within an array, or at the answer's own.
        within = finish[:-1] if data.startswith(self.finish, start) else ()
        sought = {place: meaning for meaning, place in usage.tokens.items()} | {finish: "finish"}
        beginning = _pattern(begins[0], [], {usage.model: "model"})
        end = _pattern(data[start - 1 :], [*within, ""], sought)
        if beginning is None or end is None:
            return
        form = _Form(beginning[0], *end)
        begins = form.begins(data)
        if begins is not None and form.reading(usage, begins, data, start) == reading:
            del self.forms[FORMS - 1 :]
            self.forms.insert(0, form)


class _Form:
    """The same members in the same order, with the same blanks; what the numbers and texts are is left open.

    :param beginning: an expression for it, to the end of the model's name; the name is its group.
    :param end: one for all from the byte before the finish reason, or before the counts.
    :param meanings: of the groups in *end*.
    :ivar begins: matches the beginning.
    """

    __slots__ = ("_ends", "_meanings", "begins")

    def __init__(self, beginning: bytes, end: bytes, meanings: list[str]) -> None:
        if meanings[:1] == ["finish"]:
            del meanings[0]
        else:
            end = b"()" + end  # none was told
        self.begins = re.compile(beginning).match
        self._ends = re.compile(end).fullmatch
        self._meanings = tuple(enumerate(meanings, 2))

    def reading(self, usage: Usage, begins: re.Match[bytes], data: bytes, start: int) -> Reading | None:
        """What *data* tells, ``None`` if it is of another form.

        :param begins: its beginning, which is of this form.
        :param start: of its end; there is no finish reason before that which would count.
        """
        ends = self._ends(data, start - 1)
        if ends is None:
            return None
        tokens = {}
        for group, meaning in self._meanings:
            tokens[meaning] = int(ends[group])
        if usage.apart:
            tokens = with_apart(tokens, usage.apart)
        return Reading(_models(begins[1]), tokens, _reasons(ends[1]))


def _pattern(text: bytes, path: list[str], sought: Mapping[Place, str]) -> tuple[bytes, list[str]] | None:
    """An expression for what is laid out as *text*, and what its groups mean, in their order.

    ``None`` if a member is there twice, an array begins, or a text or number is of no common kind.

    :param path: of the object that *text* is of, with the name of the member last.
    :param sought: places of what is to be a group.
    """
    pattern, meanings, stood = b"", [], 0
    seen: set[Place] = set()
    for token in _TOKENS.finditer(text):
        if token.start() != stood:
            return None
        stood = token.end()
        word, colon, number = token.groups()
        if colon:
            path[-1] = word.decode()
            if tuple(path) in seen:
                return None
            seen.add(tuple(path))
        elif word is not None or number:
            meaning = sought.get(tuple(path))
            value = _TEXT if number is None else _WHOLE if meaning or number.isdigit() else _NUMBER
            if meaning:
                meanings.append(meaning)
                # A model without a name is none, and one that follows may be it.
                value = b'(?!")(%b)' % value if meaning == "model" else b"(%b)" % value
            pattern += value if number else b'"%b"' % value
            continue
        elif token[0] == b"{":
            path.append("")
        elif token[0] == b"}":
            path.pop()
        pattern += re.escape(token[0])
    return (pattern, meanings) if stood == len(text) else None


def _shape_of(usage: Usage) -> _Shape | None:
    """``None`` for a dialect whose answers look otherwise."""
    places = usage.tokens.values()
    if len(usage.model) != 1 or () not in usage.roots or usage.cost or not usage.finish:
        return None
    if len({place[:1] for place in places}) != 1 or not all(2 <= len(place) <= 3 for place in places):
        return None
    # Of several places the first that holds a word counts; the others are those of streams.
    if usage.finish[0][-1] != usage.finish[-1][-1] or len(usage.finish[0]) > 2:
        return None
    return _Shape(usage)


_KNOWN: dict[int, tuple[Usage, _Shape | None]] = {}
"""The shapes of all that were asked for, by identity: there are as many as dialects have endpoints."""


def glance(usage: Usage, data: bytes) -> Reading | None:
    """What the answer *data*, all of it, tells of itself; ``None`` where that cannot be told so."""
    known = _KNOWN.get(id(usage))
    if known is None:
        known = usage, _shape_of(usage)
        if len(_KNOWN) < MAX_SHAPES:
            _KNOWN[id(usage)] = known
    shape = known[1]
    if shape is None or len(data) > LONGEST:
        return None
    forms = shape.forms
    start = -1  # it is sought as soon as a beginning fits
    for form in forms:
        begins = form.begins(data)
        if begins is None:
            continue
        if start < 0:
            start = shape.start(data)
        reading = form.reading(usage, begins, data, start)
        if reading is not None:
            if form is not forms[0]:
                forms.remove(form)
                forms.insert(0, form)
            return reading
    reading = _read(shape, usage, data)
    if reading is not None:
        shape.learn(data, reading)
    return reading


def _read(shape: _Shape, usage: Usage, data: bytes) -> Reading | None:
    """What *data* tells, whatever its form."""
    begins = shape.begins(data)
    place = data.rfind(shape.counts)
    if begins is None or place < 0 or data[place - 1] not in _BEFORE:
        return None
    tokens = _tokens(shape, data[place:])
    if tokens is None:
        return None
    finish = None
    stands = data.rfind(shape.finish)
    if stands >= 0:
        ends = shape.ends(data, stands, place) if stands < place else None
        if ends is None or data[stands - 1] not in _BEFORE:
            return None
        if shape.several and data.find(shape.finish) < stands:
            return None  # of several objects the first counts
        finish = _reasons(ends[1])
    return Reading(model=_models(begins[1]), tokens=with_apart(tokens, usage.apart), finish=finish)


def _tokens(shape: _Shape, end: bytes) -> dict[str, int] | None:
    """The counts in *end*, an object but for its first brace; ``None`` if it is none, or holds others."""
    try:
        text = "{" + end.decode()
        value, stop = _scan(text, 0)
    except (ValueError, StopIteration, RecursionError):
        return None
    if stop != len(text) and not text[stop:].isspace():
        return None  # it was nested more deeply
    counts = value[shape.member]
    if type(counts) is not dict:
        return None
    found: dict[str, int] = {}
    # Written out rather than called: this is most of what is done here.
    for name, meaning in shape.here:
        number = counts.get(name)
        if type(number) is int and number in _COUNTS:
            found[meaning] = number
        elif number is not None:
            return None
    for name, places in shape.below:
        inner = counts.get(name)
        if inner is None:
            continue
        if type(inner) is not dict:
            return None
        for name, meaning in places:
            number = inner.get(name)
            if type(number) is int and number in _COUNTS:
                found[meaning] = number
            elif number is not None:
                return None
    return found


class _Texts(dict[bytes | None, str | None]):
    """Texts by their bytes: answers tell the same few over and over.

    :param most: characters of one; a longer one is none, nor is one that cannot be shown.
    :param none: those that mean nothing.
    """

    def __init__(self, most: int, none: frozenset[str]) -> None:
        super().__init__({None: None})
        self._most = most
        self._none = none

    def __missing__(self, data: bytes) -> str | None:
        text: str | None = data.decode("utf-8", "replace")
        if not text or len(text) > self._most or not text.isprintable() or text in self._none:
            text = None
        if len(self) < MAX_TEXTS and len(data) <= self._most:
            self[data] = text
        return text


_models: Callable[[bytes], str | None] = _Texts(MODEL, frozenset()).__getitem__
_reasons: Callable[[bytes | None], str | None] = _Texts(WORD, PENDING).__getitem__
