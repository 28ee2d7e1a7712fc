"""Cache directives as they are written: ``Cache-Control`` and its structured relatives.

What restricts counts on sight, however badly it is written; what permits counts only where it is
written well.  So ``no-store;`` stores nothing, ``public;`` makes nothing public, and a
``max-age`` that is no number is one of 0.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

MOST: Final = 2**31
"""Seconds that any number stands for at most.  RFC 9111 §1.2.2."""

LONGEST: Final = 4096
"""Bytes of all fields of one name; what is longer is not read, and means ``no-store``."""

_MALFORMED: Final = b"?"

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
# Anything that belongs to no directive ends the one before it and is passed over, or a comma that
# is missing would hide the next one.
_DIRECTIVE = re.compile(
    rb"(" + _TOKEN + rb'++)(=(?:"(?:[^"\\]|\\.)*+"|' + _TOKEN + rb"*+))?+([ \t]*+,)?+",
    re.DOTALL,
)


class Directives:
    """What one sender says, by directive; names of others are kept and mean nothing."""

    __slots__ = ("_values",)

    def __init__(self, values: dict[bytes, list[bytes | None]]) -> None:
        self._values = values

    def __bool__(self) -> bool:
        return bool(self._values)

    def has(self, name: bytes) -> bool:
        """Whether *name* stands there in any form: for what restricts."""
        return name in self._values

    def permits(self, name: bytes) -> bool:
        """Whether *name* stands there as it should, without an argument: for what permits."""
        return self._values.get(name) == [None]

    def seconds(self, name: bytes, *, most: bool = False) -> float | None:
        """The number of *name*, ``None`` if it is not there.

        :param most: of several numbers the largest restricts most (``min-fresh``); a malformed one
            is then :data:`MOST`, else 0.
        """
        values = self._values.get(name)
        if values is None:
            return None
        numbers = [_number(value, MOST if most else 0) for value in values]
        return float(max(numbers) if most else min(numbers))


NOTHING: Final = Directives({})
_UNREAD: Final = Directives({b"no-store": [None]})


def _number(value: bytes | None, otherwise: int) -> int:
    if value is None or not value.isdigit():
        return otherwise
    return MOST if len(value) > 10 else min(int(value), MOST)


def read(fields: Sequence[bytes]) -> Directives:
    """The directives of all ``Cache-Control`` fields together.  RFC 9111 §5.2.

    Names are in lower case.  An argument may be a token or a quoted string.
    """
    text = b",".join(fields)
    if len(text) > LONGEST:
        return _UNREAD
    values: dict[bytes, list[bytes | None]] = {}
    for name, argument, clean in _DIRECTIVE.findall(text + b","):
        value: bytes | None = argument[1:] if argument else None
        if not clean:
            value = _MALFORMED
        elif argument[1:2] == b'"':
            value = argument[2:-1]
        values.setdefault(name.lower(), []).append(value)
    return Directives(values)


_KEY = rb"[a-z*][a-z0-9_.*-]*+"
_BARE = (
    rb"(?:-?[0-9]++(?:\.[0-9]++)?+"
    rb'|"(?:[ !#-\[\]-~]|\\["\\])*+"'
    rb"|[A-Za-z*][!#$%&'*+\-.^_`|~0-9A-Za-z:/]*+"
    rb"|:[A-Za-z0-9+/=]*+:"
    rb"|\?[01]"
    rb"|@-?[0-9]++"
    rb'|%"[ -~]*?")'
)
_PARAMETERS = rb"(?:; *+" + _KEY + rb"(?:=" + _BARE + rb")?+)*+"
_INNER = rb"\( *+(?:" + _BARE + _PARAMETERS + rb"(?: ++|(?=\))))*+\)" + _PARAMETERS
_MEMBER = re.compile(
    rb"(?P<key>" + _KEY + rb")(?:=(?:(?P<item>" + _BARE + rb")" + _PARAMETERS + rb"|" + _INNER + rb")"
    rb"|" + _PARAMETERS + rb")(?P<next>[ \t]*+(?:,[ \t]*+|\Z))"
)
_NUMBER = re.compile(rb"-?(?:[0-9]{1,15}|[0-9]{1,12}\.[0-9]{1,3})")


def read_structured(fields: Sequence[bytes]) -> Directives | None:
    """The directives of a targeted field: a dictionary of RFC 9651, as RFC 9213 §2.1 has it.

    :returns: ``None`` where the field is empty or breaks the rules: it is then as if it were not there.
    """
    text = b", ".join(fields).strip(b" ")
    if not text or len(text) > LONGEST:
        return None
    values: dict[bytes, list[bytes | None]] = {}
    at = 0
    while at < len(text):
        member = _MEMBER.match(text, at)
        if member is None:
            return None
        at = member.end()
        item: bytes | None = member["item"]
        if at == len(text) and b"," in member["next"]:
            return None
        if item is not None and item[:1] in b"-0123456789" and not _NUMBER.fullmatch(item):
            return None
        bare = item is None and text[member.end("key") : member.end("key") + 1] != b"="
        # A number is never a string here; the last of several members counts.
        values[member["key"]] = [None if bare or item == b"?1" else item or _MALFORMED]
    return Directives(values)
