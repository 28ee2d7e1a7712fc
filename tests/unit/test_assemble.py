"""A recorded stream reads as the answer that would have come without streaming."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmproxyd.inspection.assemble import LEFT_OVER, assemble
from llmproxyd.sandbox import anthropic, cohere, google, ollama, openai, responses
from llmproxyd.sandbox.reply import Prompt, Reply, answer
from llmproxyd.sandbox.values import Event

TEXT = answer(Prompt("m", "hello, my friend", 3), b"")
EMPTY = replace(TEXT, pieces=())
CALL = answer(Prompt("m", 'get_weather {"place": "Paris"}', 3, frozenset({"get_weather"})), b"")


def joined(events: Iterator[Event]) -> bytes:
    return b"".join(event.data for event in events)


@dataclass(frozen=True)
class Api:
    """One API: its streams and its whole answers by the sandbox."""

    name: str
    form: str
    stream: Callable[[Reply], Iterator[Event]]
    whole: Callable[[Reply], dict]

    def __str__(self) -> str:
        return self.name


def cohere_whole(reply: Reply) -> dict:
    message = {"role": "assistant", "content": [{"type": "text", "text": reply.text}]}
    if reply.call:
        message = {"role": "assistant", "tool_plan": "", "tool_calls": [cohere._call(reply, reply.call.text)]}
    return {"id": reply.id, "message": message, **cohere._end(reply)}


def ollama_whole(reply: Reply) -> dict:
    return {**ollama._head(reply), "message": ollama._message(reply, reply.text), **ollama._end(reply)}


APIS = [
    Api("chat", "chat", lambda reply: openai.chat_events(reply, with_usage=True), openai.chat_body),
    Api(
        "openrouter",
        "chat",
        lambda reply: openai.chat_events(reply, with_usage=True, router=True),
        lambda reply: openai.chat_body(reply, router=True),
    ),
    Api(
        "responses",
        "responses",
        lambda reply: responses.events(reply, {}),
        lambda reply: responses.finished(reply, {}),
    ),
    Api("anthropic", "messages", anthropic.events, anthropic.message),
    Api(
        "gemini",
        "sse",
        google.events,
        lambda reply: google._chunk(reply, google._parts(reply), reply.output_tokens, last=True),
    ),
    Api(
        "gemini-array",
        "array",
        google.elements,
        lambda reply: google._chunk(reply, google._parts(reply), reply.output_tokens, last=True),
    ),
    Api("cohere", "chat", cohere.events, cohere_whole),
    Api("ollama", "lines", ollama.chat_events, ollama_whole),
]


def essence(value: object) -> object:
    """*value* without what streams do not tell, or tell otherwise."""
    if isinstance(value, dict):
        found = {name: essence(member) for name, member in value.items()}
        return {name: member for name, member in found.items() if member not in (None, "", [], {})}
    if isinstance(value, list):
        return [member for member in map(essence, value) if member not in (None, "", [], {})]
    return value


@pytest.mark.parametrize("api", APIS, ids=str)
@pytest.mark.parametrize("reply", [TEXT, CALL], ids=["text", "call"])
@pytest.mark.parametrize("known", [True, False])
def test_stream_reads_as_the_whole_answer(api: Api, reply: Reply, known: bool) -> None:
    found = json.loads(assemble(api.form if known else "?", joined(api.stream(reply))))
    assert essence(found) == essence(json.loads(json.dumps(api.whole(reply))))


def test_completions_and_generations_too() -> None:
    found = json.loads(assemble("completion", joined(openai.completion_events(TEXT))))
    assert found["choices"][0]["text"] == TEXT.text
    assert found["choices"][0]["finish_reason"] == "stop"
    found = json.loads(assemble("lines", joined(ollama.generate_events(TEXT))))
    assert found["response"] == TEXT.text
    assert found["done"] is True


@pytest.mark.parametrize("api", APIS, ids=str)
def test_stream_that_breaks_off_anywhere_shows_what_had_come(api: Api) -> None:
    data = joined(api.stream(TEXT))
    for end in range(0, len(data), 11):
        assemble(api.form, data[:end])
    half = assemble(api.form, data[: data.index(TEXT.pieces[-1].strip().encode())])
    assert TEXT.pieces[0].strip() in half


def sse(*values: object) -> bytes:
    return b"".join(b"data: %b\n\n" % json.dumps(value).encode() for value in values)


def delta(index: int = 0, **members: object) -> dict:
    return {"object": "chat.completion.chunk", "choices": [{"index": index, "delta": members}]}


def test_choices_and_calls_come_in_the_order_of_their_index() -> None:
    call = {"index": 1, "id": "b", "type": "function", "function": {"name": "g", "arguments": '{"x"'}}
    more = {"index": 1, "function": {"arguments": ": 1}"}}
    first = {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    found = json.loads(
        assemble(
            "chat",
            sse(
                delta(10, content="last"),
                delta(0, role="assistant", content=None, tool_calls=[first]),
                delta(2, content="mid"),
                delta(0, tool_calls=[call]),
                delta(0, tool_calls=[more]),
                delta(2, content="dle"),
            ),
        )
    )
    assert [choice["index"] for choice in found["choices"]] == [0, 2, 10]
    assert found["choices"][1]["message"]["content"] == "middle"
    calls = found["choices"][0]["message"]["tool_calls"]
    assert [(one["id"], one["function"]["name"], one["function"]["arguments"]) for one in calls] == [
        ("a", "f", "{}"),
        ("b", "g", '{"x": 1}'),
    ]


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content", "refusal"])
def test_reasoning_is_joined(name: str) -> None:
    found = json.loads(assemble("chat", sse(delta(**{name: "Let me "}), delta(**{name: "see"}))))
    assert found["choices"][0]["message"][name] == "Let me see"


def test_thinking_of_anthropic_and_arguments_that_broke_off() -> None:
    data = sse(
        {"type": "message_start", "message": {"id": "m", "role": "assistant", "usage": {"input_tokens": 5}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Hm"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "s"}},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use", "input": {}}},
        {
            "type": "content_block_delta",
            "index": 1,
            "delta": {"type": "input_json_delta", "partial_json": '{"a": '},
        },
        {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
    )
    found = json.loads(assemble("messages", data))
    assert found["content"][0] == {"type": "thinking", "thinking": "Hm", "signature": "s"}
    assert found["content"][1]["input"] == '{"a": '
    assert found["error"]["message"] == "Overloaded"
    assert found["usage"] == {"input_tokens": 5}


def test_thoughts_of_gemini_stay_apart_from_what_is_said() -> None:
    def chunk(**part: object) -> dict:
        return {"candidates": [{"content": {"role": "model", "parts": [part]}}]}

    data = sse(
        chunk(text="Hm", thought=True), chunk(text="m", thought=True), chunk(text="Yes"), chunk(text=".")
    )
    parts = json.loads(assemble("sse", data))["candidates"][0]["content"]["parts"]
    assert parts == [{"text": "Hmm", "thought": True}, {"text": "Yes."}]


def test_responses_that_broke_off_are_made_of_their_pieces() -> None:
    data = sse(
        {"type": "response.created", "response": {"id": "r", "status": "in_progress", "output": []}},
        {
            "type": "response.output_item.added",
            "output_index": 0,
            "item": {"type": "function_call", "name": "f"},
        },
        {"type": "response.function_call_arguments.delta", "output_index": 0, "delta": '{"a":'},
        {"type": "response.function_call_arguments.delta", "output_index": 0, "delta": "1}"},
        {"type": "response.output_text.delta", "output_index": 1, "delta": "Hel"},
        {"type": "response.output_text.delta", "output_index": 1, "delta": "lo"},
    )
    found = json.loads(assemble("responses", data))
    assert found["id"] == "r"
    assert found["output"] == [
        {"type": "function_call", "name": "f", "arguments": '{"a":1}'},
        {"text": "Hello"},
    ]


def frame(kind: str, payload: dict) -> bytes:
    headers = b""
    for name, value in ((":message-type", "event"), (":event-type", kind)):
        headers += (
            bytes([len(name)]) + name.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
        )
    body = json.dumps(payload).encode()
    return struct.pack(">III", 16 + len(headers) + len(body), len(headers), 0) + headers + body + bytes(4)


def test_bedrock_is_read_from_its_frames() -> None:
    data = frame("messageStart", {"role": "assistant"})
    data += frame("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "Hel"}})
    data += frame("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "lo"}})
    data += frame("messageStop", {"stopReason": "end_turn"}) + frame(
        "metadata", {"usage": {"outputTokens": 2}}
    )
    assert json.loads(assemble("events", data)) == {
        "output": {"message": {"role": "assistant", "content": [{"text": "Hello"}]}},
        "stopReason": "end_turn",
        "usage": {"outputTokens": 2},
    }


def test_cohere_of_the_first_version() -> None:
    lines = [
        {"event_type": "text-generation", "text": "Hel"},
        {"event_type": "text-generation", "text": "lo"},
        {"event_type": "stream-end", "finish_reason": "COMPLETE", "response": {"text": "Hello"}},
    ]
    data = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    assert json.loads(assemble("chat_v1", data)) == {"text": "Hello", "finish_reason": "COMPLETE"}
    assert json.loads(assemble("chat_v1", data[: data.rindex(b'{"event_type"')])) == {"text": "Hello"}


def test_error_in_the_stream_is_kept() -> None:
    found = json.loads(assemble("chat", sse(delta(content="Hi"), {"error": {"message": "gone"}})))
    assert found["error"] == {"message": "gone"}
    assert found["choices"][0]["message"]["content"] == "Hi"
    assert json.loads(assemble("chat", sse({"error": {"message": "gone"}}))) == {"error": {"message": "gone"}}
    assert json.loads(assemble("lines", b'{"error": "gone"}\n')) == {"error": "gone"}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"data: [DONE]\n\n",
        b"<html>",
        b"data: 1\n\n",
        b'data: {"a": 1}\n\n',
        b"[1, 2]",
        b"\xff\xfe",
        b"[" * 5000,
    ],
)
def test_what_is_not_understood_is_shown_as_it_came(data: bytes) -> None:
    assert assemble("chat", data) == data.decode("utf-8", "backslashreplace")


def test_part_that_is_not_understood_is_shown_behind_the_rest() -> None:
    text = assemble("chat", b"data: {broken\n\n" + sse(delta(content="Hi")) + b"data: [DONE]\n\n")
    value, _, rest = text.partition(f"\n\n{LEFT_OVER}\n")
    assert json.loads(value)["choices"][0]["message"]["content"] == "Hi"
    assert rest == "{broken"


NAMES = [
    "type",
    "index",
    "delta",
    "choices",
    "message",
    "content",
    "error",
    "done",
    "candidates",
    "parts",
    "tool_calls",
    "function",
    "arguments",
    "citations",
    "response",
    "usage",
    "text",
    "content_block",
    "contentBlockIndex",
    "output_index",
    "item",
    "stop",
]
KINDS = [
    "message_start",
    "content_block_delta",
    "message-start",
    "content-delta",
    "response.x.delta",
    "error",
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(KINDS) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5),
    max_leaves=12,
)


@settings(deadline=None)
@given(
    st.lists(st.dictionaries(st.sampled_from(NAMES), JSON, max_size=6), max_size=5),
    st.sampled_from(["chat", "lines", "array", "messages"]),
    st.sampled_from(
        [{}, {"choices": []}, *({"type": kind} for kind in KINDS), {"candidates": []}, {"done": 1}]
    ),
)
def test_events_of_any_shape_are_no_failure(values: list[dict], form: str, opening: dict) -> None:
    values = [opening, *values]
    if form == "lines":
        data = b"".join(json.dumps(value).encode() + b"\n" for value in values)
    else:
        data = json.dumps(values).encode() if form == "array" else sse(*values)
    assert isinstance(assemble(form, data), str)


@settings(deadline=None)
@given(st.binary(), st.sampled_from(["chat", "lines", "array", "events", "?"]))
def test_garbage_is_no_failure(data: bytes, form: str) -> None:
    assert isinstance(assemble(form, data), str)


@pytest.mark.parametrize("size", [1, 2**20])
def test_text_of_many_pieces_is_joined_in_time(size: int) -> None:
    pieces = (
        sse(delta(content="a"), delta(tool_calls=[{"index": size, "function": {"arguments": "b"}}])) * 5000
    )
    many = sse(*(delta(tool_calls=[{"index": number}]) for number in range(5000)))
    assert len(json.loads(assemble("chat", pieces))["choices"][0]["message"]["content"]) == 5000
    assert len(json.loads(assemble("chat", many))["choices"][0]["message"]["tool_calls"]) == 5000
