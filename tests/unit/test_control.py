"""The operator's verbs: what they change, what they say, and that a refusal changes nothing."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmproxyd.control.answers import Answer
from llmproxyd.control.verbs import Control
from llmproxyd.faults.choose import Engine
from llmproxyd.faults.language import OPTIONS
from llmproxyd.faults.rules import Always, Rule, Share, Subject
from llmproxyd.model import Change, FaultsChanged
from llmproxyd.providers.base import EndpointKind, ErrorKind
from llmproxyd.resilience.breaker import BreakerPolicy
from llmproxyd.resilience.breakers import Breakers

CHAT = Subject(EndpointKind.INFERENCE, "openai", "/v1/chat/completions")
LINE = "=" * 60


class Desk:
    """A control with everything around it in plain view."""

    def __init__(
        self, *rules: Rule, allowed: bool = True, seed: int | None = None, symbols: bool = True
    ) -> None:
        self.now = 100.0
        self.handled = 0
        self.events: list[object] = []
        self.recorded: list[Change] = []
        self.stopped = 0
        self.seeds = iter(range(7, 100))
        self.engine = Engine(lambda: self.now, Random(1), rules)
        self.breakers = Breakers(lambda event: None)
        self.control = Control(
            self.engine,
            breakers=self.breakers,
            emit=self.events.append,
            monotonic=lambda: self.now,
            upstreams=["openai", "anthropic", "my-vllm"],
            handled=lambda: self.handled,
            quit=self.stop,
            draw_seed=lambda: next(self.seeds),
            seed=seed,
            allowed=allowed,
            symbols=symbols,
            record=self.recorded.append,
        )

    def stop(self) -> None:
        self.stopped += 1

    def run(self, line: str) -> Answer:
        answer = self.control.run(line)
        assert isinstance(answer, Answer)
        return answer

    def hit(self, count: int = 1) -> int:
        self.handled += count
        return sum(self.engine.choose(CHAT) is not None for _ in range(count))

    def state(self) -> object:
        mode = self.engine.mode
        return (
            None if mode is None else (mode.rule, mode.passing, mode.remaining, mode.ends, mode.hits),
            self.engine.tally(),
            self.control.seed,
            self.control.prompt(),
            list(self.events),
            self.stopped,
        )


def test_answer_shows_mode_and_count_as_the_seed_does() -> None:
    desk = Desk()
    answer = desk.run("r")
    assert answer.ok
    assert answer.text.startswith(
        f"{LINE}\nCurrent mode: ⏱️ Rate limit exceeded (next 1 request)\nRequests handled: 0\n{LINE}\n"
    )
    desk.hit()
    assert (
        desk.run("n").text
        == f"{LINE}\nCurrent mode: ✅ No error (pass through)\nRequests handled: 1\n{LINE}\n"
    )


def test_answer_without_symbols_is_plain() -> None:
    assert "Current mode: Rate limit exceeded (every request)\n" in Desk(symbols=False).run("r *").text


MODES = [
    ("n", "No error (pass through)"),
    ("c", "Context length exceeded (next 1 request)"),
    ("c 4", "Context length exceeded (next 4 requests)"),
    ("c 0.3", "Context length exceeded (30 % of requests)"),
    ("c30%", "Context length exceeded (30 % of requests)"),
    ("c*", "Context length exceeded (every request)"),
    ("u", "Unknown server error (next 1 request)"),
    ("error not-found 2", "Not found (next 2 requests)"),
    ("r for=5m upstream=my-vllm", "Rate limit exceeded (next 1 request, only upstream my-vllm, for 5m more)"),
]


@pytest.mark.parametrize(("line", "said"), MODES)
def test_mode_in_words_after_a_command(line: str, said: str) -> None:
    desk = Desk()
    assert said in desk.run(line).text
    assert desk.control.mode_in_words() == said
    assert desk.control.active() == (line != "n")


@pytest.mark.parametrize(
    "line",
    ["", "x", "n 3", "c 1.5", "c -1", "c 1 0", "q now", "error", "error nope", "r retry_after=-1", "c for=0", "c colour=red", "c upstream=nope"],
)  # fmt: skip
@pytest.mark.parametrize("before", ["n", "r 3 after=1 for=1m", "c 30%"])
def test_bad_command_leaves_everything_as_it_was_and_says_so(before: str, line: str) -> None:
    desk = Desk(Rule(name="file", kind=ErrorKind.QUOTA, when=Always()))
    desk.run(before)
    desk.hit(2)
    state = desk.state()
    answer = desk.run(line)
    assert not answer.ok
    assert "Nothing has changed. Type help for the commands." in answer.text
    assert answer.text.endswith("\n")
    assert desk.state() == state


@settings(deadline=None)
@given(
    st.text(max_size=20)
    | st.sampled_from("ncru").flatmap(lambda letter: st.text(max_size=8).map(lambda rest: f"{letter} {rest}"))
)
def test_no_line_ever_raises_and_a_refused_one_changes_nothing(line: str) -> None:
    desk = Desk()
    desk.run("r 3")
    state = desk.state()
    answer = desk.run(line)
    assert answer.text.endswith("\n")
    assert answer.ok or desk.state() == state


def test_zero_says_that_it_means_no_error() -> None:
    desk = Desk()
    desk.run("c *")
    answer = desk.run("c 0")
    assert answer.ok
    assert "0 means that no request fails: the same as n" in answer.text
    assert desk.engine.mode is None


def test_count_that_clients_retry_away_is_explained() -> None:
    assert "Clients retry this error by themselves" in Desk().run("r").text
    assert "Clients retry" not in Desk().run("c").text
    assert "Clients retry" not in Desk().run("r *").text


# Prompt.


def test_prompt_shows_an_active_fault_and_its_end() -> None:
    desk = Desk()
    assert desk.control.prompt() == "Enter command: "
    desk.run("r 2")
    assert desk.control.prompt() == "[Rate limit exceeded: next 2 requests] Enter command: "
    desk.hit()
    assert desk.control.prompt() == "[Rate limit exceeded: next 1 request] Enter command: "
    desk.hit()
    assert desk.control.prompt() == "Enter command: "


def test_prompt_names_the_rules_of_the_file() -> None:
    desk = Desk(Rule(name="evening", kind=ErrorKind.QUOTA, when=Always()))
    assert desk.control.prompt() == "[rules: evening] Enter command: "
    desk.run("c")
    assert desk.control.prompt() == "[Context length exceeded: next 1 request] Enter command: "


# Rules of the file.


def test_rules_are_shown_and_n_says_that_they_stay() -> None:
    desk = Desk(Rule(name="evening", kind=ErrorKind.QUOTA, when=Always()))
    text = desk.run("n").text
    assert "Rule evening: Quota exceeded (every request)\n" in text
    assert "The rules of the configuration file are still active.\n" in text
    assert desk.control.mode_in_words() == "Quota exceeded (every request)"
    assert desk.hit() == 1


# Whether faults may be set.


@pytest.mark.parametrize("line", ["c", "r 30%", "u *", "error quota"])
def test_faults_that_are_not_allowed_are_refused_with_the_key_that_allows_them(line: str) -> None:
    desk = Desk(allowed=False)
    answer = desk.run(line)
    assert not answer.ok
    assert "operator.faults: true allows them" in answer.text
    assert desk.engine.mode is None
    assert desk.events == []
    assert desk.control.seed is None


@pytest.mark.parametrize("line", ["n", "c 0", "status", "help", "q"])
def test_what_sets_no_fault_is_always_allowed(line: str) -> None:
    assert Desk(allowed=False).run(line).ok


def test_unknown_upstream_is_refused_with_a_near_match_and_the_known_ones() -> None:
    answer = Desk().run("c upstream=my-vlm")
    assert answer.text.startswith(
        'there is no upstream "my-vlm"; did you mean "my-vllm"? (known: anthropic, my-vllm, openai)\n'
    )
    assert "did you mean" not in Desk().run("c upstream=zzzzzz").text
    assert Desk().run("c upstream=my-vllm").ok


def test_unknown_upstream_is_shown_bounded_and_printable() -> None:
    text = Desk().run("c upstream=\x1b[2J" + "x" * 10_000).text
    assert len(text) < 500
    assert text.replace("\n", "").isprintable()


# Seed.


def test_seed_is_drawn_once_and_told_once() -> None:
    desk = Desk()
    desk.run("c 3")
    assert desk.control.seed is None
    told = desk.run("c 30%").text
    assert "Shares are drawn with seed 7; faults.seed: 7 repeats this run." in told
    assert "seed" not in desk.run("r 50%").text
    assert desk.control.seed == 7


def test_drawn_seed_repeats_the_run_when_configured() -> None:
    desk, again = Desk(), Desk(seed=7)
    for one in (desk, again):
        one.hit(5)
        one.run("c 30%")
    assert [desk.hit() for _ in range(200)] == [again.hit() for _ in range(200)]


def test_configured_seed_is_not_drawn_again() -> None:
    desk = Desk(seed=42)
    assert "seed" not in desk.run("c 30%").text
    assert desk.control.seed == 42
    rule = Rule(name="x", kind=ErrorKind.QUOTA, when=Share(0.3))
    assert Desk(rule, seed=42).hit(100) == Desk(rule, seed=42).hit(100)


# Events.


def test_change_by_command_is_told_and_the_same_again_too() -> None:
    desk = Desk()
    desk.run("c 2")
    desk.run("n")
    desk.run("n")
    assert desk.events == [
        FaultsChanged("Context length exceeded (next 2 requests)", "by command", commanded=True),
        FaultsChanged("No error (pass through)", "by command", commanded=True),
    ]


def test_mode_that_has_run_out_is_told_with_its_cause() -> None:
    desk = Desk()
    desk.run("c")
    desk.hit()
    assert desk.events[1:] == [
        FaultsChanged("No error (pass through)", "its count is used up", commanded=False)
    ]
    desk.run("r * for=10s")
    desk.now += 10
    assert desk.hit() == 0
    assert desk.events[3:] == [FaultsChanged("No error (pass through)", "its time is over", commanded=False)]


def test_mode_and_rule_that_end_at_once_are_no_failure_of_the_request() -> None:
    desk = Desk(Rule(name="file", kind=ErrorKind.QUOTA, when=Always(), lasts=10))
    desk.run("c * for=10s")
    desk.now += 11
    assert desk.hit() == 0
    assert desk.events[1:] == [FaultsChanged("No error (pass through)", "its time is over", commanded=False)]


def test_end_of_the_mode_tells_of_the_rules_that_stay() -> None:
    desk = Desk(Rule(name="file", kind=ErrorKind.QUOTA, when=Always()))
    desk.run("c")
    desk.hit()
    assert desk.events[-1] == FaultsChanged(
        "Quota exceeded (every request)", "its count is used up", commanded=False
    )


# The other verbs.


def test_status_changes_nothing() -> None:
    desk = Desk()
    desk.run("r 3")
    desk.hit(2)
    state = desk.state()
    assert "Rate limit exceeded (next 1 request)\nRequests handled: 2\n" in desk.run("status").text
    assert desk.state() == state


def test_help_names_every_command_kind_and_option() -> None:
    text = Desk().run("help").text
    for word in (
        "n ",
        "c 4",
        "c 30%",
        "c *",
        "r ",
        "u ",
        "error KIND",
        "breaker",
        "status",
        "help",
        "q ",
        *ErrorKind,
    ):
        assert word in text
    for option in OPTIONS:
        assert f"{option}=" in text


@pytest.mark.parametrize(
    "line",
    ["n", "c", "c 4", "c 0.3", "c 30%", "c *", "r 3 retry_after=2", "c after=1", "u * for=5m model=gpt-4*"],
)
def test_examples_of_the_help_are_commands(line: str) -> None:
    assert Desk().run(line).ok


def test_quit_stops_the_daemon() -> None:
    desk = Desk()
    assert desk.run("q") == Answer("Stopping.\n")
    assert desk.stopped == 1


def test_breakers_are_shown_in_a_few_words() -> None:
    desk = Desk()
    assert desk.run("breaker").text.startswith("No breaker yet")
    policy = BreakerPolicy(enabled=True, failure_threshold=2, recovery_timeout=30)
    one = desk.breakers.of(policy, "openai", None)
    desk.breakers.of(BreakerPolicy(enabled=True, window=60), "my-vllm", None)

    def shown() -> list[str]:
        return [line.split(None, 1)[1] for line in desk.run("breaker show").text.splitlines()]

    def fail() -> None:
        permit = one.admit(desk.now)
        assert not isinstance(permit, float)
        permit.failed(desk.now)

    assert shown() == ["closed, 0 of 0 failed", "closed"]
    fail()
    assert shown()[1] == "closed, 1 failure in a row"
    fail()
    assert shown()[1] == "open, next probe in 30s, opened once"
    desk.now += 29.5
    assert shown()[1] == "open, next probe in 1s, opened once"
    desk.now += 1
    assert shown()[1] == "open, a probe may pass, opened once"
    one.admit(desk.now)
    assert shown()[1] == "half-open, 1 probe under way, opened once"


def test_a_breaker_is_tripped_and_reset() -> None:
    desk = Desk()
    desk.breakers.of(BreakerPolicy(enabled=True), "openai", None)
    assert "open, next probe in 1m" in desk.run("breaker trip openai").text
    assert desk.run("breaker reset openai").text == "openai  closed, opened once\n"


@pytest.mark.parametrize(
    "line", ["breaker trip", "breaker trip openia", "breaker reset a b", "breaker melt x"]
)
def test_a_breaker_that_is_not_there_changes_nothing(line: str) -> None:
    desk = Desk()
    desk.breakers.of(BreakerPolicy(enabled=True), "openai", None)
    before = desk.run("breaker").text
    answer = desk.run(line)
    assert not answer.ok
    assert "Nothing has changed" in answer.text
    assert desk.run("breaker").text == before


def test_command_that_changes_anything_is_on_record_and_no_other() -> None:
    desk = Desk()
    for line in ("status", "help", "breaker", "nonsense", "r 3", "c upstream=nope", "n"):
        desk.run(line)
    told = [(one.who, one.action, one.target, one.outcome) for one in desk.recorded]
    assert told == [
        ("console", "fault.set", "r 3", "ok"),
        ("console", "fault.set", "c upstream=nope", "refused"),
        ("console", "fault.clear", "n", "ok"),
    ]
    assert desk.recorded[0].before == {"faults": "No error (pass through)"}
    assert desk.recorded[0].after == {"faults": "Rate limit exceeded (next 3 requests)"}


def test_command_that_is_on_record_already_is_not_recorded_again() -> None:
    desk = Desk()
    desk.control.run("r 3", None)
    assert desk.recorded == []
