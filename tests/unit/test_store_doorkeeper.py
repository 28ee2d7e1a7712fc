"""What the doorkeeper remembers, asks for, counts and refuses; the clock is ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from llmproxyd.access.projects import Grant, Project, Token
from llmproxyd.access.tokens import digest_of
from llmproxyd.errors import Refused
from llmproxyd.store.batches import BATCH
from llmproxyd.store.doorkeeper import Doorkeeper
from llmproxyd.store.interface import UsageRow
from llmproxyd.store.remembered import LIFETIME, RENEW, UNKNOWN
from llmproxyd.testing.store import MemoryStore

T = TypeVar("T")


class SlowStore(MemoryStore):
    """One whose answers wait for :meth:`release` while ``slow`` is set.

    What is answered is what holds when the question is asked.
    """

    def __init__(self) -> None:
        super().__init__()
        self.slow = False
        self.waiting: list[Callable[[], None]] = []

    def _do(self, name: str, work: Callable[[], T]) -> Deferred[T]:
        done = super()._do(name, work)
        if not self.slow:
            return done
        later: Deferred[T] = Deferred()
        self.waiting.append(lambda: (done.chainDeferred(later), None)[1])
        return later

    def release(self) -> None:
        while self.waiting:
            self.waiting.pop(0)()


class Bench:
    """A doorkeeper before a store with one project and one token."""

    def __init__(self, **settings: Any) -> None:
        self.clock = Clock()
        self.wall = 1_756_500_000.0
        self.store = SlowStore()
        self.door = Doorkeeper(self.store, self.clock, lambda: self.wall, **settings)
        done(self.store.create_project(Project(id="p", name="p")))
        self.make("sk-a")
        self.door.start()

    def make(self, text: str, **more: Any) -> Token:
        token = Token(id=f"tok_{text}", project="p", digest=digest_of(text), shown=text[:3], **more)
        done(self.store.create_token(token))
        return token

    def update(self, text: str = "sk-a", **more: Any) -> None:
        token = done(self.store.token(f"tok_{text}"))
        assert token is not None
        done(self.store.update_token(replace(token, **more)))

    def admit(self, text: str = "sk-a") -> Grant:
        found = self.door.admit(text)
        return found if isinstance(found, Grant) else done(found)

    def refused(self, text: str = "sk-a") -> Refused:
        with pytest.raises(Refused) as caught:
            self.admit(text)
        return caught.value

    def advance(self, seconds: float, step: float = 0.25) -> None:
        """Let time go by, on both clocks."""
        for _ in range(round(seconds / step)):
            self.wall += step
            self.clock.advance(step)

    def requests(self, text: str = "sk-a") -> int:
        token = done(self.store.token(f"tok_{text}"))
        assert token is not None
        return token.requests

    def lookups(self) -> int:
        return self.store.calls["token_by_digest"]


def done(deferred: Deferred[T]) -> T:
    """The result of *deferred*, which is there."""
    results: list[Any] = []
    deferred.addBoth(results.append)
    assert results, "not there yet"
    if hasattr(results[0], "raiseException"):
        results[0].raiseException()
    found: T = results[0]
    return found


@pytest.fixture
def bench() -> Bench:
    return Bench()


# Remembered.


def test_second_request_is_answered_at_once_with_the_same_grant(bench: Bench) -> None:
    first = bench.admit()
    second = bench.door.admit("sk-a")
    assert second is first
    assert (first.project.id, first.token.id) == ("p", "tok_sk-a")
    assert bench.lookups() == 1


def test_token_that_is_used_is_renewed_before_it_is_stale_and_nobody_waits(bench: Bench) -> None:
    grant = bench.admit()
    for _ in range(300):
        bench.advance(1, step=1)
        assert bench.door.admit("sk-a") is grant
    assert bench.lookups() == 1 + 300 // RENEW


def test_known_grant_is_good_for_another_request_until_something_changes(bench: Bench) -> None:
    grant = bench.admit()
    assert bench.door.again(grant)
    bench.advance(1)
    assert bench.requests() == 2
    bench.update(name="another")
    bench.advance(1)
    assert not bench.door.again(grant)
    assert bench.admit() is not grant
    assert not bench.door.again(grant)


def test_known_grant_is_looked_at_again_when_it_is_due(bench: Bench) -> None:
    grant = bench.admit()
    bench.advance(RENEW, step=1)
    assert not bench.door.again(grant)
    assert bench.admit() is grant
    assert bench.door.again(grant)


def test_known_grant_is_held_against_its_bounds_each_time(bench: Bench) -> None:
    bench.make("sk-b", max_requests=2)
    bench.make("sk-c", expires_at=bench.wall + 10)
    bench.advance(1)
    used_up, expired = bench.admit("sk-b"), bench.admit("sk-c")
    assert bench.door.again(used_up)
    with pytest.raises(Refused) as caught:
        bench.door.again(used_up)
    assert caught.value.code == "rate_limit_exceeded"
    assert bench.door.again(expired)
    bench.advance(10)
    with pytest.raises(Refused) as caught:
        bench.door.again(expired)
    assert caught.value.code == "token_expired"


def test_what_was_used_is_asked_for_before_each_batch_and_at_the_end(bench: Bench) -> None:
    grant = bench.admit()
    told = [1, 10]

    def settle() -> None:
        if told:
            bench.door.used(grant, "m", told.pop(), 2, 0.0)

    bench.door.settle = settle
    bench.advance(1)
    assert done(bench.store.usage("model", "2025-01-01"))[0].input == 10
    bench.door.stop()
    assert done(bench.store.usage("model", "2025-01-01"))[0].input == 11


def test_renewal_under_way_is_not_begun_again(bench: Bench) -> None:
    grant = bench.admit()
    bench.advance(RENEW, step=1)
    bench.store.slow = True
    for _ in range(5):
        assert bench.door.admit("sk-a") is grant
    assert bench.lookups() == 2
    bench.store.slow = False
    bench.store.release()
    assert bench.door.admit("sk-a") is grant


def test_stale_token_waits_for_the_store_and_keeps_its_grant(bench: Bench) -> None:
    grant = bench.admit()
    bench.advance(LIFETIME, step=1)
    bench.store.slow = True
    waiting = bench.door.admit("sk-a")
    assert isinstance(waiting, Deferred)
    bench.store.slow = False
    bench.store.release()
    assert done(waiting) is grant


def test_thousand_requests_of_a_cold_token_are_one_question(bench: Bench) -> None:
    bench.store.slow = True
    waiting = [bench.door.admit("sk-a") for _ in range(1000)]
    assert bench.lookups() == 1
    bench.store.slow = False
    bench.store.release()
    grants = {id(done(one)) for one in waiting if isinstance(one, Deferred)}
    assert len(grants) == 1
    bench.advance(2)
    assert bench.requests() == 1000


def test_client_that_leaves_while_it_waits_is_not_counted(bench: Bench) -> None:
    bench.store.slow = True
    gone, stays = bench.door.admit("sk-a"), bench.door.admit("sk-a")
    assert isinstance(gone, Deferred)
    assert isinstance(stays, Deferred)
    gone.addErrback(lambda _: None)
    gone.cancel()
    bench.store.slow = False
    bench.store.release()
    done(stays)
    bench.advance(2)
    assert bench.requests() == 1


def test_remembered_tokens_are_bounded() -> None:
    bench = Bench(max_entries=3)
    for number in range(5):
        bench.make(f"sk-{number}")
        bench.admit(f"sk-{number}")
    assert bench.door.state()["remembered"] == 3
    asked = bench.lookups()
    bench.admit("sk-4")
    assert bench.lookups() == asked
    bench.admit("sk-0")
    assert bench.lookups() == asked + 1


def test_tokens_that_are_not_there_push_no_good_one_out() -> None:
    bench = Bench(max_entries=3)
    grant = bench.admit()
    for number in range(50):
        assert bench.refused(f"sk-random{number}").code == "token_not_found"
    assert bench.door.admit("sk-a") is grant
    asked = bench.lookups()
    assert bench.refused("sk-random49").code == "token_not_found"
    assert bench.lookups() == asked
    assert bench.refused("sk-random0").code == "token_not_found"
    assert bench.lookups() == asked + 1, "those that are remembered not to be there are bounded too"


def test_that_a_token_is_not_there_is_soon_forgotten(bench: Bench) -> None:
    bench.refused("sk-b")
    bench.advance(UNKNOWN)
    asked = bench.lookups()
    bench.refused("sk-b")
    assert bench.lookups() == asked + 1


@pytest.mark.parametrize("text", ["", "x" * 100_000, "\ud800", "\0", "sk-🙂"])
def test_hostile_tokens_are_not_found(bench: Bench, text: str) -> None:
    refused = bench.refused(text)
    assert (refused.status, refused.code) == (401, "token_not_found")
    assert any(name == b"www-authenticate" for name, _ in refused.headers)


def test_store_that_answers_with_another_token_lets_nobody_in(bench: Bench) -> None:
    bench.store.token_by_digest = lambda digest: bench.store.token("tok_sk-a")  # type: ignore[method-assign]
    assert bench.refused("sk-b").code == "token_not_found"


# Refused.


def test_each_reason_has_its_code(bench: Bench) -> None:
    bench.make("sk-off", active=False)
    bench.make("sk-old", expires_at=bench.wall)
    bench.make("sk-spent", max_requests=0)
    assert bench.refused("sk-off").code == "token_inactive"
    assert bench.refused("sk-old").code == "token_expired"
    assert bench.refused("sk-spent").code == "rate_limit_exceeded"
    assert bench.refused("sk-none").code == "token_not_found"


def test_grant_that_holds_is_let_in_again_and_counted(bench: Bench) -> None:
    grant = bench.admit()
    assert all(bench.door.again(grant) for _ in range(3))
    bench.advance(1.5)
    assert bench.requests() == 4
    assert bench.lookups() == 1


def test_grant_that_may_hold_no_more_is_not_let_in_again(bench: Bench) -> None:
    grant = bench.admit()
    other = Grant(grant.project, replace(grant.token))
    assert not bench.door.again(other)
    bench.update(active=False)
    bench.advance(1.0)
    assert not bench.door.again(grant)
    bench.update(active=True)
    bench.advance(1.0)
    grant = bench.admit()
    assert bench.door.again(grant)
    bench.advance(RENEW)
    assert not bench.door.again(grant)
    grant = bench.admit()
    assert bench.door.again(grant)
    bench.door.stop()
    assert not bench.door.again(grant)


def test_bounds_of_a_token_hold_for_a_grant_that_is_let_in_again(bench: Bench) -> None:
    bench.make("sk-few", max_requests=2)
    few = bench.admit("sk-few")
    assert bench.door.again(few)
    with pytest.raises(Refused) as caught:
        bench.door.again(few)
    assert caught.value.code == "rate_limit_exceeded"
    bench.make("sk-soon", expires_at=bench.wall + 3)
    soon = bench.admit("sk-soon")
    assert bench.door.again(soon)
    bench.wall += 3
    with pytest.raises(Refused) as caught:
        bench.door.again(soon)
    assert caught.value.code == "token_expired"
    bench.advance(1.0)
    assert [bench.requests("sk-few"), bench.requests("sk-soon")] == [2, 2]


def test_token_expires_while_it_is_remembered(bench: Bench) -> None:
    bench.make("sk-b", expires_at=bench.wall + 1)
    bench.admit("sk-b")
    bench.wall += 1
    assert bench.refused("sk-b").code == "token_expired"
    assert bench.lookups() == 1


def test_wall_clock_that_jumps_makes_nothing_stale(bench: Bench) -> None:
    grant = bench.admit()
    for jump in (1e9, -2e9, 1e15):
        bench.wall += jump
        assert bench.door.admit("sk-a") is grant
        bench.clock.advance(1)
    assert bench.lookups() == 1
    assert bench.requests() == 4


def test_inactive_project_is_refused_unless_that_is_not_enforced(bench: Bench) -> None:
    bench.admit()
    done(bench.store.update_project(Project(id="p", name="p", active=False)))
    bench.door.changed(["p"])
    assert bench.refused().code == "project_inactive"
    bench.door.enforce_active = False
    bench.admit()


# Changes.


def test_own_change_is_seen_at_once(bench: Bench) -> None:
    bench.admit()
    bench.update(active=False)
    bench.door.changed(tokens=["tok_sk-a"])
    assert bench.refused().code == "token_inactive"


def test_own_change_of_the_project_is_seen_at_once(bench: Bench) -> None:
    before = bench.admit()
    done(bench.store.update_project(Project(id="p", name="new")))
    bench.door.changed(["p"])
    after = bench.admit()
    assert after.project.name == "new"
    assert after is not before


def test_change_by_another_host_is_seen_within_a_second(bench: Bench) -> None:
    bench.admit()
    bench.advance(0.3)
    bench.update(active=False)
    bench.advance(0.75)
    assert bench.refused().code == "token_inactive"


def test_token_made_on_another_host_is_found_within_a_second(bench: Bench) -> None:
    bench.refused("sk-b")
    bench.make("sk-b")
    bench.advance(0.75)
    bench.admit("sk-b")


def test_project_deleted_elsewhere_takes_its_tokens_along(bench: Bench) -> None:
    bench.admit()
    done(bench.store.delete_project("p"))
    bench.advance(0.75)
    assert bench.refused().code == "token_not_found"


def test_change_that_is_none_leaves_the_grant(bench: Bench) -> None:
    grant = bench.admit()
    bench.update()
    bench.advance(1)
    assert bench.admit() is grant


def test_answer_that_was_asked_for_before_a_change_is_not_believed(bench: Bench) -> None:
    bench.store.slow = True
    waiting = bench.door.admit("sk-a")
    assert isinstance(waiting, Deferred)
    bench.store.slow = False
    bench.update(active=False)
    bench.door.changed(tokens=["tok_sk-a"])
    bench.store.release()
    with pytest.raises(Refused) as caught:
        done(waiting)
    assert caught.value.code == "token_inactive"


def test_renewal_that_was_asked_for_before_a_change_is_not_believed(bench: Bench) -> None:
    bench.admit()
    bench.advance(RENEW, step=1)
    bench.store.slow = True
    bench.admit()
    bench.store.slow = False
    bench.update(active=False)
    bench.door.changed(tokens=["tok_sk-a"])
    bench.store.release()
    assert bench.refused().code == "token_inactive"


def test_token_that_got_another_text_is_known_by_that_alone(bench: Bench) -> None:
    bench.admit()
    bench.update(digest=digest_of("sk-new"))
    bench.door.changed(tokens=["tok_sk-a"])
    assert bench.refused().code == "token_not_found"
    bench.admit("sk-new")


# The store is down.


def test_while_the_store_is_down_remembered_tokens_work_until_they_are_stale(bench: Bench) -> None:
    grant = bench.admit()
    bench.advance(LIFETIME - 20, step=1)
    bench.store.down = True
    for _ in range(round(LIFETIME) - 1):
        bench.advance(1)
        assert bench.door.admit("sk-a") is grant
    bench.advance(2)
    refused = bench.refused()
    assert (refused.status, refused.code) == (503, "store_unavailable")
    assert any(name == b"retry-after" for name, _ in refused.headers)


def test_while_the_store_is_down_others_are_refused_without_asking(bench: Bench) -> None:
    bench.store.down = True
    bench.advance(1)
    asked = bench.lookups()
    assert bench.refused().code == "store_unavailable"
    assert bench.refused("sk-none").code == "store_unavailable"
    assert bench.lookups() == asked
    assert not bench.door.ready


def test_outage_that_nobody_noticed_yet_refuses_with_503(bench: Bench) -> None:
    bench.store.down = True
    assert bench.refused().code == "store_unavailable"
    assert not bench.door.ready


def test_what_was_changed_here_is_not_used_while_the_store_is_down(bench: Bench) -> None:
    bench.admit()
    bench.update(active=False)
    bench.door.changed(tokens=["tok_sk-a"])
    bench.store.down = True
    assert bench.refused().code == "store_unavailable"


def test_recovery_is_noticed_by_itself(bench: Bench) -> None:
    bench.store.down = True
    bench.advance(5)
    assert bench.door.state()["store"] == "down"
    bench.store.down = False
    bench.advance(0.75)
    assert bench.door.ready
    bench.admit()


def test_what_changed_during_an_outage_is_seen_after_it(bench: Bench) -> None:
    bench.admit()
    bench.store.down = True
    bench.advance(2)
    bench.store.down = False
    bench.update(active=False)
    bench.advance(0.75)
    assert bench.refused().code == "token_inactive"


def test_not_ready_before_the_store_was_heard() -> None:
    store = MemoryStore()
    door = Doorkeeper(store, Clock(), lambda: 0.0)
    assert not door.ready
    door.start()
    assert door.ready


# Counted.


def test_counts_are_written_once_a_second(bench: Bench) -> None:
    for _ in range(5):
        bench.admit()
    assert bench.requests() == 0
    assert bench.door.state()["unwritten"] == 5
    bench.advance(1)
    assert bench.requests() == 5
    assert bench.door.state()["unwritten"] == 0
    bench.advance(5)
    assert bench.store.calls["count"] == 1


def test_full_batch_is_written_before_its_time(bench: Bench) -> None:
    for _ in range(BATCH):
        bench.admit()
    assert bench.requests() == BATCH


def test_refused_request_is_not_counted(bench: Bench) -> None:
    bench.make("sk-old", expires_at=0.0)
    bench.refused("sk-old")
    bench.advance(2)
    assert bench.requests("sk-old") == 0


def test_max_requests_is_exact_on_one_host_whatever_is_written(bench: Bench) -> None:
    bench.make("sk-b", max_requests=250)
    admitted = 0
    codes = set()
    for number in range(400):
        if number % 60 == 59:
            bench.advance(1)
        try:
            bench.admit("sk-b")
        except Refused as refused:
            codes.add((refused.status, refused.code))
        else:
            admitted += 1
    assert admitted == 250
    assert codes == {(429, "rate_limit_exceeded")}
    bench.advance(2)
    assert bench.requests("sk-b") == 250


def test_max_requests_holds_over_two_hosts_but_for_a_batch_each() -> None:
    bench = Bench()
    bench.make("sk-b", max_requests=100)
    other = Doorkeeper(bench.store, bench.clock, lambda: bench.wall)
    other.start()
    admitted = 0
    for _ in range(60):
        for door in (bench.door, other):
            for _ in range(3):
                try:
                    found = door.admit("sk-b")
                except Refused:
                    continue
                if isinstance(found, Deferred):
                    done(found)
                admitted += 1
        bench.advance(1)
    assert 100 <= admitted <= 106
    assert bench.requests("sk-b") == admitted


def test_failed_batch_is_kept_and_written_later(bench: Bench) -> None:
    bench.admit()
    bench.store.down = True
    bench.advance(5)
    bench.admit()
    assert bench.door.state()["unwritten"] == 2
    bench.store.down = False
    bench.advance(1.5)
    assert bench.requests() == 2
    assert bench.door.state()["unwritten"] == 0


def test_batch_under_way_is_neither_lost_nor_counted_twice(bench: Bench) -> None:
    bench.admit()
    bench.store.slow = True
    bench.advance(1)
    bench.admit()
    bench.advance(3)
    assert bench.door.state()["unwritten"] == 2
    bench.store.slow = False
    bench.store.release()
    bench.advance(1)
    assert bench.requests() == 2


def test_renewal_while_a_batch_flies_counts_nothing_twice(bench: Bench) -> None:
    bench.make("sk-b", max_requests=10)
    bench.admit("sk-b")
    for _ in range(8):
        bench.admit("sk-b")
    bench.advance(RENEW + 1, step=1)
    bench.admit("sk-b")
    assert bench.refused("sk-b").status == 429
    bench.advance(2)
    assert bench.requests("sk-b") == 10


def test_use_is_written_under_its_model(bench: Bench) -> None:
    first, second = bench.admit(), bench.admit()
    bench.door.used(first, "gpt-4o", 10, 20, 0.5)
    bench.door.used(second, "", 1, 1, 0.0)
    bench.advance(1)
    assert done(bench.store.usage("model", "2025-08-29")) == [
        UsageRow("gpt-4o", 1, 10, 20, 0.5),
        UsageRow("", 1, 1, 1, 0.0),
    ]
    bench.admit()
    bench.advance(1)
    bench.door.used(first, "gpt-4o", 1, 1, 0.25)
    bench.advance(1)
    assert done(bench.store.usage("model", "2025-08-29"))[0] == UsageRow("gpt-4o", 2, 11, 21, 0.75)
    assert done(bench.store.usage("project", "2025-08-29")) == [UsageRow("p", 3, 12, 22, 0.75)]
    token = done(bench.store.token("tok_sk-a"))
    assert token is not None
    assert (token.requests, token.tokens) == (3, 34)


def test_use_of_a_token_that_is_forgotten_is_written(bench: Bench) -> None:
    grant = bench.admit()
    bench.advance(1)
    done(bench.store.delete_project("p"))
    bench.advance(1)
    bench.refused()
    bench.door.used(grant, "m", 1, 2, 0.0)
    bench.advance(1)
    assert done(bench.store.usage("token", "2025-01-01"))[0].input == 1


@pytest.mark.parametrize(
    ("model", "input", "output", "cost"),
    [
        ("a\0b\ud800", 1, 1, 0.0),
        ("x" * 100_000, 1, 1, 0.0),
        ("m", -5, 1 << 100, float("nan")),
        ("m", 1, 1, float("inf")),
        ("m", 1, 1, -1.0),
    ],
)
def test_hostile_use_keeps_no_batch_from_being_written(
    bench: Bench, model: str, input: int, output: int, cost: float
) -> None:
    grant = bench.admit()
    bench.door.used(grant, model, input, output, cost)
    bench.advance(1)
    assert bench.requests() == 1
    assert all(row.cost >= 0 and row.input >= 0 for row in done(bench.store.usage("model", "2025-01-01")))


def test_models_of_one_batch_are_bounded(bench: Bench) -> None:
    for number in range(500):
        bench.door.used(bench.admit(), f"made-up-{number}", 1, 1, 0.0)
        if number == 150:
            assert len(done(bench.store.usage("model", "2025-01-01"))) == 0
    bench.advance(1)
    rows = done(bench.store.usage("model", "2025-01-01"))
    assert len(rows) < 250
    assert sum(row.requests for row in rows) == 500


def test_what_waits_for_a_store_that_is_down_is_bounded(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmproxyd.store.counts.MAX_UNWRITTEN", 10)
    grant = bench.admit()
    bench.store.down = True
    for day in range(20):
        bench.door.used(grant, f"m{day}", 1, 1, 0.0)
        bench.advance(1)
    bench.store.down = False
    bench.advance(2)
    assert len(done(bench.store.usage("model", "2025-01-01"))) <= 10
    assert bench.door.state()["lost"] != 0


def test_long_outage_is_written_in_bounded_batches_each_on_its_day(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmproxyd.store.counts.MAX_ROWS", 3)
    bench.store.down = True
    sizes: list[int] = []
    count = bench.store.count
    bench.store.count = lambda batch: (sizes.append(len(batch)), count(batch))[1]  # type: ignore[method-assign]
    grant = Grant(Project(id="p", name="p"), Token(id="tok_sk-a", project="p", digest=b"", shown=""))
    for _ in range(8):
        bench.wall += 86_400
        bench.door.used(grant, "m", 1, 1, 0.0)
        bench.clock.advance(1)
    bench.store.down = False
    bench.advance(10)
    assert max(sizes) == 3
    assert done(bench.store.usage("model", "2025-09-05"))[0].input == 2
    assert done(bench.store.usage("model", "2025-08-01"))[0].input == 8


# Stopped.


def test_stop_writes_what_was_counted_and_lets_nobody_in(bench: Bench) -> None:
    bench.admit()
    bench.admit()
    done(bench.door.stop())
    assert bench.requests() == 2
    assert bench.refused().code == "store_unavailable"
    assert not bench.door.ready
    assert bench.clock.getDelayedCalls() == []


def test_stop_waits_for_the_batch_under_way_and_writes_the_rest(bench: Bench) -> None:
    bench.admit()
    bench.store.slow = True
    bench.advance(1)
    bench.admit()
    stopping = bench.door.stop()
    bench.store.slow = False
    bench.store.release()
    done(stopping)
    assert bench.requests() == 2


def test_what_is_told_while_the_last_batch_flies_is_written_at_the_stop(bench: Bench) -> None:
    grant = bench.admit()
    ended: list[int] = []

    def settle() -> None:
        while ended:
            bench.door.used(grant, "m", ended.pop(), 0, 0.0)

    bench.door.settle = settle
    bench.store.slow = True
    bench.advance(1.0)
    stopping = bench.door.stop()
    ended.append(7)
    bench.store.slow = False
    bench.store.release()
    done(stopping)
    rows = done(bench.store.usage("model", "2000-01-01"))
    assert [(row.name, row.requests, row.input) for row in rows if row.input] == [("m", 1, 7)]


def test_stop_does_not_wait_for_a_store_that_is_down_or_hangs(bench: Bench) -> None:
    bench.admit()
    bench.store.down = True
    done(bench.door.stop())
    other = Bench()
    other.admit()
    other.store.slow = True
    stopping = other.door.stop()
    other.advance(10)
    done(stopping)
    assert other.clock.getDelayedCalls() == []


def test_stop_twice_is_stop_once(bench: Bench) -> None:
    done(bench.door.stop())
    done(bench.door.stop())


def test_too_many_unknown_tokens_at_a_time_are_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmproxyd.store.doorkeeper.MAX_LOOKUPS", 3)
    bench.store.slow = True
    waiting = [bench.door.admit(f"sk-{number}") for number in range(3)]
    assert bench.refused("sk-3").code == "store_unavailable"
    bench.store.slow = False
    bench.store.release()
    for one in waiting:
        assert isinstance(one, Deferred)
        with pytest.raises(Refused):
            done(one)
