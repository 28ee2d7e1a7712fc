"""The daemon: builds everything and wires it.  The one module that knows all.

``Assembly`` makes the moving parts from a configuration; starting opens the ports (so that a port in use
ends the start in one line), stopping closes them and lets running requests end.
"""

from __future__ import annotations

import gc
import signal
import sys
from collections.abc import Callable, Mapping
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from llmproxyd import administration, consoles, pages, ready
from llmproxyd.assembly import Assembly
from llmproxyd.config.schema import Config
from llmproxyd.control.means import SetLevel
from llmproxyd.drain import Drain
from llmproxyd.gateway import NO_PARTS, Parts
from llmproxyd.greeting import Greeting
from llmproxyd.listen import Listening, StartError, listen
from llmproxyd.observe import journald
from llmproxyd.observe.output import Output
from llmproxyd.observe.requestlog import RequestLog
from llmproxyd.pages import Pages
from llmproxyd.providers.base import Provider
from llmproxyd.redaction import Redactor
from llmproxyd.rehearsing import Rehearsing, stand_in
from llmproxyd.reload import NOT_READ, Reloaded, Reloader
from llmproxyd.safety import checked
from llmproxyd.site.proxy import ProxyResource
from llmproxyd.site.root import PublicSite, Root
from llmproxyd.systemd import Systemd

NO_ENVIRONMENT: Mapping[str, str] = MappingProxyType({})

YOUNG = 10_000
"""New objects after which the garbage collector looks for circles among them.

Requests leave none behind, so it finds nothing; but dozens that are under way at once have more
objects than Python's own 700, and the collector would walk them over and over.
"""


