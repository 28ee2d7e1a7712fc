"""The YAML of a recording as nodes with their lines: texts, lists and mappings, no tags, no aliases."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import yaml

MAX_DEPTH = 16

# Events, not nodes: composing is recursive, and in C a deep nesting would end the process.
_LOADER: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)


@dataclass(slots=True)
class Scalar:
    """A text."""

    value: str
    line: int


@dataclass(slots=True)
class Listing:
    """Nodes in order."""

    line: int
    items: list[Node] = field(default_factory=list)


@dataclass(slots=True)
class Table:
    """Keys and values in order."""

    line: int
    pairs: list[tuple[Node, Node]] = field(default_factory=list)


Node = Scalar | Listing | Table


class NotYAML(Exception):
    """A text is no YAML that is read here.

    :param line: counted from one, ``None`` where it is not known.
    """

    def __init__(self, line: int | None, reason: str) -> None:
        super().__init__(reason)
        self.line = line
        self.reason = reason


def parse(text: str) -> Node | None:
    """The one document of *text*; ``None`` for an empty one.

    :raises NotYAML: it cannot be read.
    """
    try:
        return _built(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = ", ".join(part for part in (error.context, error.problem) if part)
        raise NotYAML(mark.line + 1 if mark else None, reason) from None
    except (yaml.YAMLError, RecursionError, ValueError, OverflowError, IndexError):
        raise NotYAML(None, "a character or an escape that it may not have") from None


def _built(text: str) -> Node | None:
    root: Node | None = None
    open_: list[Listing | Table] = []
    keys: list[Node | None] = []
    event: Any
    for event in yaml.parse(text, Loader=_LOADER):
        kind = type(event)
        if kind is yaml.SequenceEndEvent or kind is yaml.MappingEndEvent:
            open_.pop()
            keys.pop()
            continue
        if kind is yaml.DocumentStartEvent and root is not None:
            raise NotYAML(event.start_mark.line + 1, "a second document (---)")
        if not isinstance(event, yaml.NodeEvent):
            continue
        mark: Any = event.start_mark
        line = mark.line + 1
        if kind is yaml.AliasEvent:
            raise NotYAML(line, "an alias (*) is not accepted here")
        node: Node
        if isinstance(event, yaml.ScalarEvent):
            node = Scalar(event.value, line)
        else:
            node = Listing(line) if kind is yaml.SequenceStartEvent else Table(line)
        if not open_:
            root = node
        else:
            _put(open_[-1], keys, node)
        if not isinstance(node, Scalar):
            if len(open_) == MAX_DEPTH:
                raise NotYAML(line, f"nested more than {MAX_DEPTH} levels deep")
            open_.append(node)
            keys.append(None)
    return root


def _put(there: Listing | Table, keys: list[Node | None], node: Node) -> None:
    """*node* into what is open, as an item, a key, or the value of the key that waits."""
    if isinstance(there, Listing):
        there.items.append(node)
    elif keys[-1] is None:
        keys[-1] = node
    else:
        there.pairs.append((keys[-1], node))
        keys[-1] = None
