"""Cohere's API, version 2: chat and embeddings; models.  Pure.

https://docs.cohere.com/reference/chat, …/chat-stream, …/embed, …/list-models.
"""

from __future__ import annotations

from collections.abc import Iterator

from llmproxyd.sandbox.embeddings import dimensions_in, inputs, vector
from llmproxyd.sandbox.openai import read_chat
from llmproxyd.sandbox.reply import Reply, answer, count, request_id
from llmproxyd.sandbox.values import Answer, Ask, Event, Json, Stream, metadata, named_event, whole


def chat(ask: Ask) -> Answer:
    """``POST /v2/chat``; requests have the form of OpenAI's."""
    body = ask.json()
    reply = answer(read_chat(body), ask.content)
    if body.get("stream") is True:
        return Stream(events(reply))
    message: dict[str, object] = {"role": "assistant", "content": [{"type": "text", "text": reply.text}]}
    if reply.call:
        message = {"role": "assistant", "tool_plan": "", "tool_calls": [_call(reply, reply.call.text)]}
    return whole({"id": reply.id, "message": message, **_end(reply)})


def _call(reply: Reply, arguments: str) -> Json:
    assert reply.call is not None
    function = {"name": reply.call.name, "arguments": arguments}
    return {"id": f"call_{reply.id}", "type": "function", "function": function}


def _end(reply: Reply) -> Json:
    counts = {"input_tokens": reply.input_tokens, "output_tokens": reply.output_tokens}
    return {
        "finish_reason": "TOOL_CALL" if reply.call else "COMPLETE",
        "usage": {"billed_units": counts, "tokens": counts},
    }


def _part(kind: str, message: Json, *, token: bool = False) -> Event:
    return named_event({"type": kind, "index": 0, "delta": {"message": message}}, token=token)


def events(reply: Reply) -> Iterator[Event]:
    """The stream from ``message-start`` to ``message-end``."""
    empty = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}
    yield named_event({"type": "message-start", "id": reply.id, "delta": {"message": empty}})
    if reply.call:
        yield _part("tool-call-start", {"tool_calls": _call(reply, "")})
        for part in reply.call.deltas():
            yield _part("tool-call-delta", {"tool_calls": {"function": {"arguments": part}}}, token=True)
        yield named_event({"type": "tool-call-end", "index": 0})
    else:
        yield _part("content-start", {"content": {"type": "text", "text": ""}})
        for piece in reply.pieces:
            yield _part("content-delta", {"content": {"text": piece}}, token=True)
        yield named_event({"type": "content-end", "index": 0})
    yield named_event({"type": "message-end", "delta": _end(reply)})


def embed(ask: Ask) -> Answer:
    """``POST /v2/embed``, vectors as floats."""
    body = ask.json()
    texts = inputs(body.get("texts"))
    dimensions = dimensions_in(body, "output_dimension")
    return whole(
        {
            "id": request_id(ask.content),
            "texts": texts,
            "embeddings": {"float": [vector(text, dimensions) for text in texts]},
            "meta": {
                "api_version": {"version": "2"},
                "billed_units": {"input_tokens": sum(map(count, texts))},
            },
        }
    )


def models(ask: Ask) -> Answer:
    """``GET /v1/models``."""
    return metadata({"models": [_model(name) for name in ask.models]})


def model(ask: Ask) -> Answer:
    """``GET /v1/models/ID``: every model exists."""
    return metadata(_model(ask.named))


def _model(name: str) -> Json:
    return {"name": name, "endpoints": ["chat", "embed"], "finetuned": False, "context_length": 128000}
