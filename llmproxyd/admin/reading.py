"""What a request says: the parts of its path, its query and its body."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote

from twisted.web.http import Request

from llmproxyd.admin.body import MAX_BODY, read_json
from llmproxyd.admin.route import BASE, Route
from llmproxyd.config.problems import quoted
from llmproxyd.control.forms import Whole, taken
from llmproxyd.errors import Refused

_ABSOLUTE = re.compile(rb"https?://[^/?#]*", re.IGNORECASE)
_INTEGER = re.compile(r"-?[0-9]{1,18}", re.ASCII)
_TYPES = {"application/json"}
_PATCH_TYPES = _TYPES | {"application/merge-patch+json"}


def split_target(uri: bytes) -> tuple[bytes, bytes]:
    """Path and query of a request's target, which may be an absolute URL (RFC 9112 §3.2.2)."""
    path, _, query = _ABSOLUTE.sub(b"", uri, count=1).partition(b"?")
    return path, query


def names_in(path: bytes) -> list[str]:
    """The parts of a raw path below :data:`BASE`, decoded one by one; none where it is elsewhere."""
    base = BASE.encode() + b"/"
    if not path.startswith(base):
        return []
    try:
        return [unquote(part.decode("ascii"), errors="strict") for part in path[len(base) :].split(b"/")]
    except ValueError:
        return []


def query_of(route: Route, query: bytes) -> dict[str, Any]:
    """The query as the route's form reads it.

    :raises Refused: 400 ``invalid_query``.
    """
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=20)
    except ValueError:
        raise Refused(400, "invalid_query", "The query cannot be read.") from None
    given: dict[str, object] = {}
    for name, value in pairs:
        if name in given:
            raise Refused(400, "invalid_query", f"The query has {quoted(name)} twice.")
        kind = route.query.members.get(name)
        number = isinstance(kind, Whole) and _INTEGER.fullmatch(value)
        given[name] = int(value) if number else value
    return taken(route.query, given, "invalid_query")


def body_of(route: Route, request: Request) -> Mapping[str, object]:
    """The body as JSON.

    :raises Refused: 400, 413, 415.
    """
    if getattr(request, "too_long", False):
        raise Refused(413, "body_too_long", f"The body is longer than {MAX_BODY // 1024} KiB.")
    data: bytes = request.content.read() if request.content is not None else b""
    if not data and (route.body is None or route.body_optional):
        return {}
    if data:
        _check_type(route, request)
    value: object = read_json(data) if data else None
    if route.body is None and value != {} and route.method not in ("GET", "DELETE"):
        raise Refused(400, "unexpected_body", "Nothing is taken here but an empty object, or no body.")
    if data and not isinstance(value, dict) and route.body is not None:
        return taken(route.body, value)
    if not isinstance(value, dict):
        raise Refused(400, "malformed_json", "A JSON object is needed as the body.")
    return value


def _check_type(route: Route, request: Request) -> None:
    """Refuse a body that is not JSON: a web page's form can be sent without asking, JSON cannot.

    :raises Refused: 415.
    """
    kind = (request.getHeader(b"content-type") or b"").decode("latin-1")
    media, _, rest = kind.partition(";")
    charset = re.search(r"charset\s*=\s*\"?([\w-]+)", rest, re.IGNORECASE)
    accepted = _PATCH_TYPES if route.method == "PATCH" else _TYPES
    coded = (request.getHeader(b"content-encoding") or b"identity").lower() != b"identity"
    if media.strip().lower() not in accepted or (charset and charset[1].lower() not in ("utf-8", "utf8")):
        raise Refused(415, "unsupported_media_type", f"The body must be {' or '.join(sorted(accepted))}.")
    if coded:
        raise Refused(415, "unsupported_coding", "The body must not be compressed.")
