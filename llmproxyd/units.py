"""Durations, sizes and shares as people write them.

Bottom of the house: knows nothing but text and numbers.  Used by the configuration
(``timeouts.idle: 5m``), by the operator's language (``for=30s``) and by what is printed.
"""

from __future__ import annotations

import re
from typing import Annotated

Duration = Annotated[float, "duration"]
"""Seconds, written ``250ms``, ``30s``, ``1m30s`` or as a plain number of seconds."""

Size = Annotated[int, "size"]
"""Bytes, written ``64KiB``, ``2MB`` or as a plain number of bytes."""

DURATION_HELP = 'a duration such as "250ms", "30s", "1m30s" or a number of seconds'
SIZE_HELP = 'a size such as "64KiB", "2MB" or a number of bytes'

_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMG]i?B?|B)?", re.IGNORECASE)
_SIZE_UNITS = {
    "": 1,
    "b": 1,
    "k": 1000,
    "kb": 1000,
    "m": 1000**2,
    "mb": 1000**2,
    "g": 1000**3,
    "gb": 1000**3,
    "ki": 1024,
    "kib": 1024,
    "mi": 1024**2,
    "mib": 1024**2,
    "gi": 1024**3,
    "gib": 1024**3,
}
MAX_DURATION = 366 * 86400.0
MAX_SIZE = 2**60


def parse_duration(text: str) -> float:
    """Seconds meant by *text*.

    :raises ValueError: it is no duration, or is longer than a year.
    """
    compact = text.strip()
    if _NUMBER.fullmatch(compact):
        seconds = float(compact)
    else:
        parts = _DURATION_PART.findall(compact)
        if not parts or "".join(number + unit for number, unit in parts) != compact:
            raise ValueError(f"expected {DURATION_HELP}")
        seconds = sum(float(number) * _DURATION_UNITS[unit] for number, unit in parts)
    if seconds > MAX_DURATION:
        raise ValueError(f"expected {DURATION_HELP}, of a year at most")
    return seconds


def format_duration(seconds: float) -> str:
    """*seconds* in the shortest form that :func:`parse_duration` reads back to the same value."""
    if seconds == 0:
        return "0s"
    milliseconds = round(seconds * 1000)
    if milliseconds == 0 or abs(milliseconds / 1000 - seconds) > 1e-9:
        return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    out = []
    for unit, width in (("d", 86400000), ("h", 3600000), ("m", 60000), ("s", 1000), ("ms", 1)):
        count, milliseconds = divmod(milliseconds, width)
        if count:
            out.append(f"{count}{unit}")
    return "".join(out)


def parse_size(text: str) -> int:
    """Bytes meant by *text*.

    :raises ValueError: it is no size, or is larger than any.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"expected {SIZE_HELP}")
    number, unit = match.groups()
    width = _SIZE_UNITS[(unit or "").lower()]
    size = float(number) * width
    if size > MAX_SIZE:
        raise ValueError(f"expected {SIZE_HELP}, of {format_size(MAX_SIZE)} at most")
    return round(size) if "." in number else int(number) * width


def format_size(size: int) -> str:
    """*size* in the largest binary unit that divides it."""
    for unit, width in (("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024)):
        if size and size % width == 0:
            return f"{size // width}{unit}"
    return str(size)
