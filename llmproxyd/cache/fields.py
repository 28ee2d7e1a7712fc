"""The header fields that a cache looks at, found in one walk."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from llmproxyd.model import RawHeaders
from llmproxyd.wire.fields import Lines

Found = dict[bytes, list[bytes]]
"""Values in order, by lower-case name."""

_KNOWN = 1024
"""Spellings that are remembered."""


class _Spellings(dict[bytes, bytes]):
    """By spelling: the name in lower case, empty for one that nobody asks for."""

    def __init__(self, names: Iterable[bytes]) -> None:
        self._names = frozenset(names)

    def __missing__(self, spelling: bytes) -> bytes:
        name = spelling.lower()
        if name not in self._names:
            name = b""
        if len(self) < _KNOWN and len(spelling) <= 64:
            self[spelling] = name
        return name


def lines_of(names: Iterable[bytes]) -> re.Pattern[bytes]:
    """What finds the lines of these *names* (lower case) in a block, each with the CRLF before it.

    A block is what :class:`~llmproxyd.wire.fields.Lines` has.
    """
    ordered = sorted(names)
    letters = {letter for name in ordered for letter in (name[:1], name[:1].upper())}
    # Most lines are told by their first letter, at half the time that all names would take.
    first = re.escape(b"".join(sorted(letters)))
    either = b"|".join(map(re.escape, ordered))
    return re.compile(rb"\r\n(?=[" + first + rb"])((?i:" + either + rb")):[ \t]*+([^\r]*+)")


def finder(names: Iterable[bytes]) -> Callable[[RawHeaders], Found]:
    """A function that finds the fields of these *names* (lower case)."""
    names = frozenset(names)
    known = _Spellings(names).__getitem__
    lines = lines_of(names).findall

    def find(headers: RawHeaders) -> Found:
        found: Found = {}
        if isinstance(headers, Lines) and headers.block is not None:
            # Pairs need not be made of those that nobody asks for.
            headers = lines(headers.block)
        for spelling, value in headers:
            name = known(spelling)
            if name:
                if name in found:
                    found[name].append(value)
                else:
                    found[name] = [value]
        return found

    return find


def values_of(headers: RawHeaders, name: bytes) -> list[bytes]:
    """All values of *name* (lower case), in order."""
    return [value for key, value in headers if key.lower() == name]


def only(found: Found, name: bytes) -> bytes | None:
    """The value of a field that stands once; ``None`` where it does not, or contradicts itself."""
    values = found.get(name)
    if values is None or any(value != values[0] for value in values):
        return None
    return values[0].strip(b" \t")
