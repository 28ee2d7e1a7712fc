"""How providers tell their rate limits in header fields."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import ceil


@dataclass(frozen=True, slots=True)
class Meter:
    """One limit.

    :param kind: ``requests`` or ``tokens``.
    :param limit: in a minute.
    :param remaining: left of them now.
    :param reset: seconds until all of it is there again.
    """

    kind: str
    limit: int
    remaining: int
    reset: float


def openai_fields(meters: Sequence[Meter], wall: float) -> list[tuple[bytes, bytes]]:
    """``x-ratelimit-*``, with durations such as ``6m0s`` and ``120ms``; most providers do as OpenAI."""
    fields = []
    for meter in meters:
        kind = meter.kind.encode()
        fields += [
            (b"x-ratelimit-limit-" + kind, b"%d" % meter.limit),
            (b"x-ratelimit-remaining-" + kind, b"%d" % meter.remaining),
            (b"x-ratelimit-reset-" + kind, go_duration(meter.reset).encode()),
        ]
    return fields


def anthropic_fields(meters: Sequence[Meter], wall: float) -> list[tuple[bytes, bytes]]:
    """``anthropic-ratelimit-*``, with times in RFC 3339.

    :param wall: seconds since the epoch.
    """
    fields = []
    for meter in meters:
        name = b"anthropic-ratelimit-" + meter.kind.encode()
        # A second too late is better than one too early.
        at = datetime.fromtimestamp(ceil(wall + meter.reset), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        fields += [
            (name + b"-limit", b"%d" % meter.limit),
            (name + b"-remaining", b"%d" % meter.remaining),
            (name + b"-reset", at.encode()),
        ]
    return fields


def no_fields(meters: Sequence[Meter], wall: float) -> list[tuple[bytes, bytes]]:
    """None, as such a provider tells nothing of its limits beside ``Retry-After``."""
    return []


def go_duration(seconds: float) -> str:
    """*seconds* as OpenAI writes them: ``1s``, ``6m0s``, ``120ms``."""
    seconds = max(round(seconds, 3), 0)
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    text = f"{rest:.3f}".rstrip("0").rstrip(".") + "s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text
