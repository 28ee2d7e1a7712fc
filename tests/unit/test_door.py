"""Who comes in, with what, and what counts: the door without a network."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from llmproxyd.access.allowlist import Allow
from llmproxyd.access.projects import Grant, Limits, Project, Token
from llmproxyd.access.tokens import digest_of, new_token
from llmproxyd.errors import Refused
from llmproxyd.http.body import NO_BODY
from llmproxyd.limits.memory import MemoryLimiter
from llmproxyd.model import Denied, Event, Finished, Memo, Reading, Request
from llmproxyd.pipeline.door import ALLOWLISTS, TOGETHER, Entrance
from llmproxyd.pipeline.exchange import Exchange
from llmproxyd.pipeline.plan import plan_of
from llmproxyd.pipeline.policy import Policy, Upstream
from llmproxyd.pipeline.roles import NOBODY
from llmproxyd.pipeline.route import Router
from llmproxyd.providers.registry import registry
from llmproxyd.redaction import Secret

PROVIDERS = registry()
UPSTREAMS = {
    name: Upstream(name=name, provider=one, base_url="https://api.example")
    for name, one in PROVIDERS.items()
    if one.base_url is not None
}
POLICY = Policy(
    router=Router(UPSTREAMS, PROVIDERS, default="openai", by_key=False), max_body=1000, access=True
)
TOKEN = new_token(b"t" * 16)


class StubDoor:
    """Gives what it is told to, and notes what it is told.

    :ivar now: a grant, a refusal or a Deferred.
    :ivar knows_again: a grant that was given is known to hold still.
    """

    ready = True
    knows_again = False
    asked_again = 0

    def __init__(self) -> None:
        self.now: Any = grant()
        self.admitted: list[str] = []
        self.back: list[Grant] = []
        self.spent: list[tuple[str, int, int]] = []
        self.costs: list[tuple[str, float, int]] = []

    def admit(self, token: str) -> Any:
        self.admitted.append(token)
        if isinstance(self.now, Refused):
            raise self.now
        return self.now

    def again(self, grant: Grant) -> bool:
        self.asked_again += 1
        return self.knows_again

    def returned(self, grant: Grant) -> None:
        self.back.append(grant)

    def used(self, grant: Grant, model: str, input: int, output: int, cost: float, requests: int = 1) -> None:
        self.spent.append((model, input, output))
        self.costs.append((model, cost, requests))


def grant(
    *, allow: Allow | None = None, limits: Limits | None = None, id: str = "p", key: str = "sk-project"
) -> Grant:
    project = Project(
        id=id, name=id, credentials={"openai": Secret(key)}, allow=allow or Allow(), limits=limits or Limits()
    )
    return Grant(project, Token(id="tok", project=id, digest=digest_of(TOKEN), shown="sk-…"))


class Bench:
    def __init__(self) -> None:
        self.door = StubDoor()
        self.events: list[Event] = []
        self.now = 0.0
        self.limiter = MemoryLimiter(lambda: self.now)
        self.entrance = Entrance(
            self.door, self.limiter, self.events.append, lambda: 1e9, lambda finished: 0.0
        )
        self.memo = Memo()

    def exchange(self, target: bytes = b"/v1/chat/completions", token: str | None = TOKEN) -> Exchange:
        fields = [(b"Host", b"localhost")]
        if token is not None:
            fields.append((b"Authorization", b"Bearer " + token.encode()))
        request = Request(b"POST", target, fields, peer="[::1]:4711", memo=self.memo)
        made = Exchange(1, "id", request, NO_BODY, NOBODY, POLICY, 0.0, lambda exchange, finished: None)
        made.plan = plan_of(request, POLICY)
        return made

    def enter(self, exchange: Exchange) -> Any:
        assert exchange.plan is not None
        return self.entrance.enter(exchange, exchange.plan)

    def refused(self, exchange: Exchange) -> Refused:
        with pytest.raises(Refused) as caught:
            self.enter(exchange)
        return caught.value


def finished(**more: Any) -> Finished:
    base: dict[str, Any] = {
        "number": 1,
        "request_id": "id",
        "method": "POST",
        "path": "/",
        "provider": "openai",
        "upstream": "openai",
        "status": 200,
        "duration": 0.1,
        "sent": 0,
        "attempts": 1,
    }
    from llmproxyd.model import End

    return Finished(**{**base, "end": End.COMPLETE, **more})


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_what_follows_from_a_grant_is_worked_out_once_for_a_head(bench: Bench) -> None:
    one, other = bench.exchange(), bench.exchange()
    assert bench.enter(one) is None
    assert bench.enter(other) is None
    assert one.grant is other.grant
    assert one.outgoing is other.outgoing
    bench.door.now = grant(key="sk-rotated")
    third = bench.exchange()
    bench.enter(third)
    assert third.grant is not one.grant
    assert third.outgoing is not None
    assert third.outgoing.headers.getRawHeaders(b"authorization") == [b"Bearer sk-rotated"]
    assert bench.door.admitted == [TOKEN] * 3


def test_grant_that_holds_still_is_not_asked_for_anew(bench: Bench) -> None:
    bench.door.knows_again = True
    first, second = bench.exchange(), bench.exchange()
    bench.enter(first)
    assert bench.door.asked_again == 0
    assert bench.enter(second) is None
    assert bench.door.admitted == [TOKEN]
    assert second.grant is first.grant
    assert second.outgoing is first.outgoing


@pytest.mark.parametrize(
    "more", [{"limits": Limits(rpm=10)}, {"allow": Allow(endpoints=("/v1/models",))}], ids=["limits", "allow"]
)
def test_grant_with_more_to_look_at_is_asked_for_each_time(bench: Bench, more: dict[str, Any]) -> None:
    bench.door.knows_again = True
    bench.door.now = grant(**more)
    for _ in range(2):
        if "allow" in more:
            assert bench.refused(bench.exchange()).code == "endpoint_not_allowed"
        else:
            bench.enter(bench.exchange())
    assert bench.door.asked_again == 0
    assert bench.door.admitted == [TOKEN] * 2


def test_refusal_is_raised_anew_each_time(bench: Bench) -> None:
    bench.door.now = grant(allow=Allow(endpoints=("/v1/models",)))
    first, second = bench.refused(bench.exchange()), bench.refused(bench.exchange())
    assert first is not second
    assert (first.code, first.headers, first.detail) == (second.code, second.headers, second.detail)
    kept = bench.exchange().plan
    assert kept is not None
    assert kept.granted is not None
    assert kept.granted.refusal is not None
    assert kept.granted.refusal.__traceback__ is None


def test_client_that_leaves_takes_its_question_back(bench: Bench) -> None:
    asked: list[str] = []
    bench.door.now = Deferred(lambda waiting: asked.append("cancelled"))
    exchange = bench.exchange()
    entering = bench.enter(exchange)
    assert isinstance(entering, Deferred)
    entering.addErrback(lambda failure: asked.append(failure.type.__name__))
    assert exchange.work is not None
    exchange.work()
    assert asked == ["cancelled", "CancelledError"]
    assert not bench.events
    assert exchange.grant is None


def test_nothing_is_left_to_cancel_once_it_is_in(bench: Bench) -> None:
    waiting: Deferred[Grant] = Deferred()
    bench.door.now = waiting
    exchange = bench.exchange()
    bench.enter(exchange)
    waiting.callback(grant())
    assert exchange.work is None
    assert exchange.grant is not None


def test_refusal_that_comes_later_is_noted_too(bench: Bench) -> None:
    waiting: Deferred[Grant] = Deferred()
    bench.door.now = waiting
    entering = bench.enter(bench.exchange())
    found: list[Any] = []
    entering.addErrback(lambda failure: found.append(failure.value.code))
    waiting.errback(Refused(401, "token_not_found", "…"))
    assert found == ["token_not_found"]
    assert bench.events == [Denied(address="[::1]", code="token_not_found", shown=TOKEN[:7] + "…")]


def test_unavailable_store_is_no_denial(bench: Bench) -> None:
    bench.door.now = Refused(503, "store_unavailable", "…")
    assert bench.refused(bench.exchange()).code == "store_unavailable"
    assert not bench.events


def test_no_way_to_go_is_told_after_the_door(bench: Bench) -> None:
    assert bench.refused(bench.exchange(b"/to/nowhere/x", None)).code == "token_missing"
    assert not bench.door.admitted
    bench.memo = Memo()
    assert bench.refused(bench.exchange(b"/to/nowhere/x")).code == "upstream_unknown"


NOTHING = [
    {"attempts": 0, "code": "endpoint_not_allowed", "status": 403},
    {"attempts": 0, "code": "rate_limit_exceeded", "status": 429},
    {"attempts": 0, "code": "client_gone", "status": 499},
    {"attempts": 0, "code": "circuit_open", "status": 503, "cache": "miss"},
    {"attempts": 0, "code": "not_cached", "status": 504, "cache": "miss"},
]
SOMETHING = [
    {"attempts": 1},
    {"attempts": 1, "code": "client_gone", "status": 499},
    {"attempts": 3, "code": "headers_timeout", "status": 504},
    {"attempts": 0, "cache": "hit"},
    {"attempts": 0, "cache": "hit", "code": "client_gone"},
    {"attempts": 0, "fault": "rate", "code": "rate", "status": 429},
    {"attempts": 0, "fault": "rate", "status": 429},
    # Behind a client's back: it was never counted.
    {"attempts": 0, "cache": "revalidation", "code": "circuit_open"},
]


@pytest.mark.parametrize("how", NOTHING)
def test_request_that_came_to_nothing_is_given_back(bench: Bench, how: dict[str, Any]) -> None:
    exchange = bench.exchange()
    bench.enter(exchange)
    bench.entrance.leave(exchange.grant, finished(**how))
    assert bench.door.back == [bench.door.now]


@pytest.mark.parametrize("how", SOMETHING)
def test_request_that_came_to_something_counts(bench: Bench, how: dict[str, Any]) -> None:
    exchange = bench.exchange()
    bench.enter(exchange)
    bench.entrance.leave(exchange.grant, finished(**how))
    assert not bench.door.back


def test_request_that_was_never_admitted_is_not_given_back(bench: Bench) -> None:
    bench.door.now = Refused(401, "token_not_found", "…")
    exchange = bench.exchange()
    bench.refused(exchange)
    assert exchange.grant is None


def test_tokens_are_spent_of_those_limits_alone_that_count_them(bench: Bench) -> None:
    bench.door.now = grant(limits=Limits(rpm=10, tpm=100))
    exchange = bench.exchange()
    bench.enter(exchange)
    reading = Reading(model="m", tokens={"input": 60, "output": 60})
    bench.entrance.leave(exchange.grant, finished(reading=reading))
    bench.entrance.settle()
    assert bench.door.spent == [("m", 60, 60)]
    refused = bench.refused(bench.exchange())
    assert refused.code == "rate_limit_exceeded"
    headers = dict(refused.headers)
    assert headers[b"retry-after"] == b"13"
    assert headers[b"x-ratelimit-remaining-tokens"] == b"0"
    assert headers[b"x-ratelimit-remaining-requests"] == b"9"


def test_allowlists_that_are_kept_ready_are_bounded(bench: Bench) -> None:
    for number in range(ALLOWLISTS + 10):
        bench.door.now = grant(id=f"p{number}", allow=Allow(methods=("POST",)))
        bench.enter(bench.exchange())
    assert len(bench.entrance._allowlists) <= ALLOWLISTS


def test_what_was_used_is_told_together_by_grant_and_model(bench: Bench) -> None:
    costs = iter([1.0, float("nan"), -1.0, 0.5, float("inf"), 0.0])
    bench.entrance._cost = lambda finished: next(costs)
    exchange = bench.exchange()
    bench.enter(exchange)
    assert exchange.grant is not None
    for model in ("a", "b", "a", "a", None, "a"):
        reading = Reading(model=model, tokens={"input": 1, "output": 2, "total": 9})
        bench.entrance.leave(exchange.grant, finished(reading=reading, model="asked"))
    assert not bench.door.spent
    bench.entrance.settle()
    assert bench.door.spent == [("a", 4, 8), ("b", 1, 2), ("asked", 1, 2)]
    assert bench.door.costs == [("a", 1.5, 4), ("b", 0.0, 1), ("asked", 0.0, 1)]
    bench.entrance.settle()
    assert len(bench.door.spent) == 3


def test_what_was_used_is_told_at_the_latest_after_so_many_requests(bench: Bench) -> None:
    exchange = bench.exchange()
    bench.enter(exchange)
    assert exchange.grant is not None
    for _ in range(TOGETHER):
        bench.entrance.leave(exchange.grant, finished(reading=Reading(model="a", tokens={"input": 1})))
    assert bench.door.spent == [("a", TOGETHER, 0)]
