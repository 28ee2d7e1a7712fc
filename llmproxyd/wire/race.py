"""From a name to a connection: happy eyeballs, as RFC 8305 has it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import (
    ConnectError,
    ConnectionRefusedError,
    DNSLookupError,
    TimeoutError,
)
from twisted.internet.interfaces import (
    IAddress,
    IConnector,
    IDelayedCall,
    IHostResolution,
    IResolutionReceiver,
)
from twisted.internet.protocol import ClientFactory
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from llmproxyd.wire.transport import dissolve

HEAD_START = 0.25
"""Seconds that an address has before the next one is tried beside it.  RFC 8305 §5."""


class _Address(ClientFactory[TwistedProtocol]):
    """One address that is tried."""

    noisy = False

    def __init__(self, race: Race) -> None:
        self._race: Race | None = race
        self._connector: IConnector | None = None
        self._transport: Any = None

    def startedConnecting(self, connector: IConnector) -> None:
        """The reactor has taken it on."""
        self._connector = connector
        self._transport = getattr(connector, "transport", None)

    def buildProtocol(self, addr: IAddress | None) -> _Arrival:
        """There is a connection."""
        return _Arrival(self)

    def arrived(self, transport: Any) -> None:
        """It can be used."""
        race = self._let_go()
        if race is None:
            transport.abortConnection()
        else:
            race.won(self, transport)

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        """There is none."""
        dissolve(connector, self._transport)
        self._transport = None
        race = self._let_go()
        if race is not None:
            race.lost(self, reason)

    def clientConnectionLost(self, connector: IConnector, reason: Failure) -> None:
        """There was one; who has it is told by it."""
        dissolve(connector, self._transport)
        self._transport = None

    def give_up(self, reactor: Any) -> None:
        """Another one was faster."""
        connector, transport = self._connector, self._transport
        if self._let_go() is not None and connector is not None:
            connector.stopConnecting()
            # It may only be about to begin, and then ties its knots in the next turn.
            reactor.callLater(0, dissolve, connector, transport)

    def _let_go(self) -> Race | None:
        race, self._race = self._race, None
        self._connector = None
        return race


class _Arrival(TwistedProtocol):
    """Tells that a connection is there; then another protocol takes its place."""

    def __init__(self, address: _Address) -> None:
        self._address = address

    def connectionMade(self) -> None:
        self._address.arrived(self.transport)


class Racing(Protocol):
    """Who wants one connection out of several addresses."""

    def reached(self, transport: Any) -> None:
        """The first that came about."""

    def unreached(self, reason: Failure) -> None:
        """None did."""


@implementer(IResolutionReceiver)
class Race:
    """Happy eyeballs: the first address that answers.  RFC 8305.

    The addresses of both families alternate.  Each one begins a little after the one before,
    or as soon as that one has failed.

    :param host: a name or an address.
    """

    def __init__(self, reactor: Any, host: bytes, port: int, owner: Racing) -> None:
        self._reactor = reactor
        self._host = host.decode("ascii")
        self._port = port
        self._owner: Racing | None = owner
        self._found: list[IAddress] = []
        self._left: list[str] = []
        self._trying: list[_Address] = []
        self._timer: IDelayedCall | None = None
        self._reason: Failure | None = None

    def start(self) -> None:
        """Begin; the owner is told later, never from here."""
        host = self._host
        if isIPAddress(host) or isIPv6Address(host):
            self._left = [host]
            self._next()
            return
        try:
            host.encode("idna")
        except UnicodeError:
            # The resolver would fail with it in a thread, and tell nobody.
            self._timer = self._reactor.callLater(0, self._unresolved)
            return
        self._reactor.nameResolver.resolveHostName(self, host, self._port)

    def cancel(self) -> None:
        """Nobody wants it any more."""
        self._finish()

    # As the receiver of addresses.

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        """A look-up cannot be stopped; its result is ignored when it comes too late."""

    def addressResolved(self, address: IAddress) -> None:
        """One more."""
        self._found.append(address)

    def resolutionComplete(self) -> None:
        """That were all."""
        if self._owner is None:
            return
        self._left = interleaved(self._found)
        if self._left:
            self._next()
        else:
            self._unresolved()

    def _unresolved(self) -> None:
        self._timer = None
        owner = self._finish()
        if owner is not None:
            owner.unreached(Failure(DNSLookupError("the name has no address")))

    # From the addresses.

    def won(self, address: _Address, transport: Any) -> None:
        """The first connection; there is no second."""
        self._trying.remove(address)
        owner = self._finish()
        if owner is not None:
            owner.reached(transport)

    def lost(self, address: _Address, reason: Failure) -> None:
        """Not this one."""
        self._trying.remove(address)
        if self._reason is None or _telling(reason) > _telling(self._reason):
            self._reason = reason
        if self._left:
            self._next()
        elif not self._trying:
            owner, said = self._finish(), self._reason
            if owner is not None:
                owner.unreached(said)

    def _next(self) -> None:
        self._stop_timer()
        self._timer = None
        address = _Address(self)
        self._trying.append(address)
        host = self._left.pop(0)
        if self._left:
            self._timer = self._reactor.callLater(HEAD_START, self._next)
        # Without a timeout of its own: the attempt has one.
        self._reactor.connectTCP(host, self._port, address, timeout=None)

    def _finish(self) -> Racing | None:
        owner, self._owner = self._owner, None
        self._stop_timer()
        trying, self._trying = self._trying, []
        for address in trying:
            address.give_up(self._reactor)
        return owner

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()


def interleaved(found: Iterable[IAddress]) -> list[str]:
    """The addresses in the order in which they are tried: families by turns.  RFC 8305 §4."""
    families: dict[type, list[str]] = {}
    for address in found:
        if isinstance(address, IPv4Address | IPv6Address):
            families.setdefault(type(address), []).append(address.host)
    lists = list(families.values())
    longest = max(map(len, lists), default=0)
    return [hosts[at] for at in range(longest) for hosts in lists if at < len(hosts)]


def _telling(reason: Failure) -> int:
    """Of several failures the one to report: a refusal says more than silence."""
    if reason.check(ConnectionRefusedError):
        return 2
    return 0 if reason.check(TimeoutError) or not reason.check(ConnectError) else 1
