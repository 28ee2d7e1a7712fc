"""A scenario at work: who takes which step, and what is remembered."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmproxyd.faults.choose import Engine
from llmproxyd.faults.progress import brief, progress, told
from llmproxyd.faults.rules import Always, Rule, Side, Subject
from llmproxyd.faults.scenario import Play, Scenario
from llmproxyd.faults.scenariotext import parse_asked
from llmproxyd.providers.base import EndpointKind, ErrorKind


def scenario(text: str) -> Scenario:
    return parse_asked(text).scenario()


def playing(text: str, *, seed: int = 1, most: int = 10_000) -> Play:
    return Play(scenario(text), Random, seed, most)


def subject(
    test: str | None = None,
    *,
    model: str | None = None,
    upstream: str = "openai",
    kind: EndpointKind = EndpointKind.INFERENCE,
    streaming: bool | None = None,
) -> Subject:
    return Subject(kind, upstream, "/v1/chat/completions", model, streaming, test)


def kinds(play: Play, subjects: Iterable[Subject]) -> list[str | None]:
    rules = [play.next(one) for one in subjects]
    return [None if rule is None else str(rule.kind) for rule in rules]


R, OVERLOADED = "rate_limit", "overloaded"


def test_requests_take_the_steps_in_order_and_pass_after_the_last() -> None:
    play = playing("r x2, ok, error overloaded")
    assert kinds(play, [subject()] * 6) == [R, R, None, OVERLOADED, None, None]
    assert play.over


def test_star_takes_all_that_follow() -> None:
    play = playing("ok, r *")
    assert kinds(play, [subject()] * 4) == [None, R, R, R]
    assert not play.over


def test_each_test_has_a_run_of_its_own_and_others_pass() -> None:
    play = playing("r, ok, error overloaded scope=test")
    order = ["a", None, "b", "a", "b", "", "a", "b"]
    assert kinds(play, [subject(name) for name in order]) == [
        R,
        None,
        R,
        None,
        None,
        None,
        OVERLOADED,
        OVERLOADED,
    ]
    assert [name for name, _ in play.runs] == ["a", "b"]


def test_each_model_has_a_run_of_its_own() -> None:
    play = playing("r, ok scope=model")
    models = ["gpt-4o", "o3", "gpt-4o", None, None]
    assert kinds(play, [subject(model=one) for one in models]) == [R, R, None, R, None]
    assert play.scenario.reads_body


def test_what_is_no_inference_takes_no_step() -> None:
    play = playing("r, ok, r")
    others = [subject(kind=EndpointKind.METADATA), subject(kind=EndpointKind.AUTH)]
    assert kinds(play, [*others, subject(), *others, subject(), *others, subject()]) == [
        *(None, None, R),
        *(None, None, None),
        *(None, None, R),
    ]


def test_request_that_the_step_is_not_for_passes_and_leaves_it_to_the_next() -> None:
    play = playing("r upstream=openai, ok")
    assert kinds(play, [subject(upstream="anthropic"), subject(), subject(upstream="anthropic")]) == [
        None,
        R,
        None,
    ]
    assert play.over


@pytest.mark.parametrize(
    ("text", "reads"),
    [
        ("r", False),
        ("r scope=test", False),
        ("r scope=model", True),
        ("r model=gpt*", True),
        ("r stream=yes", True),
    ],
)
def test_body_is_read_only_where_it_decides(text: str, reads: bool) -> None:
    engine = Engine(lambda: 0.0, Random(1))
    engine.play = playing(text)
    assert engine.reads_body is reads


# What is remembered.


def test_run_that_was_idle_for_longest_is_forgotten_and_counted() -> None:
    play = playing("r x2, error overloaded scope=test", most=2)
    kinds(play, [subject("a"), subject("b"), subject("a"), subject("c")])
    assert [name for name, _ in play.runs] == ["a", "c"]
    assert (play.forgotten.runs, play.forgotten.never, play.begun) == (1, 2, 3)
    # It begins anew, in the place of the next one.
    assert kinds(play, [subject("b")]) == [R]
    assert (play.forgotten.runs, play.begun) == (2, 4)


@settings(deadline=None)
@given(st.lists(st.integers(0, 30), max_size=200))
def test_no_more_runs_are_held_than_may_be(tests: list[int]) -> None:
    play = playing("r, ok *, scope=test".replace(", scope", " scope"), most=5)
    kinds(play, [subject(f"t{number}") for number in tests])
    assert play.remembered <= 5
    assert play.begun == play.remembered + play.forgotten.runs


def test_names_of_tests_are_bounded() -> None:
    play = playing("r x2 scope=test")
    kinds(play, [subject("x" * 5000), subject("x" * 6000)])
    ((name, run),) = play.runs
    assert (len(name), run.requests) == (200, 2)


@pytest.mark.parametrize(
    ("text", "requests", "never"),
    [
        ("r x2, ok", 0, 3),
        ("r x2, ok", 1, 2),
        ("r x2, ok", 2, 1),
        ("r x2, ok", 3, 0),
        ("ok x5, r", 2, 1),  # of ok one is enough
        ("r, ok *", 1, 0),  # after the last step everything passes anyway
        ("r *", 0, 1),
        ("r *", 1, 0),
    ],
)
def test_what_never_came_is_counted(text: str, requests: int, never: int) -> None:
    play = playing(text)
    kinds(play, [subject()] * requests)
    assert play.never == never
    engine = Engine(lambda: 0.0, Random(1))
    engine.play = play
    assert engine.tally().never == never


@settings(deadline=None)
@given(st.lists(st.sampled_from(["r", "ok", "r x3", "ok x2"]), min_size=1, max_size=8), st.integers(0, 12))
def test_count_of_what_never_came_is_the_sum_over_the_steps(steps: list[str], requests: int) -> None:
    play = playing(", ".join([*steps, "ok *"]))
    kinds(play, [subject()] * requests)
    ((_, run),) = play.runs
    each = [
        play.scenario.missing(index, run.taken_of(play.scenario, index)) for index in range(len(steps) + 1)
    ]
    assert play.never == sum(each[run.index :])


def test_long_scenarios_of_many_runs_are_told_within_bounds() -> None:
    play = playing(", ".join(["r", "ok"] * 500) + " scope=test")
    kinds(play, [subject(f"t{number}") for number in range(1000)])
    assert play.never == 1000 * 999
    found = told(play)
    assert [run["run"] for run in found["runs"]] == [f"t{number}" for number in range(900, 1000)]
    assert found["begun"] == 1000


def test_scenario_for_tests_to_which_no_test_came_was_not_reached() -> None:
    play = playing("r x2, ok scope=test")
    assert play.never == 3
    kinds(play, [subject("a")] * 3)
    assert play.never == 0
    kinds(play, [subject("b")])
    assert play.never == 2


def test_end_is_told_once_where_all_share_a_run() -> None:
    ended: list[str] = []
    play = Play(scenario("r, ok"), Random, ended=lambda: ended.append("over"))
    kinds(play, [subject()])
    assert ended == []
    kinds(play, [subject()] * 3)
    assert ended == ["over"]


# Chance.


def drawn(seed: int, order: list[str], text: str = "r 50% x40 scope=test") -> dict[str, list[bool]]:
    play = playing(text, seed=seed)
    found: dict[str, list[bool]] = {}
    for name in order:
        found.setdefault(name, []).append(play.next(subject(name)) is not None)
    return found


def test_same_seed_and_order_give_the_same_faults() -> None:
    order = ["a"] * 40
    assert drawn(7, order) == drawn(7, order)
    assert drawn(7, order) != drawn(8, order)
    assert 5 < sum(drawn(7, order)["a"]) < 35


@settings(deadline=None)
@given(st.permutations(["a", "b", "c"] * 8), st.integers(0, 10**6))
def test_order_in_which_tests_mix_changes_nothing_for_any_of_them(order: list[str], seed: int) -> None:
    assert drawn(seed, order) == drawn(seed, ["a"] * 8 + ["b"] * 8 + ["c"] * 8)


def test_seed_of_the_scenario_goes_before_the_daemons() -> None:
    text = "r 50% x40 seed=7 scope=test"
    assert drawn(1, ["a"] * 40, text) == drawn(2, ["a"] * 40, text) == drawn(7, ["a"] * 40)


def test_jitter_follows_from_the_seed_and_the_run_alone() -> None:
    def draws(mixed: bool) -> list[float]:
        engine = Engine(lambda: 0.0, Random())
        engine.play = playing("slow per_event=1s jitter=20% x3 scope=test", seed=5)
        found = []
        for _ in range(3):
            if mixed:
                engine.choose(subject("other"))
            chosen = engine.choose(subject("a"))
            assert chosen is not None
            assert chosen.draw is not None
            found += [chosen.draw(), chosen.draw()]
        return found

    assert draws(mixed=False) == draws(mixed=True)
    assert len(set(draws(mixed=False))) == 6


# Beside the other faults.


def test_operator_goes_before_the_scenario_and_the_file_after_it() -> None:
    quota = Rule(name="file", kind=ErrorKind.QUOTA, when=Always())
    engine = Engine(lambda: 0.0, Random(1), [quota])
    engine.play = playing("r, ok")
    engine.set_mode(Rule(name="mode", kind=ErrorKind.TOO_LARGE))
    chosen = [engine.choose(subject()) for _ in range(4)]
    # After the last step everything passes: the file's rules wait until the scenario is stopped.
    assert [one and str(one.rule.kind) for one in chosen] == ["too_large", R, None, None]
    engine.play = None
    last = engine.choose(subject())
    assert last is not None
    assert last.rule is quota


def test_scenario_as_from_the_upstream_concerns_attempts_alone() -> None:
    engine = Engine(lambda: 0.0, Random(1))
    engine.play = playing("r, ok place=upstream")
    assert engine.acts_upstream
    assert engine.choose(subject()) is None
    assert engine.choose(subject(), Side.UPSTREAM) is not None
    assert engine.choose(subject(), Side.UPSTREAM) is None
    assert not engine.acts_upstream


def test_engine_looks_at_nothing_once_all_is_over() -> None:
    engine = Engine(lambda: 0.0, Random(1))
    engine.play = playing("r")
    assert engine.active
    engine.choose(subject())
    assert not engine.active


def test_all_faults_cleared_takes_the_scenario_away() -> None:
    engine = Engine(lambda: 0.0, Random(1))
    engine.play = playing("r *")
    engine.clear()
    assert engine.choose(subject()) is None


# In words.


def test_place_is_told_in_words() -> None:
    play = playing("r x2, ok name=calls")
    assert brief(play) == "scenario calls: step 1 of 2"
    assert progress(play) == "Scenario calls (r x2, ok; step 1 of 2: r x2)"
    kinds(play, [subject()] * 2)
    assert progress(play) == "Scenario calls (r x2, ok; step 2 of 2: ok)"
    kinds(play, [subject()])
    assert progress(play) == "Scenario calls (r x2, ok; all 2 steps taken)"
    other = playing("r name=calls scope=test place=upstream")
    kinds(other, [subject("a")])
    assert progress(other) == "Scenario calls (r; for each test, 1 run so far; as from the upstream)"
    assert brief(other) == "scenario calls: 1 run"


def test_all_of_it_is_told_as_data() -> None:
    play = playing("r x3, ok, ok * name=calls scope=test seed=4")
    kinds(play, [subject("a"), subject("a"), subject("b")])
    found = told(play, most=1)
    assert found["runs"] == [
        {
            "run": "b",
            "requests": 1,
            "missing": 3,
            "steps": [
                {"step": "r x3", "times": 3, "taken": 1, "reached": True, "missing": 2},
                {"step": "ok", "times": 1, "taken": 0, "reached": False, "missing": 1},
                {"step": "ok *", "times": None, "taken": 0, "reached": False, "missing": 0},
            ],
        }
    ]
    assert (found["name"], found["line"], found["scope"]) == ("calls", "r x3, ok, ok *", "test")
    assert (found["seed"], found["begun"], found["never"], found["over"]) == (4, 2, 5, False)
    assert [run["run"] for run in told(play)["runs"]] == ["a", "b"]
