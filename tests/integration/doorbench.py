"""A proxy with access on, before one upstream; projects and tokens are made as a test needs them."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from bench import Bench, reactor
from twisted.internet.defer import Deferred
from wireclient import Answer, get, request

from llmproxyd.access.allowlist import Allow
from llmproxyd.access.projects import Limits, Project, Token
from llmproxyd.access.tokens import digest_of, new_token, shown
from llmproxyd.admin.socket import endpoint
from llmproxyd.gateway import Parts
from llmproxyd.model import Denied
from llmproxyd.providers.registry import registry
from llmproxyd.redaction import Secret
from llmproxyd.store.doorkeeper import Doorkeeper
from llmproxyd.testing.proxy import ProxyUnderTest
from llmproxyd.testing.store import MemoryStore
from llmproxyd.testing.upstream import FakeUpstream, Received, Send, json_answer

T = TypeVar("T")

CHAT = b"/v1/chat/completions"
MODELS = b"/v1/models"
MESSAGES = b"/v1/messages"
GEMINI = b"/v1beta/models/gemini-2.5-flash:generateContent"
OK = Send(json_answer({"ok": True}))
BODY = b'{"model":"gpt-4o","messages":[]}'

CANARY = "CANARYkey"
"""Stands in the credential of every project, for every upstream."""


def key_for(upstream: str) -> str:
    # No form that anybody would know for a key.
    return f"{CANARY}{upstream}0123456789abcdef"


class SlowStore(MemoryStore):
    """Answers to questions for tokens wait for :meth:`release` while ``slow`` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.slow = False
        self.waiting: list[Callable[[], None]] = []

    def _do(self, name: str, work: Callable[[], T]) -> Deferred[T]:
        if not self.slow or name != "token_by_digest":
            return super()._do(name, work)
        later: Deferred[T] = Deferred()
        self.waiting.append(lambda: (super(SlowStore, self)._do(name, work).chainDeferred(later), None)[1])
        self.calls["asked"] += 1
        return later

    def release(self) -> None:
        while self.waiting:
            self.waiting.pop(0)()


