"""What goes over the wire: fields and bodies as a real client and a real provider send them.

Shared by the load and the upstream.  The request's ``user`` tells the upstream what to answer:
``json=BYTES`` or ``sse=EVENTS_A_SECOND``.
"""

from __future__ import annotations

from email.utils import formatdate
from functools import cache

KEY = b"sk-proj-0123456789abcdef0123456789abcdef0123456789abcdef"
"""What the load presents."""

CLIENT_FIELDS = (
    b"Accept-Encoding: gzip, deflate\r\n"
    b"Connection: keep-alive\r\n"
    b"Accept: application/json\r\n"
    b"Content-Type: application/json\r\n"
    b"User-Agent: OpenAI/Python 1.99.1\r\n"
    b"X-Stainless-Lang: python\r\n"
    b"X-Stainless-Package-Version: 1.99.1\r\n"
    b"X-Stainless-OS: Linux\r\n"
    b"X-Stainless-Arch: x64\r\n"
    b"X-Stainless-Runtime: CPython\r\n"
    b"X-Stainless-Async: false\r\n"
    b"x-stainless-retry-count: 0\r\n"
    b"Authorization: Bearer " + KEY + b"\r\n"
)
"""What OpenAI's Python SDK sends, besides Host and Content-Length."""

PROVIDER_FIELDS = (
    b"Date: " + formatdate(usegmt=True).encode() + b"\r\n"
    b"Connection: keep-alive\r\n"
    b"access-control-expose-headers: X-Request-ID\r\n"
    b"openai-organization: org-benchmark\r\n"
    b"openai-processing-ms: 412\r\n"
    b"openai-version: 2020-10-01\r\n"
    b"x-ratelimit-limit-requests: 10000\r\n"
    b"x-ratelimit-limit-tokens: 2000000\r\n"
    b"x-ratelimit-remaining-requests: 9999\r\n"
    b"x-ratelimit-remaining-tokens: 1999712\r\n"
    b"x-ratelimit-reset-requests: 6ms\r\n"
    b"x-ratelimit-reset-tokens: 8ms\r\n"
    b"x-request-id: req_0123456789abcdef0123456789abcdef\r\n"
    b"cf-cache-status: DYNAMIC\r\n"
    b"Server: cloudflare\r\n"
    b"CF-RAY: 91b0c0ffee123456-FRA\r\n"
)
"""What OpenAI sends, besides Content-Type and Content-Length or Transfer-Encoding."""

_EVENT = (
    b'data: {"id":"chatcmpl-%019d","object":"chat.completion.chunk","created":1741083072,'
    b'"model":"gpt-4o-mini","choices":[{"index":0,"delta":{"content":" benchmark"},'
    b'"finish_reason":null}]}\n\n'
)
_SIZE = b"%x\r\n" % len(_EVENT % 0)
EVENT_CHUNK = _SIZE + _EVENT + b"\r\n"
"""One event of a stream as one chunk; ``%`` a time stamp in nanoseconds."""


def padded(start: bytes, end: bytes, size: int) -> bytes:
    """*start* and *end* with text between them, *size* bytes in all."""
    words = b"The quick brown fox jumps over the lazy dog. "
    missing = max(size - len(start) - len(end), 0)
    return start + (words * (missing // len(words) + 1))[:missing] + end


def chat_request(
    host: bytes, size: int, answer: bytes, *, stream: bool = False, fields: bytes = b""
) -> bytes:
    """A whole request for a completion.

    :param size: bytes of its body.
    :param answer: what the upstream shall do, see the module's docstring.
    :param fields: more header fields, each with its line end.
    """
    start = b'{"user":"%b","model":"gpt-4o-mini","temperature":0.2,' % answer
    if stream:
        start += b'"stream":true,'
    body = padded(start + b'"messages":[{"role":"user","content":"', b'"}]}', size)
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: %b\r\n%bContent-Length: %d\r\n\r\n"
    return head % (host, CLIENT_FIELDS + fields, len(body)) + body


def download_request(host: bytes, size: int) -> bytes:
    """A request for a file of *size* bytes."""
    return b"GET /v1/files/bytes-%d/content HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (size, host, CLIENT_FIELDS)


def upload_head(host: bytes, size: int) -> bytes:
    """The head of a request that brings *size* bytes."""
    head = b"POST /v1/files HTTP/1.1\r\nHost: %b\r\n%bContent-Length: %d\r\n\r\n"
    return head % (host, CLIENT_FIELDS, size)


@cache
def chat_answer(size: int) -> bytes:
    """A whole answer with a body of *size* bytes."""
    start = (
        b'{"id":"chatcmpl-0123456789","object":"chat.completion","created":1741083072,'
        b'"model":"gpt-4o-mini","choices":[{"index":0,"message":{"role":"assistant","content":"'
    )
    end = (
        b'"},"finish_reason":"stop"}],'
        b'"usage":{"prompt_tokens":400,"completion_tokens":150,"total_tokens":550}}'
    )
    return json_answer(padded(start, end, size))


def json_answer(body: bytes) -> bytes:
    """A whole answer with *body*."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n%bContent-Length: %d\r\n\r\n"
    return head % (PROVIDER_FIELDS, len(body)) + body


def varying(answer: bytes) -> bytes:
    """*answer* with a gap, for the number of the request, in each field that differs from answer to answer.

    Who remembers what it has read before is not to find more of it here than it would of a provider.
    """
    gaps = {
        b"processing-ms: 412": b"processing-ms: %03d",
        b"remaining-requests: 9999": b"remaining-requests: %04d",
        b"remaining-tokens: 1999712": b"remaining-tokens: %07d",
        b"req_0123456789abcdef0123456789abcdef": b"req_%032x",
        b"RAY: 91b0c0ffee123456": b"RAY: %016x",
    }
    for fixed, gap in gaps.items():
        assert answer.count(fixed) == 1
        answer = answer.replace(fixed, gap)
    return answer


def varied(answer: bytes, number: int) -> bytes:
    """What :func:`varying` made, with its gaps filled."""
    return answer % (number % 1000, number % 10000, number % 10**7, number, number)


STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n%b"
    b"Transfer-Encoding: chunked\r\n\r\n" % PROVIDER_FIELDS
)
FILE_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n%bContent-Length: %%d\r\n\r\n"
    % PROVIDER_FIELDS
)
