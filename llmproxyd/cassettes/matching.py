"""Which recording answers a request: by provider, method, path, query and body.

Bodies that are JSON are compared as values: neither whitespace nor the order of members counts, nor
what the configuration says to ignore.  Others are compared byte by byte.  What was redacted in a
recording stands for anything.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import count
from typing import Any, NamedTuple

from llmproxyd.access.withheld import target_without
from llmproxyd.cassettes.format import Asked, Exchange
from llmproxyd.http.headers import first
from llmproxyd.redaction import REDACTED, Redactor, printable

DIFFERENCES = 5
"""So many are told of the nearest recording."""

COUNTED = 50
"""Differences after which a recording is not near."""

NEAR = 4 * 1024 * 1024
"""Bytes of recorded bodies that are held against a request that has no recording."""

STEPS = 20_000
"""Values that are compared in one of them."""

DEPTH = 100
"""Levels on which differences are told apart."""

LONGEST = 120
"""Characters of a name or path that are shown."""

_BOUNDARY = re.compile(rb'boundary="?([0-9A-Za-z\'()+_,./:=?-]{1,70})"?', re.IGNORECASE)
_NAMES_ALONE = Redactor()


class Place(NamedTuple):
    """Where a request goes: what must be equal before bodies are looked at."""

    provider: str
    method: str
    target: str


@dataclass(frozen=True, slots=True)
class Recorded:
    """One recording.

    :param name: of its file.
    """

    name: str
    exchange: Exchange


class Ignored:
    """Members of JSON bodies that do not count.

    :param paths: such as ``metadata.session``; a path goes through lists.
    """

    def __init__(self, paths: Iterable[str] = ()) -> None:
        self._paths = [path.split(".") for path in paths]

    def without(self, value: Any) -> Any:
        """*value* less what is ignored; it is changed."""
        for path in self._paths:
            _remove(value, path)
        return value


class Library:
    """All recordings.

    Several of the same request are taken in their order, and the last one again and again.

    :param recordings: in the order in which they were made.
    """

    def __init__(self, recordings: Sequence[Recorded], ignored: Ignored) -> None:
        self._places: dict[Place, list[Recorded]] = {}
        self._count = len(recordings)
        self._ignored = ignored
        self._exact: dict[tuple[Place, bytes], _Row] = {}
        self._holes: dict[Place, list[tuple[Any, _Row]]] = {}
        for one in recordings:
            self._add(one)

    def __len__(self) -> int:
        return self._count

    def find(self, asked: Asked) -> Recorded | None:
        """The recording whose turn it is to answer *asked*; the next time it is the next one's."""
        place, value = place_of(asked), _value(asked, self._ignored)
        row = self._exact.get((place, _digest(value)))
        if row is None:
            row = next((row for one, row in self._holes.get(place, ()) if _same(value, one)), None)
        return None if row is None else row.take()

    def nearest(self, asked: Asked) -> str:
        """What is recorded instead, in one sentence or two; no content of messages."""
        place = place_of(asked)
        there = self._places.get(place)
        if there is None:
            return self._elsewhere(place)
        value = _value(asked, self._ignored)
        least: tuple[int, str, list[str]] | None = None
        read = 0
        for one in there:
            read += len(one.exchange.asked.body)
            if least is not None and read > NEAR:
                break
            told = _told(value, _value(one.exchange.asked, self._ignored))
            if least is None or len(told) < least[0]:
                least = len(told), one.name, told[:DIFFERENCES]
        assert least is not None
        number, name, told = least
        others = "many" if number >= COUNTED else str(number - len(told))
        more = f" and {others} others" if number > len(told) else ""
        return f"The nearest, {name}, differs in {', '.join(told)}{more}."

    def _elsewhere(self, place: Place) -> str:
        known = [
            _short(f"{one.method} {one.target}") for one in self._places if one.provider == place.provider
        ]
        if not known:
            providers = sorted({one.provider for one in self._places})
            return f"There is none of {place.provider}, but of {', '.join(providers) or 'nobody'}."
        more = f" and {len(known) - DIFFERENCES} others" if len(known) > DIFFERENCES else ""
        return f"Of {place.provider} there are {', '.join(known[:DIFFERENCES])}{more}."

    def _add(self, one: Recorded) -> None:
        asked = one.exchange.asked
        place, value = place_of(asked), _value(asked, self._ignored)
        self._places.setdefault(place, []).append(one)
        key = (place, _digest(value))
        row = self._exact.get(key)
        if row is None:
            row = self._exact[key] = _Row()
            if REDACTED.encode() in asked.body:
                self._holes.setdefault(place, []).append((value, row))
        row.recordings.append(one)


class _Row:
    """The recordings of one request."""

    __slots__ = ("_next", "recordings")

    def __init__(self) -> None:
        self.recordings: list[Recorded] = []
        self._next = 0

    def take(self) -> Recorded:
        found = self.recordings[self._next]
        self._next = min(self._next + 1, len(self.recordings) - 1)
        return found


