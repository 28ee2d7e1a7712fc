"""The lines of an answer's head: which of them mean anything here.

llhttp judges every head whole.  What it has let pass is a status line and lines of fields with
nothing but CRLF between them, so that taking them apart judges nothing any more.  Of some twenty
lines four or five mean anything; they are found by how they begin, with no step in Python for any
other, and no other is taken apart.
"""

from __future__ import annotations

from itertools import compress
from operator import itemgetter
from typing import Final

from llmproxyd.wire.fields import MEANINGS, Fields, Meaning, Pair, divided, meaning

_BEGINNING: Final = 6
"""Bytes that tell most names from those that mean anything."""

_KNOWN: Final = 1024
"""Beginnings that are remembered, and lines."""

_LASTING: Final = frozenset({Meaning.CONTENT_TYPE, Meaning.CONTENT_ENCODING, Meaning.CONNECTION})
"""Of these an upstream says the same again and again."""

_Told = tuple[Meaning, Pair, bytes]


class _Telling(dict[bytes, bool]):
    """Whether a line that begins so may mean anything; what is met for the first time is looked at once."""

    def __missing__(self, beginning: bytes) -> bool:
        name, colon, _ = beginning.lower().partition(b":")
        telling = name in MEANINGS if colon else any(known.startswith(name) for known in MEANINGS)
        if len(self) < _KNOWN:
            self[beginning] = telling
        return telling


class _Lines(dict[bytes, _Told]):
    """What a line tells; one of those that last is looked at once."""

    def __missing__(self, line: bytes) -> _Told:
        pair = divided(line)
        told = (meaning(pair[0]), pair, line)
        if told[0] in _LASTING and len(self) < _KNOWN and len(line) <= 128:
            self[line] = told
        return told


_telling = _Telling().__getitem__
_told = _Lines().__getitem__
_beginning = itemgetter(slice(0, _BEGINNING))


def fields_in(lines: list[bytes]) -> Fields:
    """The fields that stand in *lines*.

    :param lines: of one head that llhttp has found good, without their ends.
    """
    return Fields(lines, None, map(_told, compress(lines, map(_telling, map(_beginning, lines)))))
