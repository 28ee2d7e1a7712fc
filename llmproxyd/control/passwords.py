"""Passwords of operators, as a file keeps them: ``user:$scrypt$ln=15,r=8,p=1$SALT$HASH``.

The hash is scrypt (RFC 7914) in the PHC string format; salt and hash are base64 without padding.
"""

from __future__ import annotations

import hashlib
import re
from base64 import b64decode, b64encode
from hmac import compare_digest

LOG_COST, BLOCK, LANES = 15, 8, 1
"""32 MiB and about 0.1 seconds for each guess."""
SALT = 16
"""Bytes of salt."""

_LINE = re.compile(
    r"([^\s:]{1,64}):\$scrypt\$ln=([0-9]{1,2}),r=([0-9]{1,2}),p=([0-9])\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]+)"
)
_USER = re.compile(r"[!-9;-~]{1,64}")
_MOST_MEMORY = 256 * 1024 * 1024


def password_line(user: str, password: str, salt: bytes) -> str:
    """The line for *user*.

    :param salt: :data:`SALT` random bytes.
    :raises ValueError: the name has spaces, colons or other signs, or the password is empty.
    """
    if not _USER.fullmatch(user):
        raise ValueError("the name of a user is 1 to 64 visible ASCII characters without a colon")
    if not password:
        raise ValueError("the password is empty")
    hashed = _hashed(password, salt, LOG_COST, BLOCK, LANES)
    return f"{user}:$scrypt$ln={LOG_COST},r={BLOCK},p={LANES}${_text(salt)}${_text(hashed)}"


def matches(line: str, user: str, password: str) -> bool:
    """Whether *line* lets *user* in with *password*."""
    match = _LINE.fullmatch(line.strip())
    if match is None or match[1] != user:
        return False
    cost, block, lanes = (int(match[number]) for number in (2, 3, 4))
    try:
        wanted = _bytes(match[6])
        return compare_digest(wanted, _hashed(password, _bytes(match[5]), cost, block, lanes))
    except (ValueError, OverflowError):
        return False


def _hashed(password: str, salt: bytes, log_cost: int, block: int, lanes: int) -> bytes:
    return hashlib.scrypt(
        password.encode(), salt=salt, n=1 << log_cost, r=block, p=lanes, maxmem=_MOST_MEMORY, dklen=32
    )


def _text(data: bytes) -> str:
    return b64encode(data).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    return b64decode(text + "=" * (-len(text) % 4))
