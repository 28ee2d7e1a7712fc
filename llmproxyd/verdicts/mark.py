"""By what a request is known again: who asks, where, and for what."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import blake2b

from llmproxyd.access.presented import credentials_of
from llmproxyd.http.headers import first
from llmproxyd.inspection.inflate import inflated
from llmproxyd.model import Request

READ = 1024 * 1024
"""Bytes of a body that are read to tell whether it says the same; a longer one is taken as it is."""

LONGEST_NAME = 60
"""Characters of a client's name that are shown."""

SESSION = b"goose-session-id"
RETRY_COUNT = b"x-stainless-retry-count"

_BOUNDARY = re.compile(rb'boundary="?([^";,]{1,200})', re.IGNORECASE)
_PRODUCT = re.compile(r"[\w.+\-]+(?:/[\w.+\-]+)?(?: [\w.+\-]+)?")


@dataclass(frozen=True, slots=True)
class Client:
    """Who asks, and where.

    :param id: differs from one credential, user agent or session to the next; no secret can be had from it.
    :param name: for people.
    :param test: the test that it belongs to, ``None`` for none.
    """

    id: bytes
    name: str
    upstream: str
    path: str
    test: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request that has come.

    :param mark: the same for the same request of the same client, and for no other one.
    :param at: when its head was here, monotonic seconds.
    :param peer: the connection that it came on.
    :param count: how often the client's SDK says it has tried before, ``None`` where it does not say.
    """

    id: str
    client: Client
    mark: bytes
    at: float
    peer: str = "-"
    count: int | None = field(default=None)


def client_of(key: bytes, request: Request, upstream: str, target: bytes, test: str | None) -> Client | None:
    """Who sent *request*; ``None`` where that cannot be told.

    :param key: of the HMAC, so that no credential can be found by trying.
    :param target: raw path and query, as it goes to the upstream.
    """
    credentials = credentials_of(request)
    host = request.peer.rpartition(":")[0]
    if not credentials and not host:
        return None
    agent = first(request.headers, b"user-agent") or b""
    session = first(request.headers, SESSION) or b""
    who = [text.encode("utf-8", "surrogatepass") for text in credentials or (host,)]
    id = _digest(key, [b"%d" % bool(credentials), agent, session, (test or "").encode(), *who])
    path = target.partition(b"?")[0].decode("latin-1")
    shown = path if path.isprintable() else repr(path)[1:-1]
    return Client(id, f"{_name_of(agent)} ({id.hex()[:6]})", upstream, shown[:200], test)


def mark_of(key: bytes, client: Client, request: Request, target: bytes, body: bytes) -> bytes:
    """By which the same request of *client* is known again."""
    path, _, query = target.partition(b"?")
    # The credential is the client's.
    arguments = [part for part in query.split(b"&") if not part.startswith(b"key=")]
    parts = [client.id, client.upstream.encode(), request.method, path, b"&".join(arguments)]
    return _digest(key, [*parts, normal(request, body)])


def count_of(request: Request) -> int | None:
    """How often the client's SDK says that it has tried before."""
    text = first(request.headers, RETRY_COUNT)
    return int(text) if text is not None and text.isdigit() and len(text) <= 4 else None


def normal(request: Request, body: bytes) -> bytes:
    """*body* in the form that every try of an SDK has.

    The members of JSON are in order and without space between them, a form has always the same boundary,
    and what is coded is decoded (gzip holds the time of day).
    """
    coding = first(request.headers, b"content-encoding") or b""
    if len(body) > READ:
        return body
    if coding:
        body = inflated(body, coding, READ) or body
    media = first(request.headers, b"content-type") or b""
    if media[:10].lower() == b"multipart/" and (found := _BOUNDARY.search(media)):
        return body.replace(found.group(1), b"-")
    try:
        text = json.dumps(json.loads(body), sort_keys=True, separators=(",", ":"))
    except (ValueError, RecursionError):
        return body
    return text.encode()


def _digest(key: bytes, parts: Iterable[bytes]) -> bytes:
    digest = blake2b(key=key, digest_size=16)
    for part in parts:
        # Each with its length before it, so that none can pass for two.
        digest.update(b"%d:" % len(part))
        digest.update(part)
    return digest.digest()


def _name_of(agent: bytes) -> str:
    """The product that a client says it is."""
    found = _PRODUCT.match(agent[:200].decode("latin-1").strip())
    return found.group()[:LONGEST_NAME] if found else "a client"
