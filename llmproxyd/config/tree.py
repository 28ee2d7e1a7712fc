"""Settings before they have a type: texts, lists and tables that know where they come from.

Every layer (preset, file, environment, command line) becomes such a tree; what reads them
is :mod:`llmproxyd.config.convert`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum


class Layer(Enum):
    """The layers above the defaults, the weakest first."""

    PRESET = 1
    FILE = 2
    ENVIRONMENT = 3
    COMMAND_LINE = 4


@dataclass(frozen=True, slots=True)
class Source:
    """Where a piece of a tree stands.

    :param name: of the file, of the variable (``environment X``) or of the option.
    :param line: counted from one, ``None`` where there are no lines.
    """

    layer: Layer
    name: str
    line: int | None = None

    def __str__(self) -> str:
        return self.name if self.line is None else f"{self.name}:{self.line}"


NULLS = frozenset({"", "~", "null", "Null", "NULL"})


@dataclass(frozen=True, slots=True)
class Scalar:
    """One text.  Its type is decided by whoever reads it, never by its looks alone.

    :param plain: written without quotes, so that it may stand for a number or for nothing.
    """

    text: str
    source: Source
    plain: bool = True

    @property
    def is_null(self) -> bool:
        """Whether it stands for nothing."""
        return self.plain and self.text in NULLS


@dataclass(frozen=True, slots=True)
class Listing:
    """Nodes in order."""

    items: tuple[Node, ...]
    source: Source


@dataclass(frozen=True, slots=True)
class Entry:
    """One key of a table, with the place of the key itself."""

    source: Source
    value: Node


@dataclass(frozen=True, slots=True)
class Table:
    """Nodes by key."""

    entries: Mapping[str, Entry]
    source: Source


Node = Scalar | Listing | Table


def from_value(value: object, source: Source) -> Node:
    """The tree of a Python value, as command-line options hand it over."""
    if value is None:
        return Scalar("null", source)
    if isinstance(value, bool):
        return Scalar(str(value).lower(), source)
    if isinstance(value, Mapping):
        entries = {str(key): Entry(source, from_value(item, source)) for key, item in value.items()}
        return Table(entries, source)
    if isinstance(value, list | tuple):
        return Listing(tuple(from_value(item, source) for item in value), source)
    return Scalar(str(value), source)


def insert(table: dict[str, Entry], path: tuple[str, ...], value: Node) -> None:
    """Put *value* at *path* below *table*, making the tables between."""
    key, *rest = path
    if not rest:
        table[key] = Entry(value.source, value)
        return
    below = table[key].value if key in table else None
    entries = dict(below.entries) if isinstance(below, Table) else {}
    insert(entries, tuple(rest), value)
    table[key] = Entry(value.source, Table(entries, value.source))
