"""Members at the top level of JSON bodies: dropped, renamed, set, replaced.

A body is never written anew from its values.  It is cut into its members, each with the white
space and the separators that the client chose; a rule changes a member or takes it out, and the
rest is put together again as it came, byte for byte (providers' prompt caches hang on that).

Python's own JSON decoder does the cutting, member by member: it is as strict as RFC 8259 once
its NaN and Infinity are refused, and quicker by far than a scanner of ours over the bytes.  What
it does not take is no JSON and passes unchanged: other encodings, a byte order mark, trailing
garbage; and with it what it will not work on: a nesting of about a thousand levels, integers of
more than 4,300 digits, and what is beyond the two limits below.
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from llmproxyd.transform.rules import JSONValue, Transform

MAX_MEMBERS = 1_000
"""An object with more members at its top level is no request to a model; it passes unchanged."""

MAX_CONTAINERS = 1_000_000
"""One with more arrays and objects within passes unchanged too: decoding makes some 100 bytes of
two, and work for the collector.  Opening brackets are counted, those in strings as well."""

_OPEN = re.compile(r"[ \t\n\r]*\{([ \t\n\r]*)")
_COLON = re.compile(r"[ \t\n\r]*:[ \t\n\r]*")
_COMMA = re.compile(r'[ \t\n\r]*,[ \t\n\r]*(?=")')
_CLOSE = re.compile(r"[ \t\n\r]*\}[ \t\n\r]*\Z")

_TYPES = {'"': "string", "[": "array", "{": "object", "t": "boolean", "f": "boolean", "n": "null"}
"""By the first character of a value; any other begins a number."""


class Transforms:
    """Rules, prepared once for any number of requests.  They are applied in their order."""

    def __init__(self, rules: Sequence[Transform]) -> None:
        self._rules = [_Prepared.of(rule) for rule in rules if rule.reads_body]
        self._everywhere = any(not rule.endpoints for rule in self._rules)
        self._operations = frozenset(name for rule in self._rules for name in rule.endpoints)

    def concerns(self, operation: str | None) -> bool:
        """Whether a rule would look at bodies of *operation*: if not, they need not be whole."""
        return self._everywhere or operation in self._operations

    def apply(self, operation: str | None, model: str | None, body: bytes) -> bytes | None:
        """*body* as the rules want it; ``None`` when none fired, or it is no JSON object.

        Where a member stands several times its last value counts, as nearly all parsers have it:
        that is the one which is looked at, set and replaced, while all of them are dropped or renamed,
        lest a former value come forth.

        :param model: where the body does not say it (the path does); ``None`` for the body's own,
            as the former rules left it.
        """
        rules = [rule for rule in self._rules if rule.is_for_operation(operation)]
        if model is not None:
            rules = [rule for rule in rules if rule.is_for_model(model)]
        found = _read(body) if rules else None
        if found is None:
            return None
        for rule in rules:
            if model is not None or rule.is_for_model(found.model):
                rule.work(found)
        return found.written() if found.changed else None


def with_model(body: bytes, model: str) -> bytes | None:
    """*body* with another value for its ``model``; ``None`` if it has none or is no JSON object."""
    found = _read(body)
    if found is None or found.last("model") is None:
        return None
    found.put("model", _encoded(model))
    return found.written()


@dataclass(slots=True)
class _Member:
    """One member; all but *name* as it stands in the text.

    :param before: what parts it from the member before it, the comma included; empty for the first.
    :param key: quotes included.
    :param colon: with the white space around it.
    """

    before: str
    name: str
    key: str
    colon: str
    value: str


class _Object:
    """A JSON object in pieces.

    :param opening: up to the first key.
    :param closing: from the end of the last value.
    """

    def __init__(self, opening: str, members: list[_Member], closing: str) -> None:
        self.opening = opening
        self.members = members
        self.closing = closing
        self.changed = False

    @property
    def model(self) -> str | None:
        """The model that it names, if that is a text which can be sent (no half of a surrogate pair)."""
        member = self.last("model")
        if member is None or member.value[0] != '"':
            return None
        text = _text(member.value)
        return text if text is not None and _is_sendable(text) else None

    def last(self, name: str) -> _Member | None:
        """The member *name* that counts."""
        return next((member for member in reversed(self.members) if member.name == name), None)

    def drop(self, names: Collection[str]) -> None:
        """Take all members of these *names* out, each with one comma."""
        kept = [member for member in self.members if member.name not in names]
        if len(kept) < len(self.members):
            self.members = kept
            self.changed = True

    def rename(self, old: str, new: str) -> None:
        """Call every member *old* *new*, unless there is one of that name."""
        if self.last(new) is not None:
            return
        for member in self.members:
            if member.name == old:
                member.name, member.key = new, _encoded(new)
                self.changed = True

    def put(self, name: str, value: str) -> None:
        """Give the member *name* the encoded *value*, or add it."""
        member = self.last(name)
        if member is None:
            self._add(name, value)
        elif member.value != value:
            member.value = value
            self.changed = True

    def _add(self, name: str, value: str) -> None:
        """A further member at the end, in the style of the one before it."""
        before, colon = "", ":"
        if self.members:
            last = self.members[-1]
            # Of an only member the space after the brace, or the colon, tells the style.
            space = self.opening.partition("{")[2] or last.colon.partition(":")[2]
            before, colon = last.before or "," + space, last.colon
        self.members.append(_Member(before, name, _encoded(name), colon, value))
        self.changed = True

    def written(self) -> bytes:
        """The whole."""
        if not self.members:
            return (self.opening.rstrip(" \t\n\r") + self.closing).encode()
        pieces = [self.opening]
        for member in self.members:
            pieces += (member.before, member.key, member.colon, member.value)
        pieces[1] = ""  # The comma before the first went with the member before it.
        pieces.append(self.closing)
        return "".join(pieces).encode()


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


_decode = json.JSONDecoder(parse_constant=_refuse).raw_decode


def _read(body: bytes) -> _Object | None:
    """*body* in pieces, ``None`` if it is no JSON object."""
    if len(body) > MAX_CONTAINERS and body.count(b"[") + body.count(b"{") > MAX_CONTAINERS:
        return None
    try:
        return _cut(body.decode())
    except (ValueError, RecursionError):
        return None


def _cut(text: str) -> _Object | None:
    """*text* in pieces.

    :raises ValueError: it is no JSON.
    :raises RecursionError: it is nested too deeply.
    """
    opening = _OPEN.match(text)
    if opening is None:
        return None
    members: list[_Member] = []
    before, at = "", opening.end()
    more = text.startswith('"', at)
    while more:
        name, key_end = _decode(text, at)
        colon = _COLON.match(text, key_end)
        if colon is None or len(members) == MAX_MEMBERS:
            return None
        end = _decode(text, colon.end())[1]
        members.append(_Member(before, name, text[at:key_end], colon[0], text[colon.end() : end]))
        comma = _COMMA.match(text, end)
        before, at = ("", end) if comma is None else (comma[0], comma.end())
        more = comma is not None
    return _Object(opening[0], members, text[at:]) if _CLOSE.match(text, at) else None


def _encoded(value: JSONValue) -> str:
    """*value* as compact JSON; what UTF-8 cannot say is escaped.

    :raises ValueError: it holds a number that JSON does not have.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text if _is_sendable(text) else json.dumps(value, allow_nan=False, separators=(",", ":"))


