"""What a browser is told of which web pages may do what (CORS, https://fetch.spec.whatwg.org).

Nothing more than is really allowed: the one origin that asked, the methods of the allowlist.
Tokens come in header fields that the page sets itself, so nothing is said of credentials, and no
browser sends a cookie.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from llmproxyd.access.allowlist import method_not_allowed, normal_origin, origin_not_allowed
from llmproxyd.errors import Refused
from llmproxyd.http.headers import first
from llmproxyd.model import RawHeaders, Request

MAX_AGE = 600
"""Seconds for which a browser may go by an answer: lists change."""

MAX_NAMES = 100
"""Header fields that a page may ask for."""

_VARY = b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers"
_ORIGIN = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://[!-~]{1,255}|null")
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
_RESERVED = frozenset(
    b"accept-charset accept-encoding connection content-length cookie cookie2 date dnt expect host keep-alive"
    b" origin referer set-cookie te trailer transfer-encoding upgrade via x-http-method"
    b" x-http-method-override x-method-override x-original-url x-rewrite-url".split()
)
"""Fields that are no page's business to set: the browser's own, and those that would change the request."""


def is_preflight(request: Request) -> bool:
    """Whether a browser asks what a page may do."""
    return (
        request.method == b"OPTIONS"
        and first(request.headers, b"origin") is not None
        and first(request.headers, b"access-control-request-method") is not None
    )


def allowed_origin(request: Request, origins: Collection[str]) -> bytes | None:
    """The origin of *request* as the browser spelt it, if it is one of *origins*.

    :param origins: as :attr:`Allowlist.origins` has them; ``*`` for any.  None listed, none allowed.
    """
    found = [value for name, value in request.headers if name.lower() == b"origin"]
    if len(found) != 1 or not _ORIGIN.fullmatch(found[0]):
        return None
    listed = "*" in origins or normal_origin(found[0].decode("ascii")) in origins
    return found[0] if listed else None


def preflight(
    request: Request, origins: Collection[str], methods: Collection[str] = ()
) -> list[tuple[bytes, bytes]]:
    """The fields of the answer (204) to a preflight.

    :param methods: none for any.
    :raises Refused: 403 ``origin_not_allowed``, 405 ``method_not_allowed``; 400
        ``bad_preflight``.
    """
    origin = allowed_origin(request, origins)
    if origin is None:
        refusal = origin_not_allowed()
        raise Refused(refusal.status, refusal.code, refusal.message, ((b"vary", _VARY),))
    asked = first(request.headers, b"access-control-request-method") or b""
    if not _TOKEN.fullmatch(asked):
        raise Refused(400, "bad_preflight", "Access-Control-Request-Method names no method.")
    if methods and asked.decode("ascii") not in methods:
        raise method_not_allowed(methods)
    allowed = ", ".join(methods).encode("ascii") if methods else asked
    fields = [
        (b"access-control-allow-origin", origin),
        (b"access-control-allow-methods", allowed),
        (b"access-control-max-age", b"%d" % MAX_AGE),
        (b"vary", _VARY),
    ]
    names = _names(request)
    if names:
        fields.insert(2, (b"access-control-allow-headers", b", ".join(names)))
    return fields


def fields_for(origin: bytes) -> RawHeaders:
    """The fields of an answer that let the page of *origin* read it, all its fields included.

    They take the place of the upstream's own of these names, but for ``Vary``, which is added.
    """
    return (
        (b"access-control-allow-origin", origin),
        (b"access-control-expose-headers", b"*"),
        (b"vary", b"Origin"),
    )


def _names(request: Request) -> list[bytes]:
    """The header fields that the page asks for, as far as it may set them."""
    found: dict[bytes, None] = {}
    for name, value in request.headers:
        if name.lower() == b"access-control-request-headers":
            found.update(
                dict.fromkeys(one.strip().lower() for one in value.split(b",", MAX_NAMES)[:MAX_NAMES])
            )
    return [name for name in found if _TOKEN.fullmatch(name) and not _is_reserved(name)][:MAX_NAMES]


def _is_reserved(name: bytes) -> bool:
    return name in _RESERVED or name.startswith((b"proxy-", b"sec-", b"access-control-"))
