"""Makes stores of every kind, and what is put into them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest_twisted
from twisted.internet import reactor

from llmproxyd.access.allowlist import Allow
from llmproxyd.access.projects import Limits, Project, Scope, Token
from llmproxyd.redaction import Secret
from llmproxyd.store.sql import SQLStore, store_for

KEY = Secret("a secret key of the operator's")


def digest_of(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def project_named(name: str = "team", **more: Any) -> Project:
    return Project(id=more.pop("id", f"proj_{name}"), name=name, **more)


def full_project() -> Project:
    """One with all that a project can have."""
    return Project(
        id="proj_full",
        name="full",
        active=False,
        credentials={"openai": Secret("sk-real-key"), "ollama": Secret("")},
        allow=Allow(
            endpoints=("/v1/models", "/v1/files/"),
            methods=("GET", "POST"),
            params={"model": ("gpt-4o", "gpt-4o-*")},
            origins=("https://example.org",),
            required_headers=("x-team: a",),
        ),
        limits=Limits(60, 100_000),
        created=1.5,
        updated=2.5,
    )


def token_named(name: str = "t", project: str = "proj_team", /, **more: Any) -> Token:
    text = more.pop("text", f"sk-{name}")
    return Token(
        id=more.pop("id", f"tok_{name}"), project=project, digest=digest_of(text), shown=text[:7], **more
    )


def full_token(project: str = "proj_full") -> Token:
    return token_named(
        "full",
        project,
        name="for the build",
        active=False,
        expires_at=4e9,
        max_requests=100,
        limits=Limits(1, 2),
        scopes=frozenset(Scope),
        created=3.25,
    )


class Kind:
    """One kind of database: makes stores of one and the same database."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self.made: list[SQLStore] = []

    def store(self, key: Secret | None = KEY) -> SQLStore:
        store = store_for(Secret(self.url), key, reactor, state_folder=self.folder)
        self.made.append(store)
        return store

    def opened(self, key: Secret | None = KEY) -> SQLStore:
        store = self.store(key)
        pytest_twisted.blockon(store.open())
        return store

    def close(self) -> None:
        for store in self.made:
            pytest_twisted.blockon(store.close())
