"""What must not be shown, and how it is shown instead.

Bottom of the house: knows nothing but text.  A secret is wrapped where it enters (the
configuration) and opened by the one piece of code that sends it to the upstream it is for;
anything that prints it by mistake prints :data:`REDACTED`.  What is recorded of requests goes
through a :class:`Redactor` where the record is made.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Iterable
from hmac import compare_digest
from urllib.parse import unquote, unquote_plus

from llmproxyd.model import RawHeaders
from llmproxyd.spellings import find_all, spellings

REDACTED = "[redacted]"


class Secret:
    """A text that shows itself to :meth:`reveal` alone."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself."""
        return self._text

    def __repr__(self) -> str:
        return REDACTED

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format(REDACTED, spec)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return compare_digest(
            self._text.encode("utf-8", "surrogatepass"), other._text.encode("utf-8", "surrogatepass")
        )

    def __hash__(self) -> int:
        return hash(("secret", self._text))

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a secret cannot be pickled or copied out of the process")

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        return self


class SecretURL(Secret):
    """A URL with a password in it, or ``sqlite:PATH``, which is shown without what is secret."""

    __slots__ = ()

    @property
    def masked(self) -> str:
        """The URL with :data:`REDACTED` for its password."""
        return _masked(self._text)[0]

    def hidden(self) -> tuple[str, ...]:
        """What of it is secret by itself, as written and decoded: what logs must not hold."""
        found = _masked(self._text)[1]
        return tuple(dict.fromkeys(form for text in found for form in (text, unquote(text)) if form))

    def __repr__(self) -> str:
        return self.masked

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format(self.masked, spec)


PRESENTED = 32
"""Credentials of one request that are looked for."""

_SCHEMES = frozenset({"bearer", "basic", "digest", "token", "apikey", "negotiate", "aws4-hmac-sha256"})
_NAMES = frozenset(
    {
        "authorization",
        "proxy-authorization",
        "cookie",
        "set-cookie",
        "apikey",
        "api-key",
        "token",
        "secret",
        "password",
        "x-auth",
    }
)
_ENDINGS = ("-api-key", "-token", "-secret", "-auth-key", "-access-key", "-subscription-key", "-password")
_ARGUMENTS = frozenset({"key", "sig", "auth", "authorization", "apikey", "code"})
_ARGUMENT_ENDINGS = ("token", "secret", "signature", "credential", "password", "_key", "-key")

_CONTROLS = {number: f"\\x{number:02x}" for number in (*range(32), *range(127, 160))}
_COOKIE = 16
"""Characters from which on the value of a cookie is taken for a credential."""

_QUERY_VALUE = re.compile(r"[^&;#\s\"'<>\\]+")
_MEMBER_VALUE = re.compile(r'\s{0,8}:\s{0,8}"((?:[^"\\]|\\.)*+)', re.DOTALL)
_USER = re.compile(r"([^\s/@\"'<>\\?#]{1,512})@")
# What stands before a key: nothing that a word would go on with, unless it ends an escape.
_EDGE = r"(?:(?<![A-Za-z0-9])|(?<=\\[nrtbf])|(?<=%[0-9A-Fa-f]{2})|(?<=\\u[0-9A-Fa-f]{4}))"
_KEY_VALUE = re.compile(_EDGE + r"((?:sk-|gsk_|xai-|AIza|fw_|dapi)[A-Za-z0-9_-]{16,})")
# A word in lower case is one of a sentence (``bearer tokens``), no token.
_BEARER_VALUE = re.compile(r"""(?![a-z]{6,16}[.!?:]?(?:[\s"'\\<>,;)]|\Z))[^\s"'\\<>,;)]{6,}""")
_LOGIN_VALUE = re.compile(r"(?![a-z]+\b)[A-Za-z0-9+/]{8,}={0,2}")
_HINTS: tuple[tuple[str, int, re.Pattern[str]], ...] = (
    *((prefix, 0, _KEY_VALUE) for prefix in ("sk-", "gsk_", "xai-", "AIza", "fw_", "dapi")),
    *((scheme, 7, _BEARER_VALUE) for scheme in ("Bearer ", "bearer ", "BEARER ")),
    *((scheme, 6, _LOGIN_VALUE) for scheme in ("Basic ", "basic ")),
    *(
        (name, len(name), _QUERY_VALUE)
        for name in (
            "?key=",
            "&key=",
            "api_key=",
            "api-key=",
            "access_token=",
            "refresh_token=",
            "client_secret=",
            "?token=",
            "&token=",
            "?sig=",
            "&sig=",
            "Signature=",
            "X-Amz-Credential=",
            "X-Amz-Security-Token=",
        )
    ),
    *(
        (f'"{name}"', len(name) + 2, _MEMBER_VALUE)
        for name in ("api_key", "access_token", "refresh_token", "id_token", "client_secret", "password")
    ),
    ("://", 3, _USER),
)
"""What a secret is known by: a text before it, where its value begins, and what is the value."""


