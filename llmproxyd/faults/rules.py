"""What a rehearsed fault is: which requests, which error, when.

A rule is a frozen value, whoever made it: the operator's mode, an entry of ``faults.rules``
in the file, or a request's own ``x-llmproxyd-fault`` field.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from llmproxyd.providers.base import EndpointKind, ErrorKind

UNKNOWN = "unknown"
"""The seed's ``u``: the server error that each provider is known for (500, 503 or 529)."""

FaultKind = ErrorKind | str
"""An :class:`ErrorKind`, or :data:`UNKNOWN`."""


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
    """

    kind: EndpointKind
    upstream: str
    path: str
    model: str | None = None
    streaming: bool | None = None


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
    """

    name: str
    kind: FaultKind
    when: When = Times(1)
    match: Match = Match()
    after: int = 0
    lasts: float | None = None
    retry_after: float | None = None
