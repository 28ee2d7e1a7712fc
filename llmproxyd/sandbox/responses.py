"""OpenAI's responses API.  Pure.

https://platform.openai.com/docs/api-reference/responses and …/responses-streaming.
"""

from __future__ import annotations

from collections.abc import Iterator

from llmproxyd.sandbox.reply import Prompt, Reply, answer, count, prompt_from, text_of
from llmproxyd.sandbox.values import (
    CREATED,
    Answer,
    Ask,
    Event,
    Json,
    Stream,
    as_list,
    as_text,
    bad_request,
    named_event,
    objects,
    whole,
)


def responses(ask: Ask) -> Answer:
    """``POST …/responses``."""
    body = ask.json()
    reply = answer(read(body, ask.named), ask.content)
    if body.get("stream") is True:
        return Stream(events(reply, body))
    return whole(finished(reply, body))


def read(body: Json, named: str = "") -> Prompt:
    """The prompt of a responses request: ``input`` is a string or a list of items."""
    given = body.get("input")
    model = as_text(body.get("model")) or named
    tools = {as_text(tool.get("name")) for tool in objects(body.get("tools"))}
    if isinstance(given, str):
        tokens = count(given) + count(text_of(body.get("instructions")))
        return Prompt(model, given, tokens, frozenset(tools))
    items = objects(given)
    if not items:
        raise bad_request("Missing required parameter: 'input' must be a string or a non-empty array.")
    return prompt_from(items, model=model, result_of=_result, tools=tools, system=body.get("instructions"))


def _result(item: Json) -> str | None:
    kind = as_text(item.get("type"))
    return (
        text_of(item.get("output")) if kind in ("function_call_output", "custom_tool_call_output") else None
    )


def usage(reply: Reply) -> Json:
    """The usage block of a response."""
    return {
        "input_tokens": reply.input_tokens,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": reply.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": reply.total_tokens,
    }


def _response(reply: Reply, body: Json, status: str, output: list[Json], spent: Json | None) -> Json:
    return {
        "id": f"resp_{reply.id}",
        "object": "response",
        "created_at": CREATED,
        "status": status,
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "model": reply.model,
        "output": output,
        "parallel_tool_calls": body.get("parallel_tool_calls", True),
        "previous_response_id": body.get("previous_response_id"),
        "reasoning": {"effort": None, "summary": None},
        "store": body.get("store", True),
        "temperature": body.get("temperature", 1.0),
        "text": {"format": {"type": "text"}},
        "tool_choice": body.get("tool_choice", "auto"),
        "tools": as_list(body.get("tools")),
        "top_p": body.get("top_p", 1.0),
        "truncation": "disabled",
        "usage": spent,
        "user": None,
        "metadata": body.get("metadata") or {},
    }


def finished(reply: Reply, body: Json) -> Json:
    """The completed ``response`` object."""
    return _response(reply, body, "completed", [_item(reply, done=True)], usage(reply))


def _part(text: str) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _item(reply: Reply, *, done: bool) -> Json:
    """The one output item: a function call or a message."""
    status = "completed" if done else "in_progress"
    if reply.call:
        return {
            "type": "function_call",
            "id": f"fc_{reply.id}",
            "call_id": f"call_{reply.id}",
            "name": reply.call.name,
            "arguments": reply.call.text if done else "",
            "status": status,
        }
    return {
        "type": "message",
        "id": f"msg_{reply.id}",
        "status": status,
        "role": "assistant",
        "content": [_part(reply.text)] if done else [],
    }


def events(reply: Reply, body: Json) -> Iterator[Event]:
    """The stream from ``response.created`` to ``response.completed``, numbered from 0."""
    for number, (kind, members, token) in enumerate(_steps(reply, body)):
        yield named_event({"type": kind, "sequence_number": number, **members}, token=token)


_Step = tuple[str, Json, bool]


def _steps(reply: Reply, body: Json) -> Iterator[_Step]:
    begun = {"response": _response(reply, body, "in_progress", [], None)}
    yield "response.created", begun, False
    yield "response.in_progress", begun, False
    yield "response.output_item.added", {"output_index": 0, "item": _item(reply, done=False)}, False
    yield from _call_steps(reply) if reply.call else _text_steps(reply)
    yield "response.output_item.done", {"output_index": 0, "item": _item(reply, done=True)}, False
    yield "response.completed", {"response": finished(reply, body)}, False


def _text_steps(reply: Reply) -> Iterator[_Step]:
    place = {"item_id": f"msg_{reply.id}", "output_index": 0, "content_index": 0}
    yield "response.content_part.added", {**place, "part": _part("")}, False
    for piece in reply.pieces:
        yield "response.output_text.delta", {**place, "delta": piece, "logprobs": []}, True
    yield "response.output_text.done", {**place, "text": reply.text, "logprobs": []}, False
    yield "response.content_part.done", {**place, "part": _part(reply.text)}, False


def _call_steps(reply: Reply) -> Iterator[_Step]:
    assert reply.call is not None
    place = {"item_id": f"fc_{reply.id}", "output_index": 0}
    for part in reply.call.deltas():
        yield "response.function_call_arguments.delta", {**place, "delta": part}, True
    done = {**place, "name": reply.call.name, "arguments": reply.call.text}
    yield "response.function_call_arguments.done", done, False
