"""The rules of RFC 9111, played against the cache on a real Redis server."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from bench import reactor
from twisted.internet.defer import ensureDeferred
from wireclient import until

sys.path.insert(0, str(Path(__file__).parents[1]))

from cacherules.cases import CASES
from cacherules.harness import Case, play
from redisserver import RedisServer

from llmproxyd.cache.redis import RedisCache
from llmproxyd.redis.link import RedisLink

_numbers = count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    made = RedisServer(tmp_path_factory.mktemp("redis"), unix=True)
    yield made
    made.kill()


@pytest.fixture
def link(_nothing_left: None, server: RedisServer) -> Iterator[RedisLink]:
    # The table says what is served, not how soon.
    made = RedisLink(reactor, server.url, timeout=2.0)
    yield made
    pytest_twisted.blockon(made.close())


@pytest.mark.parametrize("section", sorted({one.section for one in CASES}))
@pytest_twisted.ensureDeferred
async def test_rules_of_section(link: RedisLink, section: str) -> None:
    failed = []
    for one in [one for one in CASES if one.section == section]:
        failed += await ensureDeferred(_played(link, one))
    assert not failed, "\n".join(failed)


async def _played(link: RedisLink, one: Case) -> list[str]:
    cache = RedisCache(link, f"rules{next(_numbers)}:", max_object_bytes=10**6)

    async def settle() -> None:
        await until(lambda: not any(one.calls for one in link._ready), "what was put")

    await link.call("PING")
    try:
        await play(one, cache, settle=settle)
    except AssertionError as error:
        return [str(error)]
    errors: Any = cache.stats()["errors"]
    return [f"{one.id}: {errors} errors of the cache"] if errors else []
