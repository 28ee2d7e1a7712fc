"""Requests as lines: all at once as a table, or one by one as they end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from llmproxyd.control.tables import plain, table

_COLUMNS: Sequence[tuple[str, str, int]] = (
    ("TIME", "time", 8),
    ("ID", "id", 20),
    ("STATUS", "status", 6),
    ("SECONDS", "duration", 7),
    ("METHOD", "method", 6),
    ("PATH", "path", 24),
    ("UPSTREAM", "upstream", 10),
    ("MODEL", "model", 14),
    ("TRIES", "attempts", 5),
    ("CACHE", "cache", 5),
    ("WHAT", "what", 8),
)
"""Heads, members of a row, and widths for lines that come one by one."""
_HEADS = [head for head, _, _ in _COLUMNS]
_RIGHT = (2, 3, 8)


def rows_of_requests(rows: Sequence[Mapping[str, Any]], colour: bool) -> str:
    """*rows* of a journal as a table."""
    return table(_HEADS, map(_cells, rows), right=_RIGHT, colour=colour) + "\n"


def heads_of_requests(colour: bool) -> str:
    """The line above those that come one by one."""
    return table(_padded(_HEADS), (), colour=colour) + "\n"


def line_of_request(row: Mapping[str, Any], colour: bool) -> str:
    """One *row* below them."""
    return table(_HEADS, [_padded(_cells(row))], colour=colour).split("\n")[1] + "\n"


def _padded(cells: Sequence[str]) -> list[str]:
    return [
        cell.rjust(width) if column in _RIGHT else cell.ljust(width)
        for column, (cell, (_, _, width)) in enumerate(zip(cells, _COLUMNS, strict=True))
    ]


def _cells(row: Mapping[str, Any]) -> list[str]:
    found = {**row, "time": _clock(row.get("time")), "what": _what(row)}
    if isinstance(row.get("duration"), int | float):
        found["duration"] = f"{row['duration']:.3f}"
    return [plain(found.get(member)) for _, member, _ in _COLUMNS]


def _clock(time: object) -> object:
    """Seconds since the epoch as the time of the day in UTC; a text as it is."""
    if isinstance(time, int | float):
        return datetime.fromtimestamp(time, UTC).strftime("%H:%M:%S")
    return time


def _what(row: Mapping[str, Any]) -> str | None:
    """What was special about it."""
    if row.get("fault"):
        return f"injected {row['fault']}{', never reached' if row.get('unreached') else ''}"
    if row.get("code"):
        return str(row["code"])
    end = row.get("end")
    return None if end in (None, "complete") else str(end)
