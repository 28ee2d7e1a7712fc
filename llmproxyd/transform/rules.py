"""What is changed in requests, as declared."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

JSONValue = None | bool | int | float | str | list["JSONValue"] | dict[str, "JSONValue"]

TYPES = ("boolean", "string", "number", "integer", "array", "object")
"""What ``drop_unless`` may ask for.  An integer is a number without fraction and exponent."""

_NONE: Mapping[str, JSONValue] = MappingProxyType({})
_NO_NAMES: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class PathRewrite:
    """A path that is another one at the upstream.  Both are written as they go over the wire.

    :param match: the whole path as the client sent it (after ``server.path_prefix`` and ``/to/NAME``
        were taken off), or a prefix of it that ends in ``*``.
    :param to: what takes its place; a ``*`` at its end stands for the rest.
    :param root: below the origin of the upstream's base URL, without its path.
    """

    match: str
    to: str
    root: bool = False

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with the keys taken together."""
        for key, path in (("match", self.match), ("to", self.to)):
            if not path.startswith("/"):
                yield key, 'accepted: a path that starts with "/"'
            elif "*" in path[:-1]:
                yield key, "accepted: a path with one * at most, at its end"
            elif "?" in path or "#" in path:
                yield key, "accepted: a path alone; the query stays as the client sent it"
            elif not all("!" <= char <= "~" for char in path):
                yield key, "accepted: visible ASCII; anything else percent-encoded, as on the wire"
        if self.to.endswith("*") and not self.match.endswith("*"):
            yield "to", "its * stands for the rest of the path, of which match leaves none"
        elif self.match == self.to and not self.root:
            yield "to", "found the very path of match; accepted: another one, or root: true"

    def covers(self, other: PathRewrite) -> bool:
        """Whether every path that *other* matches is matched by this one too."""
        if self.match.endswith("*"):
            return other.match.removesuffix("*").startswith(self.match[:-1])
        return self.match == other.match


@dataclass(frozen=True, slots=True)
class Transform:
    """One rule.  It changes the top level of JSON bodies, and paths.

    What it does to a body it does in the order of the keys below, from ``drop`` to ``replace``;
    each sees what the one before it left.

    :param endpoints: operations (``chat``, ``embeddings``) that it is for; none named is all.
    :param models: globs; none named is all.  A request that names no model matches none.
    :param drop: members to take out.
    :param drop_unless: members to take out unless their value has the type named
        (``boolean``, ``string``, ``number``, ``integer``, ``array``, ``object``).
    :param rename: new names by old ones; where the new one is there already, both members stay.
    :param set: values, put there whatever stood there.
    :param default: values, put there where nothing stood (``null`` is something).
    :param replace: by member: the value that is replaced, and what by.  A string is compared as it
        is, other scalars as they are written (``true``, ``1.0``), arrays and objects not at all.
    :param paths: rewrites; the first that matches holds, for any endpoint and any model.
    """

    endpoints: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    drop_unless: Mapping[str, str] = field(default_factory=lambda: _NO_NAMES)
    rename: Mapping[str, str] = field(default_factory=lambda: _NO_NAMES)
    set: Mapping[str, JSONValue] = field(default_factory=lambda: _NONE)
    default: Mapping[str, JSONValue] = field(default_factory=lambda: _NONE)
    replace: Mapping[str, Mapping[str, JSONValue]] = field(default_factory=lambda: MappingProxyType({}))
    paths: tuple[PathRewrite, ...] = ()

    @property
    def reads_body(self) -> bool:
        """Whether it can change a body."""
        return any((self.drop, self.drop_unless, self.rename, self.set, self.default, self.replace))

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with the keys taken together."""
        if not self.reads_body and not self.paths:
            yield "", "it changes nothing; accepted: one at least of drop … replace, paths"
        if self.paths and (self.endpoints or self.models):
            yield "paths", "they heed neither endpoints nor models; accepted: paths in a rule of their own"
        for index, path in enumerate(self.paths):
            if any(former.covers(path) for former in self.paths[:index]):
                yield "paths", f"number {index + 1} never matches: one before it takes all its paths"
        yield from self._problems_of_names()
        yield from self._problems_of_values()

    def _problems_of_names(self) -> Iterator[tuple[str, str]]:
        for name, kind in self.drop_unless.items():
            if kind not in TYPES:
                yield f"drop_unless.{name}", f"accepted: {', '.join(TYPES)}"
        for name, new in self.rename.items():
            if name == new:
                yield f"rename.{name}", "found its own name; accepted: another one"
        for key, names in (("drop_unless", self.drop_unless), ("rename", self.rename)):
            for name in names:
                if name in self.drop:
                    yield f"{key}.{name}", "it is dropped by this rule already"
        for name in self.default:
            if name in self.set:
                yield f"default.{name}", "it is set by this rule already"

    def _problems_of_values(self) -> Iterator[tuple[str, str]]:
        for key, values in (("set", self.set), ("default", self.default)):
            for name, value in values.items():
                if not _has_json(value):
                    yield f"{key}.{name}", "JSON has no such number"
        for name, replacements in self.replace.items():
            if not replacements:
                yield f"replace.{name}", "found nothing; accepted: a mapping of values to new ones"
            for old, value in replacements.items():
                if not _has_json(value):
                    yield f"replace.{name}.{old}", "JSON has no such number"
                elif isinstance(value, str) and value == old:
                    yield f"replace.{name}.{old}", "found the same value; accepted: another one"


def _has_json(value: JSONValue) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, list):
        return all(map(_has_json, value))
    return not isinstance(value, dict) or all(map(_has_json, value.values()))
