"""Which request gets which fault: exact counts, shares that repeat, order, time, tally."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from llmproxyd.faults.choose import Chosen, Engine, Tally
from llmproxyd.faults.language import ClearFault, SetFault, parse
from llmproxyd.faults.rules import Always, Match, Rule, Share, Subject, Times
from llmproxyd.providers.base import EndpointKind, ErrorKind

CHAT = Subject(EndpointKind.INFERENCE, "openai", "/v1/chat/completions")
C = ErrorKind.CONTEXT_LENGTH
R = ErrorKind.RATE_LIMIT


class Clock:
    """Monotonic seconds that stand still."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def engine(
    *rules: Rule, clock: Clock | None = None, seed: int = 1, ended: Callable[[str], None] = lambda _: None
) -> Engine:
    return Engine(clock or Clock(), Random(seed), rules, ended)


def commanded(text: str) -> Rule | None:
    command = parse(text)
    if isinstance(command, ClearFault):
        return None
    assert isinstance(command, SetFault)
    return command.rule


def in_mode(text: str, *rules: Rule, clock: Clock | None = None, seed: int = 1) -> Engine:
    made = engine(*rules, clock=clock, seed=seed)
    made.set_mode(commanded(text))
    return made


def names(made: Engine, count: int, subject: Subject = CHAT) -> list[str]:
    """Who fired, ``-`` for nobody."""
    chosen = [made.choose(subject) for _ in range(count)]
    return ["-" if one is None else one.rule.name for one in chosen]


def hits(made: Engine, count: int, subject: Subject = CHAT) -> int:
    return sum(name != "-" for name in names(made, count, subject))


# Counts.


@pytest.mark.parametrize("count", [1, 2, 3, 100, 1000])
def test_count_hits_exactly_so_many_and_the_next_ones_pass(count: int) -> None:
    made = in_mode(f"c {count}")
    assert names(made, count + 20) == ["mode"] * count + ["-"] * 20


def test_plain_letter_hits_exactly_one() -> None:
    assert names(in_mode("c"), 3) == ["mode", "-", "-"]


def test_exhausted_count_falls_back_to_passing_through() -> None:
    made = in_mode("r 2")
    hits(made, 2)
    assert made.mode is None
    assert not made.active


@pytest.mark.parametrize("letter", ["c", "r", "u", "error overloaded"])
@pytest.mark.parametrize("count", [1, 3])
def test_last_counted_error_is_still_of_its_own_kind(letter: str, count: int) -> None:
    made = in_mode(f"{letter} {count}")
    mode = commanded(f"{letter} {count}")
    assert mode is not None
    chosen = [made.choose(CHAT) for _ in range(count)]
    assert [one.rule.kind for one in chosen if one] == [mode.kind] * count
    assert [one.number for one in chosen if one] == list(range(1, count + 1))


def test_end_of_a_count_is_told_once_with_the_mode_gone_already() -> None:
    told: list[tuple[str, object]] = []
    made = engine()
    made.when_mode_ends(lambda cause: told.append((cause, made.mode)))
    made.set_mode(commanded("c 2"))
    made.choose(CHAT)
    assert told == []
    last = made.choose(CHAT)
    assert told == [("its count is used up", None)]
    assert last == Chosen(Rule(name="mode", kind=C, when=Times(2)), 2)
    made.choose(CHAT)
    assert len(told) == 1


def test_ended_that_asks_for_another_choice_spends_nothing_twice() -> None:
    made = engine()
    nested: list[Chosen | None] = []
    made.when_mode_ends(lambda _: nested.append(made.choose(CHAT)))
    made.set_mode(commanded("c"))
    assert made.choose(CHAT) is not None
    assert nested == [None]
    assert made.tally().injected == 1


def test_share_and_always_never_run_out() -> None:
    assert hits(in_mode("c *"), 500) == 500
    assert in_mode("c *").mode is not None


# after=


def test_after_lets_so_many_eligible_requests_pass() -> None:
    assert names(in_mode("c after=1"), 4) == ["-", "mode", "-", "-"]
    assert names(in_mode("c 2 after=3"), 7) == ["-"] * 3 + ["mode"] * 2 + ["-"] * 2
    assert names(in_mode("c * after=2"), 4) == ["-", "-", "mode", "mode"]


def test_after_counts_eligible_requests_alone() -> None:
    made = in_mode("c after=1 upstream=openai")
    assert hits(made, 5, replace(CHAT, upstream="other")) == 0
    assert hits(made, 5, replace(CHAT, kind=EndpointKind.METADATA)) == 0
    assert names(made, 2) == ["-", "mode"]


# for=


