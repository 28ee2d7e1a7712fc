"""Cache keys: the tenant, the upstream, and all of a request that may change its answer."""

from __future__ import annotations

from collections.abc import Sequence

from llmproxyd.model import Request


def url_of(upstream: str, target: bytes) -> bytes:
    """What :attr:`Entry.url <llmproxyd.cache.interface.Entry.url>` is.

    :param target: raw path and query; credentials in the query are left out, arguments sorted.
    """
    raise NotImplementedError


def key_of(
    tenant: str,
    upstream: str,
    request: Request,
    target: bytes,
    body: bytes = b"",
    fields: Sequence[bytes] = (),
) -> bytes:
    """The key of *request*, 32 bytes.

    :param tenant: project id, or an HMAC of the credential presented; empty where entries are shared.
    :param target: raw path and query, less what selected the upstream.
    :param body: all of it (POST).
    :param fields: names (lower case) of request fields that belong to the key.
    """
    raise NotImplementedError
