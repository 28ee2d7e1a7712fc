"""Google's interactions: how they stream, and where they tell what was used."""

from __future__ import annotations

from collections.abc import Mapping

from llmproxyd.providers.base import SSE, Framing, StreamForm, Usage, data_event
from llmproxyd.providers.events import JsonObject, error_event, first_arguments, kind_of, member, says


def _error(value: Mapping[str, object]) -> bytes:
    return b"event: error\n" + data_event({"event_type": "error", "error": value.get("error", value)})


def _said(_name: str, value: JsonObject) -> object:
    return [value.get(key) for key in ("delta", "content", "step")]


def _tool(_name: str, value: JsonObject) -> str:
    """The arguments of a call: whole, or as texts in pieces."""
    places = [member(value, key) for key in ("delta", "content", "step")]
    return first_arguments(*(place.get("arguments") for place in places))


def _empty(name: str, value: JsonObject) -> JsonObject | None:
    """Everything but what tells of the interaction as a whole is left out; it ends without outputs."""
    kind = kind_of(name, value)
    ended = member(value, "interaction")
    if ended.get("outputs"):
        return {**value, "interaction": {**ended, "outputs": []}}
    return value if kind == "error" or kind.startswith("interaction.") else None


def _content(name: str, value: JsonObject) -> bool:
    """A delta, content that does not start empty, or the end."""
    kind = kind_of(name, value)
    if kind.endswith((".delta", ".start")) and not kind.startswith("interaction."):
        return says([value.get(key) for key in ("delta", "content", "step")])
    return kind in STREAM.final


def _failure(name: str, value: JsonObject) -> JsonObject | None:
    """The event ``error``, or an interaction that ends with the status ``failed``."""
    ended = member(value, "interaction")
    if ended.get("status") == "failed":
        return member(ended, "error") or {"message": "The interaction failed.", "code": "internal"}
    return error_event(name, value)


STREAM = StreamForm(
    "interactions",
    Framing.SSE,
    SSE,
    _error,
    final=("interaction.completed",),
    content=_content,
    failure=_failure,
    said=_said,
    tool=_tool,
    empty=_empty,
)

USAGE = Usage(
    model=("model",),
    tokens={
        "input": ("usage", "total_input_tokens"),
        "output": ("usage", "total_output_tokens"),
        "total": ("usage", "total_tokens"),
        "cached": ("usage", "total_cached_tokens"),
        "reasoning": ("usage", "total_thought_tokens"),
        "tools": ("usage", "total_tool_use_tokens"),
    },
    roots=((), ("interaction",)),
    finish=(("status",),),
    apart={"input": ("tools",), "output": ("reasoning",)},
)
