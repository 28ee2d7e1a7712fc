"""One connection pool to a Redis server, every call bounded in time.

What uses it (cache, limits, events) must do without: a call that fails says so at once and the
connection is tried again behind its back.
"""

from __future__ import annotations

from typing import Any, Protocol

from twisted.internet.defer import Deferred


class RedisUnavailable(Exception):
    """The server does not answer, or not in time."""


class Redis(Protocol):
    """What the users of a server need."""

    up: bool
    """Whether the last call was answered."""

    def call(self, *arguments: str | bytes | int) -> Deferred[Any]:
        """One command, binary-safe; fails with :exc:`RedisUnavailable` within the time granted."""
        ...

    def script(self, source: str, keys: list[bytes], arguments: list[bytes | int | str]) -> Deferred[Any]:
        """Run a Lua script by its hash; sent whole where the server does not know it."""
        ...

    def close(self) -> Deferred[None]:
        """End all connections."""
        ...
