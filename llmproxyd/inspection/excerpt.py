"""An answer in one piece, of which only so much is kept and parsed as tells something.

Most are small and parsed whole.  The large ones are vectors and images; there the members that
tell something stand in front of them or behind, so both ends are looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from llmproxyd.inspection.findings import Findings, parsed
from llmproxyd.providers.events import JsonObject, objects

WHOLE = 64 * 1024
"""Bytes that are parsed without a thought: a thousand numbers take longer than as much text."""

HEAD = 4 * 1024
TAIL = 16 * 1024

_TRIES = 16
"""Places from which the end is read; what stands there belongs to the answer itself in one of them."""

# Members of an object, as long as they are texts, numbers and words.  The group itself is not possessive:
# nested in one another such groups match nothing in early releases of Python 3.11, and here nothing
# follows for which anything could be tried again.
_SCALAR = rb'"(?:[^"\\]|\\.)*+"|[-+.\w]++'
_PLAIN = re.compile(rb'(?:\xef\xbb\xbf)?\s*+\{(?:\s*+"(?:[^"\\]|\\.)*+"\s*+:\s*+(?:%b)\s*+,)*' % _SCALAR)


class Excerpt:
    """Keeps what may be looked at of one answer.

    :param names: of the members that tell something.
    :param limit: bytes that are kept.
    """

    __slots__ = ("_findings", "_head", "_kept", "_limit", "_names")

    def __init__(self, names: Iterable[str], limit: int, findings: Findings) -> None:
        self._names = names
        self._limit = max(limit, 2)
        self._findings = findings
        self._kept = bytearray()
        self._head: bytes | None = None  # of one that is not kept whole

    def feed(self, data: bytes) -> None:
        """The next piece, in the clear."""
        kept = self._kept
        kept += data
        if len(kept) > self._limit:
            if self._head is None:
                self._head = bytes(kept[:HEAD])
            del kept[: -min(TAIL, self._limit // 2)]

    def end(self, complete: bool) -> None:
        """There is no more.  One that broke off tells nothing."""
        kept, self._kept = self._kept, bytearray()
        if not complete:
            return
        if self._head is None and len(kept) <= WHOLE:
            self._look(parsed(bytes(kept)))
            return
        self._look(beginning(bytes(kept[:HEAD]) if self._head is None else self._head))
        self._look(ending(bytes(kept[-TAIL:]), self._names))
        if self._head is None and not self._findings.counted:
            self._look(parsed(bytes(kept)))

    def _look(self, value: object) -> None:
        for item in (value,) if isinstance(value, dict) else objects(value):
            self._findings.look(item)


def beginning(data: bytes) -> JsonObject | None:
    """The members at the beginning of the object that *data* begins with, up to the first that nests."""
    match = _PLAIN.match(data)
    value = None if match is None else parsed(match[0].rstrip(b",") + b"}")
    return value if isinstance(value, dict) else None


def ending(data: bytes, names: Iterable[str]) -> JsonObject | None:
    """The members at the end of the object that *data* ends with, from one of *names* on.

    From the right place to the end, members of the answer itself are an object but for its brace;
    from one that is nested more deeply there is a brace too many.
    """
    known = "|".join(map(re.escape, sorted(names)))
    if not known:
        return None
    found: JsonObject | None = None
    # The quote before a name is not escaped: within a string it would be.
    places = [match.start() for match in re.finditer(rf'(?<!\\)"(?:{known})"\s*:'.encode(), data)]
    for place in reversed(places[-_TRIES:]):
        value = parsed(b"{" + data[place:])
        if isinstance(value, dict):
            found = value
    return found
