"""An admin listener with everything behind it in memory and in plain view."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.endpoints import serverFromString
from twisted.internet.threads import deferToThread

from llmproxyd.access.projects import Grant
from llmproxyd.access.tokens import digest_of
from llmproxyd.admin.operations import Operations
from llmproxyd.admin.site import make_admin
from llmproxyd.admin.socket import endpoint
from llmproxyd.cache.interface import Purge
from llmproxyd.control.caches import Caches
from llmproxyd.control.probes import Probes
from llmproxyd.control.projects import Projects
from llmproxyd.control.status import Status
from llmproxyd.control.switches import Switches
from llmproxyd.control.verbs import Control
from llmproxyd.errors import Refused
from llmproxyd.faults.choose import Engine
from llmproxyd.model import Change, Denied
from llmproxyd.redaction import Secret
from llmproxyd.resilience.breaker import BreakerPolicy
from llmproxyd.resilience.breakers import Breakers
from llmproxyd.testing.store import MemoryStore

reactor: Any = _reactor

TOKEN = "admin-token-of-the-tests"
UPSTREAMS = {
    "openai": "https://api.openai.com",
    "anthropic": "https://api.anthropic.com",
    "my-vllm": "http://127.0.0.1:8000",
}
KEY = "sk-upstreamkey-0123456789abcdef"


class FakeCache:
    """A cache that remembers what it was told to forget."""

    def __init__(self) -> None:
        self.purged: list[Purge] = []

    def stats(self) -> Mapping[str, object]:
        return {"backend": "memory", "entries": 3, "bytes": 1234, "evictions": 0, "errors": 0}

    def purge(self, what: Purge) -> Deferred[int]:
        self.purged.append(what)
        return succeed(3)


class AdminBench:
    """Control, an admin site on a Unix socket and one on TCP.

    :ivar audited: all that was put on record; it fails while :attr:`audit_down`.
    """

    def __init__(self, folder: Path, *, access: bool = True, uid: int | None = None) -> None:
        self.store = MemoryStore()
        self.audited: list[Change] = []
        self.audit_down = False
        self.denied: list[Denied] = []
        self.forgotten: list[tuple[tuple[str, ...], tuple[str, ...]]] = []
        self.cache: Any = FakeCache()
        self.wall = 1_750_000_000.0
        self.numbers = itertools.count()
        self.probed: list[str] = []
        self.breakers = Breakers(lambda event: None)
        self.breakers.of(BreakerPolicy(enabled=True), "openai", None)
        self.engine = Engine(reactor.seconds, Random(1), [])
        self.control = Control(
            self.engine,
            breakers=self.breakers,
            emit=lambda event: None,
            monotonic=reactor.seconds,
            upstreams=UPSTREAMS,
            handled=lambda: 7,
            quit=lambda: None,
            draw_seed=lambda: 5,
        )
        projects = None
        if access:
            projects = Projects(
                self.store,
                door_changed=lambda projects, tokens: self.forgotten.append((tuple(projects), tuple(tokens))),
                audit=self.audit,
                wall=lambda: self.wall,
                random_bytes=os.urandom,
                upstreams=UPSTREAMS,
            )
        self.projects: Any = projects
        find = projects.id_of if projects is not None else None
        self.operations = Operations(
            status=Status(lambda: {"version": "0", "mode": "n"}, {"cache": self.cache.stats}),
            switches=Switches(
                self.control,
                breakers=self.breakers,
                monotonic=reactor.seconds,
                audit=self.audit,
            ),
            config=lambda: {"listen": ["tcp:8888"], "admin": {"token": "[redacted]"}},
            projects=projects,
            caches=Caches(self.cache, audit=self.audit, upstreams=UPSTREAMS, project=find),
            probes=Probes(self.probe, UPSTREAMS),
        )
        self.site = make_admin(
            self.operations,
            reactor=reactor,
            token=Secret(TOKEN),
            admit=self.admit,
            denied=self.denied.append,
            uid=uid,
        )
        self.socket = folder / "admin.sock"
        self._ports: list[Any] = []

    async def listen(self) -> AdminBench:
        for where in (endpoint(self.socket), "tcp:0:interface=127.0.0.1"):
            self._ports.append(await serverFromString(reactor, where).listen(self.site))
        self.port = self._ports[1].getHost().port
        return self

    async def close(self) -> None:
        for port in self._ports:
            await maybeDeferred(port.stopListening)

    def audit(self, change: Change) -> Deferred[None]:
        if self.audit_down:
            return fail(OSError("no space left on device"))
        self.audited.append(change)
        return succeed(None)

    def admit(self, token: str) -> Deferred[Grant]:
        return Deferred.fromCoroutine(self._admit(token))

    async def _admit(self, text: str) -> Grant:
        if self.store.down:
            raise Refused(503, "store_unavailable", "down")
        token = await self.store.token_by_digest(digest_of(text))
        if token is None:
            raise Refused(401, "token_not_found", "no such token")
        project = await self.store.project(token.project)
        assert project is not None
        return Grant(project, token)

    def probe(self, upstream: str) -> Deferred[Mapping[str, object]]:
        self.probed.append(upstream)
        sent = {"method": "GET", "url": UPSTREAMS[upstream] + "/v1/models", "headers": []}
        return succeed({"ok": True, "verdict": "answers", "sent": sent, "received": None, "duration": 0.1})

    # Asking.

    async def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        raw: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        tcp: bool = False,
        token: str | None = TOKEN,
    ) -> Reply:
        """One request by a client of its own, in another thread."""
        data = raw if raw is not None else None if body is None else json.dumps(body).encode()
        fields = {"Content-Type": "application/json"} if data is not None else {}
        if tcp and token is not None:
            fields["Authorization"] = f"Bearer {token}"
        fields.update(headers or {})
        connection: http.client.HTTPConnection
        if tcp:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        else:
            connection = UnixConnection(self.socket)
        target = path if path.startswith(("/admin", "http", "*")) else f"/admin/v1{path}"
        return await deferToThread(exchange, connection, method, target, data, fields)


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=20)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(20)
        self.sock.connect(str(self._path))


class Reply:
    """What came back."""

    def __init__(self, status: int, headers: Any, data: bytes) -> None:
        self.status = status
        self.headers = headers
        self.data = data

    @property
    def json(self) -> Any:
        return json.loads(self.data)

    @property
    def code(self) -> str:
        return str(self.json["error"]["code"])

    def __repr__(self) -> str:
        return f"<{self.status} {self.data!r}>"


def exchange(
    connection: http.client.HTTPConnection, method: str, target: str, data: bytes | None, fields: Any
) -> Reply:
    try:
        connection.request(method, target, data, fields)
        answer = connection.getresponse()
        return Reply(answer.status, answer.headers, answer.read())
    finally:
        connection.close()
