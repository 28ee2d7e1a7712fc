"""A file of lines that grows no further than it may, and survives what disks and people do to it.

* Lines are written whole or not at all: what a full disk took in part is cut off again.
* What a killed process left of its last line gets a line feed, so that the next line is one of
  its own; a reader skips the torn one.
* A file that was moved away (logrotate) or removed is made anew.
* ``name.1`` is the newest of those that were full, ``name.2`` the one before.

One process writes one file.  All of it blocks: it is for a thread of its own.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

# For reading too: to open a pipe for writing alone would wait for its reader.
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC


class LineFile:
    """Appends lines to *path*.

    :param max_bytes: of one file; a line that is longer has a file of its own.
    :param keep: files beside the present one.
    :param sync: whether lines are on the disk when :meth:`append` returns.
    :ivar stuck: why the file could not be rotated when it last should have been, or ``None``;
        it grows on meanwhile: a file too large is the smaller harm.
    """

    def __init__(self, path: Path, *, max_bytes: int, keep: int, sync: bool = False) -> None:
        self.path = path
        self._max_bytes = max_bytes
        self._keep = keep
        self._sync = sync
        self._file = -1
        self._torn = False
        self.stuck: str | None = None

    def append(self, lines: Sequence[bytes]) -> int:
        """Write as many of *lines*, each with its line feed, as can be.

        :returns: how many were written.
        :raises OSError: not one.
        """
        done = 0
        while done < len(lines):
            try:
                done += self._append(lines, done)
            except OSError:
                self.close()
                if not done:
                    raise
                break
        return done

    def open(self) -> None:
        """Open the file, if it is not open or no longer the one of that name.

        :raises OSError: it cannot be written, or is something other than a file.
        """
        if self._file >= 0 and self._moved():
            self.close()
        if self._file >= 0:
            return
        make_folder(self.path.parent)
        created = False
        try:
            file = os.open(self.path, _FLAGS)
        except FileNotFoundError:
            file = os.open(self.path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600)
            created = True
        try:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(0, "Not a regular file")
            if created:
                os.fchmod(file, 0o600)  # whatever the umask says
                self._sync_folder()
            self._torn = status.st_size > 0 and os.pread(file, 1, status.st_size - 1) != b"\n"
        except BaseException:
            os.close(file)
            raise
        self._file = file

    def close(self) -> None:
        """Let go of the file; it is opened again when needed."""
        file, self._file = self._file, -1
        if file >= 0:
            with suppress(OSError):
                os.close(file)

    def tail(self, most: int) -> bytes:
        """The last *most* bytes at most of the newest file that holds any.

        :raises OSError: the file cannot be opened.
        """
        self.open()
        size = os.fstat(self._file).st_size
        if size:
            return os.pread(self._file, most, max(size - most, 0))
        with suppress(OSError), self._rotated(1).open("rb") as before:
            before.seek(max(before.seek(0, os.SEEK_END) - most, 0))
            return before.read(most)
        return b""

    def _moved(self) -> bool:
        try:
            there = os.stat(self.path, follow_symlinks=False)
        except OSError:
            return True
        here = os.fstat(self._file)
        return (there.st_ino, there.st_dev) != (here.st_ino, here.st_dev)

    def _append(self, lines: Sequence[bytes], start: int) -> int:
        """Write those from *start* on that fit the present file; how many."""
        self.open()
        size = os.fstat(self._file).st_size
        if size and size + self._torn + len(lines[start]) > self._max_bytes:
            self._rotate()
            self.open()
            size = os.fstat(self._file).st_size
        # A file that cannot be rotated takes one line after the other, however large it is.
        end, length = start + 1, size + self._torn + len(lines[start])
        while end < len(lines) and length + len(lines[end]) <= self._max_bytes:
            length += len(lines[end])
            end += 1
        self._write(b"\n" * self._torn + b"".join(lines[start:end]), size)
        self._torn = False
        return end - start

    def _write(self, data: bytes, size: int) -> None:
        """Append all of *data* to a file of *size* bytes, or leave it as it was."""
        view = memoryview(data)
        done = 0
        try:
            while done < len(data):
                done += os.write(self._file, view[done:])
            if self._sync:
                os.fsync(self._file)
        except OSError:
            # Not what others may have written meanwhile.
            with suppress(OSError):
                if os.fstat(self._file).st_size == size + done:
                    os.ftruncate(self._file, size)
            raise

    def _rotate(self) -> None:
        """Make room: move the present file to ``.1`` and each older one on by one."""
        try:
            for number in range(self._keep, 0, -1):
                with suppress(FileNotFoundError):
                    os.replace(self._rotated(number - 1), self._rotated(number))
            if not self._keep:
                os.unlink(self.path)
        except OSError as error:
            self.stuck = error.strerror or type(error).__name__
            return
        self.stuck = None
        self.close()

    def _rotated(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}") if number else self.path

    def _sync_folder(self) -> None:
        """Have the new name on the disk too, where lines are to be."""
        if not self._sync:
            return
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def make_folder(path: Path) -> None:
    """Make *path* and what is missing above it, for the owner alone.

    :raises OSError: it cannot be made.
    """
    if path.is_dir():
        return
    if path.parent != path:
        make_folder(path.parent)
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
        path.chmod(0o700)
