"""Members of JSON bodies, as far as every upstream reads them alike.

What one parser takes and another refuses, or reads otherwise, is refused here: members that stand
twice, NaN, broken UTF-8, a charset that is no Unicode.  The media type does not count for much:
many upstreams parse JSON whatever it says.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from typing import NamedTuple, NoReturn

from llmproxyd.access.forms import Member, arguments, malformed, parts
from llmproxyd.errors import Refused
from llmproxyd.model import RawHeaders
from llmproxyd.transform.body import MAX_CONTAINERS, MAX_MEMBERS

_NAME = r'("(?:[^"\\\x00-\x1f]|\\.)*+")[ \t\n\r]*+:[ \t\n\r]*+'
_OPEN = re.compile(r"[ \t\n\r]*+\{[ \t\n\r]*+")
_FIRST = re.compile(_NAME)
_NEXT = re.compile(r"[ \t\n\r]*+,[ \t\n\r]*+" + _NAME)
_CLOSE = re.compile(r"[ \t\n\r]*+\}[ \t\n\r]*+\Z")

_CHARSET_NAMED = re.compile(
    r"""charset[ \t]*=[ \t]*(?:"([\w.:-]+)"|([\w.:-]+))[ \t]*(?:;|\Z)""", re.IGNORECASE
)
_ASCII = frozenset({"us-ascii", "ascii", "iso-8859-1", "latin1", "latin-1", "windows-1252", "cp1252"})
"""Charsets that say what UTF-8 says, for bodies in ASCII."""


class Media(NamedTuple):
    """How a body is to be read.

    :param type: in lower case, without parameters; empty where nobody told.
    :param whole: with them.
    """

    type: str
    whole: str

    @property
    def is_json(self) -> bool:
        """Whether it says so itself."""
        return self.type == "application/json" or self.type.endswith("+json")


def members(headers: RawHeaders, body: bytes, names: Collection[str]) -> Iterator[Member]:
    """What *body* says under *names*, by every reading that an upstream may have of it.

    :param names: lower case.
    :raises Refused: 400 ``malformed_body``, 415 ``content_encoding_not_allowed``.
    """
    media = media_of(headers)
    if media.type == "multipart/form-data":
        yield from parts(body, media.whole, names)
        return
    is_form = "form" in media.whole.lower() and not media.is_json
    if is_form:
        yield from arguments(body, names)
        if not body.lstrip(b" \t\r\n").startswith((b"{", b"[", b"\xef", b"\xfe", b"\xff", b"\0")):
            return
    yield from _members(decoded(body, media.whole), names)


def media_of(headers: RawHeaders) -> Media:
    """The media type of a request's body.

    :raises Refused: there are several, or the body is coded (gzip).
    """
    media = b""
    found = False
    for name, value in headers:
        if len(name) not in (12, 16):
            continue
        lower = name.lower()
        if lower == b"content-type":
            if found and value != media:
                raise malformed("it has more than one Content-Type")
            media, found = value, True
        elif lower == b"content-encoding" and value.strip(b" \t,").lower() not in (b"", b"identity"):
            raise Refused(
                415,
                "content_encoding_not_allowed",
                "What this request asks for is checked, so its body must not be compressed; send it without "
                "Content-Encoding.",
                ((b"accept-encoding", b"identity"),),
            )
    text = media.decode("latin-1")
    return Media(text.partition(";")[0].strip().lower(), text)


def decoded(body: bytes, media: str) -> str:
    """*body* as text: in UTF-8, -16 or -32, with or without a byte order mark.

    :param media: its ``Content-Type``; a charset in it must be the one that the body is in.
    :raises Refused: 400 ``malformed_body``.
    """
    coding = json.detect_encoding(body)
    if "charset" in media.lower():
        _check_charset(body, "utf-8" if coding == "utf-8-sig" else coding[:6], media)
    try:
        return body.decode(coding)
    except UnicodeDecodeError:
        raise malformed("its body is no valid Unicode text; send UTF-8") from None


def _check_charset(body: bytes, family: str, media: str) -> None:
    """Refuse a charset other than that of *family*: an upstream may go by what *media* says."""
    named = [match[1] or match[2] for match in _CHARSET_NAMED.finditer(media)]
    if len(named) != media.lower().count("charset"):
        raise malformed("the charset of its Content-Type cannot be read")
    for one in named:
        name = one.lower().replace("utf8", "utf-8").replace("utf16", "utf-16").replace("utf32", "utf-32")
        if not name.startswith(family) and not (name in _ASCII and body.isascii()):
            raise malformed("its body is not in the charset that its Content-Type names; send UTF-8")


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


_decode = json.JSONDecoder(parse_constant=_refuse).raw_decode


def _members(text: str, names: Collection[str]) -> list[Member]:
    """The members of the JSON object *text* under *names*."""
    if len(text) > MAX_CONTAINERS and text.count("[") + text.count("{") > MAX_CONTAINERS:
        raise malformed("its body holds too many arrays and objects")
    try:
        found = _cut(text, names)
    except (ValueError, RecursionError):
        raise malformed("its body is no valid JSON object") from None
    if len({name for name, _ in found}) < len(found):
        raise malformed("a member that is checked stands in its body more than once")
    return found


def _cut(text: str, names: Collection[str]) -> list[Member]:
    """The members of *text* under *names*; all are decoded, and the others forgotten at once.

    Some parsers heed no case in names (Go's does not), so none is heeded here.

    :raises ValueError: it is no JSON object.
    :raises RecursionError: it is nested too deeply.
    """
    opening = _OPEN.match(text)
    if opening is None:
        raise ValueError("no object")
    found: list[Member] = []
    at, count = opening.end(), 0
    member = _FIRST.match(text, at)
    while member is not None:
        count += 1
        if count > MAX_MEMBERS:
            raise ValueError("no request to a model")
        name = member[1][1:-1]
        if "\\" in name:
            name, _ = _decode(member[1])
            if not _is_plain(name):
                raise ValueError("a name that not every parser reads alike")
        value, at = _decode(text, member.end())
        name = name.casefold()
        if name in names:
            found.append((name, value))
        member = _NEXT.match(text, at)
    if not _CLOSE.match(text, at):
        raise ValueError("no end")
    return found


def _is_plain(name: str) -> bool:
    """Whether *name* has neither NUL nor half a surrogate pair: some parsers cut there."""
    return name.isprintable() or not any(char < " " or "\ud800" <= char <= "\udfff" for char in name)
