"""Rehearsed rate limits where clients present tokens of projects: each token is a key of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import pytest_twisted
from doorbench import DoorBench, chat
from twisted.internet.defer import ensureDeferred

from llmproxyd.faults.limits import Each, Limit
from llmproxyd.testing.upstream import FakeUpstream

test = pytest_twisted.ensureDeferred


@pytest.fixture
def door(upstream: FakeUpstream) -> Iterator[DoorBench]:
    made = DoorBench(upstream)
    yield made
    pytest_twisted.blockon(ensureDeferred(made.close()))


@test
async def test_each_token_has_its_own_limit_and_never_reached_the_upstream_over_it(
    door: DoorBench, upstream: FakeUpstream
) -> None:
    proxy = await door.gateway()
    proxy.daemon.works.engine.limits.add(Limit(name="small", rpm=1, key=Each.EACH))
    project = await door.project()
    one, other = await door.token(project), await door.token(project)
    client = await door.client(proxy)
    seen = [(await client.ask(chat(token))).status for token in (one, one, other, other)]
    assert seen == [200, 429, 200, 429]
    assert len(upstream.requests) == 2


@test
async def test_one_limit_for_all_tokens_is_shared_by_them(door: DoorBench) -> None:
    proxy = await door.gateway()
    proxy.daemon.works.engine.limits.add(Limit(name="small", rpm=1, key=Each.ALL))
    client = await door.client(proxy)
    assert [(await client.ask(chat(await door.token()))).status for _ in range(2)] == [200, 429]
