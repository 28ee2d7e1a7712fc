"""Fixtures of the tests of the cache on the way of a request."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from bench import Bench
from cachebench import CacheBench, RedisServer

from llmproxyd.testing.upstream import FakeUpstream


@pytest.fixture(scope="session")
def cache_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A server that no test ends."""
    made = RedisServer(tmp_path_factory.mktemp("redis"), unix=True)
    yield made
    made.kill()


@pytest.fixture(params=["memory", "redis"])
def cached(request: pytest.FixtureRequest, bench: Bench, upstream: FakeUpstream) -> CacheBench:
    """Proxies with a cache, on each backend."""
    server = request.getfixturevalue("cache_server") if request.param == "redis" else None
    return CacheBench(bench, upstream, server)


@pytest.fixture
def cached_here(bench: Bench, upstream: FakeUpstream) -> CacheBench:
    """Proxies with a cache in memory, where the backend does not matter."""
    return CacheBench(bench, upstream, None)


@pytest.fixture
def cached_in_redis(bench: Bench, upstream: FakeUpstream, cache_server: RedisServer) -> CacheBench:
    """Proxies with a cache in Redis."""
    return CacheBench(bench, upstream, cache_server)
