"""The schema's own dataclasses, read as a description of what may be written.

Attribute names are key names; a trailing underscore is dropped (``for_`` is written ``for``).
Fields with the metadata ``configurable: False`` are filled in by the loader and have no key.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import MISSING
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from llmproxyd.config.markers import FILLED_IN, AtLeast, Check, Reference
from llmproxyd.redaction import Secret, SecretURL
from llmproxyd.units import DURATION_HELP, SIZE_HELP

NOT_A_KEY: Mapping[str, object] = {"configurable": False}

_ACCEPTED: Mapping[object, str] = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    Path: "a path",
    Secret: "a text, ${VARIABLE}, {file: PATH} or {credential: NAME}",
    SecretURL: "a URL, ${VARIABLE}, {file: PATH} or {credential: NAME}",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Key:
    """One key of a table.

    :param attribute: of the dataclass that holds its value.
    :param kind: its type, annotations included.
    """

    name: str
    attribute: str
    kind: Any
    required: bool
    default: object


@cache
def keys(table: type) -> Mapping[str, Key]:
    """The keys that stand for the fields of the dataclass *table*, by name."""
    kinds = get_type_hints(table, include_extras=True)
    found = {}
    for item in dataclasses.fields(table):
        if not item.metadata.get("configurable", True):
            continue
        default = item.default_factory() if item.default_factory is not MISSING else item.default
        name = item.name.rstrip("_")
        found[name] = Key(name, item.name, kinds[item.name], default is MISSING, default)
    return found


def split(kind: Any) -> tuple[Any, tuple[Any, ...]]:
    """*kind* without its annotations, and these."""
    if get_origin(kind) is Annotated:
        base, *markers = get_args(kind)
        return base, tuple(markers)
    return kind, ()


def choices(kind: Any) -> tuple[Any, ...]:
    """The members of a union, and of anything else the kind itself."""
    base, _ = split(kind)
    return get_args(base) if get_origin(base) in (Union, UnionType) else (kind,)


def optional(kind: Any) -> bool:
    """Whether *kind* may be null."""
    return NoneType in choices(kind) or FILLED_IN in split(kind)[1]


def present(kind: Any) -> Any:
    """*kind* without its ``None``, unless several others remain."""
    rest = [choice for choice in choices(kind) if choice is not NoneType]
    return rest[0] if len(rest) == 1 else kind


def is_table(kind: Any) -> bool:
    """Whether *kind* is a dataclass, a table of fixed keys."""
    base, _ = split(kind)
    return isinstance(base, type) and dataclasses.is_dataclass(base)


def mapped(kind: Any) -> tuple[Any, Any] | None:
    """The kinds of key and value of a mapping, ``None`` for anything else."""
    base, _ = split(kind)
    if get_origin(base) is not Mapping:
        return None
    key, value = get_args(base)
    return key, value


def is_json(kind: Any) -> bool:
    """Whether *kind* is any JSON value: the one union that has a ``dict`` among its members.

    The type refers to itself, so that its copies in annotations are not the same object.
    """
    return any(get_origin(choice) is dict for choice in choices(kind))


def listed(kind: Any) -> Any | None:
    """The kind of a list's items, ``None`` for what is no list."""
    base, _ = split(kind)
    return get_args(base)[0] if get_origin(base) is tuple else None


def accepted(kind: Any) -> str:
    """What may be written for *kind*, in words."""
    base, markers = split(kind)
    members = [choice for choice in choices(base) if choice is not NoneType]
    if is_json(kind):
        return "any JSON value"
    if len(members) > 1:
        text = ", ".join(accepted(member) for member in members)
    elif members[0] is not base:
        text = accepted(members[0])
    elif get_origin(base) is Literal:
        text = ", ".join(str(choice) for choice in get_args(base))
    elif is_table(base):
        text = f"a mapping with the keys {', '.join(keys(base))}"
    elif mapped(base):
        text = "a mapping"
    elif listed(base) is not None:
        text = "a list"
    else:
        text = _ACCEPTED[base]
    for marker in markers:
        if marker == "duration":
            text = DURATION_HELP
        elif marker == "size":
            text = SIZE_HELP
        elif isinstance(marker, Check):
            text = marker.accepted
        elif isinstance(marker, Reference):
            text = f"the name of {marker.to}"
        elif isinstance(marker, AtLeast):
            text = f"{text}, {marker.words}"
    return f"{text}, or null" if optional(kind) else text


def places(table: type, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every key below *table* with its kind; ``NAME`` and ``[]`` stand for what users name."""
    for key in keys(table).values():
        here = (*above, key.name)
        yield here, key.kind
        kind = present(key.kind)
        item = listed(kind)
        pair = mapped(kind)
        if is_table(kind):
            yield from places(split(kind)[0], here)
        elif pair is not None:
            yield from _below(pair[1], (*here, "NAME"))
        elif item is not None:
            yield from _below(item, (*here, "[]"))


def _below(kind: Any, here: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if is_table(kind):
        yield from places(split(kind)[0], here)
    else:
        yield here, kind
