"""The bus and its dispatchers, as configured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llmproxyd.config.gateway import Dispatch, Events
from llmproxyd.inspection.prices import Prices
from llmproxyd.model import WallClock
from llmproxyd.observe.bus import Bus
from llmproxyd.observe.dispatch import redis
from llmproxyd.observe.dispatch.destination import Destination
from llmproxyd.observe.dispatch.dispatcher import BATCH_BYTES, Dispatcher, Pace
from llmproxyd.observe.dispatch.file import FileDestination
from llmproxyd.observe.dispatch.redis import RedisDestination
from llmproxyd.observe.dispatch.webhook import WebhookDestination, agent_for
from llmproxyd.observe.eventjson import EventFormat
from llmproxyd.observe.rotation import LineFile
from llmproxyd.observe.worker import Worker
from llmproxyd.redaction import Redactor
from llmproxyd.redis.interface import Redis

_BATCH_BYTES = {"file": BATCH_BYTES, "webhook": BATCH_BYTES, "redis": redis.BATCH_BYTES}


@dataclass(frozen=True, slots=True)
class Means:
    """What dispatchers need of the world.

    :param draw: a random number from 0 to 1.
    :param redis: where the configuration names a server.
    """

    reactor: Any
    wall: WallClock
    draw: Callable[[], float]
    redis: Redis | None = None


def bus_of(events: Events, means: Means, redactor: Redactor, prefix: str) -> Bus:
    """The bus with all its dispatchers; nothing is opened or connected before the first event.

    :param prefix: of the ids of events; no other process has it.
    :raises ValueError: events are to go to Redis, and no server is named.
    """
    capture = events.capture
    form = EventFormat(redactor, Prices(events.prices), (capture.request, capture.response))
    dispatchers = [
        Dispatcher(
            destination(settings, form, means),
            Pace(batch=settings.batch, every=settings.every, batch_bytes=_BATCH_BYTES[settings.to]),
            means.reactor,
            means.draw,
        )
        for settings in events.dispatch
    ]
    return Bus(form, means.wall, prefix, dispatchers)


def destination(settings: Dispatch, form: EventFormat, means: Means) -> Destination:
    """Where *settings* send events.

    :raises ValueError: what it needs is not configured.
    """
    work = Worker(f"events-{settings.to}", means.reactor.callFromThread)
    if settings.to == "file":
        assert settings.path is not None
        file = LineFile(settings.path, max_bytes=settings.max_bytes, keep=settings.keep)
        return FileDestination(file, form, work)
    if settings.to == "webhook":
        assert settings.url is not None
        agent, close = agent_for(means.reactor)
        reactor, wall = means.reactor, means.wall
        return WebhookDestination(settings.url, settings.headers, form, work, agent, reactor, wall, close)
    if means.redis is None:
        raise ValueError("events go to Redis, and no server is named (cache.redis_url)")
    return RedisDestination(means.redis, settings.stream, settings.max_bytes, form, work)
