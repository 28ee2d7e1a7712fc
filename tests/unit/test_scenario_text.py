"""Scenarios as one line: ``r x2, ok, cut at=3, ok *``."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmproxyd.faults.language import Incomplete, LanguageError
from llmproxyd.faults.rules import At, Breakage, Share, Side, Spot, Times
from llmproxyd.faults.scenario import Scenario, Scope, Step
from llmproxyd.faults.scenariotext import (
    MOST_STEPS,
    MOST_TIMES,
    is_file,
    line_of,
    parse_asked,
    parse_step,
)
from llmproxyd.providers.base import ErrorKind

FAULTS = (
    "r",
    "r retry_after=2",
    "c upstream=openai",
    "u model=gpt-4*",
    "error overloaded",
    "r 30%",
    "cut at=3",
    "cut at=50%bytes",
    "reset",
    "stall for=2s",
    "stream_error error=rate_limit at=tool",
    "slow per_event=200ms jitter=20%",
    "status=503 body=page.html",
    "refuse",
)


def test_line_of_the_documentation_is_these_steps() -> None:
    scenario = parse_asked("r x2, ok, cut at=3, slow per_event=200ms x5, ok *").scenario()
    assert [(step.text, step.times) for step in scenario.steps] == [
        ("r", 2),
        ("ok", 1),
        ("cut at=3", 1),
        ("slow per_event=200ms", 5),
        ("ok", None),
    ]
    first, second, third, *_ = (step.rule for step in scenario.steps)
    assert first is not None
    assert first.kind is ErrorKind.RATE_LIMIT
    assert second is None
    assert third is not None
    assert (third.kind, third.manner.at) == (Breakage.CUT, At(Spot.EVENTS, 3))
    assert (scenario.scope, scenario.side, scenario.seed) == (Scope.ALL, Side.CLIENT, None)


steps_as_text = st.builds(
    lambda text, times: (text, times),
    st.sampled_from((*FAULTS, "ok")),
    st.one_of(st.none(), st.integers(1, MOST_TIMES)),
)


@settings(deadline=None)
@given(st.lists(steps_as_text, min_size=1, max_size=12))
def test_scenario_written_and_read_again_is_the_same(given_steps: list[tuple[str, int | None]]) -> None:
    # Only the last one may take all that follow.
    steps = tuple(
        parse_step(text, (1 if times is None else times) if index < len(given_steps) - 1 else times or "*")
        for index, (text, times) in enumerate(given_steps)
    )
    scenario = Scenario(name="scenario", steps=steps)
    assert parse_asked(line_of(scenario)).scenario() == scenario


@settings(deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_a_scenario_or_refused_in_words(text: str) -> None:
    with suppress(LanguageError):
        asked = parse_asked(text)
        assert asked.file or asked.steps


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ("  OK  X3 ", "ok x3"),
        ("x2 r", "r x2"),
        ("r x2 retry_after=1", "r retry_after=1 x2"),
        ("r * upstream=openai", "r upstream=openai *"),
        ("cut at = 3", "cut at=3"),
        ("r x1", "r"),
        ("r 1", "r 1"),
    ],
)
def test_order_and_white_space_are_free(text: str, step: str) -> None:
    assert parse_step(text).line == step


def test_share_is_of_the_requests_that_take_the_step() -> None:
    step = parse_step("r 30% x4")
    assert step.rule is not None
    assert (step.rule.when, step.times) == (Share(0.3), 4)
    certain = parse_step("r percent=100 x4").rule
    assert certain is not None
    assert certain.when == Times(1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("r 3", 'how many requests take a step is said by x3, as in "r x3"'),
        ("error quota 2", "said by x2"),
        ("r 0", "ok is a step that passes"),
        ("n", '"n" is no fault; ok is a step that passes'),
        ("ok 3", 'ok takes xN or * alone, found "3"'),
        ("r x0", "x0 is out of bounds"),
        (f"r x{MOST_TIMES + 1}", "out of bounds"),
        ("r x2 x3", "says twice"),
        ("r x2 *", "says twice"),
        ("x2", 'a fault or ok is missing before "x2"'),
        ("r after=2", 'after= cannot be said of a step, write "ok xN" before it'),
        ("r for=5m", "for= cannot be said of a step"),
        ("stall for=1s ttl=5m", "ttl= cannot be said of a step"),
        ("r max=2", "max= cannot be said of a step, write xN"),
        ("error overload", 'did you mean "overloaded"?'),
        ("cutt", 'did you mean "cut"?'),
        ("r sene=1", "is no option here"),
    ],
)
def test_what_cannot_be_a_step_is_refused_with_what_can(text: str, said: str) -> None:
    with pytest.raises(LanguageError) as refused:
        parse_step(text)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("r,,r", "step 2: a step is missing"),
        ("r, okk, r", 'step 2: "okk" is no fault'),
        ("ok *, r", 'nothing comes to "r": "ok *" before it takes all that follow'),
        ("r, slow, r", "step 2: slow needs a pace"),
        (", ".join(["r"] * (MOST_STEPS + 1)), f"accepted: {MOST_STEPS} at most"),
        ("r scope=tests", "scope=tests: accepted are all, model, test"),
        ("r place=server", "place=server: accepted are client, upstream"),
        ("r seed=x", "seed=x: accepted is a whole number"),
        ("r seed=1 seed=2", "seed is given twice"),
        ("r name=a/b", "name=a/b: accepted are"),
    ],
)
def test_what_is_no_scenario_is_refused_with_its_step(text: str, said: str) -> None:
    with pytest.raises(LanguageError) as refused:
        parse_asked(text)
    assert said in str(refused.value)
    assert not isinstance(refused.value, Incomplete)


@pytest.mark.parametrize("text", ["", "r x2,", "r, error", "r scope=", "r retry_after=", "r, slow"])
def test_text_that_may_go_on_is_incomplete(text: str) -> None:
    with pytest.raises(Incomplete):
        parse_asked(text)


def test_what_is_said_of_the_whole_stands_anywhere() -> None:
    scenario = parse_asked("scope=test r x2, ok place=upstream, r seed=-7 name=calls").scenario()
    assert line_of(scenario) == "r x2, ok, r"
    assert (scenario.scope, scenario.side, scenario.seed) == (Scope.TEST, Side.UPSTREAM, -7)
    assert scenario.name == "calls"


def test_steps_may_stand_in_quotes() -> None:
    for text in ('"r x2, ok" scope=test', "'r x2, ok' scope=test", 'scope=test "r x2, ok"'):
        assert line_of(parse_asked(text).scenario()) == "r x2, ok"
        assert parse_asked(text).scope is Scope.TEST
    assert parse_asked('"my calls.yaml"').file == "my calls.yaml"


def test_what_is_given_beside_a_file_takes_the_place_of_what_stands_in_it() -> None:
    asked = parse_asked("outage.yaml seed=7")
    assert (asked.file, asked.steps) == ("outage.yaml", ())
    written = Scenario(name="outage", steps=(Step(None),), scope=Scope.MODEL, seed=3)
    assert asked.over(written) == Scenario(name="outage", steps=(Step(None),), scope=Scope.MODEL, seed=7)


@pytest.mark.parametrize(
    ("text", "file"),
    [
        ("outage.yaml", True),
        ("a/b.YML", True),
        ("/etc/x", True),
        ("./x", True),
        ("~/x", True),
        ("r path=/v1/*", False),
        ("ok", False),
        ("status=503 body=a.json", False),
    ],
)
def test_file_is_told_from_steps_by_its_name(text: str, file: bool) -> None:
    assert is_file(text) is file
