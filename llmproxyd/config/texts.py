"""Texts with a form of their own: URLs, endpoints, names, header fields.

Each function returns the normal form, or raises :exc:`ValueError` with what is accepted.
"""

from __future__ import annotations

import ipaddress
import os
import re
from pathlib import Path
from urllib.parse import urlsplit

from twisted.internet.endpoints import serverFromString

from llmproxyd.access import paths
from llmproxyd.config.problems import did_you_mean

UPSTREAM_NAME = 'a name of lower case letters, digits, ".", "_" and "-", such as "my-vllm"'
POLICY_NAME = 'a name of lower case letters, digits, ".", "_" and "-", such as "patient"'
BASE_URL = 'an http or https URL such as "https://api.example.com" or "http://localhost:8000/v1"'
ORIGIN = 'an origin such as "http://localhost:3000"'
ENDPOINT = 'a Twisted endpoint such as "tcp:8888:interface=127.0.0.1"'
HEADER = 'a header field, "name" or "name: value"'
HEADER_NAME = 'the name of a header field, such as "x-team"'
PATH_PREFIX = 'a path that starts with "/", such as "/team-a"'
STRIPPED_PREFIX = 'a path that starts with "/", such as "/api/v1", or an empty text'
HOST = 'a host name such as "llm.example.com", with ":port" if it matters'
RULE_NAME = 'a short name such as "flaky-mornings"'
MODEL = 'the name of a model such as "gpt-4o"'
FOLDER = "the path of a folder"
FILE = "the path of a file that can be read"
KEPT_FILE = "the path of a file"
ENDPOINT_PATH = 'a path or a pattern for paths, such as "/v1/models", "/v1/files/" or "/v1/models/*"'
RAW_PATH = 'a pattern for paths, such as "/v1/embeddings" or "/v1/*"'
METHOD = 'the name of a method, such as "POST"'
CACHED_METHOD = "GET, HEAD or POST"
FIELD_NAME = 'the name of a header field, such as "accept-language"'
PARAMETER = 'the name of a parameter, such as "model"'
PATTERN = 'a value or a pattern for values, such as "gpt-4o" or "gpt-4o-*"'
KEY_PREFIX = 'what keys begin with, such as "llmproxyd:cache:"'
STREAM = 'the name of a stream, such as "llmproxyd:events"'
MEMBER = 'a member of JSON objects, such as "user" or "metadata.session"'

ENDPOINT_TYPES = ("tcp", "tcp6", "ssl", "tls", "unix", "systemd", "haproxy")
_WITH_PORT = ("tcp", "tcp6", "ssl", "tls")

_UPSTREAM_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_VISIBLE = re.compile(r"[!-~]+")
_HOST_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,252})")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#\s@\\]+", re.IGNORECASE)
_HOST_AND_PORT = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_][A-Za-z0-9._-]*)(?::[0-9]{1,5})?")
_BARE_IPV6 = re.compile(r"(?<=:interface=)\[?([0-9A-Fa-f:.]+(?:%\w+)?)\]?(?=$|:[A-Za-z]+=)")
_COLON = re.compile(r"(?<!\\):")
# A field that frames the message or belongs to one connection is the transport's business.
_CONNECTION = ("connection", "keep-alive", "proxy-connection", "te", "upgrade")
_FRAMING = frozenset((*_CONNECTION, "content-length", "trailer", "transfer-encoding"))


def upstream_name(text: str) -> None:
    """The name of an upstream; it stands in ``/to/NAME`` and in metrics' labels."""
    if not _UPSTREAM_NAME.fullmatch(text):
        raise ValueError(f"accepted: {UPSTREAM_NAME}, of 64 characters at most")


def policy_name(text: str) -> None:
    """The name of a policy under ``resilience``."""
    if not _UPSTREAM_NAME.fullmatch(text):
        raise ValueError(f"accepted: {POLICY_NAME}, of 64 characters at most")


def model(text: str) -> None:
    """The name of a model, which is the provider's business; it is not empty."""
    if not text.strip() or not text.isprintable():
        raise ValueError(f"accepted: {MODEL}")


def rule_name(text: str) -> None:
    """The name of a standing fault, as shown to the operator."""
    if not text.strip() or len(text) > 64 or not text.isprintable():
        raise ValueError(f"accepted: {RULE_NAME}, of 64 characters at most")


