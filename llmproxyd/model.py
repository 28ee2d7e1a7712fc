"""The nouns of the proxy: requests, responses and events.  Nobody changes one that is made.

Bottom of the house: no I/O, no policy.  Those that are made for every request are not declared
frozen: that costs each of them more than a microsecond.  Header fields are raw lists of pairs, in order,
from wire to wire; a mapping is built only by whoever needs one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
    IN_BAND_ERROR = "in_band_error"
    """The upstream told an error within its stream, which then ended as it should."""


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
class Reading:
    """What an answer told of itself.  Made for nearly every request, so not frozen.

    :param model: that answered.
    :param tokens: by meaning: ``input``, ``output``, and where told ``total``, ``cached``, ``reasoning``.
    :param finish: why the model stopped, in the provider's word.
    :param cost: where the provider told it (OpenRouter).
    :param failed: an error came within the stream.
    """

    model: str | None = None
    tokens: Mapping[str, int] = field(default_factory=dict)
    finish: str | None = None
    cost: float | None = None
    failed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Captured:
    """Bodies as far as events are to carry them (``events.capture``).  Nothing in it is redacted as yet.

    :param secrets: credentials that the client presented: they must not stand anywhere.
    """

    request: Body | None = None
    response: Body | None = None
    secrets: tuple[str, ...] = field(default=(), repr=False)


@dataclass(slots=True)
class Finished:
    """A request is over: one per request, whatever happened.

    :param status: what the client was sent, 499 when it left before, 444 when a fault closed its connection
        without an answer.
    :param duration: seconds from the end of the request's head to the end of the answer.
    :param sent: body bytes handed to the client.
    :param fault: the kind of the injected error, ``None`` when the answer is real.
    :param code: the code of an error of ours, ``None`` otherwise.
    :param detail: one clause on why the code was given, without secrets.
    :param failed: the upstream is to blame: it could not be reached, broke off, was too slow.
    :param operation: of the endpoint (``chat``, ``models``…).
    :param kind: of the endpoint (``inference``…).
    :param model: as asked for, where it was looked at.
    :param attempts: that were made at upstreams; 0 where none was asked.
    :param began: seconds until the head of the answer went to the client, ``None`` if none did.
    :param first: seconds until the first content of a stream, where it was looked at.
    :param received: bytes of the request's body, ``None`` where it came without a length.
    :param streamed: the answer was a stream.
    :param project: id, where access is on; as is *token*.
    :param cache: ``hit``, ``miss``, ``bypass`` or ``stale``, where the cache is on.
    :param reading: what the answer told of itself, where somebody wants to know.
    :param peer: address of the client.
    :param upstream_id: what the upstream that answered calls the request.
    :param unreached: the answer ended before the spot of the fault, so that nothing was done to it.
    :param test: the test that the request belongs to, ``None`` for none.
    :param injected: the fault as a step of a scenario, ``None`` when the answer is real.
    :param wall: when it was over, seconds since the epoch.
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
    failed: bool = False
    operation: str = "unknown"
    kind: str = "metadata"
    model: str | None = None
    attempts: int = 0
    began: float | None = None
    first: float | None = None
    received: int | None = None
    streamed: bool = False
    project: str | None = None
    token: str | None = None
    cache: str | None = None
    reading: Reading | None = None
    peer: str = "-"
    traceparent: str | None = None
    captured: Captured | None = None
    upstream_id: str | None = None
    unreached: bool = False
    test: str | None = None
    injected: str | None = None
    wall: float = 0.0


