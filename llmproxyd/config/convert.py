"""Trees to typed values, by the annotations of the schema's dataclasses.

One walker for all: it merges the layers as it goes down (tables key by key, anything else is
taken from the strongest layer), converts each value by its type and its markers, collects
every problem with its place, and remembers where each value came from.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from enum import Enum
from pathlib import Path as FilePath
from types import MappingProxyType, NoneType
from typing import Any, Final, Literal, Protocol, get_args, get_origin, runtime_checkable

from llmproxyd.config import reflect
from llmproxyd.config.folders import Folders
from llmproxyd.config.jsonvalue import json_value
from llmproxyd.config.markers import STATE_FILE, AtLeast, Check, Reference
from llmproxyd.config.problems import Path, Problem, did_you_mean, near, path_text, quoted
from llmproxyd.config.scalars import BOOLEANS, MEASURES, PLAIN
from llmproxyd.config.secret import SecretReader
from llmproxyd.config.tree import Entry, Layer, Listing, Node, Scalar, Source, Table
from llmproxyd.redaction import Secret
from llmproxyd.transform.rules import JSONValue

_OCTAL = re.compile(r"[-+]?0[0-9]+")
_NOT_BOOLEANS = frozenset({"yes", "no", "on", "off", "y", "n"})
_VARIABLE = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}")


class _Failed(Enum):
    FAILED = 0


FAILED: Final = _Failed.FAILED
"""Stands for a value that could not be had; the reason is on the list of problems."""


@runtime_checkable
class Checked(Protocol):
    """A dataclass whose keys depend on each other."""

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with the whole: the key (``a.b`` for one below), or an empty text, and why."""
        ...


