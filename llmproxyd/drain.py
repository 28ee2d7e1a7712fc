"""The end of the daemon: no new work, the old comes to its end, as far as there is time."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from llmproxyd.pipeline.run import Pipeline
from llmproxyd.units import format_duration
from llmproxyd.wire.site import WireSite


class Drain:
    """Waits, first for load balancers to look elsewhere, then for requests under way.

    Also for those that may be on their way, on connections that were made or used a moment ago, and for
    answers that slow clients have not taken yet.

    :param site: of the clients.
    :param delay: seconds between saying that it stops and listening no more.
    :param timeout: seconds granted to requests under way.
    """

    log = Logger(namespace="llmproxyd")

    def __init__(
        self, reactor: Any, pipeline: Pipeline, site: WireSite, *, delay: float, timeout: float
    ) -> None:
        self._reactor = reactor
        self._pipeline = pipeline
        self._site = site
        self._delay = delay
        self._timeout = timeout
        self._waiting: Deferred[None] | None = None
        self._late: IDelayedCall | None = None
        self._hurried = False

    def run(self, close: Callable[[], Deferred[Any]]) -> Deferred[None]:
        """Drain; fires when nothing is under way any more.

        :param close: lets nobody connect any more.
        """
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self._reactor.callFromThread(self.hurry))
        return self._balancers().addCallback(lambda _: close()).addCallback(lambda _: self._requests())

    def hurry(self) -> None:
        """End what is left now."""
        self._hurried = True
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)
        else:
            self._cut()

    def _balancers(self) -> Deferred[None]:
        if not self._delay:
            return succeed(None)
        self.log.info(
            "Not ready any more; listening on for {delay} (server.drain_delay)",
            delay=format_duration(self._delay),
        )
        waiting = self._waiting = Deferred()
        call = self._reactor.callLater(self._delay, self._waited)

        def over(result: None) -> None:
            if call.active():
                call.cancel()

        return waiting.addCallback(over)

    def _waited(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)

    def _requests(self) -> Deferred[None]:
        pipeline = self._pipeline
        count = len(pipeline.active)
        quiet = self._site.quiet()
        if self._hurried:
            self._cut()
        else:
            self._late = self._reactor.callLater(self._timeout, self._cut)
        if count and not self._hurried:
            self.log.info(
                "Finishing {count} running request{s}, for {timeout} at most; "
                "Ctrl-C or SIGTERM again cuts them",
                count=count,
                s="" if count == 1 else "s",
                timeout=format_duration(self._timeout),
            )
        return quiet.addCallback(lambda _: pipeline.when_idle()).addCallback(self._over)

    def _cut(self) -> None:
        self._pipeline.cut_all()
        self._site.hurry()

    def _over(self, result: None) -> None:
        late, self._late = self._late, None
        if late is not None and late.active():
            late.cancel()
