"""An exchange as a text: YAML that people read line by line and that is read back byte for byte.

Text stands as a literal block where that loses nothing, else in double quotes; what is no text, in
base64.  A coded body stays as it came, and is shown in the clear in a comment.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime
from textwrap import wrap

from llmproxyd.cassettes.format import VERSION, Answered, Asked, Exchange, Piece
from llmproxyd.inspection.inflate import inflater
from llmproxyd.model import RawHeaders

SHOWN = 64 * 1024
"""Bytes of a coded body that are shown in the clear."""

PRETTY = 1024 * 1024
"""Bytes of a request's JSON that is laid out."""

_PLAIN = re.compile(r"[A-Za-z0-9/](?:[A-Za-z0-9 /;=.,_+()*-]*[A-Za-z0-9/;=.,_+()*-])?")
# What a literal block keeps as it is: no control character, no line end of Unicode's, no mark of byte order.
_LITERAL = re.compile(
    "[\t\n\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]*"
)
_UNLITERAL = re.compile(
    "[^\t\n\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_COLUMNS = 100


def written(exchange: Exchange) -> str:
    """The whole file."""
    return "\n".join([*_lines(exchange), ""])


def _lines(exchange: Exchange) -> Iterator[str]:
    when = datetime.fromtimestamp(exchange.recorded, UTC).isoformat(timespec="milliseconds")
    yield f"version: {VERSION}"
    yield f'recorded: "{when}"'
    yield from _request(exchange.asked)
    yield from _response(exchange.answered)


def _request(asked: Asked) -> Iterator[str]:
    yield "request:"
    for name in ("provider", "upstream", "method", "target"):
        yield f"  {name}: {_scalar(getattr(asked, name))}"
    yield from _fields(asked.fields)
    if asked.body:
        laid_out = _laid_out(asked.body)
        if laid_out is not None:
            yield from _block("  json", laid_out)
        else:
            yield from _data("  ", asked.body)


def _response(answered: Answered) -> Iterator[str]:
    major, minor = answered.version
    yield "response:"
    yield f"  status: {answered.status}"
    yield f"  reason: {_scalar(answered.reason.decode('latin-1'))}"
    yield f"  http: {_scalar(f'{major}.{minor}')}"
    yield f"  after: {_seconds(answered.after)}"
    yield from _fields(answered.fields)
    yield from _in_the_clear(answered)
    if answered.pieces:
        yield "  pieces:"
        for piece in answered.pieces:
            yield from _piece(piece)
    yield f"  ended: {_seconds(answered.ended)}"
    yield f"  whole: {str(answered.whole).lower()}"


def _piece(piece: Piece) -> Iterator[str]:
    yield f"    - after: {_seconds(piece.after)}"
    yield from _data("      ", piece.data)


def _fields(fields: RawHeaders) -> Iterator[str]:
    if fields:
        yield "  fields:"
        for name, value in fields:
            yield f"    - {_scalar(name.decode('latin-1'))}: {_scalar(value.decode('latin-1'))}"


def _data(indent: str, data: bytes) -> Iterator[str]:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        yield f"{indent}base64: |"
        yield from (f"{indent}  {line}" for line in wrap(b64encode(data).decode(), _COLUMNS))
        return
    unix = text.replace("\r\n", "\n")
    if text.count("\n") == text.count("\r\n") > 0 and _LITERAL.fullmatch(unix):
        yield from _block(f"{indent}crlf", unix)
    else:
        yield from _block(f"{indent}text", text)


def _block(key: str, text: str) -> Iterator[str]:
    """*text* as the value of *key*, as a literal block if it can be one."""
    if not text.strip(" \t\n") or not _LITERAL.fullmatch(text):
        yield f"{key}: {_quoted(text)}"
        return
    indent = " " * (len(key) - len(key.lstrip()) + 2)
    # A block that begins with blanks must say where its own begin.
    hint = "2" if text[0] in " \t\n" else ""
    body = text.rstrip("\n")
    ends = len(text) - len(body)
    yield f"{key}: |{hint}{'-' if not ends else '' if ends == 1 else '+'}"
    for line in body.split("\n"):
        yield indent + line if line else ""
    yield from [""] * (ends - 1)


def _scalar(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else _quoted(text)


def _quoted(text: str) -> str:
    return '"' + "".join(_ESCAPES.get(char) or _escaped(char) for char in text) + '"'


def _escaped(char: str) -> str:
    if _LITERAL.fullmatch(char):
        return char
    code = ord(char)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"


def _seconds(value: float) -> str:
    return f"{value:.6f}".rstrip("0").rstrip(".")


def _laid_out(body: bytes) -> str | None:
    """*body* in lines, if it is JSON that says the same so; ``None`` for anything else."""
    if len(body) > PRETTY or body.lstrip()[:1] not in (b"{", b"["):
        return None
    try:
        text = json.dumps(json.loads(body, object_pairs_hook=_unique), ensure_ascii=False, indent=2)
        text.encode()
    except (ValueError, RecursionError):
        return None
    return text


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object; one with doubled members would lose some.

    :raises ValueError: it has such.
    """
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("doubled members")
    return found


def _in_the_clear(answered: Answered) -> Iterator[str]:
    """What a coded body says, as comments."""
    if not answered.coding or not answered.pieces:
        return
    reader = inflater(answered.coding, SHOWN)
    if reader is None:
        return
    clear = reader.feed(answered.body)
    try:
        text = clear.decode()
    except UnicodeDecodeError as error:
        if error.start < len(clear) - 3:
            return
        text = clear[: error.start].decode()
    yield "  # In the clear, for people alone; what is replayed stands below:"
    for line in text.replace("\r\n", "\n").rstrip("\n").split("\n"):
        yield f"  #   {_UNLITERAL.sub('?', line)}".rstrip()
