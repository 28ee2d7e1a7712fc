"""Opening the listening ports, with an answer in one line when that fails."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.python.failure import Failure

ANY_PORT = re.compile(r"(tcp6?|ssl):0(?=:|$)")
TRIES = 20
"""How often another free port is tried when it is not free on all addresses."""

ABSENT = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)

BACKLOG = 1024
"""Connections that may wait to be accepted where an endpoint names no number: Twisted's own 50 are fewer
than a burst of clients, and the system resets the rest.  The system's own bound (``somaxconn``) stays."""

_HAS_BACKLOG = re.compile(r"(?:tcp6?|ssl|unix):")


class StartError(Exception):
    """The daemon cannot start; the message is one line that says why and what to do."""


@dataclass(frozen=True, slots=True)
class Listening:
    """Open ports and how to reach them.

    :param urls: one per port, in order.
    :param descriptions: what each was opened by.
    """

    ports: Sequence[IListeningPort]
    urls: Sequence[str]
    descriptions: Sequence[str] = ()

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Host and port of each that has them."""
        found = []
        for port in self.ports:
            address = port.getHost()
            if isinstance(address, IPv4Address | IPv6Address):
                found.append((address.host, address.port))
        return found

    @property
    def beyond_loopback(self) -> bool:
        """Whether another machine can connect."""
        return any(not ip_address(host).is_loopback for host, _ in self.addresses)


def changed(
    reactor: Any, before: Listening, descriptions: Sequence[str], factory: IProtocolFactory
) -> tuple[Listening, list[IListeningPort]]:
    """Listen on *descriptions* instead: what is open already stays open.

    :return: the new state, and the ports that are wanted no more and still open.
    :raises StartError: one of them cannot be listened on; then everything is as it was.
    """
    kept = {
        description: (port, url)
        for description, port, url in zip(before.descriptions, before.ports, before.urls, strict=True)
        if description in descriptions
    }
    added = listen(reactor, [one for one in descriptions if one not in kept], factory)
    found = dict(kept)
    found.update(
        {one: (port, url) for one, port, url in zip(added.descriptions, added.ports, added.urls, strict=True)}
    )
    order = [one for one in descriptions if one in found]
    after = Listening([found[one][0] for one in order], [found[one][1] for one in order], order)
    closing = [port for one, port in zip(before.descriptions, before.ports, strict=True) if one not in kept]
    return after, closing


def endpoints(port: int, interface: str | None) -> tuple[str, ...]:
    """Endpoint strings for *port* on *interface*, by default on both loopbacks."""
    if interface is None or interface == "localhost":
        return (*endpoints(port, "127.0.0.1"), *endpoints(port, "::1"))
    interface = interface.strip("[]")
    if ":" in interface:
        return (f"tcp6:{port}:interface=" + interface.replace(":", r"\:"),)
    return (f"tcp:{port}:interface={interface}",)


def listen(reactor: Any, descriptions: Iterable[str], factory: IProtocolFactory) -> Listening:
    """Listen on all *descriptions*; one free port is shared where several say ``0``.

    ``::1`` is left out on a host that does not have it, as long as another one is there.

    :raises StartError: one of them cannot be listened on; none is then left open.
    """
    wanted = list(descriptions)
    free_ports = sum(1 for one in wanted if ANY_PORT.match(one))
    for tries_left in reversed(range(TRIES)):
        opened: list[tuple[str, IListeningPort]] = []
        try:
            _open(reactor, wanted, factory, opened)
        except Exception as error:
            for _, port in opened:
                port.stopListening()
            # The port that was free on one address may be taken on the next.
            if isinstance(error, CannotListenError) and opened and free_ports > 1 and tries_left:
                continue
            raise _explained(error) from error
        return Listening(
            [port for _, port in opened], [_url(*one) for one in opened], [given for given, _ in opened]
        )
    raise AssertionError("unreachable")


def _open(
    reactor: Any,
    wanted: Sequence[str],
    factory: IProtocolFactory,
    opened: list[tuple[str, IListeningPort]],
) -> None:
    free: int | None = None
    for description in wanted:
        given = description
        if free is not None:
            description = ANY_PORT.sub(rf"\1:{free}", description)
        try:
            port = _one(reactor, description, factory)
        except CannotListenError as error:
            if opened and description.startswith("tcp6:") and _number(error) in ABSENT:
                continue
            raise
        opened.append((given, port))
        address = port.getHost()
        if ANY_PORT.match(given) and isinstance(address, IPv4Address | IPv6Address):
            free = address.port


def _one(reactor: Any, description: str, factory: IProtocolFactory) -> IListeningPort:
    """Listen now.  Every kind of server endpoint that Twisted has answers at once."""
    found: list[Any] = []
    try:
        serverFromString(reactor, _with_backlog(description)).listen(factory).addBoth(found.append)
    except Exception as error:
        # Twisted's parsers of endpoints raise whatever their values make them raise.
        raise StartError(f"listen: {description}: {error}") from error
    if not found:
        raise StartError(f"listen: {description}: it is not ready at once, which a daemon needs")
    if isinstance(found[0], Failure):
        if isinstance(found[0].value, CannotListenError):
            found[0].raiseException()
        raise StartError(f"listen: {description}: {found[0].getErrorMessage()}")
    port: IListeningPort = found[0]
    return port


def _with_backlog(description: str) -> str:
    """*description* with a number of connections that may wait, where it could name one and does not."""
    if not _HAS_BACKLOG.match(description) or ":backlog=" in description:
        return description
    return f"{description}:backlog={BACKLOG}"


def _explained(error: Exception) -> StartError:
    if isinstance(error, StartError):
        return error
    if isinstance(error, CannotListenError):
        return StartError(_why(error))
    return StartError(f"cannot listen: {error}")


def _number(error: CannotListenError) -> int | None:
    return getattr(error.socketError, "errno", None)


def _why(error: CannotListenError) -> str:
    number = _number(error)
    if not isinstance(error.port, int):
        return f"cannot listen on {error.port}: {error.socketError}"
    where = f"{error.interface or '*'}:{error.port}"
    if number == errno.EADDRINUSE:
        return (
            f"port {error.port} is in use on {error.interface or 'all interfaces'}; "
            "choose another one with --port, or stop what listens there"
        )
    if number in (errno.EACCES, errno.EPERM):
        return f"no permission to listen on {where}; ports below 1024 need it"
    if number in ABSENT:
        return f"this machine has no address {error.interface}"
    return f"cannot listen on {where}: {error.socketError}"


def _url(description: str, port: IListeningPort) -> str:
    address = port.getHost()
    if isinstance(address, UNIXAddress):
        name = address.name
        return "unix:" + (name.decode() if isinstance(name, bytes) else str(name))
    if not isinstance(address, IPv4Address | IPv6Address):
        return str(address)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(address.host, address.host)
    scheme = "https" if description.startswith("ssl:") else "http"
    return f"{scheme}://[{host}]:{address.port}" if ":" in host else f"{scheme}://{host}:{address.port}"
