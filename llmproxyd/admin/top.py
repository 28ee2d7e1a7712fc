"""``llmproxyctl top``: the daemon as it goes, on a terminal."""

from __future__ import annotations

import os
import shutil
import sys
import time
from argparse import Namespace
from collections.abc import Sequence

from llmproxyd.admin.client import Client, Failed
from llmproxyd.admin.lines import line_of
from llmproxyd.admin.looks import Figures, Look, Past, look, sorted_upstreams
from llmproxyd.admin.screen import as_data, screen
from llmproxyd.admin.terminal import DOWN, UP, Ended, Terminal, terminal, until
from llmproxyd.admin.verbs import DONE, Desk, UsageError

PATIENCE = 10.0
"""Seconds for an answer; meanwhile no key is read."""
SAID = 5.0
"""Seconds that what came of a key is shown."""
ONCE_LINES = 60
"""Lines of a screen that is printed."""
MODES = ("n", "c", "r", "u")
SWITCHES = {"d": "drain", "e": "enable"}


def top(given: Namespace, desk: Desk) -> int:
    """Show it until somebody leaves."""
    client = Client(desk.client.place, PATIENCE)
    if given.once:
        return _once(given.interval, client, desk)
    if desk.json:
        raise UsageError("top --json: needs --once")
    if not (sys.stdin.isatty() and sys.stdout.isatty()) or os.environ.get("TERM") == "dumb":
        raise UsageError("top needs a terminal; --once prints one screen")
    colour = not os.environ.get("NO_COLOR")
    try:
        # Where there is no daemon, that is said before anything is drawn.
        first = look(client)
        with terminal() as shown:
            _Watch(client, shown, given.interval, colour).run(first)
    except Ended as ended:
        return 128 + ended.number
    except EOFError:
        pass
    return DONE


def _once(interval: float, client: Client, desk: Desk) -> int:
    """One screen; of two looks, as one alone tells no rates."""
    past = Past()
    past.add(look(client, 1))
    time.sleep(interval)
    now = look(client, 10)
    told = past.add(now)
    if desk.json:
        return desk.show(as_data(now, told), "")
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    width = shutil.get_terminal_size((200, 24)).columns
    lines = screen(now, told, width=width, height=ONCE_LINES, selected=None, colour=colour, keys=False)
    return desk.show(None, "\n".join(lines))


class _Watch:
    """Looks every so many seconds, and does what keys say in between."""

    def __init__(self, client: Client, shown: Terminal, interval: float, colour: bool) -> None:
        self._client = client
        self._shown = shown
        self._interval = interval
        self._colour = colour
        self._past = Past()
        self._selected: str | None = None
        self._message = ""
        self._message_ends = 0.0

    def run(self, now: Look) -> None:
        """Until ``q``."""
        told = self._past.add(now)
        following = now.at + self._interval
        while True:
            self._draw(now, told)
            key = self._shown.key(until(following))
            if key == "q":
                return
            if key is not None:
                self._press(key, [str(row.get("name")) for row in sorted_upstreams(now, told)])
                if key in MODES or key in SWITCHES:
                    following = time.monotonic()  # what came of it is shown at once
            if until(following) == 0.0:
                now = look(self._client)
                told = self._past.add(now)
                following = now.at + self._interval

    def _draw(self, now: Look, told: Figures) -> None:
        width, height = self._shown.size
        message = self._message if until(self._message_ends) else ""
        self._shown.draw(
            screen(
                now,
                told,
                width=width,
                height=height,
                selected=self._selected,
                message=message,
                colour=self._colour,
            )
        )

    def _press(self, key: str, names: Sequence[str]) -> None:
        if key in (UP, DOWN):
            self._select(1 if key == DOWN else -1, names)
        elif key in MODES:
            self._do(key)
        elif key in SWITCHES:
            if self._selected in names:
                assert self._selected is not None
                self._do(line_of(["upstream", SWITCHES[key], self._selected]))
            else:
                self._say(f"Select an upstream to {SWITCHES[key]} (up, down).")

    def _select(self, step: int, names: Sequence[str]) -> None:
        if not names:
            return
        if self._selected in names:
            at = names.index(self._selected) + step
            self._selected = names[min(max(at, 0), len(names) - 1)]
        else:
            self._selected = names[0 if step > 0 else -1]

    def _do(self, line: str) -> None:
        try:
            answer = self._client.call("POST", "faults", body={"command": line})
        except Failed as error:
            self._say(f"{error.message} ({error.code})")
        else:
            self._say("Done." if line.startswith("upstream") else answer["words"])

    def _say(self, text: str) -> None:
        self._message = text
        self._message_ends = time.monotonic() + SAID
