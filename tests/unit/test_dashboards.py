"""Dashboard, alerts and documentation name metrics, labels and values that there are.

They are held against a scrape of metrics that saw every kind of event.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from test_metrics import everything

ROOT = Path(__file__).resolve().parents[2]
DASHBOARD = ROOT / "etc" / "grafana" / "llmproxyd.json"
RULES = ROOT / "etc" / "prometheus" / "llmproxyd.rules.yaml"
DOCUMENTATION = ROOT / "docs" / "metrics.rst"

FUNCTIONS = {"sum", "min", "max", "count", "rate", "increase", "histogram_quantile", "absent", "vector"}
WORDS = FUNCTIONS | {"by", "without", "on", "ignoring", "and", "or", "unless", "offset"}
ADDED = {"job", "instance"}
"""Labels that Prometheus adds to all that it scrapes."""

FAMILIES = list(text_string_to_metric_families(everything().render()[0].decode()))
SAMPLES: dict[str, list[dict[str, str]]] = {}
for _family in FAMILIES:
    for _sample in _family.samples:
        SAMPLES.setdefault(_sample.name, []).append(_sample.labels)


def panels(found: Any) -> Iterator[dict[str, Any]]:
    for panel in found:
        yield panel
        yield from panels(panel.get("panels", []))


def board() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return loaded


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def queries() -> list[tuple[str, str]]:
    """Where each query stands, and the query."""
    found = [
        (f"{panel['title']} {target['refId']}", target["expr"])
        for panel in panels(board()["panels"])
        for target in panel.get("targets", [])
    ]
    return found + [(rule["alert"], rule["expr"]) for rule in rules()]


QUERIES = queries()

_SELECTOR = re.compile(r"([a-zA-Z_][a-zA-Z0-9_]*)\s*(\{[^}]*\})?")
_MATCHER = re.compile(r'([a-zA-Z_]\w*)\s*(=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"')
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)")


def selectors(query: str) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """Names of metrics, and for each its matchers as label, operator and value."""
    query = _GROUPING.sub(" ", query)
    query = re.sub(r"\[[^\]]*\]", " ", query)  # ranges
    query = re.sub(r"\boffset\s+\w+", " ", query)
    found = []
    for name, braces in _SELECTOR.findall(query):
        if name not in WORDS and not name.isdigit():
            found.append((name, _MATCHER.findall(braces)))
    return found


def grouped(query: str) -> set[str]:
    """Labels by which *query* groups."""
    return {
        label.strip() for names in _GROUPING.findall(query) for label in names.split(",") if label.strip()
    }


def problems(query: str) -> list[str]:
    """What *query* names that is not there."""
    found = []
    known: set[str] = set()
    for name, matchers in selectors(query):
        if name.startswith("process_") and name not in SAMPLES:
            continue  # they are told on Linux alone
        if name not in SAMPLES:
            found.append(f"there is no metric {name}")
            continue
        labels = {label for sample in SAMPLES[name] for label in sample} | ADDED
        known |= labels
        for label, operator, value in matchers:
            if label not in labels:
                found.append(f"{name} has no label {label}")
            elif "$" not in value and label not in ADDED:
                values = {sample.get(label, "") for sample in SAMPLES[name]}
                words = value.split("|") if "~" in operator else [value]
                found += [
                    f"{label} of {name} is never {word}"
                    for word in words
                    if not any(re.fullmatch(word, one) for one in values)
                ]
    return found + [f"no metric in it has the label {label}" for label in sorted(grouped(query) - known)]


@pytest.mark.parametrize(("where", "query"), QUERIES, ids=[where for where, _ in QUERIES])
def test_query_names_what_there_is(where: str, query: str) -> None:
    assert selectors(query), "it asks for nothing"
    assert problems(query) == []


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("rate(llmproxyd_requests[5m])", "there is no metric llmproxyd_requests"),
        ('llmproxyd_requests_total{state="x"}', "has no label state"),
        ('llmproxyd_requests_total{origin="upstraem"}', "is never upstraem"),
        ('llmproxyd_streams_total{end=~"truncated|ilde"}', "is never ilde"),
        ("sum by (upstreem) (llmproxyd_streams_total)", "label upstreem"),
        ("sum by (le) (llmproxyd_streams_total)", "label le"),
    ],
)
def test_check_itself_finds_mistakes(query: str, said: str) -> None:
    assert said in " ".join(problems(query))


@pytest.mark.parametrize(("where", "query"), QUERIES, ids=[where for where, _ in QUERIES])
def test_counters_are_asked_for_their_rate(where: str, query: str) -> None:
    for name in re.findall(r"(\w+_(?:total|bucket))\b", query):
        assert re.search(rf"\b(?:rate|increase)\({name}\b", query)
    assert query.count("(") == query.count(")")
    assert query.count("{") == query.count("}")


def test_queries_of_variables_name_what_there_is() -> None:
    for variable in board()["templating"]["list"]:
        match = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable.get("definition", ""))
        if variable["type"] == "query":
            assert match is not None
            assert match[1] in SAMPLES
            assert match[2] in {label for sample in SAMPLES[match[1]] for label in sample} | ADDED


def test_variables_that_are_used_are_there() -> None:
    used = set(re.findall(r"\$\{?([a-z]\w*)", DASHBOARD.read_text()))
    assert used == {variable["name"] for variable in board()["templating"]["list"]}


def test_panels_have_places_of_their_own() -> None:
    taken: set[tuple[int, int]] = set()
    ids = []
    for panel in panels(board()["panels"]):
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
        ids.append(panel["id"])
    assert len(ids) == len(set(ids))


def test_every_metric_of_ours_is_on_the_dashboard() -> None:
    shown = {name for _, query in QUERIES for name, _ in selectors(query)}
    ours = {family.name for family in FAMILIES if family.name.startswith("llmproxyd_")}
    left = {name for name in ours if not any(one.startswith(name) for one in shown)}
    assert left == set()


# Alerts.


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: str(rule["alert"]))
def test_alert_says_what_it_means_and_where_to_read_on(rule: dict[str, Any]) -> None:
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    notes = rule["annotations"]
    assert notes["summary"].endswith(".")
    assert notes["description"].endswith(".")
    document, _, section = notes["runbook_url"].partition("#")
    text = (ROOT / document).read_text()
    assert section == rule["alert"].lower()
    assert re.search(rf"^{rule['alert']}\n-+\n\n\S", text, re.MULTILINE)
    used = set(re.findall(r"\$labels\.(\w+)", notes["summary"] + notes["description"]))
    grouping = grouped(rule["expr"])
    if grouping:
        assert used <= grouping
    else:
        assert used <= ADDED


def test_alerts_have_names_of_their_own() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(names) == len(set(names))


# Documentation.


def documented() -> dict[str, tuple[str, frozenset[str]]]:
    """Kind and labels by name."""
    found = {}
    for line in DOCUMENTATION.read_text().splitlines():
        match = re.fullmatch(r"((?:llmproxyd|gen_ai)_\w+) : (\w+)(?: : ([\w, ]+))?", line)
        if match is not None:
            labels = frozenset(label.strip() for label in (match[3] or "").split(",") if label.strip())
            found[match[1]] = (match[2], labels)
    return found


def test_documentation_lists_exactly_what_there_is() -> None:
    told = {}
    for family in FAMILIES:
        if family.name.startswith(("llmproxyd_", "gen_ai_")):
            name = family.name + "_total" * (family.type == "counter")
            labels = {label for sample in family.samples for label in sample.labels} - {"le"}
            told[name] = (family.type, frozenset(labels))
    assert documented() == told


def test_documentation_names_every_end_of_a_stream_and_every_origin() -> None:
    text = DOCUMENTATION.read_text()
    for name, label in (("llmproxyd_streams_total", "end"), ("llmproxyd_requests_total", "origin")):
        for value in {sample[label] for sample in SAMPLES[name]}:
            assert f"``{value}``" in text
