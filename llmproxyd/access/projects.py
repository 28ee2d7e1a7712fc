"""Projects, their tokens, and what a token that was presented is good for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from llmproxyd.access.allowlist import Allow
from llmproxyd.redaction import Secret


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
        429 ``rate_limit_exceeded`` when ``max_requests`` are used up.
    """
    raise NotImplementedError
