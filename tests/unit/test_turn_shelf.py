"""Who waits for whom at the cache, and what is counted."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from llmproxyd.cache.interface import Entry, Purge
from llmproxyd.cache.memory import MemoryCache
from llmproxyd.pipeline import shelf as module
from llmproxyd.pipeline.shelf import Shelf

KEY = b"k"


@dataclass(eq=False)
class One:
    """A leader or a waiter that remembers what it was told."""

    told: list[Any] = field(default_factory=list)

    def deserted(self) -> None:
        self.told.append("deserted")

    def changed(self, url: bytes, tenant: str) -> None:
        self.told.append((url, tenant))

    def purged(self, what: Purge) -> None:
        self.told.append(what)

    def resume(self, entry: Entry | None, *, failed: bool) -> None:
        self.told.append((entry, failed))


def exchange(token: str | None = None) -> Any:
    if token is None:
        return SimpleNamespace(grant=None)
    return SimpleNamespace(grant=SimpleNamespace(token=token))


@pytest.fixture
def shelf() -> Shelf:
    nobody: Any = None
    return Shelf(MemoryCache(1000), lambda: 0.0, lambda: 0.0, nobody, nobody)


def test_only_the_first_leads(shelf: Shelf) -> None:
    first, second = One(), One()
    assert not shelf.wait(KEY, second)
    assert shelf.lead(KEY, first)
    assert not shelf.lead(KEY, second)
    assert not shelf.awaited(KEY)
    assert shelf.wait(KEY, second)
    assert shelf.awaited(KEY)


def test_all_who_wait_go_on_once(shelf: Shelf) -> None:
    leader, second, third = One(), One(), One()
    shelf.lead(KEY, leader)
    shelf.wait(KEY, second)
    shelf.wait(KEY, third)
    shelf.land(KEY, None, failed=True)
    shelf.land(KEY)
    assert second.told == third.told == [(None, True)]
    assert shelf.flights == {}


def test_the_leader_learns_when_the_last_has_left(shelf: Shelf) -> None:
    leader, second, third = One(), One(), One()
    shelf.lead(KEY, leader)
    shelf.wait(KEY, second)
    shelf.wait(KEY, third)
    shelf.leave(KEY, second)
    shelf.leave(KEY, second)
    assert leader.told == []
    shelf.leave(KEY, third)
    assert leader.told == ["deserted"]
    shelf.leave(b"another", third)


def test_one_who_waited_for_an_earlier_leader_leaves_a_later_one_alone(shelf: Shelf) -> None:
    earlier, later, second = One(), One(), One()
    shelf.lead(KEY, earlier)
    shelf.wait(KEY, second)
    shelf.land(KEY)
    shelf.lead(KEY, later)
    shelf.leave(KEY, second)
    assert later.told == []


def test_who_asks_learns_what_has_changed_and_may_land_of_it(shelf: Shelf) -> None:
    class Landing(One):
        def changed(self, url: bytes, tenant: str) -> None:
            super().changed(url, tenant)
            shelf.land(KEY)

    first, second = Landing(), One()
    shelf.lead(KEY, first)
    shelf.lead(b"other", second)
    shelf.asking |= {first, second}
    shelf.invalidate(b"u", "t")
    assert first.told == second.told == [(b"u", "t")]
    assert list(shelf.flights) == [b"other"]


def test_counts_in_all_and_by_token(shelf: Shelf) -> None:
    shelf.count("hit", exchange())
    shelf.count("hit", exchange("a"))
    shelf.count("store", exchange("b"))
    stats = shelf.stats()
    assert {name: stats[name] for name in module.RESULTS} == {
        "hit": 2,
        "miss": 0,
        "bypass": 0,
        "stale": 0,
        "revalidation": 0,
        "store": 1,
    }
    assert stats["tokens"] == {"a": {"hit": 1}, "b": {"store": 1}}
    assert (stats["backend"], stats["in_flight"]) == ("memory", 0)


@pytest.mark.parametrize("number", [1, module.TOGETHER - 1, module.TOGETHER, module.TOGETHER + 1, 1000])
def test_all_that_was_noted_is_told_whenever_somebody_asks(shelf: Shelf, number: int) -> None:
    for _ in range(number):
        shelf.count("miss", exchange("a"))
    for _ in range(2):  # and none twice
        assert shelf.stats()["miss"] == number
        assert shelf.stats()["tokens"] == {"a": {"miss": number}}


def test_tokens_that_were_not_seen_for_longest_are_forgotten(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TOKENS", 2)
    for token in ("a", "b", "a", "c"):
        shelf.count("hit", exchange(token))
    assert shelf.stats()["tokens"] == {"a": {"hit": 2}, "c": {"hit": 1}}
    assert shelf.stats()["hit"] == 4
