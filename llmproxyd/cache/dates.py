"""HTTP dates, read strictly: what is no date must not make anything fresh.  RFC 9110 §5.6.7."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache

_TIME = rb"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
_FIXED = re.compile(
    rb"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), (?P<day>[0-9]{2}) (?P<month>[A-Z][a-z]{2}) (?P<year>[0-9]{4}) "
    + _TIME
    + rb" GMT"
)
_RFC850 = re.compile(
    rb"[A-Z][a-z]{5,8}, (?P<day>[0-9]{2})-(?P<month>[A-Z][a-z]{2})-(?P<year>[0-9]{2}) " + _TIME + rb" GMT"
)
_ASCTIME = re.compile(
    rb"[A-Z][a-z]{2} (?P<month>[A-Z][a-z]{2}) (?P<day>[ 0-9][0-9]) " + _TIME + rb" (?P<year>[0-9]{4})"
)
_LONGEST = 40
"""Bytes of a date in any form, and some."""

_MONTHS = (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec")


def seconds_of(value: bytes, now: float) -> float | None:
    """Seconds since the epoch, ``None`` for what is no date in any of the three forms.

    :param now: seconds since the epoch; a year of two digits is never more than 50 ahead of it.
    """
    value = value.strip(b" \t")
    if len(value) > _LONGEST:
        return None
    seconds = _absolute(value)
    return _relative(value, now) if seconds is None else seconds


@lru_cache(maxsize=256)
def _absolute(value: bytes) -> float | None:
    """Of a date with a whole year; many answers carry the same one."""
    found = _FIXED.fullmatch(value) or _ASCTIME.fullmatch(value)
    return None if found is None else _seconds(found, int(found["year"]))


def _relative(value: bytes, now: float) -> float | None:
    """Of a date with two digits of a year."""
    found = _RFC850.fullmatch(value)
    if found is None:
        return None
    try:
        latest = datetime.fromtimestamp(now, UTC).year + 50
    except (ValueError, OverflowError, OSError):
        return None
    return _seconds(found, latest - (latest - int(found["year"])) % 100)


def _seconds(found: re.Match[bytes], year: int) -> float | None:
    if found["month"] not in _MONTHS:
        return None
    hour, minute, second = int(found["hour"]), int(found["minute"]), int(found["second"])
    if hour > 23 or minute > 59 or second > 60:  # 60 is a leap second
        return None
    try:
        midnight = datetime(year, _MONTHS.index(found["month"]) + 1, int(found["day"]), tzinfo=UTC)
    except ValueError:
        return None
    return midnight.timestamp() + hour * 3600 + minute * 60 + second
