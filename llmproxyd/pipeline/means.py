"""What attempts are made with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from twisted.python.failure import Failure

from llmproxyd.model import Event, WallClock
from llmproxyd.pipeline.exchange import Exchange
from llmproxyd.pipeline.live import Live
from llmproxyd.pipeline.playback import Rehearsal
from llmproxyd.pipeline.sends import Sends
from llmproxyd.wire.wheel import Wheel


@dataclass(frozen=True, slots=True)
class Means:
    """What attempts are made with.

    :param draw: a number in [0, 1), for jitter.
    :param failed: takes what nothing here accounts for.
    :param rehearsal: what upstreams are made to fail with.
    """

    sender: Sends
    live: Live
    wheel: Wheel
    wall: WallClock
    draw: Callable[[], float]
    emit: Callable[[Event], None]
    failed: Callable[[Failure, Exchange], None]
    rehearsal: Rehearsal
