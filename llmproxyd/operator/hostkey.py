"""The daemon's own SSH key, and the keys of those whom it lets in."""

from __future__ import annotations

import os
import re
import secrets
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

NAME = "ssh_host_ed25519_key"
"""Of the file in the state folder."""

MOST_FILE = 256 * 1024
"""Bytes of a file of keys."""

_OTHERS = 0o077
_KIND = re.compile(r"(ssh-|ecdsa-sha2-|sk-)[a-z0-9@.-]+")


class HostKeyError(Exception):
    """There is no key to speak with; the message is one line that says why and what to do."""


def host_key(path: Path) -> bytes:
    """The private key at *path* in OpenSSH's format, made there for its owner alone where it is missing.

    :raises HostKeyError: it cannot be read or made, or others can read it.
    """
    try:
        data = _read(path)
        if data is None:
            _make(path)
            data = _read(path)
    except OSError as error:
        raise HostKeyError(f"{path}: {error.strerror or error}") from None
    if data is None:
        raise HostKeyError(f"{path} is gone again")
    return data


def _read(path: Path) -> bytes | None:
    try:
        with path.open("rb") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            data = stream.read(MOST_FILE)
    except FileNotFoundError:
        return None
    if mode & _OTHERS:
        raise HostKeyError(f"others can read the key {path}; chmod 600 {path}")
    return data


def _make(path: Path) -> None:
    """Write a new key, as a whole or not at all; one that came meanwhile stays.

    :raises OSError: it cannot be written.
    """
    data = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
        try:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()


def authorized(path: Path) -> dict[bytes, str]:
    """Who may log in: the name of each by the key.  The comment behind a key is the name.

    Lines with options in front are left out: none of them would be obeyed.

    :raises OSError: the file cannot be read.
    """
    with path.open("rb") as stream:
        text = stream.read(MOST_FILE).decode("utf-8", "replace")
    return dict(_keys(text))


def _keys(text: str) -> Iterator[tuple[bytes, str]]:
    for line in text.splitlines():
        words = line.split(None, 2)
        if len(words) < 2 or not _KIND.fullmatch(words[0]):
            continue
        try:
            blob = b64decode(words[1], validate=True)
        except ValueError:
            continue
        # What the blob itself says it is (RFC 4253 §6.6).
        if blob[4 : 4 + len(words[0])] == words[0].encode():
            comment = words[2].strip() if len(words) > 2 else ""
            name = "".join(one for one in comment if one.isprintable())[:64]
            yield blob, name or f"key …{words[1][-8:]}"