def test_for_ends_when_its_time_is_over() -> None:
    clock = Clock()
    made = in_mode("c * for=30s", clock=clock)
    told: list[str] = []
    made.when_mode_ends(told.append)
    clock.now += 29.9
    assert hits(made, 3) == 3
    clock.now += 0.2
    assert made.mode is None
    assert told == ["its time is over"]
    assert hits(made, 3) == 0
    assert len(told) == 1


def test_for_ends_at_the_next_choice_without_being_asked() -> None:
    clock = Clock()
    made = in_mode("c * for=30s", clock=clock)
    clock.now += 30
    assert made.choose(CHAT) is None


def test_time_of_a_rule_of_the_file_counts_from_the_start() -> None:
    clock = Clock()
    made = engine(Rule(name="short", kind=C, when=Always(), lasts=10), clock=clock)
    clock.now += 9
    assert hits(made, 1) == 1
    clock.now += 1
    assert made.rules == ()
    assert hits(made, 1) == 0


def test_mode_and_rules_may_end_at_the_same_moment_while_the_end_is_told() -> None:
    """Whoever is told asks what is still at work, as the log does."""
    clock = Clock()
    rules = [Rule(name=name, kind=C, when=Always(), lasts=10) for name in ("one", "two")]
    made = in_mode("c * for=10s", *rules, clock=clock)
    told: list[object] = []
    made.when_mode_ends(lambda cause: told.append((cause, made.mode, made.rules)))
    clock.now += 10
    assert made.choose(CHAT) is None
    assert told == [("its time is over", None, ())]
    assert not made.active


# Shares.


def test_share_with_the_same_seed_repeats() -> None:
    draws = [names(in_mode("c 30%", seed=7), 200) for _ in range(2)]
    assert draws[0] == draws[1]
    assert draws[0] != names(in_mode("c 30%", seed=8), 200)


def test_reseeding_repeats_the_run_from_there() -> None:
    made = in_mode("c 30%", seed=1)
    hits(made, 17)
    made.reseed(7)
    assert names(made, 200) == names(in_mode("c 30%", seed=7), 200)


@pytest.mark.parametrize("percent", [1, 30, 50, 99])
def test_share_comes_close_to_what_was_asked_for(percent: int) -> None:
    expected = 20_000 * percent / 100
    assert hits(in_mode(f"c {percent}%"), 20_000) == pytest.approx(
        expected, abs=4 * (expected + 1) ** 0.5 + 10
    )


def test_requests_that_are_not_eligible_draw_nothing() -> None:
    made, plain = in_mode("c 30% upstream=openai", seed=7), in_mode("c 30% upstream=openai", seed=7)
    found = []
    for _ in range(100):
        made.choose(replace(CHAT, upstream="other"))
        found += names(made, 1)
    assert found == names(plain, 100)


# Rules in order.


def test_mode_is_tried_before_the_rules_and_those_in_order() -> None:
    rules = (Rule(name="first", kind=C, when=Times(2)), Rule(name="second", kind=R, when=Times(1)))
    made = in_mode("u 1", *rules)
    assert names(made, 5) == ["mode", "first", "first", "second", "-"]


def test_mode_that_does_not_match_falls_through_to_the_rules() -> None:
    made = in_mode("u * upstream=other", Rule(name="file", kind=C, when=Always()))
    assert names(made, 2) == ["file", "file"]
    assert names(made, 1, replace(CHAT, upstream="other")) == ["mode"]


def test_mode_that_lets_one_pass_or_does_not_draw_falls_through_too() -> None:
    assert names(in_mode("u after=1", Rule(name="file", kind=C, when=Always())), 3) == [
        "file",
        "mode",
        "file",
    ]
    made = in_mode("u 50%", Rule(name="file", kind=C, when=Always()))
    assert set(names(made, 100)) == {"mode", "file"}


def test_exhausted_mode_leaves_the_rules_at_work() -> None:
    made = in_mode("u", Rule(name="file", kind=C, when=Always()))
    assert names(made, 3) == ["mode", "file", "file"]


def test_exhausted_rule_is_no_end_of_the_mode() -> None:
    told: list[str] = []
    made = engine(Rule(name="file", kind=C, when=Times(1)), ended=told.append)
    assert names(made, 2) == ["file", "-"]
    assert told == []
    assert made.rules == ()


def test_setting_a_mode_replaces_the_one_before_and_none_clears_it() -> None:
    made = in_mode("c 5")
    hits(made, 1)
    made.set_mode(commanded("r 2"))
    assert [one.rule.kind for one in [made.choose(CHAT), made.choose(CHAT)] if one] == [R, R]
    made.set_mode(commanded("c *"))
    made.set_mode(None)
    assert made.choose(CHAT) is None


