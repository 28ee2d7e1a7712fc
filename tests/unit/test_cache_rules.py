"""The rules of RFC 9111, by section, on the memory backend."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater

sys.path.insert(0, str(Path(__file__).parents[1]))

from cacherules.cases import CASES
from cacherules.harness import Case, ask, case, play

from llmproxyd.cache.interface import Entry
from llmproxyd.cache.memory import MemoryCache

ROOM = 1 << 20


def run(coroutine: Coroutine[Deferred[Any], Any, None]) -> None:
    """Run what waits for nothing."""
    results: list[Any] = []
    Deferred.fromCoroutine(coroutine).addBoth(results.append)
    assert results, "it waits for something"
    if results[0] is not None:
        results[0].raiseException()


@pytest.mark.parametrize("one", CASES, ids=[one.id for one in CASES])
def test_rule(one: Case) -> None:
    run(play(one, MemoryCache(ROOM)))


def test_every_transcript_has_a_name_of_its_own() -> None:
    twice = [name for name, count in Counter(one.id for one in CASES).items() if count > 1]
    assert twice == []
    assert len(CASES) > 300


class Slow(MemoryCache):
    """A backend that answers later."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(ROOM)
        self._clock = clock

    def get(self, key: bytes) -> Any:
        found: Sequence[Entry] = super().get(key)
        return deferLater(self._clock, 0.01, lambda: found)


def test_a_backend_may_answer_later() -> None:
    clock, results = Clock(), []
    one = case("4", "later", ask(cc="max-age=60"), ask("hit", at=1.0))
    Deferred.fromCoroutine(play(one, Slow(clock))).addBoth(results.append)
    clock.pump([0.01] * 4)
    assert results == [None]


def test_a_transcript_that_is_not_kept_fails() -> None:
    with pytest.raises(AssertionError, match="hit, not miss"):
        run(play(case("4", "wrong", ask(cc="max-age=60"), ask("miss", at=1.0)), MemoryCache(ROOM)))
