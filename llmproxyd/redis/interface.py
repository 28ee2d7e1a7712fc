"""What the users of a server need of it, and how it fails."""

from __future__ import annotations

from typing import Any, Protocol

from twisted.internet.defer import Deferred


class RedisUnavailable(Exception):
    """The server does not answer, or not in time."""


class RedisRefused(RedisUnavailable):
    """The server answered with an error: out of memory, still loading, not allowed."""


class Redis(Protocol):
    """What the users of a server need."""

    up: bool
    """Whether a call would be sent: a connection stands on which the server has answered."""

    def call(self, *arguments: str | bytes | int) -> Deferred[Any]:
        """One command, binary-safe; fails with :exc:`RedisUnavailable` within the time granted.

        Bulk replies are bytes, status replies (``OK``) are text or bytes.
        """
        ...

    def script(self, source: str, keys: list[bytes], arguments: list[bytes | int | str]) -> Deferred[Any]:
        """Run a Lua script by its hash; sent whole where the server does not know it.

        That second round trip has as much time again.
        """
        ...

    def close(self) -> Deferred[None]:
        """End all connections."""
        ...
