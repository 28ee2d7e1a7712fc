"""Token buckets: the arithmetic of a rate limit, without a clock and without a place.

A bucket holds as much as flows into it in one minute, and begins full: a minute's allowance may be
taken at once, and over any longer time no more than flows in.  The Lua script of
:mod:`llmproxyd.limits.redis` does the same in the same order of operations, so that both come to
the same numbers.
"""

from __future__ import annotations

MINUTE = 60.0
"""Seconds in which a bucket fills up."""

SLACK = 1e-6
"""Part of a unit that may be missing: whoever waited for as long as told is not refused by a rounding."""


def refilled(level: float, since: float, per_minute: int, now: float) -> float:
    """What a bucket holds at *now* that held *level* at *since*, seconds of any clock.

    A clock that went back lets nothing flow in.  A limit that was lowered meanwhile cuts the level.
    """
    elapsed = now - since
    if elapsed > 0:
        level += elapsed * per_minute / MINUTE
    return level if level < per_minute else float(per_minute)


def needed(amount: int) -> int:
    """What must be there for *amount* to be taken; 0 asks that one unit is left."""
    return amount if amount > 0 else 1


def holds(level: float, amount: int) -> bool:
    """Whether *amount* may be taken of *level*."""
    return level + SLACK >= (amount if amount > 0 else 1)


def owing(level: float, amount: int, per_minute: int) -> float:
    """The level after *amount* is taken in any case: below zero by one minute's inflow at most."""
    level -= amount
    return level if level > -per_minute else float(-per_minute)


def wait(level: float, amount: int, per_minute: int) -> float:
    """Seconds until :func:`holds`; 0 where it does.

    Of an *amount* beyond what the bucket holds when full, this is honest arithmetic and no promise.
    """
    if holds(level, amount):
        return 0.0
    return (needed(amount) - level) * MINUTE / per_minute


def until_full(level: float, per_minute: int) -> float:
    """Seconds until nothing more flows in."""
    return (per_minute - level) * MINUTE / per_minute if level < per_minute else 0.0


def remaining(level: float) -> int:
    """Whole units that may be taken."""
    return int(level + SLACK) if level > 0 else 0
