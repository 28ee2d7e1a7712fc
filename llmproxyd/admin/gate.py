"""Who may use the admin API.

Over a Unix socket: the user who runs the daemon, and root, by what the system says of the peer.
Else whoever presents ``admin.token``, or a project's token with the scope ``admin``.  Addresses that
present wrong ones are held back; web pages are kept out.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Collection
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any, Protocol

from twisted.internet.address import IPv4Address as TCP4
from twisted.internet.address import IPv6Address as TCP6
from twisted.internet.defer import Deferred
from twisted.web.http import Request

from llmproxyd.access.projects import Grant, Scope
from llmproxyd.access.tokens import looks_like, shown
from llmproxyd.admin.peer import is_unix, peer_uid
from llmproxyd.control.calls import Caller
from llmproxyd.errors import Refused
from llmproxyd.model import Denied
from llmproxyd.pipeline.guard import is_local_name
from llmproxyd.redaction import Secret

BURST = 10
"""Wrong tokens that an address may present at once."""
REFILL = 6.0
"""Seconds after which it may present one more."""
ADDRESSES = 1000
"""Addresses that are remembered; the one that was wrong the longest ago is forgotten."""
LONGEST = 4096
"""Bytes of a token that are looked at."""

_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._-]+)(?::[0-9]{1,5})?")
_CHALLENGE = ((b"WWW-Authenticate", b'Bearer realm="llmproxyd admin"'),)


class Admit(Protocol):
    """The grant of a project's token (:meth:`llmproxyd.store.interface.Door.admit`)."""

    def __call__(self, token: str) -> Grant | Deferred[Grant]: ...


class Gate:
    """Lets callers in.

    :param token: ``admin.token``.
    :param admit: for projects' tokens; ``None`` where access is off.
    :param uids: users that are let in over a Unix socket.
    :param monotonic: seconds.
    :param denied: told of everybody who is refused for a wrong token.
    """

    def __init__(
        self,
        *,
        token: Secret | None,
        admit: Admit | None,
        uids: Collection[int],
        owner: int,
        monotonic: Callable[[], float],
        denied: Callable[[Denied], None],
    ) -> None:
        self._token = token if token is not None and token.reveal() else None
        self._admit = admit
        self._uids = frozenset(uids)
        self._owner = owner
        self._failures = _Failures(monotonic)
        self._denied = denied

    async def caller(self, request: Request) -> Caller:
        """Who sent *request*.

        :raises Refused: 401, 403, 429; 503 where the store cannot be asked; 400 for its ``Host``.
        """
        _refuse_pages(request)
        transport: Any = request.channel.transport
        address = "-"
        if is_unix(transport):
            uid = peer_uid(transport, self._owner)
            if uid is not None and uid in self._uids:
                return Caller(f"socket uid={uid}")
            address = f"uid={'unknown' if uid is None else uid}"
        else:
            _check_host(request, transport)
            peer = request.getClientAddress()
            address = peer.host if isinstance(peer, TCP4 | TCP6) else "-"
        return await self._bearer(request, address)

    async def _bearer(self, request: Request, address: str) -> Caller:
        wait = self._failures.wait(address)
        if wait:
            raise Refused(
                429,
                "too_many_failures",
                "Too many wrong tokens came from this address.",
                ((b"Retry-After", str(wait).encode()),),
            )
        token = _presented(request)
        if token is None:
            raise Refused(
                401,
                "token_missing",
                "Present admin.token, or a project's token with the scope admin, as Authorization: Bearer.",
                _CHALLENGE,
            )
        # Secrets are compared in constant time.
        if self._token is not None and Secret(token) == self._token:
            return Caller("admin token", address)
        grant = await self._granted(token, address)
        return Caller(f"token {grant.token.id}", address)

    async def _granted(self, token: str, address: str) -> Grant:
        """The grant of a project's token that has the scope.

        :raises Refused: it is not good for this.
        """
        if self._admit is None or not looks_like(token):
            raise self._refused(token, address, "token_not_found")
        try:
            grant = self._admit(token)
            if isinstance(grant, Deferred):
                grant = await grant
        except Refused as error:
            if error.status == 401:
                raise self._refused(token, address, error.code) from None
            raise
        if Scope.ADMIN not in grant.token.scopes:
            self._denied(Denied(address=address, code="scope_missing", shown=grant.token.shown))
            raise Refused(403, "scope_missing", "This token has not the scope admin.")
        return grant

    def _refused(self, token: str, address: str, code: str) -> Refused:
        self._failures.count(address)
        start = shown(token) if looks_like(token) else None
        self._denied(Denied(address=address, code=code, shown=start))
        return Refused(401, code, "This token does not open the admin API.", _CHALLENGE)


class _Failures:
    """How many wrong tokens each address may still present: a bucket for each, bounded."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._full: OrderedDict[str, float] = OrderedDict()
        """When the bucket of an address is full again."""

    def wait(self, address: str) -> int:
        """Seconds until *address* may try; 0 for now."""
        empty = self._full.get(_group(address), 0.0) - self._monotonic() - (BURST - 1) * REFILL
        return max(0, -int(-empty // 1))

    def count(self, address: str) -> None:
        """Note a wrong token."""
        group = _group(address)
        now = self._monotonic()
        self._full[group] = max(now, self._full.pop(group, now)) + REFILL
        if len(self._full) > ADDRESSES:
            self._full.popitem(last=False)


def _group(address: str) -> str:
    """What counts as one address: of IPv6 the network, as a host has all of one."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, IPv6Address) and found.ipv4_mapped is None:
        return str(ip_network((found, 64), strict=False))
    return address


def _presented(request: Request) -> str | None:
    """The bearer token; ``None`` where there is none or several."""
    values = request.requestHeaders.getRawHeaders(b"authorization") or []
    if len(values) != 1 or len(values[0]) > LONGEST:
        return None
    scheme, _, token = values[0].decode("latin-1").strip().partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def _refuse_pages(request: Request) -> None:
    """Refuse what a browser sends for a web page.

    :raises Refused: 403.
    """
    if request.requestHeaders.hasHeader(b"origin"):
        raise Refused(403, "origin_not_allowed", "Web pages may not use the admin API.")


def _check_host(request: Request, transport: Any) -> None:
    """Refuse a ``Host`` that a page brought along with it (DNS rebinding), or that is none.

    :raises Refused: 400 or 403.
    """
    values = request.requestHeaders.getRawHeaders(b"host") or []
    host = values[0].decode("latin-1").strip() if len(values) == 1 else ""
    if not _HOST.fullmatch(host):
        raise Refused(400, "bad_host", "The request must have one Host field, with the name of a host.")
    here = transport.getHost()
    local = isinstance(here, TCP4 | TCP6) and ip_address(here.host.partition("%")[0]).is_loopback
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    if local and not is_local_name(name.lower()):
        raise Refused(
            403, "host_not_allowed", "This listener answers to localhost, 127.0.0.1 and [::1] alone."
        )
