"""Rehearsed rate limits: accounts that count down truthfully under a clock that is passed in."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock

from llmproxyd.faults.choose import Engine
from llmproxyd.faults.limitlines import describe_limit, limit_line, parse_limit
from llmproxyd.faults.limits import MOST_KEYS, REQUESTS, TOKENS, Each, Limit, Limits
from llmproxyd.faults.mistakes import Incomplete, LanguageError
from llmproxyd.faults.rules import Match, Subject
from llmproxyd.providers.base import EndpointKind
from llmproxyd.providers.limits import Meter

CHAT = Subject(EndpointKind.INFERENCE, "openai", "/v1/chat/completions", "gpt-4o", False)


def limits_of(clock: Clock, *limits: Limit) -> Limits:
    found = Limits(clock.seconds)
    for limit in limits:
        found.add(limit)
    return found


def asked(limits: Limits, key: str = "k", estimate: int = 0, subject: Subject = CHAT) -> float:
    """How long one more request has to wait, 0 where it is let through."""
    ticket = limits.ask(subject, key, estimate)
    assert ticket is not None
    return 0.0 if ticket.refusal is None else ticket.refusal.wait


def test_a_minutes_allowance_may_be_used_at_once_and_then_as_it_flows_in() -> None:
    clock = Clock()
    limits = limits_of(clock, Limit(name="a", rpm=3))
    assert [asked(limits) for _ in range(4)] == [0, 0, 0, 20.0]
    clock.advance(19.999)
    assert asked(limits) == pytest.approx(0.001, abs=1e-6)
    clock.advance(0.001)
    assert [asked(limits), asked(limits)] == [0, 20.0]
    clock.advance(60)
    assert [asked(limits) for _ in range(4)] == [0, 0, 0, 20.0]


def test_what_is_refused_costs_nothing() -> None:
    clock = Clock()
    limits = limits_of(clock, Limit(name="a", rpm=1))
    assert asked(limits) == 0
    for _ in range(100):
        assert asked(limits) == 60
    clock.advance(60)
    assert asked(limits) == 0


def test_meters_count_down_and_tell_when_all_is_there_again() -> None:
    clock = Clock()
    limits = limits_of(clock, Limit(name="a", rpm=60, tpm=600))
    ticket = limits.ask(CHAT, "k", 10)
    assert ticket is not None
    assert ticket.meters() == [Meter(REQUESTS, 60, 59, 1.0), Meter(TOKENS, 600, 590, 1.0)]
    ticket.settle(110)
    assert ticket.meters()[1] == Meter(TOKENS, 600, 490, 11.0)
    clock.advance(5)
    assert ticket.meters() == [Meter(REQUESTS, 60, 60, 0.0), Meter(TOKENS, 600, 540, 6.0)]


def test_an_account_is_put_right_in_both_directions_and_once_for_all() -> None:
    clock = Clock()
    limits = limits_of(clock, Limit(name="a", tpm=100))
    ticket = limits.ask(CHAT, "k", 60)
    assert ticket is not None
    assert asked(limits, estimate=60) == 12.0
    ticket.settle(5)
    ticket.settle(5)
    assert ticket.meters()[0].remaining == 95
    assert asked(limits, estimate=60) == 0


def test_a_debt_is_one_minutes_allowance_at_most() -> None:
    clock = Clock()
    limits = limits_of(clock, Limit(name="a", tpm=100))
    ticket = limits.ask(CHAT, "k", 1)
    assert ticket is not None
    ticket.settle(1_000_000)
    assert asked(limits, estimate=100) == 120.0
    assert ticket.meters()[0].remaining == 0
    clock.advance(120)
    assert asked(limits, estimate=100) == 0


def test_a_request_that_is_larger_than_the_limit_waits_for_all_of_it() -> None:
    clock = Clock()
    limits = limits_of(clock, Limit(name="a", tpm=100))
    assert asked(limits, estimate=5000) == 0
    assert asked(limits, estimate=5000) == 120.0
    clock.advance(120)
    assert asked(limits, estimate=5000) == 0


def test_each_key_has_its_own_account_unless_they_share_one() -> None:
    clock = Clock()
    limits = limits_of(clock, Limit(name="a", rpm=1))
    assert [asked(limits, "k"), asked(limits, "l"), asked(limits, "k")] == [0, 0, 60]
    shared = limits_of(clock, Limit(name="a", rpm=1, key=Each.ALL))
    assert [asked(shared, "k"), asked(shared, "l")] == [0, 60]


def test_keys_are_bounded_and_the_one_longest_not_seen_is_forgotten() -> None:
    clock = Clock()
    limits = limits_of(clock, Limit(name="a", rpm=1))
    for number in range(MOST_KEYS):
        assert asked(limits, str(number)) == 0
    assert asked(limits, "0") == 60
    assert asked(limits, "new") == 0
    assert len(limits.working[0].accounts) == MOST_KEYS
    assert asked(limits, "0") == 60
    assert asked(limits, "1") == 0


def test_of_several_limits_all_must_have_room_and_the_longest_wait_is_told() -> None:
    clock = Clock()
    limits = limits_of(clock, Limit(name="a", rpm=5), Limit(name="b", rpm=1, match=Match(model="gpt-*")))
    assert asked(limits) == 0
    ticket = limits.ask(CHAT, "k", 0)
    assert ticket is not None
    assert ticket.refusal is not None
    assert (ticket.refusal.limit.name, ticket.refusal.kind, ticket.refusal.wait) == ("b", REQUESTS, 60)
    assert [(one.passed, one.refused) for one in limits.working] == [(1, 0), (1, 1)]
    assert asked(limits, subject=replace(CHAT, model="o3")) == 0
    assert ticket.meters() == [Meter(REQUESTS, 1, 0, 60.0)]


def test_no_ticket_where_no_limit_is_for_a_request() -> None:
    limits = limits_of(Clock(), Limit(name="a", rpm=1, match=Match(upstream="other")))
    assert limits.ask(CHAT, "k", 0) is None
    everywhere = limits_of(Clock(), Limit(name="a", rpm=1))
    assert everywhere.ask(replace(CHAT, kind=EndpointKind.METADATA), "k", 0) is None


def test_reload_keeps_the_account_of_a_limit_that_is_the_same() -> None:
    clock = Clock()
    limits = Limits(clock.seconds)
    limits.replace_file([Limit(name="a", rpm=1)])
    assert asked(limits) == 0
    limits.add(Limit(name="mine", rpm=5))
    assert [one.limit.name for one in limits.working] == ["mine", "a"]
    limits.replace_file([Limit(name="a", rpm=1), Limit(name="b", rpm=9)])
    assert asked(limits) == 60
    limits.replace_file([Limit(name="a", rpm=2)])
    assert asked(limits) == 0
    limits.replace_file([])
    assert [one.limit.name for one in limits.working] == ["mine"]
    assert limits.remove("mine")
    assert not limits.remove("mine")


def test_engine_is_active_with_a_limit_alone_until_its_time_is_over_and_says_so() -> None:
    clock = Clock()
    told: list[str] = []
    engine = Engine(clock.seconds, Random(1), ended=told.append)
    assert not engine.active
    engine.limits.add(Limit(name="a", rpm=1, lasts=10, match=Match(model="gpt*")))
    assert engine.active
    assert engine.reads_body
    assert not engine.acts_upstream
    assert engine.choose(CHAT) is None
    assert engine.limited(CHAT, "k", 0) is not None
    clock.advance(10)
    assert engine.limited(CHAT, "k", 0) is None
    assert not engine.active
    assert told == ["its time is over"]
    engine.limits.add(Limit(name="a", rpm=1))
    engine.clear()
    assert not engine.active


@settings(deadline=None)
@given(
    st.integers(1, 10_000),
    st.integers(1, 100_000),
    st.lists(st.tuples(st.floats(0, 90), st.integers(0, 5000), st.integers(0, 20_000)), max_size=30),
)
def test_whoever_waits_for_as_long_as_told_gets_through(
    rpm: int, tpm: int, steps: list[tuple[float, int, int]]
) -> None:
    clock = Clock()
    limits = limits_of(clock, Limit(name="a", rpm=rpm, tpm=tpm))
    for pause, estimate, used in steps:
        clock.advance(pause)
        ticket = limits.ask(CHAT, "k", estimate)
        assert ticket is not None
        if ticket.refusal is not None:
            assert 0 < ticket.refusal.wait <= 120
            clock.advance(ticket.refusal.wait)
            ticket = limits.ask(CHAT, "k", estimate)
            assert ticket is not None
            assert ticket.refusal is None
        for meter in ticket.meters():
            assert 0 <= meter.remaining <= meter.limit
            assert 0 <= meter.reset <= 120
        ticket.settle(used)


@settings(deadline=None)
@given(st.integers(1, 200), st.lists(st.floats(0, 20), min_size=1, max_size=400))
def test_no_more_gets_through_than_flows_in(rpm: int, pauses: list[float]) -> None:
    clock = Clock()
    limits = limits_of(clock, Limit(name="a", rpm=rpm))
    through = 0
    for pause in pauses:
        clock.advance(pause)
        through += asked(limits) == 0
    assert through <= rpm + clock.seconds() * rpm / 60 + 1


# In the operator's language.


@pytest.mark.parametrize(
    ("text", "name", "limit"),
    [
        ("rpm=60", None, Limit(name="limit", rpm=60)),
        ("tpm = 30000 name = x", "x", Limit(name="limit", tpm=30000)),
        (
            "rpm=60 tpm=1000 upstream=openai model=gpt-4* key=ALL for=10m",
            None,
            Limit(
                name="limit",
                rpm=60,
                tpm=1000,
                match=Match(upstream="openai", model="gpt-4*"),
                key=Each.ALL,
                lasts=600,
            ),
        ),
        ("rpm=1 key=each stream=no path=/v1/*", None, Limit(name="limit", rpm=1, match=Match(path="/v1/*", streaming=False))),
    ],
)  # fmt: skip
def test_limit_in_words_of_the_operator(text: str, name: str | None, limit: Limit) -> None:
    assert parse_limit(text) == (name, limit)
    assert parse_limit(limit_line(limit).removeprefix("limit")) == (None, limit)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "limit needs rpm= or tpm="),
        ("60", '"60" is no limit; accepted: a limit such as "limit rpm=60'),
        ("lst", "limit list"),
        ("key=all", "limit needs rpm= or tpm="),
        ("rpm=0", "rpm=0: a whole number from 1 to 1000000000 is accepted"),
        ("rpm=-1", "a whole number"),
        ("tpm=1.5", "a whole number"),
        ("rpm=60 rpm=60", "given twice"),
        ("rpm=60 key=mine", "accepted are key=each and key=all"),
        ("rpm=60 jitter=3", '"jitter" is no option here (accepted: rpm, tpm, upstream,'),
        ("rpm=60 name=1x", "a letter first"),
        ("rpm=60 for=0", "would be over at once"),
        ("rpm=", "rpm= needs a value"),
        ("rmp=60", 'did you mean "rpm"?'),
    ],
)
def test_limit_that_is_refused(text: str, said: str) -> None:
    with pytest.raises(LanguageError) as caught:
        parse_limit(text)
    assert said in str(caught.value)
    assert isinstance(caught.value, Incomplete) is (text in ("", "key=all", "rpm="))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rpm=1", "1 request a minute for each key"),
        ("rpm=60 tpm=1", "60 requests and 1 token a minute for each key"),
        (
            "tpm=5 key=all upstream=openai for=5m",
            "5 tokens a minute for all together (only upstream openai, for 4m59s more)",
        ),
        ("rpm=5 for=8h", "5 requests a minute for each key (for 8h more)"),
    ],
)
def test_limit_is_described(text: str, said: str) -> None:
    clock = Clock()
    limits = limits_of(clock, parse_limit(text)[1])
    clock.advance(1)
    assert describe_limit(limits.working[0], clock.seconds()) == said
