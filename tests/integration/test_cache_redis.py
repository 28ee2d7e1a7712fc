"""The cache that all hosts share, on a real Redis server."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from bench import reactor
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, maybeDeferred
from wireclient import pause, until

sys.path.insert(0, str(Path(__file__).parents[1]))

from redisserver import RedisServer

from llmproxyd.cache.interface import Cache, Entry, Purge
from llmproxyd.cache.memory import MemoryCache
from llmproxyd.cache.redis import RedisCache, _variant
from llmproxyd.redis.interface import RedisUnavailable
from llmproxyd.redis.link import RedisLink

KEY, OTHER = bytes(range(32)), bytes(range(100, 132))
URL = b"openai /v1/models?x=*[a]\\\xff"
LARGEST = 100_000


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A server that no test ends."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """A server that the test may do anything to."""
    made = RedisServer(tmp_path)
    yield made
    made.kill()


@pytest.fixture
def caches(_nothing_left: None) -> Iterator[Any]:
    """Makes caches of several hosts."""
    links: list[RedisLink] = []

    def make(server: RedisServer, prefix: str = "t:") -> RedisCache:
        links.append(RedisLink(reactor, server.url, timeout=0.2))
        return RedisCache(links[-1], prefix, max_object_bytes=LARGEST)

    yield make
    for link in links:
        pytest_twisted.blockon(link.close())


@pytest.fixture
def cache(shared: RedisServer, caches: Any) -> RedisCache:
    """On a server that is empty."""
    shared.ask("FLUSHALL")
    made: RedisCache = caches(shared)
    return made


def entry(body: bytes = b"\0\r\n\xff", **more: Any) -> Entry:
    given: dict[str, Any] = {
        "status": 200,
        "reason": b"OK",
        "headers": [(b"Content-Type", b"text/plain"), (b"X", b"\xff"), (b"X", b"2")],
        "body": body,
        "requested": 1.0,
        "received": 2.0,
        "lifetime": 60.0,
        "age": 0.0,
        "url": URL,
        "project": "prj_a",
    }
    return Entry(**{**given, **more})


async def get(cache: Cache, key: bytes = KEY) -> Sequence[Entry]:
    return await maybeDeferred(cache.get, key)


async def stored(cache: RedisCache) -> None:
    await until(lambda: not cache._puts, "stores that are under way")


async def settled(cache: RedisCache) -> None:
    """Everything that was sent was answered."""
    await stored(cache)
    await until(lambda: not any(one.calls for one in cache._redis._ready))  # type: ignore[attr-defined]


@pytest_twisted.ensureDeferred
async def test_what_one_host_stores_is_a_hit_on_the_other(shared: RedisServer, caches: Any) -> None:
    one, two = caches(shared), caches(shared)
    assert list(await get(two)) == []
    one.put(KEY, entry())
    await stored(one)
    assert list(await get(two)) == [entry()]
    assert list(await get(two, OTHER)) == []
    assert two.stats() == {"backend": "redis", "up": True, "errors": 0, "skipped": 0}


@pytest_twisted.ensureDeferred
async def test_hit_is_one_round_trip_for_all_variants(cache: RedisCache, shared: RedisServer) -> None:
    variants = [entry(b"%d" % number, varied=((b"accept", b"%d" % number),)) for number in range(3)]
    for one in variants:
        cache.put(KEY, one)
        await stored(cache)
    await get(cache)
    shared.ask("CONFIG", "RESETSTAT")
    assert list(await get(cache)) == variants[::-1]
    info = shared.ask("INFO", "commandstats")
    assert b"cmdstat_evalsha:calls=1," in info
    assert b"cmdstat_get:" not in info


@pytest_twisted.ensureDeferred
async def test_same_variant_is_replaced_and_becomes_the_most_recent(cache: RedisCache) -> None:
    gone, plain = entry(b"1", varied=((b"a", None),)), entry(b"2", varied=((b"a", b""),))
    cache.put(KEY, gone)
    await stored(cache)
    cache.put(KEY, plain)
    await stored(cache)
    assert [one.body for one in await get(cache)] == [b"2", b"1"]
    cache.put(KEY, entry(b"3", varied=((b"a", None),)))
    await stored(cache)
    assert [one.body for one in await get(cache)] == [b"3", b"2"]


@pytest_twisted.ensureDeferred
async def test_variants_are_bounded_in_number_and_in_bytes(cache: RedisCache) -> None:
    for number in range(40):
        cache.put(KEY, entry(b"%d" % number, varied=((b"a", b"%d" % number),)))
        await stored(cache)
    assert [one.body for one in await get(cache)] == [b"%d" % number for number in range(39, 7, -1)]
    for number in range(10):
        cache.put(OTHER, entry(bytes(LARGEST), varied=((b"a", b"%d" % number),)))
        await stored(cache)
    assert [one.varied[0][1] for one in await get(cache, OTHER)] == [b"9", b"8", b"7", b"6"]


@pytest_twisted.ensureDeferred
async def test_entry_lasts_while_it_is_of_use(cache: RedisCache, shared: RedisServer) -> None:
    def lasts() -> int:
        names = (b"t:e:" + KEY.hex().encode(), cache._index(URL, "prj_a", b"GET"))
        entry, index = (round(int(shared.ask("PTTL", name).strip(b":\r\n")) / 1000) for name in names)
        assert index >= entry
        return entry

    for more, seconds in (
        ({"lifetime": 100.0, "age": 30.0}, 130),
        ({"lifetime": 0.0, "age": 5.0, "etag": b'"x"'}, 3600),
        ({"lifetime": 10.0, "stale_if_error": 500.0, "stale_while_revalidate": 20.0}, 570),
        ({"lifetime": 1e12}, 30 * 86400),
        ({"lifetime": float("inf"), "stale_if_error": float("inf")}, 30 * 86400),
    ):
        cache.drop(KEY)
        await settled(cache)
        cache.put(KEY, entry(**more))
        await stored(cache)
        assert lasts() == seconds
    cache.put(KEY, entry(lifetime=1.0, varied=((b"a", b"b"),)))
    await stored(cache)
    assert lasts() == 30 * 86400, "a short-lived variant takes none of the others' time"
    cache.put(OTHER, entry(lifetime=1.0))
    await stored(cache)
    assert lasts() == 30 * 86400, "nor does another key, of the index's time"
    assert len(await get(cache)) == 2


@pytest_twisted.ensureDeferred
async def test_expired_keys_leave_their_index(cache: RedisCache, shared: RedisServer) -> None:
    index = cache._index(URL, "prj_a", b"GET")
    cache.put(KEY, entry())
    await stored(cache)
    shared.ask("ZADD", index, "XX", "1", KEY.hex())
    cache.put(OTHER, entry())
    await stored(cache)
    assert shared.ask("ZCARD", index) == b":1\r\n"
    assert list(await get(cache)) == []


@pytest_twisted.ensureDeferred
async def test_too_large_a_body_is_not_kept_and_replaces_what_was(cache: RedisCache) -> None:
    cache.put(KEY, entry(b"old"))
    await stored(cache)
    cache.put(KEY, entry(bytes(LARGEST + 1)))
    await settled(cache)
    assert list(await get(cache)) == []
    assert cache.stats()["skipped"] == 1


@pytest_twisted.ensureDeferred
async def test_stores_under_way_are_bounded(cache: RedisCache) -> None:
    await get(cache)
    for number in range(200):
        cache.put(b"%032d" % number, entry(bytes(LARGEST)))
        assert cache._puts <= 32
        assert cache._bytes_under_way <= 8 * LARGEST
    await settled(cache)
    assert cache._bytes_under_way == 0
    assert cache.stats()["skipped"] == 192


@pytest_twisted.ensureDeferred
async def test_drop_forgets_one_key(cache: RedisCache) -> None:
    cache.put(KEY, entry())
    cache.put(OTHER, entry())
    await stored(cache)
    cache.drop(KEY, "prj_a")
    await settled(cache)
    assert list(await get(cache)) == []
    assert list(await get(cache, OTHER)) == [entry()]


@pytest_twisted.ensureDeferred
async def test_invalidation_is_of_get_and_head_of_one_project(cache: RedisCache) -> None:
    kept = {
        b"1" * 32: entry(method=b"POST"),
        b"2" * 32: entry(project="prj_b"),
        b"3" * 32: entry(url=URL + b"x"),
    }
    for key, one in {**kept, KEY: entry(), OTHER: entry(method=b"HEAD")}.items():
        cache.put(key, one)
    await stored(cache)
    cache.invalidate(URL, "prj_a")
    await settled(cache)
    assert list(await get(cache)) == list(await get(cache, OTHER)) == []
    for key, one in kept.items():
        assert list(await get(cache, key)) == [one]


@pytest_twisted.ensureDeferred
async def test_invalidated_variants_do_not_come_back_with_a_new_one(cache: RedisCache) -> None:
    old, new = entry(b"old", varied=((b"a", b"1"),)), entry(b"new", varied=((b"a", b"2"),))
    cache.put(KEY, old)
    await stored(cache)
    cache.invalidate(URL, "prj_a")
    await settled(cache)
    cache.put(OTHER, entry(method=b"HEAD"))
    cache.put(KEY, new)
    await stored(cache)
    assert list(await get(cache)) == [new]


@pytest_twisted.ensureDeferred
async def test_entry_whose_index_the_server_dropped_is_a_miss(cache: RedisCache, shared: RedisServer) -> None:
    cache.put(KEY, entry())
    await stored(cache)
    shared.ask("DEL", cache._index(URL, "prj_a", b"GET"))
    assert list(await get(cache)) == []
    assert shared.keys() == 0


@pytest.mark.parametrize(
    ("what", "left"),
    [
        (Purge(url=b"up /a*"), b"bcdef"),
        (Purge(url=b"up /a"), b"abcdef"),
        (Purge(prefix=b"up /a"), b"e"),
        (Purge(prefix=b"up /a?"), b"abdef"),
        (Purge(project="p"), b"bdf"),
        (Purge(project=""), b"abcdef"),
        (Purge(project="p*"), b"abcdef"),
        (Purge(everything=True), b""),
        (Purge(), b"abcdef"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_purge_takes_what_it_says_alone(
    cache: RedisCache, caches: Any, shared: RedisServer, what: Purge, left: bytes
) -> None:
    entries = {
        b"a": entry(url=b"up /a*", project="p"),
        b"b": entry(url=b"up /ab", project="q", method=b"POST"),
        b"c": entry(url=b"up /a?x", project="p"),
        b"d": entry(url=b"up /a[b]", project="q"),
        b"e": entry(url=b"up /b", project="p", method=b"POST"),
        b"f": entry(url=b"up /a\\", project="q"),
    }
    shared.ask("SET", "foreign", "1")
    neighbour = caches(shared, "t:u:")
    neighbour.put(KEY, entry())
    for key, one in entries.items():
        cache.put(key * 32, one)
    await stored(cache)
    await stored(neighbour)
    gone = await cache.purge(what)
    assert b"".join([key for key in entries if await get(cache, key * 32)]) == left
    assert gone == len(entries) - len(left)
    assert list(await get(neighbour)) == [entry()]
    assert shared.ask("GET", "foreign") == b"$1\r\n1\r\n"


@pytest_twisted.ensureDeferred
async def test_purge_of_much_goes_in_small_steps(cache: RedisCache, shared: RedisServer) -> None:
    for number in range(2300):
        url = b"up /%d" % (number % 3 if number < 1800 else number)
        cache.put(b"%032d" % number, entry(b"", url=url, method=b"POST"))
        if number % 30 == 29:
            await stored(cache)
    await stored(cache)
    assert cache.stats()["skipped"] == 0
    shared.ask("CONFIG", "RESETSTAT")
    assert await cache.purge(Purge(everything=True)) == 2300
    assert shared.keys() == 0
    assert await cache.purge(Purge(everything=True)) == 0


@pytest_twisted.ensureDeferred
async def test_nonsense_in_the_store_is_a_miss(cache: RedisCache, shared: RedisServer) -> None:
    cache.put(KEY, entry(varied=((b"a", b"1"),)))
    cache.put(OTHER, entry())
    await stored(cache)
    name = b"t:e:" + KEY.hex().encode()
    for field in (_variant(entry(varied=((b"a", b"1"),))), b"o"):
        shared.ask("HSET", name, field, "\x01" * 33)
        assert list(await get(cache)) == []
    assert cache.stats()["errors"] == 4
    shared.ask("SET", name, "text")
    assert list(await get(cache)) == []
    cache.put(KEY, entry())
    await stored(cache)
    assert list(await get(cache, OTHER)) == [entry()]


# The server goes away.


@pytest_twisted.ensureDeferred
async def test_killed_and_started_again_in_the_middle(server: RedisServer, caches: Any) -> None:
    cache = caches(server)
    cache.put(KEY, entry())
    await stored(cache)
    assert list(await get(cache)) == [entry()]
    server.kill()
    for _ in range(3):
        began = reactor.seconds()
        assert list(await get(cache)) == []
        assert reactor.seconds() - began < 0.25
        cache.put(KEY, entry())
    with pytest.raises(RedisUnavailable):
        await cache.purge(Purge(everything=True))
    assert cache.stats()["errors"] >= 6
    assert cache.stats()["up"] is False
    server.start()
    await until(lambda: cache.stats()["up"])
    assert list(await get(cache)) == []
    cache.put(KEY, entry())
    await stored(cache)
    assert list(await get(cache)) == [entry()]


@pytest.mark.parametrize("much", [False, True])
@pytest_twisted.ensureDeferred
async def test_what_was_invalidated_during_an_outage_is_not_served_after_it(
    server: RedisServer, caches: Any, much: bool
) -> None:
    cache, other = caches(server), caches(server)
    cache.put(KEY, entry())
    await stored(cache)
    server.pause()
    try:
        cache.drop(OTHER)
        await until(lambda: not cache.stats()["up"])
        for number in range(1500 if much else 0):
            cache.invalidate(b"up /%d" % number, "prj_a")
        cache.invalidate(URL, "prj_a")
        assert list(await get(cache)) == []
        assert len(cache._owed) <= 1000
    finally:
        server.resume()
    await until(lambda: cache.stats()["up"])
    # This host cannot know whether its command came through before or after that of the other.
    other.put(KEY, entry())
    await until(lambda: other.stats()["up"])
    await settled(other)
    while cache._owed or cache._lost_track or cache._settling:
        assert list(await get(cache)) == []
        await pause(0.01)
    assert list(await get(cache)) == []
    cache.put(KEY, entry())
    await stored(cache)
    assert list(await get(cache)) == [entry()]


@pytest_twisted.ensureDeferred
async def test_full_server_is_a_miss(tmp_path: Path, caches: Any) -> None:
    server = RedisServer(tmp_path, "--maxmemory", "1", "--maxmemory-policy", "noeviction")
    try:
        cache = caches(server)
        cache.put(KEY, entry())
        await stored(cache)
        assert list(await get(cache)) == []
        assert cache.stats()["up"] is True
        assert cache.stats()["errors"] > 0
    finally:
        server.kill()


@pytest_twisted.ensureDeferred
async def test_server_that_evicts_serves_nothing_that_a_purge_would_not_find(
    tmp_path: Path, caches: Any
) -> None:
    server = RedisServer(tmp_path, "--maxmemory", "3mb", "--maxmemory-policy", "allkeys-random")
    try:
        cache = caches(server)
        keys = [b"%032d" % number for number in range(300)]
        for number, key in enumerate(keys):
            cache.put(key, entry(bytes(20_000), url=b"up /%d" % (number % 50)))
            if number % 5 == 4:
                await stored(cache)
        hits = [key for key in keys if await get(cache, key)]
        assert 0 < len(hits) < 300
        assert await cache.purge(Purge(prefix=b"up /")) >= len(hits)
        assert not [key for key in keys if await get(cache, key)]
    finally:
        server.kill()


# The same as in memory.

URLS = [b"up /a", b"up /b"]
PROJECTS = ["p", "q"]
METHODS = [b"GET", b"POST"]
KEYS = [(url, project, method) for url in URLS for project in PROJECTS for method in METHODS]
PUT = st.tuples(
    st.just("put"), st.sampled_from(KEYS), st.sampled_from([(), ((b"a", None),), ((b"a", b"1"),)])
)
STEPS = st.lists(
    st.one_of(
        PUT,
        PUT,
        st.tuples(st.just("drop"), st.sampled_from(KEYS)),
        st.tuples(st.just("invalidate"), st.sampled_from(URLS), st.sampled_from(PROJECTS)),
        st.tuples(
            st.just("purge"),
            st.one_of(
                st.builds(Purge, url=st.sampled_from(URLS)),
                st.builds(Purge, prefix=st.sampled_from([b"", b"up", b"up /a", b"x"])),
                st.builds(Purge, project=st.sampled_from(PROJECTS)),
                st.just(Purge(everything=True)),
            ),
        ),
    ),
    max_size=12,
)
_numbers = count()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS)
@pytest_twisted.ensureDeferred
async def test_both_backends_do_the_same(caches: Any, cache: RedisCache, steps: list[Any]) -> None:
    memory = MemoryCache(10**6)
    redis = RedisCache(cache._redis, f"same{next(_numbers)}:", max_object_bytes=LARGEST)
    both: tuple[Cache, ...] = (memory, redis)
    for number, (verb, *what) in enumerate(steps):
        results = []
        for one in both:
            if verb == "put":
                (url, project, method), varied = what
                key = b"%032d" % KEYS.index(what[0])
                made = entry(b"%d" % number, url=url, project=project, method=method, varied=varied)
                one.put(key, made)
            elif verb == "drop":
                one.drop(b"%032d" % KEYS.index(what[0]))
            elif verb == "invalidate":
                one.invalidate(*what)
            else:
                purged: Deferred[int] = one.purge(*what)
                results.append(await purged)
        await settled(redis)
        assert len(set(results)) <= 1
        for index in range(len(KEYS)):
            key = b"%032d" % index
            assert list(await get(redis, key)) == list(await get(memory, key))