class Redactor:
    """Takes out what must not be shown, from what is about to be recorded.

    Texts are searched with :meth:`str.find`, once for each thing looked for: a single regular
    expression would keep every other thread waiting until it has been through a whole body.
    All finds are collected before any is taken out: one secret may begin another one.

    :param configured: the secrets of the configuration.
    """

    def __init__(self, configured: Iterable[Secret] = ()) -> None:
        self._whole = frozenset(text for secret in configured if (text := secret.reveal()))
        self._within = spellings(self._whole)

    def learn(self, configured: Iterable[Secret]) -> None:
        """Know *configured* too from now on; what was known stays."""
        self._whole |= {text for secret in configured if (text := secret.reveal())}
        self._within = spellings(self._whole)

    def knowing(self, secrets: Iterable[str]) -> Redactor:
        """One that knows *secrets* too: those that one client presented."""
        further = {text for text in secrets if text} - self._whole
        if not further:
            return self
        other = Redactor()
        other._whole = self._whole | further
        other._within = tuple(dict.fromkeys((*self._within, *spellings(further))))
        return other

    def fields(self, headers: RawHeaders) -> list[tuple[str, str]]:
        """Header fields as text, without their secrets; control characters are escaped."""
        return [
            (printable(name.decode("latin-1")), self._value(name.lower().decode("latin-1"), value))
            for name, value in headers
        ]

    def _value(self, name: str, raw: bytes) -> str:
        value = raw.decode("latin-1")
        if _is_secret(name):
            scheme, space, _ = value.partition(" ")
            known = name == "authorization" and space and scheme.lower() in _SCHEMES
            return f"{scheme} {REDACTED}" if known else REDACTED
        if value.strip() in self._whole:
            return REDACTED
        return printable(self.url(value) if "=" in value or "@" in value else self.text(value))

    def url(self, text: str) -> str:
        """A URL, or a target, without the user in it and without arguments that are secrets."""
        at = min((found for sign in "?#" if (found := text.find(sign)) >= 0), default=len(text))
        place, query = text[:at], text[at:]
        head, scheme, rest = place.partition("://")
        if scheme:
            authority, slash, path = rest.partition("/")
            _, user, host = authority.rpartition("@")
            place = head + scheme + (f"{REDACTED}@{host}" if user else authority) + slash + path
        parts = _SEPARATOR.split(query)
        parts[::2] = [self._argument(part) for part in parts[::2]]
        return self.text(place + "".join(parts))

    def _argument(self, part: str) -> str:
        name, equals, value = part.partition("=")
        if equals and value and (_is_argument(unquote(name)) or unquote_plus(value) in self._whole):
            return f"{name}={REDACTED}"
        return part

    def text(self, text: str | bytes, secrets: Iterable[str] = ()) -> str:
        """*text* without any secret: bodies, messages, stack traces.

        :param secrets: further ones, as in :meth:`knowing`, which is better for several texts.
        """
        if isinstance(text, bytes):
            text = text.decode("utf-8", "backslashreplace")
        known = self.knowing(secrets)
        spans: list[tuple[int, int]] = []
        for form, step in known._within:
            find_all(text, form, step, spans)
        for hint, skip, value in _HINTS:
            at = text.find(hint)
            while at >= 0:
                match = value.match(text, at + skip)
                if match is not None and match.group(match.lastindex or 0):
                    spans.append(match.span(match.lastindex or 0))
                at = text.find(hint, max(at + len(hint), match.end() if match is not None else 0))
        return _without(text, spans)

    def cut(self, text: str) -> str:
        """*text*, which was cut off, without the beginning of a secret at its end."""
        for form, _ in self._within:
            for length in range(min(len(form) - 1, len(text)), 3, -1):
                if text.endswith(form[:length]):
                    return text[:-length] + REDACTED
        return text


