"""The audit log on the disk: numbered lines of JSON, each fsynced.  All of it blocks.

Numbers (``seq``) go on over restarts and rotations: a gap tells that lines are missing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmproxyd.observe.rotation import LineFile

MAX_BYTES = 100 * 1024 * 1024
KEEP = 10
"""What an audit log may grow to: one file, and how many beside it."""

LINE = 64 * 1024
"""Characters of one line; what changed is left out of one that would be longer."""

TAIL = 1024 * 1024
"""Bytes at the end of the file in which the last whole line is looked for: several of any length."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of some lines.

    :param first: number of the first one.
    :param written: so many of them are on the disk.
    :param why: the others are not; ``None`` if all are.
    :param stuck: why the file cannot be rotated.
    """

    first: int
    written: int
    why: str | None = None
    stuck: str | None = None


class AuditFile:
    """Writes *path*."""

    def __init__(self, path: Path, *, max_bytes: int = MAX_BYTES, keep: int = KEEP) -> None:
        self.path = path
        self._lines = LineFile(path, max_bytes=max_bytes, keep=keep, sync=True)
        self._last: int | None = None

    def open(self) -> int:
        """Open the file and look for its last line; what was torn is mended with the next one.

        :returns: the number of the last line, 0 if there is none.
        :raises OSError: it cannot be written.
        """
        if self._last is None:
            self._last = last_seq(self._lines.tail(TAIL))
        return self._last

    def write(self, lines: Sequence[Mapping[str, Any]]) -> Result:
        """Put *lines* on the disk, with their numbers, or the first few of them."""
        first = written = 0
        try:
            first = self.open() + 1
            texts = [_line(number, members) for number, members in enumerate(lines, first)]
            while written < len(texts):
                written += self._lines.append(texts[written:])
                self._last = first + written - 1
        except OSError as error:
            why = error.strerror or type(error).__name__
            return Result(first, written, why, self._lines.stuck)
        return Result(first, written, stuck=self._lines.stuck)

    def close(self) -> None:
        """Let go of the file."""
        self._lines.close()


def last_seq(tail: bytes) -> int:
    """The number of the last whole line in *tail*, 0 if there is none."""
    for line in reversed(tail.split(b"\n")):
        try:
            seq = json.loads(line)["seq"]
        except (ValueError, TypeError, KeyError, RecursionError):
            continue
        if type(seq) is int and 0 <= seq < 10**18:
            return seq
    return 0


def _line(number: int, members: Mapping[str, Any]) -> bytes:
    numbered = {"seq": number, **members}
    text = json.dumps(numbered, ensure_ascii=False)
    if len(text) > LINE:
        numbered |= {name: "[too long]" for name in ("before", "after") if numbered.get(name) is not None}
        text = json.dumps(numbered, ensure_ascii=False)
    # Lone surrogates, which are no UTF-8, become escapes that are JSON's too.
    return (text + "\n").encode("utf-8", "backslashreplace")
