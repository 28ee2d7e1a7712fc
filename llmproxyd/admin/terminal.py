"""A terminal that a program has for itself, and gives back as it was."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

ENTER = "\x1b[?1049h\x1b[?25l"
"""The other screen, no cursor (xterm's private modes, which all terminals of today have)."""
LEAVE = "\x1b[0m\x1b[?25h\x1b[?1049l"

UP, DOWN = "up", "down"
_SEQUENCES = {"\x1b[A": UP, "\x1b[B": DOWN, "\x1bOA": UP, "\x1bOB": DOWN, "k": UP, "j": DOWN}
REST_OF_KEY = 0.05
"""Seconds for what follows an Escape, where it begins the sequence of a key."""


class Ended(Exception):
    """A signal asks to end.

    :ivar number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class Terminal:
    """Reads keys and draws whole screens; made by :func:`terminal`."""

    def __init__(self, source: int, target: int) -> None:
        self._source = source
        self._target = target
        self._before: list[Any] | None = None
        self._wake, self._woken = os.pipe()
        for one in (self._wake, self._woken):
            os.set_blocking(one, False)

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines."""
        try:
            found = os.get_terminal_size(self._target)
        except OSError:
            return 80, 24
        return found.columns or 80, found.lines or 24

    def enter(self) -> None:
        """Take it."""
        self._before = termios.tcgetattr(self._source)
        tty.setcbreak(self._source, termios.TCSANOW)
        self._write(ENTER)

    def leave(self) -> None:
        """Give it back; more than once does no harm.  A terminal that is gone needs nothing."""
        before, self._before = self._before, None
        if before is not None:
            with suppress(OSError, termios.error):
                self._write(LEAVE)
            with suppress(OSError, termios.error):
                # Keys that nobody read are not for the shell.
                termios.tcflush(self._source, termios.TCIFLUSH)
                termios.tcsetattr(self._source, termios.TCSANOW, before)

    def close(self) -> None:
        """Give up what it needed."""
        os.close(self._wake)
        os.close(self._woken)

    @property
    def bell(self) -> int:
        """Where signals are written to, so that :meth:`key` ends."""
        return self._woken

    def draw(self, lines: Sequence[str]) -> None:
        """Show *lines*, each no longer than the terminal, and nothing else."""
        self._write("\x1b[H" + "\r\n".join(f"{line}\x1b[K" for line in lines) + "\x1b[J")

    def key(self, seconds: float) -> str | None:
        """The next key: a letter, :data:`UP`, :data:`DOWN`; ``None`` after *seconds*, or a signal.

        :raises EOFError: the terminal is gone.
        """
        ready, _, _ = select.select([self._source, self._wake], [], [], max(seconds, 0))
        if self._wake in ready:
            with suppress(BlockingIOError):
                os.read(self._wake, 4096)
        if self._source not in ready:
            return None
        key = self._read(1)
        while key in ("\x1b", "\x1b[", "\x1bO") and select.select([self._source], [], [], REST_OF_KEY)[0]:
            key += self._read(1)
        return _SEQUENCES.get(key, key)

    def _read(self, most: int) -> str:
        try:
            data = os.read(self._source, most)
        except OSError:
            data = b""
        if not data:
            raise EOFError
        return data.decode("latin-1")

    def _write(self, text: str) -> None:
        data = text.encode("utf-8", "replace")
        while data:
            data = data[os.write(self._target, data) :]


@contextmanager
def terminal() -> Iterator[Terminal]:
    """The terminal at standard input and output, until the block ends in whatever way.

    :raises Ended: within the block, at SIGTERM and SIGHUP.
    """
    one = Terminal(sys.stdin.fileno(), sys.stdout.fileno())
    handlers: dict[int, Any] = {}

    def end(number: int, frame: FrameType | None) -> None:
        raise Ended(number)

    def suspend(number: int, frame: FrameType | None) -> None:
        one.leave()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        # Here it goes on, in the foreground again.
        signal.signal(signal.SIGTSTP, suspend)
        one.enter()

    wanted: dict[int, Callable[[int, FrameType | None], None]] = {
        signal.SIGTERM: end,
        signal.SIGHUP: end,
        signal.SIGTSTP: suspend,
        signal.SIGWINCH: lambda number, frame: None,
    }
    bell = signal.set_wakeup_fd(one.bell, warn_on_full_buffer=False)
    try:
        for number, handler in wanted.items():
            handlers[number] = signal.signal(number, handler)
        one.enter()
        yield one
    finally:
        one.leave()
        for number, was in handlers.items():
            signal.signal(number, was)
        signal.set_wakeup_fd(bell)
        one.close()


def until(moment: float) -> float:
    """Seconds until *moment* on the monotonic clock."""
    return max(moment - time.monotonic(), 0.0)
