"""How long to wait for what."""

from __future__ import annotations

from dataclasses import dataclass

from llmproxyd.units import Duration


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds granted to each stage of one request.

    :param connect: for name lookup, connection and TLS handshake.
    :param headers: from the request's arrival to the end of the answer's head.
    :param idle: between two pieces of the answer's body.  A stream may run for hours as long
        as it moves.
    """

    connect: Duration = 10.0
    headers: Duration = 600.0
    idle: Duration = 300.0
