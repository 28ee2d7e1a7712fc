"""What can go wrong with one request, sorted by what follows from it.

``Refused``     answer the client ourselves, nothing was sent upstream
``Retryable``   this attempt failed, another one may succeed
``Busy``        the same, by a limit of our own: it speaks against nobody
``Final``       this attempt failed and no other would succeed
``ClientGone``  nobody is left to answer
"""

from __future__ import annotations

from typing import ClassVar


class ProxyError(Exception):
    """Base of everything here.

    :param code: stable, machine-readable (``headers_timeout``); clients may depend on it.
    :param message: one sentence for people; holds no secret and no message content.
    :ivar detail: the same for the log.
    """

    origin: ClassVar[str] = "proxy"

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.detail = message


class Refused(ProxyError):
    """The request is answered here.

    :param headers: further fields of the answer (``Allow``, ``Retry-After``).
    :param detail: what the log says instead of *message*, where that repeats what the client sent.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        headers: tuple[tuple[bytes, bytes], ...] = (),
        detail: str | None = None,
    ) -> None:
        super().__init__(status, code, message)
        self.headers = headers
        self.detail = message if detail is None else detail


class UpstreamError(ProxyError):
    """An attempt at the upstream failed before or within its answer."""

    origin = "upstream"
    blames: ClassVar[bool] = True
    """Whether it speaks against the upstream."""


class Retryable(UpstreamError):
    """Another attempt may succeed."""


class Busy(Retryable):
    """A limit of our own was reached on the way to the upstream, which was not asked."""

    blames = False


class Final(UpstreamError):
    """Another attempt would fail in the same way (a certificate that does not verify)."""


class ClientGone(Exception):
    """The client closed its connection before it had the whole answer."""
