"""Who may log in: a file of passwords, and patience with those who try."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore
from twisted.logger import Logger
from twisted.python.failure import Failure

from llmproxyd.control.passwords import matches

ATTEMPTS = 3
"""Wrong passwords on one connection."""

FIRST_DELAY, LONGEST_DELAY = 0.25, 30.0
"""Seconds until a wrong password is called wrong; each further one takes twice as long."""

FORGOTTEN = 900.0
"""Seconds after which wrong passwords of an address count no more."""

MOST_ADDRESSES = 1000
MOST_FILE = 256 * 1024
"""Bytes of a file of passwords."""

AT_ONCE = 2
"""Passwords that are checked at once: each takes 32 MiB and a tenth of a second of a thread."""

USER_LIMIT, PASSWORD_LIMIT = 64, 1024
"""Bytes."""

AHEAD_LIMIT = 4096
"""Bytes typed while a password is checked."""

NOBODY = "$scrypt$ln=15,r=8,p=1$7Vq3mN0sZkq0X1d9rW5c4Q$2kqC0m7o1xk2kQm3iY9b8H4t5s6u7v8w9x0y1z2a3b4"
"""A hash that nobody knows the password of: unknown users take as long as known ones."""


class PasswordFile:
    """A line of ``llmproxyctl passwd`` for each operator, read anew at each login."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def lines(self) -> list[str]:
        """The lines that let somebody in.

        :raises OSError: it cannot be read.
        """
        with self._path.open("rb") as stream:
            text = stream.read(MOST_FILE).decode("utf-8", "replace")
        return [line for line in text.splitlines() if ":$scrypt$" in line]

    def admits(self, user: str, password: str) -> bool:
        """Whether *user* may log in with *password*; to be called in a thread.

        :raises OSError: the file cannot be read.
        """
        known = [line for line in self.lines() if line.strip().startswith(f"{user}:")]
        found = [matches(line, user, password) for line in known or [f"{user}:{NOBODY}"]]
        return bool(known) and any(found)


