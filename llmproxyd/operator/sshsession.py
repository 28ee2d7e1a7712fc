"""One session over SSH (RFC 4254 §6): a shell with or without a terminal, or one command."""

from __future__ import annotations

import struct
from typing import Any

from twisted.conch.ssh.channel import SSHChannel
from twisted.conch.ssh.common import getNS
from twisted.conch.ssh.connection import EXTENDED_DATA_STDERR
from twisted.conch.ssh.session import parseRequest_pty_req, parseRequest_window_change
from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, LogEvent, Logger, LogLevel, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

from llmproxyd.control.answers import ONCE, Answer
from llmproxyd.operator.console import FAILED
from llmproxyd.operator.editor import COLUMNS
from llmproxyd.operator.line import LINE_LIMIT
from llmproxyd.operator.remote import RemoteConsole

MOST_WAITING = 1024 * 1024
"""Bytes for a client that does not take them; more end the session."""


@implementer(ILogObserver)
def _warnings(event: LogEvent) -> None:
    if event["log_level"] >= LogLevel.warn:
        globalLogPublisher(event)


QUIET = Logger(namespace="llmproxyd.ssh", observer=_warnings)
"""Twisted tells of each packet, and of what is in it."""


class Session(SSHChannel):
    """The session of an operator."""

    name = b"session"
    log = Logger(namespace="llmproxyd.ssh")
    _log = QUIET
    conn: Any
    avatar: Any

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._terminal = False
        self._columns = COLUMNS
        self._console: RemoteConsole | None = None
        self._begun = False
        self._over = False

    # What a client asks for.

    def requestReceived(self, requestType: bytes, data: bytes) -> Any:
        """A request; what it holds may be anything."""
        try:
            return super().requestReceived(requestType, data)
        except (ValueError, struct.error, IndexError, TypeError, UnicodeError):
            return 0

    def request_pty_req(self, data: bytes) -> int:
        """There is a terminal."""
        _, (_, self._columns, _, _), _ = parseRequest_pty_req(data)
        self._terminal = True
        return 1

    def request_window_change(self, data: bytes) -> int:
        """The terminal has another size."""
        _, columns, _, _ = parseRequest_window_change(data)
        self._columns = columns
        if self._console is not None:
            self._console.resized(columns)
        return 1

    def request_shell(self, data: bytes) -> int:
        """The console."""
        if self._begun:
            return 0
        self._begun = True
        self._console = RemoteConsole(
            self.avatar.desk,
            self.avatar.caller(),
            self,
            terminal=self._terminal,
            columns=self._columns,
            python=True,
            script=not self._terminal,
        )
        self._later(self._console.start)
        return 1

    def request_exec(self, data: bytes) -> int:
        """One command."""
        if self._begun:
            return 0
        self._begun = True
        command = getNS(data)[0].decode("utf-8", "replace").strip()
        self._later(lambda: self._run(command))
        return 1

    def _later(self, call: Any) -> None:
        """*call* once the client has been told that its request is granted."""
        self.avatar.desk.reactor.callLater(0, lambda: None if self._over else call())

    # One command.

    def _run(self, command: str) -> None:
        if len(command) > LINE_LIMIT or not command:
            why = "is empty" if not command else f"has more than {LINE_LIMIT} characters"
            self._done(Answer(f"The command {why}.\n", ok=False))
            return
        answer = self.avatar.desk.control.run(command, self.avatar.caller(), console=ONCE)
        if isinstance(answer, Deferred):
            answer.addCallbacks(self._done, self._failed)
        else:
            self._done(answer)

    def _failed(self, failure: Failure) -> None:
        self.log.failure("a command failed", failure)
        self._done(Answer(FAILED, ok=False))

    def _done(self, answer: Answer) -> None:
        if self._over:
            return
        data = answer.text.encode("utf-8", "replace")
        if answer.ok:
            self.write(data)
        else:
            self.writeExtended(EXTENDED_DATA_STDERR, data)
        self._exit(0 if answer.ok else 1)

    def _exit(self, status: int) -> None:
        """End the session."""
        if not self._over and not self.closing:
            self.conn.sendRequest(self, b"exit-status", struct.pack(">L", status))
            self.loseConnection()

    # The way to the operator, for the console.

    @property
    def blocked(self) -> bool:
        """Whether much is waiting to be taken there."""
        return bool(self.buf) or self.conn.transport.blocked

    def write(self, data: bytes) -> None:
        """Send *data*."""
        if self._over or self.localClosed:
            return
        super().write(data)
        if len(self.buf) > MOST_WAITING:
            self.abort()

    def close(self) -> None:
        """End the session; what a script came to is what its last command did, as in a shell."""
        failed = self._console is not None and not self._terminal and not self._console.last_ok
        self._exit(1 if failed else 0)

    def abort(self) -> None:
        """End the session with all that waits."""
        self.buf, self.extBuf = b"", []
        self._exit(1)

    # What becomes of it.

    def dataReceived(self, data: bytes) -> None:
        """What the operator types."""
        if self._console is not None:
            self._console.dataReceived(data)

    def extReceived(self, dataType: int, data: bytes) -> None:
        """Nothing is expected there."""

    def eofReceived(self) -> None:
        """The operator types no more."""
        if self._console is not None:
            self._console.input_over()

    def closed(self) -> None:
        """The session is over."""
        self._over = True
        if self._console is not None:
            self._console.stop()
