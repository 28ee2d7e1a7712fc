"""What a type alone cannot say of a key, as metadata of ``Annotated``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Check:
    """A value must stand a test.

    :param accepted: what does, for messages: ``a path that starts with "/"``.
    :param test: raises :exc:`ValueError` with a message that says what is accepted.
    :param replaces: the test returns the value in its normal form, which is kept instead.
    """

    accepted: str
    test: Callable[[Any], object]
    replaces: bool = False


def check(accepted: str, test: Callable[[Any], object]) -> Check:
    """A value that *test* does not object to."""
    return Check(accepted, test)


def normal(accepted: str, form: Callable[[Any], object]) -> Check:
    """A value that *form* brings into its normal form."""
    return Check(accepted, form, replaces=True)


@dataclass(frozen=True, slots=True)
class AtLeast:
    """A number must not be smaller than *bound*, or than anything above it if *open*."""

    bound: float
    open: bool = False

    @property
    def words(self) -> str:
        """``above 0`` or ``1 at least``."""
        return f"above {self.bound:g}" if self.open else f"{self.bound:g} at least"

    def holds(self, value: float) -> bool:
        """Whether *value* is within the bound."""
        return value > self.bound if self.open else value >= self.bound


POSITIVE = AtLeast(0, open=True)

FILLED_IN = "filled in"
"""A key that may be null, for a value that follows from others; the loader fills it in."""

STATE_FILE = "state file"
"""A path among what the daemon keeps (:meth:`~llmproxyd.config.folders.Folders.of_state`)."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A text is the name of something configured elsewhere; checked when all is known.

    :param to: what it names: ``an upstream``.
    """

    to: str


UPSTREAM = Reference("an upstream")
POLICY = Reference("a policy under resilience")
