"""The operator at a terminal: one line that is edited below the log.

Imported when there is a terminal: Twisted's line editor installs a reactor on import.
"""

from __future__ import annotations

import contextlib
import signal
import termios
from collections.abc import Callable
from types import FrameType
from typing import Any

from twisted.conch.insults.insults import ServerProtocol
from twisted.conch.recvline import HistoricRecvLine

from llmproxyd.control import Control
from llmproxyd.observe.output import Output
from llmproxyd.operator.stdin import LINE_LIMIT, STDIN, Descriptor, in_foreground

HISTORY = 200
"""Lines that the arrow keys bring back."""


class Editor(HistoricRecvLine):
    """One line at the bottom of a terminal, with history.

    :param ended: called on Ctrl-D in an empty line.
    """

    def __init__(self, control: Control, output: Output, ended: Callable[[], None]) -> None:
        super().__init__()
        self._control = control
        self._output = output
        self._ended = ended

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
        return "\r\x1b[K"

    def shown(self) -> str:
        """See :class:`~llmproxyd.observe.output.Prompt`."""
        typed = b"".join(self.lineBuffer).decode("utf-8", "replace")
        back = len(self.lineBuffer) - self.lineBufferIndex
        return self._control.prompt() + typed + (f"\x1b[{back}D" if back else "")

    def keystrokeReceived(self, keyID: bytes, modifier: object) -> None:
        """A key; one without a meaning here is ignored."""
        handler = self.keyHandlers.get(keyID)
        if handler is not None:
            handler()
        elif keyID in self._printableChars:
            self.characterReceived(keyID, False)

    def characterReceived(self, ch: bytes, moreCharactersComing: bool) -> None:
        """A character is typed at the cursor."""
        if len(self.lineBuffer) < LINE_LIMIT:
            self.lineBuffer.insert(self.lineBufferIndex, ch)
            self.lineBufferIndex += 1
        if not moreCharactersComing:
            self.redraw()

    def redraw(self) -> None:
        """Show the line anew."""
        self._output.raw(self.hidden() + self.shown())

    def lineReceived(self, line: bytes) -> None:
        """A line is entered."""
        text = line.decode("utf-8", "replace").strip()
        if text:
            self._output.write(self._control.run(text).text)
        else:
            self.redraw()

    def handle_RETURN(self) -> None:
        """Enter what was typed and go on below it."""
        line = b"".join(self.lineBuffer)
        self.lineBuffer = []
        self.lineBufferIndex = 0
        if line:
            self.historyLines = [*self.historyLines[-HISTORY:], line]
        self.historyPosition = len(self.historyLines)
        self._output.raw("\r\n")
        self.lineReceived(line)

    def handle_EOF(self) -> None:
        """Ctrl-D: leave, when nothing is typed."""
        if not self.lineBuffer:
            self._output.raw("\r\n")
            self._ended()

    def handle_KILL(self) -> None:
        """Ctrl-K: forget what is right of the cursor."""
        del self.lineBuffer[self.lineBufferIndex :]
        self.redraw()

    def handle_DISCARD(self) -> None:
        """Ctrl-U: forget what is left of the cursor."""
        del self.lineBuffer[: self.lineBufferIndex]
        self.lineBufferIndex = 0
        self.redraw()

    def handle_CLEAR(self) -> None:
        """Ctrl-L: an empty screen."""
        self._output.raw("\x1b[H\x1b[2J")
        self.redraw()


class _Screen:
    """What Twisted's terminal protocol writes to."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def write(self, data: bytes) -> None:
        self._output.raw(data.decode("utf-8", "replace"))

    def writeSequence(self, pieces: list[bytes]) -> None:
        self.write(b"".join(pieces))

    def loseConnection(self) -> None:
        """The screen stays."""


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
        self._editor = Editor(control, output, ended)
        self._terminal = ServerProtocol(lambda: self._editor)
        self._descriptor = Descriptor(self._terminal.dataReceived, self._hung_up, self._pause)

    def start(self) -> None:
        """Take the terminal over."""
        # A background process that touches its terminal would be stopped; we let go instead.
        for number in (signal.SIGTTIN, signal.SIGTTOU):
            self._before[number] = signal.signal(number, signal.SIG_IGN)
        self._before[signal.SIGCONT] = signal.signal(signal.SIGCONT, self._continued)
        self._terminal.makeConnection(_Screen(self._output))
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
