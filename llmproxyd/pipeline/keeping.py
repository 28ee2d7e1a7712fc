"""What the upstream brings: may it be kept, is it whole, and is it an answer at all?"""

from __future__ import annotations

from llmproxyd.cache.interface import Entry
from llmproxyd.http.headers import first
from llmproxyd.inspection.content import look
from llmproxyd.inspection.inflate import inflated, inflater
from llmproxyd.inspection.usage import UsageReader
from llmproxyd.model import End, Request, Response
from llmproxyd.pipeline.commit import form_of
from llmproxyd.pipeline.exchange import Exchange
from llmproxyd.pipeline.shelf import GATHERED, Shelf
from llmproxyd.providers.base import EndpointKind

BODILESS = frozenset({204, 304})


def elsewhere(exchange: Exchange) -> bool:
    """Whether another upstream stands in for the one that was asked for."""
    route = exchange.route
    return route is not None and exchange.upstream not in (None, route.upstream.name)


def why_not(exchange: Exchange, request: Request, head: Response, limit: int) -> str:
    """Why nothing of the answer that *head* begins may be kept, whatever its fields say; empty if it may.

    :param request: as the client sent it.
    :param limit: bytes that its body may have.
    """
    if exchange.upstream is not None and elsewhere(exchange):
        return "another upstream"
    length = head.length
    if length is None:
        bodiless = request.method == b"HEAD" or head.status in BODILESS
        if not bodiless and first(head.headers, b"transfer-encoding") is None:
            # Its end is that of the connection: nobody can tell it from one that was cut.
            return "no length"
    elif length > limit and request.method != b"HEAD" and head.status not in BODILESS:
        return "too large"
    return ""


class Gathering:
    """An answer on its way that may be kept.

    :param entry: its body is still empty.
    :param limit: bytes that it may have.
    :param media: its ``Content-Type``.
    :param coding: its ``Content-Encoding``.
    """

    __slots__ = ("_coding", "_entry", "_limit", "_media", "_pieces", "_shelf", "_size")

    def __init__(self, entry: Entry, limit: int, shelf: Shelf, media: bytes, coding: bytes) -> None:
        self._entry = entry
        self._media = media
        self._coding = coding
        self._limit = limit
        self._shelf = shelf
        self._pieces: list[bytes] = []
        self._size = 0

    def piece(self, data: bytes) -> bool:
        """Take a piece of the body; whether it may still be kept."""
        shelf, limit = self._shelf, self._limit
        self._size += len(data)
        shelf.gathered += len(data)
        self._pieces.append(data)
        return self._size <= limit and shelf.gathered <= GATHERED * limit

    def forget(self) -> None:
        """It will not be kept, or it is."""
        self._shelf.gathered -= self._size
        self._size = 0
        self._pieces = []

    def whole(self, exchange: Exchange, end: End) -> Entry | None:
        """What is to be kept, now that *exchange* has ended; ``None`` for what is not whole."""
        # What was told by us in the middle of it is no answer; that the client left is another matter.
        if end is not End.COMPLETE or exchange.code not in (None, "client_gone"):
            return None
        self._entry.body = b"".join(self._pieces)
        return self._entry if worth_keeping(exchange, self._entry, self._media, self._coding) else None


def worth_keeping(exchange: Exchange, entry: Entry, media: bytes, coding: bytes) -> bool:
    """Whether *entry*, the whole answer to *exchange*, tells of no error.

    Only answers of inference are looked at: elsewhere an error may be what was asked for.  A
    stream in a coding that cannot be read here is not kept, as it may end with one.
    """
    route = exchange.route
    if route is None or route.kind is not EndpointKind.INFERENCE:
        return True
    if entry.status >= 300 or entry.method == b"HEAD" or not entry.body:
        return True
    form = form_of(exchange, media)
    if form is not None:
        if coding and inflater(coding) is None:
            return False
        reader = UsageReader(None, form, coding)
        reader.feed(entry.body)
        return not reader.reading(True).failed
    if not coding and b'"error"' not in entry.body:
        return True
    body = inflated(entry.body, coding)
    return body is None or look(body, media).trouble is None
