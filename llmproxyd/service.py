"""The daemon: builds everything and wires it.  The one module that knows all.

``assemble`` makes it from a configuration; starting opens the ports (so that a port in use
ends the start in one line), stopping closes them and lets running requests end.
"""

from __future__ import annotations

import gc
import secrets
import signal
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure
from twisted.web.resource import Resource

from llmproxyd import administration, consoles, ready
from llmproxyd.assembly import Assembly
from llmproxyd.config.dump import dumped
from llmproxyd.config.problems import ConfigError
from llmproxyd.config.rehearsed import of_config
from llmproxyd.config.scenariofile import folder_of
from llmproxyd.config.schema import Config, Server
from llmproxyd.control.means import SetLevel
from llmproxyd.control.scenarioverbs import start
from llmproxyd.control.verbs import Control
from llmproxyd.drain import Drain
from llmproxyd.faults import words
from llmproxyd.faults.rules import Share
from llmproxyd.gateway import NO_PARTS, Parts
from llmproxyd.inspection.prices import Prices
from llmproxyd.listen import Listening, StartError, listen
from llmproxyd.observe import journald
from llmproxyd.observe.banner import Facts, Place, banner
from llmproxyd.observe.eventjson import EventFormat
from llmproxyd.observe.output import Output
from llmproxyd.observe.report import Asked, Report
from llmproxyd.observe.requestlog import RequestLog
from llmproxyd.pipeline.policy import Upstream
from llmproxyd.providers.base import Provider
from llmproxyd.redaction import Redactor
from llmproxyd.reload import NOT_READ, Reloaded, Reloader
from llmproxyd.safety import exposure, refuse_loops
from llmproxyd.sandbox.site import make_site
from llmproxyd.site.detailed import Detailed
from llmproxyd.site.health import Health
from llmproxyd.site.logs import ErrorLogs
from llmproxyd.site.metrics import MetricsPage, metrics_site
from llmproxyd.site.proxy import ProxyResource
from llmproxyd.site.ready import Ready
from llmproxyd.site.root import PublicSite, Root
from llmproxyd.systemd import Systemd
from llmproxyd.wire.head import Limits