class Walker:
    """Converts one configuration.

    :param root: the dataclass at the top, for hints about keys in the wrong place.
    :param folders: what relative paths stand against.
    :param theirs: what another program's file calls the keys that were translated from it.
    """

    def __init__(
        self,
        root: type,
        secrets: SecretReader,
        folders: Folders,
        theirs: Mapping[Path, Path] = MappingProxyType({}),
    ) -> None:
        self.problems: list[Problem] = []
        self.sources: dict[Path, Source] = {}
        self.references: list[tuple[Reference, Path, str]] = []
        self._secrets = secrets
        self._folders = folders
        self._theirs = theirs
        self._wrong: set[Path] = set()
        self._elsewhere: dict[str, list[str]] = {}
        for place, _ in reflect.places(root):
            self._elsewhere.setdefault(place[-1], []).append(".".join(place).replace(".[]", "[]"))

    def problem(self, path: Path, message: str, source: Source | None = None) -> None:
        """Note that what stands at *path* is wrong."""
        self._wrong.add(path)
        place = source or self.source(path)
        told = self._told(path) if place is not None and place.layer is Layer.FILE else path
        self.problems.append(Problem(str(place) if place else "default", path_text(told), message))

    def _told(self, path: Path) -> Path:
        """What the file itself calls *path*."""
        for length in range(len(path), 0, -1):
            if path[:length] in self._theirs:
                return (*self._theirs[path[:length]], *path[length:])
        return path

    def failed(self, path: Path) -> bool:
        """Whether something was wrong with the very key at *path*."""
        return path in self._wrong

    def source(self, path: Path) -> Source | None:
        """Where *path*, or else what holds it, was written; ``None`` for a default."""
        while path and path not in self.sources:
            path = path[:-1]
        return self.sources.get(path)

    def convert(self, kind: Any, nodes: Sequence[Node], path: Path) -> Any:
        """The value of *kind* that the layers *nodes*, weakest first, make up at *path*.

        :return: :data:`FAILED` when there is none.
        """
        last = nodes[-1]
        self.sources[path] = last.source
        if reflect.is_json(kind):
            return self._json(last, path)
        if reflect.optional(kind) and isinstance(last, Scalar) and last.is_null:
            return None
        whole, kind = kind, reflect.present(kind)
        base, markers = reflect.split(kind)
        item = reflect.listed(kind)
        if reflect.is_table(kind):
            return self.table(base, nodes, path)
        if reflect.mapped(kind) is not None:
            value = self._mapping(kind, nodes, path)
        elif item is not None:
            value = self._listing(kind, item, last, path)
        elif isinstance(base, type) and issubclass(base, Secret):
            value = self._secret(base, last, path)
        else:
            value = self._scalar(whole, last, path)
        return value if value is FAILED else self._marked(value, markers, last, path)

    def table(self, cls: type, nodes: Sequence[Node], path: Path) -> Any:
        """An instance of the dataclass *cls*, with defaults for what is missing or wrong."""
        layers = self._tables(cls, nodes, path)
        known = reflect.keys(cls)
        given = _by_key(layers)
        values: dict[str, object] = {}
        for name, entries in given.items():
            key = known.get(name)
            if key is None:
                for entry in entries:
                    self.problem((*path, name), self._unknown(name, known), entry.source)
                continue
            value = self.convert(key.kind, [entry.value for entry in entries], (*path, name))
            if value is not FAILED:
                values[key.attribute] = value
        for key in known.values():
            if key.required and key.attribute not in values:
                if key.name not in given:
                    self.problem((*path, key.name), f"missing; accepted: {reflect.accepted(key.kind)}")
                return FAILED
        instance = cls(**values)
        if isinstance(instance, Checked):
            for name, message in instance.problems():
                here = (*path, *name.split(".")) if name else path
                # What follows from a value that is wrong by itself is no news.
                if not any(wrong[: len(here)] == here for wrong in self._wrong):
                    self.problem(here, message)
        return instance

    def _tables(self, kind: Any, nodes: Sequence[Node], path: Path) -> list[Table]:
        """The layers that are tables.  A key with nothing after it says nothing."""
        for node in nodes:
            if not isinstance(node, Table) and not (isinstance(node, Scalar) and node.is_null):
                # The text is not shown: what stands in a secret's place may be one.
                self.problem(
                    path, f"found {_class_of(node)}; accepted: {reflect.accepted(kind)}", node.source
                )
        return [node for node in nodes if isinstance(node, Table)]

    def _mapping(self, kind: Any, nodes: Sequence[Node], path: Path) -> Any:
        pair = reflect.mapped(kind)
        assert pair is not None
        values = {}
        for name, entries in _by_key(self._tables(kind, nodes, path)).items():
            here = (*path, name)
            key = self._marked(name, reflect.split(pair[0])[1], Scalar(name, entries[0].source), here)
            value = self.convert(pair[1], [entry.value for entry in entries], here)
            if FAILED not in (key, value):
                values[key] = value
        return MappingProxyType(values)

    def _listing(self, kind: Any, item: Any, node: Node, path: Path) -> Any:
        if isinstance(node, Scalar) and node.is_null:
            return ()
        if not isinstance(node, Listing):
            self.problem(path, f"found {_class_of(node)}; accepted: {reflect.accepted(kind)}")
            return FAILED
        values = [self.convert(item, [entry], (*path, index)) for index, entry in enumerate(node.items)]
        return tuple(value for value in values if value is not FAILED)

    def _json(self, node: Node, path: Path) -> Any:
        try:
            return json_value(node)
        except ValueError as error:
            self.problem(path, f"{error}; accepted: {reflect.accepted(JSONValue)}")
            return FAILED

    def _secret(self, base: type[Secret], node: Node, path: Path) -> Any:
        if isinstance(node, Scalar) and node.is_null:
            self.problem(path, f"found nothing; accepted: {reflect.accepted(base)}")
            return FAILED
        try:
            return self._secrets.read(node, path, base)
        except ValueError as error:
            self.problem(path, str(error))
            return FAILED

    def _scalar(self, kind: Any, node: Node, path: Path) -> Any:
        if not isinstance(node, Scalar):
            self.problem(path, f"found {_class_of(node)}; accepted: {reflect.accepted(kind)}")
            return FAILED
        if not node.is_null:
            for choice in reflect.choices(kind):
                with suppress(ValueError):
                    return self._read(choice, node)
        self.problem(path, f"found {_found(node)}; accepted: {reflect.accepted(kind)}{_hint(kind, node)}")
        return FAILED

    def _read(self, kind: Any, node: Scalar) -> object:
        """The value of *node* as the simple type *kind*.

        :raises ValueError: it has none.
        """
        base, markers = reflect.split(kind)
        if base is NoneType:
            raise ValueError
        if get_origin(base) is Literal:
            if node.text in get_args(base):
                return node.text
            raise ValueError
        if base is FilePath:
            unresolved = "log folder" in markers or STATE_FILE in markers
            return self._folders.expanded(node.text) if unresolved else self._folders.resolve(node.text)
        for marker in markers:
            if marker in MEASURES:
                return MEASURES[marker](node.text)
        if base is str:
            if _VARIABLE.search(node.text):
                raise ValueError
            return node.text
        if not node.plain:
            raise ValueError
        return PLAIN[base](node.text)

    def _marked(self, value: Any, markers: Sequence[object], node: Node, path: Path) -> Any:
        for marker in markers:
            if isinstance(marker, AtLeast) and not marker.holds(value):
                self.problem(path, f"found {_found(node)}; accepted: a value {marker.words}")
                return FAILED
            if isinstance(marker, Reference):
                self.references.append((marker, path, value))
            if isinstance(marker, Check):
                try:
                    result = marker.test(value)
                except ValueError as error:
                    found, reason = _found(node), str(error)
                    # The text is not shown where it is a secret.
                    whole = isinstance(value, Secret) or found in reason
                    told = reason if whole else f"found {found}; {reason}"
                    self.problem(path, told, node.source)
                    return FAILED
                value = result if marker.replaces else value
        return value

    def _unknown(self, name: str, known: Mapping[str, object]) -> str:
        accepted = list(known)
        elsewhere = self._elsewhere.get(name, ())
        hint = ""
        if near(name, accepted):
            hint = did_you_mean(name, accepted)
        elif elsewhere:
            hint = f"; did you mean {' or '.join(elsewhere[:3])}?"
        return f"unknown key{hint} (accepted: {', '.join(accepted)})"


