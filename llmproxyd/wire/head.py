"""The head of a request: read by llhttp, judged by the rules that llhttp leaves to a server.

RFC 9112 for syntax and framing, RFC 9110 §7.2 for ``Host``.  Pure: bytes in, a :class:`Head` or
a :class:`BadRequest` out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv6Address

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from llmproxyd.model import Memo, Request
from llmproxyd.wire.fields import MAX_FIELDS, Meaning, length_of, meaning, options

METHODS = frozenset(
    b"GET HEAD POST PUT PATCH DELETE OPTIONS QUERY ACL BIND CHECKOUT COPY LINK LOCK M-SEARCH MERGE"
    b" MKACTIVITY MKCALENDAR MKCOL MOVE NOTIFY PROPFIND PROPPATCH PURGE REBIND REPORT SEARCH SUBSCRIBE"
    b" UNBIND UNLINK UNLOCK UNSUBSCRIBE".split()
)
"""Those that llhttp knows, less ``TRACE``, which would echo a stored key, and ``CONNECT``."""

MAX_LINE = 16 * 1024
"""Bytes of a request line."""

MAX_PORT = 65535

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_LINE = re.compile(rb"(" + _TOKEN + rb") ([\x21-\x7e]+) HTTP/([0-9])\.([0-9])")
_BEGUN = re.compile(_TOKEN + rb"(?: (?:[\x21-\x7e]+(?: (?:H(?:T(?:T(?:P(?:/[0-9.]{0,3}\r?)?)?)?)?)?)?)?)?")
_FORM = re.compile(rb"/|https?://", re.IGNORECASE)
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)", re.IGNORECASE)
_SALVAGE = re.compile(rb"([A-Z]{1,20}) (/[\x21-\x7e]{0,1000})")
_HOST = re.compile(
    rb"(?:\[([0-9A-Fa-f:.]+)\]|(?:[0-9A-Za-z._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+)(?::([0-9]{0,5}))?"
)
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]+)[ \t]*\r\n", re.IGNORECASE)


class BadRequest(Exception):
    """What the client sent is refused, and the connection with it.

    :param code: stable and machine-readable.
    :param message: one sentence for people, without anything that was sent.
    :ivar request: as much of the head as was understood.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.request: Request | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """What one client may ask of a connection.

    :param max_headers: bytes of all header fields, and of all trailers.
    :param max_body: bytes of a body that must be taken whole.
    :param header_timeout: seconds for a head, from its first byte.
    :param idle_timeout: seconds in which nothing moves: between requests, in the middle of a
        body, while the answer is not read.
    """

    max_headers: int = 64 * 1024
    max_body: int = 64 * 1024**2
    header_timeout: float = 30.0
    idle_timeout: float = 75.0


class Head:
    """One request's head and what it means to the connection.

    :ivar length: bytes of body, ``None`` when it comes in chunks.
    :ivar modern: it is HTTP/1.1.
    :ivar bodiless: ``HEAD``: the answer has no body.
    """

    __slots__ = (
        "_after",
        "_before",
        "bodiless",
        "expects",
        "keep_alive",
        "length",
        "modern",
        "raw",
        "request",
    )

    def __init__(
        self,
        raw: bytes,
        request: Request,
        length: int | None,
        *,
        keep_alive: bool,
        expects: bool,
    ) -> None:
        self.raw = raw
        self.request = request
        self.length = length
        self.keep_alive = keep_alive
        self.expects = expects
        self.modern = request.version == (1, 1)
        self.bodiless = request.method == b"HEAD"
        self._before: bytes | None = None
        self._after = b""

    @property
    def chunked(self) -> bool:
        """Whether the body comes in chunks."""
        return self.length is None

    def again(self, raw: bytes) -> Head | None:
        """The head *raw*, if it says what this one says but for the length of its body.

        A client that keeps its connection repeats itself; what was found out about its head
        still holds then, and need not be found out again.
        """
        if raw == self.raw:
            return self
        if not self.length:
            return None
        if self._before is None:
            match = _LENGTH.search(self.raw)
            if match is None:
                return None
            self._before, self._after = self.raw[: match.start(1)], self.raw[match.end(1) :]
        before, after = self._before, self._after
        if not (raw.startswith(before) and raw.endswith(after)):
            return None
        digits = raw[len(before) : len(raw) - len(after)]
        length = length_of(digits)
        if not length:
            return None
        old = self.request
        headers = [
            (name, digits) if meaning(name) is Meaning.CONTENT_LENGTH else (name, value)
            for name, value in old.headers
        ]
        request = Request(old.method, old.target, headers, old.version, old.peer, old.memo)
        head = Head(
            raw,
            request,
            length,
            keep_alive=self.keep_alive,
            expects=self.expects,
        )
        head._before, head._after = before, after
        return head


