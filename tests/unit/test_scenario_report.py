"""What a rehearsal came to, as JSON and as JUnit XML."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmproxyd.faults.choose import Tally
from llmproxyd.faults.progress import told
from llmproxyd.faults.rules import Subject
from llmproxyd.faults.scenario import Play
from llmproxyd.faults.scenariotext import parse_asked
from llmproxyd.inspection.prices import Prices
from llmproxyd.model import Arrived, Captured, End, Finished, Reading
from llmproxyd.observe import report as module
from llmproxyd.observe.eventjson import EventFormat
from llmproxyd.observe.junit import junit
from llmproxyd.observe.report import Asked, Report
from llmproxyd.providers.base import EndpointKind
from llmproxyd.redaction import Redactor, Secret

KEY = "sk-secret0of0the0config0123456789"
VERDICT = {"name": "ignored_retry_after", "text": "came back after 0.1 s <of 20>", "requests": ["1", "2"]}


def finished(number: int, status: int = 200, **more: Any) -> Finished:
    given: dict[str, Any] = {
        "number": number,
        "request_id": f"r-{number}",
        "method": "POST",
        "path": "/v1/chat/completions",
        "provider": "openai",
        "upstream": "openai",
        "status": status,
        "duration": 0.5,
        "sent": 3,
        "end": End.COMPLETE,
    }
    return Finished(**given | more)


def playing(text: str, *tests: str) -> dict[str, Any]:
    play = Play(parse_asked(text).scenario(), Random)
    for test in tests:
        play.next(Subject(EndpointKind.INFERENCE, "openai", "/", test=test))
    return told(play) | {"stopped": False}


def made(path: Path, *scenarios: Mapping[str, Any], tally: Tally | None = None, verdicts: Any = ()) -> Report:
    asked = Asked(
        scenarios=lambda: scenarios,
        tally=lambda: tally or Tally(0, sum(one["never"] for one in scenarios if not one["stopped"]), ()),
        verdicts=lambda: verdicts,
    )
    return Report(path, asked, lambda: 1_750_000_000.0, EventFormat(Redactor([Secret(KEY)]), Prices({})))


def cases(suite: ElementTree.Element) -> list[tuple[str | None, str | None, str | None]]:
    found = []
    for case in suite.iter("testcase"):
        failure = case.find("failure")
        found.append(
            (case.get("classname"), case.get("name"), None if failure is None else failure.get("message"))
        )
    return found


def suites(path: Path) -> dict[str | None, ElementTree.Element]:
    return {suite.get("name"): suite for suite in ElementTree.parse(path).getroot()}


def test_json_holds_steps_requests_and_verdicts(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    report = made(path, playing("r, ok x2 scope=test name=calls", "a", "a", "b"), verdicts=[VERDICT])
    report(finished(2, 200, test="a", model="gpt-4o", reading=Reading(model="x"), captured=Captured()))
    report(Arrived(3, "r-3", "POST", "/", "openai", "openai"))
    report(finished(1, 429, test="a", fault="rate_limit", attempts=0))
    assert report.write()
    data = json.loads(path.read_text())
    assert [
        (row["number"], row["method"], row["path"], row["status"], row["fault"], row["end"], row["test"])
        for row in data["requests"]
    ] == [
        (1, "POST", "/v1/chat/completions", 429, "rate_limit", "complete", "a"),
        (2, "POST", "/v1/chat/completions", 200, None, "complete", "a"),
    ]
    (scenario,) = data["scenarios"]
    assert {run["run"]: [step["taken"] for step in run["steps"]] for run in scenario["runs"]} == {
        "a": [1, 1],
        "b": [1, 0],
    }
    assert (data["reached"], data["never"], data["verdicts"]) == (False, 1, [VERDICT])
    assert data["left_out"] == {"requests": 0, "verdicts": 0}


def test_junit_has_a_case_for_each_step_of_each_run_and_for_each_verdict(tmp_path: Path) -> None:
    path = tmp_path / "report.XML"
    report = made(path, playing("r x2, ok scope=test name=calls", "a", "a", "a", "b"), verdicts=[VERDICT])
    report(finished(1, 429, fault="rate_limit", test="a"))
    report(finished(2, fault="cut", unreached=True))
    assert report.write()
    top = ElementTree.parse(path).getroot()
    assert (top.get("tests"), top.get("failures"), top.get("skipped")) == ("6", "3", "0")
    found = suites(path)
    assert cases(found["calls"]) == [
        ("calls.a", "1. r x2", None),
        ("calls.a", "2. ok", None),
        ("calls.b", "1. r x2", "1 of 2 requests came to this step"),
        ("calls.b", "2. ok", "0 of 1 request came to this step"),
    ]
    assert cases(found["faults"]) == [("faults", "every fault that was asked for came", None)]
    assert cases(found["verdicts"]) == [("verdicts", "ignored_retry_after", "came back after 0.1 s <of 20>")]
    output = found["verdicts"].find("system-out")
    assert output is not None
    assert (output.text or "").splitlines() == [
        "#1 POST /v1/chat/completions 429 rate_limit complete [a]",
        "#2 POST /v1/chat/completions 200 cut (not reached) complete",
    ]
    assert found["calls"].find("properties/property[@name='line']").get("value") == "r x2, ok"  # type: ignore[union-attr]


def test_scenario_to_which_nobody_came_is_a_failure(tmp_path: Path) -> None:
    path = tmp_path / "report.xml"
    made(path, playing("r x2, ok scope=test name=calls")).write()
    assert cases(suites(path)["calls"]) == [("calls", "r x2, ok", "no request came to any step")]


def test_open_steps_of_a_scenario_that_was_stopped_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "report.xml"
    made(path, playing("r x2, ok") | {"stopped": True}).write()
    top = ElementTree.parse(path).getroot()
    assert (top.get("failures"), top.get("skipped")) == ("0", "2")


def test_faults_of_no_scenario_that_never_came_are_a_failure(tmp_path: Path) -> None:
    path = tmp_path / "report.xml"
    made(path, playing("r x2"), tally=Tally(0, 5, ("evening",))).write()
    ((_, _, why),) = cases(suites(path)["faults"])
    assert why == "3 never reached; evening was never reached"


def test_report_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_REQUESTS", 3)
    monkeypatch.setattr(module, "MOST_VERDICTS", 2)
    path = tmp_path / "report.json"
    report = made(path, verdicts=[VERDICT] * 5)
    for number in range(10):
        report(finished(number, path="/" + "x" * 100_000, model="m" * 100_000))
    report.write()
    data = json.loads(path.read_text())
    assert [row["number"] for row in data["requests"]] == [0, 1, 2]
    assert data["left_out"] == {"requests": 7, "verdicts": 3}
    assert len(data["requests"][0]["path"]) < 5000
    assert path.stat().st_size < 100_000


def test_secrets_of_the_configuration_stand_in_no_report(tmp_path: Path) -> None:
    for name in ("report.json", "report.xml"):
        path = tmp_path / name
        report = made(path)
        report(finished(1, path=f"/v1/{KEY}/x", model=f"model-{KEY}"))
        report.write()
        assert KEY not in path.read_text()


@settings(deadline=None)
@given(st.text(max_size=40), st.text(max_size=40))
def test_whatever_clients_send_makes_a_document_that_can_be_read(name: str, text: str) -> None:
    scenario = playing("r x2 scope=test", name)
    row = {"number": 1, "method": name, "path": text, "status": 200, "fault": None, "end": "complete"}
    document = junit(
        {
            "scenarios": [scenario],
            "verdicts": [{"name": name, "text": text}],
            "requests": [row | {"test": text, "unreached": False}],
            "left_out": {"requests": 1},
            "never": 0,
            "idle": [name],
        }
    )
    assert ElementTree.fromstring(document).tag == "testsuites"


def test_report_takes_the_place_of_an_older_one_all_at_once(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text("old")
    path.chmod(0o640)
    assert made(path).write()
    assert json.loads(path.read_text())["requests"] == []
    assert os.listdir(tmp_path) == ["report.json"]


def test_report_that_cannot_be_written_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "report.json"
    folder.mkdir()
    assert not made(folder).write()
    assert not made(tmp_path / "none" / "report.json").write()
    assert os.listdir(tmp_path) == ["report.json"]


def test_verdicts_that_fail_do_not_end_the_stop(tmp_path: Path) -> None:
    def broken() -> Any:
        raise RuntimeError("no")

    asked = Asked(scenarios=list, tally=lambda: Tally(0, 0, ()), verdicts=broken)
    report = Report(tmp_path / "r.json", asked, lambda: 0.0, EventFormat(Redactor(()), Prices({})))
    assert not report.write()
