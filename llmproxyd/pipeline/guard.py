"""Who may use a stored key from this machine: programs, and no web page by accident.

A page in a browser can send requests to a loopback port (and, by DNS rebinding, under a name
of its own).  Where the proxy adds a key that the caller does not have, both are refused.
"""

from __future__ import annotations

from ipaddress import ip_address

from llmproxyd.access.cors import allowed_origin, fields_for, is_preflight, preflight
from llmproxyd.errors import Refused
from llmproxyd.http.headers import first
from llmproxyd.model import RawHeaders, Request
from llmproxyd.pipeline.policy import Upstream
from llmproxyd.pipeline.route import host_name


def check_browser(request: Request, upstream: Upstream) -> None:
    """Refuse what only a web page would send, where *upstream* has a stored key.

    :raises Refused: 403 ``host_not_allowed`` or ``origin_not_allowed``.
    """
    if not upstream.keyed:
        return
    host = host_name(request).decode("latin-1")
    if not is_local_name(host):
        raise Refused(
            403,
            "host_not_allowed",
            "This proxy holds a key and listens on loopback; it answers to localhost, 127.0.0.1 "
            "and [::1] alone.",
        )
    origin = first(request.headers, b"origin")
    if origin is not None and allowed_origin(request, upstream.origins) is None:
        raise Refused(
            403,
            "origin_not_allowed",
            "Web pages may not use this proxy's key unless "
            f"upstreams.{upstream.name}.allow.origins lists them.",
        )


def preflight_of(request: Request, upstream: Upstream, *, access: bool) -> RawHeaders | None:
    """The answer to a browser's question what a page may do; ``None`` for any other request.

    It is answered here where we know: origins are listed, or clients present tokens of ours,
    which no such question carries.

    :raises Refused: 403, the page may not.
    """
    if not (upstream.origins or access) or not is_preflight(request):
        return None
    return preflight(request, upstream.origins, upstream.allowlist.methods)


def cross_origin(request: Request, upstream: Upstream) -> RawHeaders:
    """Fields that let the web page which sent *request* read the answer, where it is listed."""
    if not upstream.origins:
        return ()
    origin = allowed_origin(request, upstream.origins)
    return () if origin is None else fields_for(origin)


def is_local_name(host: str) -> bool:
    """Whether *host* names this machine's loopback."""
    if host in ("", "localhost") or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
