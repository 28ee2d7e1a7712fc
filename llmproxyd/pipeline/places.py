"""The upstreams as an operator sees them: how each does, and whether it is sent requests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llmproxyd.pipeline.policy import Upstream
from llmproxyd.pipeline.run import Pipeline

Row = Mapping[str, Any]


class Places:
    """Lists, drains and enables upstreams.

    :param upstreams: those in force, by name.
    :param drained: the names of those that are sent nothing; it is changed here.
    :param status: how an upstream did when it was last asked.
    """

    def __init__(
        self,
        upstreams: Mapping[str, Upstream],
        pipeline: Pipeline,
        drained: set[str],
        status: Callable[[str], str],
    ) -> None:
        self._upstreams = upstreams
        self._pipeline = pipeline
        self._drained = drained
        self._status = status

    def list(self) -> Sequence[Row]:
        """All, by name."""
        active: Counter[str] = Counter()
        for exchange in self._pipeline.active:
            route = exchange.route
            active[exchange.upstream or ("-" if route is None else route.upstream.name)] += 1
        rows = []
        for name, one in sorted(self._upstreams.items()):
            state = "enabled"
            if name in self._drained:
                state = "draining" if active[name] else "drained"
            rows.append(
                {
                    "name": name,
                    "provider": one.provider.name,
                    "base_url": one.base_url,
                    "state": state,
                    "active": active[name],
                    "last": self._status(name),
                }
            )
        return rows

    def drain(self, name: str) -> None:
        """Send no further request there; those under way end by themselves."""
        self._drained.add(name)

    def enable(self, name: str) -> None:
        """Send requests there again."""
        self._drained.discard(name)
