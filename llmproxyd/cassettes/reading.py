"""A text back to the exchange that it holds, strictly: what is wrong is told all at once, with its line."""

from __future__ import annotations

import json
import math
import re
from base64 import b64decode
from collections.abc import Mapping, Sequence
from datetime import datetime

from llmproxyd.cassettes.format import VERSION, Answered, Asked, Exchange, Piece, bodiless
from llmproxyd.cassettes.nodes import Listing, Node, NotYAML, Scalar, Table, parse
from llmproxyd.config.problems import Problem, did_you_mean, quoted
from llmproxyd.redaction import REDACTED

MAX_PROBLEMS = 20
"""Of one file."""

_NUMBER = re.compile(r"[0-9]{1,12}(?:\.[0-9]{0,12})?")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TARGET = re.compile(r"/[\x21-\x7e]*")
_VALUE = re.compile(r"[^\r\n\0\u0100-\U0010ffff]*")
_HTTP = re.compile(r"1\.[01]")
_BODY = ("json", "text", "crlf", "base64")


class Unusable(Exception):
    """A file cannot be used.

    :param problems: everything that is wrong with it.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))


def read(text: str, name: str) -> Exchange:
    """The exchange that *text* holds.

    :param name: of the file, for messages.
    :raises Unusable: it holds none.
    """
    reader = _Reader(name)
    try:
        node = parse(text)
    except NotYAML as error:
        place = name if error.line is None else f"{name}:{error.line}"
        raise Unusable([Problem(place, "", f"not YAML: {error.reason}")]) from None
    exchange = reader.exchange(node)
    if exchange is None or reader.problems:
        raise Unusable(reader.problems[:MAX_PROBLEMS])
    return exchange


_Table = Mapping[str, Node]


class _Reader:
    """Nodes to nouns.  Each method notes what is wrong, and returns something to go on with."""

    def __init__(self, name: str) -> None:
        self.problems: list[Problem] = []
        self._name = name

    def exchange(self, node: Node | None) -> Exchange | None:
        if node is None:
            self.problems.append(Problem(self._name, "", "the file is empty"))
            return None
        table = self._table(node, "", ("version", "recorded", "request", "response"))
        if (version := self._text(table, "version", "")) != str(VERSION):
            self._problem(
                table.get("version", node), "version", f"found {quoted(version)}; accepted: {VERSION}"
            )
            return None
        asked, answered = table.get("request"), table.get("response")
        recorded = self._moment(table)
        if asked is None or answered is None:
            return None
        request = self._request(asked)
        return Exchange(recorded, request, self._response(answered, request.method))

    def _moment(self, table: _Table) -> float:
        text = self._text(table, "recorded", "")
        try:
            return datetime.fromisoformat(text).timestamp()
        except (ValueError, OverflowError):
            if "recorded" in table:
                message = f'found {quoted(text)}; accepted: a time such as "2025-08-30T14:30:45.123+00:00"'
                self._problem(table["recorded"], "recorded", message)
            return 0.0

    def _request(self, node: Node) -> Asked:
        here = "request"
        needed = ("provider", "upstream", "method", "target")
        table = self._table(node, here, needed, ("fields", *_BODY))
        return Asked(
            self._text(table, "provider", here),
            self._text(table, "upstream", here),
            self._like(table, "method", here, _NAME, "the name of a method"),
            self._like(table, "target", here, _TARGET, 'a path that begins with "/", and a query'),
            self._fields(table, here),
            self._body(node, table, here, needed=False),
        )

    def _response(self, node: Node, method: str) -> Answered:
        here = "response"
        needed = ("status", "reason", "after", "ended", "whole")
        table = self._table(node, here, needed, ("http", "fields", "pieces"))
        status = self._like(table, "status", here, re.compile("[2-9][0-9]{2}"), "a status from 200 to 999")
        http = self._like(table, "http", here, _HTTP, "1.1 or 1.0") if "http" in table else "1.1"
        whole = self._like(table, "whole", here, re.compile("true|false"), "true or false") == "true"
        ended = self._seconds(table, "ended", here)
        pieces = self._pieces(table, ended)
        code = int(status or 200)
        if bodiless(method, code) and pieces:
            self._problem(table["pieces"], "response.pieces", "such an answer has no body")
        reason = self._like(table, "reason", here, _VALUE, "a phrase").encode("latin-1", "replace")
        fields = self._fields(table, here)
        if whole and not bodiless(method, code):
            fields = _measured(fields, sum(len(piece.data) for piece in pieces))
        after = self._seconds(table, "after", here)
        version = (1, 0) if http == "1.0" else (1, 1)
        return Answered(code, reason, version, fields, after, pieces, whole, ended)

    def _pieces(self, table: _Table, ended: float) -> tuple[Piece, ...]:
        found: list[Piece] = []
        before = 0.0
        for number, node in enumerate(self._list(table, "pieces", "response")):
            here = f"response.pieces[{number}]"
            piece = self._table(node, here, ("after",), _BODY)
            after = self._seconds(piece, "after", here)
            if after < before or after > ended:
                told = "pieces come one after the other, and none after the end"
                self._problem(piece.get("after", node), f"{here}.after", told)
            before = max(before, after)
            data = self._body(node, piece, here, needed=True)
            if data:
                found.append(Piece(after, data))
        return tuple(found)

    def _fields(self, table: _Table, here: str) -> tuple[tuple[bytes, bytes], ...]:
        """The fields, less those whose value was redacted."""
        found = []
        for number, node in enumerate(self._list(table, "fields", here)):
            place = f"{here}.fields[{number}]"
            if not isinstance(node, Table) or len(node.pairs) != 1:
                self._problem(node, place, 'accepted: one field, such as "content-type: text/plain"')
                continue
            name, value = node.pairs[0]
            texts = [one.value if isinstance(one, Scalar) else "\0" for one in (name, value)]
            if not _NAME.fullmatch(texts[0]) or not _VALUE.fullmatch(texts[1]):
                self._problem(node, place, "accepted: the name of a header field and a text")
            elif REDACTED not in texts[1]:
                found.append((texts[0].encode(), texts[1].encode("latin-1")))
        return tuple(found)

    def _body(self, node: Node, table: _Table, here: str, *, needed: bool) -> bytes:
        kinds = [kind for kind in _BODY if kind in table]
        if len(kinds) != 1:
            if kinds or needed:
                self._problem(node, here, f"accepted: one of {', '.join(_BODY)}")
            return b""
        kind = kinds[0]
        text = self._text(table, kind, here)
        try:
            if kind == "base64":
                return b64decode("".join(text.split()), validate=True)
            if kind == "json":
                json.loads(text)
            return (text.replace("\n", "\r\n") if kind == "crlf" else text).encode()
        except json.JSONDecodeError as error:
            message = f"not JSON: {error.msg} (line {error.lineno} of it)"
        except (ValueError, RecursionError):
            message = f"cannot be read as {kind}"
        self._problem(table[kind], f"{here}.{kind}", message)
        return b""

    # What values are made of.

    def _table(
        self, node: Node, here: str, needed: Sequence[str], others: Sequence[str] = ()
    ) -> dict[str, Node]:
        if not isinstance(node, Table):
            self._problem(node, here, "accepted: a mapping")
            return {}
        found: dict[str, Node] = {}
        known = (*needed, *others)
        for key, value in node.pairs:
            name = key.value if isinstance(key, Scalar) else ""
            place = f"{here}.{name}".lstrip(".")
            if name not in known:
                told = f"{quoted(name)} is no key{did_you_mean(name, known)} (accepted: {', '.join(known)})"
                self._problem(key, here, told)
            elif name in found:
                self._problem(key, place, "duplicate key")
            else:
                found[name] = value
        for name in needed:
            if name not in found:
                self._problem(node, f"{here}.{name}".lstrip("."), "is missing")
        return found

    def _list(self, table: _Table, key: str, here: str) -> Sequence[Node]:
        node = table.get(key)
        if node is None:
            return ()
        if not isinstance(node, Listing):
            self._problem(node, f"{here}.{key}", "accepted: a list")
            return ()
        return node.items

    def _text(self, table: _Table, key: str, here: str) -> str:
        node = table.get(key)
        if node is None:
            return ""
        if not isinstance(node, Scalar):
            self._problem(node, f"{here}.{key}".lstrip("."), "accepted: a text")
            return ""
        return node.value

    def _like(self, table: _Table, key: str, here: str, form: re.Pattern[str], accepted: str) -> str:
        text = self._text(table, key, here)
        if key in table and not form.fullmatch(text):
            self._problem(table[key], f"{here}.{key}", f"found {quoted(text)}; accepted: {accepted}")
            return ""
        return text

    def _seconds(self, table: _Table, key: str, here: str) -> float:
        text = self._like(table, key, here, _NUMBER, "seconds, such as 0.25")
        value = float(text or 0)
        assert math.isfinite(value)
        return value

    def _problem(self, node: Node, path: str, message: str) -> None:
        self.problems.append(Problem(f"{self._name}:{node.line}", path, message))


def _measured(fields: Sequence[tuple[bytes, bytes]], length: int) -> tuple[tuple[bytes, bytes], ...]:
    """*fields* with the length that the body has: it may have been edited, or redacted."""
    return tuple(
        (name, b"%d" % length) if name.lower() == b"content-length" else (name, value)
        for name, value in fields
    )
