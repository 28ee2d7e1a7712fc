"""What a verb takes, as a table: the same kinds read a value and describe it as JSON Schema.

All that is wrong with what was given is told at once, each with its place (a JSON pointer,
RFC 6901), what was found there and what is accepted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from llmproxyd.config.problems import did_you_mean
from llmproxyd.control.wrong import BAD, MOST_WRONG, Invalid, Wrong, found, step

Schema = dict[str, Any]


class Kind(Protocol):
    """A kind of value."""

    @property
    def accepted(self) -> str:
        """What is accepted, in words."""
        ...

    def schema(self) -> Schema:
        """The same as JSON Schema 2020-12."""
        ...

    def read(self, value: object, pointer: str, wrong: list[Wrong]) -> Any:
        """*value* as Python has it, or :data:`BAD` and the reason on *wrong*."""
        ...


@dataclass(frozen=True, slots=True)
class Text:
    """A text.

    :param pattern: that the whole of it must match; the same in Python and in ECMA-262.
    :param most: characters.
    :param form: brings it into its normal form, or raises :exc:`ValueError`.
    :param formats: of JSON Schema, any of which it has; *form* decides on them.
    :param secret: it must not be shown.
    """

    accepted: str
    pattern: str = ".*"
    most: int = 200
    form: Callable[[str], Any] | None = None
    secret: bool = False
    formats: Sequence[Schema] = ()

    def schema(self) -> Schema:
        """A string; where it has several formats, any of them."""
        if self.formats:
            return {
                "anyOf": [{"type": "string", **one} for one in self.formats],
                "description": self.accepted,
            }
        hidden = {"writeOnly": True} if self.secret else {}
        return {
            "type": "string",
            "maxLength": self.most,
            "pattern": f"^{self.pattern}$",
            "description": self.accepted,
            **hidden,
        }

    def read(self, value: object, pointer: str, wrong: list[Wrong]) -> Any:
        """The text, in its normal form."""
        if isinstance(value, str) and len(value) <= self.most:
            # A lone surrogate is no text: nothing can store it (a UnicodeEncodeError is a ValueError).
            with suppress(ValueError):
                value.encode()
                if self.formats or re.fullmatch(self.pattern, value):
                    return value if self.form is None else self.form(value)
        shown = "a text that is not shown" if self.secret and isinstance(value, str) else found(value)
        wrong.append(Wrong(pointer, shown, self.accepted))
        return BAD


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number."""

    least: int
    most: int

    @property
    def accepted(self) -> str:
        """Its bounds."""
        return f"a whole number from {self.least} to {self.most}"

    def schema(self) -> Schema:
        """An integer."""
        return {"type": "integer", "minimum": self.least, "maximum": self.most}

    def read(self, value: object, pointer: str, wrong: list[Wrong]) -> Any:
        """The number; ``2.0`` is one, as in JSON Schema."""
        number = value if isinstance(value, int | float) and not isinstance(value, bool) else None
        if number is not None and self.least <= number <= self.most and int(number) == number:
            return int(number)
        wrong.append(Wrong(pointer, found(value), self.accepted))
        return BAD


@dataclass(frozen=True, slots=True)
class Flag:
    """True or false."""

    accepted: str = "true or false"

    def schema(self) -> Schema:
        """A boolean."""
        return {"type": "boolean"}

    def read(self, value: object, pointer: str, wrong: list[Wrong]) -> Any:
        """The value itself."""
        if isinstance(value, bool):
            return value
        wrong.append(Wrong(pointer, found(value), self.accepted))
        return BAD


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several texts."""

    of: Sequence[str]

    @property
    def accepted(self) -> str:
        """All of them."""
        return f"one of {', '.join(self.of)}" if self.of else "nothing, as there is none"

    def schema(self) -> Schema:
        """An enumeration."""
        return {"type": "string", "enum": list(self.of)} if self.of else {"type": "string", "not": {}}

    def read(self, value: object, pointer: str, wrong: list[Wrong]) -> Any:
        """The text, with a hint where one of them is near."""
        if isinstance(value, str) and value in self.of:
            return value
        hint = did_you_mean(value, self.of) if isinstance(value, str) else ""
        wrong.append(Wrong(pointer, found(value) + hint, self.accepted))
        return BAD


@dataclass(frozen=True, slots=True)
class Nullable:
    """A value or null."""

    kind: Kind

    @property
    def accepted(self) -> str:
        """The kind's words, and null."""
        return f"{self.kind.accepted}, or null"

    def schema(self) -> Schema:
        """Either of them."""
        return {"anyOf": [self.kind.schema(), {"type": "null"}]}

    def read(self, value: object, pointer: str, wrong: list[Wrong]) -> Any:
        """``None`` or the value."""
        return None if value is None else self.kind.read(value, pointer, wrong)


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list of values of one kind."""

    kind: Kind
    most: int = 100
    least: int = 0

    @property
    def accepted(self) -> str:
        """The kind's words, and how many."""
        number = f"{self.least} to {self.most}" if self.least else f"at most {self.most}"
        return f"a list of {number}, each {self.kind.accepted}"

    def schema(self) -> Schema:
        """An array."""
        bounds = {"maxItems": self.most} | ({"minItems": self.least} if self.least else {})
        return {"type": "array", "items": self.kind.schema(), **bounds}

    def read(self, value: object, pointer: str, wrong: list[Wrong]) -> Any:
        """A tuple, each value once."""
        if not isinstance(value, list) or not self.least <= len(value) <= self.most:
            what = f"a list of {len(value)}" if isinstance(value, list) else found(value)
            wrong.append(Wrong(pointer, what, self.accepted))
            return BAD
        read = [self.kind.read(one, step(pointer, index), wrong) for index, one in enumerate(value)]
        return BAD if any(one is BAD for one in read) else tuple(dict.fromkeys(read))


