"""Two configurations side by side: what changed, and what only a restart can change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from llmproxyd.config.dump import dumped
from llmproxyd.config.problems import path_text
from llmproxyd.config.schema import Config
from llmproxyd.redaction import Secret

FIXED: tuple[tuple[str, ...], ...] = (
    ("sandbox",),
    ("access", "enabled"),
    ("access", "store"),
    ("access", "secret_key"),
    ("access", "limits"),
    ("cache", "enabled"),
    ("cache", "backend"),
    ("cache", "max_bytes"),
    ("cache", "redis_url"),
    ("cache", "key_prefix"),
    ("events", "bus"),
    ("events", "dispatch"),
    ("events", "prices"),
    ("audit",),
    ("metrics",),
    ("journal",),
    ("record",),
    ("replay",),
    ("verdicts",),
    ("admin",),
    ("operator",),
    ("faults", "mode"),
    ("faults", "seed"),
    ("faults", "forget_after"),
    ("faults", "scenario"),
    ("faults", "report"),
    ("logging", "format"),
    ("logging", "enabled"),
    ("logging", "folder"),
    ("logging", "include_request_data"),
    ("logging", "include_response_data"),
    ("logging", "include_headers"),
    ("logging", "include_timing"),
    ("logging", "max_files"),
    ("error_logging",),
    ("server", "max_headers"),
    ("server", "header_timeout"),
    ("server", "idle_timeout"),
)
"""What is made once, when the daemon starts."""

NOTHING = "(not set)"


def held(before: Config, after: Config) -> tuple[Config, list[str]]:
    """*after* as far as it can hold without a restart, and the keys that need one."""
    kept: Any = after
    names = []
    for path in FIXED:
        if not _has(before, path) or _at(before, path) == _at(after, path):
            continue
        kept = _with(kept, path, _at(before, path))
        names.append(path_text(path))
    return kept, names


def changes(before: Config, after: Config) -> Iterator[tuple[str, object, object]]:
    """Each key that differs: its path, its values as they may be shown."""
    old, new = dict(_flat(dumped(before))), dict(_flat(dumped(after)))
    secrets = {path_text(path) for path in _secrets_that_differ(before, after)}
    for path in sorted(old.keys() | new.keys() | secrets):
        was, now = old.get(path, NOTHING), new.get(path, NOTHING)
        if was != now or path in secrets:
            yield path, was, now


def _flat(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping) and value:
        for name, below in value.items():
            yield from _flat(below, (*path, str(name)))
    elif isinstance(value, list) and value:
        for number, below in enumerate(value):
            yield from _flat(below, (*path, number))
    else:
        yield path_text(path), value


def _secrets_that_differ(before: Any, after: Any, path: tuple[str | int, ...] = ()) -> Iterator[Any]:
    """Where two secrets differ that are shown alike."""
    if is_dataclass(before) and type(before) is type(after):
        for one in fields(before):
            if one.metadata.get("configurable", True):
                name = one.name.rstrip("_")
                yield from _secrets_that_differ(
                    getattr(before, one.name), getattr(after, one.name), (*path, name)
                )
    elif isinstance(before, Mapping) and isinstance(after, Mapping):
        for name in before.keys() & after.keys():
            yield from _secrets_that_differ(before[name], after[name], (*path, name))
    elif isinstance(before, tuple) and isinstance(after, tuple):
        for number, (one, other) in enumerate(zip(before, after, strict=False)):
            yield from _secrets_that_differ(one, other, (*path, number))
    elif isinstance(before, Secret) and isinstance(after, Secret) and before != after:
        yield path


def _has(config: Any, path: tuple[str, ...]) -> bool:
    for name in path:
        if not hasattr(config, name):
            return False
        config = getattr(config, name)
    return True


def _at(config: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        config = getattr(config, name)
    return config


def _with(config: Any, path: tuple[str, ...], value: Any) -> Any:
    name, *rest = path
    return replace(config, **{name: _with(getattr(config, name), tuple(rest), value) if rest else value})