# Who is eligible.


@pytest.mark.parametrize("kind", EndpointKind)
def test_only_inference_is_hit(kind: EndpointKind) -> None:
    made = in_mode("c *", Rule(name="file", kind=C, when=Always()))
    assert (made.choose(replace(CHAT, kind=kind)) is not None) == (kind is EndpointKind.INFERENCE)


ELIGIBLE = [
    ("upstream=openai", {}, True),
    ("upstream=openai", {"upstream": "openai2"}, False),
    ("upstream=open*", {}, False),
    ("path=/v1/*", {}, True),
    ("path=/v1/chat", {}, False),
    ("path=/V1/*", {}, False),
    ("model=gpt-4*", {"model": "gpt-4o"}, True),
    ("model=gpt-4*", {"model": "GPT-4o"}, False),
    ("model=gpt-4*", {"model": None}, False),
    ("model=*", {"model": None}, False),
    ("model=gpt-[45]?", {"model": "gpt-5x"}, True),
    ("stream=yes", {"streaming": True}, True),
    ("stream=yes", {"streaming": False}, False),
    ("stream=yes", {"streaming": None}, False),
    ("stream=no", {"streaming": False}, True),
    ("stream=no", {"streaming": True}, False),
    ("upstream=openai model=m", {"model": "x"}, False),
]


@pytest.mark.parametrize(("options", "given", "eligible"), ELIGIBLE)
def test_match(options: str, given: dict[str, object], eligible: bool) -> None:
    made = in_mode(f"c {options}")
    assert (made.choose(replace(CHAT, **given)) is not None) == eligible  # type: ignore[arg-type]
    assert (made.mode is None) == eligible  # what is not eligible spends nothing


@pytest.mark.parametrize(
    ("options", "reads"),
    [
        ("", False),
        ("upstream=x", False),
        ("path=/x", False),
        ("model=x", True),
        ("stream=yes", True),
        ("stream=no", True),
    ],
)
def test_body_is_read_only_while_a_rule_asks_for_it(options: str, reads: bool) -> None:
    made = in_mode(f"c {options}")
    assert made.reads_body == reads
    made.set_mode(None)
    assert not made.reads_body
    assert engine(Rule(name="file", kind=C, match=Match(model="x"))).reads_body


# Tally.


def test_tally_of_nothing() -> None:
    assert engine().tally() == Tally(0, 0, ())


def test_tally_counts_what_was_injected_and_what_still_waits() -> None:
    made = in_mode("c 3", Rule(name="file", kind=C, when=Times(4)))
    hits(made, 2)
    assert made.tally() == Tally(injected=2, never=5, idle=())
    hits(made, 100)
    assert made.tally() == Tally(injected=7, never=0, idle=())


def test_tally_names_rules_without_a_count_that_never_hit() -> None:
    made = in_mode(
        "c *", Rule(name="busy", kind=C, when=Always()), Rule(name="lonely", kind=C, when=Share(0.5))
    )
    assert made.tally().idle == ("mode", "busy", "lonely")
    hits(made, 1)
    made.set_mode(None)
    hits(made, 1)
    assert made.tally() == Tally(injected=2, never=0, idle=("lonely",))


def test_tally_knows_what_its_time_ran_out_on() -> None:
    clock = Clock()
    rules = [
        Rule(name="counted", kind=C, when=Times(3), lasts=10),
        Rule(name="busy", kind=C, when=Always(), match=Match(path="/busy"), lasts=10),
        Rule(name="lonely", kind=C, when=Always(), match=Match(path="/none"), lasts=10),
    ]
    made = in_mode("c 2 for=5s", *rules, clock=clock)
    hits(made, 1)
    clock.now += 6
    hits(made, 1)
    hits(made, 1, replace(CHAT, path="/busy-not"))
    clock.now += 10
    hits(made, 5)
    assert made.tally() == Tally(injected=3, never=2, idle=("busy", "lonely"))


def test_tally_forgets_what_the_operator_took_back() -> None:
    made = in_mode("c 3")
    hits(made, 1)
    made.set_mode(None)
    assert made.tally() == Tally(injected=1, never=0, idle=())


def test_fault_that_a_request_asks_for_is_counted_and_spends_no_rule() -> None:
    made = in_mode("c 3")
    own = Rule(name="header", kind=R, when=Always())
    assert made.spend(own) == Chosen(own, 1)
    assert made.tally() == Tally(injected=1, never=3, idle=())


# Against a model.