def _is_sendable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _text(value: str) -> str | None:
    """A scalar of a valid body as text: a string as it is, others as written; ``None`` for the rest."""
    if value[0] in "[{":
        return None
    return value if value[0] != '"' else str(_decode(value)[0])


def _is_of_type(value: str, wanted: str) -> bool:
    found = _TYPES.get(value[0], "number")
    if wanted == "integer":
        return found == "number" and value.removeprefix("-").isdigit()
    return found == wanted


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A :class:`Transform` whose values are encoded and whose globs are compiled.

    :param endpoints: empty for all.
    :param models: tests of which one must hold; empty for any model, or none.
    """

    rule: Transform
    endpoints: frozenset[str]
    models: tuple[Callable[[str], object], ...]
    values: Mapping[str, str]
    defaults: Mapping[str, str]
    replacements: Mapping[str, Mapping[str, str]]

    @classmethod
    def of(cls, rule: Transform) -> _Prepared:
        return cls(
            rule,
            frozenset(rule.endpoints),
            tuple(re.compile(fnmatch.translate(glob)).match for glob in rule.models),
            _all_encoded(rule.set),
            _all_encoded(rule.default),
            {name: _all_encoded(values) for name, values in rule.replace.items()},
        )

    def is_for_operation(self, operation: str | None) -> bool:
        return not self.endpoints or operation in self.endpoints

    def is_for_model(self, model: str | None) -> bool:
        return not self.models or (model is not None and any(matches(model) for matches in self.models))

    def work(self, found: _Object) -> None:
        """Do to *found* all that the rule asks for."""
        found.drop(self.rule.drop)
        for name, wanted in self.rule.drop_unless.items():
            member = found.last(name)
            if member is not None and not _is_of_type(member.value, wanted):
                found.drop((name,))
        for old, new in self.rule.rename.items():
            found.rename(old, new)
        for name, value in self.values.items():
            found.put(name, value)
        for name, value in self.defaults.items():
            if found.last(name) is None:
                found.put(name, value)
        for name, values in self.replacements.items():
            member = found.last(name)
            text = None if member is None else _text(member.value)
            if text is not None and text in values:
                found.put(name, values[text])


def _all_encoded(values: Mapping[str, JSONValue]) -> Mapping[str, str]:
    return {name: _encoded(value) for name, value in values.items()}
