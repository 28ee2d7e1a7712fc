"""The whole daemon within the process of a test, and a sink that remembers."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import Deferred

from llmproxyd.config.load import load
from llmproxyd.gateway import NO_PARTS, Parts
from llmproxyd.model import Event, Finished
from llmproxyd.observe.output import Output
from llmproxyd.observe.requestlog import RequestLog
from llmproxyd.providers.base import Provider
from llmproxyd.providers.registry import registry
from llmproxyd.service import Daemon


@dataclass
class RecordingSink:
    """Collects events, in order."""

    events: list[Event] = field(default_factory=list)

    def __call__(self, event: Event) -> None:
        """Take one."""
        self.events.append(event)

    @property
    def finished(self) -> list[Finished]:
        """How each request ended."""
        return [event for event in self.events if isinstance(event, Finished)]


class ProxyUnderTest:
    """The whole daemon in this process, on a free port of 127.0.0.1, without its operator.

    :param settings: as in the configuration file, as nested mappings.
    :param parts: what is handed in instead of being built: a door before a store in memory.
    :ivar log: what the daemon has written.
    """

    def __init__(
        self,
        reactor: Any,
        settings: Mapping[str, object],
        *,
        environ: Mapping[str, str] | None = None,
        providers: Mapping[str, Provider] | None = None,
        parts: Parts = NO_PARTS,
    ) -> None:
        known = registry() if providers is None else providers
        given = {"listen": ["tcp:0:interface=127.0.0.1"], "operator": {"stdin": False}, **settings}
        config = load(
            environ={"STATE_DIRECTORY": "/nonexistent"} | dict(environ or {}),
            overrides={(key,): (value, "ProxyUnderTest") for key, value in given.items()},
            providers=known,
        )
        self.log = io.StringIO()
        output = Output(self.log)
        requests = RequestLog(output, reactor, time.time, as_json=False)
        self.sink = RecordingSink()
        self.daemon = Daemon(config, reactor, providers=known, output=output, requests=requests, parts=parts)

    def start(self) -> ProxyUnderTest:
        """Open the port."""
        self.daemon.sink.subscribe(self.sink)
        self.daemon.privilegedStartService()
        return self

    def open(self) -> Deferred[None]:
        """Open the store, begin to record: what the daemon does once it runs.  Needed where access is on."""
        return self.daemon.works.start()

    @property
    def port(self) -> int:
        """The number of the open port."""
        return self.daemon.listening.addresses[0][1]

    @property
    def finished(self) -> list[Finished]:
        """How each request ended."""
        return self.sink.finished

    def stop(self) -> Deferred[None] | None:
        """Cut what is under way, and close everything."""
        self.daemon.pipeline.cut_all()
        stopping = self.daemon.stopService()
        self.daemon.hurry()
        return stopping