@dataclass
class Simple:
    """One rule as a person would count it."""

    name: str
    upstream: str | None
    passing: int
    left: int | None
    ends: float | None
    hits: int = 0


OPTIONS = st.fixed_dictionaries(
    {
        "when": st.one_of(st.integers(1, 4).map(Times), st.just(Always())),
        "upstream": st.sampled_from([None, "a", "b"]),
        "after": st.integers(0, 3),
        "lasts": st.sampled_from([None, 5.0, 10.0]),
    }
)


def made_rule(name: str, given: dict[str, object]) -> Rule:
    return Rule(
        name=name,
        kind=C,
        when=given["when"],  # type: ignore[arg-type]
        match=Match(upstream=given["upstream"]),  # type: ignore[arg-type]
        after=given["after"],  # type: ignore[arg-type]
        lasts=given["lasts"],  # type: ignore[arg-type]
    )


class Comparison(RuleBasedStateMachine):
    """The engine and the model see the same; they must say the same."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.ended = 0
        self.expected_ended = 0
        self.model: list[Simple] = []
        self.injected = self.missed = 0
        self.idle: list[str] = []
        self.made: Engine | None = None

    @precondition(lambda self: self.made is None)
    @rule(given=st.lists(OPTIONS, max_size=3))
    def start(self, given: list[dict[str, object]]) -> None:
        rules = [made_rule(f"rule{number}", one) for number, one in enumerate(given)]
        self.made = Engine(self.clock, Random(1), rules, self.tell)
        self.model = [self.simple(one) for one in rules]

    def tell(self, cause: str) -> None:
        self.ended += 1
        assert self.made is not None
        assert self.made.mode is None

    def simple(self, rule: Rule) -> Simple:
        left = rule.when.count if isinstance(rule.when, Times) else None
        ends = None if rule.lasts is None else self.clock.now + rule.lasts
        return Simple(rule.name, rule.match.upstream, rule.after, left, ends)

    def drop(self, one: Simple) -> None:
        self.model.remove(one)
        self.expected_ended += one.name == "mode"

    @precondition(lambda self: self.made is not None)
    @rule(given=OPTIONS)
    def command(self, given: dict[str, object]) -> None:
        assert self.made is not None
        mode = made_rule("mode", given)
        self.made.set_mode(mode)
        self.model = [self.simple(mode), *(one for one in self.model if one.name != "mode")]

    @precondition(lambda self: self.made is not None)
    @rule()
    def clear(self) -> None:
        assert self.made is not None
        self.made.set_mode(None)
        self.model = [one for one in self.model if one.name != "mode"]

    @precondition(lambda self: self.made is not None)
    @rule(seconds=st.sampled_from([1.0, 5.0, 10.0]))
    def wait(self, seconds: float) -> None:
        assert self.made is not None
        self.clock.now += seconds
        for one in [one for one in self.model if one.ends is not None and one.ends <= self.clock.now]:
            if one.left is not None:
                self.missed += one.left
            elif not one.hits:
                self.idle.append(one.name)
            self.drop(one)
        assert (self.made.mode is None) == all(one.name != "mode" for one in self.model)

    @precondition(lambda self: self.made is not None)
    @rule(upstream=st.sampled_from(["a", "b"]), kind=st.sampled_from(EndpointKind))
    def request(self, upstream: str, kind: EndpointKind) -> None:
        assert self.made is not None
        chosen = self.made.choose(Subject(kind, upstream, "/x"))
        expected = None
        for one in list(self.model):
            if kind is not EndpointKind.INFERENCE or one.upstream not in (None, upstream):
                continue
            if one.passing:
                one.passing -= 1
                continue
            one.hits += 1
            self.injected += 1
            expected = (one.name, one.hits)
            if one.left is not None:
                one.left -= 1
                if one.left == 0:
                    self.drop(one)
            break
        assert expected == (None if chosen is None else (chosen.rule.name, chosen.number))

    @invariant()
    def says_the_same(self) -> None:
        if self.made is None:
            return
        running = [*([self.made.mode] if self.made.mode else []), *self.made.rules]
        assert [(one.rule.name, one.remaining, one.passing) for one in running] == [
            (one.name, one.left, one.passing) for one in self.model
        ]
        assert self.made.active == bool(self.model)
        assert self.ended == self.expected_ended
        tally = self.made.tally()
        assert tally.injected == self.injected
        assert tally.never == self.missed + sum(one.left or 0 for one in self.model)
        idle = [*self.idle, *(one.name for one in self.model if one.left is None and not one.hits)]
        assert sorted(tally.idle) == sorted(idle)


Comparison.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
TestAgainstModel = Comparison.TestCase
