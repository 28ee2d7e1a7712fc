"""What the tests of the cache on the way of a request share: both backends, and what to ask."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from bench import Bench, reactor
from wireclient import Answer, Client, get, request, until

sys.path.insert(0, str(Path(__file__).parents[1]))

from redisserver import RedisServer as RedisServer

from llmproxyd.access.projects import Grant, Project, Token
from llmproxyd.errors import Refused
from llmproxyd.gateway import NO_PARTS, Parts
from llmproxyd.providers.registry import registry
from llmproxyd.redaction import Secret
from llmproxyd.testing.proxy import ProxyUnderTest
from llmproxyd.testing.upstream import FakeUpstream, Send, answer

MODELS = b"/v1/models"
CHAT = b"/v1/chat/completions"
KEY = b"Authorization: Bearer sk-alice"
OTHER = b"Authorization: Bearer sk-bob"
FRESH = b"Cache-Control: public, max-age=60"
OPT_IN = b"Cache-Control: public, max-age=60"
ASK = get(MODELS, KEY)
POST_RULE: dict[str, Any] = {"rules": [{"path": "/v1/*", "methods": ["POST"], "default_ttl": "60s"}]}

STATUS = re.compile(
    rb"llmproxyd(?:; (?:hit|fwd=[a-z-]+|fwd-status=[1-9][0-9]{2}|ttl=-?[0-9]+|stored|collapsed(?:=\?0)?|detail=[a-z-]+))+"
)
"""A Cache-Status of ours: a structured field (RFC 9211)."""


class CacheBench:
    """Proxies with a cache, on one of the backends, before one upstream.

    :ivar keys: an own prefix in Redis, so that tests do not meet.
    :ivar made: what a test wants to find again.
    """

    count = 0

    def __init__(self, bench: Bench, upstream: FakeUpstream, redis: RedisServer | None) -> None:
        self.bench, self.upstream, self.redis = bench, upstream, redis
        self.made: list[Any] = []
        CacheBench.count += 1
        self.keys = f"t{CacheBench.count}:"

    async def proxy(
        self, *, cache: Any = None, parts: Parts = NO_PARTS, upstreams: Any = None, **settings: Any
    ) -> ProxyUnderTest:
        wanted: dict[str, Any] = {"enabled": True, "key_prefix": self.keys}
        if self.redis is not None:
            wanted |= {"backend": "redis", "redis_url": self.redis.url.reveal()}
        known: dict[str, Any] = {name: {"base_url": self.upstream.url} for name in registry()}
        for name, more in (upstreams or {}).items():
            known[name] = known.get(name, {}) | more
        given = {"upstreams": known, "cache": wanted | (cache or {}), **settings}
        made = ProxyUnderTest(reactor, given, parts=parts).start()
        self.bench._proxies.append(made)
        gateway = made.daemon.works.gateway
        if gateway.redis is not None:
            gateway.redis.open()
            await until(lambda: gateway.redis is not None and gateway.redis.up, "Redis")
        return made

    async def client(self, proxy: ProxyUnderTest) -> Client:
        return await self.bench.client(proxy)

    async def ask(self, proxy: ProxyUnderTest, *requests: bytes) -> list[Answer]:
        """The answers to *requests*, one after the other on one connection.

        What is to be kept is kept before the next one is asked for.
        """
        client = await self.client(proxy)
        found = []
        for one in requests:
            found.append(await client.ask(one))
            await self.settled(proxy)
        return found

    async def settled(self, proxy: ProxyUnderTest) -> None:
        """Wait until what was put into Redis is there."""
        link = proxy.daemon.works.gateway.redis
        if link is not None:
            await until(lambda: not any(one.calls for one in link._ready), "what was put")

    async def asked(self, count: int) -> None:
        """Wait until the upstream has had so many requests."""
        await until(lambda: len(self.upstream.requests) >= count, f"{count} requests")
        assert len(self.upstream.requests) == count


def numbered(upstream: FakeUpstream, *fields: bytes, body: bytes = b"body", **more: Any) -> None:
    """Each answer tells its number."""
    count = iter(range(1, 10_000))

    def script() -> list[Any]:
        return [Send(answer(b"%b %d" % (body, next(count)), *fields, **more))]

    upstream.next_script = script  # type: ignore[method-assign]


def told(got: Answer) -> bytes:
    """The one Cache-Status, which is well formed."""
    (value,) = got.all(b"cache-status")
    assert STATUS.fullmatch(value), value
    (short,) = got.all(b"x-cache-status")
    assert short in (b"hit", b"miss", b"bypass")
    assert len(got.all(b"x-cache-debug")) == 1
    return value


def results(proxy: ProxyUnderTest) -> list[str | None]:
    """What the events say that the cache did, in order."""
    return [one.cache for one in proxy.finished]


def shelf_of(proxy: ProxyUnderTest) -> Any:
    return proxy.daemon.pipeline.shelf


def at_rest(proxy: ProxyUnderTest) -> None:
    """Nothing is under way, and nothing of it is left."""
    shelf = shelf_of(proxy)
    assert shelf.flights == {}
    assert shelf.asking == set()
    assert shelf.gathered == 0
    assert not proxy.daemon.pipeline.active


def chat(body: bytes = b'{"model":"m"}', *fields: bytes) -> bytes:
    return request(CHAT, b"Content-Type: application/json", *fields, body=body)


class Doors:
    """A door that knows some tokens.

    :param projects: by token.
    :param own: each project has a key of its own at the upstream, which is called as it is.
    """

    ready = True

    def __init__(self, projects: dict[str, str], *, own: bool = False) -> None:
        self.counted: list[str] = []
        self._grants = {
            token: Grant(
                Project(
                    id=project,
                    name=project,
                    credentials={"openai": Secret(project if own else "sk-upstream")},
                ),
                Token(id=f"tok_{token}", project=project, digest=b"", shown=token[:7]),
            )
            for token, project in projects.items()
        }

    def admit(self, token: str) -> Grant:
        if token not in self._grants:
            raise Refused(401, "token_not_found", "There is no such token.")
        self.counted.append(token)
        return self._grants[token]

    def again(self, grant: Grant) -> bool:
        return False

    def returned(self, grant: Grant) -> None:
        """Not counted."""

    def used(self, grant: Grant, model: str, input: int, output: int, cost: float, requests: int = 1) -> None:
        """Not counted."""
