"""The way of ``llmproxyctl`` to the daemon: HTTP over a Unix socket or TCP, without a reactor."""

from __future__ import annotations

import errno
import http.client
import json
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

BASE = "/admin/v1"
TIMEOUT = 60.0
"""Seconds for an answer; a test of an upstream takes half of it at most."""
MAX_ANSWER = 32 * 1024 * 1024
"""Bytes of an answer."""

_WHY = {
    errno.ENOENT: "missing",
    errno.ECONNREFUSED: "nobody listens",
    errno.EACCES: "permission denied",
    errno.ENOTSOCK: "no socket",
}


class Unreachable(Exception):
    """No daemon answers; the message says where was looked, and what to do."""


class Failed(Exception):
    """The daemon refused; the message is for people.

    :ivar code: stable.
    :ivar problems: one line each.
    """

    def __init__(self, status: int, code: str, message: str, problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Place:
    """Where the daemon is looked for.

    :param sockets: tried in order, where there is no *url*.
    :param url: origin of a TCP listener.
    :param token: presented as a bearer token.
    """

    sockets: Sequence[Path] = ()
    url: str | None = None
    token: str | None = None

    @property
    def in_clear(self) -> bool:
        """Whether a token would travel where others may listen."""
        if self.url is None or self.token is None:
            return False
        parts = urlsplit(self.url)
        return parts.scheme == "http" and not _is_local(parts.hostname or "")


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, connected: socket.socket) -> None:
        super().__init__("localhost")
        self.sock = connected


class Client:
    """Calls the admin API, a connection for each call.

    :param timeout: seconds for each step of a call.
    """

    def __init__(self, place: Place, timeout: float = TIMEOUT) -> None:
        self.place = place
        self._timeout = timeout

    def call(
        self,
        method: str,
        *path: str,
        body: Mapping[str, object] | None = None,
        query: Mapping[str, object] | None = None,
    ) -> Any:
        """What the daemon answers to *method* at *path*, given part by part.

        :raises Failed: it refuses.
        :raises Unreachable: there is none.
        """
        return _told(*self._answered(method, path, body, query))

    def page(self, *path: str) -> str:
        """The text at *path*.

        :raises Failed: it is refused.
        :raises Unreachable: there is no daemon.
        """
        status, data = self._answered("GET", path, None, None)
        if status >= 300:
            _told(status, data)
        return data.decode("utf-8", "replace")

    def _answered(
        self,
        method: str,
        path: Sequence[str],
        body: Mapping[str, object] | None,
        query: Mapping[str, object] | None,
    ) -> tuple[int, bytes]:
        target = "/".join([BASE, *(quote(part, safe="") for part in path)])
        given = {name: value for name, value in (query or {}).items() if value is not None}
        if given:
            target += "?" + urlencode(given)
        data = None if body is None else json.dumps(body).encode()
        fields = {"Accept": "application/json"}
        if data is not None:
            fields["Content-Type"] = "application/json"
        if self.place.token is not None:
            fields["Authorization"] = f"Bearer {self.place.token}"
        connection = self._connection()
        try:
            connection.request(method, target, data, fields)
            answer = connection.getresponse()
            return answer.status, answer.read(MAX_ANSWER)
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"{self._where()}: {self._reason(error)}") from None
        finally:
            connection.close()

    def every(self, member: str, *path: str, query: Mapping[str, object] | None = None) -> list[Any]:
        """All items of a list that comes in pages."""
        found: list[Any] = []
        after: str | None = None
        while True:
            part = self.call("GET", *path, query={**(query or {}), "limit": 1000, "after": after})
            found += part[member]
            after = part["next"]
            if after is None:
                return found

    def _where(self) -> str:
        return self.place.url or "the admin socket"

    def _reason(self, error: Exception) -> str:
        if isinstance(error, TimeoutError):
            return f"no answer within {self._timeout:.0f} s"
        return reason(error)

    def _connection(self) -> http.client.HTTPConnection:
        if self.place.url is None:
            return _UnixConnection(self._socket())
        parts = urlsplit(self.place.url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        return kind(parts.hostname or "", parts.port, timeout=self._timeout)

    def _socket(self) -> socket.socket:
        """A connection to the first socket on which somebody listens."""
        tried = []
        for path in self.place.sockets:
            client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            client.settimeout(self._timeout)
            try:
                client.connect(str(path))
            except OSError as error:
                client.close()
                tried.append(f"  {path}: {self._reason(error)}")
            else:
                return client
        raise Unreachable(
            "no daemon answers. Looked at:\n" + "\n".join(tried) + "\nThe admin socket is opened where "
            "access.enabled or admin.listen is set; --socket PATH or --url URL says where it is."
        )


def checked_url(text: str) -> str:
    """The origin *text*.

    :raises ValueError: it is none.
    """
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/"):
        raise ValueError('accepted: an origin such as "https://gateway.example.com:8899"')
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("the URL must hold neither a user nor a query; the token goes into a file")
    parts.port  # noqa: B018 - raises where it is no port
    return text.rstrip("/")


def _told(status: int, data: bytes) -> Any:
    """The value that was answered.

    :raises Failed: it is an error.
    """
    try:
        value = json.loads(data)
    except ValueError:
        raise Failed(status, "no_admin_api", f"what answers ({status}) is no llmproxyd admin API") from None
    if status < 300:
        return value
    error = value.get("error") if isinstance(value, dict) else None
    if not isinstance(error, dict):
        raise Failed(status, "no_admin_api", f"what answers ({status}) is no llmproxyd admin API")
    problems = [
        f"{one.get('pointer') or '/'}: found {one.get('found')}; accepted: {one.get('accepted')}"
        for one in error.get("problems", [])
    ]
    raise Failed(status, str(error.get("code")), str(error.get("message")), problems)


def reason(error: Exception) -> str:
    """What *error* means, in a few words."""
    if isinstance(error, OSError):
        known = _WHY.get(error.errno or 0)
        return known or error.strerror or str(error) or type(error).__name__
    return str(error) or type(error).__name__


def _is_local(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
