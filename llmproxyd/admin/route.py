"""One operation of the admin API: how it is asked for, what it takes, what it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from llmproxyd.control.calls import Caller
from llmproxyd.control.forms import Form, Whole
from llmproxyd.control.ledger import MOST

BASE = "/admin/v1"

LIMIT = Whole(1, MOST)
"""How many rows are asked for."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request, read.

    :param path: the names in the path, decoded.
    :param query: as the route's form reads it, as is *body*, which is the value as it came.
    """

    caller: Caller
    path: Mapping[str, str]
    query: Mapping[str, Any]
    body: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Page:
    """An answer that is no JSON.

    :param media: its type.
    """

    body: bytes
    media: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One operation.

    :param path: below :data:`BASE`; a part in braces takes a name.
    :param name: of the operation.
    :param handle: does it; a value, or a Deferred of one.
    :param answer: name of the schema of a good answer; ``None`` where it is a :class:`Page` of text.
    :param status: of a good answer.
    :param body: what is taken; the verb itself reads it.
    :param body_optional: it may be left out.
    """

    method: str
    path: str
    name: str
    summary: str
    handle: Callable[[Call], object]
    answer: str | None
    status: int = 200
    query: Form = field(default_factory=lambda: Form({}))
    body: Form | None = None
    body_optional: bool = False

    @property
    def parts(self) -> list[str]:
        """The path, part by part."""
        return self.path[1:].split("/")