def base_url(text: str) -> str:
    """An origin with an optional path, without a slash at its end."""
    if not text:
        return text
    if not _VISIBLE.fullmatch(text):
        raise ValueError(f"accepted: {BASE_URL}, of visible ASCII characters")
    scheme, separator, _ = text.partition("://")
    if not separator:
        raise ValueError(f'accepted: {BASE_URL}; put "http://" or "https://" in front')
    if scheme.lower() not in ("http", "https"):
        raise ValueError(f"accepted: {BASE_URL}")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise ValueError(f"{_lower_start(str(error))}; accepted: {BASE_URL}") from None
    if "@" in parts.netloc:
        raise ValueError("a user or password does not belong into the URL; use api_key or headers")
    if "?" in text or "#" in text:
        raise ValueError("a query or fragment does not belong into the URL; clients send their own")
    if ":" in host:
        host = f"[{host}]"
    elif not _HOST_NAME.fullmatch(host):
        raise ValueError(f"the host is missing or no host name; accepted: {BASE_URL}")
    if port == 0:
        raise ValueError("port 0 cannot be connected to; accepted: 1 to 65535")
    return f"{scheme.lower()}://{host}{f':{port}' if port else ''}{parts.path.rstrip('/')}"


def origin(text: str) -> str:
    """A web origin in the form in which browsers send it."""
    if not _ORIGIN.fullmatch(text):
        raise ValueError(f"accepted: {ORIGIN}, without a path")
    return text.lower()


def allowed_origin(text: str) -> str:
    """A web origin, or ``*`` for all."""
    if text == "*":
        return text
    try:
        return origin(text)
    except ValueError as error:
        raise ValueError(f'{error}, or "*" for all') from None


def endpoint_path(text: str) -> None:
    """A path as clients send it, a prefix of such paths or a glob."""
    wrong = paths.problem(text)
    if wrong is not None:
        raise ValueError(wrong)


def raw_path(text: str) -> None:
    """A glob for raw paths, in which ``*`` stands for any text."""
    if not _VISIBLE.fullmatch(text) or not text.startswith("/") or "?" in text or "#" in text:
        raise ValueError(f"accepted: {RAW_PATH}, without query")


def method(text: str) -> str:
    """The name of a method, in upper case as all that are in use are written."""
    if not _TOKEN.fullmatch(text):
        raise ValueError(f"accepted: {METHOD}")
    return text.upper()


def cached_method(text: str) -> str:
    """A method whose answers may be stored."""
    if text.upper() not in ("GET", "HEAD", "POST"):
        raise ValueError(f"accepted: {CACHED_METHOD}")
    return text.upper()


def field_name(text: str) -> str:
    """The name of a field of requests, in lower case."""
    if not _TOKEN.fullmatch(text):
        raise ValueError(f"accepted: {FIELD_NAME}")
    return text.lower()


def parameter(text: str) -> None:
    """The name of a member of a body, or of an argument of a query."""
    if not text or not text.isprintable():
        raise ValueError(f"accepted: {PARAMETER}")


def pattern(text: str) -> None:
    """A glob for values."""
    if not text or not text.isprintable():
        raise ValueError(f"accepted: {PATTERN}")


def key_prefix(text: str) -> None:
    """What tells our keys from others in one Redis database."""
    if not _VISIBLE.fullmatch(text) or len(text) > 200:
        raise ValueError(f"accepted: {KEY_PREFIX}, of visible ASCII characters, 200 at most")


def stream(text: str) -> None:
    """The name of a Redis stream."""
    if not _VISIBLE.fullmatch(text) or len(text) > 200:
        raise ValueError(f"accepted: {STREAM}, of visible ASCII characters, 200 at most")


def member(text: str) -> None:
    """The path of a member of JSON objects, its names parted by dots."""
    if not text.isprintable() or not all(text.split(".")):
        raise ValueError(f"accepted: {MEMBER}")


def admin_endpoint(text: str) -> str:
    """An endpoint; a Unix socket of which nothing else is said is for this user alone.

    Whoever can connect to it is an administrator, and Twisted's own default lets everybody.
    """
    text = endpoint(text)
    kind, *arguments = _COLON.split(text)
    if kind == "unix" and not any(one.startswith("mode=") for one in arguments):
        text += ":mode=600"
    return text


