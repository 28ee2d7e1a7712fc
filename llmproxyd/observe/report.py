"""What a rehearsal came to, written to one file when the daemon stops: for CI jobs and people.

JSON, or JUnit XML where the file's name ends in ``.xml``.  The file is there whole or not at all, and what it
tells is bounded.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from twisted.logger import Logger

from llmproxyd.faults.choose import Tally
from llmproxyd.model import Event, Finished, WallClock
from llmproxyd.observe.eventjson import TEXT, EventFormat, Told, time_text
from llmproxyd.observe.junit import junit

MOST_REQUESTS = 10_000
"""Requests that are told of: the first ones.  Those after them are counted."""

MOST_VERDICTS = 1000

_LONG = 2 * TEXT + 1
"""Characters of a text that others chose: more are never shown."""

Rows = Sequence[Mapping[str, Any]]

_PLAIN = ("number", "provider", "upstream", "status", "fault", "code", "attempts", "unreached")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Whom the report asks when it is written.

    :param scenarios: those that ran, as :func:`llmproxyd.faults.progress.told` tells of them.
    :param tally: what became of all faults.
    :param verdicts: what clients did after failures, each with its ``name`` and ``text``.
    """

    scenarios: Callable[[], Rows]
    tally: Callable[[], Tally]
    verdicts: Callable[[], Sequence[Mapping[str, object]]] = tuple


class Report:
    """A subscriber of the sink that keeps what became of requests, and writes it once.

    :param wall: seconds since the epoch.
    :param form: tells of requests without secrets.
    """

    log = Logger(namespace="llmproxyd")

    def __init__(self, path: Path, asked: Asked, wall: WallClock, form: EventFormat) -> None:
        self._path = path
        self._asked = asked
        self._wall = wall
        self._form = form
        self._began = wall()
        self._finished: list[Finished] = []
        self._left_out = 0

    def __call__(self, event: Event) -> None:
        """Take *event*."""
        if type(event) is not Finished:
            return
        if len(self._finished) >= MOST_REQUESTS:
            self._left_out += 1
            return
        model = event.model
        self._finished.append(
            replace(
                event,
                path=event.path[:_LONG],
                model=None if model is None else model[:_LONG],
                detail=None,
                reading=None,
                captured=None,
            )
        )

    def told(self) -> dict[str, Any]:
        """All of it, as JSON takes it."""
        asked, tally = self._asked, self._asked.tally()
        scenarios, verdicts = list(asked.scenarios()), list(asked.verdicts())
        return {
            "began": time_text(self._began),
            "ended": time_text(self._wall()),
            "reached": not tally.never and not tally.idle,
            "injected": tally.injected,
            "never": tally.never,
            "idle": list(tally.idle),
            "scenarios": scenarios,
            "verdicts": [dict(one) for one in verdicts[:MOST_VERDICTS]],
            "requests": [self._row(one) for one in sorted(self._finished, key=_number)],
            "left_out": {
                "requests": self._left_out,
                "verdicts": max(len(verdicts) - MOST_VERDICTS, 0),
            },
        }

    def write(self) -> bool:
        """Write it; whether that could be done.  Why not stands in the log."""
        try:
            told = self.told()
            xml = self._path.suffix.lower() == ".xml"
            self._replace(junit(told) if xml else _json(told))
        except Exception as error:
            reason = getattr(error, "strerror", None) or error
            self.log.error(
                "The report {path} cannot be written: {reason}", path=str(self._path), reason=reason
            )
            return False
        return True

    def _replace(self, data: bytes) -> None:
        """Put *data* in the place of the file, all at once."""
        beside = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            beside.write_bytes(data)
            os.replace(beside, self._path)
        except OSError:
            beside.unlink(missing_ok=True)
            raise

    def _row(self, finished: Finished) -> dict[str, Any]:
        told = self._form.members(Told("", self._began, finished))
        row: dict[str, Any] = {"id": told["request_id"], "method": told["method"], "path": told["path"]}
        row |= {name: getattr(finished, name) for name in _PLAIN}
        return row | {
            "model": told["model"],
            "test": told["test"],
            "end": finished.end.value,
            "seconds": round(finished.duration, 6),
        }


def _json(told: Mapping[str, Any]) -> bytes:
    text = json.dumps(told, indent=2, ensure_ascii=False, default=str) + "\n"
    return text.encode("utf-8", "backslashreplace")


def _number(finished: Finished) -> int:
    return finished.number
