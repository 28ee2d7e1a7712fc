"""To the upstream and back, over treq.  The one user of treq.

treq's own ``request`` decodes, follows and remembers (gzip, redirects, cookies) and rewrites
the URL, which a proxy must not; :class:`PassThroughClient` keeps its interface and its
response type and goes straight to the agent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http.cookiejar import CookieJar
from typing import Any, NamedTuple

from OpenSSL import SSL
from service_identity import VerificationError
from treq.client import HTTPClient
from treq.response import _Response
from twisted.internet import error as neterror
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer

from llmproxyd.access.withheld import fields_without, secrets_in_head, target_without
from llmproxyd.errors import Busy, ClientGone, Final, ProxyError, Refused, Retryable, UpstreamError
from llmproxyd.http.headers import for_upstream
from llmproxyd.model import RawHeaders, Request, Response
from llmproxyd.pipeline.policy import CREDENTIAL_FIELDS, Upstream
from llmproxyd.redaction import Secret
from llmproxyd.transform.paths import rewrite
from llmproxyd.units import format_duration
from llmproxyd.wire.agent import (
    BadAnswer,
    ConnectTimeout,
    PoolTimeout,
    ProxyAgent,
    ProxyRefused,
    Receiver,
    WireHeaders,
    WireResponse,
)
from llmproxyd.wire.body import BodyTooLarge
from llmproxyd.wire.head import BadRequest
from llmproxyd.wire.wheel import Timer, Wheel

READABLE = (b"gzip", b"deflate", b"identity", b"x-gzip")
"""Codings in which an answer can be read here."""


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
        interim: Callable[[Response], None] | None = None,
        receiver: Receiver | None = None,
        **kwargs: Any,
    ) -> Deferred[Any]:
        """Send one request; fires with treq's response, unless a *receiver* makes something else of it.

        :param interim: takes each interim answer (``103``) that comes before the final one.
        :raises TypeError: an option was given that would change the message.
        """
        if kwargs:
            raise TypeError(f"not for a message passed through: {', '.join(sorted(kwargs))}")
        verb = method if isinstance(method, bytes) else method.encode("ascii")
        agent: Any = self._agent
        sent: Deferred[Any] = agent.request(
            verb, url, headers, data, interim=interim, receiver=receiver or _AS_TREQ
        )
        return sent


# treq has a jar class of its own since 26; an empty one of the standard library does for all.
_NO_COOKIES: Any = CookieJar()


class _AsTreq:
    """Gives answers treq's type."""

    def answered(self, response: WireResponse) -> _Response:
        return _Response(response, _NO_COOKIES)

    def failed(self, reason: Failure) -> Failure:
        return reason


_AS_TREQ = _AsTreq()


def client_for(agent: ProxyAgent) -> PassThroughClient:
    """A client on *agent*."""
    return PassThroughClient(agent)


class Outgoing(NamedTuple):
    """A request as it goes upstream, but for its body."""

    upstream: Upstream
    method: bytes
    url: bytes
    headers: WireHeaders


def outgoing(
    upstream: Upstream,
    request: Request,
    target: bytes,
    key: Secret | None = None,
    *,
    withheld: bool = False,
    foreign: bool = False,
    held: bool | None = None,
) -> Outgoing:
    """*request* as *upstream* is to have it, under *target*.

    The client's end-to-end fields, and a stored key in place of its own.

    :param key: the one to use, where the upstream has several.
    :param held: the answer will be looked at; by default as the upstream's policy says.
    :param withheld: the client's credential is not for it, whether or not there is another one, and
        wherever in the head it stands.
    :param foreign: the client meant another one: neither is its credential for this, nor its cookies.
    """
    withheld = withheld or foreign
    if key is None and upstream.keys:
        key = upstream.keys[0]
    replaced = {name.lower() for name, _ in upstream.headers}
    if key is not None or withheld:
        replaced |= CREDENTIAL_FIELDS
    if foreign:
        replaced.add(b"cookie")
    fields = for_upstream(request.headers, upstream.host)
    if replaced:
        fields = [pair for pair in fields if pair[0].lower() not in replaced]
    if withheld:
        theirs = secrets_in_head(request)
        fields = fields_without(fields, theirs)
        target = target_without(target, theirs)
    if upstream.holds if held is None else held:
        fields = [_readable(pair) if pair[0].lower() == b"accept-encoding" else pair for pair in fields]
    place = upstream.provider.credential
    ours = {b"host", place.header} if withheld and key is not None else {b"host"}
    fields += [pair for pair in upstream.headers if pair[0].lower() not in ours]
    if key is not None:
        fields.append((place.header, place.prefix + key.reveal().encode()))
        target = _without_key(target)
    rewritten = rewrite(upstream.paths, target) if upstream.paths else None
    base = upstream.base
    if rewritten is not None:
        target = rewritten.target
        base = upstream.origin if rewritten.root else base
    return Outgoing(upstream, request.method, base + target, WireHeaders(fields))


def readable(going: Outgoing) -> Outgoing:
    """*going* so that its answer can be read here."""
    return going._replace(headers=WireHeaders(readable_fields(going.headers.raw)))


