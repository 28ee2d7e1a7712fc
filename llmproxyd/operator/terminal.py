"""The operator at a terminal: one line that is edited below the log.

Imported when there is a terminal: Twisted's line editor installs a reactor on import.
"""

from __future__ import annotations

import contextlib
import os
import signal
import termios
from collections.abc import Callable
from types import FrameType
from typing import Any

from twisted.conch.insults.insults import ServerProtocol
from twisted.conch.recvline import HistoricRecvLine

from llmproxyd.control.verbs import Control
from llmproxyd.observe.output import Output
from llmproxyd.operator.stdin import LINE_LIMIT, STDIN, Descriptor, in_foreground

HISTORY = 200
"""Lines that the arrow keys bring back."""

STDOUT = 1

COLUMNS = 80
"""Of a terminal that does not tell."""


class Editor(HistoricRecvLine):
    """One line at the bottom of a terminal, with history.

    Twisted's editor keeps the line and knows the keys; what is seen is drawn here, anew after
    each key, because the line may take several rows and log lines may push it down.

    :param width: columns of the terminal.
    :param ended: called on Ctrl-D in an empty line.
    """

    def __init__(
        self,
        control: Control,
        output: Output,
        ended: Callable[[], None],
        width: Callable[[], int],
    ) -> None:
        super().__init__()
        self._control = control
        self._output = output
        self._ended = ended
        self._width = width
        self._cursor = 0
        """Where the cursor was left, in characters from the start of the prompt."""

    def initializeScreen(self) -> None:
        """Leave the screen as it is; the prompt is the output's to show."""
        self.mode = "insert"

    def connectionMade(self) -> None:
        """Take further keys."""
        super().connectionMade()
        self.keyHandlers.update(
            {
                b"\x01": self.handle_HOME,
                b"\x04": self.handle_EOF,
                b"\x05": self.handle_END,
                b"\x0b": self.handle_KILL,
                b"\x0c": self.handle_CLEAR,
                b"\x15": self.handle_DISCARD,
                self.terminal.TAB: lambda: None,
                self.terminal.INSERT: lambda: None,
            }
        )

    def hidden(self) -> str:
        """See :class:`~llmproxyd.observe.output.Prompt`."""
        rows = self._cursor // self._width()
        self._cursor = 0
        return "\r" + (f"\x1b[{rows}A" if rows else "") + "\x1b[J"

    def shown(self) -> str:
        """See :class:`~llmproxyd.observe.output.Prompt`."""
        width = self._width()
        prompt = self._control.prompt()
        text = prompt + b"".join(self.lineBuffer).decode("ascii", "replace")
        end, self._cursor = len(text), len(prompt) + self.lineBufferIndex
        if end % width == 0:
            # A terminal stays in the last column until another character comes.
            text += " \r"
        if self._cursor == end:
            return text
        rows, column = end // width - self._cursor // width, self._cursor % width
        up = f"\x1b[{rows}A" if rows else ""
        return f"{text}{up}\r" + (f"\x1b[{column}C" if column else "")

    def keystrokeReceived(self, keyID: bytes, modifier: object) -> None:
        """A key; one without a meaning here is ignored."""
        handler = self.keyHandlers.get(keyID)
        if handler is not None:
            handler()
        elif keyID in self._printableChars:
            self.characterReceived(keyID, False)
        self._redraw()

    def characterReceived(self, ch: bytes, moreCharactersComing: bool) -> None:
        """A character is typed at the cursor."""
        if len(self.lineBuffer) < LINE_LIMIT:
            super().characterReceived(ch, moreCharactersComing)

    def lineReceived(self, line: bytes) -> None:
        """A line is entered."""
        text = line.decode("ascii", "replace").strip()
        if text:
            self._output.write(self._control.run(text).text)

    def handle_RETURN(self) -> None:
        """Enter what was typed and go on below it."""
        self.handle_END()
        self._redraw()
        self._output.raw("\r\n")
        self._cursor = 0
        super().handle_RETURN()
        del self.historyLines[:-HISTORY]
        self.historyPosition = len(self.historyLines)

    def handle_EOF(self) -> None:
        """Ctrl-D: leave, when nothing is typed."""
        if not self.lineBuffer:
            self._output.raw("\r\n")
            self._cursor = 0
            self._ended()

    def handle_KILL(self) -> None:
        """Ctrl-K: forget what is right of the cursor."""
        del self.lineBuffer[self.lineBufferIndex :]

    def handle_DISCARD(self) -> None:
        """Ctrl-U: forget what is left of the cursor."""
        del self.lineBuffer[: self.lineBufferIndex]
        self.lineBufferIndex = 0

    def handle_CLEAR(self) -> None:
        """Ctrl-L: an empty screen."""
        self._output.raw("\x1b[H\x1b[2J")
        self._cursor = 0

    def _redraw(self) -> None:
        self._output.raw(self.hidden() + self.shown())


class _Undrawn:
    """What Twisted's editor writes to: nothing of it is shown, :class:`Editor` draws."""

    def write(self, data: bytes) -> None:
        """See the class."""

    def writeSequence(self, pieces: list[bytes]) -> None:
        """See the class."""

    def loseConnection(self) -> None:
        """See the class."""


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
        self._editor = Editor(control, output, ended, _columns)
        self._terminal = ServerProtocol(lambda: self._editor)
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
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

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
