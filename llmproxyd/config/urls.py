"""URLs that hold secrets, and keys: each function raises :exc:`ValueError` with what is accepted.

What was found is never told.  What ``--print-config`` shows in a secret's place is let through, so
that its output can be loaded; the placeholder draws a warning.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from llmproxyd.config.problems import did_you_mean
from llmproxyd.redaction import REDACTED, Secret
from llmproxyd.redis.address import address_of

STORE = '"sqlite:PATH", or a URL such as "postgresql://user:password@db.example.com/llmproxyd"'
REDIS = (
    'a URL such as "redis://:password@cache.example.com:6379/0", "rediss://…" for TLS, or '
    '"unix:///run/redis/redis.sock"'
)
WEBHOOK = 'an http or https URL such as "https://collector.example.com/events"'
SECRET_KEY_LEAST = 16
SECRET_KEY = f"a secret of {SECRET_KEY_LEAST} characters at least"

SQLITE = "sqlite:"
POSTGRESQL = ("postgresql://", "postgres://")


def store(value: Secret) -> None:
    """Where projects and tokens are kept."""
    text = value.reveal()
    if text.startswith(SQLITE):
        path = text.removeprefix(SQLITE)
        if not path or path.startswith(("//", ":")):
            raise ValueError(f"the path of a file must follow sqlite:; accepted: {STORE}")
        return
    if not text.startswith(POSTGRESQL):
        hint = did_you_mean(text.partition(":")[0], ("sqlite", "postgresql")) if ":" in text else ""
        raise ValueError(f"no such store{hint}; accepted: {STORE}")
    if not text.isascii() or " " in text or text in POSTGRESQL:
        raise ValueError(f"it is no URL; accepted: {STORE}")


def redis(value: Secret) -> None:
    """A Redis server and one of its databases."""
    try:
        address_of(Secret(value.reveal().replace(REDACTED, "x")))
    except ValueError as error:
        raise ValueError(f"it {error}") from None


def webhook(value: Secret) -> None:
    """Where batches of events are sent."""
    text = value.reveal()
    if text == REDACTED:
        return
    try:
        parts = urlsplit(text)
        usable = bool(parts.hostname) and parts.port != 0 and " " not in text
    except ValueError:
        usable = False
    if not usable or not text.lower().startswith(("http://", "https://")):
        raise ValueError(f"it is none; accepted: {WEBHOOK}")


def secret_key(value: Secret) -> None:
    """What encrypts; a short one is guessed."""
    if len(value.reveal()) < SECRET_KEY_LEAST and value.reveal() != REDACTED:
        raise ValueError(f"it is too short; accepted: {SECRET_KEY}")
