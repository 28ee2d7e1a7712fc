"""Projects, their tokens, and what a token that was presented is good for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from llmproxyd.access.allowlist import Allow
from llmproxyd.access.presented import CHALLENGE
from llmproxyd.errors import Refused
from llmproxyd.redaction import Secret

USED_UP_WAIT = 86_400
"""Seconds in the ``Retry-After`` of a token whose requests are used up.

Waiting does not help, but somebody may raise the number; SDKs do not retry after so long a time.
"""

MAX_LIMIT = 10**12
"""No limit can be larger: it is none, and databases hold no more."""

MAX_NAME = 100
"""Characters of a name."""

_INACTIVE = "This token was deactivated; ask whoever runs this proxy for another one."
_EXPIRED = "This token has expired; ask whoever runs this proxy for a new one."
_PROJECT_INACTIVE = "The project of this token is not active; ask whoever runs this proxy to activate it."
_USED_UP = (
    "The requests that this token was made for are used up; waiting does not help, ask whoever runs this "
    "proxy for more."
)


class Scope(StrEnum):
    """What a token may do beside sending requests."""

    FAULT = "fault"
    """Ask for a fault of its own with ``x-llmproxyd-fault``."""
    ADMIN = "admin"
    """Use the admin API."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What may be used in a minute; ``None`` for any amount.

    :param rpm: requests.
    :param tpm: tokens, input and output together, as the provider counts them.
    """

    rpm: int | None = None
    tpm: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """Those who share credentials, allowlists and limits.

    :param id: ``proj_`` and 16 characters of base32 lower case, or what its maker chose.
    :param credentials: the provider's key by the upstream's name; an empty one lets requests go there
        without any.  An upstream that is not named may not be used.
    :param allow: holds at all upstreams, beside their own.
    :param limits: of all its tokens together.
    :param created: seconds since the epoch, as is *updated*.
    """

    id: str
    name: str
    active: bool = True
    credentials: Mapping[str, Secret] = field(default_factory=lambda: MappingProxyType({}))
    allow: Allow = Allow()
    limits: Limits = Limits()
    created: float = 0.0
    updated: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """What a client presents instead of a provider's key.

    :param id: ``tok_`` and 16 characters of base32 lower case.
    :param project: id of the project.
    :param digest: SHA-256 of the token; the token itself is kept nowhere.
    :param shown: its first characters, by which people know it (``sk-Ab3x…``).
    :param name: what it is for, in its maker's words.
    :param expires_at: seconds since the epoch; ``None`` for never.
    :param max_requests: over its whole life.
    :param last_used: seconds since the epoch, ``None`` before the first use.
    :param requests: counted so far, as are *tokens* (of models).
    """

    id: str
    project: str
    digest: bytes = field(repr=False)
    shown: str
    name: str = ""
    active: bool = True
    expires_at: float | None = None
    max_requests: int | None = None
    limits: Limits = Limits()
    scopes: frozenset[Scope] = frozenset()
    created: float = 0.0
    last_used: float | None = None
    requests: int = 0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Grant:
    """A token that was found good, and its project: what a request may do.

    The same object stands for the same state of both, so it can be compared by identity.
    """

    project: Project
    token: Token


def check(project: Project, token: Token, wall: float, *, used: int, enforce_active: bool = True) -> None:
    """Refuse what may not be used at *wall* (seconds since the epoch).

    :param used: requests counted so far, this one not included.
    :raises Refused: 401 ``token_inactive``, ``token_expired``; 403 ``project_inactive``;
        429 ``rate_limit_exceeded`` when ``max_requests`` are used up, which no waiting mends: what
        ``Retry-After`` names is long enough for clients to give up.
    """
    if not token.active:
        raise Refused(401, "token_inactive", _INACTIVE, CHALLENGE)
    if token.expires_at is not None and wall >= token.expires_at:
        raise Refused(401, "token_expired", _EXPIRED, CHALLENGE)
    if enforce_active and not project.active:
        raise Refused(403, "project_inactive", _PROJECT_INACTIVE)
    if token.max_requests is not None and used >= token.max_requests:
        raise Refused(429, "rate_limit_exceeded", _USED_UP, ((b"retry-after", b"%d" % USED_UP_WAIT),))


def valid_name(text: str) -> str:
    """The name of a project, or what a token is for, without space around it.

    :raises ValueError: it is empty, too long or holds what cannot be seen.
    """
    name = text.strip()
    if not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise ValueError(f"accepted: a name of 1 to {MAX_NAME} visible characters")
    return name


def valid_limit(value: object) -> int | None:
    """A limit of requests or tokens; ``None`` for none.

    :raises ValueError: it is no whole number from 1 to :data:`MAX_LIMIT`.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_LIMIT:
        raise ValueError(f"accepted: a whole number from 1 to {MAX_LIMIT}, or none for no limit")
    return value


def project_problems(project: Project) -> Iterator[tuple[str, str]]:
    """What is wrong with a project that somebody made: key and words."""
    yield from _name_problems(project.name)
    for upstream, key in project.credentials.items():
        if not all("!" <= char <= "~" for char in key.reveal()):
            yield f"credentials.{upstream}", "accepted: visible ASCII characters; nothing for no credential"
    for name, text in project.allow.problems():
        yield f"allow.{name}", text
    yield from _limit_problems(project.limits)


def _name_problems(name: str) -> Iterator[tuple[str, str]]:
    try:
        if valid_name(name) != name:
            yield "name", "accepted: a name without space around it"
    except ValueError as error:
        yield "name", str(error)


def _limit_problems(limits: Limits) -> Iterator[tuple[str, str]]:
    yield from _limit_problem("limits.rpm", limits.rpm)
    yield from _limit_problem("limits.tpm", limits.tpm)


def _limit_problem(key: str, value: int | None) -> Iterator[tuple[str, str]]:
    try:
        valid_limit(value)
    except ValueError as error:
        yield key, str(error)
