"""Tokens, and what was used, as tables: the same on every console and in ``llmproxyctl``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from llmproxyd.control.tables import table


def tokens_table(tokens: Iterable[Mapping[str, Any]], *, colour: bool = False) -> str:
    """A row for each of *tokens*."""
    names = ("id", "name", "project", "shown", "state", "requests", "max_requests", "expires", "last_used")
    heads = ("ID", "NAME", "PROJECT", "TOKEN", "STATE", "REQUESTS", "OF", "EXPIRES", "LAST USED")
    rows = [tuple(one[name] for name in names) for one in tokens]
    return table(heads, rows, right=(5, 6), colour=colour)


def usage_table(found: Mapping[str, Any], by: str, *, colour: bool = False) -> str:
    """A row for each project, token or model.

    :param by: which of the three.
    """
    rows = [
        (one["label"] or one["name"], one["name"], one["requests"], one["input"], one["output"], one["cost"])
        for one in found["usage"]
    ]
    heads = (by.upper(), "ID", "REQUESTS", "INPUT", "OUTPUT", "COST")
    text = table(heads, rows, right=(2, 3, 4, 5), colour=colour)
    more = f"\n… and {found['left_out']} more" if found["left_out"] else ""
    return f"Since {found['since']} (UTC)\n{text}{more}"
