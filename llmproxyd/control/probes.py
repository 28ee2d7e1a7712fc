"""The verb ``test``: one cheap call to an upstream, and what came of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Protocol

from twisted.internet.defer import Deferred

from llmproxyd.config.problems import did_you_mean, quoted
from llmproxyd.control.calls import RETRY, verb
from llmproxyd.errors import Refused

MOST = 4
"""Calls under way at once; each holds a connection, and may cost the upstream something."""


class Probe(Protocol):
    """Makes the call: to an endpoint of metadata (the list of models), bounded in time.

    The Deferred never fails.  Its members:

    ``ok``        whether a client's request would probably do as well
    ``verdict``   one sentence: ``answers``, ``refuses the key (401)``, ``cannot be reached: …``
    ``sent``      ``method``, ``url``, ``headers`` (list of ``[name, value]``), secrets redacted
    ``received``  ``status``, ``headers``, ``body`` (a text, 4 KiB at most); ``None`` without an answer
    ``duration``  seconds
    """

    def __call__(self, upstream: str) -> Deferred[Mapping[str, object]]: ...


class Probes:
    """Tests upstreams.

    :param upstreams: their names.
    """

    def __init__(self, probe: Probe, upstreams: Collection[str]) -> None:
        self._probe = probe
        self._upstreams = upstreams
        self._running = 0

    @verb
    async def test(self, upstream: str) -> dict[str, Any]:
        """Send one call to *upstream*: what was sent, what came, the verdict."""
        if upstream not in self._upstreams:
            hint = did_you_mean(upstream, list(self._upstreams))
            known = ", ".join(sorted(self._upstreams))
            raise Refused(
                404, "upstream_not_found", f"There is no upstream {quoted(upstream)}{hint} (known: {known})"
            )
        if self._running >= MOST:
            raise Refused(503, "busy", f"{MOST} tests are under way; wait for them.", RETRY)
        self._running += 1
        try:
            return {"upstream": upstream, **await self._probe(upstream)}
        finally:
            self._running -= 1