class Patience:
    """How long wrong passwords take, by address (of IPv6 the /64): ever longer.

    :param monotonic: seconds.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._tries: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def tried(self, address: str) -> float:
        """*address* tries a password, which counts as wrong until :meth:`right`.

        :returns: seconds until it may be told that it is wrong.
        """
        now = self._monotonic()
        place = _network(address)
        count, last = self._tries.pop(place, (0, now))
        count = 1 if now - last > FORGOTTEN else count + 1
        self._tries[place] = (count, now)
        if len(self._tries) > MOST_ADDRESSES:
            self._tries.popitem(last=False)
        return min(FIRST_DELAY * 2.0 ** min(count - 1, 10), LONGEST_DELAY)

    def right(self, address: str) -> None:
        """*address* had the right password."""
        self._tries.pop(_network(address), None)


class Checker:
    """Passwords, checked in threads.

    :param in_thread: calls a function in a thread.
    """

    def __init__(self, file: PasswordFile, in_thread: Callable[..., Deferred[Any]]) -> None:
        self._file = file
        self._in_thread = in_thread
        self._turns = DeferredSemaphore(AT_ONCE)

    def __call__(self, user: str, password: str) -> Deferred[bool]:
        """Whether *user* may log in with *password*."""
        return self._turns.run(self._in_thread, self._file.admits, user, password)


class Login:
    """Asks for user and password, and echoes what is to be seen.

    :param say: takes text as it is to be sent.
    :param echoing: whether the other side leaves the echo to us.
    :param admitted: called with the user, and with what was typed ahead.
    :param ended: called when there is no further attempt.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        check: Callable[[str, str], Deferred[bool]],
        patience: Patience,
        address: str,
        *,
        say: Callable[[str], None],
        echoing: Callable[[], bool],
        admitted: Callable[[str, bytes], None],
        ended: Callable[[], None],
    ) -> None:
        self._reactor = reactor
        self._check = check
        self._patience = patience
        self._address = address
        self._say = say
        self._echoing = echoing
        self._admitted = admitted
        self._ended = ended
        self._typed = bytearray()
        self._user: str | None = None
        self._after_return = False
        self._checking: Deferred[Any] | None = None
        self._waiting: Any = None
        self._ahead = b""
        self._attempts = 0
        self._over = False

    def start(self) -> None:
        """Ask who it is."""
        self._user = None
        self._say("Login: ")

    def stop(self) -> None:
        """Ask no more."""
        self._over = True
        self._ahead = b""
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
        if self._checking is not None:
            self._checking.cancel()

    def dataReceived(self, data: bytes) -> None:
        """What is typed."""
        if self._busy():
            self._ahead = (self._ahead + data)[:AHEAD_LIMIT]
            return
        for number, code in enumerate(data):
            if code in (10, 13):
                # Whether this is a password, and how soon it is checked, is seen when it is entered.
                self._ahead = data[number + 1 :][:AHEAD_LIMIT]
            self._key(code)
            if self._over or self._busy():
                return
        self._ahead = b""

    def _busy(self) -> bool:
        return self._checking is not None or self._waiting is not None

    def _key(self, code: int) -> None:
        follows_return, self._after_return = self._after_return, code == 13
        if code == 10 and follows_return:
            return
        if code in (10, 13):
            self._enter()
        elif code in (8, 127):
            self._rub_out()
        elif code == 21:
            while self._typed:
                self._rub_out()
        elif code in (3, 4):
            self._end("")
        elif code >= 32:
            self._character(code)

    def _character(self, code: int) -> None:
        limit = USER_LIMIT if self._user is None else PASSWORD_LIMIT
        # One more than there can be: what was cut must not match.
        if len(self._typed) <= limit:
            self._typed.append(code)
            if self._user is None and self._echoing() and code < 127:
                self._say(chr(code))

    def _rub_out(self) -> None:
        if self._typed and self._typed.pop() < 127 and self._user is None and self._echoing():
            self._say("\b \b")

    def _enter(self) -> None:
        text = self._typed.decode("utf-8", "replace")
        self._typed.clear()
        if self._echoing():
            self._say("\n")
        if self._user is None:
            if text:
                self._user = text
                self._say("Password: ")
            else:
                self.start()
            return
        self._try(self._user, text)

    def _try(self, user: str, password: str) -> None:
        if not self._echoing():
            self._say("\n")
        delay = self._patience.tried(self._address)
        checking = self._checking = self._check(user, password)
        checking.addCallbacks(self._checked, self._failed, callbackArgs=(user, delay))

    def _checked(self, admitted: bool, user: str, delay: float) -> None:
        self._checking = None
        if self._over:
            return
        if admitted:
            self._patience.right(self._address)
            self._over = True
            ahead, self._ahead = self._ahead, b""
            self._admitted(user, ahead.removeprefix(b"\n"))
            return
        self._attempts += 1
        # No name: people type their password in its place.
        self.log.warn("a wrong user or password from {address}", address=self._address)
        self._waiting = self._reactor.callLater(delay, self._refused)

    def _failed(self, failure: Failure) -> None:
        self._checking = None
        if self._over or failure.check(CancelledError):
            return
        self.log.error("passwords cannot be checked: {why}", why=failure.value)
        self._end("Passwords cannot be checked; the daemon's log says why.\n")

    def _refused(self) -> None:
        self._waiting = None
        self._say("Login incorrect.\n")
        if self._attempts >= ATTEMPTS:
            self._end("Too many attempts.\n")
            return
        self.start()
        ahead, self._ahead = self._ahead, b""
        self.dataReceived(ahead)

    def _end(self, why: str) -> None:
        self._over = True
        if why:
            self._say(why)
        self._ended()


def _network(address: str) -> str:
    """What of *address* one person has: of IPv6 the /64."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    return str(IPv6Address(int(found) >> 64 << 64)) if isinstance(found, IPv6Address) else address