def _by_key(tables: Sequence[Table]) -> dict[str, list[Entry]]:
    """The entries of all layers by key, weakest first."""
    found: dict[str, list[Entry]] = {}
    for table in tables:
        for name, entry in table.entries.items():
            found.setdefault(name, []).append(entry)
    return found


def _class_of(node: Node) -> str:
    if isinstance(node, Listing):
        return "a list"
    if isinstance(node, Table):
        return "a mapping"
    return "nothing" if node.is_null else "a text"


def _found(node: Node) -> str:
    if not isinstance(node, Scalar) or node.is_null:
        return _class_of(node)
    return quoted(node.text)


def _hint(kind: Any, node: Scalar) -> str:
    """Why a text that looks right is not, where that is known."""
    bases = [reflect.split(choice)[0] for choice in reflect.choices(kind)]
    words = [word for base in bases if get_origin(base) is Literal for word in get_args(base)]
    words += BOOLEANS if bool in bases else ()
    if str in bases:
        return " (${…} works where a secret is expected only)" if _VARIABLE.search(node.text) else ""
    if bool in bases and node.text.lower() in _NOT_BOOLEANS:
        return f" ({node.text} is a text)"
    if not node.plain and not words:
        return " (without quotes)" if node.text else ""
    if not node.plain and node.text in words:
        return " (without quotes)"
    if int in bases and _OCTAL.fullmatch(node.text):
        return " (without leading zeros)"
    return did_you_mean(node.text, words) if words else ""
