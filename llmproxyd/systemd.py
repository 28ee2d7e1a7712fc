"""What systemd is told and what it hands over: readiness, status, watchdog, sockets.

The protocols of sd_notify(3), sd_watchdog_enabled(3) and sd_listen_fds(3); no library is needed.
Where no systemd is, everything here does nothing and says nothing.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from twisted.internet.task import LoopingCall
from twisted.logger import Logger

PATIENCE = 1.0
"""Seconds that a message may wait when systemd does not empty its queue.  Those that tell of a state wait so
long; a status or a sign of life, which another one follows, does not wait."""

LONGEST = 512
"""Characters of a status, which is for one line of ``systemctl status``."""

FIRST = 3
"""Number of the first file descriptor that is handed over (``SD_LISTEN_FDS_START``)."""

MOST = 256
"""File descriptors that are looked at: a number in the environment may be anything."""

MARGIN = 15.0
"""Seconds for what follows the drain: idle connections are closed, and what waits is written."""

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


@dataclass(frozen=True, slots=True)
class Handed:
    """A listening socket that systemd handed over.

    :param index: from 0, in the order of the ``.socket`` unit's lines.
    :param name: ``FileDescriptorName=``, by default that of the ``.socket`` unit.
    :param domain: ``INET``, ``INET6`` or ``UNIX``.
    :param address: where it listens, for people.
    """

    index: int
    name: str
    domain: str
    address: str

    @property
    def endpoint(self) -> str:
        """What ``listen`` says to use it."""
        return f"systemd:domain={self.domain}:index={self.index}"


class Systemd:
    """The service manager as this process sees it.

    To be made before the listeners are opened: adopting a socket closes the descriptor that it came by.

    :param environ: of the process.
    :param reactor: feeds the watchdog; where it is stuck, systemd ends the process and starts it again.
    :param pid: of this process: watchdog and sockets of another one are not ours.
    :param monotonic: seconds of ``CLOCK_MONOTONIC``, by which systemd dates a reload.
    :ivar sockets: that were handed over.
    """

    log = Logger(namespace="llmproxyd")

    def __init__(
        self,
        environ: Mapping[str, str],
        reactor: Any,
        *,
        pid: int | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        pid = os.getpid() if pid is None else pid
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        self._monotonic = monotonic
        self._told = False
        self._every = _watchdog(environ, pid)
        self._feeding = LoopingCall(self._feed)
        self._feeding.clock = reactor
        self.sockets = handed_over(environ, pid)

    @property
    def watched(self) -> float | None:
        """Seconds without a sign of life after which systemd starts the process anew; ``None`` for never."""
        return None if self._address is None else self._every

    def ready(self, status: str) -> None:
        """Clients can be let in: after the start, and after a reload whatever came of it."""
        self._send(f"READY=1\nSTATUS={_line(status)}")

    def status(self, text: str) -> None:
        """Say in a line what is going on, for ``systemctl status``."""
        self._send(f"STATUS={_line(text)}", wait=0.0)

    def reloading(self) -> None:
        """The configuration is being read again; :meth:`ready` ends it."""
        moment = int(self._monotonic() * 1_000_000)
        self._send(f"RELOADING=1\nMONOTONIC_USEC={moment}\nSTATUS=Reloading")

    def stopping(self, within: float = 0.0) -> None:
        """The daemon stops.

        :param within: seconds that running requests are granted; systemd is asked for as long and a margin,
            whatever ``TimeoutStopSec=`` of its unit says.
        """
        granted = int((within + MARGIN) * 1_000_000)
        self._send(f"STOPPING=1\nSTATUS=Stopping\nEXTEND_TIMEOUT_USEC={granted}")

    def start_watchdog(self) -> None:
        """Give signs of life from now on, twice as often as asked for, if any are asked for."""
        if self.watched is not None and not self._feeding.running:
            self._feeding.start(self.watched / 2)

    def stop(self) -> None:
        """Give no further sign of life."""
        if self._feeding.running:
            self._feeding.stop()

    def unused(self, listen: Sequence[str]) -> str | None:
        """What to tell of sockets that were handed over, but that none of *listen* takes.

        Clients that connect to such a socket would wait for an answer for ever.
        """
        left = [one for one in self.sockets if not any(_takes(endpoint, one) for endpoint in listen)]
        if not left:
            return None
        places = ", ".join(f"{one.address} (index {one.index}, {one.name})" for one in left)
        wanted = ", ".join(f'"{one.endpoint}"' for one in left)
        return f"systemd handed over {places}, which listen does not use; accepted: listen: [{wanted}]"

    def _feed(self) -> None:
        self._send("WATCHDOG=1", wait=0.0)

    def _send(self, message: str, *, wait: float = PATIENCE) -> None:
        """Tell systemd.  That it does not listen is no reason to fail; the first time has a line in the log.

        :param wait: seconds that it may take at most.
        """
        if self._address is None:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | _CLOEXEC) as channel:
                channel.settimeout(wait)
                channel.sendto(message.encode("utf-8", "replace"), self._address)
        except OSError as error:
            if not self._told:
                self._told = True
                why = error.strerror or "it does not read"
                self.log.warn("systemd cannot be told how the daemon does: {why}", why=why)


_CLOEXEC = getattr(socket, "SOCK_CLOEXEC", 0)
"""Python sets it on every descriptor, but not in the same step; macOS has none."""


def handed_over(environ: Mapping[str, str], pid: int) -> tuple[Handed, ...]:
    """The listening sockets that were handed to process *pid*.

    Twisted reads ``LISTEN_PID`` and ``LISTEN_FDS`` when it is imported, and removes them if they are ours;
    the names stay.
    """
    if environ.get("LISTEN_PID", str(pid)) != str(pid):
        return ()
    listed = environ.get("LISTEN_FDNAMES", "")
    names = listed.split(":")[:MOST] if listed else []
    return tuple(_listening(names))


def _listening(names: Sequence[str]) -> Iterator[Handed]:
    for index, name in enumerate(names):
        try:
            # Its own descriptor, so that looking closes nothing.
            with socket.socket(fileno=os.dup(FIRST + index)) as found:
                if found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    domain = found.family.name.removeprefix("AF_")
                    yield Handed(index, _line(name), domain, _place(found.getsockname()))
        except OSError as error:
            if error.errno not in (errno.EBADF, errno.ENOTSOCK, errno.ENOPROTOOPT, errno.EINVAL):
                raise


def _place(name: object) -> str:
    """The address *name* of a socket for people."""
    if isinstance(name, tuple):
        host, port = name[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return _line(name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name))


def _takes(endpoint: str, handed: Handed) -> bool:
    """Whether *endpoint* of ``listen`` is the socket *handed*."""
    kind, *arguments = re.split(r"(?<!\\):", endpoint)
    if kind != "systemd" and "systemd" not in arguments[:1]:
        return False
    return f"index={handed.index}" in arguments or f"name={handed.name}" in arguments


def _address(text: str) -> str | bytes | None:
    """The address of the socket ``$NOTIFY_SOCKET``; ``@`` stands for the abstract namespace (Linux)."""
    if text.startswith("@"):
        return b"\0" + os.fsencode(text[1:])
    return text if text.startswith("/") else None


def _watchdog(environ: Mapping[str, str], pid: int) -> float | None:
    """Seconds of ``$WATCHDOG_USEC``, where they are meant for process *pid*."""
    text = environ.get("WATCHDOG_USEC", "")
    if not re.fullmatch("[0-9]{1,18}", text) or environ.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    return int(text) / 1_000_000 or None


def _line(text: str) -> str:
    """*text* in one line: another one would be another message to systemd."""
    return _UNPRINTABLE.sub(" ", text)[:LONGEST].strip()
