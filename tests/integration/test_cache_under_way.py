"""What is on its way to the cache when what it tells is changed or purged: it is not kept."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from cachebench import FRESH, KEY, CacheBench
from wireclient import get, request, until

from llmproxyd.control.calls import Caller
from llmproxyd.testing.upstream import FakeUpstream, Gate, Send, answer, head

pytest_plugins = ["cachefixtures"]

FILES = b"/v1/files"


async def on_its_way(cached: CacheBench, proxy: Any, gate: Gate, *fields: bytes) -> Any:
    """A client whose answer the upstream has begun to think about."""
    slow = await cached.client(proxy)
    slow.send(get(FILES, KEY, *fields))
    await until(lambda: gate.reached, "the first request")
    return slow


@pytest.mark.parametrize(
    ("settings", "fields"),
    [
        pytest.param({}, (), id="coalescing"),
        pytest.param({"coalesce": False}, (), id="each for itself"),
        pytest.param({}, (b"Cache-Control: no-cache",), id="insisting"),
        pytest.param({}, (b"Cache-Control: max-age=0",), id="as new as can be"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_was_asked_for_before_a_change_is_not_kept_whoever_asked(
    cached: CacheBench, upstream: FakeUpstream, settings: dict[str, Any], fields: tuple[bytes, ...]
) -> None:
    gate = Gate()
    upstream.scripts = [
        [gate, Send(answer(b"old", FRESH))],
        [Send(answer(b"done"))],
        [Send(answer(b"new", FRESH))],
    ]
    proxy = await cached.proxy(cache=settings)
    slow = await on_its_way(cached, proxy, gate, *fields)
    await cached.ask(proxy, request(FILES, KEY))
    gate.open()
    assert (await slow.answer()).body == b"old"
    await cached.settled(proxy)
    (got,) = await cached.ask(proxy, get(FILES, KEY))
    assert got.body == b"new"


@pytest.mark.parametrize(
    "what",
    [{"all": True}, {"url": "openai /v1/files"}, {"prefix": "openai /v1/"}],
    ids=lambda what: next(iter(what)),
)
@pytest_twisted.ensureDeferred
async def test_what_was_asked_for_before_a_purge_is_not_kept(
    cached: CacheBench, upstream: FakeUpstream, what: dict[str, object]
) -> None:
    gate = Gate()
    upstream.scripts = [[gate, Send(answer(b"old", FRESH))], [Send(answer(b"new", FRESH))]]
    proxy = await cached.proxy()
    slow = await on_its_way(cached, proxy, gate)
    await caches_of(proxy).purge(Caller("test"), what)
    gate.open()
    assert (await slow.answer()).body == b"old"
    await cached.settled(proxy)
    (got,) = await cached.ask(proxy, get(FILES, KEY))
    assert got.body == b"new"


@pytest_twisted.ensureDeferred
async def test_what_is_confirmed_while_it_is_purged_is_not_kept(
    cached: CacheBench, upstream: FakeUpstream
) -> None:
    gate = Gate()
    upstream.scripts = [
        [Send(answer(b"old", b"Cache-Control: public, max-age=0", b'ETag: "a"'))],
        [gate, Send(head(FRESH, b'ETag: "a"', status=b"304 Not Modified"))],
        [Send(answer(b"new", FRESH))],
    ]
    proxy = await cached.proxy()
    await cached.ask(proxy, get(FILES, KEY))
    slow = await on_its_way(cached, proxy, gate)
    await caches_of(proxy).purge(Caller("test"), {"all": True})
    gate.open()
    assert (await slow.answer()).body == b"old"
    await cached.settled(proxy)
    (got,) = await cached.ask(proxy, get(FILES, KEY))
    assert got.body == b"new"


def caches_of(proxy: Any) -> Any:
    """The verbs about the cache."""
    return proxy.daemon.control.means.caches
