"""The header fields with which a provider's answers come: ids, timing, limits.  Pure.

Their values are made up and, but for the number of the request, the same every time.
"""

from __future__ import annotations

Fields = list[tuple[bytes, bytes]]

_OPENAI_LIMITS: Fields = [
    (b"x-ratelimit-limit-requests", b"10000"),
    (b"x-ratelimit-limit-tokens", b"2000000"),
    (b"x-ratelimit-remaining-requests", b"9999"),
    (b"x-ratelimit-remaining-tokens", b"1999000"),
    (b"x-ratelimit-reset-requests", b"6ms"),
    (b"x-ratelimit-reset-tokens", b"30ms"),
]
_OPENAI: Fields = [
    (b"openai-organization", b"org-sandbox"),
    (b"openai-processing-ms", b"1"),
    (b"openai-version", b"2020-10-01"),
]
_ANTHROPIC: Fields = [
    (b"anthropic-organization-id", b"org-sandbox"),
    (b"anthropic-ratelimit-requests-limit", b"4000"),
    (b"anthropic-ratelimit-requests-remaining", b"3999"),
    (b"anthropic-ratelimit-requests-reset", b"2026-01-01T00:00:00Z"),
]


def fields(dialect: str, number: int) -> Fields:
    """The fields of an answer in *dialect* (a provider's name) to request *number*."""
    request_id = identify(number).encode()
    if dialect == "anthropic":
        return [(b"request-id", b"req_" + request_id), *_ANTHROPIC]
    if dialect in ("google", "ollama"):
        return []
    if dialect == "azure":
        return [(b"apim-request-id", request_id), (b"x-request-id", request_id), *_OPENAI_LIMITS]
    own = _OPENAI if dialect == "openai" else []
    limits = _OPENAI_LIMITS if dialect in ("openai", "groq") else []
    return [(b"x-request-id", b"req_" + request_id), *own, *limits]


def identify(number: int) -> str:
    """The id of the request of this *number*."""
    return f"sandbox-{number:08d}"
