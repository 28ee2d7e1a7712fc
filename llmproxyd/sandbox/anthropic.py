"""Anthropic's messages, token counts and models.  Pure.

https://docs.anthropic.com/en/api/messages and …/messages-streaming.
"""

from __future__ import annotations

from collections.abc import Iterator

from llmproxyd.sandbox.reply import Prompt, Reply, answer, prompt_from, text_of
from llmproxyd.sandbox.values import (
    CREATED_TEXT,
    Answer,
    Ask,
    Event,
    Json,
    Stream,
    as_text,
    metadata,
    named_event,
    objects,
    required,
    whole,
)


def messages(ask: Ask) -> Answer:
    """``POST …/messages``."""
    body = ask.json()
    reply = answer(read(body, ask.named), ask.content)
    if body.get("stream") is True:
        return Stream(events(reply))
    return whole(message(reply))


def count_tokens(ask: Ask) -> Answer:
    """``POST …/messages/count_tokens``."""
    return metadata({"input_tokens": read(ask.json(), ask.named).tokens})


def read(body: Json, named: str = "") -> Prompt:
    """The prompt of a messages request."""
    return prompt_from(
        required(body, "messages"),
        model=as_text(body.get("model")) or named,
        result_of=_result,
        tools={as_text(tool.get("name")) for tool in objects(body.get("tools"))},
        system=body.get("system"),
    )


def _result(message: Json) -> str | None:
    blocks = [block for block in objects(message.get("content")) if block.get("type") == "tool_result"]
    return "\n".join(text_of(block.get("content")) for block in blocks) if blocks else None


def _usage(reply: Reply, output: int) -> Json:
    return {
        "input_tokens": reply.input_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": output,
    }


def message(reply: Reply) -> Json:
    """A whole ``message``."""
    block: Json = {"type": "text", "text": reply.text}
    if reply.call:
        block = {**_tool_use(reply), "input": reply.call.value}
    return {**_head(reply), "content": [block], **_stop(reply), "usage": _usage(reply, reply.output_tokens)}


def _head(reply: Reply) -> Json:
    return {"id": f"msg_{reply.id}", "type": "message", "role": "assistant", "model": reply.model}


def _stop(reply: Reply) -> Json:
    return {"stop_reason": "tool_use" if reply.call else "end_turn", "stop_sequence": None}


def _tool_use(reply: Reply) -> Json:
    assert reply.call is not None
    return {"type": "tool_use", "id": f"toolu_{reply.id}", "name": reply.call.name, "input": {}}


def events(reply: Reply) -> Iterator[Event]:
    """The stream from ``message_start`` to ``message_stop``."""
    begun: Json = {"content": [], "stop_reason": None, "stop_sequence": None, "usage": _usage(reply, 1)}
    yield named_event({"type": "message_start", "message": {**_head(reply), **begun}})
    block: Json = _tool_use(reply) if reply.call else {"type": "text", "text": ""}
    yield named_event({"type": "content_block_start", "index": 0, "content_block": block})
    yield named_event({"type": "ping"})
    if reply.call:
        # The first delta of a tool's input is always empty.
        for part in ("", *reply.call.deltas()):
            delta = {"type": "input_json_delta", "partial_json": part}
            yield named_event({"type": "content_block_delta", "index": 0, "delta": delta}, token=bool(part))
    else:
        for piece in reply.pieces:
            delta = {"type": "text_delta", "text": piece}
            yield named_event({"type": "content_block_delta", "index": 0, "delta": delta}, token=True)
    yield named_event({"type": "content_block_stop", "index": 0})
    spent = _usage(reply, reply.output_tokens)
    yield named_event({"type": "message_delta", "delta": _stop(reply), "usage": spent})
    yield named_event({"type": "message_stop"})


def models(ask: Ask) -> Answer:
    """``GET …/models``, always one page."""
    data = [_model(name) for name in ask.models]
    return metadata({"data": data, "has_more": False, "first_id": ask.models[0], "last_id": ask.models[-1]})


def model(ask: Ask) -> Answer:
    """``GET …/models/ID``: every model exists."""
    return metadata(_model(ask.named))


def _model(name: str) -> Json:
    return {"type": "model", "id": name, "display_name": name, "created_at": CREATED_TEXT}
