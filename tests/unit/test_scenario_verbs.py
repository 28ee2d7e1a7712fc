"""The verbs of scenarios: what they answer, what they change, and that it is on record."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pytest

from llmproxyd.control.answers import Answer
from llmproxyd.control.means import Means
from llmproxyd.control.scenarios import MOST_KEPT, Scenarios
from llmproxyd.control.scenarioverbs import start
from llmproxyd.control.verbs import Control
from llmproxyd.faults.choose import Engine
from llmproxyd.faults.rules import Subject
from llmproxyd.faults.scenariotext import parse_asked
from llmproxyd.language.filters import Filter
from llmproxyd.model import Change, FaultsChanged
from llmproxyd.providers.base import EndpointKind
from llmproxyd.providers.registry import registry
from llmproxyd.resilience.breakers import Breakers

UPSTREAMS = ("openai", "my-vllm")


@dataclass
class FakeJournal:
    rows: list[dict[str, Any]] = field(default_factory=list)
    attempts: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def recent(self, filters: Sequence[Filter], limit: int) -> Sequence[Mapping[str, Any]]:
        return [row for row in self.rows if all(one.matches(row) for one in filters)][-limit:]

    def explain(self, id: str) -> Mapping[str, Any] | None:
        return {"attempts": self.attempts[id]} if id in self.attempts else None

    def follow(self, filters: object, emit: object) -> Any:
        raise AssertionError("nobody follows")

    def seen(self, *statuses: int, **more: Any) -> None:
        for status in statuses:
            number = len(self.rows) + 1
            self.rows.append(
                {
                    "number": number,
                    "id": f"req-{number}",
                    "time": 1_750_000_000.0 + number,
                    "kind": "inference",
                    "provider": "openai",
                    "upstream": "openai",
                    "status": status,
                    "end": "complete",
                    "sent": 10,
                    "attempts": 1,
                    "code": None,
                    "fault": None,
                    "injected": None,
                }
                | more
            )


class Desk:
    """A control with scenarios, in plain view."""

    def __init__(self, folder: Path, *, allowed: bool = True, seed: int | None = None) -> None:
        self.events: list[object] = []
        self.recorded: list[Change] = []
        self.journal = FakeJournal()
        self.engine = Engine(lambda: 0.0, Random(1))
        self.scenarios = Scenarios(self.engine, Random, folder, UPSTREAMS, registry())
        self.control = Control(
            self.engine,
            breakers=Breakers(lambda event: None),
            emit=self.events.append,
            monotonic=lambda: 0.0,
            upstreams=UPSTREAMS,
            handled=lambda: 0,
            quit=lambda: None,
            draw_seed=lambda: 4711,
            seed=seed,
            allowed=allowed,
            record=self.recorded.append,
            means=Means(scenarios=self.scenarios, journal=self.journal),
        )

    def __call__(self, line: str) -> Answer:
        done = self.control.run(line)
        assert isinstance(done, Answer)
        return done

    def asks(self, count: int = 1, test: str | None = None) -> list[str | None]:
        subject = Subject(EndpointKind.INFERENCE, "openai", "/v1/x", test=test)
        chosen = [self.engine.choose(subject) for _ in range(count)]
        return [None if one is None else str(one.rule.kind) for one in chosen]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_scenario_runs_until_it_is_stopped_and_both_are_on_record(desk: Desk) -> None:
    assert desk("scenario run r x2, ok name=calls").text == ("Scenario calls (r x2, ok; step 1 of 2: r x2)\n")
    assert desk.asks() == ["rate_limit"]
    assert desk.control.prompt() == "[scenario calls: step 1 of 2] Enter command: "
    assert desk.control.active()
    assert desk.control.mode_in_words() == "Scenario calls (r x2, ok; step 1 of 2: r x2)"
    assert desk("scenario stop").text == "Stopped.\nScenario calls (r x2, ok; step 1 of 2: r x2)\n"
    assert desk.asks() == [None]
    assert not desk.control.active()
    assert [(one.action, one.target, one.outcome) for one in desk.recorded] == [
        ("scenario.run", "r x2, ok", "ok"),
        ("scenario.stop", "scenario", "ok"),
    ]
    assert [one.words for one in desk.events if isinstance(one, FaultsChanged)] == [
        "Scenario calls (r x2, ok; step 1 of 2: r x2)",
        "No error (pass through)",
    ]


def test_another_scenario_takes_its_place(desk: Desk) -> None:
    desk("scenario run r *")
    desk("scenario run error overloaded, ok")
    assert desk.asks(3) == ["overloaded", None, None]


def test_end_is_told_and_nothing_is_active_then(desk: Desk) -> None:
    desk("scenario run r")
    desk.asks()
    *_, last = desk.events
    assert isinstance(last, FaultsChanged)
    assert (last.cause, last.commanded) == ("the last step of the scenario was taken", False)
    assert not desk.control.active()
    assert "all 1 steps taken" in desk("scenario").text


def test_status_shows_a_tick_for_each_step_of_each_run(desk: Desk) -> None:
    desk("scenario run r x2, ok, u * scope=test")
    desk.asks(1, "a")
    desk.asks(6, "b")
    desk.asks(2, "c\x1b[2J")
    text = desk("scenario status").text
    assert text.splitlines() == [
        "Scenario (r x2, ok, u *; for each test, 3 runs so far)",
        "  a (1 request): [1/2] r x2, [ ] ok, [ ] u *",
        "  b (6 requests): [x] r x2, [x] ok, [3] u *",
        "  c\\x1b[2J (2 requests): [x] r x2, [ ] ok, [ ] u *",
    ]
    assert desk("scenario status 1").text.splitlines()[-1] == "  … and 2 more runs"
    data = json.loads(desk("scenario status --json").text)["scenario"]
    assert [run["run"] for run in data["runs"]] == ["a", "b", "c\x1b[2J"]
    assert data["never"] == 3 + 2


def test_status_without_a_scenario_shows_the_last_one(desk: Desk) -> None:
    assert desk("scenario").text == "No scenario runs.\n"
    assert desk("scenario stop").text == "No scenario runs.\n"
    desk("scenario run r")
    desk("scenario stop")
    assert "The last one:\nScenario (r;" in desk("scenario").text
    assert desk("scenario --json").data == {"scenario": None}


def test_seed_is_drawn_only_where_chance_needs_one_and_then_told(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    assert "seed" not in desk("scenario run r, ok").text
    assert "seed" not in desk("scenario run r 50% seed=3").text
    assert "faults.seed: 4711 repeats this run" in desk("scenario run r 50% x3").text
    assert desk("scenario --json").data["scenario"]["seed"] == 4711  # type: ignore[index]
    configured = Desk(tmp_path, seed=5)
    assert "repeats" not in configured("scenario run slow per_event=1s jitter=10%").text
    assert configured("scenario --json").data["scenario"]["seed"] == 5  # type: ignore[index]


def test_configured_scenario_starts_although_operators_may_set_no_faults(tmp_path: Path) -> None:
    desk = Desk(tmp_path, allowed=False)
    notes = start(desk.control, desk.scenarios, parse_asked("r 50% x9, ok").scenario())
    assert notes == ["Shares are drawn with seed 4711; faults.seed: 4711 repeats this run."]
    for line in ("scenario run ok", "scenario stop"):
        refused = desk(line)
        assert not refused.ok
        assert "faults may not be set here (operator.faults: true allows them)" in refused.text
    assert [(one.action, one.outcome) for one in desk.recorded] == [
        ("scenario.run", "refused"),
        ("scenario.stop", "refused"),
    ]
    assert desk("scenario").ok
    assert desk.scenarios.play is not None


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("scenario run ../x.yaml", "accepted is a file within the folder of the configuration"),
        ("scenario run /x.yaml", "accepted is a file within the folder"),
        ("scenario run ~/x.yaml", "accepted is a file within the folder"),
        ("scenario run .hidden.yaml", "accepted is a file within the folder"),
        ("scenario run a/../x.yaml", "accepted is a file within the folder"),
        ("scenario run link.yaml", "leads out of the folder of the configuration"),
        ("scenario run linked/x.yaml", "leads out of the folder of the configuration"),
        ("scenario run circle.yaml", "leads out of the folder of the configuration"),
        ("scenario run pipe.yaml", "pipe.yaml: is no file"),
        ("scenario run status=503 body=pipe.json", "is no file"),
        ("scenario run none.yaml", "none.yaml: there is no such file"),
        ("scenario run bad.yaml", 'steps[0]: "rr" is no fault'),
        ("scenario run r, r upstream=my-vlm", 'step 2: found upstream="my-vlm", which is none; did you mean'),
        ("scenario run status=503 body=x.json", "which cannot be read: No such file"),
        ("scenario run r 3", "said by x3"),
        ("scenario runn r", 'did you mean "scenario run"?'),
        ("scenario stop now", "takes nothing after it"),
        ("scenario status 0", "a whole number from 1 to 10000"),
        ("scenario export place=server", "place=server: accepted are client, upstream"),
        ("scenario export name=a/b", "name=a/b: accepted are letters"),
        ("scenario export sttus=1", 'did you mean "status"?'),
        ("scenario export 5000", "a whole number from 1 to 1000"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_changes_nothing(
    desk: Desk, tmp_path: Path, line: str, said: str
) -> None:
    (tmp_path / "bad.yaml").write_text("steps: [rr]\n")
    outside = tmp_path.with_name(f"{tmp_path.name}-outside")
    outside.mkdir()
    (outside / "x.yaml").write_text("steps: [r]\n")
    (tmp_path / "link.yaml").symlink_to(outside / "x.yaml")
    (tmp_path / "linked").symlink_to(outside)
    (tmp_path / "circle.yaml").symlink_to(tmp_path / "circle.yaml")
    os.mkfifo(tmp_path / "pipe.yaml")
    os.mkfifo(tmp_path / "pipe.json")
    desk("scenario run ok, r")
    refused = desk(line)
    assert not refused.ok
    assert said in refused.text
    assert desk.asks(2) == [None, "rate_limit"]


def test_file_is_run_with_what_is_said_beside_it(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "calls.yaml").write_text("scope: model\nsteps: [r]\n")
    assert (
        "Scenario calls (r; for each test, 0 runs so far)"
        in desk("scenario run sub/calls.yaml scope=test").text
    )
    assert desk.asks(2, "a") == ["rate_limit", None]


def test_fault_clear_ends_it_and_n_does_not(desk: Desk) -> None:
    desk("scenario run r x5")
    assert "The scenario is still active; scenario stop ends it." in desk("n").text
    assert desk.asks() == ["rate_limit"]
    assert "Scenario" not in desk("fault clear").text
    assert desk.asks() == [None]


def test_export_writes_the_file_of_what_was_seen(desk: Desk) -> None:
    assert not desk("scenario export").ok
    desk.journal.seen(429, 429, 200, 503)
    desk.journal.seen(200, 200, upstream="my-vllm")
    assert desk("scenario export").text == (
        "# 6 requests, 2025-06-15 15:06:41 to 2025-06-15 15:06:46 UTC\n"
        'name: "exported"\nscope: all\nplace: client\nsteps:\n'
        '  - "r x2"\n  - "ok"\n  - "error overloaded"\n  - "ok *"\n'
    )
    told: Any = desk("scenario export 3 name=outage status>=400 --json").data
    assert (told["line"], told["requests"]) == ("r x2, error overloaded", 3)
    assert 'name: "outage"' in told["file"]
    none = desk("scenario export status=418")
    assert none.error is not None
    assert none.error.code == "nothing_to_export"
    assert desk.recorded == []


def test_export_as_from_the_upstream_asks_for_the_attempts(desk: Desk) -> None:
    desk.journal.seen(200, attempts=2)
    desk.journal.attempts["req-1"] = [
        {"number": 1, "outcome": "unavailable (503)"},
        {"number": 2, "outcome": "200"},
    ]
    told: Any = desk("scenario export place=upstream --json").data
    assert (told["line"], told["place"]) == ("error overloaded, ok *", "upstream")


def test_scenarios_that_are_over_are_remembered_for_the_report_within_bounds(desk: Desk) -> None:
    for number in range(MOST_KEPT + 5):
        desk(f"scenario run r name=s{number}")
    told = desk.scenarios.told()
    assert len(told) == MOST_KEPT
    assert [one["stopped"] for one in told] == [True] * (MOST_KEPT - 1) + [False]
    assert told[-1]["name"] == f"s{MOST_KEPT + 4}"


def test_words_are_completed(desk: Desk) -> None:
    complete = desk.control.complete
    assert complete("scen") == ["scenario"]
    assert complete("scenario ") == ["run", "stop", "status", "export", "--json"]
    assert complete("scenario run r x2, o") == ["ok"]
    assert complete("scenario run r sco") == ["scope=all", "scope=model", "scope=test"]
    assert "upstream=my-vllm" in complete("scenario run r x2, cut ")
    assert complete("scenario run stall f") == ["for="]
    assert complete("scenario run r f") == []
    assert complete("scenario run error over") == ["overloaded"]
    assert complete("scenario export pla") == ["place=client", "place=upstream"]


def test_help_explains_each(desk: Desk) -> None:
    assert "place=upstream" in desk("help scenario export").text
    text = desk("help all").text
    assert all(f"scenario {verb}" in text for verb in ("run", "stop", "status", "export"))
