"""The console of an operator at the other end of a connection: telnet or SSH."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from llmproxyd.control.answers import Console
from llmproxyd.control.calls import Auditing, Caller
from llmproxyd.control.verbs import Control
from llmproxyd.model import Change
from llmproxyd.observe.output import Output
from llmproxyd.operator.console import Aside, Lines, Session
from llmproxyd.operator.editor import COLUMNS, MOST_COLUMNS, Editor, Terminal
from llmproxyd.operator.manhole import Interpreter

IDLE = 1800.0
"""Seconds without a key after which a console is closed."""

STUCK = 60.0
"""Seconds in which the other side takes nothing of what it is sent."""

LOOK = 1.0
"""Seconds from look to look: at the prompt (an active fault stands in it), and at the time."""

GREETING = "llmproxyd; help shows the commands, Ctrl-D or quit leaves.\n"
PLAIN_GREETING = "llmproxyd; help shows the commands, quit leaves.\n"


@dataclass(frozen=True, slots=True)
class Desk:
    """What all consoles of the daemon share.

    :param audit: takes the records of interpreters that are left.
    :param namespace: what can be named in an interpreter; ``None`` where there is none
        (``operator.python``).
    """

    reactor: Any
    control: Control
    audit: Auditing
    namespace: Callable[[], Mapping[str, object]] | None = None


class Link(Protocol):
    """The way to the operator."""

    @property
    def blocked(self) -> bool:
        """Whether much is waiting to be taken there."""
        ...

    def write(self, data: bytes) -> None:
        """Send *data*."""
        ...

    def close(self) -> None:
        """Send what is waiting, then no more."""
        ...

    def abort(self) -> None:
        """Send nothing more."""
        ...


class _Stream:
    """The link as a stream of text.

    :param newline: what lines end with.
    """

    encoding = "utf-8"

    def __init__(self, link: Link, newline: str) -> None:
        self._link = link
        self._newline = newline

    def write(self, text: str) -> None:
        """Send *text*."""
        self._link.write(text.replace("\r\n", "\n").replace("\n", self._newline).encode())

    def flush(self) -> None:
        """Everything is sent at once."""


class _Raw:
    """The link as Twisted's terminal writes to it."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def write(self, data: bytes) -> None:
        """See the class."""
        self._link.write(data)

    def loseConnection(self) -> None:
        """See the class."""
        self._link.close()


