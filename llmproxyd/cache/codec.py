"""Stored responses as bytes, for caches outside of this process.

A version, the numbers, the lengths of all texts, and the texts one behind the other, the body last.
Whatever is not exactly that is no entry: other versions write to the same server, and it may be cut off.
"""

from __future__ import annotations

from itertools import accumulate, pairwise
from struct import Struct, error, pack, unpack_from
from typing import Final

from llmproxyd.cache.interface import Entry

VERSION: Final = 1

_HEAD: Final = Struct(">BBHHHdddddd")
"""Version, flags, status, pairs of header fields, pairs of selecting fields; six times."""

_MUST_REVALIDATE, _NO_CACHE, _ETAG, _LAST_MODIFIED = 1, 2, 4, 8
_FLAGS: Final = 15
_FIXED: Final = 7
"""Texts that every entry has: reason, etag, last modified, url, method, project, body."""

_ABSENT: Final = 0xFFFFFFFF
"""In place of the length of a selecting field that was not there."""

_UNICODE: Final = ("utf-8", "surrogatepass")


def encode(entry: Entry) -> bytes:
    """*entry* as :func:`decode` reads it.

    :raises ValueError: it does not fit the form: more than 65,535 fields, say, or a text of 4 GiB.
    """
    texts: list[bytes] = []
    lengths: list[int] = []
    for name, value in entry.headers:
        texts += (name, value)
    for name, selected in entry.varied:
        texts += (name, selected or b"")
    flags = (
        _MUST_REVALIDATE * entry.must_revalidate
        | _NO_CACHE * entry.no_cache
        | _ETAG * (entry.etag is not None)
        | _LAST_MODIFIED * (entry.last_modified is not None)
    )
    texts += (
        entry.reason,
        entry.etag or b"",
        entry.last_modified or b"",
        entry.url,
        entry.method,
        entry.project.encode(*_UNICODE),
        entry.body,
    )
    lengths = [len(text) for text in texts]
    for number, (_, selected) in enumerate(entry.varied, len(entry.headers)):
        if selected is None:
            lengths[2 * number + 1] = _ABSENT
    try:
        head = _HEAD.pack(
            VERSION,
            flags,
            entry.status,
            len(entry.headers),
            len(entry.varied),
            entry.requested,
            entry.received,
            entry.lifetime,
            entry.age,
            entry.stale_if_error,
            entry.stale_while_revalidate,
        )
        return b"".join((head, pack(f">{len(lengths)}I", *lengths), *texts))
    except error as wrong:
        raise ValueError(str(wrong)) from None


def decode(data: bytes) -> Entry | None:
    """The entry that *data* says, ``None`` for whatever else it is.  Never raises."""
    try:
        return _decode(data)
    except (error, ValueError):
        return None


def _decode(data: bytes) -> Entry | None:
    version, flags, status, headers, varied, *times = _HEAD.unpack_from(data)
    if version != VERSION or flags & ~_FLAGS or any(time != time for time in times):
        return None
    count = 2 * (headers + varied) + _FIXED
    lengths = list(unpack_from(f">{count}I", data, _HEAD.size))
    absent = set()
    for number in range(2 * headers + 1, 2 * (headers + varied), 2):
        if lengths[number] == _ABSENT:
            absent.add(number)
            lengths[number] = 0
    ends = list(accumulate(lengths, initial=_HEAD.size + 4 * count))
    if ends[-1] != len(data):
        return None
    texts = [data[start:end] for start, end in pairwise(ends)]
    fields = list(zip(texts[0 : 2 * headers : 2], texts[1 : 2 * headers : 2], strict=True))
    selecting = tuple(
        (texts[number - 1], None if number in absent else texts[number])
        for number in range(2 * headers + 1, 2 * (headers + varied), 2)
    )
    reason, etag, last_modified, url, method, project, body = texts[-_FIXED:]
    requested, received, lifetime, age, if_error, while_revalidate = times
    return Entry(
        status=status,
        reason=reason,
        headers=fields,
        body=body,
        varied=selecting,
        requested=requested,
        received=received,
        lifetime=lifetime,
        age=age,
        etag=etag if flags & _ETAG else None,
        last_modified=last_modified if flags & _LAST_MODIFIED else None,
        must_revalidate=bool(flags & _MUST_REVALIDATE),
        no_cache=bool(flags & _NO_CACHE),
        stale_if_error=if_error,
        stale_while_revalidate=while_revalidate,
        url=url,
        method=method,
        project=project.decode(*_UNICODE),
    )
