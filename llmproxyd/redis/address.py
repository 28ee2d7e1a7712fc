"""Where a server is, and what it asks for, from a URL."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

from llmproxyd.redaction import Secret


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is, and what it asks for.

    :param path: of a unix socket; *host* and *port* say nothing then.
    :param db: number of the database.
    """

    host: str = "localhost"
    port: int = 6379
    path: str = ""
    tls: bool = False
    user: str = ""
    password: Secret | None = None
    db: int = 0

    @property
    def place(self) -> str:
        """For the log."""
        where = f"unix:{self.path}" if self.path else f"{self.host}:{self.port}"
        return f"{where}/{self.db}" if self.db else where


def address_of(url: Secret) -> Address:
    """What *url* says: ``redis://[[USER]:PASSWORD@]HOST[:PORT][/DB]``, ``rediss://`` the same over
    TLS, ``unix://[[USER]:PASSWORD@]/PATH[?db=DB]`` or ``redis+unix://`` the same.

    :raises ValueError: in words that do not repeat it.
    """
    wrong = "must be redis://[[USER]:PASSWORD@]HOST[:PORT][/DB], rediss://… or unix:///PATH[?db=DB]"
    text = url.reveal()
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(wrong) from None
    local = parts.scheme in ("unix", "redis+unix")
    if parts.scheme not in ("redis", "rediss") and not local:
        raise ValueError(wrong)
    if parts.fragment or "#" in text:
        raise ValueError(f"{wrong}; a # within the password is written %23")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    db = options.pop("db", "") if local else parts.path.removeprefix("/") or options.pop("db", "")
    known = parts.hostname is None and parts.path if local else parts.hostname
    if options or not known or (db and not (db.isascii() and db.isdigit() and len(db) < 6)):
        raise ValueError(wrong)
    return Address(
        host=parts.hostname or "",
        port=port or 6379,
        path=unquote(parts.path) if local else "",
        tls=parts.scheme == "rediss",
        user=unquote(parts.username or ""),
        password=Secret(unquote(parts.password)) if parts.password else None,
        db=int(db or 0),
    )
