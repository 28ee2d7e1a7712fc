"""The pace of a stream that is ``slow``: how long to wait in front of each event with content."""

from __future__ import annotations

from collections.abc import Callable

from llmproxyd.faults.rules import Manner
from llmproxyd.faults.spots import Seen
from llmproxyd.providers.base import StreamForm
from llmproxyd.providers.events import length

CHARACTERS = 4
"""For a token."""


class Pace:
    """Waits of one stream.

    :param draw: a number from 0 to below 1, asked once for each wait if there is any jitter.
    """

    def __init__(self, manner: Manner, form: StreamForm, draw: Callable[[], float]) -> None:
        self._manner = manner
        self._form = form
        self._draw = draw
        self._begun = False

    def wait(self, seen: Seen) -> float:
        """Seconds to wait in front of a piece that begins with content."""
        manner = self._manner
        seconds = (manner.per_event if self._begun else manner.first_token) or 0.0
        self._begun = True
        if manner.tokens_per_second and seen.event is not None and seen.value is not None:
            said = self._form.said(seen.event.name, seen.value)
            seconds += length(said) / CHARACTERS / manner.tokens_per_second
        if seconds and manner.jitter:
            seconds *= 1 + manner.jitter * (2 * self._draw() - 1)
        return seconds