def begun(part: bytes, limits: Limits) -> None:
    """Judge the beginning of a head whose end has not come yet.

    :raises BadRequest: it cannot become a good one.
    """
    end = part.find(b"\r\n")
    if end < 0:
        if len(part.removesuffix(b"\r")) > MAX_LINE:
            raise _too_long()
        if not _BEGUN.fullmatch(part):
            raise _bad_line()
        return
    _line(part, end)
    _check_size(part, end, limits)


def parse(raw: bytes, parser: HttpRequestParser, collected: list[tuple[bytes, bytes]], peer: str) -> Head:
    """The head *raw*, which ends in an empty line.

    :param parser: a fresh one, whose ``on_header`` appends to *collected*.
    :raises BadRequest: see :class:`BadRequest`.
    """
    match = _line(raw, raw.find(b"\r\n"))
    if not _FORM.match(match[2]):
        # llhttp would refuse some of these too, but not say why.
        raise BadRequest(
            400,
            "bad_target",
            "The request target must begin with a slash and be percent-encoded.",
        )
    try:
        parser.feed_data(raw)
    except HttpParserUpgrade:
        pass  # it has read the whole head, and what is asked for there is ignored
    except HttpParserError as error:
        many = len(collected) > MAX_FIELDS
        raise _told(_too_many() if many else _bad_fields(error), match, collected, peer) from None
    fields = collected
    if b" \r" in raw or b"\t\r" in raw:
        # Not part of a value, RFC 9112 §5; llhttp leaves it there.
        fields = [(name, value.rstrip(b" \t")) for name, value in collected]
    try:
        return _judged(raw, match, fields, peer)
    except BadRequest as error:
        raise _told(error, match, collected, peer) from None


def salvaged(raw: bytes, peer: str) -> Request:
    """What can be told of a head that cannot be read: method and path up to the first odd byte."""
    match = _SALVAGE.match(raw)
    method, target = (b"-", b"-") if match is None else match.groups()
    return Request(method, target, (), (1, 1), peer)


def check_size(raw: bytes, limits: Limits) -> None:
    """Refuse a head that is too large.

    :raises BadRequest: 414 or 431.
    """
    _check_size(raw, raw.find(b"\r\n"), limits)


def check_number(fields: list[tuple[bytes, bytes]]) -> None:
    """Refuse a head of too many *fields*.

    :raises BadRequest: 431.
    """
    if len(fields) > MAX_FIELDS:
        raise _too_many()


def _check_size(raw: bytes, line_end: int, limits: Limits) -> None:
    if line_end > MAX_LINE:
        raise _too_long()
    if len(raw) - line_end > limits.max_headers + 4:
        raise BadRequest(
            431,
            "headers_too_large",
            f"The header fields have more than {limits.max_headers} bytes (server.max_headers).",
        )


def _line(raw: bytes, end: int) -> re.Match[bytes]:
    if end > MAX_LINE:
        raise _too_long()
    match = _LINE.fullmatch(raw, 0, end)
    if match is None:
        raise _bad_line()
    if match[3] != b"1" or match[4] not in (b"0", b"1"):
        raise BadRequest(505, "http_version_not_supported", "HTTP/1.1 and HTTP/1.0 are spoken here.")
    if match[1] not in METHODS:
        raise BadRequest(501, "method_not_implemented", "Requests with this method are not passed on.")
    return match


