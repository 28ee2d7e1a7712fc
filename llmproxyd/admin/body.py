"""JSON as it comes from a caller, read strictly (RFC 8259, I-JSON RFC 7493)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NoReturn

from llmproxyd.errors import Refused

MAX_BODY = 256 * 1024
"""Bytes of a body.  A project with a long key for every upstream there is has a tenth of it."""
MAX_DEPTH = 16


class _Strict(ValueError):
    """Why a text is no JSON that is taken; the words are ours."""


def read_json(data: bytes) -> Any:
    """The value that *data* is.

    :raises Refused: 400 ``malformed_json``: it is none, or one with doubled members, numbers that
        JSON does not have, or too deep.  The message quotes nothing of it.
    """
    try:
        text = data.decode()
        if _depth(text) > MAX_DEPTH:
            raise _Strict(f"deeper than {MAX_DEPTH} levels")
        return json.loads(text, object_pairs_hook=_members, parse_constant=_constant, parse_int=_integer)
    except UnicodeDecodeError:
        why = "it is not UTF-8"
    except json.JSONDecodeError as error:
        why = f"{error.msg[:1].lower()}{error.msg[1:]} at line {error.lineno}, column {error.colno}"
    except _Strict as error:
        why = str(error)
    raise Refused(400, "malformed_json", f"The body is no JSON that is accepted: {why}.")


def _members(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _Strict("an object has a member twice")
    return members


def _constant(name: str) -> NoReturn:
    raise _Strict(f"{name} is no number in JSON")


def _integer(digits: str) -> int | float:
    # Python refuses thousands of digits, and takes long over hundreds.
    return int(digits) if len(digits) <= 40 else float("inf")


def _depth(text: str) -> int:
    """How deep *text* nests at most.  Found without recursion, which the parser does not do without."""
    deepest = depth = 0
    quoted = escaped = False
    for sign in text:
        if quoted:
            if escaped:
                escaped = False
            elif sign == "\\":
                escaped = True
            elif sign == '"':
                quoted = False
        elif sign == '"':
            quoted = True
        elif sign in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif sign in "]}":
            depth -= 1
    return deepest
