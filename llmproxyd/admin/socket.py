"""Where the admin socket is: one rule for the daemon and for ``llmproxyctl``."""

from __future__ import annotations

import errno
import os
import re
import socket
import stat
from collections.abc import Mapping
from pathlib import Path

from llmproxyd.config.endpoints import place

NAME = "admin.sock"
VARIABLE = "LLMPROXYD_ADMIN_SOCKET"
SYSTEM = Path("/run/llmproxyd") / NAME
"""Where a system service has it (``RuntimeDirectory=llmproxyd``)."""

LONGEST = 100
"""Bytes of a path; a socket's address takes 107 on Linux and 103 on macOS."""

PATIENCE = 2.0
"""Seconds for whoever may listen on a socket that is found."""


_UNLOCKED = re.compile(r":lockfile=0(?=:|$)")
_ESCAPED = re.compile(r"\\(.)")


class SocketError(Exception):
    """There can be no socket; the message is one line that says why and what to do."""


def default_socket(environ: Mapping[str, str], state_folder: Path) -> Path:
    """The socket of a daemon with this environment.

    systemd's ``$RUNTIME_DIRECTORY``, else the user's ``$XDG_RUNTIME_DIR``, else the state folder.
    """
    runtime = environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    if runtime:
        return Path(runtime) / NAME
    xdg = Path(environ.get("XDG_RUNTIME_DIR", ""))
    return (xdg / "llmproxyd" if xdg.is_absolute() else state_folder) / NAME


def candidates(environ: Mapping[str, str], state_folder: Path) -> list[Path]:
    """Where a client looks, in order: the daemon may have another environment."""
    given = environ.get(VARIABLE)
    if given:
        return [Path(given)]
    return list(dict.fromkeys([default_socket(environ, state_folder), state_folder / NAME, SYSTEM]))


def endpoint(path: Path) -> str:
    """The Twisted endpoint of a socket at *path* that only its owner may use."""
    escaped = str(path).replace("\\", "\\\\").replace(":", "\\:").replace("=", "\\=")
    return f"unix:{escaped}:mode=600:lockfile=0"


def unlocked(description: str) -> Path | None:
    """The socket of an endpoint that is left without a lock file, so that :func:`prepare` is for it.

    :param description: a valid endpoint.
    """
    here = place(description)
    if here.family != "unix" or not _UNLOCKED.search(description):
        return None
    return Path(_ESCAPED.sub(r"\1", here.name))


def prepare(path: Path) -> None:
    """Make the folder of *path* (for its owner alone), and take away what a dead daemon left there.

    :raises SocketError: somebody listens there, something else has the name, or the path is too long.
    """
    if len(os.fsencode(path)) > LONGEST:
        raise SocketError(
            f"{path} is too long for a socket ({LONGEST} bytes at most); "
            f'set admin.listen, such as "unix:/run/user/{os.getuid()}/llmproxyd.sock:mode=600"'
        )
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.lstat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise SocketError(f"{path}: {error.strerror}") from None
    if not stat.S_ISSOCK(found.st_mode):
        raise SocketError(f"{path} is no socket; move it away, or set admin.listen")
    if found.st_uid not in (os.geteuid(), 0):
        raise SocketError(f"{path} belongs to another user; set admin.listen")
    if _alive(path):
        raise SocketError(f"another daemon answers at {path}; stop it, or set admin.listen")
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise SocketError(f"{path}: {error.strerror}") from None


def _alive(path: Path) -> bool:
    """Whether anybody listens; one that cannot be asked is taken to."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(PATIENCE)
        try:
            client.connect(str(path))
        except OSError as error:
            return error.errno not in (errno.ECONNREFUSED, errno.ENOENT)
    return True
