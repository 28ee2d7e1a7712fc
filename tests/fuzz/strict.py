"""A reading of HTTP/1.1 that lets nothing pass on which two readers could disagree.  RFC 9112.

It shares no code with the proxy: what is sent to the proxy and what comes out of it upstream are both
read by it, and compared.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

Fields = list[tuple[bytes, bytes]]

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_REQUEST = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([!-~]+) HTTP/1\.([01])")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_SIZE = re.compile(rb"([0-9A-Fa-f]+)((?:;[\t\x20-\x7e\x80-\xff]*)?)")
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2}) ?[\t\x20-\x7e\x80-\xff]*")

HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer"
    b" transfer-encoding upgrade".split()
)
FRAMING = frozenset({b"host", b"content-length", b"transfer-encoding"})


class Unclear(Exception):
    """Not everybody would read the same."""


@dataclass(frozen=True)
class Message:
    """One request, or one answer.

    :param start: the groups of its first line.
    :param whole: its end has come.
    """

    start: Sequence[bytes]
    fields: Fields
    body: bytes
    whole: bool = True

    def all(self, name: bytes) -> list[bytes]:
        """All values of the field *name* (lower case)."""
        return [value for key, value in self.fields if key.lower() == name]

    def first(self, name: bytes) -> bytes:
        """The first of them."""
        return (self.all(name) or [b""])[0]

    @property
    def passing(self) -> Fields:
        """The fields that are for whoever is behind a proxy, but for those that frame it."""
        named = {one.strip(b" \t").lower() for value in self.all(b"connection") for one in value.split(b",")}
        gone = HOP_BY_HOP | named | FRAMING | {b"expect"}
        return [
            (name, value)
            for name, value in self.fields
            if name.lower() not in gone and not name.lower().startswith(b"x-llmproxyd-")
        ]


def _line(data: bytes, at: int) -> tuple[bytes, int] | None:
    """The line from *at* on, and where the next one begins."""
    end = data.find(b"\n", at)
    if end < 0:
        return None
    line = data[at : end + 1]
    if not line.endswith(b"\r\n") or b"\r" in line[:-2]:
        raise Unclear("a line's end that is not CR LF")
    return line[:-2], end + 1


def _fields(data: bytes, at: int) -> tuple[Fields, int] | None:
    fields: Fields = []
    while (found := _line(data, at)) is not None:
        line, at = found
        if not line:
            return fields, at
        name, colon, value = line.partition(b":")
        if not colon or not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
            raise Unclear(f"a field: {line[:60]!r}")
        fields.append((name, value.strip(b" \t")))
    return None


def _length(fields: Fields) -> int | None:
    """Bytes of the body, None for chunks."""
    lengths = [value for name, value in fields if name.lower() == b"content-length"]
    codings = [value for name, value in fields if name.lower() == b"transfer-encoding"]
    if codings:
        if len(codings) > 1 or lengths or codings[0].lower() != b"chunked":
            raise Unclear("transfer-encoding that is not chunked alone")
        return None
    if not lengths:
        return 0
    if len(lengths) > 1 or not re.fullmatch(rb"[0-9]{1,19}", lengths[0]) or int(lengths[0]) >= 2**63:
        raise Unclear("content-length")
    return int(lengths[0])


def _chunks(data: bytes, at: int, *, plain: bool) -> tuple[bytes, int] | None:
    pieces = []
    while (found := _line(data, at)) is not None:
        line, at = found
        match = _SIZE.fullmatch(line)
        if match is None or len(match[1].lstrip(b"0")) > 15 or (plain and match[2]):
            raise Unclear(f"a chunk's size: {line[:60]!r}")
        size = int(match[1], 16)
        if not size:
            trailers = _fields(data, at)
            if trailers is None:
                return None
            if plain and trailers[0]:
                raise Unclear("trailers")
            return b"".join(pieces), trailers[1]
        piece = data[at : at + size + 2]
        if len(piece) < size + 2:
            if not b"\r\n".startswith(piece[size:]):
                raise Unclear("what follows a chunk")
            return None
        if piece[size:] != b"\r\n":
            raise Unclear("what follows a chunk")
        pieces.append(piece[:size])
        at += size + 2
    return None


def request(data: bytes, at: int = 0, *, plain: bool = False) -> tuple[Message, int] | None:
    """The request in *data* from *at* on, and where it ends; None while it is not whole.

    :param plain: nothing may be there that a proxy need not send: upstream's view.
    :raises Unclear: it is none, or could be read otherwise.
    """
    while not plain and data.startswith(b"\r\n", at):
        at += 2
    found = _line(data, at)
    if found is None:
        return None
    match = _REQUEST.fullmatch(found[0])
    if match is None:
        raise Unclear(f"a request line: {found[0][:80]!r}")
    head = _fields(data, found[1])
    if head is None:
        return None
    fields, at = head
    length = _length(fields)
    if length is None and match[3] == b"0":
        raise Unclear("chunks in HTTP/1.0")
    if plain:
        _check_forwarded(match, fields)
    if length is None:
        body = _chunks(data, at, plain=plain)
        return None if body is None else (Message(match.groups(), fields, body[0]), body[1])
    if len(data) - at < length:
        return None
    return Message(match.groups(), fields, data[at : at + length]), at + length


def _check_forwarded(match: re.Match[bytes], fields: Fields) -> None:
    names = [name.lower() for name, _ in fields]
    if match[3] != b"1" or not match[2].startswith(b"/"):
        raise Unclear("a request line that no proxy should send")
    if names.count(b"host") != 1:
        raise Unclear("not one host")
    for name in names:
        if (name in HOP_BY_HOP and name != b"transfer-encoding") or name == b"expect":
            raise Unclear(f"{name!r}, which ends at the proxy")
        if name.startswith(b"x-llmproxyd-"):
            raise Unclear(f"{name!r}, which is for the proxy")
        if name.replace(b"_", b"-") in FRAMING and name not in FRAMING:
            raise Unclear(f"{name!r}, which some servers take for another")


def answer(data: bytes, at: int) -> tuple[Message, int]:
    """The answer in *data* from *at* on, as far as it has come.

    :raises Unclear: it is none.
    """
    found = _line(data, at)
    match = None if found is None else _STATUS.fullmatch(found[0])
    if found is None or match is None:
        raise Unclear(f"no answer: {data[at : at + 60]!r}")
    head = _fields(data, found[1])
    if head is None:
        raise Unclear(f"no answer: {data[at : at + 60]!r}")
    fields, at = head
    message = Message(match.groups(), fields, b"")
    # A refusal of HEAD does not say so; no body begins as an answer does.
    bodiless = (
        match[1] in (b"204", b"304") or match[1].startswith(b"1") or message.first(b"x-method") == b"HEAD"
    )
    if bodiless or at == len(data) or data.startswith(b"HTTP/1.", at):
        return message, at
    length = _length(fields)
    if length is None:
        body = _chunks(data, at, plain=True)
        return (
            (Message(match.groups(), fields, b"", False), len(data))
            if body is None
            else (
                Message(match.groups(), fields, body[0]),
                body[1],
            )
        )
    if b"content-length" not in {name.lower() for name, _ in fields}:
        return Message(match.groups(), fields, data[at:]), len(data)
    body_of = data[at : at + length]
    return Message(match.groups(), fields, body_of, len(body_of) == length), at + len(body_of)
