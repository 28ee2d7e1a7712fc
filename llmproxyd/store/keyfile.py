"""The key of a store in SQLite, in a file beside it, when the operator gave none."""

from __future__ import annotations

import os
from base64 import urlsafe_b64encode
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from llmproxyd.redaction import Secret

MAX_SIZE = 4096
"""Bytes of a key file that are read."""


class KeyFile:
    """A file with one line, readable by its owner alone.

    A rotation writes the new key beside it first (``.new``) and puts it in its place when the
    database has it: whatever is cut short, one of both is the right one.

    :param random_bytes: of a quality that keys are made of.
    """

    def __init__(self, path: Path, random_bytes: Callable[[int], bytes] = os.urandom) -> None:
        self.path = path
        self._staged = path.with_name(path.name + ".new")
        self._random_bytes = random_bytes

    def read(self) -> Secret | None:
        """The key; ``None`` where there is no file.

        :raises ValueError: it holds no key.
        :raises OSError: it cannot be read.
        """
        return _read(self.path)

    def make(self) -> Secret:
        """The key; a new one where there is no file.  Of several processes one makes it.

        :raises OSError: it cannot be written.
        """
        known = self.read()
        if known is not None:
            return known
        made = urlsafe_b64encode(self._random_bytes(32)).decode().rstrip("=")
        # Written elsewhere and linked: nobody ever finds half of it.
        other = self.path.with_name(f"{self.path.name}.{os.getpid()}.{self._random_bytes(4).hex()}")
        _write(other, made)
        try:
            with suppress(FileExistsError):
                os.link(other, self.path)
        finally:
            other.unlink()
        _keep_folder(self.path.parent)
        return self.read() or Secret(made)

    def stage(self, new: Secret) -> None:
        """Write down *new*, which the database does not have yet."""
        _write(self._staged, new.reveal())

    def promote(self) -> None:
        """Put the key that was staged in the place of the old one."""
        os.replace(self._staged, self.path)
        _keep_folder(self.path.parent)

    def staged(self) -> Secret | None:
        """The key of a rotation that was cut short, if there is one."""
        return _read(self._staged)


def _read(path: Path) -> Secret | None:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_SIZE + 1)
    except FileNotFoundError:
        return None
    try:
        text = raw.decode().strip()
    except UnicodeDecodeError:
        text = ""
    if not text or len(raw) > MAX_SIZE:
        raise ValueError(f"{path} holds no key: put the one back that was made with the database")
    return Secret(text)


def _write(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(descriptor, 0o600)
        file.write(text + "\n")
        file.flush()
        os.fsync(descriptor)


def _keep_folder(folder: Path) -> None:
    """Have the names in *folder* outlive a power cut, where the system can do that."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
