"""YAML text to a tree, strictly.

PyYAML reads the syntax alone, as events.  Its idea of types never comes into play (``on`` as
a boolean, ``012`` in octal, ``1:30`` in base sixty, dates), tags are refused, duplicate keys
are errors, and aliases are counted as often as they are used, so that a few lines cannot
expand into gigabytes.
"""

from __future__ import annotations

from collections.abc import Iterator

import yaml

from llmproxyd.config.problems import Path, Problem, path_text, quoted
from llmproxyd.config.tree import Entry, Layer, Listing, Node, Scalar, Source, Table

MAX_DEPTH = 30
MAX_NODES = 20_000


def decode(data: bytes, name: str) -> tuple[str, list[Problem]]:
    """*data* as text; with a byte order mark or without."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "", [Problem(name, "", "the file is UTF-16; save it as UTF-8")]
    try:
        return data.decode("utf-8-sig"), []
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        message = f"byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8"
        return "", [Problem(f"{name}:{line}", "", message)]


def parse(text: str, name: str, layer: Layer) -> tuple[Node | None, list[Problem]]:
    """The tree of *text* and what is wrong with it.

    :param name: of the file, for messages.
    :return: no tree when the text is empty or its syntax is broken.
    """
    builder = _Builder(name, layer)
    try:
        return builder.document(text), builder.problems
    except _Stop:
        return None, builder.problems


class _Stop(Exception):
    """Nothing more can be read; the reason is on the list."""


class _Builder:
    """Events to nodes.  Holds the anchors, the count of nodes and what is wrong."""

    def __init__(self, name: str, layer: Layer) -> None:
        self.name = name
        self.layer = layer
        self.problems: list[Problem] = []
        self._anchors: dict[str, tuple[Node, int]] = {}
        self._count = 0
        self._depth = 0
        self._events: Iterator[yaml.Event] = iter(())

    def document(self, text: str) -> Node | None:
        """The one document of *text*."""
        self._events = _events(text)
        found: Node | None = None
        documents = 0
        while not isinstance(event := self._next(), yaml.StreamEndEvent):
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    self._problem(event, (), "a second document (---); one file holds one")
                    raise _Stop
            elif isinstance(event, yaml.NodeEvent):
                found = self._node(event, ())
        return found

    def _next(self) -> yaml.Event:
        try:
            return next(self._events)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            place = f"{self.name}:{mark.line + 1}:{mark.column + 1}" if mark else self.name
            reason = ", ".join(part for part in (error.context, error.problem) if part)
            message = f"not YAML: {reason}{_syntax_hint(error)}"
        except _Unreadable as error:
            place = f"{self.name}:{error.line}"
            message = f"not YAML: {error}"
        self.problems.append(Problem(place, "", message))
        raise _Stop

    def _node(self, event: yaml.NodeEvent, path: Path) -> Node:
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, path)
        before = self._count
        self._grow(event, 1)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._problem(event, (), f"nested more than {MAX_DEPTH} levels deep")
            raise _Stop
        tag: str | None = getattr(event, "tag", None)
        if tag is not None:
            shown = quoted(tag.replace("tag:yaml.org,2002:", "!!"))
            self._problem(event, path, f"tags are not accepted, found {shown}")
        node: Node
        if isinstance(event, yaml.ScalarEvent):
            node = self._scalar(event, path)
        elif isinstance(event, yaml.SequenceStartEvent):
            node = self._listing(event, path)
        else:
            node = self._table(event, path)
        self._depth -= 1
        if event.anchor is not None:
            self._anchors[event.anchor] = (node, self._count - before)
        return node

    def _alias(self, event: yaml.AliasEvent, path: Path) -> Node:
        anchor = event.anchor or ""
        known = self._anchors.get(anchor)
        if known is None:
            self._problem(event, path, f"no anchor &{anchor[:60]} stands before this alias")
            raise _Stop
        self._grow(event, known[1])
        return known[0]

    def _scalar(self, event: yaml.ScalarEvent, path: Path) -> Scalar:
        text = event.value
        if any("\ud800" <= char <= "\udfff" for char in text):
            self._problem(event, path, "the text holds half a surrogate pair, which is no character")
            text = ""
        return Scalar(text, self._source(event), plain=event.style is None)

    def _listing(self, start: yaml.NodeEvent, path: Path) -> Listing:
        items: list[Node] = []
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            assert isinstance(event, yaml.NodeEvent)
            items.append(self._node(event, (*path, len(items))))
        return Listing(tuple(items), self._source(start))

    def _table(self, start: yaml.NodeEvent, path: Path) -> Table:
        entries: dict[str, Entry] = {}
        merged: list[Table] = []
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            assert isinstance(event, yaml.NodeEvent)
            key = self._node(event, path)
            following = self._next()
            assert isinstance(following, yaml.NodeEvent)
            if not isinstance(key, Scalar):
                self._problem(event, path, "a key must be a text")
                self._node(following, path)
                continue
            value = self._node(following, (*path, key.text))
            if key.plain and key.text == "<<":
                merged += self._merged(value, path)
            elif key.text in entries:
                first = entries[key.text].source
                message = f"duplicate key; it stands on line {first.line} already"
                self._problem(event, (*path, key.text), message)
            else:
                entries[key.text] = Entry(self._source(event), value)
        for table in merged:
            for name, entry in table.entries.items():
                entries.setdefault(name, entry)
        return Table(entries, self._source(start))

    def _merged(self, value: Node, path: Path) -> list[Table]:
        tables = value.items if isinstance(value, Listing) else (value,)
        found = [table for table in tables if isinstance(table, Table)]
        if len(found) != len(tables):
            place = str(value.source)
            message = "a merge key (<<) takes a mapping or a list of mappings"
            self.problems.append(Problem(place, path_text(path), message))
        return found

    def _grow(self, event: yaml.Event, size: int) -> None:
        self._count += size
        if self._count > MAX_NODES:
            message = f"more than {MAX_NODES} settings, aliases counted as often as they are used"
            self._problem(event, (), message)
            raise _Stop

    def _source(self, event: yaml.Event) -> Source:
        mark = event.start_mark
        return Source(self.layer, self.name, mark.line + 1 if mark else None)

    def _problem(self, event: yaml.Event, path: Path, message: str) -> None:
        self.problems.append(Problem(str(self._source(event)), path_text(path), message))


class _Unreadable(Exception):
    """PyYAML gave up in a way of its own.

    :param line: where, counted from one.
    """

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line


def _events(text: str) -> Iterator[yaml.Event]:
    """The events of *text*.

    :raises _Unreadable: for what PyYAML does not report as a syntax error with a place: a
        control character, and the ``ValueError`` of an escape beyond Unicode.
    """
    try:
        loader = yaml.SafeLoader(text)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        code = error.character if isinstance(error.character, int) else ord(error.character)
        raise _Unreadable(line, f"the character U+{code:04X} is not allowed") from None
    try:
        while loader.check_event():
            yield loader.get_event()
    except (ValueError, OverflowError, IndexError, RecursionError):
        raise _Unreadable(loader.line + 1, "an escape or a number beyond all bounds") from None


def _syntax_hint(error: yaml.MarkedYAMLError) -> str:
    reason = f"{error.context} {error.problem}"
    if "'\\t'" in reason:
        return " (YAML indents with spaces, not with tabs)"
    if "alias" in reason:
        return ' (a text that starts with * or & stands in quotes: "*")'
    return ""
