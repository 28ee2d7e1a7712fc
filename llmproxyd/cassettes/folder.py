"""The folder of recordings: whole files alone, numbered in the order in which requests were sent.

A file is written beside its place and then put there, so that whoever reads the folder, or finds it
after the process was killed, finds whole ones.  Nothing here belongs into the reactor's thread, but
for the start.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from llmproxyd.cassettes.format import SUFFIX
from llmproxyd.cassettes.matching import Recorded
from llmproxyd.cassettes.reading import Unusable, read
from llmproxyd.config.problems import Problem

MAX_FILE = 128 * 1024 * 1024
"""Bytes of one file that is read."""

MAX_TOTAL = 512 * 1024 * 1024
"""Bytes of all files that are read: they stay in memory."""

_NUMBERED = re.compile(r"([0-9]{4,9})-.*")
_UNFIT = re.compile(r"[^A-Za-z0-9_.-]+")
_NEW = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC


class Taken(Exception):
    """Another process records into the folder."""


class Folder:
    """Where recordings are written, by one process at a time.

    :raises OSError: it cannot be made or written to.
    :raises Taken: see there.
    :ivar files: how many recordings there are.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._own()
        except BaseException:
            os.close(self._lock)
            raise
        names = _names(path)
        self.files = len(names)
        numbers = [int(match.group(1)) for name in names if (match := _NUMBERED.fullmatch(name))]
        self._last = max(numbers, default=0)

    def _own(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Taken from None
        except OSError:
            pass  # a file system without locks
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise PermissionError(13, os.strerror(13), str(self.path))
        for left in self.path.glob(f".*{SUFFIX}.part"):
            # Of a process that was killed.
            with suppress(OSError):
                left.unlink()

    def number(self) -> int:
        """The next one."""
        self._last += 1
        return self._last

    def write(self, name: str, text: str) -> None:
        """Make the file *name*, which is not there yet, readable by its owner alone.

        :raises OSError: it could not be written; nothing of it is left.
        """
        part = f".{name}.part"
        try:
            with os.fdopen(os.open(part, _NEW, 0o600, dir_fd=self._lock), "wb") as stream:
                # Whatever the umask says.
                os.fchmod(stream.fileno(), 0o600)
                stream.write(text.encode())
                stream.flush()
                os.fsync(stream.fileno())
            os.rename(part, name, src_dir_fd=self._lock, dst_dir_fd=self._lock)
        except BaseException:
            with suppress(OSError):
                os.unlink(part, dir_fd=self._lock)
            raise
        self.files += 1

    def close(self) -> None:
        """Let others record here."""
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)


def name_of(number: int, upstream: str, operation: str, status: int) -> str:
    """``0001-openai-chat-200.yaml``."""
    words = [_UNFIT.sub("_", word).strip("_.-")[:40] or "x" for word in (upstream, operation)]
    return f"{number:04}-{'-'.join(words)}-{status}{SUFFIX}"


def load(path: Path) -> list[Recorded]:
    """All recordings in the folder, in their order.

    :raises OSError: it cannot be read.
    :raises Unusable: with everything that is wrong with all of them.
    """
    found: list[Recorded] = []
    problems: list[Problem] = []
    total = 0
    for name in sorted(_names(path), key=_order):
        place = str(path / name)
        try:
            data = _data(path / name)
            total += len(data)
            if total > MAX_TOTAL:
                message = f"the recordings in this folder have more than {MAX_TOTAL >> 20} MiB"
                problems.append(Problem(str(path), "", message))
                break
            found.append(Recorded(name, read(data.decode("utf-8-sig"), place)))
        except Unusable as error:
            problems += error.problems
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            problems.append(Problem(f"{place}:{line}", "", "not UTF-8"))
        except OSError as error:
            problems.append(Problem(place, "", f"cannot be read: {error.strerror}"))
    if problems:
        raise Unusable(problems)
    return found


def _data(path: Path) -> bytes:
    with path.open("rb") as stream:
        data = stream.read(MAX_FILE + 1)
    if len(data) > MAX_FILE:
        raise Unusable([Problem(str(path), "", f"is longer than {MAX_FILE >> 20} MiB")])
    return data


def _names(path: Path) -> Sequence[str]:
    with os.scandir(path) as entries:
        return [
            entry.name
            for entry in entries
            if entry.name.endswith(SUFFIX) and not entry.name.startswith(".") and entry.is_file()
        ]


def _order(name: str) -> tuple[int, str]:
    """By number, and those without one behind."""
    match = _NUMBERED.fullmatch(name)
    return (int(match.group(1)) if match else 10**9, name)
