"""What may stand in an audit line of a value that somebody hands over: anything but a secret.

A last guard: those who record changes leave secrets out themselves.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from datetime import date
from enum import Enum
from itertools import islice
from pathlib import PurePath
from typing import Any

from llmproxyd.redaction import REDACTED, Redactor, Secret

TEXT = 1024
"""Characters of one text."""

ITEMS = 100
"""Members of one value."""

DEPTH = 6
"""Values within each other."""

_NUMBER = 10**18
_CREDENTIAL = frozenset(
    {"key", "secret", "password", "passwd", "passphrase", "token", "credential", "authorization", "auth"}
    | {"cookie", "digest", "hash", "signature", "bearer", "apikey", "login"}
)
_ID = re.compile(r"(?:tok|proj)_[a-z2-7]{16}")
"""Of a token or a project: no secret, though it may be called ``token``."""
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_WORDS = re.compile(r"[^a-z0-9]+")


def shielded(value: object, redactor: Redactor, *, hidden: bool = False, depth: int = DEPTH) -> Any:
    """*value* as JSON can hold it, bounded and without secrets.

    :param hidden: it belongs to a credential: no text of it is shown.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Enum):
        return shielded(value.value, redactor, hidden=hidden, depth=depth)
    if isinstance(value, int):
        return int(value) if abs(value) < _NUMBER else "[a large number]"
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Secret):
        return REDACTED
    if isinstance(value, str | PurePath):
        return _text(str(value), redactor, hidden)
    if isinstance(value, date):
        return value.isoformat()
    if depth <= 0:
        return "[more]"
    if is_dataclass(value) and not isinstance(value, type):
        value = {one.name: getattr(value, one.name, None) for one in fields(value)}
    if isinstance(value, Mapping):
        return _members(value, redactor, hidden, depth)
    if isinstance(value, list | tuple | set | frozenset):
        ordered: Iterable[object] = sorted(value, key=str) if isinstance(value, set | frozenset) else value
        return [shielded(one, redactor, hidden=hidden, depth=depth - 1) for one in islice(ordered, ITEMS)]
    return f"[{type(value).__name__}]"


def _members(value: Mapping[Any, object], redactor: Redactor, hidden: bool, depth: int) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    for name, one in islice(value.items(), ITEMS):
        below = hidden or is_credential(str(name))
        shown[_text(str(name), redactor, False)] = shielded(one, redactor, hidden=below, depth=depth - 1)
    return shown


def is_credential(name: str) -> bool:
    """Whether a member of that *name* holds a credential: its last word says so."""
    last = _WORDS.split(_HUMP.sub("_", name[-TEXT:]).lower().strip("_- "))[-1]
    return last in _CREDENTIAL or last.removesuffix("s") in _CREDENTIAL


def _text(text: str, redactor: Redactor, hidden: bool) -> str:
    if hidden and text and not _ID.fullmatch(text):
        return REDACTED
    # A little more than is shown, so that a secret at the cut is still known by its form.
    shown = redactor.text(text[: 2 * TEXT])
    if len(text) > 2 * TEXT:
        shown = redactor.cut(shown)
    return shown if len(shown) <= TEXT else f"{shown[:TEXT]}…"