class RemoteConsole:
    """One operator, logged in.

    :param terminal: keys come as they are typed, and what is seen is drawn by us; else lines.
    :param python: whether an interpreter may be opened from a terminal here.
    :param script: lines come from a program: nothing but answers is sent.
    """

    log = Logger()

    def __init__(
        self,
        desk: Desk,
        caller: Caller,
        link: Link,
        *,
        terminal: bool,
        columns: int,
        python: bool,
        script: bool = False,
    ) -> None:
        self._desk = desk
        self._link = link
        stream: Any = _Stream(link, "\n" if script else "\r\n")
        self._output = Output(stream, terminal=terminal)
        self._script = script
        self._columns = COLUMNS
        self.resized(columns)
        self._aside = Aside(desk.reactor, self._tell_aside, lambda: link.blocked or bool(self._interpreter))
        self._interpreter: Interpreter | None = None
        may = python and terminal and desk.namespace is not None
        self._session = Session(
            desk.control,
            caller,
            Console(terminal=not script, colour=terminal, python=may),
            self._say,
            ended=self._leave,
            aside=self._aside,
            changed=self._changed,
            python=self._open_python,
        )
        self._editor: Editor | None = None
        self._terminal: Terminal | None = None
        self._lines = Lines(self._line)
        if terminal:
            self._editor = Editor(
                self._output,
                prompt=self._session.prompt,
                width=lambda: self._columns,
                entered=self._session.enter,
                complete=self._session.complete,
                ended=self._end,
                interrupted=self._session.interrupt,
                remembered=self._session.remembered,
            )
            self._terminal = Terminal(self._editor)
        self._heard = self._free = desk.reactor.seconds()
        self._looks = LoopingCall(self._look)
        self._looks.clock = desk.reactor
        self._over = False

    @property
    def last_ok(self) -> bool:
        """Whether the last command did what it was to do."""
        return self._session.last_ok

    def start(self) -> None:
        """Greet, and take commands."""
        if self._terminal is not None:
            self._output.write(GREETING)
            self._terminal.makeConnection(_Raw(self._link))
            self._output.attach(self._editor)
        elif not self._script:
            self._output.raw(PLAIN_GREETING)
            self._changed()
        self._looks.start(LOOK, now=False)

    def stop(self) -> None:
        """The connection is gone."""
        if self._over:
            return
        self._over = True
        if self._looks.running:
            self._looks.stop()
        self._session.close()
        self._aside.stop()
        if self._interpreter is not None:
            self._interpreter.close()

    def resized(self, columns: int) -> None:
        """The operator's window has *columns* now; 0 where it does not tell."""
        self._columns = min(columns, MOST_COLUMNS) if columns > 1 else COLUMNS

    def dataReceived(self, data: bytes) -> None:
        """What the operator types."""
        if self._over:
            return
        self._heard = self._desk.reactor.seconds()
        if self._terminal is not None:
            self._terminal.dataReceived(data)
        else:
            self._lines.feed(data)

    def input_over(self) -> None:
        """No more will be typed: leave, once all is done that was."""
        if self._terminal is None:
            self._lines.over()
        self._session.when_idle(self._leave)

    # What is told.

    def _say(self, text: str) -> None:
        self._output.write(text)

    def _tell_aside(self, text: str) -> None:
        if self._editor is None:
            text = "\n" + text if self._plain_prompt else text
            self._plain_prompt = False
        self._output.write(text)

    _plain_prompt = False
    """Whether a prompt stands at the end, below plain lines."""

    def _changed(self) -> None:
        """The prompt may be another one."""
        if self._over or self._interpreter is not None:
            return
        if self._editor is not None:
            self._editor.redraw()
        elif self._script or self._session.following:
            return
        elif (prompt := self._session.prompt()) is not None:
            self._plain_prompt = True
            self._output.raw(prompt)

    def _line(self, line: str) -> None:
        """A plain line was entered."""
        self._plain_prompt = False
        self._session.enter(line)
        if not self._session.busy:
            self._changed()

    def _look(self) -> None:
        now = self._desk.reactor.seconds()
        if not self._link.blocked:
            self._free = now
        elif now - self._free > STUCK:
            self._link.abort()
            return
        if now - self._heard > IDLE:
            self._say(f"Nothing was typed for {IDLE / 60:.0f} minutes.\n")
            self._leave()
        elif self._editor is not None and not self._link.blocked:
            self._changed()

    def _end(self) -> None:
        """Ctrl-D."""
        if self._session.following:
            self._session.interrupt()
        else:
            self._leave()

    def _leave(self) -> None:
        self._session.close()
        self._output.attach(None)
        self._link.close()

    # An interpreter.

    def _open_python(self) -> None:
        """Hand the keys over; that it is opened is on record already."""
        assert self._terminal is not None
        assert self._desk.namespace is not None
        self._output.attach(None)
        self._interpreter = Interpreter(self._desk.namespace(), self._python_left)
        self._terminal.hand_over(self._interpreter)

    def _python_left(self) -> None:
        self._interpreter = None
        caller = self._session.caller
        left = Change(who=caller.who, address=caller.address, action="python.close", target="daemon")
        self._desk.audit(left).addErrback(
            lambda failure: self.log.error("python.close is not in the audit log: {why}", why=failure.value)
        )
        if self._terminal is not None and not self._over:
            self._terminal.take_back()
            self._output.attach(self._editor)
