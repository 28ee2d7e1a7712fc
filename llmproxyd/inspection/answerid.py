"""The id that an upstream gave to a request: what its support asks for."""

from __future__ import annotations

from collections.abc import Callable

from llmproxyd.model import RawHeaders

NAMES = frozenset(
    {
        b"x-request-id",  # OpenAI and most that speak its dialect
        b"request-id",  # Anthropic
        b"apim-request-id",  # Azure
        b"x-ms-request-id",
        b"x-amzn-requestid",  # Bedrock
        b"x-amz-request-id",
        b"x-goog-request-id",
        b"x-generation-id",  # OpenRouter
        b"mistral-correlation-id",
        b"x-debug-trace-id",  # Cohere
    }
)

LONGEST = 128
"""Characters of an id that are kept."""

_KNOWN = 1024
"""Spellings that are remembered."""


class _Ids(dict[bytes, bool]):
    """Whether a field holds such an id, by spelling; one that is met for the first time is looked at once."""

    def __missing__(self, name: bytes) -> bool:
        named = name.lower() in NAMES
        if len(self) < _KNOWN and len(name) <= 64:
            self[name] = named
        return named


_is_id: Callable[[bytes], bool] = _Ids().__getitem__


def answer_id(headers: RawHeaders) -> str | None:
    """The first id among the fields of an answer."""
    for name, value in headers:
        if _is_id(name) and value:
            return value[:LONGEST].decode("latin-1")
    return None
