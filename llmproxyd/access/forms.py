"""Arguments of queries and forms, by every reading that an upstream may have of them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from urllib.parse import unquote_to_bytes

from llmproxyd.errors import Refused

Member = tuple[str, object]
"""A name that is checked, and a value that stands under it."""

MAX_FIELDS = 1000
"""Arguments of a query or a form."""

MAX_VALUE = 64 * 1024
"""Bytes of a value that is checked."""

_DECODINGS = 3
"""So many times a name is decoded in search of one that is checked."""

_SEPARATOR = re.compile(rb"[&;]")
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAMETER = re.compile(rf'\s*;\s*(?:({_TOKEN})=(?:"([^"\\]*)"|({_TOKEN})))?')
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=?-]{1,70}")
_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)")
_DISPOSITION = re.compile(
    r'form-data[ ]*;[ ]*name=(?:"([^"\\]*)"|([\w.\[\]-]+))'
    r'(;[ ]*filename=(?:"(?:[^"\\]|\\\\)*"|[\w.-]+))?([ ]*;[ ]*filename\*=[\w\'%.~!$&+^`|-]+)?[ ]*',
    re.IGNORECASE,
)
_PLAIN_TEXT = re.compile(rb"text/plain(?:[ ]*;[ ]*charset=\"?utf-?8\"?)?[ ]*", re.IGNORECASE)


def malformed(why: str) -> Refused:
    """The refusal of what cannot be read, or not by all in the same way."""
    message = f"What this request asks for is checked, and it cannot be read for that: {why}."
    return Refused(400, "malformed_body", message)


def arguments(raw: bytes, names: Collection[str]) -> Iterator[Member]:
    """What the query or URL-encoded form *raw* says under *names*.

    Pieces are parted by ``&``, for some servers by ``;`` too; names may be encoded, in another case,
    or followed by brackets (``model[]``).  Each that stands there is told, the same one twice.

    :param names: lower case.
    :raises Refused: 400 ``malformed_body``: a value that is checked is no UTF-8, or there are too many.
    """
    if not raw:
        return
    if raw.count(b"&") + raw.count(b";") >= MAX_FIELDS:
        raise malformed("it has too many arguments")
    pieces = dict.fromkeys(raw.split(b"&"))
    if b";" in raw:
        pieces.update(dict.fromkeys(_SEPARATOR.split(raw)))
    for piece in pieces:
        key, _, value = piece.partition(b"=")
        for name in _names(key):
            if name in names:
                yield name, _text(unquote_to_bytes(value.replace(b"+", b" ")))


def _names(key: bytes) -> Iterator[str]:
    """What the name *key* may be to a server that decodes it, once or more often."""
    for _ in range(_DECODINGS + 1):
        yield key.decode("utf-8", "replace").partition("[")[0].partition("\0")[0].strip().casefold()
        if b"%" not in key and b"+" not in key:
            return
        key = unquote_to_bytes(key.replace(b"+", b" "))


def parts(body: bytes, media: str, names: Collection[str]) -> Iterator[Member]:
    """What a ``multipart/form-data`` *body* says under *names* (RFC 7578).

    It must be written as clients' libraries write it; the liberties that RFC 2046 leaves are those
    in which servers differ.

    :param media: its ``Content-Type``, with the boundary.
    :raises Refused: 400 ``malformed_body``.
    """
    delimiter = b"--" + _boundary(media)
    first, *pieces = body.split(delimiter, MAX_FIELDS)
    if first or not pieces or pieces.pop() not in (b"--", b"--\r\n"):
        raise malformed("the parts of its body do not begin and end with the boundary")
    for piece in pieces:
        head, gap, content = piece.partition(b"\r\n\r\n")
        if not gap or not head.startswith(b"\r\n") or not content.endswith(b"\r\n"):
            raise malformed("a part of its body has no head or no end")
        name, is_text = _part(head[2:])
        if name == "_charset_":
            raise malformed("a part of its body sets the charset of the others; send UTF-8")
        if name in names:
            if not is_text or len(content) > MAX_VALUE:
                raise malformed("a part of its body that is checked is no short text in UTF-8")
            yield name, _text(content[:-2])


def _boundary(media: str) -> bytes:
    """The boundary that the ``Content-Type`` *media* names."""
    at = len("multipart/form-data")
    text = media.strip()
    found: list[tuple[str, str]] = []
    while at < len(text):
        match = _PARAMETER.match(text, at)
        if match is None:
            break
        if match[1]:
            found.append((match[1].lower(), match[2] if match[2] is not None else match[3]))
        at = match.end()
    known = dict(found)
    boundary = known.get("boundary", "")
    charset = known.get("charset", "utf-8").lower()
    whole = at == len(text) and len(known) == len(found) and known.keys() <= {"boundary", "charset"}
    if not whole or not _BOUNDARY.fullmatch(boundary) or charset not in ("utf-8", "utf8"):
        raise malformed("its Content-Type does not say plainly where parts of it end")
    return boundary.encode("ascii")


def _part(head: bytes) -> tuple[str, bool]:
    """The name of the part with this *head* (lower case), and whether it is a text in UTF-8."""
    name: str | None = None
    is_text = True
    for line in head.split(b"\r\n"):
        match = _LINE.fullmatch(line)
        if match is None:
            raise malformed("the head of a part is not well formed")
        field, value = match[1].lower(), match[2]
        if field == b"content-disposition":
            told = _DISPOSITION.fullmatch(value.decode("utf-8", "replace"))
            if told is None or name is not None:
                raise malformed("a part of its body does not say plainly how it is called")
            name = _folded(told[1] if told[1] is not None else told[2])
            is_text = is_text and told[3] is None and told[4] is None
        elif field == b"content-type":
            is_text = is_text and _PLAIN_TEXT.fullmatch(value) is not None
        elif field == b"content-transfer-encoding":
            is_text = is_text and value.strip().lower() in (b"7bit", b"8bit", b"binary")
    if name is None:
        raise malformed("a part of its body has no name")
    return name, is_text


def _folded(name: str) -> str:
    """*name* as the most lenient server reads it."""
    if "%" in name:
        raise malformed("the name of a part is encoded")
    return name.partition("[")[0].strip().casefold()


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise malformed("a value that is checked is no UTF-8") from None
