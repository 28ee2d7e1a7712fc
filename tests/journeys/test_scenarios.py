"""Scenarios: faults in an order, for all requests, for each model or for each test."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import raw
from daemon import Daemon, environment

MESSAGES = [{"role": "user", "content": "tell me a joke"}]
CHAT = "/v1/chat/completions"
ANSWERED = 30.0


def ask(
    url: str, *, test: str | None = None, path: str = CHAT, model: str = "gpt-4o", **more: object
) -> raw.Answer:
    fields = {"Authorization": "Bearer sk-x"} | ({} if test is None else {"x-llmproxyd-test": test})
    return raw.ask(url, path, fields, {"model": model, "messages": MESSAGES, **more})


def statuses(url: str, count: int, **how: Any) -> list[int]:
    return [ask(url, **how).status for _ in range(count)]


def rows(report: Mapping[str, Any], *names: str) -> list[tuple[object, ...]]:
    return [tuple(row[name] for name in names) for row in report["requests"]]


def answered(daemon: Daemon, line: str, begin: str) -> str:
    """What the daemon answers to *line*, from *begin* on: lines of the log may stand before it."""
    said = daemon.command(line)
    return said[said.index(f"\n{begin}") + 1 :] if not said.startswith(begin) else said


# Two hundred at once.

STEPS = "r, error overloaded x2, ok, u, ok *"
EXPECTED = [429, 503, 503, 200, 500, 200, 200]
TESTS = 200


def test_two_hundred_tests_at_once_each_get_exactly_their_scenario(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    given = ("--sandbox", "--no-stdin", "--require-faults", "--report", str(file))
    seen: dict[str, list[int]] = {}
    begin = threading.Barrier(TESTS)

    def client(name: str, path: str, field: bool, url: str) -> None:
        fields = {"Authorization": "Bearer sk-x"} | ({"x-llmproxyd-test": name} if field else {})
        connection = raw.connect(url)
        try:
            raw.send(connection, "GET", "/health")
            begin.wait(ANSWERED)
            found = []
            for _ in EXPECTED:
                body = {"model": "gpt-4o", "messages": MESSAGES}
                found.append(raw.send(connection, "POST", path, fields, body).status)
                # Requests without a test pass, and others of the daemon's paths count for nobody.
                if len(found) == 3:
                    raw.send(connection, "GET", "/v1/models", fields)
            seen[name] = found
        finally:
            connection.close()

    with Daemon(*given, "--scenario", f"{STEPS} scope=test name=calls") as daemon:
        threads = []
        for number in range(TESTS):
            # Half of them cannot send fields and say it in their path; both carry the same kind of name.
            name, field = f"suite::test-{number}", bool(number % 2)
            path = CHAT if field else f"/to/openai/@{name}{CHAT}"
            threads.append(threading.Thread(target=client, args=(name, path, field, daemon.url), daemon=True))
        for thread in threads:
            thread.start()
        assert statuses(daemon.url, 3) == [200, 200, 200]
        for thread in threads:
            thread.join(ANSWERED)
        assert seen == {f"suite::test-{number}": EXPECTED for number in range(TESTS)}
        assert daemon.stop() == 0

    report = json.loads(file.read_text())
    (scenario,) = report["scenarios"]
    assert (scenario["begun"], scenario["never"], scenario["forgotten"]) == (TESTS, 0, 0)
    assert {run["run"] for run in scenario["runs"]} == set(seen)
    assert all(step["reached"] for run in scenario["runs"] for step in run["steps"])
    assert report["reached"]
    by_test: dict[str, list[tuple[int, int]]] = {}
    for number, status, test, operation in rows(report, "number", "status", "test", "path"):
        if str(operation).endswith(CHAT) and test is not None:
            by_test.setdefault(str(test), []).append((int(str(number)), int(str(status))))
    assert {test: [status for _, status in sorted(found)] for test, found in by_test.items()} == seen


# The same again.

CHANCE = "r 40% x12, error overloaded 50% x12, ok scope=test name=chance"


def events_of(tmp_path: Path, seed: int, name: str) -> list[tuple[object, ...]]:
    file = tmp_path / f"{name}.json"
    given = ("--sandbox", "--no-stdin", "--scenario", f"{CHANCE} seed={seed}", "--report", str(file))
    with Daemon(*given) as daemon:
        for _ in range(13):
            for test in ("a", "b"):
                ask(daemon.url, test=test, stream=True)
        daemon.stop()
    return rows(json.loads(file.read_text()), "method", "path", "status", "fault", "end", "test", "model")


def test_same_scenario_and_seed_give_the_same_events(tmp_path: Path) -> None:
    first = events_of(tmp_path, 7, "first")
    assert first == events_of(tmp_path, 7, "second")
    assert first != events_of(tmp_path, 8, "third")
    found = [row[2] for row in first]
    assert len(found) == 26
    assert {200, 429} <= set(found)


def test_seed_of_the_file_holds_for_scenarios_too(tmp_path: Path) -> None:
    config = tmp_path / "llmproxyd.yaml"
    config.write_text('sandbox: {enabled: true}\nfaults: {seed: 5, scenario: "r 50% x20"}\n')
    found = []
    for _ in range(2):
        with Daemon("--config", str(config), "--no-stdin") as daemon:
            found.append(statuses(daemon.url, 20))
            assert "faults.seed" not in daemon.output
    assert found[0] == found[1]
    assert set(found[0]) == {200, 429}


def test_seed_that_was_drawn_is_told_and_repeats_the_run() -> None:
    with Daemon("--sandbox", "--no-stdin", "--scenario", "r 50% x20") as daemon:
        said = daemon.wait_for(r"faults\.seed: (\d+) repeats this run")
        first = statuses(daemon.url, 20)
    with Daemon("--sandbox", "--no-stdin", "--scenario", f"r 50% x20 seed={said.group(1)}") as daemon:
        assert statuses(daemon.url, 20) == first


# What was seen becomes a scenario.


def test_failures_of_an_upstream_are_exported_and_run_again(tmp_path: Path) -> None:
    outage = [503, 503, 200, 429, 500, 418, 200]
    with raw.recording() as upstream:
        config = tmp_path / "llmproxyd.yaml"
        config.write_text(f"upstreams: {{openai: {{base_url: {upstream.url}}}}}\n")
        with Daemon("--config", str(config)) as daemon:
            for status in outage:
                upstream.status = status
                assert ask(daemon.url).status == status
            raw.ask(daemon.url, "/v1/models", {"Authorization": "Bearer sk-x"})
            told = json.loads(answered(daemon, "scenario export name=outage --json", "{"))
            text = answered(daemon, "scenario export name=outage", "# ")
    assert told["line"] == "error overloaded x2, ok, r, error server_error, status=418, ok *"
    assert (told["requests"], told["failed"]) == (7, 5)
    file = tmp_path / "outage.yaml"
    file.write_text(text)
    with Daemon("--sandbox", "--no-stdin", "--require-faults", "--scenario", str(file)) as daemon:
        assert statuses(daemon.url, len(outage)) == outage
        assert daemon.stop() == 0


def test_export_of_a_run_run_again_gives_the_same_faults(tmp_path: Path) -> None:
    line = "r retry_after=0 x2, ok, error quota, u, status=418, ok x2, c"
    lists = []
    scenario, text = line, ""
    for _ in range(2):
        report = tmp_path / "report.json"
        with Daemon("--sandbox", "--scenario", scenario, "--report", str(report)) as daemon:
            for _ in range(9):
                ask(daemon.url)
            text = answered(daemon, "scenario export", "# ")
            daemon.stop()
        lists.append(rows(json.loads(report.read_text()), "status", "fault", "end"))
        scenario = str(tmp_path / "again.yaml")
        Path(scenario).write_text(text)
    assert lists[0] == lists[1]
    assert [row[1] for row in lists[0]] == [
        "rate_limit",
        "rate_limit",
        None,
        "quota",
        "unknown",
        "status",
        None,
        None,
        "context_length",
    ]


# On the command line.


def test_mistakes_in_a_file_end_the_start_in_one_report(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(
        "scope: tests\nsteps:\n  - r x2\n  - cutt\n  - {fault: r, times: none}\n  - r upstream=opnai\n"
    )
    with pytest.raises(AssertionError) as ended, Daemon("--sandbox", "--no-stdin", "--scenario", str(file)):
        pass
    said = str(ended.value)
    assert "ended at once with 1" in said
    assert f'{file}:1: scope: found "tests"; accepted: all, model, test; did you mean "test"?' in said
    assert f'{file}:4: steps[1]: "cutt" is no fault; did you mean "cut"?' in said
    assert f'{file}:5: steps[2].times: found "none"' in said
    assert f'{file}:6: steps[3]: found upstream="opnai", which is none; did you mean "openai"?' in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--scenario", "r x2, okk"), "--scenario: there is no file 'r x2, okk', and as steps: step 2"),
        (("--scenario", "none.yaml"), "none.yaml: there is no such file"),
        (("--scenario", "r upstream=opnai"), 'upstream="opnai", which is none; did you mean "openai"?'),
        (("--report", "/nowhere/at/all.json"), "accepted: a file in a folder that is there"),
    ],
)
def test_mistakes_on_the_command_line_end_the_start(arguments: Sequence[str], said: str) -> None:
    with pytest.raises(AssertionError) as ended, Daemon("--sandbox", "--no-stdin", *arguments):
        pass
    assert "ended at once with 1" in str(ended.value)
    assert said in str(ended.value)


@pytest.mark.parametrize(("requests", "status"), [(2, 1), (4, 0), (6, 0)])
def test_step_that_was_not_reached_is_a_failure_where_faults_are_required(
    requests: int, status: int, tmp_path: Path
) -> None:
    file = tmp_path / "report.xml"
    given = ("--sandbox", "--no-stdin", "--scenario", "r x3, ok name=calls", "--report", str(file))
    with Daemon(*given, "--require-faults") as daemon:
        statuses(daemon.url, requests)
        assert daemon.stop() == status
    suites = {suite.get("name"): suite for suite in ElementTree.parse(file).getroot()}
    calls = suites["calls"]
    assert [case.get("name") for case in calls.iter("testcase")] == ["1. r x3", "2. ok"]
    assert {case.get("classname") for case in calls.iter("testcase")} == {"calls.all"}
    failures = [one.get("message") for one in calls.iter("failure")]
    assert failures == (
        ["2 of 3 requests came to this step", "0 of 1 request came to this step"] if status else []
    )
    assert calls.get("failures") == str(len(failures))
    output = "".join(one.text or "" for one in suites["verdicts"].iter("system-out"))
    assert output.splitlines()[:2] == [f"#{number} POST {CHAT} 429 rate_limit complete" for number in (1, 2)]


def test_report_changes_no_exit_status_by_itself(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    with Daemon("--sandbox", "--no-stdin", "--scenario", "r x3", "--report", str(file)) as daemon:
        ask(daemon.url)
        assert daemon.stop() == 0
        assert "2 never reached" in daemon.output
    report = json.loads(file.read_text())
    assert (report["reached"], report["never"], report["injected"]) == (False, 2, 1)
    assert [file.name for file in tmp_path.iterdir()] == ["report.json"]


# Operators.


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "llmproxyd.yaml").write_text(
        "sandbox: {enabled: true}\naudit: {file: audit.jsonl}\nadmin: {listen: 'unix:admin.sock'}\n"
    )
    (tmp_path / "calls.yaml").write_text('scope: model\nsteps: ["r", "status=503 body=page.html", "ok"]\n')
    (tmp_path / "page.html").write_text("<h1>Back soon</h1>")
    return tmp_path


def test_operator_runs_a_file_watches_it_and_stops_it(folder: Path) -> None:
    with Daemon("--config", str(folder / "llmproxyd.yaml"), cwd=folder) as daemon:
        said = daemon.command("scenario run calls.yaml")
        assert "Scenario calls (r, status=503 body=page.html, ok; for each model, 0 runs so far)" in said
        assert ask(daemon.url, model="gpt-4o").status == 429
        page = ask(daemon.url, model="gpt-4o")
        assert (page.status, page.body) == (503, b"<h1>Back soon</h1>")
        assert ask(daemon.url, model="o3").status == 429
        status = daemon.command("scenario")
        assert "gpt-4o (2 requests): [x] r, [x] status=503 body=page.html, [ ] ok" in status
        assert "o3 (1 request): [x] r, [ ] status=503 body=page.html, [ ] ok" in status
        assert raw.ask(daemon.url, "/health").json["mode"].startswith("Scenario calls (r, status=503")
        assert "Scenario calls" in daemon.command("status")
        assert "The scenario is still active; scenario stop ends it." in daemon.command("n")
        assert "Stopped." in daemon.command("scenario stop")
        assert ask(daemon.url, model="o3").status == 200
        assert "No scenario runs." in daemon.command("scenario stop")
        assert raw.ask(daemon.url, "/health").json["mode"] == "No error (pass through)"
    records = [json.loads(line) for line in (folder / "audit.jsonl").read_text().splitlines()]
    assert [(one["action"], one["target"]) for one in records if one["action"].startswith("scenario")] == [
        ("scenario.run", "calls.yaml"),
        ("scenario.stop", "scenario"),
        ("scenario.stop", "scenario"),
    ]


def test_end_of_a_scenario_is_told_and_nothing_is_active_then(folder: Path) -> None:
    with Daemon("--config", str(folder / "llmproxyd.yaml"), cwd=folder) as daemon:
        daemon.command("scenario run r, ok")
        assert raw.ask(daemon.url, "/health").json["mode"] == "Scenario (r, ok; step 1 of 2: r)"
        assert statuses(daemon.url, 2) == [429, 200]
        daemon.wait_for("the last step of the scenario was taken")
        assert raw.ask(daemon.url, "/health").json["mode"] == "No error (pass through)"
        assert "Scenario (r, ok; all 2 steps taken)" in daemon.command("scenario")


REFUSED = {
    "scenario run ../calls.yaml": "accepted is a file within the folder of the configuration",
    "scenario run /etc/calls.yaml": "accepted is a file within the folder of the configuration",
    "scenario run link.yaml": "leads out of the folder of the configuration",
    "scenario run none.yaml": "there is no such file",
    "scenario run bad.yaml": 'bad.yaml:1: step: unknown key; did you mean "steps"?',
    "scenario run r x2, ok upstrem=1": "ok takes xN or * alone",
    "scenario run r upstream=opnai": 'did you mean "openai"?',
    "scenario run status=503 body=../x.json": "a file within the folder",
    "scenario run status=503 body=none.json": "cannot be read: No such file",
    "scenario run": "the steps are missing",
    "scenario rum r": 'did you mean "scenario run"?',
}


def test_what_cannot_be_run_is_refused_and_changes_nothing(folder: Path) -> None:
    (folder / "bad.yaml").write_text("step: [r]\n")
    outside = folder.parent / f"{folder.name}-outside.yaml"
    outside.write_text("steps: [r]\n")
    (folder / "link.yaml").symlink_to(outside)
    with Daemon("--config", str(folder / "llmproxyd.yaml"), cwd=folder) as daemon:
        daemon.command("scenario run ok, r")
        for line, said in REFUSED.items():
            assert said in daemon.command(line)
        assert statuses(daemon.url, 2) == [200, 429]


def test_where_faults_are_off_scenarios_are_refused_and_can_be_looked_at(folder: Path) -> None:
    with (folder / "llmproxyd.yaml").open("a") as file:
        file.write('operator: {faults: false}\nfaults: {scenario: "r x2, ok"}\n')
    with Daemon("--config", str(folder / "llmproxyd.yaml"), cwd=folder) as daemon:
        for line in ("scenario run ok", "scenario stop"):
            assert "faults may not be set here (operator.faults: true allows them)" in daemon.command(line)
        assert statuses(daemon.url, 3) == [429, 429, 200]
        assert "[x] r x2, [x] ok" in daemon.command("scenario status")
        assert '"r x2"' in daemon.command("scenario export")


def test_llmproxyctl_runs_scenarios(folder: Path) -> None:
    def ctl(*words: str) -> str:
        command = (
            sys.executable,
            "-m",
            "llmproxyd.admin.ctl",
            "--socket",
            str(folder / "admin.sock"),
            *words,
        )
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60, env=environment(folder), check=False
        )
        return done.stdout + done.stderr

    with Daemon("--config", str(folder / "llmproxyd.yaml"), "--no-stdin", cwd=folder) as daemon:
        assert "Scenario calls (r x2, ok; step 1 of 2: r x2)" in ctl(
            "run", "scenario run r x2, ok name=calls"
        )
        assert statuses(daemon.url, 1) == [429]
        assert "all (1 request): [1/2] r x2, [ ] ok" in ctl("run", "scenario", "status")
        assert json.loads(ctl("--json", "run", "scenario", "status"))["scenario"]["never"] == 2
        assert '  - "r"' in ctl("scenario", "export")
        assert "Stopped." in ctl("scenario", "stop")
        assert "Scenario (u, ok;" in ctl("scenario", "run", "u, ok")
        assert "Scenario (r x2, ok;" in ctl("scenario", "run", "r", "x2,", "ok")
        ctl("scenario", "stop")
        assert statuses(daemon.url, 1) == [200]