def place_of(asked: Asked) -> Place:
    """Where *asked* goes, without credentials in the query, whose order does not count."""
    target = target_without(asked.target.encode("latin-1"), ()).decode("latin-1")
    path, _, query = _NAMES_ALONE.url(target).partition("?")
    parts = sorted(part for part in query.split("&") if part and REDACTED not in part)
    return Place(asked.provider, asked.method, f"{path}?{'&'.join(parts)}" if parts else path)


def _value(asked: Asked, ignored: Ignored) -> Any:
    """The body as JSON, or as bytes where it is none."""
    body = asked.body
    if body.lstrip()[:1] in (b"{", b"["):
        try:
            value = ignored.without(json.loads(body, parse_float=_number))
            json.dumps(value)
        except (ValueError, RecursionError):
            pass
        else:
            return value
    # The words that part a form are drawn anew for each request.
    boundary = _BOUNDARY.search(first(asked.fields, b"content-type") or b"")
    return body if boundary is None else body.replace(boundary.group(1), b"boundary")


def _number(text: str) -> int | float:
    """1.0 is 1: programs that write JSON differ in it."""
    value = float(text)
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


def _digest(value: Any) -> bytes:
    """What is equal for equal bodies."""
    if isinstance(value, bytes):
        return sha256(b"bytes " + value).digest()
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return sha256(b"json " + text.encode()).digest()


def _remove(value: Any, path: Sequence[str]) -> None:
    if isinstance(value, list):
        for item in value:
            _remove(item, path)
    elif isinstance(value, dict) and path[0] in value:
        inner = value[path[0]]
        if len(path) > 1:
            before = bool(inner)
            _remove(inner, path[1:])
        if len(path) == 1 or (before and not inner):
            # What held nothing else is as good as missing.
            del value[path[0]]


# What differs.


def _told(asked: Any, recorded: Any) -> list[str]:
    """Where two bodies differ, in words; at most :data:`COUNTED`."""
    if isinstance(asked, bytes) or isinstance(recorded, bytes):
        if type(asked) is type(recorded):
            return [f"the body ({len(asked)} bytes, recorded: {len(recorded)})"]
        return ["the body, of which one is JSON and the other is not"]
    found = []
    for told in _differences(asked, recorded, "", iter(range(STEPS))):
        found.append(told)
        if len(found) >= COUNTED:
            break
    return found or ["nothing that was looked at"]


def _same(asked: Any, recorded: Any) -> bool:
    """Whether two bodies are equal, but for what was redacted in the recorded one."""
    if isinstance(asked, bytes) or isinstance(recorded, bytes):
        one, other = (
            body.decode("latin-1") if isinstance(body, bytes) else None for body in (asked, recorded)
        )
        return one is not None and other is not None and _equal(one, other)
    return next(_differences(asked, recorded, "", count()), None) is None


def _differences(asked: Any, recorded: Any, path: str, steps: Iterator[int], depth: int = 0) -> Iterator[str]:
    if next(steps, None) is None:
        return
    if depth > DEPTH:
        if asked != recorded:
            yield _short(path)
    elif isinstance(asked, Mapping) and isinstance(recorded, Mapping):
        for name in [*asked, *(name for name in recorded if name not in asked)]:
            here = f"{path}.{name}" if path else name
            if name not in recorded:
                yield f"{_short(here)} (not recorded)"
            elif name not in asked:
                yield f"{_short(here)} (recorded alone)"
            else:
                yield from _differences(asked[name], recorded[name], here, steps, depth + 1)
    elif isinstance(asked, list) and isinstance(recorded, list):
        for number, (one, other) in enumerate(zip(asked, recorded, strict=False)):
            yield from _differences(one, other, f"{path}[{number}]", steps, depth + 1)
        if len(asked) != len(recorded):
            yield f"{_short(path or 'the body')} ({len(asked)} items, recorded: {len(recorded)})"
    elif not _equal(asked, recorded):
        yield _short(path or "the body") + _values(asked, recorded, path)


def _equal(asked: Any, recorded: Any) -> bool:
    if type(asked) is not type(recorded):
        return False
    if isinstance(recorded, str) and REDACTED in recorded:
        return _fits(asked, recorded.split(REDACTED))
    return bool(asked == recorded)


def _fits(text: str, parts: Sequence[str]) -> bool:
    """Whether *text* is made of *parts* with anything between them."""
    start, *between, end = parts
    if not text.startswith(start) or not text.endswith(end):
        return False
    at = len(start)
    for part in between:
        at = text.find(part, at) + len(part)
        if at < len(part):
            return False
    return at <= len(text) - len(end)


def _values(asked: Any, recorded: Any, path: str) -> str:
    """Both values, where they tell nothing of what was said."""
    both = (asked, recorded)
    if path == "model" and all(isinstance(one, str) for one in both):
        return f" ({_short(asked)}, recorded: {_short(recorded)})"
    if all(one is None or isinstance(one, bool | int | float) for one in both):
        return f" ({json.dumps(asked)[:30]}, recorded: {json.dumps(recorded)[:30]})"
    return ""


def _short(text: str) -> str:
    text = _NAMES_ALONE.text(printable(text))
    return text if len(text) <= LONGEST else text[:LONGEST] + "…"
