"""Whose API a request speaks, from its head alone.

The signs stand with each provider as numbered rows; here they are put in order over all
providers, and the first that matches wins.  Never the body, never a whole key: the facts
that may be looked at are those of :class:`~llmproxyd.providers.base.Facts`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from llmproxyd.model import Request
from llmproxyd.providers.base import Facts, Provider

_KEY_PREFIX = 12
_KEY_FIELDS = (b"x-api-key", b"x-goog-api-key", b"api-key")


def facts_of(request: Request) -> Facts:
    """The facts of *request*, in one scan of its fields."""
    names = set()
    scheme = key = agent = b""
    for name, value in request.headers:
        lower = name.lower()
        names.add(lower)
        if lower == b"authorization":
            word, _, rest = value.partition(b" ")
            scheme, key = word.lower(), rest.lstrip()[:_KEY_PREFIX]
        elif lower == b"user-agent":
            agent = value[: value.find(b"/") + 1]
        elif lower in _KEY_FIELDS and not key:
            key = value[:_KEY_PREFIX]
    query = request.query
    query_names = frozenset(part.partition(b"=")[0] for part in query.split(b"&")) if query else frozenset()
    return Facts(request.method, request.path, query_names, frozenset(names), scheme, key, agent)


class Detector:
    """The rows of all providers, in order.

    :param by_key: whether rows that rest on a key's prefix hold; they do not where clients
        present tokens of our own.
    """

    def __init__(self, providers: Iterable[Provider], *, by_key: bool = True) -> None:
        rows: list[tuple[float, Callable[[Facts], bool], Provider]] = [
            (signal.row, signal.matches, provider)
            for provider in providers
            for signal in provider.signals
            if by_key or not signal.by_key
        ]
        rows.sort(key=lambda row: row[0])
        self._rows = rows

    def detect(self, facts: Facts) -> Provider | None:
        """The provider of the first row that matches, ``None`` when nothing is recognised."""
        for _, matches, provider in self._rows:
            if matches(facts):
                return provider
        return None
