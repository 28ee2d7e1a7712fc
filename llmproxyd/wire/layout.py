"""How an upstream lays out its heads: the same names in the same order, answer after answer.

llhttp judges every head whole.  What it has let pass is a status line and lines of fields with
nothing but CRLF between them, so that taking them apart judges nothing any more.  A head that is
laid out as many before it is taken apart by one expression, made for that layout; any other line by
line.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Final

from llmproxyd.wire.fields import STAYING, Fields, Lines, Meaning, Pair, divided, fields_of, meaning

OFTEN: Final = 16
"""Heads of one layout before an expression is made for it, which takes a millisecond."""

_KNOWN: Final = 256
"""Layouts that are counted."""


class Layout:
    """The names of one layout, in their order and case.

    :raises ValueError: two fields of a kind are there, so that their places do not tell what holds.
    """

    __slots__ = (
        "_coding",
        "_codings",
        "_connection",
        "_id",
        "_length",
        "_match",
        "_media",
        "_name",
        "_staying",
    )

    def __init__(self, names: tuple[bytes, ...]) -> None:
        pattern = b""
        groups = 0
        places: dict[Meaning, int] = {}
        staying: list[int] = []
        self._name = b""
        for name in names:
            start = b"\r\n" + re.escape(name) + b":[ \t]*+"
            kind = meaning(name)
            if kind is Meaning.NONE:
                pattern += start + b"[^\r]*+"
                continue
            if kind in places:
                raise ValueError("two fields of a kind")
            if kind in STAYING:
                staying.append(groups := groups + 1)
                pattern += b"(" + start + b"([^\r]*+))"
            else:
                pattern += start + b"([^\r]*+)"
            places[kind] = groups = groups + 1
            if kind is Meaning.ANSWER_ID:
                self._name = name
        self._match = re.compile(pattern).fullmatch
        self._staying = staying
        # Where the values stand, 0 for one that is not there.
        self._media = places.get(Meaning.CONTENT_TYPE, 0)
        self._coding = places.get(Meaning.CONTENT_ENCODING, 0)
        self._id = places.get(Meaning.ANSWER_ID, 0)
        self._length = places.get(Meaning.CONTENT_LENGTH, 0)
        self._codings = places.get(Meaning.TRANSFER_ENCODING, 0)
        self._connection = places.get(Meaning.CONNECTION, 0)

    def fields(self, block: bytes) -> Fields | None:
        """Those in *block*, ``None`` if it is laid out in another way.

        :param block: each field with the CRLF before it.
        """
        match = self._match(block)
        if match is None:
            return None
        group = match.group
        fewer: Lines | None = None
        if self._staying:
            # From the last to the first, so that places stay what they are.
            kept = block
            for place in reversed(self._staying):
                start, end = match.span(place)
                kept = kept[:start] + kept[end:]
            fewer = Lines(kept)
        return Fields(
            block,
            None,
            group(self._media) if self._media else b"",
            group(self._coding) if self._coding else b"",
            ((self._name, group(self._id)),) if self._id else (),
            (group(self._length),) if self._length else (),
            (group(self._codings),) if self._codings else (),
            (group(self._connection),) if self._connection else (),
            fewer,
        )


_seen: dict[tuple[bytes, ...], int] = {}
_made: dict[tuple[bytes, ...], Layout | None] = {}


def fields_in(block: bytes) -> Fields:
    """The fields in *block*, one by one.

    :param block: each field of a head that llhttp has found good, with the CRLF before it.
    """
    return fields_of([*map(divided, block.split(b"\r\n")[1:])], block)


def layout_of(pairs: list[Pair]) -> Layout | None:
    """The layout of a head with *pairs*, if there have been many of it, and it is one that tells."""
    names = tuple([name for name, _ in pairs])
    if names in _made:
        return _made[names]
    count = _seen.get(names, 0) + 1
    if count < OFTEN:
        if count == 1 and len(_seen) >= _KNOWN:
            _seen.clear()
        _seen[names] = count
        return None
    if len(_made) >= _KNOWN:
        _made.clear()
    layout = None
    with suppress(ValueError):  # line by line, then
        layout = Layout(names)
    _made[names] = layout
    return layout
