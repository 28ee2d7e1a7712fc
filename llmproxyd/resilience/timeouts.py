"""How long to wait for what."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

from llmproxyd.units import Duration


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds granted to each stage of one request.

    :param connect: for name lookup, connection and TLS handshake.
    :param headers: from the moment an attempt is sent to the end of its answer's head.
    :param first_content: from the same moment to the first real piece of content of a stream,
        ``None`` for no limit of its own.
    :param idle: between two pieces of the answer's body.  A stream may run for hours as long
        as it moves.
    :param total: for the whole request, all attempts and the waits between them included,
        ``None`` for no limit.
    """

    connect: Duration = 10.0
    headers: Duration = 600.0
    first_content: Duration | None = None
    idle: Duration = 300.0
    total: Duration | None = None

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with the keys."""
        return _problems(self)


@dataclass(frozen=True, slots=True)
class TimeoutOverrides:
    """A policy's own timeouts; ``None`` leaves what holds for all upstreams.

    :param connect: in place of ``timeouts.connect``.
    :param headers: in place of ``timeouts.headers``.
    :param first_content: in place of ``timeouts.first_content``.
    :param idle: in place of ``timeouts.idle``.
    :param total: in place of ``timeouts.total``.
    """

    connect: Duration | None = None
    headers: Duration | None = None
    first_content: Duration | None = None
    idle: Duration | None = None
    total: Duration | None = None

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with the keys."""
        return _problems(self)

    def over(self, general: Timeouts) -> Timeouts:
        """*general* with what is set here."""
        own = {one.name: getattr(self, one.name) for one in fields(self)}
        kept = {one.name: getattr(general, one.name) for one in fields(general)}
        return Timeouts(**(kept | {name: value for name, value in own.items() if value is not None}))


def _problems(timeouts: Timeouts | TimeoutOverrides) -> Iterator[tuple[str, str]]:
    for one in fields(timeouts):
        seconds = getattr(timeouts, one.name)
        if seconds is not None and seconds <= 0:
            yield one.name, f"found {seconds:g}, which would end every request; accepted: a longer duration"
