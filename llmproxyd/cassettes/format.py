"""One exchange with an upstream, as it is kept: the nouns, and the version of their file.

:mod:`~llmproxyd.cassettes.writing` makes a text of it, :mod:`~llmproxyd.cassettes.reading` reads that.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from llmproxyd.http.headers import first
from llmproxyd.model import RawHeaders

VERSION: Final = 1
"""Of the files; another one is refused."""

SUFFIX: Final = ".yaml"

LEAST_GAP: Final = 1e-6
"""Seconds that a piece comes after the head at least; one at 0 came together with it."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it went upstream.  Keys may stand in it as long as it is not redacted: no repr.

    :param provider: the dialect; recordings of one are for all upstreams that speak it.
    :param target: raw path and query, less what belongs to the upstream's base URL.
    """

    provider: str
    upstream: str
    method: str
    target: str = field(repr=False)
    fields: RawHeaders = field(repr=False)
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Piece:
    """What of a body came at once.

    :param after: seconds after the head; 0 for what came together with it.
    """

    after: float
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer as it came.

    :param fields: all of them, those of the connection included.
    :param after: seconds from the request to the head.
    :param whole: it ended as it should; else the upstream broke off.
    :param ended: seconds from the head to the end.
    """

    status: int
    reason: bytes
    version: tuple[int, int]
    fields: RawHeaders = field(repr=False)
    after: float
    pieces: tuple[Piece, ...] = field(repr=False)
    whole: bool
    ended: float

    @property
    def body(self) -> bytes:
        """All of it."""
        return b"".join(piece.data for piece in self.pieces)

    @property
    def coding(self) -> bytes:
        """In which it is coded, empty for none."""
        return (first(self.fields, b"content-encoding") or b"").strip().lower()


@dataclass(frozen=True, slots=True)
class Exchange:
    """Request and answer.

    :param recorded: when the request was sent, seconds since the epoch.
    """

    recorded: float
    asked: Asked
    answered: Answered


def bodiless(method: str, status: int) -> bool:
    """Whether such an answer has no body, whatever its fields say (RFC 9110 §6.4.1)."""
    return method == "HEAD" or status in (204, 304)