class DoorBench(Bench):
    """Proxies whose clients present tokens.

    :ivar store: of the last proxy.
    """

    def __init__(self, upstream: FakeUpstream) -> None:
        super().__init__(upstream)
        upstream.scripts = [[OK]]
        self.upstream = upstream
        self.folder = Path(tempfile.mkdtemp(prefix="door"))
        self.store: Any = None
        self._numbers = count(1)

    async def gateway(
        self, *, store: Any = None, door: Any = None, limiter: Any = None, **settings: Any
    ) -> ProxyUnderTest:
        """A proxy with access on, before a store in memory unless one is given.

        :param store: ``"sqlite"`` for a real file, or the one to use.
        """
        url = self.upstream.url
        upstreams: dict[str, Any] = {name: {"base_url": url} for name in registry()}
        for name, more in settings.pop("upstreams", {}).items():
            upstreams[name] = upstreams.get(name, {"base_url": url}) | more
        access = {"enabled": True, **settings.pop("access", {})}
        wanted = {
            "upstreams": upstreams,
            "access": access,
            "admin": {"listen": endpoint(self.folder / f"{next(self._numbers)}.sock")},
            **settings,
        }
        if store == "sqlite":
            parts = Parts(limiter=limiter)
        else:
            self.store = MemoryStore() if store is None else store
            enforce = access.get("enforce_active", True)
            keeper = door or Doorkeeper(self.store, reactor, time.time, enforce_active=enforce)
            parts = Parts(door=keeper, limiter=limiter)
        environ = {"STATE_DIRECTORY": str(self.folder)}
        proxy = ProxyUnderTest(reactor, wanted, environ=environ, parts=parts).start()
        self._proxies.append(proxy)
        await proxy.open()
        if store == "sqlite":
            self.store = proxy.daemon.works.gateway.store
        return proxy

    async def project(
        self,
        *,
        credentials: Mapping[str, str] | None = None,
        allow: Allow | None = None,
        limits: Limits | None = None,
        **more: Any,
    ) -> Project:
        """A project with a credential for every upstream, unless *credentials* are given."""
        keys = {name: key_for(name) for name in registry()} if credentials is None else credentials
        number = next(self._numbers)
        made = Project(
            id=more.pop("id", f"proj_{number}"),
            name=f"project {number}",
            credentials={name: Secret(key) for name, key in keys.items()},
            allow=allow or Allow(),
            limits=limits or Limits(),
            **more,
        )
        await self.store.create_project(made)
        return made

    async def token(self, project: Project | None = None, **more: Any) -> str:
        """A token of *project*, or of a new one; its text."""
        text = new_token(b"%016d" % next(self._numbers))
        # Otherwise all tokens would begin alike, and so would what is shown of them.
        text = text[:3] + text[-8:] + text[3:-8]
        made = project or await self.project()
        await self.store.create_token(
            Token(
                id=f"tok_{next(self._numbers)}",
                project=made.id,
                digest=digest_of(text),
                shown=shown(text),
                **more,
            )
        )
        return text

    async def change(self, proxy: ProxyUnderTest, project: Project, **more: Any) -> None:
        """Change *project* as the admin API does."""
        await self.store.update_project(replace(project, **more))
        door_of(proxy).changed(projects=[project.id])

    async def change_token(self, proxy: ProxyUnderTest, text: str, **more: Any) -> None:
        found = await self.store.token_by_digest(digest_of(text))
        await self.store.update_token(replace(found, **more))
        door_of(proxy).changed(tokens=[found.id])

    async def counted(self, proxy: ProxyUnderTest, text: str) -> int:
        """The requests of a token that count, as the next one would be told."""
        door = door_of(proxy)
        digest = digest_of(text)
        entry = door._remembered.entries.get(digest)
        if entry is not None:
            return entry.count.known
        found = await self.store.token_by_digest(digest)
        return found.requests

    async def close(self) -> None:
        await super().close()
        shutil.rmtree(self.folder, ignore_errors=True)


def door_of(proxy: ProxyUnderTest) -> Doorkeeper:
    door = proxy.daemon.works.gateway.door
    assert isinstance(door, Doorkeeper)
    return door


def denied(proxy: ProxyUnderTest) -> list[Denied]:
    return [event for event in proxy.sink.events if isinstance(event, Denied)]


def bearer(token: str) -> bytes:
    return b"Authorization: Bearer " + token.encode()


def chat(token: str | None, *fields: bytes, body: bytes = BODY, target: bytes = CHAT) -> bytes:
    """An OpenAI chat request that presents *token*."""
    first = () if token is None else (bearer(token),)
    return request(target, *first, b"Content-Type: application/json", *fields, body=body)


def models(token: str | None, *fields: bytes, target: bytes = MODELS) -> bytes:
    return get(target, *(() if token is None else (bearer(token),)), *fields)


def code_of(got: Answer) -> Any:
    """The stable code of an error, wherever the provider's shape has it."""
    value = got.json
    value = value[0] if isinstance(value, list) else value
    if "error_code" in value:
        return value["error_code"]
    error = value["error"]
    if isinstance(error, Mapping):
        if "details" in error and isinstance(error["details"], Mapping):
            return error["details"]["error_code"]
        for detail in error.get("details", ()):
            if "reason" in detail:
                return detail["reason"]
        return error.get("code")
    return error


def check_refused(got: Answer, status: int, code: str) -> None:
    assert (got.status, got.get(b"x-llmproxyd-code")) == (status, code.encode()), got.raw
    assert got.get(b"x-llmproxyd-error") == b"proxy"
    assert got.get(b"content-type") == b"application/json"


def nowhere(received: Received, secret: str) -> None:
    """Assert that *secret* stands nowhere in what the upstream received."""
    assert secret.encode() not in received.raw, received.raw
