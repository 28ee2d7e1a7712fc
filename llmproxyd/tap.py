"""Where the daemon enters twistd: its options, its service, and where it logs.

The one module that imports the reactor.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import time
from pathlib import Path
from typing import IO, Any, TextIO, cast

from twisted.application.service import IService, Service
from twisted.logger import ILogObserver
from twisted.python.logfile import LogFile

from llmproxyd.listen import StartError
from llmproxyd.observe import journald
from llmproxyd.observe.logs import Observer
from llmproxyd.observe.output import Output
from llmproxyd.observe.recording import secrets_in
from llmproxyd.observe.requestlog import RequestLog
from llmproxyd.options import Options as Options
from llmproxyd.options import fail
from llmproxyd.redaction import Redactor


class Top(Service):
    """What twistd runs: the daemon, with logging set up and failures to start told in a line."""

    def __init__(self, options: Options) -> None:
        from twisted.internet import reactor

        from llmproxyd.service import Daemon
        from llmproxyd.wire.reactor import shorten

        config = options.config
        self._require_faults = bool(options["require-faults"])
        self._reactor = cast(Any, reactor)
        # Twisted waits by the wall clock; a clock that is set would end every timeout at once.
        self._reactor.seconds = time.monotonic
        shorten(self._reactor)
        self._file = _log_file(options.parent)
        self.output = output_for(self._file)
        as_json = config.logging.format == "json"
        requests = self._requests = RequestLog(
            self.output, self._reactor, time.time, as_json=as_json, least=config.logging.level
        )
        redactor = Redactor(secrets_in(config))
        self.observer = Observer(
            self.output,
            config.logging.level,
            as_json=as_json,
            before=requests.flush,
            redactor=redactor,
        )
        ready_file = options["ready-file"]
        try:
            self.daemon = Daemon(
                config,
                self._reactor,
                providers=options.providers,
                output=self.output,
                requests=requests,
                require_faults=self._require_faults,
                ready_file=None if ready_file is None else Path(ready_file).absolute(),
                as_json=as_json,
                redactor=redactor,
                load=options.load,
                environ=os.environ,
                set_level=self._set_level,
            )
        except StartError as error:
            fail(str(error))

    def _set_level(self, namespace: str, level: str) -> None:
        self.observer.set_level(namespace, level)
        self._requests.set_level(namespace, level)

    def setServiceParent(self, parent: Any) -> None:
        """Become part of *parent*, whose log is ours from now on."""
        if hasattr(parent, "setComponent") and parent.getComponent(ILogObserver) is None:
            parent.setComponent(ILogObserver, self.observer)
        super().setServiceParent(parent)

    def privilegedStartService(self) -> None:
        """Open the ports, or end with one line and exit status 1."""
        try:
            self.daemon.privilegedStartService()
        except StartError as error:
            fail(str(error))

    def startService(self) -> None:
        """Start the daemon."""
        super().startService()
        try:
            self.daemon.startService()
        except StartError as error:
            fail(str(error))
        self._reactor.addSystemEventTrigger("after", "shutdown", self._ended)

    def stopService(self) -> Any:
        """Stop the daemon gracefully."""
        super().stopService()
        return self.daemon.stopService()

    def _ended(self) -> None:
        """Everything is stopped: say how it went.

        twistd would end by the signal that stopped it, so that a shell sees 143 after ``kill``.
        A graceful stop is a success, or what ``--require-faults`` makes of it; Ctrl-C alone stays
        a signal, as shells expect.
        """
        self.output.close()
        if self._reactor._exitSignal == signal.SIGTERM or self._require_faults:
            self._reactor._exitSignal = None
        if self.daemon.exit_status:
            atexit.register(os._exit, self.daemon.exit_status)


def makeService(options: Options) -> IService:
    """The service that twistd runs."""
    return cast(IService, Top(options))


def output_for(file: IO[str] | LogFile) -> Output:
    """The output to *file*."""
    isatty = getattr(file, "isatty", None)
    journal = journald.reads(file, os.environ)
    return Output(cast(TextIO, file), terminal=bool(isatty and isatty()), journald=journal)


def _log_file(parent: Any) -> IO[str] | LogFile:
    """Where twistd was told to log: standard output, or a file that rotates."""
    name = parent.get("logfile") if parent is not None else None
    if name and name != "-":
        return cast(LogFile, LogFile.fromFullPath(name))
    if parent is not None and not parent.get("nodaemon") and name != "-":
        return cast(LogFile, LogFile.fromFullPath("twistd.log"))
    return sys.stdout


def main() -> None:
    """The console script: ``llmproxyd …`` is ``twistd -n llmproxy …``."""
    from twisted.scripts.twistd import run

    sys.argv[1:1] = ["-n", "llmproxy"]
    run()