def presented(headers: RawHeaders, query: bytes) -> tuple[str, ...]:
    """The credentials that a client's request carries, without their schemes.

    :param query: raw.  At most :data:`PRESENTED`; cookies come last.
    """
    found: dict[str, None] = {}
    cookies: list[str] = []
    for raw_name, raw in headers:
        name, value = raw_name.lower().decode("latin-1"), raw.decode("latin-1").strip()
        if not _is_secret(name) or name == "set-cookie":
            continue
        if name == "cookie":
            pairs = [pair.partition("=")[2].strip() for pair in value.split(";")]
            cookies += [content for content in pairs if len(content) >= _COOKIE]
        else:
            found.update(dict.fromkeys(_credentials(value)))
    for part in query.decode("latin-1").replace(";", "&").split("&"):
        name, equals, value = part.partition("=")
        if equals and _is_argument(unquote(name)):
            found.update(dict.fromkeys((unquote(value), value)))
    found.update(dict.fromkeys(cookies))
    return tuple(text for text in found if text)[:PRESENTED]


def _masked(url: str) -> tuple[str, list[str]]:
    """*url* as it is shown, and what was taken out.

    Whoever writes a password forgets to escape it, so it may hold any sign: the login reaches to
    the last ``@``.  What has no form that is known is secret as a whole.
    """
    scheme, _, rest = url.partition(":")
    if not _SCHEME.fullmatch(scheme) or not rest.startswith("//"):
        return (url, []) if scheme == "sqlite" else (REDACTED, [url])
    hidden = []
    login, at, place = rest[2:].rpartition("@")
    name, colon, password = login.partition(":")
    if colon and password:
        hidden.append(password)
        login = f"{name}:{REDACTED}"
    elif login and not colon and not scheme.startswith("postgres"):
        hidden.append(login)
        login = REDACTED
    parts = _SEPARATOR.split(place)
    for number, part in enumerate(parts[2::2], 1):
        name, _, value = part.partition("=")
        if value and _is_argument(unquote(name)):
            hidden.append(value)
            parts[number * 2] = f"{name}={REDACTED}"
    return f"{scheme}://{login}{at}{''.join(parts)}", hidden


def printable(text: str) -> str:
    """*text* with its control characters escaped, line ends too."""
    return text if text.isprintable() else text.translate(_CONTROLS)


def _credentials(value: str) -> list[str]:
    """What is secret in the value of a field of credentials."""
    scheme, space, rest = value.partition(" ")
    rest = rest.strip()
    if not space or scheme.lower() not in _SCHEMES:
        return [value]
    if scheme.lower() == "aws4-hmac-sha256":
        return _SIGNED.findall(rest)
    if scheme.lower() != "basic":
        return [rest]
    try:
        login = b64decode(rest, validate=True).decode("latin-1")
    except ValueError:
        return [rest]
    return [rest, login, login.partition(":")[2]]


_SIGNED = re.compile(r"(?:Credential|Signature)=([^,\s]+)")
_SEPARATOR = re.compile("([?&;#])")
_SCHEME = re.compile("[a-z][a-z0-9+.-]*")


def _is_secret(name: str) -> bool:
    return name in _NAMES or name.endswith(_ENDINGS)


def _is_argument(name: str) -> bool:
    name = name.lower()
    return name in _ARGUMENTS or name.endswith(_ARGUMENT_ENDINGS)


def _without(text: str, spans: list[tuple[int, int]]) -> str:
    """*text* with one :data:`REDACTED` for each run of *spans*."""
    if not spans:
        return text
    pieces: list[str] = []
    done = 0
    spans.sort()
    for start, end in spans:
        if start >= done:
            if start > done or not pieces:
                pieces.append(text[done:start])
                pieces.append(REDACTED)
            done = end
        else:
            done = max(done, end)
    pieces.append(text[done:])
    return "".join(pieces)
