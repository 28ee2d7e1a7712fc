"""Where requests go: origins, and proxies on the way."""

from __future__ import annotations

import re
from base64 import b64encode
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

_ORIGIN = re.compile(rb"(https?)://(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._~-]+)(?::([0-9]{1,5}))?", re.IGNORECASE)


class Origin(NamedTuple):
    """Scheme, host and port (RFC 6454).

    :param host: without the brackets of an IPv6 address.
    :param authority: host and port as they were given, for ``Host``.
    """

    secure: bool
    host: bytes
    port: int
    authority: bytes

    @classmethod
    def parse(cls, text: bytes) -> Origin:
        """*text* is ``scheme://host[:port]`` and nothing else.

        :raises ValueError: it is not.
        """
        match = _ORIGIN.fullmatch(text)
        if match is None:
            raise ValueError("not an origin of http or https")
        scheme, host, port = match.groups()
        secure = scheme.lower() == b"https"
        number = int(port) if port else 443 if secure else 80
        if not 0 < number < 65536:
            raise ValueError("not a port")
        return cls(secure, host.strip(b"[]"), number, text[match.start(2) :])

    @property
    def target(self) -> bytes:
        """For ``CONNECT``: the port always stands in it (RFC 9112 §3.2.3)."""
        return b"%b:%d" % (b"[%b]" % self.host if b":" in self.host else self.host, self.port)


class HTTPProxy:
    """A proxy that opens tunnels.

    :param url: ``http://[user:password@]host[:port]``; the parts are percent-decoded.
    :raises ValueError: it is something else.
    """

    __slots__ = ("_credentials", "host", "port")

    def __init__(self, url: bytes) -> None:
        scheme, _, rest = url.partition(b"://")
        userinfo, at, place = rest.rpartition(b"@")
        try:
            origin = Origin.parse(scheme + b"://" + place.rstrip(b"/"))
        except ValueError:
            # Without the text: a password may stand in it.
            raise ValueError("not the URL of an HTTP proxy") from None
        if origin.secure:
            raise ValueError("a proxy is spoken to by plain HTTP")
        self.host = origin.host
        self.port = origin.port
        self._credentials = b64encode(unquote_to_bytes(userinfo)) if at else None

    def __repr__(self) -> str:
        return f"<HTTPProxy {self.host.decode()}:{self.port}>"

    def asks_for(self, target: bytes) -> bytes:
        """The request for a tunnel to *target*.  RFC 9110 §9.3.6."""
        lines = [b"CONNECT %b HTTP/1.1" % target, b"Host: " + target]
        if self._credentials is not None:
            lines.append(b"Proxy-Authorization: Basic " + self._credentials)
        return b"\r\n".join([*lines, b"", b""])