def endpoint(text: str) -> str:
    r"""A Twisted server endpoint, with the colons of an IPv6 address escaped.

    People write ``interface=::1``; Twisted's own syntax asks for ``interface=\:\:1``.
    """
    text = _BARE_IPV6.sub(_escaped, text)
    kind, *arguments = _COLON.split(text)
    if kind not in ENDPOINT_TYPES:
        types = ", ".join(ENDPOINT_TYPES)
        raise ValueError(f"no such type of endpoint{did_you_mean(kind, ENDPOINT_TYPES)} (accepted: {types})")
    if kind in _WITH_PORT:
        _check_port(arguments)
    # What systemd handed over is known when the endpoint is opened, not here.
    if kind != "systemd" and "systemd" not in arguments[:1]:
        try:
            serverFromString(object(), text)
        except Exception as error:
            # A parser is a plugin and may raise anything; its words are the best there are.
            raise ValueError(f"{_lower_start(_words(error))}; accepted: {ENDPOINT}") from None
    return text


def _escaped(match: re.Match[str]) -> str:
    address = match.group(1)
    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        return match.group()
    return address.replace(":", "\\:")


def _check_port(arguments: list[str]) -> None:
    named = dict(part.split("=", 1) for part in arguments if "=" in part)
    plain = [part for part in arguments if "=" not in part]
    port = named.get("port", plain[0] if plain else "")
    if not (re.fullmatch(r"[0-9]{1,5}", port) and int(port) <= 65535):
        raise ValueError(f"the port must be a whole number from 0 to 65535; accepted: {ENDPOINT}")


def path_prefix(text: str) -> str:
    """A prefix of raw request paths, without a slash at its end."""
    if not _VISIBLE.fullmatch(text) or not text.startswith("/") or "?" in text or "#" in text:
        raise ValueError(f"accepted: {PATH_PREFIX}, without query")
    return text.rstrip("/") or "/"


def stripped_prefix(text: str) -> str:
    """A prefix of every request's raw path, without a slash at its end; empty for none."""
    if text.strip("/") == "":
        return ""
    try:
        return path_prefix(text)
    except ValueError:
        raise ValueError(f"accepted: {STRIPPED_PREFIX}, without query") from None


def host(text: str) -> str:
    """A ``Host`` field's value."""
    if not _HOST_AND_PORT.fullmatch(text):
        raise ValueError(f"accepted: {HOST}")
    return text.lower()


def header(text: str) -> str:
    """A field that a request must have, with this value if one is given."""
    name, colon, value = text.partition(":")
    if not _TOKEN.fullmatch(name) or not value.isascii() or not (value.isprintable()):
        raise ValueError(f"accepted: {HEADER}")
    return f"{name.lower()}: {value.strip()}" if colon else name.lower()


def header_name(text: str) -> None:
    """The name of a field that is added to requests."""
    if not _TOKEN.fullmatch(text):
        raise ValueError(f"accepted: {HEADER_NAME}")
    if text.lower() in _FRAMING:
        raise ValueError(f"this field belongs to the connection; accepted: {HEADER_NAME}")


def folder(path: Path) -> None:
    """A folder that is made where it is missing."""
    if not str(path).isprintable():
        raise ValueError(f"accepted: {FOLDER}, of printable characters")


def kept_file(path: Path) -> None:
    """A file that is made where it is missing."""
    if not path.name or not str(path).isprintable():
        raise ValueError(f"accepted: {KEPT_FILE}, of printable characters")


def readable_file(path: Path) -> None:
    """A file that can be read now."""
    try:
        if not path.is_file():
            raise ValueError(f"{path} is {'no file' if path.exists() else 'missing'}; accepted: {FILE}")
        allowed = os.access(path, os.R_OK)
    except OSError as error:
        raise ValueError(f"{error.strerror}; accepted: {FILE}") from None
    if not allowed:
        raise ValueError(f"{path} must not be read by this user; accepted: {FILE}")


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}"
    # Twisted's parsers are called with the arguments: "_parseTCP() got an unexpected …".
    return re.sub(r"^\S+\(\) ", "", str(error)) or type(error).__name__


def _lower_start(text: str) -> str:
    return text[:1].lower() + text[1:]
