"""The telnet manhole: a console for people, on this machine.

Imported when it is switched on: Twisted's terminal protocols install a reactor on import.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

from twisted.conch.telnet import (
    AYT,
    BRK,
    DO,
    DONT,
    EC,
    ECHO,
    EL,
    IAC,
    IP,
    NAWS,
    SB,
    SE,
    SGA,
    WILL,
    WONT,
    Telnet,
)
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from llmproxyd.control.calls import Caller
from llmproxyd.operator.editor import COLUMNS
from llmproxyd.operator.link import TCPLink
from llmproxyd.operator.login import Login, Patience
from llmproxyd.operator.remote import Desk, RemoteConsole

MOST = 16
"""Connections at once, of which"""
MOST_UNKNOWN = 8
"""nobody may have logged in on so many."""

LOGIN_TIME = 60.0
"""Seconds to log in."""

END_OF_FILE = bytes([236])
"""RFC 1184 §2.5."""

_KEYS = {IP: b"\x03", BRK: b"\x03", EC: b"\x7f", EL: b"\x15", END_OF_FILE: b"\x04"}
"""Commands of telnet as the keys that mean the same."""

_LONGEST_SUBNEGOTIATION = 64


class Conversation(Telnet):
    """One operator's connection: options, login, console.

    The echo is ours from the start (RFC 857), so that no password is seen.  A client that does not
    agree, or does not speak telnet at all, sends whole lines and has a console of plain lines.
    """

    log = Logger()

    def __init__(self, house: TelnetFactory, peer: Any) -> None:
        super().__init__()
        self._house = house
        self._address = getattr(peer, "host", "-")
        self._state = self._data
        self._command = b""
        self._sub = bytearray()
        self._after_return = False
        self._echo = False
        self._columns = COLUMNS
        self._link: TCPLink | None = None
        self._login: Login | None = None
        self._console: RemoteConsole | None = None
        self._late: Any = None
        self.negotiationMap[NAWS] = self._window

    @property
    def known(self) -> bool:
        """Whether somebody has logged in."""
        return self._console is not None

    def connectionMade(self) -> None:
        """Offer to echo, and ask who it is."""
        for name in ("setTcpKeepAlive", "setTcpNoDelay"):
            if (setter := getattr(self.transport, name, None)) is not None:
                setter(1)
        house = self._house
        self._link = TCPLink(house.desk.reactor, self.transport)
        for asked in (self.will(ECHO), self.will(SGA), self.do(NAWS)):
            asked.addErrback(lambda refused: None)
        self._late = house.desk.reactor.callLater(LOGIN_TIME, self._too_late)
        self._login = Login(
            house.desk.reactor,
            house.check,
            house.patience,
            self._address,
            say=self._say,
            echoing=lambda: self._echo,
            admitted=self._admitted,
            ended=self._link.close,
        )
        self._login.start()

    def connectionLost(self, reason: Failure | None = None) -> None:
        """The operator is gone."""
        # Twisted's own has the waiting negotiations fail; nobody waits here.
        self._house.connections.discard(self)
        if self._link is not None:
            self._link.lost()
        self._on_time()
        if self._login is not None:
            self._login.stop()
        if self._console is not None:
            self._console.stop()

    def close(self) -> None:
        """End the conversation."""
        if self._link is not None:
            self._link.close()

    def _write(self, data: bytes) -> None:
        if self._link is not None:
            self._link.write(data)

    def _say(self, text: str) -> None:
        self.write(text.replace("\n", "\r\n").encode())

    def write(self, data: bytes) -> None:
        """Send *data*, in which a byte of 255 is no command."""
        self._write(data.replace(IAC, IAC + IAC))

    def _too_late(self) -> None:
        self._late = None
        self._say("\nToo late.\n")
        self.close()

    def _on_time(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _admitted(self, user: str, ahead: bytes) -> None:
        self._on_time()
        house = self._house
        assert self._link is not None
        self.log.info("{user} logged in over telnet from {address}", user=user, address=self._address)
        self._console = RemoteConsole(
            house.desk,
            Caller(f"telnet {user}", self._address),
            _Escaped(self, self._link),
            terminal=self._echo,
            columns=self._columns,
            python=_is_here(self._address),
        )
        self._console.start()
        if ahead:
            self._console.dataReceived(ahead)

    # Bytes.

    def dataReceived(self, data: bytes) -> None:
        """Bytes from the client.

        Twisted's own parser raises at commands that it does not know and holds back a carriage
        return that nothing follows.
        """
        typed = bytearray()
        for number in range(len(data)):
            self._state(data[number : number + 1], typed)
        self._typed(typed)

    def _typed(self, typed: bytearray) -> None:
        if not typed:
            return
        data = bytes(typed)
        typed.clear()
        if self._console is not None:
            self._console.dataReceived(data)
        elif self._login is not None:
            self._login.dataReceived(data)

    def _data(self, byte: bytes, typed: bytearray) -> None:
        # CR LF and CR NUL are one key (RFC 1123 §3.3.1).
        follows_return, self._after_return = self._after_return, byte == b"\r"
        if byte == IAC:
            self._after_return = follows_return
            self._state = self._escaped
        elif not (follows_return and byte in (b"\n", b"\0")):
            typed += byte

    def _escaped(self, byte: bytes, typed: bytearray) -> None:
        self._state = self._data
        if byte == IAC:
            typed += byte
        elif byte in (WILL, WONT, DO, DONT):
            self._command = byte
            self._state = self._option
        elif byte == SB:
            self._sub.clear()
            self._state = self._subnegotiation
        elif byte in _KEYS:
            typed += _KEYS[byte]
        elif byte == AYT:
            self._say("\n[yes]\n")

    def _option(self, byte: bytes, typed: bytearray) -> None:
        self._state = self._data
        self._typed(typed)
        self.commandReceived(self._command, byte)

    def _subnegotiation(self, byte: bytes, typed: bytearray) -> None:
        if byte == IAC:
            self._state = self._subnegotiation_escaped
        elif len(self._sub) <= _LONGEST_SUBNEGOTIATION:
            self._sub += byte

    def _subnegotiation_escaped(self, byte: bytes, typed: bytearray) -> None:
        if byte == SE:
            self._state = self._data
            if self._sub:
                self.negotiate([bytes([code]) for code in self._sub])
        else:
            self._state = self._subnegotiation
            if len(self._sub) <= _LONGEST_SUBNEGOTIATION:
                self._sub += byte

    # Options.

    def enableLocal(self, option: bytes) -> bool:
        """What the client asks of us."""
        if option == ECHO:
            self._echo = True
        return option in (ECHO, SGA)

    def disableLocal(self, option: bytes) -> None:
        """What the client asks us to leave; a console stays what it began as."""
        if option == ECHO:
            self._echo = False

    def enableRemote(self, option: bytes) -> bool:
        """What the client offers."""
        return option in (NAWS, SGA)

    def disableRemote(self, option: bytes) -> None:
        """What the client does no more."""

    def _window(self, data: list[bytes]) -> None:
        """The size of its window (RFC 1073)."""
        if len(data) == 4:
            self._columns = int.from_bytes(b"".join(data[:2]), "big") or COLUMNS
            if self._console is not None:
                self._console.resized(self._columns)


class _Escaped:
    """The link of a conversation, in which a byte of 255 is no command."""

    def __init__(self, conversation: Conversation, link: TCPLink) -> None:
        self.write = conversation.write
        self.close = link.close
        self.abort = link.abort
        self._link = link

    @property
    def blocked(self) -> bool:
        """See :class:`~llmproxyd.operator.remote.Link`."""
        return self._link.blocked


class _Full(Protocol):
    """Turns a client away."""

    def connectionMade(self) -> None:
        """Say why."""
        assert self.transport is not None
        self.transport.write(b"Too many operators are connected.\r\n")
        self.transport.loseConnection()


class TelnetFactory(Factory):
    """All conversations.

    :param check: whether a user may log in with a password.
    """

    noisy = False

    def __init__(self, desk: Desk, check: Callable[[str, str], Deferred[bool]]) -> None:
        self.desk = desk
        self.check = check
        self.patience = Patience(desk.reactor.seconds)
        self.connections: set[Conversation] = set()

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        """A conversation, as long as there is room."""
        unknown = sum(not one.known for one in self.connections)
        if len(self.connections) >= MOST or unknown >= MOST_UNKNOWN:
            return _Full()
        made = Conversation(self, addr)
        self.connections.add(made)
        return made

    def stop(self) -> None:
        """End all conversations."""
        for one in list(self.connections):
            one.close()


def _is_here(address: str) -> bool:
    """Whether *address* is of this machine."""
    if address == "-":
        return True
    try:
        return ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False