def _judged(raw: bytes, match: re.Match[bytes], fields: list[tuple[bytes, bytes]], peer: str) -> Head:
    check_number(fields)
    hosts: list[bytes] = []
    connection: list[bytes] = []
    upgrade: list[bytes] = []
    length, chunked, expects = 0, False, False
    modern = match[4] == b"1"
    for name, value in fields:
        kind = meaning(name)
        if kind is Meaning.NONE:
            continue
        if kind is Meaning.HOST:
            hosts.append(value)
        elif kind is Meaning.CONNECTION:
            connection.append(value)
        elif kind is Meaning.CONTENT_LENGTH:
            number = length_of(value)
            if number is None:
                raise _bad_framing("Content-Length is not a number of bytes")
            length = number
        elif kind is Meaning.TRANSFER_ENCODING:
            if chunked or not modern or value.lower() != b"chunked":
                raise _bad_framing("Transfer-Encoding may be chunked, once, and in HTTP/1.1 only")
            chunked = True
        elif kind is Meaning.EXPECT:
            if modern:
                if value.lower() != b"100-continue":
                    raise BadRequest(417, "expectation_failed", "Only 100-continue can be expected.")
                expects = True
        elif kind is Meaning.UPGRADE:
            upgrade += [one.strip(b" \t").lower() for one in value.split(b",")]
        elif kind is Meaning.LOOKALIKE:
            raise _bad_framing("A field's name differs from a framing field's by an underscore alone")
    asked = options(connection) if connection else frozenset()
    if b"websocket" in upgrade and b"upgrade" in asked and modern:
        raise BadRequest(501, "upgrade_not_supported", "WebSocket connections are not passed on.")
    target = _origin_form(match[2], _host(hosts, modern))
    return Head(
        raw,
        Request(match[1], target, fields, (1, 1) if modern else (1, 0), peer, Memo()),
        None if chunked else length,
        keep_alive=b"close" not in asked and (modern or b"keep-alive" in asked),
        expects=expects,
    )


def _host(hosts: list[bytes], modern: bool) -> bytes | None:
    if len(hosts) > 1 or (modern and not hosts):
        raise BadRequest(400, "bad_host", "A request has exactly one Host field (RFC 9112 §3.2).")
    if not hosts:
        return None
    if not _is_host(hosts[0]):
        raise BadRequest(400, "bad_host", "The Host field does not name a host.")
    return hosts[0]


def _is_host(value: bytes) -> bool:
    """Whether *value* names a host, with or without a port.  RFC 3986 §3.2.2."""
    match = _HOST.fullmatch(value)
    if match is None or int(match[2] or 0) > MAX_PORT:
        return False
    if match[1] is not None:
        try:
            IPv6Address(match[1].decode("ascii"))
        except ValueError:
            return False
    return True


def _origin_form(target: bytes, host: bytes | None) -> bytes:
    """*target* from its path on; RFC 9112 §3.2."""
    if target.startswith(b"/"):
        return target
    match = _ABSOLUTE.match(target)
    assert match is not None
    if not _is_host(match[1]) or (host is not None and match[1].lower() != host.lower()):
        raise BadRequest(400, "bad_host", "The request target names another host than the Host field.")
    rest = target[match.end() :]
    return rest if rest.startswith(b"/") else b"/" + rest


def _told(
    error: BadRequest, match: re.Match[bytes], fields: list[tuple[bytes, bytes]], peer: str
) -> BadRequest:
    """*error* with as much of the request as can be used to word the answer."""
    if match[2].startswith(b"/"):
        version = (1, 1) if match[4] == b"1" else (1, 0)
        error.request = Request(match[1], match[2], list(fields[:MAX_FIELDS]), version, peer)
    return error


def _bad_line() -> BadRequest:
    return BadRequest(400, "bad_request", "This is not a request line of HTTP/1.1.")


def _too_long() -> BadRequest:
    return BadRequest(414, "uri_too_long", f"The request line has more than {MAX_LINE} bytes.")


def _too_many() -> BadRequest:
    return BadRequest(431, "headers_too_large", f"The request has more than {MAX_FIELDS} header fields.")


def _bad_framing(why: str) -> BadRequest:
    return BadRequest(400, "bad_framing", why + ".")


def _bad_fields(error: HttpParserError) -> BadRequest:
    """What llhttp says, in its own words: they name a rule and nothing that was sent."""
    why = str(error)
    code = "bad_framing" if "Content-Length" in why or "Transfer-Encoding" in why else "bad_request"
    return BadRequest(400, code, f"The header is not valid HTTP: {why}.")
