"""What a rehearsed fault is: which requests, which error, when.

A rule is a frozen value, whoever made it: the operator's mode, an entry of ``faults.rules``
in the file, or a request's own ``x-llmproxyd-fault`` field.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase

from llmproxyd.providers.base import EndpointKind, ErrorKind

UNKNOWN = "unknown"
"""The seed's ``u``: the server error that each provider is known for (500, 503 or 529)."""


class Breakage(StrEnum):
    """What goes wrong on the wire rather than in an error's words."""

    CUT = "cut"
    """The connection is closed in the middle of the answer."""
    RESET = "reset"
    """The same by a TCP reset."""
    STALL = "stall"
    """Nothing comes for a while, then the answer goes on."""
    STREAM_ERROR = "stream_error"
    """The provider's own error event within the stream, which ends with it."""
    GARBAGE = "garbage"
    """An event whose JSON is broken; the stream goes on."""
    TRUNCATE = "truncate"
    """A clean end of the body, without what closes a complete stream."""
    DUPLICATE = "duplicate"
    """An event comes twice."""
    REORDER = "reorder"
    """An event comes after the one that should follow it."""
    NO_USAGE = "no_usage"
    """The counts of tokens are left out."""
    EMPTY = "empty"
    """A stream without content."""
    WRONG_LENGTH = "wrong_length"
    """A ``Content-Length`` that is too large or too small."""
    SLOW = "slow"
    """Everything comes, at a pace."""
    DELAY = "delay"
    """The head of the answer comes late."""
    REFUSE = "refuse"
    """The connection is closed without an answer."""
    NEVER = "never"
    """The request is taken, and no answer comes."""
    STATUS = "status"
    """An answer with any status and body."""


FaultKind = ErrorKind | Breakage | str
"""An :class:`ErrorKind`, a :class:`Breakage`, or :data:`UNKNOWN`."""


class Side(StrEnum):
    """Where a fault happens (``place=``)."""

    CLIENT = "client"
    """In front of everything: the client sees it."""
    UPSTREAM = "upstream"
    """Within attempts: retries, the hold and the breaker see it."""


class Spot(StrEnum):
    """Which place in an answer a fault waits for (``at=``)."""

    START = "start"
    """Before the first content."""
    EVENTS = "events"
    """After so many content events."""
    PERCENT = "percent"
    """After so many hundredths of the bytes, where the length is known."""
    BYTES = "bytes"
    """After so many bytes of the body as the client gets it, uncoded."""
    TOOL = "tool"
    """Within the arguments of the first call of a tool."""
    END = "end"
    """In place of what closes the stream."""


@dataclass(frozen=True, slots=True)
class At:
    """A place in an answer.

    :param number: of events, hundredths or bytes; 0 for the other spots.
    """

    spot: Spot
    number: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How a breakage is done; each kind reads what concerns it.

    :param at: where it happens; ``None`` is where the kind does by default.
    :param error: of a ``stream_error``; ``None`` is the provider's ``unknown``.
    :param silence: seconds of a ``stall`` or a ``delay``; ``None`` lasts as long as anybody waits.
    :param first_token: seconds before the first content, of ``slow``.
    :param per_event: seconds before each further content event.
    :param tokens_per_second: pace of the content, four characters for a token.
    :param jitter: share by which each of these waits may be longer or shorter, from 0 to 1.
    :param status: of a ``status``.
    :param file: name of the file that holds its body, as written.
    :param body: what was read of it.
    :param media: its media type.
    :param excess: bytes by which a ``wrong_length`` is too large; too small where negative.
    """

    at: At | None = None
    error: ErrorKind | None = None
    silence: float | None = None
    first_token: float | None = None
    per_event: float | None = None
    tokens_per_second: float | None = None
    jitter: float = 0.0
    status: int = 0
    file: str | None = None
    body: bytes = field(default=b"", repr=False)
    media: str = "application/json"
    excess: int = 0


@dataclass(frozen=True, slots=True)
class Times:
    """The next *count* eligible requests."""

    count: int


@dataclass(frozen=True, slots=True)
class Share:
    """Each eligible request with probability *fraction*, drawn independently."""

    fraction: float


@dataclass(frozen=True, slots=True)
class Always:
    """Every eligible request."""


When = Times | Share | Always


@dataclass(frozen=True, slots=True)
class Subject:
    """What a rule may look at of one request.

    :param model: as asked for, ``None`` when unknown or not looked up.
    :param streaming: whether a stream is asked for, ``None`` when unknown.
    :param test: the test that it belongs to (``x-llmproxyd-test``), ``None`` for none.
    """

    kind: EndpointKind
    upstream: str
    path: str
    model: str | None = None
    streaming: bool | None = None
    test: str | None = None


@dataclass(frozen=True, slots=True)
class Match:
    """Which requests a rule is for.  Globs as in the shell, case-sensitive."""

    upstream: str | None = None
    model: str | None = None
    path: str | None = None
    streaming: bool | None = None
    kinds: frozenset[EndpointKind] = field(default=frozenset({EndpointKind.INFERENCE}))

    @property
    def reads_body(self) -> bool:
        """Whether the model or the wish for a stream must be known to decide."""
        return self.model is not None or self.streaming is not None

    def matches(self, subject: Subject) -> bool:
        """Whether *subject* is eligible."""
        return (
            subject.kind in self.kinds
            and (self.upstream is None or self.upstream == subject.upstream)
            and (self.path is None or fnmatchcase(subject.path, self.path))
            and (self.streaming is None or self.streaming == subject.streaming)
            and (self.model is None or (subject.model is not None and fnmatchcase(subject.model, self.model)))
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One fault.

    :param name: the operator's mode is ``mode``, the field's fault ``header``.
    :param after: so many eligible requests pass first.
    :param lasts: seconds after which it is off, ``None`` for no end.
    :param retry_after: seconds told to the client, ``None`` tells nothing; 0 is legal.
    :param most: hits after which it is off, whatever *when* says; ``None`` for any number.
    :param side: where it happens.
    :param manner: how, of a breakage.
    """

    name: str
    kind: FaultKind
    when: When = Times(1)
    match: Match = Match()
    after: int = 0
    lasts: float | None = None
    retry_after: float | None = None
    most: int | None = None
    side: Side = Side.CLIENT
    manner: Manner = Manner()