class Daemon(Service):
    """Everything of one process.

    :param output: where the banner and the operator's answers go.
    :param require_faults: end with exit status 1 when a fault that was asked for never came.
    :param ready_file: receives the base URL once clients are let in.
    :param environ: where systemd says what it wants to be told.
    :param set_level: sets the level of a namespace of the log.
    :param load: reads the configuration again, for a reload.
    :param redactor: learns the secrets of the configuration; the log's, which must know them too.
    :param parts: what is handed in instead of being built.
    """

    log = Logger(namespace="llmproxyd")

    def __init__(
        self,
        config: Config,
        reactor: Any,
        *,
        providers: Mapping[str, Provider],
        output: Output,
        requests: RequestLog,
        require_faults: bool = False,
        ready_file: Path | None = None,
        as_json: bool = False,
        parts: Parts = NO_PARTS,
        redactor: Redactor | None = None,
        load: Callable[[], Config] | None = None,
        set_level: SetLevel | None = None,
        environ: Mapping[str, str] = NO_ENVIRONMENT,
    ) -> None:
        self.reactor = reactor
        self.output = output
        self.exit_status = 0
        self._requests = requests
        self._require_faults = require_faults
        self._ready_file = ready_file
        self._environ = environ
        self._systemd = Systemd(environ, reactor)
        self._load = load
        self._set_level = set_level
        self._sandbox: Listening | None = None
        self._listening: Listening | None = None
        self._aside: list[Listening] = []
        self._at_stdin = consoles.NOBODY
        self._reloader: Reloader | None = None
        self._drain: Drain | None = None
        self.works = Assembly(config, reactor, providers=providers, parts=parts, redactor=redactor)
        self.sink = self.works.sink
        self.live = self.works.live
        self.greeting = Greeting(output, as_json=as_json)

    @property
    def config(self) -> Config:
        """What is in force."""
        return self.works.config

    # Start.

    def privilegedStartService(self) -> None:
        """Build everything, and open the ports.

        :raises StartError: in one line, why the daemon cannot start.
        """
        super().privilegedStartService()
        if self._ready_file is not None:
            ready.prepare(self._ready_file)
        works = self.works
        self._sandbox = stand_in(works)
        self.pipeline = works.build(None if self._sandbox is None else self._sandbox.urls[0])
        self.pages = Pages(
            works, mode=lambda: self.control.mode_in_words(), running=lambda: bool(self.running)
        )
        self.control = administration.control_of(
            works,
            administration.means_of(
                works,
                self.pages.state,
                reloads=self,
                connections=lambda: [channel.told() for channel in self._site.channels],
                set_level=self._set_level,
                why_not_ready=self.pages.why_not_ready,
            ),
            quit=self.quit,
            symbols=self.output.symbols,
        )
        self.rehearsing = Rehearsing(works, self.control)
        self._notes = self.rehearsing.begin()
        self.sink.subscribe(self._requests, arrivals=self._requests.announces)
        self.rehearsing.keep_report()
        root = Root(ProxyResource(self.pipeline), self.pages.resources())
        self._site = PublicSite(root, self.pipeline, **works.wire())
        works.connections = lambda: len(self._site.channels)
        self._listening = listen(self.reactor, self.config.listen, self._site)
        try:
            exposed = checked(self._listening, works.upstreams, self.config)
            self._listen_aside()
        except StartError:
            self._close_ports()
            raise
        unused = self._systemd.unused(self.config.listen)
        self._warnings = [*self.config.warnings, *exposed, *([] if unused is None else [unused])]
        works.guard(browsers=not self._listening.beyond_loopback)
        if self._load is not None:
            self._reloader = Reloader(self._load, works, self._site, self._listening)

    def _listen_aside(self) -> None:
        """Open the listeners that are not for clients.

        :raises StartError: one of them cannot be opened; those before it are.
        """
        for listening in chain(
            administration.listeners(self.works, self.control),
            consoles.listeners(self.works, self.control, self._namespace),
            pages.listeners(self.works),
        ):
            self._aside.append(listening)

    def _namespace(self) -> Mapping[str, object]:
        """What an interpreter begins with."""
        return {
            "service": self,
            "control": self.control,
            "config": self.config,
            "breakers": self.live.breakers,
        }

    def startService(self) -> None:
        """Say so, and listen to the operator."""
        super().startService()
        self._greet()
        self.rehearsing.start_reminders()
        self._systemd.start_watchdog()
        if self._reloader is not None:
            # A terminal that hangs up says the same as a reload: whoever had it is gone.
            hung_up = self.quit if self._at_stdin.terminal else self.reload
            signal.signal(signal.SIGHUP, lambda *_: self.reactor.callFromThread(hung_up))
        # What is there now stays: the collector need not look at it again and again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(YOUNG, *gc.get_threshold()[1:])
        # Last: whoever waits for us may send a signal as soon as we say that we are there.
        starting = self.works.start().addCallback(self._opened)
        early: list[Failure] = []
        starting.addErrback(
            lambda failure: self._not_opened(failure) if self.reactor.running else early.append(failure)
        )
        if early:
            early[0].raiseException()

    def _greet(self) -> None:
        """Begin to take commands, and say what is there."""
        self._at_stdin = consoles.start_at_stdin(
            self.reactor,
            self.config.operator,
            self.control,
            self.output,
            say=self.greeting.say,
            quit=self.quit,
        )
        self.greeting.greet(
            self.works,
            self.control,
            self.listening.urls,
            notes=self._notes,
            warnings=self._warnings,
            at_console=self._at_stdin.console is not None,
        )

    def _opened(self, result: None) -> None:
        """Clients can be let in."""
        if not self.running:
            return
        # Whoever is told may send a signal; until the reactor runs, SIGTERM would end the process as it is.
        self.reactor.callWhenRunning(self._announce)

    def _announce(self) -> None:
        """Tell whoever waits for us."""
        if not self.running:
            return
        try:
            if self._ready_file is not None:
                ready.announce(self._ready_file, self.listening.urls[0])
        except StartError:
            self._not_opened(Failure())
        else:
            self._systemd.ready(self._in_a_line())

    def _not_opened(self, failure: Failure) -> None:
        """It cannot work as it is configured: say so and end."""
        if failure.check(StartError):
            journald.complain(str(failure.value), sys.__stderr__, self._environ)
        else:
            self.log.failure("the daemon cannot start", failure)
        self.exit_status = 1
        self.quit()

    # While it runs.

    @property
    def listening(self) -> Listening:
        """The open ports, once they are."""
        if self._reloader is not None:
            return self._reloader.listening
        assert self._listening is not None, "it is not listening yet"
        return self._listening

    def check(self) -> Reloaded:
        """What a reload would change; nothing changes."""
        return NOT_READ if self._reloader is None else self._reloader.check()

    def reload(self) -> Reloaded:
        """Read the configuration again, and go by it as far as no restart is needed."""
        if self._reloader is None:
            return NOT_READ
        told = "Not reloaded; the log says why"
        self._systemd.reloading()
        try:
            report = self._reloader.reload()
            told = self._in_a_line() if report.ok else told
            return report
        finally:
            self._systemd.ready(told)

    def _in_a_line(self) -> str:
        return f"Listening on {', '.join(self.listening.urls)}; {self.control.mode_in_words()}"

    def quit(self) -> None:
        """Stop the whole daemon, as SIGTERM does."""
        if self.running and self.reactor.running:
            self.reactor.callLater(0, self.reactor.stop)

    # Stop.

    def stopService(self) -> Deferred[None] | None:
        """Let running requests end (``server.drain_timeout``), then close the rest."""
        super().stopService()
        if self._listening is None:
            return None
        self.rehearsing.stop_reminders()
        self.log.info("Stopping")
        if self._ready_file is not None:
            ready.forget(self._ready_file)
        if self._at_stdin.console is not None:
            self._at_stdin.console.stop()
        server = self.config.server
        self._systemd.stopping(server.drain_delay + server.drain_timeout)
        drain = self._drain = Drain(
            self.reactor, self.pipeline, self._site, delay=server.drain_delay, timeout=server.drain_timeout
        )
        return drain.run(self._close_ports).addBoth(self._finish)

    def hurry(self) -> None:
        """Once it stops: end what is left now, as a second signal does."""
        if self._drain is not None:
            self._drain.hurry()

    def _finish(self, result: object) -> Deferred[None]:
        self._systemd.stop()
        self._requests.flush()
        if not self.rehearsing.finish() and self._require_faults:
            self.exit_status = 1
        if self._sandbox is not None:
            for port in self._sandbox.ports:
                port.stopListening()
        return self.works.stop()

    def _close_ports(self) -> Deferred[Any]:
        listening = [] if self._listening is None else [self.listening]
        ports = [port for one in (*listening, *self._aside) for port in one.ports]
        return DeferredList([maybeDeferred(port.stopListening) for port in ports])
