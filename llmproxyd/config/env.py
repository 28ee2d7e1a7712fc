"""The environment as a layer: ``LLMPROXYD_`` and a key's path joined by ``__``, upper case.

``LLMPROXYD_TIMEOUTS__CONNECT=5s`` sets ``timeouts.connect``.  Where the path holds a name of
the user's, ``-`` and ``.`` in it are written ``_``: ``LLMPROXYD_UPSTREAMS__MY_VLLM__BASE_URL``
means ``my-vllm``, or ``my_vllm`` if that one is in the file.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from llmproxyd.config import reflect
from llmproxyd.config.problems import did_you_mean
from llmproxyd.config.tree import Entry, Layer, Scalar, Source, Table, insert

PREFIX = "LLMPROXYD_"

CLIENTS = frozenset({"LLMPROXYD_ADMIN_SOCKET", "LLMPROXYD_ADMIN_TOKEN"})
"""Variables of ``llmproxyctl``, which may well be run with the daemon's environment."""


def layer(
    environ: Mapping[str, str],
    root: type,
    below: Sequence[Table],
    names: Mapping[tuple[str, ...], Collection[str]],
) -> tuple[Table, list[str]]:
    """The settings in *environ* and warnings about names that set nothing.

    :param below: the weaker layers; the names that they use are recognised.
    :param names: further known names of the user's, by the path of what holds them.
    """
    entries: dict[str, Entry] = {}
    warnings = []
    for variable in sorted(environ):
        if not variable.startswith(PREFIX) or variable in CLIENTS:
            continue
        source = Source(Layer.ENVIRONMENT, f"environment {variable}")
        path = _path(variable, root, below, names)
        if isinstance(path, str):
            warnings.append(f"{source}: {path}")
        else:
            insert(entries, path, Scalar(environ[variable], source))
    return Table(entries, Source(Layer.ENVIRONMENT, "environment")), warnings


def variable_for(path: Sequence[str]) -> str:
    """The name of the variable that sets *path*."""
    return PREFIX + "__".join(_folded(part) for part in path)


def _path(
    variable: str,
    root: type,
    below: Sequence[Table],
    names: Mapping[tuple[str, ...], Collection[str]],
) -> tuple[str, ...] | str:
    """The path that *variable* sets, or why it sets none."""
    path: tuple[str, ...] = ()
    kind: Any = root
    for part in variable[len(PREFIX) :].split("__"):
        pair = reflect.mapped(kind)
        if reflect.is_table(kind):
            by_name = {_folded(name): key for name, key in reflect.keys(reflect.split(kind)[0]).items()}
            key = by_name.get(part)
            if key is None:
                return f"sets nothing{_near(variable, root)}"
            path, kind = (*path, key.name), reflect.present(key.kind)
        elif pair is not None and part:
            known = {_folded(name): name for name in (*names.get(path, ()), *_names(below, path))}
            path, kind = (*path, known.get(part, part.lower().replace("_", "-"))), reflect.present(pair[1])
        else:
            return f"sets nothing{_near(variable, root)}"
    if reflect.is_table(kind) or reflect.mapped(kind) is not None or reflect.listed(kind) is not None:
        return f"sets nothing; {'.'.join(path)} is {reflect.accepted(kind)}, which only a file can hold"
    return path


def _names(layers: Sequence[Table], path: tuple[str, ...]) -> list[str]:
    """The keys that *layers* use at *path*."""
    found: list[str] = []
    for table in layers:
        for part in path:
            below = table.entries[part].value if part in table.entries else None
            if not isinstance(below, Table):
                break
            table = below
        else:
            found += table.entries
    return found


def _near(variable: str, root: type) -> str:
    known = [variable_for(place) for place, _ in reflect.places(root) if "[]" not in place]
    return did_you_mean(variable, known)


def _folded(name: str) -> str:
    return re.sub(r"[^A-Z0-9]", "_", name.upper())
