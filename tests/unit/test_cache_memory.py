"""The cache in memory: bounded in bytes, least recently used goes first, purged by what one knows."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from twisted.internet.defer import Deferred

from llmproxyd.cache.interface import Cache, Entry, Purge
from llmproxyd.cache.memory import VARIANTS, MemoryCache


def entry(body: bytes = b"", *, a: bytes | None = None, **more: Any) -> Entry:
    varied = ((b"x-a", a),) if a is not None else ()
    said = {"url": b"openai /v1/models", "project": "p"} | more
    return Entry(
        status=200,
        reason=b"OK",
        headers=[(b"A", b"b")],
        body=body,
        varied=varied,
        requested=0.0,
        received=0.0,
        lifetime=60.0,
        age=0.0,
        **said,
    )


SIZE = entry().size


def purged(cache: Cache, **what: Any) -> int:
    found: list[int] = []
    done = cache.purge(Purge(**what))
    assert isinstance(done, Deferred)
    done.addCallback(found.append)
    return found[0]


def bodies(cache: MemoryCache, key: bytes = b"k") -> list[bytes]:
    return [one.body for one in cache.get(key)]


def test_what_was_put_is_there_and_nothing_else() -> None:
    cache = MemoryCache(10**6)
    cache.put(b"k", entry(b"one"))
    assert bodies(cache) == [b"one"]
    assert bodies(cache, b"other") == []


def test_a_variant_takes_the_place_of_its_equal_and_stands_first() -> None:
    cache = MemoryCache(10**6)
    for body, a in ((b"1", b"x"), (b"2", b"y"), (b"3", b"x")):
        cache.put(b"k", entry(body, a=a))
    assert bodies(cache) == [b"3", b"2"]
    assert cache.stats()["entries"] == 2


def test_the_least_recently_used_goes_first() -> None:
    cache = MemoryCache(3 * SIZE)
    for key in (b"a", b"b", b"c"):
        cache.put(key, entry())
    cache.get(b"a")
    cache.put(b"d", entry())
    assert [key for key in (b"a", b"b", b"c", b"d") if cache.get(key)] == [b"a", b"c", b"d"]
    assert cache.stats()["evictions"] == 1


def test_what_is_larger_than_all_room_is_not_kept_and_what_it_outdates_is_gone() -> None:
    cache = MemoryCache(2 * SIZE)
    cache.put(b"k", entry(b"old"))
    cache.put(b"k", entry(b"x" * 2 * SIZE))
    assert bodies(cache) == []
    assert cache.stats()["bytes"] == 0


def test_variants_of_one_key_are_bounded() -> None:
    cache = MemoryCache(10**8)
    for number in range(VARIANTS + 5):
        cache.put(b"k", entry(b"%d" % number, a=b"%d" % number))
    assert bodies(cache) == [b"%d" % number for number in reversed(range(5, VARIANTS + 5))]
    assert cache.stats()["evictions"] == 5


def test_variants_of_one_key_make_room_for_each_other() -> None:
    cache = MemoryCache(3 * entry(a=b"1").size)
    for number in range(5):
        cache.put(b"k", entry(b"", a=b"%d" % number))
    assert [one.varied[0][1] for one in cache.get(b"k")] == [b"4", b"3", b"2"]


def test_all_that_an_entry_holds_counts() -> None:
    grown = [
        entry(b"x" * 1000),
        entry(a=b"x" * 1000),
        entry(url=b"x" * 1000),
        Entry(**{**fields_of(entry()), "headers": [(b"A", b"x" * 1000)]}),
        Entry(**{**fields_of(entry()), "headers": [(b"A", b"b")] * 10}),
    ]
    assert all(one.size >= SIZE + 900 for one in grown)


def test_fields_count_as_pairs_and_as_the_block_that_is_made_of_them() -> None:
    long = Entry(**{**fields_of(entry()), "headers": [(b"A", b"x" * 1000)]})
    short = Entry(**{**fields_of(entry()), "headers": [(b"A", b"")]})
    assert long.size - short.size == 2000


def fields_of(one: Entry) -> dict[str, Any]:
    return {name: getattr(one, name) for name in Entry.__slots__}


def test_what_is_being_served_does_not_change() -> None:
    cache = MemoryCache(10**6)
    cache.put(b"k", entry(b"one"))
    held = cache.get(b"k")
    cache.put(b"k", entry(b"two"))
    cache.drop(b"k")
    assert [one.body for one in held] == [b"one"]


def test_invalidation_spares_posts_other_projects_and_other_urls() -> None:
    cache = MemoryCache(10**6)
    cache.put(b"1", entry(b"get"))
    cache.put(b"2", entry(b"post", method=b"POST"))
    cache.put(b"3", entry(b"other", project="q"))
    cache.put(b"4", entry(b"longer", url=b"openai /v1/models/x"))
    cache.put(b"5", entry(b"head", method=b"HEAD"))
    cache.invalidate(b"openai /v1/models", "p")
    assert [bodies(cache, b"%d" % key) for key in range(1, 6)] == [[], [b"post"], [b"other"], [b"longer"], []]


@pytest.mark.parametrize(
    ("what", "left"),
    [
        ({"url": b"openai /v1/models"}, {b"3", b"4"}),
        ({"prefix": b"openai /v1/"}, {b"4"}),
        ({"prefix": b"groq "}, {b"1", b"2", b"3"}),
        ({"project": "q"}, {b"1", b"3", b"4"}),
        ({"project": ""}, {b"1", b"2", b"3"}),
        ({"everything": True}, set()),
        ({}, {b"1", b"2", b"3", b"4"}),
        ({"url": b"openai /v1"}, {b"1", b"2", b"3", b"4"}),
    ],
)
def test_purge(what: dict[str, Any], left: set[bytes]) -> None:
    cache = MemoryCache(10**6)
    cache.put(b"1", entry())
    cache.put(b"2", entry(method=b"POST", project="q"))
    cache.put(b"3", entry(url=b"openai /v1/files"))
    cache.put(b"4", entry(url=b"groq /v1", project=""))
    assert purged(cache, **what) == 4 - len(left)
    assert {key for key in (b"1", b"2", b"3", b"4") if cache.get(key)} == left


def test_stats_and_close() -> None:
    cache = MemoryCache(10**6)
    cache.put(b"k", entry())
    assert cache.stats() == {
        "backend": "memory", "entries": 1, "bytes": SIZE, "max_bytes": 10**6, "evictions": 0, "errors": 0,
    }  # fmt: skip
    cache.close()
    assert cache.stats()["bytes"] == 0
    assert not cache.get(b"k")


keys = st.sampled_from([b"a", b"b", b"c", b"d"])
urls = st.sampled_from([b"u /1", b"u /2"])
projects = st.sampled_from(["p", "q"])


class Kept(RuleBasedStateMachine):
    """Counts and indexes hold whatever is done."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = MemoryCache(6 * SIZE + 2000)

    @rule(
        key=keys,
        url=urls,
        project=projects,
        size=st.integers(0, 4000),
        a=st.sampled_from([None, b"1", b"2", b"3"]),
        method=st.sampled_from([b"GET", b"POST"]),
    )
    def put(self, key: bytes, url: bytes, project: str, size: int, a: bytes | None, method: bytes) -> None:
        one = entry(b"x" * size, a=a, url=url, project=project, method=method)
        self.cache.put(key, one)
        assert self.cache.get(key)[0] is one

    @rule(key=keys)
    def get(self, key: bytes) -> None:
        self.cache.get(key)

    @rule(key=keys)
    def drop(self, key: bytes) -> None:
        self.cache.drop(key)
        assert not self.cache.get(key)

    @rule(url=urls, project=projects)
    def invalidate(self, url: bytes, project: str) -> None:
        self.cache.invalidate(url, project)
        assert not [
            one for key in (b"a", b"b", b"c", b"d") for one in self.cache.get(key)
            if (one.url, one.project, one.method) == (url, project, b"GET")
        ]  # fmt: skip

    @rule(
        what=st.one_of(
            urls.map(lambda url: Purge(url=url)),
            projects.map(lambda one: Purge(project=one)),
            st.just(Purge(prefix=b"u ")),
            st.just(Purge(everything=True)),
        )
    )
    def purge(self, what: Purge) -> None:
        before = self.cache.stats()["entries"]
        gone: list[int] = []
        self.cache.purge(what).addCallback(gone.append)
        assert self.cache.stats()["entries"] == before - gone[0]  # type: ignore[operator]

    @invariant()
    def counted(self) -> None:
        kept = [one for variants in self.cache._by_key.values() for one in variants]
        stats = self.cache.stats()
        assert stats["entries"] == len(kept)
        assert stats["bytes"] == sum(one.size for one in kept)
        assert sum(one.size for one in kept) <= 6 * SIZE + 2000
        index = {(one.url, key) for key, variants in self.cache._by_key.items() for one in variants}
        assert {(url, key) for url, keys in self.cache._by_url.items() for key in keys} == index
        assert all(self.cache._by_key.values())


TestKept = Kept.TestCase
TestKept.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
