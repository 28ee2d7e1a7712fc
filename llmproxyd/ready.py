"""The file that tells a waiting script where the daemon is (``--ready-file``)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llmproxyd.listen import StartError


def prepare(path: Path) -> None:
    """Remove the file of an earlier run, which would tell a wrong address, and see that one can be written.

    :raises StartError: it cannot.
    """
    beside = _beside(path)
    with _told(path):
        path.unlink(missing_ok=True)
        beside.touch()
        beside.unlink()


def announce(path: Path, url: str) -> None:
    """Write *url* so that a reader sees all of it or no file at all.

    :raises StartError: it cannot be written.
    """
    beside = _beside(path)
    with _told(path):
        beside.write_text(url + "\n")
        beside.replace(path)


def forget(path: Path) -> None:
    """Remove it.

    :raises StartError: it is there and cannot be removed.
    """
    with _told(path):
        path.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    """What it is called while it is being written."""
    return path.with_name(f".{path.name}.{os.getpid()}")


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StartError(f"--ready-file {path}: {error.strerror}") from error
