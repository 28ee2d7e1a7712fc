"""Levels of log lines for systemd-journald: ``<4>`` at the beginning of a line, sd-daemon(3).

journald takes the mark off and keeps the level, by which ``journalctl -p warning`` selects.  On anything
else than the journal the mark would be noise, so it is asked first who reads.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TextIO

PRIORITIES: Mapping[str, int] = MappingProxyType(
    {"debug": 7, "info": 6, "warn": 4, "error": 3, "critical": 2}
)
"""Those of syslog(3) by our levels."""


def reads(file: Any, environ: Mapping[str, str]) -> bool:
    """Whether what is written to *file* goes to the journal: ``$JOURNAL_STREAM``, systemd.exec(5)."""
    stream = environ.get("JOURNAL_STREAM", "")
    if not stream:
        return False
    try:
        found = os.fstat(file.fileno())
    except (AttributeError, OSError, ValueError):
        return False  # it is no file, or a closed one
    return stream == f"{found.st_dev}:{found.st_ino}"


def mark_of(level: str) -> str:
    """What a line of *level* begins with."""
    return f"<{PRIORITIES[level]}>"


def marked(text: str, level: str) -> str:
    """*text*, which is whole lines, each with the mark of *level*."""
    mark = mark_of(level)
    if text.find("\n") == len(text) - 1 >= 0:  # most have but one line
        return mark + text
    return "".join(f"{mark}{line}\n" for line in text.removesuffix("\n").split("\n"))


def complain(message: str, stream: TextIO | None, environ: Mapping[str, str]) -> None:
    """Write to *stream*, standard error, why the daemon cannot run."""
    text = f"llmproxyd: {message}\n"
    print(marked(text, "error") if reads(stream, environ) else text, end="", file=stream)
