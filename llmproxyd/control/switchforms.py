"""What the verbs take that switch something: faults, breakers, purges."""

from __future__ import annotations

from dataclasses import dataclass

from llmproxyd.control.forms import Choice, Form, Schema, Text
from llmproxyd.control.wrong import BAD, Wrong, found

ACTIONS = ("trip", "reset")

COMMAND = Form(
    {"command": Text('a line such as "r 3 retry_after=2" or "n"', r"[^\x00-\x1f\x7f-\x9f]{1,8000}", 8000)},
    required=("command",),
)
BREAKER = Form(
    {
        "name": Text(
            "name of a breaker: of an upstream, or upstream/model", r"[^\x00-\x1f\x7f-\x9f]{1,300}", 300
        ),
        "action": Choice(ACTIONS),
    },
    required=("name", "action"),
)


@dataclass(frozen=True, slots=True)
class _True:
    """``true`` and nothing else: whoever says it means it."""

    accepted: str = "true"

    def schema(self) -> Schema:
        """A constant."""
        return {"type": "boolean", "const": True}

    def read(self, value: object, pointer: str, wrong: list[Wrong]) -> object:
        """``True``."""
        if value is True:
            return True
        wrong.append(Wrong(pointer, found(value), self.accepted))
        return BAD


TRUE = _True()
