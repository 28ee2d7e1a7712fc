"""The nouns of the proxy: requests, responses and events.  Nobody changes one that is made.

Bottom of the house: no I/O, no policy.  Those that are made for every request are not declared
frozen: that costs each of them more than a microsecond.  Header fields are raw lists of pairs, in order,
from wire to wire; a mapping is built only by whoever needs one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

RawHeaders = Sequence[tuple[bytes, bytes]]
"""Header fields as they stand on the wire: name and value, in order, duplicates kept."""


WallClock = Callable[[], float]
"""Seconds since the epoch.  It may jump, so nothing waits on it: waits use the reactor's clock."""


class Memo:
    """What was worked out once for all requests with the same head on one connection.

    :ivar key: what it holds for; anything else must be worked out anew.
    """

    __slots__ = ("key", "value")

    def __init__(self) -> None:
        self.key: object = None
        self.value: object = None


@dataclass(frozen=True, slots=True)
class Request:
    """The head of a request as the client sent it.  Keys stand in its fields and query: no repr.

    :param method: upper case as received (``b"POST"``).
    :param target: raw origin-form request target, path and query, never decoded.
    :param headers: all fields, hop-by-hop ones included.
    :param version: ``(1, 1)`` or ``(1, 0)``.
    :param peer: address of the client, ``host:port``.
    :param memo: shared by requests that differ in nothing but the length of their bodies.
    """

    method: bytes
    target: bytes = field(repr=False)
    headers: RawHeaders = field(repr=False)
    version: tuple[int, int] = (1, 1)
    peer: str = "-"
    memo: Memo = field(default_factory=Memo, repr=False, compare=False)
    path: bytes = field(init=False)
    query: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        path, _, query = self.target.partition(b"?")
        object.__setattr__(self, "path", path)
        object.__setattr__(self, "query", query)

    def header(self, name: bytes) -> bytes | None:
        """The first value of the field *name* (lower case), or ``None``."""
        for key, value in self.headers:
            if key.lower() == name:
                return value
        return None


@dataclass(slots=True)
class Response:
    """The head of a response.

    :param length: body length in bytes, ``None`` when it is not known beforehand.
    :param told: *headers* already hold what is to be told of it.
    """

    status: int
    reason: bytes
    headers: RawHeaders = field(repr=False)
    length: int | None = None
    version: tuple[int, int] = (1, 1)
    told: bool = False


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer that is made here: head and body in one."""

    status: int
    headers: RawHeaders
    body: bytes


class End(StrEnum):
    """How the answer to a request ended."""

    COMPLETE = "complete"
    TRUNCATED = "truncated"
    IDLE = "idle"
    CLIENT_GONE = "client_gone"


@dataclass(slots=True)
class Arrived:
    """A request was read and given its number."""

    number: int
    request_id: str
    method: str
    path: str
    provider: str
    upstream: str


@dataclass(slots=True)
class Finished:
    """A request is over: one per request, whatever happened.

    :param status: what the client was sent, 499 when it left before.
    :param duration: seconds from the end of the request's head to the end of the answer.
    :param sent: body bytes handed to the client.
    :param fault: the kind of the injected error, ``None`` when the answer is real.
    :param code: the code of an error of ours, ``None`` otherwise.
    :param detail: one clause on why the code was given, without secrets.
    """

    number: int
    request_id: str
    method: str
    path: str
    provider: str
    upstream: str
    status: int
    duration: float
    sent: int
    end: End
    fault: str | None = None
    code: str | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class FaultsChanged:
    """The operator's mode is another one now.

    :param cause: ``by command``, or why it ran out.
    :param commanded: the operator was told already.
    """

    words: str
    cause: str
    commanded: bool


Event = Arrived | Finished | FaultsChanged
