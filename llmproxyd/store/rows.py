"""Projects and tokens as rows of a table, and back."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from llmproxyd.access.allowlist import Allow
from llmproxyd.access.projects import Limits, Project, Scope, Token
from llmproxyd.redaction import Secret
from llmproxyd.store.interface import Used
from llmproxyd.store.session import Row

PROJECT = "id, name, active, allow, rpm, tpm, created, updated"
TOKEN = (
    "id, project, digest, shown, name, active, expires_at, max_requests, rpm, tpm, scopes, "
    "created, last_used, requests, tokens"
)
"""Columns, in the order of the rows here."""

MAX_TEXT = 1000
"""Bytes of an id or a name."""

_INTEGER = 1 << 63


def project_row(project: Project) -> Row:
    """The row of *project*, without its credentials.

    :raises ValueError: a value cannot be kept.
    """
    for upstream in project.credentials:
        text(upstream, "an upstream's name")
    return (
        text(project.id, "a project's id"),
        text(project.name, "a project's name"),
        project.active,
        _allow_text(project.allow),
        number(project.limits.rpm, "rpm"),
        number(project.limits.tpm, "tpm"),
        moment(project.created, "created"),
        moment(project.updated, "updated"),
    )


def project_of(row: Row, credentials: Mapping[str, Secret]) -> Project:
    """The project of *row*."""
    id, name, active, allow, rpm, tpm, created, updated = row
    return Project(
        id=id,
        name=name,
        active=bool(active),
        credentials=MappingProxyType(dict(credentials)),
        allow=_allow_of(allow),
        limits=Limits(rpm, tpm),
        created=created,
        updated=updated,
    )


def token_row(token: Token) -> Row:
    """The row of *token*.

    :raises ValueError: a value cannot be kept.
    """
    return (
        text(token.id, "a token's id"),
        text(token.project, "a project's id"),
        token.digest,
        text(token.shown, "what is shown of a token"),
        text(token.name, "a token's name"),
        token.active,
        moment(token.expires_at, "expires_at"),
        number(token.max_requests, "max_requests"),
        number(token.limits.rpm, "rpm"),
        number(token.limits.tpm, "tpm"),
        " ".join(sorted(token.scopes)),
        moment(token.created, "created"),
        moment(token.last_used, "last_used"),
        number(token.requests, "requests"),
        number(token.tokens, "tokens"),
    )


def token_of(row: Row) -> Token:
    """The token of *row*; scopes that a later program gave it are left out."""
    known = {scope.value: scope for scope in Scope}
    return Token(
        id=row[0],
        project=row[1],
        digest=bytes(row[2]),
        shown=row[3],
        name=row[4],
        active=bool(row[5]),
        expires_at=row[6],
        max_requests=row[7],
        limits=Limits(row[8], row[9]),
        scopes=frozenset(known[name] for name in row[10].split() if name in known),
        created=row[11],
        last_used=row[12],
        requests=row[13],
        tokens=row[14],
    )


def same_but_counts(one: Token, other: Token) -> bool:
    """Whether nothing but what is counted differs."""
    return replace(one, requests=other.requests, tokens=other.tokens, last_used=other.last_used) == other


def used_row(used: Used) -> Row:
    """The row of *used* in the table of usage.

    :raises ValueError: a value cannot be kept.
    """
    return (
        text(used.day, "a day"),
        text(used.project, "a project's id"),
        text(used.token, "a token's id"),
        text(used.model, "a model's name"),
        number(used.requests, "requests"),
        number(used.input, "input"),
        number(used.output, "output"),
        moment(used.cost, "cost"),
    )


def text(value: str, what: str) -> str:
    """*value*, as every database takes it.

    :raises ValueError: one would not; in words.
    """
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise ValueError(f"{what} must be proper Unicode") from None
    if size > MAX_TEXT:
        raise ValueError(f"{what} must not be longer than {MAX_TEXT} bytes")
    if "\0" in value:
        raise ValueError(f"{what} must not contain NUL")
    return value


def possible(id: str) -> bool:
    """Whether anything that is kept could have this id."""
    try:
        text(id, "an id")
    except ValueError:
        return False
    return True


def number(value: int | None, what: str) -> int | None:
    """*value*, if it has 64 bits.

    :raises ValueError: it has more.
    """
    if value is not None and not -_INTEGER <= value < _INTEGER:
        raise ValueError(f"{what} is too large")
    return value


def moment(value: float | None, what: str) -> float | None:
    """*value*, if it is finite.

    :raises ValueError: it is not.
    """
    if value is not None and not math.isfinite(value):
        raise ValueError(f"{what} must be a finite number")
    return None if value is None else float(value)


def _allow_text(allow: Allow) -> str:
    """*allow* as JSON in ASCII."""
    return json.dumps(
        {
            "endpoints": allow.endpoints,
            "methods": allow.methods,
            "params": {name: list(values) for name, values in allow.params.items()},
            "origins": allow.origins,
            "required_headers": allow.required_headers,
        }
    )


def _allow_of(text: str) -> Allow:
    known: dict[str, Any] = json.loads(text)
    return Allow(
        endpoints=tuple(known["endpoints"]),
        methods=tuple(known["methods"]),
        params=MappingProxyType({name: tuple(values) for name, values in known["params"].items()}),
        origins=tuple(known["origins"]),
        required_headers=tuple(known["required_headers"]),
    )