@dataclass(frozen=True, slots=True)
class MapOf:
    """An object whose names are free, or names of something."""

    names: Text | Choice
    kind: Kind
    most: int = 100

    @property
    def accepted(self) -> str:
        """What the names are."""
        return f"an object of at most {self.most} members, each named by {self.names.accepted}"

    def schema(self) -> Schema:
        """An object."""
        return {
            "type": "object",
            "propertyNames": self.names.schema(),
            "additionalProperties": self.kind.schema(),
            "maxProperties": self.most,
        }

    def read(self, value: object, pointer: str, wrong: list[Wrong]) -> Any:
        """A dict."""
        if not isinstance(value, Mapping) or len(value) > self.most:
            what = f"an object of {len(value)} members" if isinstance(value, Mapping) else found(value)
            wrong.append(Wrong(pointer, what, self.accepted))
            return BAD
        read = {}
        for name, below in value.items():
            here = step(pointer, name)
            key = self.names.read(name, here, wrong)
            item = self.kind.read(below, here, wrong)
            if key is not BAD and item is not BAD:
                read[key] = item
        return read


@dataclass(frozen=True, slots=True)
class Form:
    """An object with known members."""

    members: Mapping[str, Kind]
    required: Sequence[str] = ()
    least: int = 0
    single: bool = False
    told: Mapping[str, str] = field(default_factory=dict)
    """What members mean, by name, for the description."""

    @property
    def accepted(self) -> str:
        """The names."""
        if self.single:
            return f"an object with exactly one of {', '.join(self.members)}"
        return f"an object with the members {', '.join(self.members)}" if self.members else "an empty object"

    def schema(self) -> Schema:
        """An object without any other member."""
        members = {name: kind.schema() for name, kind in self.members.items()}
        for name, told in self.told.items():
            members[name]["description"] = told
        schema: Schema = {"type": "object", "properties": members, "additionalProperties": False}
        if self.required:
            schema["required"] = list(self.required)
        if self.single or self.least:
            schema["minProperties"] = self.least or 1
        if self.single:
            schema["maxProperties"] = 1
        return schema

    def read(self, value: object, pointer: str, wrong: list[Wrong]) -> Any:
        """A dict of what was given."""
        if not isinstance(value, Mapping):
            wrong.append(Wrong(pointer, found(value), self.accepted))
            return BAD
        read = {}
        for name, below in value.items():
            kind = self.members.get(name)
            here = step(pointer, name)
            if kind is None:
                names = list(self.members)
                told = f"an unknown member{did_you_mean(name, names)}"
                wrong.append(Wrong(here, told, ", ".join(names) or "none"))
                continue
            item = kind.read(below, here, wrong)
            if item is not BAD:
                read[name] = item
        for name in self.required:
            if name not in value:
                wrong.append(Wrong(step(pointer, name), "nothing", self.members[name].accepted))
        count = len(value)
        if (self.single and count != 1) or count < self.least:
            what = f"{count} members" if count else "an empty object"
            accepted = self.accepted if self.single else f"{self.accepted}, {self.least} at least"
            wrong.append(Wrong(pointer, what, accepted))
        return read


def taken(form: Form, given: object, code: str = "invalid_body") -> dict[str, Any]:
    """*given* as *form* reads it.

    :raises Invalid: with all that is wrong.
    """
    wrong: list[Wrong] = []
    read = form.read(given, "", wrong)
    if wrong:
        raise Invalid(wrong[:MOST_WRONG], code)
    assert isinstance(read, dict)
    return read
