"""What is changed in requests, as declared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

JSONValue = None | bool | int | float | str | list["JSONValue"] | dict[str, "JSONValue"]

_NONE: Mapping[str, JSONValue] = MappingProxyType({})
_NO_NAMES: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class PathRewrite:
    """A path that is another one at the upstream.

    :param match: the whole path as the client sent it (after ``server.path_prefix`` and ``/to/NAME``
        were taken off), or a prefix of it that ends in ``*``.
    :param to: what takes its place; a ``*`` at its end stands for the rest.
    :param root: below the origin of the upstream's base URL, without its path.
    """

    match: str
    to: str
    root: bool = False


@dataclass(frozen=True, slots=True)
class Transform:
    """One rule.  It changes the top level of JSON bodies, and paths.

    :param endpoints: operations (``chat``, ``embeddings``) that it is for; none named is all.
    :param models: globs; none named is all.
    :param drop: members to take out.
    :param drop_unless: members to take out unless their value has the type named
        (``boolean``, ``string``, ``number``, ``integer``, ``array``, ``object``).
    :param rename: members by their new name; one that is there already is not overwritten.
    :param set: values, put there whatever stood there.
    :param default: values, put there where nothing stood.
    :param replace: by member: the value (as text) that is replaced, and what by.
    :param paths: rewrites; the first that matches holds.
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
