"""Moments as people write them: a date, a time, or so long from now."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from llmproxyd.units import parse_duration

ACCEPTED = 'a duration such as "30d" or "12h", a date such as "2030-12-31", or a time by RFC 3339 (UTC: "Z")'
PATTERN = "[1-9][0-9]{0,2}[smhdw]"
"""Durations, as the description of the API has them; ``1h30m`` is read too."""

LAST = 253402214400.0
"""The last day of the year 9999, in seconds since the epoch."""

_LEAP = re.compile(r"(?<=:[0-9]{2}):60")
_WEEKS = re.compile(r"([1-9][0-9]{0,2})w")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9:]{8}(?:\.[0-9]+)?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})")


@dataclass(frozen=True, slots=True)
class Moment:
    """One moment, fixed or as seen from now.

    :param at: seconds since the epoch.
    :param distance: seconds from now, where it is not fixed.
    """

    at: float = 0.0
    distance: float | None = None

    def ahead(self, wall: float) -> float:
        """Seconds since the epoch, where *wall* is now and a distance goes into the future."""
        return self.at if self.distance is None else wall + self.distance

    def back(self, wall: float) -> float:
        """The same, where a distance goes into the past."""
        return self.at if self.distance is None else wall - self.distance


def parse_moment(text: str) -> Moment:
    """What *text* means; a date is its beginning in UTC.

    :raises ValueError: it is no moment.
    """
    if weeks := _WEEKS.fullmatch(text):
        return Moment(distance=int(weeks[1]) * 7 * 86400.0)
    if _DATE.fullmatch(text):
        return Moment(_bounded(datetime.fromisoformat(text).replace(tzinfo=UTC)))
    if _TIME.fullmatch(text):
        # A leap second (RFC 3339 §5.7) is the one before it, which Python knows.
        return Moment(_bounded(datetime.fromisoformat(_LEAP.sub(":59", text.upper()))))
    if text.isdigit():
        raise ValueError(f"accepted: {ACCEPTED}")  # seconds or a year? nobody knows
    return Moment(distance=parse_duration(text))


def _bounded(when: datetime) -> float:
    """Seconds since the epoch, within what four digits of a year can tell in any time zone."""
    return max(0.0, min(when.timestamp(), LAST))


def stamp(seconds: float | None) -> str | None:
    """*seconds* since the epoch by RFC 3339 in UTC, to the second."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def day(seconds: float) -> str:
    """The day of *seconds* since the epoch, in UTC: ``2025-08-30``."""
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()