REMIND = 60.0
"""Seconds between reminders of an active fault in the log."""

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
        self.providers = providers
        self.output = output
        self.exit_status = 0
        self._requests = requests
        self._require_faults = require_faults
        self._ready_file = ready_file
        self._as_json = as_json
        self._console: Any = None
        self._at_terminal = False
        self._sandbox: Listening | None = None
        self._listening: Listening | None = None
        self._aside: list[Listening] = []
        self._environ = environ
        self._systemd = Systemd(environ, reactor)
        self._load = load
        self._set_level = set_level
        self._reloader: Reloader | None = None
        self._drain: Drain | None = None
        self._report: Report | None = None
        self._started = reactor.seconds()
        self._reminder = LoopingCall(self._remind)
        self._reminder.clock = reactor
        self.works = Assembly(config, reactor, providers=providers, parts=parts, redactor=redactor)
        self.sink = self.works.sink
        self.live = self.works.live

    @property
    def config(self) -> Config:
        """What is in force."""
        return self.works.config

    # Start.

    def privilegedStartService(self) -> None:
        """Open the ports.

        :raises StartError: in one line, why the daemon cannot start.
        """
        super().privilegedStartService()
        if self._ready_file is not None:
            ready.prepare(self._ready_file)
        config, reactor = self.config, self.reactor
        sandbox = None
        if config.sandbox.enabled:
            site = make_site(reactor, config.sandbox)
            self._sandbox = listen(reactor, ["tcp:0:interface=127.0.0.1"], site)
            sandbox = self._sandbox.urls[0]
        self.pipeline = self.works.build(sandbox)
        upstreams = self.works.upstreams
        self.control = Control(
            self.works.engine,
            emit=self.sink.emit,
            monotonic=reactor.seconds,
            upstreams=upstreams,
            breakers=self.live.breakers,
            handled=lambda: self.pipeline.handled,
            quit=self.quit,
            draw_seed=lambda: secrets.randbelow(10**6),
            seed=config.faults.seed,
            allowed=config.operator.faults,
            symbols=self.output.symbols,
            folder=folder_of(config),
            forget_after=config.faults.forget_after,
            record=self.works.gateway.audit.record,
            means=administration.means_of(
                self.works,
                self.state,
                reloads=self,
                connections=lambda: [channel.told() for channel in self._site.channels],
                set_level=self._set_level,
                why_not_ready=self._why_not_ready,
            ),
        )
        self._start_notes = [*self._start_mode(), *self.works.deck.notes()]
        self.sink.subscribe(self._requests, arrivals=self._requests.announces)
        self._report = self._report_of(config)
        root = Root(ProxyResource(self.pipeline), self._local_pages())
        self._site = PublicSite(
            root,
            self.pipeline,
            clock=reactor,
            wall=time.time,
            wheel=self.works.wheel,
            limits=limits_of(config.server),
        )
        self.works.connections = lambda: len(self._site.channels)
        self._listening = listen(reactor, config.listen, self._site)
        try:
            refuse_loops(self._listening, upstreams)
            exposed = exposure(
                self._listening,
                upstreams,
                meant=config.server.open,
                imported=config.imported,
                guarded=config.access.enabled,
            )
        except StartError:
            self._close_ports()
            raise
        unused = self._systemd.unused(config.listen)
        self._warnings = [*config.warnings, *exposed, *([] if unused is None else [unused])]
        try:
            self._listen_aside()
        except StartError:
            self._close_ports()
            raise
        self.works.guard(browsers=not self._listening.beyond_loopback)
        if self._load is not None:
            self._reloader = Reloader(self._load, self.works, self._site, self._listening)

    def _listen_aside(self) -> None:
        """Open the listeners that are not for clients.

        :raises StartError: one of them cannot be opened.
        """
        works, config = self.works, self.config
        if administration.wanted(works):
            self._aside.append(administration.listen_for_admins(works, self.control))
        operator = config.operator
        audit = works.gateway.audit.record
        namespace = self._namespace if operator.python else None
        if operator.telnet.listen is not None:
            self._aside.append(
                consoles.listen_telnet(
                    self.reactor, operator.telnet, self.control, audit=audit, namespace=namespace
                )
            )
        if operator.ssh.listen is not None:
            self._aside.append(
                consoles.listen_ssh(
                    self.reactor,
                    operator.ssh,
                    self.control,
                    audit=audit,
                    namespace=namespace,
                    state_folder=config.state_folder,
                )
            )
        if config.metrics.enabled and config.metrics.listen is not None:
            site = metrics_site(
                works.metrics.render,
                clock=self.reactor,
                wall=time.time,
                wheel=works.wheel,
                limits=limits_of(config.server),
            )
            self._aside.append(listen(self.reactor, [config.metrics.listen], site))

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
        self._reminder.start(REMIND, now=False)
        self._systemd.start_watchdog()
        if self._reloader is not None:
            # A terminal that hangs up says the same as a reload: whoever had it is gone.
            hung_up = self.quit if self._at_terminal else self.reload
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

    def _local_pages(self) -> dict[bytes, Resource]:
        token = self.config.admin.token
        in_thread = partial(deferToThreadPool, self.reactor, self.reactor.getThreadPool())
        pages: dict[bytes, Resource] = {
            b"/health": Health(self.state),
            b"/health/ready": Ready(self._why_not_ready),
            b"/health/detailed": Detailed(self.details, token),
            b"/logs/errors": ErrorLogs(self.works.recording.summary, in_thread, token),
        }
        if self.config.metrics.enabled:
            pages[b"/metrics"] = MetricsPage(self.works.metrics.render, token)
        return pages

    def _why_not_ready(self) -> str | None:
        if not self.running:
            return "it stops"
        return None if self.works.gateway.ready else "the store of projects and tokens does not answer"

    def _report_of(self, config: Config) -> Report | None:
        """What is written at the end, if anything is; it sees all events from now on."""
        path, works = config.faults.report, self.works
        if path is None:
            return None
        asked = Asked(
            scenarios=works.scenarios.told,
            tally=works.engine.tally,
            verdicts=lambda: works.watch.verdicts(over=True),
        )
        report = Report(path, asked, time.time, EventFormat(works.redactor, Prices({})))
        self.sink.subscribe(report, arrivals=False)
        return report

    def _start_mode(self) -> list[str]:
        """Set the configured mode; what to tell about it."""
        notes = []
        answer = self.control.start_mode(self.config.faults.mode)
        if not answer.ok:
            raise StartError(f"faults.mode: {answer.text.splitlines()[0]}")
        notes += self._start_scenario()
        shares = [one for one in self.works.engine.rules if isinstance(one.rule.when, Share)]
        mode = self.works.engine.mode
        if mode is not None:
            shares += [mode] if isinstance(mode.rule.when, Share) else []
            if note := words.retry_note(mode.rule):
                notes.append(note)
        if shares:
            self.control.ensure_seed()
            notes.append(
                f"Shares are drawn with seed {self.control.seed}; "
                f"faults.seed: {self.control.seed} repeats this run."
            )
        return notes

    def _start_scenario(self) -> list[str]:
        """Begin with the configured scenario; what to tell about it."""
        try:
            scenario = of_config(self.config)
        except ConfigError as error:
            raise StartError(str(error)) from None
        return [] if scenario is None else start(self.control, self.works.scenarios, scenario)

    def _start_console(self) -> None:
        from llmproxyd.operator import stdin

        kind = stdin.kind_of_stdin()
        self._at_terminal = kind == "terminal"
        if kind == "terminal" and self.output.terminal:
            from llmproxyd.operator import terminal

            self._console = terminal.TerminalConsole(self.reactor, self.control, self.output, self.quit)
        elif kind == "terminal":
            self._console = stdin.LineConsole(self.reactor, self.control, self._say, self.quit)
        elif kind == "pipe" or (kind == "other" and self.config.operator.stdin is True):
            self._console = stdin.LineConsole(self.reactor, self.control, self._say)
        if self._console is not None:
            self.reactor.callWhenRunning(self._console.start)

    def _greet(self) -> None:
        if self.config.operator.stdin is not False:
            self._start_console()
        if self._as_json:
            self.log.info(
                "Listening on {urls}; mode: {mode}",
                urls=", ".join(self.listening.urls),
                mode=self.control.mode_in_words(),
            )
            for note in self._start_notes:
                self.log.info("{note}", note=note)
            self._warn()
            return
        self.output.write(f"{self._banner()}\n{self.control.status().text}")
        if self.output.journald:
            self._warn()
        if self._console is not None:
            self.output.write("\n" + self.control.help().text)

    def _warn(self) -> None:
        for warning in self._warnings:
            self.log.warn("{warning}", warning=warning)

    def _say(self, text: str) -> None:
        """Tell the operator something; where the output is JSON, as a line of it."""
        if self._as_json:
            self.log.info("{text}", text=text.rstrip())
        else:
            self.output.write(text)

    def _banner(self) -> str:
        config = self.config
        return banner(
            Facts(
                version=version("llmproxyd"),
                addresses=self.listening.urls,
                state_folder=str(config.state_folder),
                source=None if config.source is None else str(config.source),
                upstreams=[
                    Place(name, one.provider.name, one.base_url, one.keyed, absorbs(one))
                    for name, one in sorted(self.works.upstreams.items())
                ],
                default=config.server.single_upstream or config.default_upstream,
                single=config.server.single_upstream,
                prefix=config.server.path_prefix.rstrip("/"),
                preset=config.preset,
                providers=self.providers.values(),
                timeouts=config.timeouts,
                sandbox=config.sandbox.enabled,
                notes=self._start_notes,
                warnings=() if self.output.journald else self._warnings,
                symbols=self.output.symbols,
            )
        )

    # While it runs.

    @property
    def listening(self) -> Listening:
        """The open ports, once they are."""
        if self._reloader is not None:
            return self._reloader.listening
        assert self._listening is not None, "it is not listening yet"
        return self._listening

    def state(self) -> dict[str, object]:
        """What ``/health`` tells beside its status."""
        single = self.config.server.single_upstream
        target = {} if single is None else {"target": self.works.upstreams[single].base_url}
        return {
            **target,
            "version": version("llmproxyd"),
            "uptime": round(self.reactor.seconds() - self._started, 1),
            "mode": self.control.mode_in_words(),
            "requests": self.pipeline.handled,
            "upstreams": {
                name: {"provider": one.provider.name, "target_status": self.works.targets.status(name)}
                for name, one in sorted(self.works.upstreams.items())
            },
        }

    def details(self) -> dict[str, object]:
        """What ``/health/detailed`` tells beside that."""
        return {
            **self.state(),
            **self.live.report(),
            **self.works.gateway.state(),
            "active": len(self.pipeline.active),
            "records": self.works.recording.state(),
            **self.works.deck.state(),
            "configuration": dumped(self.config),
        }

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

    def _remind(self) -> None:
        if self.control.active():
            self.log.info("Still active: {mode}", mode=self.control.mode_in_words())

    # Stop.

    def stopService(self) -> Deferred[None] | None:
        """Let running requests end (``server.drain_timeout``), then close the rest."""
        super().stopService()
        if self._reminder.running:
            self._reminder.stop()
        if self._listening is None:
            return None
        self.log.info("Stopping")
        if self._ready_file is not None:
            ready.forget(self._ready_file)
        if self._console is not None:
            self._console.stop()
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
        tally = self.works.engine.tally()
        unreached = bool(tally.never or tally.idle)
        if text := words.tally_in_words(tally):
            self.log.emit(LogLevel.warn if unreached else LogLevel.info, "Faults: {text}", text=text)
        if self._require_faults and unreached:
            self.exit_status = 1
        if self._report is not None:
            self._report.write()
        if self._sandbox is not None:
            for port in self._sandbox.ports:
                port.stopListening()
        return self.works.stop()

    def _close_ports(self) -> Deferred[Any]:
        listening = [] if self._listening is None else [self.listening]
        ports = [port for one in (*listening, *self._aside) for port in one.ports]
        return DeferredList([maybeDeferred(port.stopListening) for port in ports])


def absorbs(upstream: Upstream) -> tuple[str, ...]:
    """What is done about the failures of *upstream*, for people."""
    policy = upstream.resilience
    told = []
    if count := policy.retry.max_retries:
        told.append("1 retry" if count == 1 else f"{count} retries")
    if policy.breaker.enabled:
        told.append("breaker")
    if len(upstream.keys) > 1:
        told.append(f"{len(upstream.keys)} keys")
    if upstream.fallbacks:
        told.append("else " + ", ".join(one.upstream for one in upstream.fallbacks))
    return tuple(told)


def limits_of(server: Server) -> Limits:
    """What a client may ask of a connection."""
    return Limits(
        max_headers=server.max_headers,
        max_body=server.max_body,
        header_timeout=server.header_timeout,
        idle_timeout=server.idle_timeout,
    )
