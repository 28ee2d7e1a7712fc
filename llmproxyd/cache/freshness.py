"""For how long a response is fresh, how old it came, and on what terms.  RFC 9111 §4.2, §5.2.2."""

from __future__ import annotations

from dataclasses import dataclass

from llmproxyd.cache.directives import MOST, NOTHING, Directives, read, read_structured
from llmproxyd.cache.fields import Found, finder, only
from llmproxyd.http.dates import seconds_of

find = finder(
    (
        b"age",
        b"cache-control",
        b"cdn-cache-control",
        b"content-encoding",
        b"content-range",
        b"date",
        b"etag",
        b"expires",
        b"last-modified",
        b"pragma",
        b"vary",
    )
)
"""The fields of a response that are looked at."""


@dataclass(slots=True)
class Terms:
    """What a response says of its reuse by a shared cache.  Nobody changes those of :func:`terms_of`.

    :param said: all its directives.
    :param lifetime: seconds, ``None`` where it names none.
    :param confirm: it must not be reused without asking (``no-cache``).
    :param strict: it must not be reused once it is stale.
    :param everyone: the upstream says that it is the same for everyone (``public``, ``s-maxage``).
    :param if_error: seconds beyond its lifetime for which it may stand in for an error.
    :param meanwhile: seconds beyond its lifetime for which it may be served while it is asked for anew.
    """

    said: Directives
    lifetime: float | None
    confirm: bool = False
    strict: bool = False
    everyone: bool = False
    if_error: float = 0.0
    meanwhile: float = 0.0


_SAYING = frozenset({b"cache-control", b"cdn-cache-control", b"expires", b"pragma"})
_SILENT = Terms(NOTHING, None)


def terms_of(found: Found, received: float) -> Terms:
    """The terms of a response.

    ``CDN-Cache-Control``, where it is valid, is all that counts (RFC 9213 §2.2); otherwise
    ``Cache-Control`` and ``Expires`` do.

    :param received: seconds since the epoch.
    """
    if _SAYING.isdisjoint(found):
        return _SILENT
    said = None
    if b"cdn-cache-control" in found:
        said = read_structured(found[b"cdn-cache-control"])
    targeted = said is not None
    if said is None:
        said = read(found[b"cache-control"]) if b"cache-control" in found else NOTHING
    lifetime = None
    if said:
        lifetime = said.seconds(b"s-maxage")
        if lifetime is None:
            lifetime = said.seconds(b"max-age")
    if lifetime is None and not targeted and b"expires" in found:
        lifetime = _until_expires(found, received)
    terms = Terms(said, lifetime)
    if said:
        _restrict(terms, said)
    elif b"pragma" in found and b"cache-control" not in found:
        # Means nothing in a response (RFC 9111 §5.4); one that says so is not for a configured lifetime.
        terms.confirm = b"no-cache" in b",".join(found[b"pragma"]).lower()
    return terms


def _restrict(terms: Terms, said: Directives) -> None:
    shared = said.has(b"s-maxage")
    terms.confirm = said.has(b"no-cache")
    # s-maxage includes proxy-revalidate (RFC 9111 §5.2.2.10).
    terms.strict = shared or said.has(b"must-revalidate") or said.has(b"proxy-revalidate")
    terms.everyone = shared or said.permits(b"public")
    if not terms.strict and not terms.confirm:
        terms.if_error = said.seconds(b"stale-if-error") or 0.0
        terms.meanwhile = said.seconds(b"stale-while-revalidate") or 0.0


def _until_expires(found: Found, received: float) -> float:
    """Seconds from ``Date`` to ``Expires``; 0 for what is no date (RFC 9111 §5.3)."""
    value = only(found, b"expires")
    expires = None if value is None else seconds_of(value, received)
    if expires is None:
        return 0.0
    sent = date_of(found, received)
    return min(max(0.0, expires - (received if sent is None else sent)), MOST)


def date_of(found: Found, received: float) -> float | None:
    """When the response was made, as it says."""
    value = only(found, b"date")
    return None if value is None else seconds_of(value, received)


def initial_age(found: Found, requested: float, received: float) -> float:
    """The corrected initial age, seconds.  RFC 9111 §4.2.3.

    An upstream whose clock is behind makes it older, one whose clock is ahead not younger.
    """
    age = 0.0
    if b"age" in found:
        # Of several members the first counts, and what is no number does not (RFC 9111 §5.1).
        value = found[b"age"][0].partition(b",")[0].strip(b" \t")
        if value.isdigit():
            age = float(MOST if len(value) > 10 else min(int(value), MOST))
    corrected = age + max(0.0, received - requested)
    sent = date_of(found, received) if b"date" in found else None
    return corrected if sent is None else max(corrected, received - sent)
