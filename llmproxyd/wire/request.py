"""A request as twisted.web's resources know it, built as far as they touch it.

:class:`twisted.web.server.Request` makes headers, arguments, cookies and a content file for
every request; the one resource that proxies needs none of them.  Used of its inner parts:
the attributes that its initialiser sets, and how it reads forms.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload
from urllib.parse import unquote_to_bytes

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IAddress
from twisted.python.failure import Failure
from twisted.web.http import _getMultiPartArgs, _MultiPartParseException, _parseContentType, parse_qs
from twisted.web.http_headers import Headers
from twisted.web.resource import IResource, _IEncodingResource
from twisted.web.server import Request as StockRequest

from llmproxyd.wire.body import BodyTooLarge, IncomingBody
from llmproxyd.wire.head import BadRequest, Head
from llmproxyd.wire.outgoing import Answer

T = TypeVar("T")


class _Lazy(Generic[T]):
    """An attribute that is made when it is first read; setting it replaces it."""

    def __init__(self, make: Callable[[Any], T]) -> None:
        self._make = make
        self.__doc__ = make.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> _Lazy[T]: ...

    @overload
    def __get__(self, instance: object, owner: type) -> T: ...

    def __get__(self, instance: object | None, owner: type) -> T | _Lazy[T]:
        if instance is None:
            return self
        value = instance.__dict__[self._name] = self._make(instance)
        return value


class WireRequest(StockRequest):
    """One request on a :class:`~llmproxyd.wire.channel.Channel`.

    :ivar head: what was received, raw.
    :ivar body: as it arrives; resources that are not rendered at the head find ``content``.
    :ivar answer: the way back for a resource that writes heads of its own.
    """

    channel: Any
    defaultContentType = None
    queued = False

    # The stock initialiser would make everything that is lazy below.
    def __init__(self, channel: Any, head: Head, body: IncomingBody, answer: Answer) -> None:
        self.channel = channel
        self.head = head
        self.body = body
        self.answer = answer

    @_Lazy
    def method(self) -> bytes:
        """The method."""
        return self.head.request.method

    @_Lazy
    def uri(self) -> bytes:
        """The raw target."""
        return self.head.request.target

    @_Lazy
    def path(self) -> bytes:
        """The raw target without its query."""
        return self.head.request.path

    @_Lazy
    def clientproto(self) -> bytes:
        """``HTTP/1.1`` or ``HTTP/1.0``."""
        return b"HTTP/%d.%d" % self.head.request.version

    @_Lazy
    def transport(self) -> Any:
        """The connection's."""
        return self.channel.transport

    @_Lazy
    def client(self) -> IAddress:
        """The client's address."""
        address: IAddress = self.channel.getPeer()
        return address

    @_Lazy
    def host(self) -> IAddress:
        """Our address."""
        address: IAddress = self.channel.getHost()
        return address

    @_Lazy
    def requestHeaders(self) -> Headers:
        """The fields, as a mapping."""
        headers = Headers()
        for name, value in self.head.request.headers:
            headers.addRawHeader(name, value)
        return headers

    @_Lazy
    def responseHeaders(self) -> Headers:
        """The answer's fields."""
        return Headers()

    @_Lazy
    def received_cookies(self) -> dict[bytes, bytes]:
        """The cookies sent by the client."""
        found: dict[bytes, bytes] = {}
        for value in self.requestHeaders.getRawHeaders(b"cookie", ()):
            for cookie in value.split(b";"):
                name, equals, content = cookie.lstrip().partition(b"=")
                if equals:
                    found[name] = content
        return found

    @_Lazy
    def cookies(self) -> list[bytes]:
        """The answer's cookies."""
        return []

    @_Lazy
    def notifications(self) -> list[Deferred[None]]:
        """Who waits for the end."""
        return []

    @_Lazy
    def _adapterCache(self) -> dict[str, object]:
        return {}

    @_Lazy
    def _parsePOSTFormSubmission(self) -> bool:
        return bool(self.channel.site._parsePOSTFormSubmission)

    @_Lazy
    def prepath(self) -> list[bytes]:
        """The segments that were walked."""
        return []

    @_Lazy
    def postpath(self) -> list[bytes]:
        """The segments that are left."""
        return [unquote_to_bytes(part) for part in self.path[1:].split(b"/")]

    @_Lazy
    def args(self) -> dict[bytes, list[bytes]]:
        """Arguments of the query, and of a form where the site reads them."""
        query = self.head.request.query
        found: dict[bytes, list[bytes]] = parse_qs(query, 1) if query else {}
        form = self.requestHeaders.getRawHeaders(b"content-type", [b""])[0]
        if self.method == b"POST" and form and self.content is not None and self._parsePOSTFormSubmission:
            kind = _parseContentType(form)
            if kind == b"application/x-www-form-urlencoded":
                found.update(parse_qs(self.content.read(), 1))
            elif kind == b"multipart/form-data":
                found.update(_getMultiPartArgs(self.content.read(), form))
            self.content.seek(0)
        return found

    def process(self) -> None:
        """Find the resource and render it: now, or when the body is whole."""
        site = self.site = self.channel.site
        try:
            resource = site.getResourceFor(self)
            if getattr(resource, "renders_at_head", False):
                resource.render(self)
                return
            limit = site.limits.max_body
            if (self.body.length or 0) > limit:
                raise BodyTooLarge(limit)
            spooled = self.body.spool()
            spooled.addCallback(self._render_whole, resource)
            spooled.addErrback(self._not_whole)
        except BodyTooLarge:
            self._not_whole(Failure())
        except BaseException:
            self.processingFailed(Failure())

    def _render_whole(self, _: None, resource: IResource) -> None:
        self.content = self.body.file
        try:
            self.args  # noqa: B018 - a form that cannot be read is found out now
        except _MultiPartParseException:
            raise BadRequest(400, "bad_request", "The form in the body cannot be read.") from None
        try:
            if _IEncodingResource.providedBy(resource):
                self._encoder = resource.getEncoder(self)
            self.render(resource)
        except BaseException:
            self.processingFailed(Failure())

    def _not_whole(self, failure: Failure) -> None:
        """The body did not come, was too long or cannot be read."""
        if self._disconnected or failure.check(CancelledError, ConnectionDone, ConnectionLost):
            return
        error = failure.value
        if isinstance(error, BodyTooLarge):
            message = f"The body has more than {error.limit} bytes."
            error = BadRequest(413, "body_too_large", message)
        if isinstance(error, BadRequest):
            self.channel.site.refuse(error, self.head.request, self.answer)
        else:
            self.processingFailed(failure)
