"""A request that was admitted and then refused is given back, whatever was written meanwhile."""

from __future__ import annotations

import time
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from llmproxyd.access.projects import Grant, Project, Token
from llmproxyd.access.tokens import digest_of
from llmproxyd.errors import Refused
from llmproxyd.store.batches import BATCH
from llmproxyd.store.doorkeeper import Doorkeeper
from llmproxyd.testing.store import MemoryStore

T = TypeVar("T")
SECOND = 1.1


def done(deferred: Any) -> Any:
    if not isinstance(deferred, Deferred):
        return deferred
    results: list[Any] = []
    deferred.addBoth(results.append)
    if hasattr(results[0], "raiseException"):
        results[0].raiseException()
    return results[0]


class Bench:
    def __init__(self, **token: Any) -> None:
        self.clock, self.store = Clock(), MemoryStore()
        self.door = Doorkeeper(self.store, self.clock, time.time)
        done(self.store.create_project(Project(id="p", name="p")))
        done(self.store.create_token(Token(id="t", project="p", digest=digest_of("x"), shown="x", **token)))
        self.door.start()

    def admit(self) -> Grant:
        found: Grant = done(self.door.admit("x"))
        return found

    @property
    def written(self) -> int:
        """What the store has after the next batch."""
        self.clock.advance(SECOND)
        token: Token = done(self.store.token("t"))
        return token.requests


def test_what_is_given_back_does_not_count_against_max_requests() -> None:
    bench = Bench(max_requests=2)
    for _ in range(10):
        bench.door.returned(bench.admit())
    bench.admit()
    bench.admit()
    with pytest.raises(Refused):
        bench.admit()
    assert bench.written == 2


def test_what_is_given_back_after_it_was_written_is_taken_off_again() -> None:
    bench = Bench(max_requests=3)
    grants = [bench.admit() for _ in range(3)]
    assert bench.written == 3
    bench.door.returned(grants[0])
    assert bench.written == 2
    bench.admit()
    with pytest.raises(Refused):
        bench.admit()
    assert bench.written == 3


def test_what_is_given_back_while_a_batch_flies_is_neither_lost_nor_counted_twice() -> None:
    bench = Bench(max_requests=BATCH + 5)
    grants = [bench.admit() for _ in range(BATCH)]
    for grant in grants[:10]:
        bench.door.returned(grant)
    assert bench.written == BATCH - 10
    assert [bench.admit() for _ in range(15)]
    with pytest.raises(Refused):
        bench.admit()


def test_what_is_given_back_of_a_token_that_is_forgotten_is_written() -> None:
    bench = Bench()
    grant = bench.admit()
    assert bench.written == 1
    bench.door.changed(tokens=["t"])
    bench.door._remembered.forget()
    bench.door.returned(grant)
    assert bench.written == 0
    bench.admit()
    assert bench.written == 1


@given(st.lists(st.sampled_from(["admit", "return", "second", "forget"]), max_size=60))
def test_counts_are_those_of_the_requests_that_were_kept(steps: list[str]) -> None:
    bench = Bench(max_requests=10)
    kept: list[Grant] = []
    for step in steps:
        if step == "admit":
            if len(kept) < 10:
                kept.append(bench.admit())
            else:
                with pytest.raises(Refused):
                    bench.admit()
        elif step == "return" and kept:
            bench.door.returned(kept.pop())
        elif step == "second":
            bench.clock.advance(SECOND)
        elif step == "forget":
            bench.door.changed(projects=["p"])
        assert len(kept) <= 10
    assert bench.written == len(kept)
