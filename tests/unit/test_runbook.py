"""The page for operators: an entry for each alert, and commands that there are."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from docutils import nodes
from docutils.core import publish_doctree

from llmproxyd.admin.parser import parser
from llmproxyd.language.table import TABLE

ROOT = Path(__file__).parents[2]
RULES = ROOT / "etc" / "prometheus" / "llmproxyd.rules.yaml"
PAGE = ROOT / "docs" / "operators.rst"
TREE = publish_doctree(PAGE.read_text())
ELSEWHERE = {"init", "passwd", "key", "top", "wait-ready", "diagnose", "completion"}
"""Verbs of llmproxyctl that are none of the language."""


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def sections() -> dict[str, nodes.section]:
    """The sections of the page by their anchors."""
    return {name: one for one in TREE.findall(nodes.section) for name in one["ids"]}


def commands(part: nodes.Element) -> list[str]:
    """The commands of llmproxyctl in literal blocks, and those written out in the text."""
    blocks = [line for one in part.findall(nodes.literal_block) for line in one.astext().splitlines()]
    texts = [one.astext() for one in part.findall(nodes.literal)]
    return [line for line in (*blocks, *texts) if line.startswith("llmproxyctl ")]


COMMANDS = commands(TREE)


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: str(rule["alert"]))
def test_every_alert_has_an_entry_where_its_rule_points_to(rule: dict[str, Any]) -> None:
    document, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    assert ROOT / document == PAGE
    entry = sections()[anchor]
    assert entry[0].astext() == rule["alert"]
    assert len(entry) >= 3, "what it means, what to run"
    assert isinstance(entry[1], nodes.paragraph)
    assert list(entry.findall(nodes.literal_block)), "it names nothing to run"


def test_no_entry_is_left_of_an_alert_that_is_no_more() -> None:
    entries = [one[0].astext() for one in sections()["alerts"].findall(nodes.section)][1:]
    assert entries == [rule["alert"] for rule in rules()]


def test_commands_are_found() -> None:
    assert len(COMMANDS) > 30


@pytest.mark.parametrize("command", sorted(set(COMMANDS)))
def test_every_command_is_understood(command: str) -> None:
    words = shlex.split(command)[1:]
    parser().parse_args(words)
    if words[0] == "run":
        TABLE.parse(words[1])
    elif words[0] not in ELSEWHERE:
        TABLE.parse(shlex.join(words))