@dataclass(frozen=True, slots=True)
class FaultsChanged:
    """The operator's mode is another one now.

    :param cause: ``by command``, or why it ran out.
    :param commanded: the operator was told already.
    """

    words: str
    cause: str
    commanded: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrying:
    """An attempt failed and another one follows.

    :param failed: what happened, in a few words: ``overloaded (529)``, ``connection refused``.
    :param delay: seconds until the next attempt.
    :param retry: its number, from 1; 0 where it is no retry but takes another key.
    :param of: how many retries there may be.
    :param to: the upstream that it goes to.
    :param upstream_id: what the one that failed calls the request.
    """

    number: int
    request_id: str
    upstream: str
    failed: str
    delay: float
    retry: int
    of: int
    to: str
    upstream_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerChanged:
    """A circuit breaker is in another state now.

    :param name: of what it guards: an upstream, or ``upstream/model``.
    :param before: ``closed``, ``open`` or ``half-open``, as is *after*.
    :param cause: why, in words.
    :param seconds: until the next probe; 0 unless it opened.
    """

    name: str
    before: str
    after: str
    cause: str
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialRested:
    """One of several keys of an upstream is not used for a while.

    :param which: its place on the list, from 1.
    :param status: what the upstream answered to it.
    :param seconds: of rest.
    :param left: how many keys are not at rest.
    """

    upstream: str
    which: int
    status: int
    seconds: float
    left: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """A body as far as it is kept for a record.

    :param data: as it passed by (coded, if it was), at most so many bytes as are kept.
    :param cut: it went on.
    :param length: bytes in all.
    """

    data: bytes = field(default=b"", repr=False)
    cut: bool = False
    length: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorNoted:
    """Something failed, for the error log.  Nothing in it is redacted as yet.

    :param code: a status, or a word (``circuit_open``): what the record is filed under.
    :param error_type: ``HTTPResponse``, ``ConnectionError``, ``CircuitBreaker``, ``ConfigError``…
    :param message: one sentence.
    :param wall: seconds since the epoch.
    :param status: of the answer concerned, ``None`` where there was none.
    :param url: whole, as asked for.
    :param headers: of the answer.
    :param body: of the answer, as far as it was kept.
    :param context: what is known of the request: texts and numbers by name.
    :param request_headers: of the client's request.
    :param attempt: from 1, ``None`` where there was none.
    :param delay: seconds until the next attempt, ``None`` if none follows.
    :param final: no further attempt follows.
    :param breaker: its state, counts and time left, where one is in force.
    :param elapsed: seconds since the request arrived.
    :param trace: a stack trace.
    :param secrets: credentials that the client presented: they must not stand anywhere.
    """

    code: str
    error_type: str
    message: str
    wall: float
    request_id: str | None = None
    status: int | None = None
    url: str | None = field(default=None, repr=False)
    headers: RawHeaders = field(default=(), repr=False)
    body: Body | None = None
    context: Mapping[str, object] = field(default_factory=dict)
    request_headers: RawHeaders = field(default=(), repr=False)
    attempt: int | None = None
    delay: float | None = None
    final: bool = True
    breaker: Mapping[str, object] | None = None
    elapsed: float | None = None
    trace: str | None = field(default=None, repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptMade:
    """One attempt, as it goes on the record of its request.

    :param number: from 1.
    :param upstream: where it went.
    :param url: whole, as asked for.
    :param started: seconds since the epoch.
    :param duration: seconds until its answer was decided upon.
    :param status: of the answer, ``None`` when there was none.
    :param code: why it counts as failed, ``None`` when it did not fail.
    :param message: one sentence on that.
    :param delay: seconds until the next one, ``None`` if none followed.
    """

    number: int
    upstream: str
    url: str = field(repr=False)
    started: float
    duration: float
    status: int | None = None
    code: str | None = None
    message: str | None = None
    headers: RawHeaders = field(default=(), repr=False)
    body: Body | None = None
    delay: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """All that is kept of one request, for the request log.  Nothing in it is redacted as yet.

    :param finished: the event that ended it.
    :param started: seconds since the epoch, as is *ended*.
    :param form: name of the stream form of its answer, ``None`` for an answer in one piece.
    :param coding: ``Content-Encoding`` of the answer.
    :param secrets: credentials that the client presented: they must not stand anywhere.
    """

    finished: Finished
    request: Request
    started: float
    ended: float
    body: Body
    attempts: tuple[AttemptMade, ...] = ()
    response: Response | None = None
    response_body: Body | None = None
    form: str | None = None
    coding: bytes | None = None
    secrets: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A change of state that somebody made or was refused, for the audit log.  It holds no secret.

    :param who: the operator or caller: ``stdin``, ``socket uid=1000``, ``token tok_…``.
    :param address: where the call came from, ``-`` for this process.
    :param action: the verb: ``token.create``.
    :param target: id or name of what it concerns.
    :param before: members that change, as they were; ``None`` where there was nothing.
    :param outcome: ``ok``, ``refused`` or ``failed``.
    """

    who: str
    address: str
    action: str
    target: str
    before: Mapping[str, object] | None = None
    after: Mapping[str, object] | None = None
    outcome: str = "ok"
    detail: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Denied:
    """A client was refused at the door.

    :param address: of the client, without its port.
    :param code: ``token_not_found``…
    :param shown: the first characters of the token presented, where it has our form.
    """

    address: str
    code: str
    shown: str | None = None


Event = (
    Arrived
    | Finished
    | FaultsChanged
    | Retrying
    | BreakerChanged
    | CredentialRested
    | ErrorNoted
    | Recorded
    | Denied
)
