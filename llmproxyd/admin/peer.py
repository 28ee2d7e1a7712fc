"""Which user is at the other end of a Unix socket."""

from __future__ import annotations

import socket
import stat
import struct
from pathlib import Path
from typing import Any

from twisted.internet.address import UNIXAddress

_LINUX = struct.Struct("3i")
"""``struct ucred``: process, user, group (unix(7))."""
_DARWIN = struct.Struct("=II")
"""The start of ``struct xucred``: version, user."""
_DARWIN_SIZE = 76
_SOL_LOCAL, _LOCAL_PEERCRED = 0, 1


def is_unix(transport: Any) -> bool:
    """Whether *transport* is a Unix socket's."""
    return isinstance(transport.getHost(), UNIXAddress)


def peer_uid(transport: Any, owner: int) -> int | None:
    """The user at the other end of a Unix socket, ``None`` where nobody can say.

    Where the system does not tell it, the permissions of the socket's file do: one that only its
    *owner* may connect to was connected to by them.
    """
    connection: socket.socket | None = getattr(transport, "socket", None)
    if connection is not None:
        try:
            return _asked(connection)
        except (OSError, struct.error, AttributeError):
            pass
    return owner if _private(transport.getHost(), owner) else None


def _asked(connection: socket.socket) -> int:
    if hasattr(socket, "SO_PEERCRED"):
        data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _LINUX.size)
        return int(_LINUX.unpack(data)[1])
    data = connection.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, _DARWIN_SIZE)
    return int(_DARWIN.unpack_from(data)[1])


def _private(address: UNIXAddress, owner: int) -> bool:
    name = address.name
    if not name:
        return False
    try:
        found = Path(name.decode() if isinstance(name, bytes) else name).stat()
    except (OSError, ValueError):
        return False
    return found.st_uid == owner and not found.st_mode & (stat.S_IRWXG | stat.S_IRWXO)
