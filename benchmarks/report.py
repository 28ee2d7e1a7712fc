"""The results as text: figures of each peer, then what was asked and what was reached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scenarios import Scenario

Results = dict[str, dict[str, dict[str, Any]]]
"""Scenario, peer, figure."""


@dataclass(frozen=True)
class Goal:
    """One thing that was asked for.

    :ivar figure: the figure of *scenario* that counts.
    :ivar peer: the other one; None when the daemon's own figure counts.
    :ivar inverse: the peer's figure divided by ours, instead of ours by the peer's.
    :ivar more: what the peer's figure is above ours counts.
    :ivar unit: what the number is followed by.
    :ivar marks: floor, goal and, if there is one, moonshot.
    :ivar base: whose figure is ours.
    :ivar least: whether more is better.
    :ivar scale: what our own figure is multiplied by.
    """

    text: str
    scenario: str
    figure: str
    peer: str | None
    marks: tuple[float, ...]
    unit: str = "×"
    inverse: bool = False
    least: bool = False
    scale: float = 1.0
    more: bool = False
    base: str = "llmproxyd"


GOALS = (
    Goal("CPU: aiohttp ÷ us, 16 connections", "json-16", "cpu", "aiohttp", (2.8, 4, 6), "×", True, True),
    Goal("CPU: aiohttp ÷ us, 64 connections", "json-64", "cpu", "aiohttp", (2.8, 4, 6), "×", True, True),
    Goal("CPU: aiohttp application ÷ us, 16", "json-16", "cpu", "aiohttp-app", (2.8, 4, 6), "×", True, True),
    Goal("CPU: aiohttp application ÷ us, 64", "json-64", "cpu", "aiohttp-app", (2.8, 4, 6), "×", True, True),
    Goal("CPU: stock ÷ us, 16 connections", "json-16", "cpu", "stock", (7, 11, 15), "×", True, True),
    Goal("CPU: us ÷ nginx, 16 connections", "json-16", "cpu", "nginx", (4.5, 3, 2)),
    Goal("p50: us ÷ nginx, 1 connection", "json-1", "p50", "nginx", (1.6, 1.2, 1.05)),
    Goal("p99: us ÷ aiohttp, 64 connections", "json-64", "p99", "aiohttp", (0.4, 0.25, 0.15)),
    Goal("SSE CPU: us ÷ aiohttp application", "sse-5000", "cpu", "aiohttp-app", (0.75, 0.6, 0.5)),
    Goal("SSE CPU: us ÷ aiohttp, 5,000 events/s", "sse-5000", "cpu", "aiohttp", (0.75, 0.6, 0.5)),
    Goal("SSE added latency p99, 5,000 events/s", "sse-5000", "added_p99", None, (5, 2), " ms", scale=0.001),
    Goal("memory per open stream", "streams", "kilobytes", None, (14, 10, 8), " KB"),
    Goal("big body to the client", "big-download", "megabytes", None, (250, 500), " MB/s", least=True),
    Goal("big body from the client", "big-upload", "megabytes", None, (250, 500), " MB/s", least=True),
    Goal("CPU of breaker, retry, budget", "policies-paced", "cpu", "with-both", (10,), " µs", more=True),
    Goal(
        "CPU of tokens, metrics and a cache miss",
        "gateway-paced",
        "cpu",
        "with-gateway",
        (20,),
        " µs",
        more=True,
        base="without-metrics",
    ),
    Goal("CPU of a cache hit (memory)", "gateway", "cpu", None, (40, 25), " µs", base="with-hits"),
    Goal(
        "req/s: us ÷ LiteLLM, 16 connections",
        "proxies",
        "rate_ratio",
        None,
        (80, 200),
        least=True,
        base="litellm",
    ),
    Goal(
        "req/s: us ÷ Portkey, 16 connections",
        "proxies",
        "rate_ratio",
        None,
        (15, 35),
        least=True,
        base="portkey",
    ),
    Goal(
        "req/s: us ÷ FastAPI + httpx, 16", "proxies", "rate_ratio", None, (20, 50), least=True, base="fastapi"
    ),
    Goal("idle connections: worst reply", "idle", "worst", None, (200, 50), " ms", scale=0.001),
)
"""The table of goals.  The floor of the last row, "others unharmed", is set here at 200 ms."""


@dataclass(frozen=True)
class Verdict:
    """How a goal was met."""

    goal: Goal
    value: float | None
    mark: str


def judge(results: Results) -> list[Verdict]:
    """Every goal against the results."""
    return [_judge(goal, results.get(goal.scenario, {})) for goal in GOALS]


def _judge(goal: Goal, peers: dict[str, dict[str, Any]]) -> Verdict:
    ours = peers.get(goal.base, {}).get(goal.figure)
    if ours is None:
        return Verdict(goal, None, "not measured")
    value = float(ours) * goal.scale
    if goal.peer is not None:
        other = peers.get(goal.peer, {}).get(goal.figure)
        if not other or not value:
            return Verdict(goal, None, "not measured")
        value = _against(goal, value, float(other))
    names = ("floor", "GOAL", "MOONSHOT")
    reached = [
        name
        for name, mark in zip(names, goal.marks, strict=False)
        if (value >= mark if goal.least else value <= mark)
    ]
    return Verdict(goal, value, reached[-1] if reached else "below floor")


def _against(goal: Goal, ours: float, other: float) -> float:
    if goal.more:
        return other - ours
    return other / ours if goal.inverse else ours / other


def text_of(facts: dict[str, str], results: Results, measured: Sequence[Scenario]) -> str:
    """The whole report, as reStructuredText."""
    parts = [_facts(facts)]
    for scenario in measured:
        parts.append(_scenario(scenario, results.get(scenario.name, {})))
    verdicts = [verdict for verdict in judge(results) if verdict.goal.scenario in results]
    if verdicts:
        parts.append(_goals(verdicts))
    return "\n\n".join(parts) + "\n"


def _facts(facts: dict[str, str]) -> str:
    return "\n".join(f":{name}: {value}" for name, value in facts.items())


def _scenario(scenario: Scenario, peers: dict[str, dict[str, Any]]) -> str:
    rows = [["peer", *scenario.columns.values()]]
    problems = []
    for peer in scenario.peers:
        figures = peers.get(peer)
        if figures is None:
            continue
        if "error" in figures:
            problems.append(f"{peer}: {figures['error'].strip()}")
        if any(name in figures for name in scenario.columns):
            rows.append([peer, *(_number(name, figures.get(name)) for name in scenario.columns)])
    title = f"{scenario.name}: {scenario.text}"
    parts = [f"{title}\n{'-' * len(title)}"]
    if len(rows) > 1:
        parts.append(table(rows))
    return "\n\n".join(parts + [f"*{problem}*" for problem in problems])


def _goals(verdicts: list[Verdict]) -> str:
    rows = [["asked", "measured", "floor", "goal", "moonshot", "reached"]]
    for verdict in verdicts:
        goal = verdict.goal
        sign = "≥" if goal.least else "≤"
        marks = [f"{sign} {mark:g}{goal.unit}" for mark in goal.marks]
        marks += [""] * (3 - len(marks))
        value = "–" if verdict.value is None else f"{_short(verdict.value)}{goal.unit}"
        rows.append([goal.text, value, *marks, verdict.mark])
    title = "Asked and reached"
    return f"{title}\n{'-' * len(title)}\n\n{table(rows)}"


def table(rows: list[list[str]]) -> str:
    """*rows*, the first of them the heading, as a simple table."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    line = "  ".join("=" * width for width in widths)
    # An empty last cell is fine, an empty first one would continue the row above.
    told = [
        "  ".join(
            cell.ljust(width) if not column else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([line, told[0], line, *told[1:], line])


def _number(name: str, value: Any) -> str:
    if value is None:
        return "–"
    if name == "busy":
        return f"{value:.0%}"
    return _short(float(value))


def _short(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