def readable_fields(fields: RawHeaders) -> RawHeaders:
    """*fields* of a request so that its answer can be read here."""
    return [_readable(pair) if pair[0].lower() == b"accept-encoding" else pair for pair in fields]


def _readable(field: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
    """``Accept-Encoding`` less what could not be read before the answer is committed to."""
    wanted = [one.strip() for one in field[1].split(b",")]
    kept = [one for one in wanted if one.partition(b";")[0].strip().lower() in READABLE]
    return field if len(kept) == len(wanted) else (field[0], b", ".join(kept) or b"identity")


class Sender:
    """Sends requests to upstreams.

    :param clients: by the upstream's name; each has its own pool and TLS settings.
    """

    def __init__(self, wheel: Wheel, clients: Mapping[str, PassThroughClient]) -> None:
        self._wheel = wheel
        self._clients = clients

    def send(
        self,
        going: Outgoing,
        body: IBodyProducer | None,
        interim: Callable[[Response], None] | None = None,
    ) -> Deferred[WireResponse]:
        """One attempt: the answer's head, and where its body will come from.

        Fails with :class:`UpstreamError`, or with what is wrong with the client's body;
        cancelling closes the connection.
        """
        upstream = going.upstream
        attempt = _Attempt(upstream.timeouts.headers)
        sent = self._clients[upstream.name].request(
            going.method, going.url, headers=going.headers, data=body, interim=interim, receiver=attempt
        )
        if not sent.called:
            attempt.begin(sent, self._wheel)
        return sent


class _Attempt:
    """Waits for the answer's head, and tells a cancellation by the clock from one by the client.

    :param granted: seconds.
    """

    __slots__ = ("_granted", "_late", "_sent", "_timer")

    def __init__(self, granted: float) -> None:
        self._granted = granted
        self._late = False
        self._sent: Deferred[Any] | None = None
        self._timer: Timer | None = None

    def begin(self, sent: Deferred[Any], wheel: Wheel) -> None:
        """It is on its way."""
        self._sent = sent
        self._timer = wheel.start(self._granted, self._expire)

    def answered(self, response: WireResponse) -> WireResponse:
        self._settle()
        return response

    def failed(self, reason: Failure) -> Failure:
        self._settle()
        return Failure(headers_timeout(self._granted) if self._late else explain(reason))

    def _expire(self) -> None:
        self._late = True
        if self._sent is not None:
            self._sent.cancel()

    def _settle(self) -> None:
        self._sent = None
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()


def headers_timeout(granted: float) -> Retryable:
    """The upstream was too slow to answer.

    :param granted: seconds.
    """
    words = f"The upstream did not begin its answer within {format_duration(granted)} (timeouts.headers)."
    return Retryable(504, "headers_timeout", words)


def _without_key(target: bytes) -> bytes:
    """*target* without a client's ``key=``, whose place a stored key takes (Gemini)."""
    if b"key=" not in target:
        return target
    path, _, query = target.partition(b"?")
    kept = b"&".join(part for part in query.split(b"&") if not part.startswith(b"key="))
    return path + b"?" + kept if kept else path


def head_of(answer: WireResponse) -> Response:
    """The head of *answer*, all its fields as they came."""
    length = answer.length
    _, major, minor = answer.version
    return Response(
        answer.code,
        answer.phrase,
        answer.raw,
        None if length is UNKNOWN_LENGTH else int(length),
        (major, minor),
    )


def _innermost(failure: Failure) -> BaseException:
    """What *failure* was wrapped around at first."""
    while inner := getattr(failure.value, "reasons", None):
        failure = inner[0]
    assert failure.value is not None
    return failure.value


def explain(failure: Failure) -> ProxyError | ClientGone:
    """What a failed attempt means, without addresses or secrets in the words."""
    value = _innermost(failure)
    if isinstance(value, CancelledError):
        return ClientGone()
    if isinstance(value, BadRequest):
        return Refused(value.status, value.code, value.message)
    if isinstance(value, BodyTooLarge):
        return body_too_large(value.limit)
    if isinstance(value, ConnectTimeout):
        return Retryable(
            504,
            "connect_timeout",
            f"No connection to the upstream within {format_duration(value.granted)} (timeouts.connect).",
        )
    if isinstance(value, PoolTimeout):
        return Busy(
            504,
            "pool_timeout",
            f"None of the {value.limit} connections to the upstream came free within "
            f"{format_duration(value.granted)} (pool.max_connections).",
        )
    if isinstance(value, ProxyRefused):
        return Retryable(
            502, "upstream_unreachable", "The HTTP proxy on the way to the upstream did not let us through."
        )
    if isinstance(value, BadAnswer):
        return Retryable(502, "upstream_protocol_error", f"The upstream's answer is not valid HTTP: {value}.")
    if isinstance(value, neterror.TimeoutError | DeferredTimeout):
        return Retryable(504, "connect_timeout", "The connection to the upstream timed out.")
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
        502, "upstream_protocol_error", f"The exchange with the upstream failed ({type(value).__name__})."
    )


def body_too_large(limit: int) -> Refused:
    """The refusal of a body that has more than *limit* bytes."""
    message = f"The request's body is too large; {limit} bytes are allowed (server.max_body)."
    return Refused(413, "body_too_large", message)


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
