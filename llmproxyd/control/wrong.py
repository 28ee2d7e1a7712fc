"""What is wrong with what was given: where, what was found there, and what is accepted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from llmproxyd.config.problems import quoted
from llmproxyd.errors import Refused

MOST_WRONG = 50
"""So many problems are told at most."""


class _Bad:
    """The type of :data:`BAD`."""


BAD: Final = _Bad()
"""Stands for a value that could not be had; the reason is on the list."""


@dataclass(frozen=True, slots=True)
class Wrong:
    """One thing that is wrong with what was given.

    :param pointer: where, as a JSON pointer; empty for the whole.
    :param found: what stands there, without any secret.
    """

    pointer: str
    found: str
    accepted: str

    def __str__(self) -> str:
        where = self.pointer or "the whole"
        return f"{where}: found {self.found}; accepted: {self.accepted}"


class Invalid(Refused):
    """400: what was given cannot be meant.

    :ivar wrong: everything that is wrong with it.
    """

    def __init__(self, wrong: Sequence[Wrong], code: str = "invalid_body") -> None:
        more = "" if len(wrong) == 1 else f" (and {len(wrong) - 1} more)"
        super().__init__(400, code, f"{wrong[0]}{more}")
        self.wrong = tuple(wrong)


def step(pointer: str, name: str | int) -> str:
    """The place *name* below *pointer*; a name that may be a secret is not shown."""
    shown = str(name) if isinstance(name, int) else quoted(name)[1:-1]
    return f"{pointer}/{shown.replace('~', '~0').replace('/', '~1')}"


def found(value: object) -> str:
    """What *value* is; only short texts and numbers are shown themselves."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, int | float):
        return "a huge number" if abs(value) >= 1e18 else str(value)
    return "a list" if isinstance(value, list) else "an object"
