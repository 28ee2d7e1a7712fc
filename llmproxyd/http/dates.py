"""HTTP dates in the three forms of RFC 9110 §5.6.7, read with one of two tolerances.

What is read strictly makes something fresh or true; what is read leniently only makes somebody wait, as an
upstream that cannot spell means to be waited for all the same.  No other form is read either way.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple

_TIME = rb"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
_MONTHS = (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec")

_LONGEST = 64
"""Bytes of a date in any form, and some."""


class _Forms(NamedTuple):
    """The forms, each with the weekday that it begins with."""

    fixed: re.Pattern[bytes]
    rfc850: re.Pattern[bytes]
    asctime: re.Pattern[bytes]


def _forms(fixed: bytes, rfc850: bytes, asctime: bytes, flags: int = 0) -> _Forms:
    month = rb"(?P<month>[A-Z][a-z]{2})"
    patterns = (
        fixed + rb", (?P<day>[0-9]{2}) " + month + rb" (?P<year>[0-9]{4}) " + _TIME + rb" GMT",
        rfc850 + rb", (?P<day>[0-9]{2})-" + month + rb"-(?P<year>[0-9]{2}) " + _TIME + rb" GMT",
        asctime + rb" " + month + rb" (?P<day>[ 0-9][0-9]) " + _TIME + rb" (?P<year>[0-9]{4})",
    )
    return _Forms(*(re.compile(pattern, flags) for pattern in patterns))


_STRICT = _forms(rb"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)", rb"[A-Z][a-z]{5,8}", rb"[A-Z][a-z]{2}")
_LENIENT = _forms(rb"[a-z]+", rb"[a-z]+", rb"[a-z]+", re.IGNORECASE)


def seconds_of(value: bytes, now: float) -> float | None:
    """Seconds since the epoch, ``None`` for what is no date as the RFC writes it: upper and lower case too.

    :param now: seconds since the epoch; a year of two digits is never more than 50 ahead of it.
    """
    value = value.strip(b" \t")
    if len(value) > _LONGEST:
        return None
    seconds = _strict_with_year(value)
    return _of_two_digits(_STRICT, value, now) if seconds is None else seconds


def seconds_meant(value: bytes, now: float) -> float | None:
    """The same for dates in letters of any case, whatever they call the weekday."""
    if len(value) > _LONGEST:
        return None
    seconds = _with_year(_LENIENT, value)
    return _of_two_digits(_LENIENT, value, now) if seconds is None else seconds


def _with_year(forms: _Forms, value: bytes) -> float | None:
    """Of a date with a whole year."""
    found = forms.fixed.fullmatch(value) or forms.asctime.fullmatch(value)
    return None if found is None else _seconds(found, int(found["year"]))


@lru_cache(maxsize=256)
def _strict_with_year(value: bytes) -> float | None:
    """Many answers carry the same one."""
    return _with_year(_STRICT, value)


def _of_two_digits(forms: _Forms, value: bytes, now: float) -> float | None:
    """Of a date with two digits of a year."""
    found = forms.rfc850.fullmatch(value)
    if found is None:
        return None
    try:
        latest = datetime.fromtimestamp(now, UTC).year + 50
    except (ValueError, OverflowError, OSError):
        return None
    return _seconds(found, latest - (latest - int(found["year"])) % 100)


def _seconds(found: re.Match[bytes], year: int) -> float | None:
    month = found["month"].capitalize()
    hour, minute, second = int(found["hour"]), int(found["minute"]), int(found["second"])
    if month not in _MONTHS or hour > 23 or minute > 59 or second > 60:  # 60 is a leap second
        return None
    try:
        midnight = datetime(year, _MONTHS.index(month) + 1, int(found["day"]), tzinfo=UTC)
    except ValueError:
        return None
    return midnight.timestamp() + hour * 3600 + minute * 60 + second
