"""To the upstream and back, over treq.  The one user of treq.

treq's own ``request`` decodes, follows and remembers (gzip, redirects, cookies) and rewrites
the URL, which a proxy must not; :class:`PassThroughClient` keeps its interface and its
response type and goes straight to the agent.
"""

from __future__ import annotations

from collections.abc import Callable
from http.cookiejar import CookieJar
from typing import Any, NoReturn

from OpenSSL import SSL
from service_identity import VerificationError
from treq.client import HTTPClient
from treq.response import _Response
from twisted.internet import error as neterror
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IAgent, IBodyProducer, IResponse

from llmproxyd.errors import ClientGone, Final, Retryable, UpstreamError
from llmproxyd.http.headers import for_upstream
from llmproxyd.model import RawHeaders, Request, Response
from llmproxyd.pipeline.policy import Upstream
from llmproxyd.units import format_duration
from llmproxyd.wire.agent import ConnectTimeout, abort

CREDENTIAL_FIELDS = frozenset({b"authorization", b"x-api-key", b"x-goog-api-key", b"api-key"})
"""Where clients put a provider's key; all are replaced by a stored one."""


class PassThroughClient(HTTPClient):
    """treq's client for what must arrive as it was sent.

    No cookie jar, no redirects, no decoding, no header of its own; the URL is used as it is.
    """

    def request(  # type: ignore[override]
        self,
        method: str | bytes,
        url: bytes,
        *,
        headers: Headers | None = None,
        data: IBodyProducer | None = None,
        **kwargs: Any,
    ) -> Deferred[_Response]:
        """Send one request.

        :raises TypeError: an option was given that would change the message.
        """
        if kwargs:
            raise TypeError(f"not for a message passed through: {', '.join(sorted(kwargs))}")
        verb = method if isinstance(method, bytes) else method.encode("ascii")
        return self._agent.request(verb, url, headers, data).addCallback(_Response, _NO_COOKIES)


# treq has a jar class of its own since 26; an empty one of the standard library does for all.
_NO_COOKIES: Any = CookieJar()


def client_for(agent: IAgent) -> PassThroughClient:
    """A client on *agent*."""
    return PassThroughClient(agent)


class Sender:
    """Sends requests to upstreams.

    :param clients: a client for each upstream, which has its own pool and TLS settings.
    """

    def __init__(self, clock: IReactorTime, clients: Callable[[Upstream], PassThroughClient]) -> None:
        self._clock = clock
        self._clients = clients

    def send(
        self,
        upstream: Upstream,
        request: Request,
        target: bytes,
        body: IBodyProducer | None,
    ) -> Deferred[tuple[Response, IResponse]]:
        """One attempt: the answer's head, and where its body will come from.

        Fails with :class:`UpstreamError`; cancelling closes the connection.
        """
        headers = request_headers(upstream, request)
        url = upstream.base + _without_key(upstream, target)
        sent = self._clients(upstream).request(request.method, url, headers=headers, data=body)
        attempt = _Attempt(upstream.timeouts.headers)
        attempt.timer = self._clock.callLater(upstream.timeouts.headers, attempt.expire, sent)
        sent.addBoth(attempt.settle)
        return sent.addCallbacks(_head, attempt.explain)


class _Attempt:
    """Tells a cancellation by the clock from one by the client."""

    def __init__(self, granted: float) -> None:
        self._granted = granted
        self.timer: IDelayedCall | None = None
        self._expired = False

    def expire(self, sent: Deferred[Any]) -> None:
        self._expired = True
        self.timer = None
        sent.cancel()

    def settle(self, result: Any) -> Any:
        timer, self.timer = self.timer, None
        if timer is not None and timer.active():
            timer.cancel()
        return result

    def explain(self, failure: Failure) -> NoReturn:
        if self._expired:
            raise Retryable(
                504,
                "upstream_timeout",
                "The upstream did not begin its answer within "
                f"{format_duration(self._granted)} (timeouts.headers).",
            )
        if isinstance(_innermost(failure), CancelledError):
            raise ClientGone
        raise explain(failure)


