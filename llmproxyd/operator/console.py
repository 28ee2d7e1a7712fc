"""What every console does, however its lines arrive: run them one after the other, and tell."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from llmproxyd.control.answers import Answer, Console, Stop
from llmproxyd.control.calls import Caller
from llmproxyd.control.verbs import Control
from llmproxyd.operator.line import LINE_LIMIT

WAITING = 1000
"""Lines that may wait for the one that is being done."""

FAILED = "This went wrong, which the daemon's log tells more of.\n"


FOLLOWING = "Following; an empty line ends it.\n"


class Lines:
    """Bytes to lines, however they end.

    :param received: takes each line, cut at :data:`LINE_LIMIT` bytes.
    """

    def __init__(self, received: Callable[[str], None]) -> None:
        self._received = received
        self._rest = b""
        self._after_return = False

    def feed(self, data: bytes) -> None:
        """Take *data*."""
        if self._after_return and data.startswith(b"\n"):
            data = data[1:]
        if data:
            self._after_return = data.endswith(b"\r")
        *lines, rest = (self._rest + data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")).split(b"\n")
        self._rest = rest[: LINE_LIMIT + 1]
        for line in lines:
            self._hand_on(line)

    def over(self) -> None:
        """There is no more; what has no end yet is a line too."""
        rest, self._rest = self._rest, b""
        if rest:
            self._hand_on(rest)

    def _hand_on(self, line: bytes) -> None:
        self._received(line[:LINE_LIMIT].decode("utf-8", "replace"))


class Session:
    """The commands of one operator.

    :param caller: for the audit log.
    :param kind: what can be shown, and asked, there.
    :param say: takes what is told, as whole lines.
    :param aside: takes what comes by itself (``requests tail``).
    :param ended: called when the operator leaves.
    :param changed: called when the prompt may be another one.
    :param python: opens an interpreter.
    :param waiting: lines that may wait; ``None`` where whoever sends them waits with us.
    """

    log = Logger()

    def __init__(
        self,
        control: Control,
        caller: Caller,
        kind: Console,
        say: Callable[[str], None],
        *,
        ended: Callable[[], None],
        aside: Callable[[str], None] | None = None,
        changed: Callable[[], None] = lambda: None,
        python: Callable[[], None] | None = None,
        waiting: int | None = WAITING,
    ) -> None:
        self._control = control
        self.caller = caller
        self.kind = kind
        self._say = say
        self._aside = aside or say
        self._ended = ended
        self._changed = changed
        self._python = python
        self._most = waiting
        self._lines: deque[str] = deque()
        self._asked: Answer | None = None
        self._stop: Stop | None = None
        self._when_idle: Callable[[], None] | None = None
        self._working = False
        self.busy = False
        """Whether a command is under way."""
        self.closed = False
        self.last_ok = True
        """Whether the last command did what it was to do."""

    @property
    def following(self) -> bool:
        """Whether something is told by itself until :meth:`interrupt`."""
        return self._stop is not None

    def prompt(self) -> str | None:
        """What stands before the line, ``None`` while a command is under way."""
        if self.busy or self.closed:
            return None
        if self._asked is not None:
            return f"{self._asked.asks} (yes/no) "
        return self._control.prompt()

    def complete(self, text: str) -> list[str]:
        """What the last word of *text* may be."""
        return [] if self._asked is not None else self._control.complete(text)

    def remembered(self, line: str) -> bool:
        """Whether *line* may be kept for the arrow keys."""
        return self._asked is None and not self._control.holds_secret(line)

    def enter(self, line: str) -> None:
        """Do what *line* says, once those before it are done."""
        if self.closed:
            return
        if self._most is not None and len(self._lines) >= self._most:
            self._say("Too many commands at once: this one is left out.\n")
            return
        self._lines.append(line)
        self._go_on()

    def interrupt(self) -> None:
        """Ctrl-C: no answer, no following; what is under way is done all the same."""
        self._lines.clear()
        if self._asked is not None:
            self._asked = None
            self._say("Nothing has changed.\n")
        if self.following:
            self.stop_following()
            self._say("No longer following.\n")

    def stop_following(self) -> None:
        """Be told no more by itself."""
        stop, self._stop = self._stop, None
        if stop is not None:
            stop()

    def when_idle(self, call: Callable[[], None]) -> None:
        """Have *call* made once nothing is waiting or under way, following included."""
        if self.busy or self._lines or self.following:
            self._when_idle = call
        else:
            call()

    def close(self) -> None:
        """The operator is gone; what is under way is done all the same."""
        self.closed = True
        self._lines.clear()
        self._asked = None
        self.stop_following()

    def _go_on(self) -> None:
        """Do what is waiting, in order; an answer may come at once, or later."""
        if self._working:
            return
        self._working = True
        try:
            while self._lines and not self.busy and not self.closed:
                self._do(self._lines.popleft())
        finally:
            self._working = False

    def _do(self, line: str) -> None:
        asked, self._asked = self._asked, None
        if asked is not None:
            if asked.confirm is not None and line.strip().lower() in ("y", "yes"):
                self._take(asked.confirm())
            else:
                self._say("Nothing has changed.\n")
            return
        if self.following and not line.strip():
            self.interrupt()
        elif line.strip():
            self._take(self._control.run(line.strip(), self.caller, console=self.kind))

    def _take(self, answer: Answer | Deferred[Answer]) -> None:
        if isinstance(answer, Answer):
            self._show(answer)
            return
        self.busy = True
        answer.addCallbacks(self._came, self._failed)
        if self.busy:
            self._changed()

    def _came(self, answer: Answer) -> None:
        self.busy = False
        self._show(answer)
        self._after()

    def _failed(self, failure: Failure) -> None:
        self.busy = False
        self.last_ok = False
        self.log.failure("a command failed", failure)
        if not self.closed:
            self._say(FAILED)
        self._after()

    def _after(self) -> None:
        self._go_on()
        if not self.closed:
            self._changed()
        call = self._when_idle
        if call is not None and not (self.busy or self._lines or self.following):
            self._when_idle = None
            call()

    def _show(self, answer: Answer) -> None:
        self.last_ok = answer.ok
        if self.closed:
            return
        if answer.asks is not None:
            self._asked = answer
        if answer.text:
            self._say(answer.text)
        if answer.follow is not None:
            self.stop_following()
            self._stop = answer.follow(self._aside)
            self._say(FOLLOWING)
        if answer.python and self._python is not None:
            self._python()
        if answer.leaves:
            self._ended()


class Aside:
    """What comes by itself, a few times a second at most: a busy daemon must not flood a terminal.

    :param write: takes whole lines.
    :param blocked: whether the other side cannot take more now.
    """

    PAUSE = 0.1
    """Seconds from text to text."""

    MOST = 200
    """Texts at once; of more the oldest are left out."""

    def __init__(
        self, reactor: Any, write: Callable[[str], None], blocked: Callable[[], bool] = lambda: False
    ) -> None:
        self._reactor = reactor
        self._write = write
        self._blocked = blocked
        self._texts: deque[str] = deque(maxlen=self.MOST)
        self._left_out = 0
        self._call: Any = None

    def __call__(self, text: str) -> None:
        """Tell *text* soon."""
        if len(self._texts) == self.MOST:
            self._left_out += 1
        self._texts.append(text)
        if self._call is None:
            self._call = self._reactor.callLater(self.PAUSE, self._flush)

    def stop(self) -> None:
        """Tell no more."""
        self._texts.clear()
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _flush(self) -> None:
        self._call = None
        if self._blocked():
            self._call = self._reactor.callLater(self.PAUSE, self._flush)
            return
        note = f"… {self._left_out} left out\n" if self._left_out else ""
        texts, self._left_out = "".join(self._texts), 0
        self._texts.clear()
        self._write(note + texts)
