"""The id that an upstream gave to a request: what its support asks for."""

from __future__ import annotations

from llmproxyd.model import RawHeaders
from llmproxyd.wire.fields import fields_of

LONGEST = 128
"""Characters of an id that are kept."""


def answer_id(headers: RawHeaders) -> str | None:
    """The first id among the fields of an answer."""
    for _, value in fields_of(headers).ids:
        if value:
            return value[:LONGEST].decode("latin-1")
    return None
