"""``python``: an interpreter within the daemon.  Whoever has it can do whatever the daemon can."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from twisted.conch.manhole import Manhole

from llmproxyd.operator.line import HISTORY, LINE_LIMIT

BANNER = """\
Here are {names}. What blocks here blocks all requests.
"""


class _Leave:
    """``exit`` and ``quit``: Python's own would close the daemon's standard input."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return f"{self._name}() or Ctrl-D goes back to the console"

    def __call__(self, code: object = None) -> None:
        raise SystemExit


class Interpreter(Manhole):
    """The interpreter on a terminal of which it is handed the keys.

    :param namespace: what can be named there.
    :param left: called once, when the operator goes back.
    """

    def __init__(self, namespace: Mapping[str, object], left: Callable[[], None]) -> None:
        super().__init__({**namespace, "exit": _Leave("exit"), "quit": _Leave("quit")})
        self._names = ", ".join(namespace)
        self._left = left
        self._over = False

    def initializeScreen(self) -> None:
        """Leave the screen as it is, and begin below."""
        self.setInsertMode()
        self.terminal.write(BANNER.format(names=self._names).encode())
        self.terminal.write(self.ps[self.pn])

    def keystrokeReceived(self, keyID: bytes, modifier: object) -> None:
        """A key; what it runs may fail in any way and yet must not end the connection."""
        if self._over:
            return
        try:
            super().keystrokeReceived(keyID, modifier)
        except SystemExit:
            self.handle_QUIT()
        except BaseException as error:
            self.interpreter.resetBuffer()
            self.pn = 0
            self.addOutput(f"{type(error).__name__}\n")
            self.terminal.write(self.ps[self.pn])

    def characterReceived(self, ch: bytes, moreCharactersComing: bool) -> None:
        """A character is typed at the cursor."""
        if len(self.lineBuffer) < LINE_LIMIT:
            super().characterReceived(ch, moreCharactersComing)

    def lineReceived(self, line: bytes) -> None:
        """A line of Python."""
        del self.historyLines[:-HISTORY]
        self.historyPosition = len(self.historyLines)
        if sum(map(len, self.interpreter.buffer)) > LINE_LIMIT * HISTORY:
            self.interpreter.resetBuffer()
        super().lineReceived(line)

    def addOutput(self, data: str, isAsync: bool | None = None) -> None:
        """What the interpreter has to tell; nothing once it is left."""
        if not self._over:
            super().addOutput(data, isAsync)

    def handle_QUIT(self) -> None:
        """Ctrl-D, ``exit()``: back to the console."""
        if not self._over:
            self.terminal.write(b"\n")
            self.setTypeoverMode()
            self.close()

    def close(self) -> None:
        """The operator is gone, or goes back."""
        if not self._over:
            self._over = True
            self._left()