def request_headers(upstream: Upstream, request: Request) -> Headers:
    """The fields that go to *upstream*: the client's end-to-end ones, and the stored key."""
    fields = for_upstream(request.headers)
    replaced = {name.lower() for name, _ in upstream.headers}
    if upstream.api_key is not None:
        replaced |= CREDENTIAL_FIELDS
    if replaced:
        fields = [pair for pair in fields if pair[0].lower() not in replaced]
    fields += upstream.headers
    if upstream.api_key is not None:
        place = upstream.provider.credential
        fields.append((place.header, place.prefix + upstream.api_key.reveal().encode()))
    headers = Headers()
    for name, value in fields:
        headers.addRawHeader(name, value)
    headers.setRawHeaders(b"host", [upstream.host])
    return headers


def _without_key(upstream: Upstream, target: bytes) -> bytes:
    """*target* without a client's ``key=``, where a stored key takes its place (Gemini)."""
    if upstream.api_key is None or b"key=" not in target:
        return target
    path, _, query = target.partition(b"?")
    kept = b"&".join(part for part in query.split(b"&") if not part.startswith(b"key="))
    return path + b"?" + kept if kept else path


def _head(answer: IResponse) -> tuple[Response, IResponse]:
    headers: RawHeaders = [
        (name, value) for name, values in answer.headers.getAllRawHeaders() for value in values
    ]
    if not 200 <= answer.code <= 999:
        abort(getattr(answer, "original", answer))
        raise Retryable(502, "upstream_protocol_error", "The upstream answered with an impossible status.")
    length = None if answer.length == UNKNOWN_LENGTH else answer.length
    _, major, minor = answer.version
    return Response(answer.code, answer.phrase, headers, length, (major, minor)), answer


def _innermost(failure: Failure) -> BaseException:
    """What *failure* was wrapped around at first."""
    while inner := getattr(failure.value, "reasons", None):
        failure = inner[0]
    assert failure.value is not None
    return failure.value


def explain(failure: Failure) -> UpstreamError:
    """What a failed attempt means, without addresses or secrets in the words."""
    value = _innermost(failure)
    if isinstance(value, ConnectTimeout):
        return Retryable(
            504,
            "upstream_timeout",
            f"No connection to the upstream within {format_duration(value.granted)} (timeouts.connect).",
        )
    if isinstance(value, neterror.TimeoutError | DeferredTimeout):
        return Retryable(504, "upstream_timeout", "The connection to the upstream timed out.")
    if isinstance(value, neterror.DNSLookupError):
        return Retryable(502, "upstream_unreachable", "The upstream's host name does not resolve.")
    if isinstance(value, neterror.ConnectError | neterror.ConnectingCancelledError):
        return Retryable(502, "upstream_unreachable", f"No connection to the upstream: {_why(value)}.")
    if isinstance(value, VerificationError):
        return Final(502, "upstream_unreachable", "The upstream's certificate is not for its host name.")
    if isinstance(value, SSL.Error):
        return _explain_tls(value)
    if isinstance(value, neterror.ConnectionDone | neterror.ConnectionLost):
        return Retryable(
            502,
            "upstream_protocol_error",
            "The upstream closed the connection before it had answered.",
        )
    return Retryable(
        502,
        "upstream_protocol_error",
        f"The upstream's answer is not valid HTTP ({type(value).__name__}).",
    )


def _explain_tls(value: BaseException) -> UpstreamError:
    text = str(value)
    if "certificate verify failed" in text:
        return Final(
            502,
            "upstream_unreachable",
            "The upstream's certificate does not verify (tls.ca_file names a private authority).",
        )
    return Retryable(502, "upstream_unreachable", "The TLS handshake with the upstream failed.")


def _why(value: BaseException) -> str:
    if isinstance(value, neterror.ConnectionRefusedError):
        return "connection refused"
    if isinstance(value, neterror.NoRouteError):
        return "no route to it"
    return type(value).__name__
