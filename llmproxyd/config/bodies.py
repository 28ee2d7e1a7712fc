"""Files that are bodies of answers, read with a bound."""

from __future__ import annotations

from pathlib import Path

from llmproxyd.config.texts import readable_file
from llmproxyd.faults.values import MEDIA, media_of

MAX_BODY = 1024 * 1024
"""Bytes of a body."""

BODY = f"the path of a file that ends in {', '.join(MEDIA)} and is 1 MiB at most"


def read_body(path: Path) -> bytes:
    """What is in the file at *path*.

    :raises ValueError: it cannot be used, with why.
    """
    media_of(path.name)
    readable_file(path)
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BODY + 1)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}; accepted: {BODY}") from None
    if len(data) > MAX_BODY:
        raise ValueError(f"{path} is longer than 1 MiB; accepted: {BODY}")
    return data
