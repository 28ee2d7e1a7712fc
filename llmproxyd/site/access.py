"""Who may read the local pages that tell more than that we are alive.

They answer a caller on this machine that comes directly and under a name of this machine (a web
page could have its own name lead here), or whoever holds the admin token.
"""

from __future__ import annotations

import json
from ipaddress import IPv6Address, ip_address

from twisted.web.iweb import IRequest

from llmproxyd.http.headers import first
from llmproxyd.model import Request
from llmproxyd.pipeline.guard import is_local_name
from llmproxyd.pipeline.route import host_name
from llmproxyd.redaction import Secret

CODE = "local_only"

MESSAGE = (
    "This page answers callers on this machine that come directly, under one of its own names "
    "(no Forwarded, X-Forwarded-For or X-Real-IP field), and those that present the admin token as "
    "Authorization: Bearer."
)


def allowed(request: Request, token: Secret | None) -> bool:
    """Whether *request* may see a local page.

    :param token: of the admin; ``None`` where there is none.
    """
    host = host_name(request).decode("latin-1")
    here = is_local(request.peer) and is_local_name(host) and not _forwarded(request)
    return here or _holds(request, token)


def is_local(peer: str) -> bool:
    """Whether *peer* (``host:port``) is this machine.

    One without an address (``-``) came over a Unix socket.
    """
    if peer == "-":
        return True
    try:
        address = ip_address(peer.rpartition(":")[0].strip("[]"))
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback


def _forwarded(request: Request) -> bool:
    """Whether a proxy in front says that it speaks for someone else."""
    for name, _ in request.headers:
        lower = name.lower()
        if lower in (b"forwarded", b"x-real-ip") or lower.startswith(b"x-forwarded-"):
            return True
    return False


def _holds(request: Request, token: Secret | None) -> bool:
    if token is None or not token.reveal():
        return False
    scheme, _, presented = (first(request.headers, b"authorization") or b"").partition(b" ")
    # Secrets are compared in constant time.
    return scheme.lower() == b"bearer" and Secret(presented.strip().decode("latin-1")) == token


def refuse(request: IRequest) -> bytes:
    """Answer 403, and say who may."""
    request.setResponseCode(403)
    request.setHeader(b"content-type", b"application/json")
    request.setHeader(b"cache-control", b"no-store")
    request.setHeader(b"x-llmproxyd-error", b"proxy")
    request.setHeader(b"x-llmproxyd-code", CODE.encode())
    return json.dumps({"error": {"code": CODE, "message": MESSAGE}}).encode() + b"\n"
