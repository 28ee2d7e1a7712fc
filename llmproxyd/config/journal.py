"""How much of what has passed is kept at hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from llmproxyd.config.markers import AtLeast
from llmproxyd.units import Size


@dataclass(frozen=True, slots=True)
class Journal:
    """The last requests, in memory, for an operator who asks what became of them.

    :param requests: so many at most, of 1.5 KiB each on average; 0 keeps none.
    :param bodies: bytes that are kept of the body of each, and of its answer; 0 keeps none.
    """

    requests: Annotated[int, AtLeast(0)] = 1000
    bodies: Size = 0
