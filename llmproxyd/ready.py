"""The file that tells a waiting script where the daemon is (``--ready-file``)."""

from __future__ import annotations

import os
from pathlib import Path

from llmproxyd.listen import StartError


def announce(path: Path, url: str) -> None:
    """Write *url* so that a reader sees all of it or no file at all.

    :raises StartError: it cannot be written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(url + "\n")
        beside.replace(path)
    except OSError as error:
        raise StartError(f"--ready-file {path}: {error.strerror}") from error


def forget(path: Path) -> None:
    """Remove it: one of an earlier run would tell a wrong address.

    :raises StartError: it is there and cannot be removed.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise StartError(f"--ready-file {path}: {error.strerror}") from error
