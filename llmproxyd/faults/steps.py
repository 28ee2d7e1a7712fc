"""What is to be done with an answer, one step after the other."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Send:
    """Send *data*; it is never empty."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Wait:
    """Send nothing for so many *seconds*, then go on; ``None`` is as long as anybody waits."""

    seconds: float | None


@dataclass(frozen=True, slots=True)
class Break:
    """Close the connection here, so that the answer is visibly not whole.

    :param reset: by a TCP reset.
    """

    reset: bool


@dataclass(frozen=True, slots=True)
class Finish:
    """End the body well: its last chunk, or its length is reached.  Nothing comes behind it."""


Step = Send | Wait | Break | Finish


def sent(data: bytes) -> list[Step]:
    """*data* as it is; nothing where there is none."""
    return [Send(data)] if data else []


def joined(steps: Iterable[Step]) -> list[Step]:
    """*steps* with what is sent in one go as one step, and nothing behind the end."""
    found: list[Step] = []
    run: list[bytes] = []
    for step in steps:
        if isinstance(step, Send):
            run.append(step.data)
            continue
        found += sent(b"".join(run))
        run.clear()
        found.append(step)
        if isinstance(step, (Break, Finish)):
            break
    return found + sent(b"".join(run))
