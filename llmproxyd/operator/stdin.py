"""The operator at the daemon's own standard input.

Three ways to be there.  On a terminal of which we hold the foreground: line editing, history
and a prompt that keeps below the log (``terminal``).  On a pipe, or on a terminal whose output
goes elsewhere: plain lines, no prompt.  On anything else (``/dev/null``, a closed descriptor, a
background process): not at all.  Only on a terminal does the end of input stop the daemon.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from zope.interface import implementer

from llmproxyd.control.answers import OWN
from llmproxyd.control.calls import Caller
from llmproxyd.control.verbs import Control
from llmproxyd.operator.console import Aside, Lines, Session

STDIN = 0

STDIN_CALLER = Caller("stdin")


def kind_of_stdin() -> str:
    """What standard input is for us right now.

    ``terminal`` (whose foreground we have), ``background``, ``pipe``, ``other`` (a file, a device,
    a socket: read only when told so) or ``closed``.
    """
    try:
        mode = os.fstat(STDIN).st_mode
    except OSError:
        return "closed"
    if os.isatty(STDIN):
        return "terminal" if in_foreground() else "background"
    return "pipe" if stat.S_ISFIFO(mode) else "other"


def in_foreground() -> bool:
    """Whether this process may read from its terminal without being stopped."""
    try:
        return os.tcgetpgrp(STDIN) == os.getpgrp()
    except OSError:
        return False


@implementer(IReadDescriptor)
class Descriptor:
    """Standard input as the reactor reads it, left in blocking mode: the shell shares it."""

    def __init__(
        self, received: Callable[[bytes], None], ended: Callable[[], None], barred: Callable[[], None]
    ) -> None:
        self._received = received
        self._ended = ended
        self._barred = barred

    def fileno(self) -> int:
        """The descriptor."""
        return STDIN

    def logPrefix(self) -> str:
        """For the reactor's messages."""
        return "stdin"

    def doRead(self) -> None:
        """Take what is there; it is asked only when there is something."""
        try:
            data = os.read(STDIN, 65536)
        except OSError as error:
            # EIO: the terminal belongs to another process group now.
            if error.errno == errno.EIO and not in_foreground():
                self._barred()
            elif error.errno not in (errno.EAGAIN, errno.EINTR):
                self._ended()
            return
        if data:
            self._received(data)
        else:
            self._ended()

    def connectionLost(self, reason: object) -> None:
        """The reactor has given the descriptor up."""
        self._ended()


class LineConsole:
    """Commands as plain lines.

    Where a command takes its time, nothing is read until it is done.

    :param say: takes the answer, as whole lines.
    :param ended: called at the end of input; nothing happens by default.
    """

    def __init__(
        self,
        reactor: IReactorFDSet,
        control: Control,
        say: Callable[[str], None],
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        self._reactor = reactor
        self._ended = ended
        self._reading = False
        self._at_end = False
        self._aside = Aside(reactor, say)
        self._session = Session(
            control,
            STDIN_CALLER,
            OWN,
            say,
            ended=self.stop,
            aside=self._aside,
            changed=self._go_on,
            waiting=None,
        )
        self._lines = Lines(self._session.enter)
        self._descriptor = Descriptor(self._lines.feed, self._over, self.stop)

    def start(self) -> None:
        """Begin to read."""
        self._reading = True
        self._reactor.addReader(self._descriptor)

    def stop(self) -> None:
        """Read no more."""
        self._pause()
        self._at_end = True
        self._session.stop_following()
        self._aside.stop()

    def _pause(self) -> None:
        if self._reading:
            self._reading = False
            self._reactor.removeReader(self._descriptor)

    def _go_on(self) -> None:
        """A command has begun or is done."""
        if self._session.busy:
            self._pause()
        elif not self._reading and not self._at_end:
            self.start()

    def _over(self) -> None:
        self._pause()
        self._at_end = True
        self._lines.over()
        self._session.when_idle(self._ended)
