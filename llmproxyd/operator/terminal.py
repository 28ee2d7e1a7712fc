"""The operator at a terminal: one line that is edited below the log.

Imported when there is a terminal: Twisted's line editor installs a reactor on import.
"""

from __future__ import annotations

import contextlib
import os
import signal
import termios
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any

from llmproxyd.control.answers import Console
from llmproxyd.control.verbs import Control
from llmproxyd.observe.output import Output
from llmproxyd.operator.console import Aside, Session
from llmproxyd.operator.editor import COLUMNS, Editor, Terminal
from llmproxyd.operator.stdin import STDIN, STDIN_CALLER, Descriptor, in_foreground

STDOUT = 1


class _Undrawn:
    """What Twisted's editor writes to: nothing of it is shown, :class:`Editor` draws."""

    def write(self, data: bytes) -> None:
        """See the class."""

    def writeSequence(self, pieces: list[bytes]) -> None:
        """See the class."""

    def loseConnection(self) -> None:
        """See the class."""


def _coloured(environ: Mapping[str, str]) -> bool:
    return environ.get("TERM", "dumb") != "dumb" and not environ.get("NO_COLOR")


def _columns() -> int:
    try:
        return os.get_terminal_size(STDOUT).columns or COLUMNS
    except OSError:
        return COLUMNS


class TerminalConsole:
    """Commands typed at a terminal.

    :param ended: called when the operator ends the session (Ctrl-D, a closed terminal).
    """

    def __init__(self, reactor: Any, control: Control, output: Output, ended: Callable[[], None]) -> None:
        self._reactor = reactor
        self._output = output
        self._ended = ended
        self._cooked: list[Any] | None = None
        self._before: dict[int, Any] = {}
        self._aside = Aside(reactor, output.write)
        self._session = Session(
            control,
            STDIN_CALLER,
            Console(own=True, terminal=True, colour=_coloured(os.environ)),
            output.write,
            ended=ended,
            aside=self._aside,
            changed=self._changed,
        )
        self._editor = Editor(
            output,
            prompt=self._session.prompt,
            width=_columns,
            entered=self._session.enter,
            complete=self._session.complete,
            ended=self._end,
            interrupted=self._session.interrupt,
            remembered=self._session.remembered,
        )
        self._terminal = Terminal(self._editor)
        self._descriptor = Descriptor(self._terminal.dataReceived, self._hung_up, self._pause)

    def start(self) -> None:
        """Take the terminal over."""
        # A background process that touches its terminal would be stopped; we let go instead.
        for number in (signal.SIGTTIN, signal.SIGTTOU):
            self._before[number] = signal.signal(number, signal.SIG_IGN)
        self._before[signal.SIGCONT] = signal.signal(signal.SIGCONT, self._continued)
        self._terminal.makeConnection(_Undrawn())
        self._resume()

    def stop(self) -> None:
        """Give the terminal back as it was."""
        self._pause()
        self._session.close()
        self._aside.stop()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _end(self) -> None:
        """Ctrl-D."""
        if self._session.following:
            self._session.interrupt()
        else:
            self._ended()

    def _changed(self) -> None:
        """The prompt may be another one."""
        if self._cooked is not None:
            self._editor.redraw()

    def _resume(self) -> None:
        if self._cooked is None:
            self._cooked = termios.tcgetattr(STDIN)
            ours = termios.tcgetattr(STDIN)
            # Keys as they are typed, echoed by the editor; Ctrl-C and Ctrl-Z keep their meaning.
            ours[3] &= ~(termios.ICANON | termios.ECHO)
            ours[6][termios.VMIN], ours[6][termios.VTIME] = 1, 0
            termios.tcsetattr(STDIN, termios.TCSADRAIN, ours)
            self._reactor.addReader(self._descriptor)
            self._output.attach(self._editor)

    def _pause(self) -> None:
        cooked, self._cooked = self._cooked, None
        if cooked is not None:
            self._reactor.removeReader(self._descriptor)
            self._output.attach(None)
            with contextlib.suppress(termios.error):
                if in_foreground():
                    termios.tcsetattr(STDIN, termios.TCSADRAIN, cooked)

    def _continued(self, number: int, frame: FrameType | None) -> None:
        """After Ctrl-Z: ``fg`` gives the terminal back to us, ``bg`` does not."""
        self._reactor.callFromThread(self._after_continue)

    def _after_continue(self) -> None:
        if self._before:
            self._pause()
            if in_foreground():
                self._resume()

    def _hung_up(self) -> None:
        self._pause()
        self._ended()
