"""Watches what clients do after a failure, for the verdicts.

It looks at nothing until something has failed or is meant to: until then requests go the short way.
"""

from __future__ import annotations

from llmproxyd.http.body import Kept
from llmproxyd.model import Finished
from llmproxyd.pipeline.exchange import Exchange


class Watcher:
    """Is told of requests while it watches, and how each ended.

    :ivar watching: whether requests must be looked at; else it is told nothing.
    """

    watching = False

    def arrived(self, exchange: Exchange, body: Kept) -> None:
        """A request for inference is here, with its whole body; nothing is decided yet."""

    def ended(self, exchange: Exchange, event: Finished) -> None:
        """A request of which it was told is over."""
