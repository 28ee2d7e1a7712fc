"""The daemon's own log: twisted.logger events as lines of text or JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from time import localtime, strftime

from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent
from zope.interface import implementer

from llmproxyd.observe import journald
from llmproxyd.observe.output import Output
from llmproxyd.redaction import Redactor

LEVELS = {
    "debug": LogLevel.debug,
    "info": LogLevel.info,
    "warn": LogLevel.warn,
    "error": LogLevel.error,
}


def text_time(wall: float) -> str:
    """``2026-11-20 14:30:15`` in local time."""
    return _text_second(int(wall))


@lru_cache(maxsize=4)
def _text_second(second: int) -> str:
    """Thousands of lines may have the same one."""
    return strftime("%Y-%m-%d %H:%M:%S", localtime(second))


def json_time(wall: float) -> str:
    """RFC 3339 in UTC with milliseconds."""
    return datetime.fromtimestamp(wall, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def json_line(members: dict[str, object]) -> str:
    """*members* on a line of their own."""
    return json.dumps(members, ensure_ascii=False, default=str) + "\n"


@implementer(ILogObserver)
class Observer:
    """Writes events of *level* and above.

    What other parts of Twisted say at ``info`` (which factory starts on which port) shows at
    ``debug`` only: the banner says it better.  An exception may hold what it failed on, so of
    failures nothing is written that is a secret; an event's ``secrets`` are further ones.

    :param before: called before each line, so that batched lines keep their place.
    :param redactor: knows the secrets of the configuration.
    """

    def __init__(
        self,
        output: Output,
        level: str,
        *,
        as_json: bool,
        before: Callable[[], None],
        redactor: Redactor | None = None,
    ) -> None:
        self._output = output
        self._level = LEVELS[level]
        self._levels: dict[str, LogLevel] = {}
        self._debug = level == "debug"
        self._as_json = as_json
        self._before = before
        self._redactor = Redactor() if redactor is None else redactor

    def set_level(self, namespace: str, level: str) -> None:
        """Write what comes from *namespace*, and what is below it, from *level* on.

        :param level: one of :data:`LEVELS`.
        """
        self._levels[namespace.rstrip(".")] = LEVELS[level]

    def _least(self, namespace: str) -> LogLevel:
        """The level of the longest namespace that *namespace* is in."""
        while namespace:
            if namespace in self._levels:
                return self._levels[namespace]
            namespace = namespace.rpartition(".")[0]
        least: LogLevel = self._level
        return least

    def __call__(self, event: LogEvent) -> None:
        level = event.get("log_level", LogLevel.info)
        namespace = str(event.get("log_namespace", "-"))
        least = self._least(namespace) if self._levels else self._level
        if level < least:
            return
        ours = namespace.startswith("llmproxyd") or self._debug or least is not self._level
        if level <= LogLevel.info and not ours:
            return
        self._before()
        text = formatEvent(event)
        failure = event.get("log_failure")
        trace = None
        if failure is not None:
            redactor = self._redactor.knowing(event.get("secrets", ()))
            text, trace = redactor.text(text), redactor.text(failure.getTraceback())
        wall = event["log_time"]
        if self._as_json:
            members = {"ts": json_time(wall), "level": level.name, "logger": namespace, "message": text}
            if trace is not None:
                members["trace"] = trace
            lines = json_line(members)
        else:
            mark = "" if level is LogLevel.info else f"{level.name.upper()} "
            lines = f"{text_time(wall)} {mark}{text}\n" + (f"{trace.rstrip()}\n" if trace else "")
        self._output.write(journald.marked(lines, level.name) if self._output.journald else lines)
