"""Cache keys: the tenant, the upstream, and all of a request that may change its answer.

Nothing that a client says of itself is taken on trust: the body is hashed here, and no field
names a hash, a tenant or a URL.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from hashlib import blake2b, sha256
from typing import Final
from urllib.parse import unquote_to_bytes

from llmproxyd.cache.fields import finder
from llmproxyd.model import Request

CREDENTIALS: Final = frozenset(
    {b"access_token", b"api-key", b"api_key", b"apikey", b"key", b"x-api-key", b"x-goog-api-key"}
)
"""Arguments in which clients present credentials; they belong to no key: the tenant stands for them.

Only these, written just so: ``pageToken`` is an argument like any other.
"""

_SECRETS: Final = re.compile(rb"auth|code|credential|key|passw|secret|sig|token", re.IGNORECASE)
"""What the names of arguments hold whose values may be secret: a URL shows a hash of those."""

_ALWAYS: Final = frozenset(
    {
        b"anthropic-beta",
        b"anthropic-version",
        b"openai-beta",
        b"openai-organization",
        b"openai-project",
        b"x-forwarded-host",
        b"x-forwarded-proto",
        b"x-forwarded-scheme",
        b"x-goog-user-project",
        b"x-host",
    }
)
"""Fields that change what providers answer without ever standing in ``Vary``."""

_OF_BODIES: Final = frozenset({b"accept", b"content-encoding", b"content-language", b"content-type"})
"""Fields by which the same bytes are another request."""

_always = finder(_ALWAYS)
_with_body = finder(_ALWAYS | _OF_BODIES)


def url_of(upstream: str, target: bytes) -> bytes:
    """What :attr:`Entry.url <llmproxyd.cache.interface.Entry.url>` is.

    Arguments are sorted by name, those of one name stay in their order.  One that may be a
    secret without being a credential of the client's is there as a hash.

    :param target: raw path and query; credentials in the query are left out, arguments sorted.
    """
    path, mark, query = target.partition(b"?")
    if mark:
        parts = [part for part in map(_argument, query.split(b"&")) if part is not None]
        parts.sort(key=_name)
        if parts:
            path += b"?" + b"&".join(parts)
    return upstream.encode("utf-8", "surrogatepass") + b" " + path


def _name(part: bytes) -> bytes:
    return part.partition(b"=")[0]


def _argument(part: bytes) -> bytes | None:
    """*part* of a query as it stands in a URL of ours; ``None`` for a credential."""
    name, equals, value = part.partition(b"=")
    if not equals:
        return part
    plain = unquote_to_bytes(name) if b"%" in name else name
    if b";" in part:
        # To some servers it parts two arguments: no credential ends there for certain.
        plain = unquote_to_bytes(part)
    elif plain in CREDENTIALS:
        return None
    if value and _SECRETS.search(plain):
        return b"%b=%b" % (name, blake2b(part, digest_size=32).hexdigest().encode())
    return part


def key_of(
    tenant: str,
    upstream: str,
    request: Request,
    target: bytes,
    body: bytes = b"",
    fields: Sequence[bytes] = (),
) -> bytes:
    """The key of *request*, 32 bytes.

    HEAD has the key of GET, whose entries answer it.  Each part goes in with its length before
    it, so that no separator can be smuggled in.

    :param tenant: project id, or an HMAC of the credential presented; empty where entries are shared.
    :param target: raw path and query, less what selected the upstream.
    :param body: all of it (POST).
    :param fields: names (lower case) of request fields that belong to the key.
    """
    return Keys(tenant, upstream, request, target, fields).of(body)


class Keys:
    """The keys of all requests with one head: what comes of the head is worked out once.

    The parameters are those of :func:`key_of`.

    :ivar url: what :func:`url_of` makes of it.
    """

    __slots__ = ("_begun", "url")

    def __init__(
        self, tenant: str, upstream: str, request: Request, target: bytes, fields: Sequence[bytes] = ()
    ) -> None:
        method = b"GET" if request.method == b"HEAD" else request.method
        self.url = url_of(upstream, target)
        parts = [tenant.encode("utf-8", "surrogatepass"), method, self.url]
        find = _with_body if method == b"POST" else _always
        for name, values in sorted(find(request.headers).items()):
            parts += _field(name, values)
        for name in sorted(set(fields)):
            parts += _field(name, [value for key, value in request.headers if key.lower() == name])
        # How many parts there are tells where the body begins.
        # SHA-256, as CPUs have instructions for it: a body costs half of what it does with BLAKE2.
        self._begun = sha256(b"llmproxyd cache %d;%b" % (len(parts), _joined(parts)))

    def of(self, body: bytes = b"") -> bytes:
        """The key of the request with this body."""
        key = self._begun.copy()
        key.update(body)
        return key.digest()


def _field(name: bytes, values: Iterable[bytes]) -> list[bytes]:
    parts = [name]
    parts += [b"=" + value.strip(b" \t") for value in values]
    return parts


def _joined(parts: Sequence[bytes]) -> bytes:
    return b"".join([b"%d:%b" % (len(part), part) for part in parts])
