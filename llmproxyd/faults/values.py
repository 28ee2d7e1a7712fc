"""The values of a fault's options, each from its text, pure.

A :exc:`ValueError` says what is accepted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from llmproxyd.faults.rules import Always, At, Share, Spot, When
from llmproxyd.units import DURATION_HELP, parse_duration, parse_size

AT_HELP = 'start, tool, end, a number of events ("3"), hundredths ("50%bytes") or bytes ("1000B", "4KiB")'
MEDIA: Mapping[str, str] = {
    ".json": "application/json",
    ".html": "text/html; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
}
"""What a file that is a body holds, by how its name ends."""


_COUNT = re.compile(r"[0-9]{1,9}")
_SECONDS = re.compile(r"[0-9]{1,7}(?:\.[0-9]+)?")
_NUMBER = re.compile(r"[0-9]{1,9}(?:\.[0-9]+)?|\.[0-9]+")
_HUNDREDTHS = re.compile(r"([0-9]{1,3}(?:\.[0-9]+)?)%(?:bytes)?", re.IGNORECASE)
_SIZE = re.compile(r"[0-9]{1,15}(?:\.[0-9]+)?(?:[KMG]i?)?B", re.IGNORECASE)
_EXCESS = re.compile(r"([+-]?)([0-9]{1,9})")
_STATUS = re.compile(r"[2-5][0-9][0-9]")
_FILE = re.compile(r"[^\s;\\]{1,200}")


def count(text: str) -> int:
    """Of requests."""
    if not _COUNT.fullmatch(text):
        raise ValueError("a whole number of requests is accepted")
    return int(text)


def most(text: str) -> int:
    """Hits, 1 at least."""
    if not _COUNT.fullmatch(text) or not int(text):
        raise ValueError("a whole number of hits is accepted, 1 at least")
    return int(text)


def retry_after(text: str) -> float:
    """Seconds that are told."""
    if not _SECONDS.fullmatch(text):
        raise ValueError("a number of seconds is accepted, 0 included")
    return float(text)


def waiting(text: str) -> float:
    """A duration in seconds, 0 included."""
    try:
        return parse_duration(text)
    except ValueError:
        raise ValueError(f"accepted is {DURATION_HELP}") from None


def pace(text: str) -> float:
    """Tokens a second."""
    if not _NUMBER.fullmatch(text) or not float(text):
        raise ValueError("a number of tokens above 0 is accepted")
    return float(text)


def jitter_of(text: str) -> float:
    """A share from 0 to 1."""
    number = text.removesuffix("%")
    if _NUMBER.fullmatch(number):
        share = float(number) / 100 if text.endswith("%") else float(number)
        if share <= 1:
            return share
    raise ValueError('a share is accepted, such as "20%" or "0.2", "100%" at most')


def percent_of(text: str) -> When | None:
    """When a fault of so many hundredths fires; ``None`` is never."""
    number = text.removesuffix("%")
    if not _NUMBER.fullmatch(number) or float(number) > 100:
        raise ValueError("a number from 0 to 100 is accepted")
    fraction = float(number) / 100
    if not fraction:
        return None
    return Always() if fraction == 1 else Share(fraction)


def at_of(text: str) -> At:
    """A place in an answer."""
    word = text.lower()
    if word in ("start", "tool", "end"):
        return At(Spot(word))
    if _COUNT.fullmatch(text):
        return At(Spot.EVENTS, float(int(text))) if int(text) else At(Spot.START)
    if (hundredths := _HUNDREDTHS.fullmatch(text)) and float(hundredths.group(1)) <= 100:
        return At(Spot.PERCENT, float(hundredths.group(1)))
    if _SIZE.fullmatch(text):
        return At(Spot.BYTES, float(parse_size(text)))
    raise ValueError(f"accepted are {AT_HELP}")


def excess_of(text: str) -> int:
    """Bytes by which a length is too large, or too small where negative."""
    match = _EXCESS.fullmatch(text)
    if match is None or not int(match.group(2)):
        raise ValueError('a number of bytes other than 0 is accepted: "20" is too large, "-20" too small')
    return int(text)


def status_of(text: str) -> int:
    """The status of an answer."""
    if not _STATUS.fullmatch(text):
        raise ValueError("a status from 200 to 599 is accepted")
    return int(text)


def file_name(text: str) -> str:
    """The name of a file that holds a body: relative, and nowhere above."""
    parts = text.split("/")
    if not _FILE.fullmatch(text) or not text.isprintable() or any(part[:1] in ("", ".") for part in parts):
        raise ValueError("a file within the folder of the configuration file is accepted")
    media_of(text)
    return text


def media_of(name: str) -> str:
    """The media type of the file *name*.

    :raises ValueError: its ending tells none.
    """
    for ending, media in MEDIA.items():
        if name.lower().endswith(ending):
            return media
    raise ValueError(f"a file whose name ends in {', '.join(MEDIA)} is accepted")
