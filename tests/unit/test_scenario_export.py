"""What was seen becomes a scenario."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmproxyd.config.scenariofile import body_of, read
from llmproxyd.faults.exporting import Exported, fault_line, of_attempts, of_requests, text_of
from llmproxyd.faults.language import SetFault, parse
from llmproxyd.faults.rules import Side
from llmproxyd.faults.scenariotext import line_of, parse_step
from llmproxyd.model import End
from llmproxyd.providers.registry import registry

PROVIDERS = registry()
NUMBER = iter(range(1, 10**9))


def row(status: int = 200, **more: Any) -> dict[str, Any]:
    told = {
        "number": next(NUMBER),
        "id": "x",
        "kind": "inference",
        "provider": "openai",
        "status": status,
        "end": End.COMPLETE.value,
        "sent": 100,
        "attempts": 1,
        "fault": None,
        "code": None,
        "injected": None,
    }
    return told | more


def lines(*rows: Mapping[str, Any]) -> tuple[str, ...]:
    return of_requests(rows, PROVIDERS).lines


@pytest.mark.parametrize(
    ("seen", "step"),
    [
        (row(), "ok *"),
        (row(429), "r"),
        (row(503), "error overloaded"),
        (row(529, provider="anthropic"), "error overloaded"),
        (row(503, provider="anthropic"), "status=503"),  # it has no error of this status
        (row(500), "error server_error"),
        (row(401), "error authentication"),
        (row(400), "status=400"),  # it may mean anything
        (row(418), "status=418"),
        (row(502, code="upstream_unreachable", failed=True), "error bad_gateway"),
        (row(end="truncated", sent=640), "cut at=640B"),
        (row(end="truncated", sent=0), "cut at=start"),
        (row(end="idle", sent=640), "stall at=640B"),
        (row(end="idle", sent=0), "stall at=start"),
        (row(end="in_band_error"), "stream_error"),
        (row(429, fault="rate_limit", injected="r place=upstream"), "r"),
        (row(200, fault="rate_limit", attempts=3, injected="r place=upstream"), "ok *"),
        (row(429, fault="rate_limit", attempts=0, injected="r retry_after=2"), "r retry_after=2"),
        (row(500, fault="unknown", attempts=0, injected="u"), "u"),
        (row(fault="slow", injected="slow per_event=200ms"), "slow per_event=200ms"),
        (row(fault="cut", end="truncated", sent=99, injected="cut at=3"), "cut at=3"),
        (row(fault="duplicate", injected="duplicate"), "duplicate"),
        (row(provider="nobody", status=429), "status=429"),
    ],
)
def test_what_a_client_saw_is_a_step(seen: Mapping[str, Any], step: str) -> None:
    assert lines(seen) == (step,)


def test_client_that_left_saw_no_failure() -> None:
    assert lines(row(499, end="client_gone", sent=0), row(429)) == ("ok", "r")
    assert lines(row(200, end="client_gone"), row(429)) == ("ok", "r")


def test_requests_stand_in_the_order_in_which_they_came_and_equal_ones_together() -> None:
    first, second, third, fourth = row(429), row(429), row(), row(503)
    assert lines(fourth, second, third, first) == ("r x2", "ok", "error overloaded")
    assert lines(row(), row(429), row(), row()) == ("ok", "r", "ok *")


def test_what_no_scenario_concerns_is_left_out() -> None:
    refused = row(401, code="token_not_found", attempts=0)
    open_circuit = row(503, code="circuit_open", attempts=0)
    hit = row(200, attempts=0, cache="hit")
    found = of_requests([row(kind="metadata", status=404), refused, open_circuit, hit], PROVIDERS)
    assert found == Exported(("error overloaded", "ok *"), requests=2, failed=1)


@pytest.mark.parametrize(
    ("seen", "step"),
    [
        (row(200, fault="cut", end="truncated", injected="cut at=3"), "ok *"),  # the proxy did it, in front
        (row(200, fault="duplicate", injected="duplicate place=upstream"), "duplicate"),
        (row(429, fault="rate_limit", injected="r place=upstream"), "r"),
        (row(504, code="headers_timeout"), "never"),
        (row(499, end="client_gone"), "ok *"),
    ],
)
def test_what_the_only_attempt_met_with_is_a_step(seen: Mapping[str, Any], step: str) -> None:
    assert of_attempts([seen], PROVIDERS, lambda one: ()).lines == (step,)


def attempts(*outcomes: str) -> Sequence[Mapping[str, Any]]:
    return [{"number": number, "outcome": text} for number, text in enumerate(outcomes, 1)]


def test_attempts_that_failed_become_steps_of_the_upstream() -> None:
    seen = [
        row(429),
        row(attempts=4, id="four"),
        row(attempts=0, status=429, fault="rate_limit"),
        row(502, code="upstream_unreachable"),
    ]
    told = {"four": attempts("overloaded (529)", "unavailable (503)", "did not answer in time", "200")}
    found = of_attempts(seen, PROVIDERS, lambda one: told[one["id"]])
    assert found.lines == ("r", "status=529", "error overloaded", "never", "ok", "refuse")
    assert (found.requests, found.failed) == (3, 5)


@pytest.mark.parametrize(
    ("outcome", "step"),
    [
        ("limited the rate (429)", "r"),
        ("unreachable", "refuse"),
        ("could not be connected to in time", "refuse"),
        ("said nothing in time", "stall at=start"),
        ("fell silent", "stall"),
        ("broke off", "cut"),
        ("sent an empty stream", "empty"),
        ("failed", "stream_error at=start"),
    ],
)
def test_each_outcome_of_an_attempt_is_a_step(outcome: str, step: str) -> None:
    found = of_attempts([row(429, attempts=2)], PROVIDERS, lambda one: attempts(outcome, "429"))
    assert found.lines[0].startswith(step)


def test_every_outcome_that_is_told_is_known() -> None:
    from llmproxyd.faults.exporting import CODES, OUTCOMES
    from llmproxyd.pipeline import judge

    assert set(judge.CODES.values()) == set(OUTCOMES)
    assert set(judge.CODES) == set(CODES)


@pytest.mark.parametrize(
    "text",
    [
        "r 3 retry_after=2",
        "error quota *",
        "cut at=3 upstream=openai",
        "status=503 body=a.json",
        "slow per_event=200ms jitter=20% 2".replace(" 2", ""),
        "stall for=3s at=tool ttl=5m",
        "error overloaded 30% model=gpt-4* place=upstream max=3 after=2 for=5m",
        "stream_error error=quota at=2",
        "wrong_length length=-20",
    ],
)
def test_fault_as_a_step_does_the_same_to_one_request(text: str) -> None:
    command = parse(text)
    assert isinstance(command, SetFault)
    step = parse_step(fault_line(command.rule).removesuffix(" place=upstream"))
    assert step.rule is not None
    assert (step.rule.kind, step.rule.manner, step.rule.retry_after) == (
        command.rule.kind,
        command.rule.manner,
        command.rule.retry_after,
    )
    assert step.times == 1
    assert " 1" not in step.text


STATUSES = st.sampled_from((200, 400, 401, 404, 418, 422, 429, 499, 500, 502, 503, 504, 529, 599))


@settings(deadline=None)
@given(
    st.lists(
        st.builds(
            row,
            status=STATUSES,
            provider=st.sampled_from((*PROVIDERS, "nobody")),
            end=st.sampled_from([end.value for end in End]),
            sent=st.integers(0, 10**12),
            code=st.none() | st.sampled_from(("upstream_unreachable", "idle_timeout", "odd")),
            attempts=st.integers(0, 3),
        ),
        min_size=1,
        max_size=30,
    )
)
def test_whatever_was_seen_gives_a_file_that_can_be_read(
    tmp_path_factory: Any, seen: list[dict[str, Any]]
) -> None:
    explain = lambda one: attempts(*["broke off"] * one["attempts"])  # noqa: E731
    for side, found in (
        (Side.CLIENT, of_requests(seen, PROVIDERS)),
        (Side.UPSTREAM, of_attempts(seen, PROVIDERS, explain)),
    ):
        if not found.lines:
            continue
        file: Path = tmp_path_factory.getbasetemp() / "exported.yaml"
        file.write_text(text_of(found, name="out.age", side=side, about="x"))
        scenario = read(file, (), body_of)
        assert line_of(scenario) == ", ".join(found.lines)
        assert (scenario.name, scenario.side) == ("out.age", side)


def test_steps_that_are_too_many_are_counted() -> None:
    found = of_requests([row(429 if number % 2 else 500) for number in range(1200)], PROVIDERS)
    assert (len(found.lines), found.left, found.requests) == (1000, 200, 1200)
