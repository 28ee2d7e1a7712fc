"""Records that are files of their own, in folders that stay small."""

from __future__ import annotations

import errno
import os
import re
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from llmproxyd.observe.rotation import make_folder

STAMP = r"\d{8}_\d{6}_\d{3}"
"""The time in a file's name, as a regular expression."""

RESCAN = 256
"""Files after which a folder is looked at again: others may have taken some away."""

COLLISIONS = 1000
"""Names that are tried for one file."""

PART = ".part"
"""How the name of a file ends that is being written."""

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def local_time(wall: float) -> datetime:
    """*wall* (seconds since the epoch) in local time; the epoch for a time that is none."""
    try:
        return datetime.fromtimestamp(wall)
    except (ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(0)


def stamp(wall: float) -> str:
    """``20250830_143045_123``, in local time."""
    when = local_time(wall)
    return f"{when:%Y%m%d_%H%M%S}_{when.microsecond // 1000:03d}"


def file_word(text: str, instead: str) -> str:
    """*text* as a part of a file's name; *instead* if nothing of it can stand there."""
    return re.sub(r"[^A-Za-z0-9.-]+", "_", text).strip("._-")[:64] or instead


@dataclass(frozen=True, slots=True)
class Found:
    """One file of a folder.

    :param size: bytes.
    :param modified: seconds since the epoch.
    """

    name: str
    size: int
    modified: float


class Folder:
    """A folder of records, each a file that only its owner can read.

    A file has its name once it is whole; until then it is hidden, and its name ends in ``.part``.  One that
    a crash has left counts among *max_files*, and goes as the others do.

    It may hold other things too: what does not match *names* is neither counted nor touched.
    All but :meth:`files` is for one thread alone.

    :param max_files: the oldest ones go when there would be more.
    :param names: matches whole the names that files get, suffix and number included.
    :param max_bytes: of one file; ``None`` for no bound of its own.
    """

    def __init__(
        self,
        path: Path,
        *,
        max_files: int,
        names: re.Pattern[str],
        max_bytes: int | None = None,
        suffix: str = ".log",
    ) -> None:
        self.path = path
        self._max_files = max(max_files, 1)
        self._names = names
        self._max_bytes = max_bytes
        self._suffix = suffix
        self._present: deque[str] = deque()
        self._until_scan = 0
        self.lost = 0
        """Records that could not be written since it last worked."""
        self.failing = False
        """It does not work, and the log has been told."""

    def write(self, stem: str, render: Callable[[str], str]) -> str:
        """Make a new file; its name.

        :param stem: its name without suffix; a number is added where that is taken.
        :param render: makes the text; given the name.
        :raises OSError: it could not be written; nothing of it is left.
        """
        make_folder(self.path)
        if self._until_scan <= 0:
            self._scan()
        self._until_scan -= 1
        folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            while len(self._present) >= self._max_files:
                with suppress(FileNotFoundError):
                    os.unlink(self._present[0], dir_fd=folder)
                self._present.popleft()
            name, file = self._create(folder, stem)
            try:
                with os.fdopen(file, "wb") as stream:
                    # Whatever the umask says.
                    os.fchmod(stream.fileno(), 0o600)
                    stream.write(self._bounded(render(name)))
                os.rename(_part(name), name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                with suppress(OSError):
                    os.unlink(_part(name), dir_fd=folder)
                raise
        except OSError:
            self._until_scan = 0
            raise
        finally:
            os.close(folder)
        self._present.append(name)
        return name

    def obstacle(self) -> str | None:
        """Why nothing can be written there, as far as can be told without trying; it may be made later."""
        place = self.path
        while not os.path.lexists(place) and place != place.parent:
            place = place.parent
        if not place.is_dir():
            return os.strerror(errno.ENOTDIR)
        if os.access(place, os.W_OK | os.X_OK):
            return None
        sealed = os.statvfs(place).f_flag & os.ST_RDONLY
        return os.strerror(errno.EROFS if sealed else errno.EACCES)

    def _create(self, folder: int, stem: str) -> tuple[str, int]:
        """The part of a new file, under a name that nothing has and nobody else takes while it is there."""
        for number in range(COLLISIONS):
            name = f"{stem}_{number}{self._suffix}" if number else f"{stem}{self._suffix}"
            if _taken(name, folder):
                continue
            with suppress(FileExistsError):
                file = os.open(_part(name), _NEW, 0o600, dir_fd=folder)
                if not _taken(name, folder):
                    return name, file
                # Another daemon was quicker.
                os.close(file)
                os.unlink(_part(name), dir_fd=folder)
        raise FileExistsError(f"{COLLISIONS} files of one name")

    def _bounded(self, text: str) -> bytes:
        data = text.encode("utf-8", "backslashreplace")
        most = self._max_bytes
        if most is None or len(data) <= most:
            return data
        mark = b"\n[cut: the record has %d bytes, and a file at most %d]\n" % (len(data), most)
        kept = data[: max(most - len(mark), 0)].decode("utf-8", "ignore").encode()
        return (kept + mark)[:most]

    def _scan(self) -> None:
        found = sorted(self._found(parts=True), key=lambda file: (file.modified, file.name))
        self._present = deque(file.name for file in found)
        self._until_scan = RESCAN

    def files(self) -> list[Found]:
        """Those that are there now and whole, in no order; none if the folder cannot be read."""
        return self._found()

    def _found(self, *, parts: bool = False) -> list[Found]:
        found = []
        with suppress(OSError), os.scandir(self.path) as entries:
            for entry in entries:
                name = entry.name
                if parts and name.startswith(".") and name.endswith(PART):
                    name = name[1 : -len(PART)]
                if not self._names.fullmatch(name):
                    continue
                with suppress(OSError):
                    if entry.is_file(follow_symlinks=False):
                        status = entry.stat(follow_symlinks=False)
                        found.append(Found(entry.name, status.st_size, status.st_mtime_ns / 1e9))
        return found


def _part(name: str) -> str:
    """What the file *name* is called until it is whole."""
    return f".{name}{PART}"


def _taken(name: str, folder: int) -> bool:
    """Whether anything has that name: a link that leads nowhere, too."""
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
