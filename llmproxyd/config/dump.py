"""What is in force, as a file: every key, in native form, secrets redacted."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml

from llmproxyd.config import reflect
from llmproxyd.config.schema import Config
from llmproxyd.redaction import Secret
from llmproxyd.units import format_duration, format_size, parse_duration


class _Text(str):
    """A text in a place where its looks would decide what it is."""

    __slots__ = ()


class _Dumper(yaml.SafeDumper):
    """Writes no aliases: a value that stands in two places is two values."""

    def ignore_aliases(self, data: object) -> bool:
        """Whether *data* is written out again: always."""
        return True


_Dumper.add_representer(
    _Text, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", str(text), style='"')
)


def dump(config: Config) -> str:
    """*config* as YAML that loads to the same configuration, apart from its secrets.

    Upstreams that nobody configured stand there as comments: a file that named them would
    freeze the providers' addresses.
    """
    text = yaml.dump(dumped(config), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10_000)
    built_in = [item for item in config.upstreams.values() if item.built_in]
    return "".join([*(f"# built in: {item.name} {item.base_url}\n" for item in built_in), text])


def dumped(config: Config) -> dict[str, object]:
    """*config* as plain values, less the upstreams that nobody configured; secrets redacted."""
    tree = _table(config)
    written = {name: item for name, item in config.upstreams.items() if not item.built_in}
    tree["upstreams"] = {name: _table(item) for name, item in written.items()}
    return tree


def _table(instance: object) -> dict[str, object]:
    """The keys and values of a dataclass of the schema."""
    table: type = type(instance)
    keys = reflect.keys(table).values()
    return {key.name: plain(getattr(instance, key.attribute), key.kind) for key in keys}


def plain(value: Any, kind: Any) -> object:
    """*value* as what YAML knows, in the notation of its *kind*."""
    if value is None:
        return None
    if reflect.is_json(kind):
        return _quoted(value)
    kind = reflect.present(kind)
    _, markers = reflect.split(kind)
    pair, item = reflect.mapped(kind), reflect.listed(kind)
    if reflect.is_table(kind):
        return _table(value)
    if pair is not None and isinstance(value, Mapping):
        return {name: plain(below, pair[1]) for name, below in value.items()}
    if item is not None:
        return [plain(below, item) for below in value]
    if isinstance(value, Secret):
        return str(value)
    if isinstance(value, Path):
        return str(value)
    if "duration" in markers:
        return _duration(value)
    if "size" in markers:
        return format_size(value)
    return value


def _quoted(value: object) -> object:
    """A JSON value with its texts in quotes, as PyYAML follows other rules than we do."""
    if isinstance(value, str):
        return _Text(value)
    if isinstance(value, list):
        return [_quoted(item) for item in value]
    if isinstance(value, dict):
        return {name: _quoted(item) for name, item in value.items()}
    return value


def _duration(seconds: float) -> str:
    """The usual form where it is exact, otherwise every digit."""
    text = format_duration(seconds)
    if parse_duration(text) == seconds:
        return text
    digits = f"{Decimal(repr(seconds)):f}"
    return re.sub(r"^(\d+)$", r"\1.0", digits)
