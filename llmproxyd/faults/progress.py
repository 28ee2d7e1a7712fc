"""How far a scenario has come: in words, and as JSON takes it."""

from __future__ import annotations

from collections import deque
from typing import Any

from llmproxyd.faults.rules import Side
from llmproxyd.faults.scenario import EVERYBODY, Play, Run, Scope
from llmproxyd.faults.scenariotext import NAME, line_of

MOST_CELLS = 100_000
"""Steps of runs that are told at once."""

LONGEST = 60
"""Characters of the steps in one line of words."""


def brief(play: Play) -> str:
    """In a few words, for a prompt: ``scenario outage: step 2 of 5``."""
    all_of_them = play.scenario.scope is Scope.ALL
    return f"{_title(play)}: {_place(play) if all_of_them else _count(play.begun, 'run')}"


def progress(play: Play) -> str:
    """In a line: ``Scenario outage (r x2, ok; step 2 of 2: ok)``."""
    scenario = play.scenario
    line = line_of(scenario)
    line = line if len(line) <= LONGEST else line[:LONGEST] + "…"
    parts = [line]
    if scenario.scope is Scope.ALL:
        run = next(run for name, run in play.runs if name == EVERYBODY)
        place = _place(play)
        parts.append(
            place if run.index >= len(scenario.steps) else f"{place}: {scenario.steps[run.index].line}"
        )
    else:
        parts.append(f"for each {scenario.scope}, {_count(play.begun, 'run')} so far")
    if scenario.side is Side.UPSTREAM:
        parts.append("as from the upstream")
    return f"S{_title(play)[1:]} ({'; '.join(parts)})"


def told(play: Play, most: int | None = None) -> dict[str, Any]:
    """All of it, as JSON takes it.

    :param most: runs that are told, the ones with the latest requests; in any case not more than
        :data:`MOST_CELLS` steps in all.
    """
    scenario = play.scenario
    bound = max(MOST_CELLS // len(scenario.steps), 1)
    runs = deque(play.runs, maxlen=bound if most is None else min(most, bound))
    rows = [_run(play, name, run) for name, run in runs]
    return {
        "name": scenario.name,
        "line": line_of(scenario),
        "scope": str(scenario.scope),
        "place": str(scenario.side),
        "seed": play.seed if scenario.draws else scenario.seed,
        "over": play.over,
        "begun": play.begun,
        "forgotten": play.forgotten.runs,
        "never": play.never,
        "runs": rows,
    }


def _run(play: Play, name: str, run: Run) -> dict[str, Any]:
    scenario = play.scenario
    steps = []
    for index, step in enumerate(scenario.steps):
        taken = run.taken_of(scenario, index)
        steps.append(
            {
                "step": step.line,
                "times": step.times,
                "taken": taken,
                "reached": taken > 0,
                "missing": scenario.missing(index, taken),
            }
        )
    return {"run": name, "requests": run.requests, "missing": play.missing(run), "steps": steps}


def _title(play: Play) -> str:
    name = play.scenario.name
    return NAME if name == NAME else f"{NAME} {name}"


def _place(play: Play) -> str:
    run = next(run for name, run in play.runs if name == EVERYBODY)
    steps = len(play.scenario.steps)
    return f"all {steps} steps taken" if run.index >= steps else f"step {run.index + 1} of {steps}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
