"""Plain scalars of the simple types, stricter than YAML is."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping

from llmproxyd.units import parse_duration, parse_size

MAX_SIZE = 2**50
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})")
_NUMBER = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3})?")
BOOLEANS: Mapping[str, bool] = {"true": True, "false": False}


def _boolean(text: str) -> bool:
    if text not in BOOLEANS:
        raise ValueError
    return BOOLEANS[text]


def _integer(text: str) -> int:
    if not _INTEGER.fullmatch(text):
        raise ValueError
    return int(text)


def _number(text: str) -> float:
    if not _NUMBER.fullmatch(text) or not math.isfinite(number := float(text)):
        raise ValueError
    return number


def _size(text: str) -> int:
    try:
        size = parse_size(text)
    except OverflowError:
        raise ValueError from None
    if size > MAX_SIZE:
        raise ValueError
    return size


MEASURES: Mapping[str, Callable[[str], object]] = {"duration": parse_duration, "size": _size}
"""What reads a text, by the marker of its kind.  Each raises :exc:`ValueError`."""

PLAIN: Mapping[object, Callable[[str], object]] = {bool: _boolean, int: _integer, float: _number}
"""What reads a text without quotes, by its type.  Each raises :exc:`ValueError`."""
