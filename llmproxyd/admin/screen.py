"""The screen of ``llmproxyctl top``: from looks to lines."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from unicodedata import combining, east_asian_width

from llmproxyd.admin.looks import Figures, Look, Row, breakers, sorted_upstreams
from llmproxyd.control.requestrows import rows_of_requests
from llmproxyd.control.tables import BOLD, RED, YELLOW, paint, plain, table

KEYS = "n c r u mode   up/down select   d drain   e enable   q quit"
FEWEST_REQUESTS = 3
"""Lines of requests that upstreams leave free, where there are any."""

_PIECES = re.compile(r"\x1b\[[0-9;]*m|.", re.DOTALL)
_RESET = "\x1b[0m"
REVERSE = "7"


def screen(
    now: Look,
    told: Figures,
    *,
    width: int,
    height: int,
    selected: str | None,
    message: str = "",
    colour: bool = True,
    keys: bool = True,
) -> list[str]:
    """At most *height* lines of at most *width* columns.

    :param selected: name of the upstream that is marked.
    :param message: stands in the place of the keys.
    :param keys: whether there is a last line for keys and messages.
    """
    lines = [*_head(now, told, colour), ""]
    last = [message or KEYS] if keys else []
    room = max(height - len(lines) - len(last), 0)
    requests = rows_of_requests(now.requests, colour).splitlines() if now.requests else []
    # A line of heads, and one between the two tables.
    kept = min(len(requests) - 1, FEWEST_REQUESTS) + 2 if requests else 0
    upstreams = _upstreams(now, told, selected, room - kept if room - kept >= 3 else room, colour)
    lines += upstreams
    room -= len(upstreams)
    if requests and room >= 3:
        lines += ["", *requests[: room - 1]]
    lines = lines[: max(height - len(last), 0)]
    if last and height:
        lines += [""] * (height - len(lines) - 1)
        lines.append(paint(plain(last[0]), YELLOW if message else BOLD, colour))
    return [clipped(line, width) for line in lines]


def clipped(line: str, width: int) -> str:
    """As much of *line* as *width* columns hold; what colours it takes no room."""
    out, used, painted = [], 0, False
    for piece in _PIECES.findall(line):
        if piece.startswith("\x1b["):
            painted = piece != _RESET
            out.append(piece)
            continue
        used += _columns(piece)
        if used > width:
            break
        out.append(piece)
    else:
        return line
    return "".join(out) + (_RESET if painted else "")


def _columns(char: str) -> int:
    if combining(char):
        return 0
    return 2 if east_asian_width(char) in "WF" else 1


def _head(now: Look, told: Figures, colour: bool) -> Iterator[str]:
    status = now.status
    up = _duration(status.get("uptime"))
    name = paint(f"llmproxyd {plain(status.get('version'))}", BOLD, colour)
    yield f"{name}  up {up}  {status.get('requests', 0):,} requests"
    serving = status.get("serving", {})
    if serving.get("ready") is False:
        yield paint(f"not ready: {plain(serving.get('reason'))}", RED, colour)
    mode = plain(status.get("mode"))
    yield f"mode      {mode if mode.startswith('No error') else paint(mode, RED, colour)}"
    yield ""
    heads = ("REQUESTS/S", "P50", "P95", "ERRORS", "UNDER WAY", "STREAMS", "CONNECTIONS", "CACHE HITS")
    cells = (
        _number(told.rate),
        _seconds(told.median),
        _seconds(told.late),
        _share(told.errors),
        told.active,
        told.streams,
        told.connections,
        _share(told.cache_share),
    )
    yield from table(heads, [cells], right=range(len(heads)), colour=colour).splitlines()


def _upstreams(now: Look, told: Figures, selected: str | None, room: int, colour: bool) -> list[str]:
    """A table of as many upstreams as there is room for, the one that is *selected* among them."""
    rows = sorted_upstreams(now, told)
    if room < 2 or not rows:
        return []
    names = [str(row.get("name")) for row in rows]
    states = breakers(now.status)
    rates, failing = told.rates or {}, told.failing or {}
    cells = [
        (
            f"> {name}" if name == selected else f"  {name}",
            row.get("state"),
            row.get("active"),
            _number(rates.get(name, 0.0) if told.rates is not None else None),
            _share(failing.get(name)),
            states.get(name),
            row.get("last"),
        )
        for name, row in zip(names, rows, strict=True)
    ]
    heads = ("  UPSTREAM", "STATE", "ACTIVE", "REQUESTS/S", "ERRORS", "BREAKER", "LAST")
    lines = table(heads, cells, right=(2, 3, 4), colour=colour).splitlines()
    return [lines[0], *_window(lines[1:], names, selected, room - 1, colour)]


def _window(
    lines: Sequence[str], names: Sequence[str], selected: str | None, room: int, colour: bool
) -> list[str]:
    at = names.index(selected) if selected in names else -1
    shown = list(lines)
    if at >= 0:
        shown[at] = _marked(shown[at], colour)
    if len(shown) <= room:
        return shown
    # The last line says how many are not shown.
    room = max(room - 1, 1)
    first = min(max(at - room + 1, 0), len(shown) - room)
    return [*shown[first : first + room], f"  and {len(shown) - room} more"]


def _marked(line: str, colour: bool) -> str:
    if not colour:
        return line
    bare = "".join(piece for piece in _PIECES.findall(line) if not piece.startswith("\x1b["))
    return paint(bare, REVERSE, True)


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.1f}"


def _share(value: float | None) -> str | None:
    return None if value is None else f"{value * 100:.1f} %"


def _seconds(value: float | None) -> str | None:
    if value is None:
        return None
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"


def _duration(seconds: object) -> str:
    """As one reads it: the two largest units."""
    if not isinstance(seconds, int | float):
        return "-"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d {hours}h"
    if hours:
        return f"{hours}h {minutes}m"
    return f"{minutes}m {rest}s" if minutes else f"{rest}s"


def as_data(now: Look, told: Figures) -> Row:
    """The same for ``--json``."""
    states = breakers(now.status)
    return {
        "version": now.status.get("version"),
        "mode": now.status.get("mode"),
        "requests": now.status.get("requests"),
        "rate": told.rate,
        "p50": told.median,
        "p95": told.late,
        "errors": told.errors,
        "active": told.active,
        "streams": told.streams,
        "connections": told.connections,
        "cache_share": told.cache_share,
        "upstreams": [
            {
                **row,
                "rate": (told.rates or {}).get(str(row.get("name"))),
                "errors": (told.failing or {}).get(str(row.get("name"))),
                "breaker": states.get(str(row.get("name"))),
            }
            for row in sorted_upstreams(now, told)
        ],
    }
