"""The verbs about scenarios, as lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from llmproxyd.control.answers import Answer
from llmproxyd.control.means import Journal
from llmproxyd.control.rehearsal import Rehearsal
from llmproxyd.control.scenarios import Scenarios
from llmproxyd.control.tables import plain
from llmproxyd.control.turn import Turn
from llmproxyd.errors import Refused
from llmproxyd.faults import exporting
from llmproxyd.faults.language import shown
from llmproxyd.faults.progress import progress, told
from llmproxyd.faults.rules import Side
from llmproxyd.faults.scenario import Play, Scenario
from llmproxyd.faults.scenariotext import Asked
from llmproxyd.language.scenarios import MOST_EXPORTED, Setting

RUNS = 20
"""Runs that are shown unless told otherwise: those with the latest requests."""

NAME = "exported"
"""What an exported scenario is called."""


async def run(turn: Turn) -> Answer:
    """``scenario run``."""
    control, scenarios = turn.control, _scenarios(turn)
    asked: Asked = turn.values["asked"]
    found: list[Scenario] = []

    def check() -> None:
        control.check_allowed()
        found.append(scenarios.found(asked))

    return await turn.change(
        "scenario.run",
        shown(asked.file or ", ".join(step.line for step in asked.steps)),
        lambda: _begun(control, scenarios, found[0]),
        check=check,
        before={"faults": control.mode_in_words()},
    )


def start(control: Rehearsal, scenarios: Scenarios, scenario: Scenario) -> list[str]:
    """Begin with *scenario*, which nobody commanded; what to tell about it."""
    notes = _seeded(control, scenario)
    scenarios.begin(scenario, control.seed or 0, lambda: _over(control))
    return notes


async def stop(turn: Turn) -> Answer:
    """``scenario stop``."""
    control, scenarios = turn.control, _scenarios(turn)

    def stopped() -> Answer:
        play = scenarios.play
        if not scenarios.stop() or play is None:
            return Answer("No scenario runs.\n", data={"scenario": None})
        control.scenario_changed()
        return Answer(f"Stopped.\n{progress(play)}\n", data={"scenario": told(play, RUNS)})

    return await turn.change(
        "scenario.stop",
        "scenario",
        stopped,
        check=control.check_allowed,
        before={"faults": control.mode_in_words()},
    )


def status(turn: Turn) -> Answer:
    """``scenario status``."""
    scenarios = _scenarios(turn)
    play = scenarios.play
    most = turn.values.get("n", RUNS)
    if play is None:
        last = scenarios.last
        text = "No scenario runs.\n"
        if last is not None:
            text += f"The last one:\n{_text(last, most)}"
        return Answer(text, data={"scenario": None})
    return Answer(_text(play, most), data={"scenario": told(play, most)})


def export(turn: Turn) -> Answer:
    """``scenario export``."""
    journal = turn.journal()
    given: Sequence[object] = turn.values.get("what", ())
    settings = {one.name: one.value for one in given if isinstance(one, Setting)}
    limit = next((one for one in given if isinstance(one, int)), MOST_EXPORTED)
    filters: Any = [one for one in given if not isinstance(one, int | Setting)]
    rows = journal.recent(filters, limit)
    side = Side(settings.get("place", "client"))
    providers = _scenarios(turn).providers
    if side is Side.UPSTREAM:
        found = exporting.of_attempts(rows, providers, lambda row: _attempts(journal, row))
    else:
        found = exporting.of_requests(rows, providers)
    if not found.lines:
        raise Refused(404, "nothing_to_export", "No request that a scenario concerns is remembered.")
    text = exporting.text_of(found, name=settings.get("name", NAME), side=side, about=_about(rows, found))
    data = {
        "file": text,
        "line": ", ".join(found.lines),
        "place": str(side),
        "requests": found.requests,
        "failed": found.failed,
        "left": found.left,
    }
    return Answer(text, data=data)


def _begun(control: Rehearsal, scenarios: Scenarios, scenario: Scenario) -> Answer:
    notes = start(control, scenarios, scenario)
    control.scenario_changed()
    play = scenarios.play
    assert play is not None
    lines = [progress(play), *notes]
    return Answer("\n".join(lines) + "\n", data={"scenario": told(play, RUNS)})


def _seeded(control: Rehearsal, scenario: Scenario) -> list[str]:
    """See that there is a seed where one is needed; what to tell about one that was drawn."""
    if scenario.seed is not None or not scenario.draws:
        return []
    note = control.ensure_seed()
    return [] if note is None else [note]


def _over(control: Rehearsal) -> None:
    control.scenario_changed("the last step of the scenario was taken")


def _scenarios(turn: Turn) -> Scenarios:
    scenarios = turn.means.scenarios
    if scenarios is None:
        raise Refused(404, "scenarios_unavailable", "Scenarios cannot be run here.")
    return scenarios


def _text(play: Play, most: int) -> str:
    """*play* for people: a line for each run, a tick for each request that took a step."""
    found = told(play, most)
    steps = play.scenario.steps
    lines = [plain(progress(play))]
    lines += [f"  seed {found['seed']}"] if found["seed"] is not None else []
    for run in found["runs"]:
        cells = [f"{_tick(one)} {plain(step.line)}" for one, step in zip(run["steps"], steps, strict=True)]
        requests = f"{run['requests']} request{'' if run['requests'] == 1 else 's'}"
        lines.append(f"  {plain(run['run'])} ({requests}): {', '.join(cells)}")
    if left := play.begun - len(found["runs"]):
        lines.append(f"  … and {left} more run{'' if left == 1 else 's'}")
    return "\n".join(lines) + "\n"


def _tick(step: Mapping[str, Any]) -> str:
    """``[x]`` for a step that is done, ``[2/3]`` for one in the middle, ``[ ]`` for one to come."""
    if not step["taken"]:
        return "[ ]"
    if step["times"] is None:
        return f"[{step['taken']}]"
    return "[x]" if step["taken"] >= step["times"] else f"[{step['taken']}/{step['times']}]"


def _attempts(journal: Journal, row: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The attempts of a request of several."""
    found = journal.explain(row["id"])
    return () if found is None else found["attempts"]


def _about(rows: Sequence[Mapping[str, Any]], found: exporting.Exported) -> str:
    """Where an exported scenario comes from."""
    times = [row["time"] for row in rows]
    first, last = (
        f"{datetime.fromtimestamp(time, UTC):%Y-%m-%d %H:%M:%S}" for time in (min(times), max(times))
    )
    text = f"{found.requests} request{'' if found.requests == 1 else 's'}, {first} to {last} UTC"
    return f"{text}; {found.left} further steps are left out" if found.left else text
