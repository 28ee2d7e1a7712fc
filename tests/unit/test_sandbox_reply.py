"""The sandbox's pure parts: what is said, and that a stream says the same as a whole answer."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmproxyd.sandbox import anthropic, cohere, embeddings, google, ollama, openai, responses
from llmproxyd.sandbox.reply import MAX_ECHO, answer, clip, pieces, prompt_from, text_of
from llmproxyd.sandbox.values import Ask, Event, Stream, Whole, as_object

MESSAGES = st.text(st.characters(), max_size=200)
"""Any text, halves of surrogate pairs included."""


def sse(data: Iterable[Event], end: str = "\n\n") -> list[dict]:
    """The JSON values of server-sent events; their names must be those of the values."""
    text = b"".join(event.data for event in data).decode()
    assert text.endswith(end)
    found = []
    for block in text[: -len(end)].split(end):
        lines = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
        if lines.get("data", "[DONE]") != "[DONE]":
            found.append(json.loads(lines["data"]))
            assert lines.get("event", found[-1].get("type")) == found[-1].get("type")
    return found


def chat_request(text: str, **more: object) -> dict:
    return {"model": "m", "messages": [{"role": "user", "content": text}], **more}


def gemini_request(text: str, **more: object) -> dict:
    return {"contents": [{"role": "user", "parts": [{"text": text}]}], **more}


def ask(body: object, **more: object) -> Ask:
    return Ask("openai", content=json.dumps(body).encode(), **more)  # type: ignore[arg-type]


def chat_deltas(events: Iterable[Event]) -> list[str]:
    return [
        choice["delta"].get("content") or ""
        for value in sse(events)
        for choice in value["choices"]
        if choice["delta"]
    ]


def event_deltas(kind: str, *place: str) -> Callable[[Iterable[Event]], list[str]]:
    def read(events: Iterable[Event]) -> list[str]:
        found = []
        for value in sse(events):
            if value["type"] == kind:
                for key in place:
                    value = value[key]
                found.append(value)
        return found

    return read


def gemini_text(value: dict) -> str:
    return value["candidates"][0]["content"]["parts"][0]["text"]


def lines(events: Iterable[Event]) -> list[dict]:
    return [json.loads(event.data) for event in events]


# dialect: handler, streaming handler, request, its streaming members, text of a whole answer, deltas of a stream
DIALECTS: dict[str, tuple] = {
    "chat": (
        openai.chat,
        openai.chat,
        chat_request,
        {"stream": True, "stream_options": {"include_usage": True}},
        lambda value: value["choices"][0]["message"]["content"],
        chat_deltas,
    ),
    "completions": (
        openai.completions,
        openai.completions,
        lambda text, **more: {"prompt": text, **more},
        {"stream": True},
        lambda value: value["choices"][0]["text"],
        lambda events: [value["choices"][0]["text"] for value in sse(events)],
    ),
    "responses": (
        responses.responses,
        responses.responses,
        lambda text, **more: {"input": text, **more},
        {"stream": True},
        lambda value: value["output"][0]["content"][0]["text"],
        event_deltas("response.output_text.delta", "delta"),
    ),
    "anthropic": (
        anthropic.messages,
        anthropic.messages,
        chat_request,
        {"stream": True},
        lambda value: value["content"][0]["text"],
        event_deltas("content_block_delta", "delta", "text"),
    ),
    "gemini-sse": (
        google.generate,
        lambda asked: google.stream(Ask("google", "m", {"alt": "sse"}, asked.content)),
        gemini_request,
        {},
        gemini_text,
        lambda events: [gemini_text(value) for value in sse(events, "\r\n\r\n")],
    ),
    "gemini-array": (
        google.generate,
        google.stream,
        gemini_request,
        {},
        gemini_text,
        lambda events: [gemini_text(value) for value in json.loads(b"".join(event.data for event in events))],
    ),
    "cohere": (
        cohere.chat,
        cohere.chat,
        chat_request,
        {"stream": True},
        lambda value: value["message"]["content"][0]["text"],
        event_deltas("content-delta", "delta", "message", "content", "text"),
    ),
    "ollama-chat": (
        lambda asked: ollama.chat(ask({**json.loads(asked.content), "stream": False})),
        ollama.chat,
        chat_request,
        {},
        lambda value: value["message"]["content"],
        lambda events: [value["message"]["content"] for value in lines(events)],
    ),
    "ollama-generate": (
        lambda asked: ollama.generate(ask({**json.loads(asked.content), "stream": False})),
        ollama.generate,
        lambda text, **more: {"prompt": text, **more},
        {},
        lambda value: value["response"],
        lambda events: [value["response"] for value in lines(events)],
    ),
}


@given(st.sampled_from(sorted(DIALECTS)), MESSAGES)
@settings(max_examples=500)
def test_the_deltas_of_a_stream_join_to_the_text_of_a_whole_answer(dialect: str, text: str) -> None:
    handler, streaming, request, members, read, deltas = DIALECTS[dialect]
    whole = handler(ask(request(text)))
    assert isinstance(whole, Whole)
    expected = "You said: " + text.encode("utf-8", "replace").decode()
    assert read(json.loads(whole.body)) == expected
    stream = streaming(ask(request(text, **members)))
    assert isinstance(stream, Stream)
    found = [delta for delta in deltas(list(stream.events)) if delta]
    assert "".join(found) == expected
    assert len(found) == len(pieces(expected)) >= 3 - (not text)


@given(st.text())
def test_pieces_join_to_the_text(text: str) -> None:
    assert "".join(pieces(text)) == text


def test_pieces_are_words_with_the_space_before_them() -> None:
    assert pieces("You said: incomprehensible things") == [
        "You",
        " said:",
        " incompre",
        "hensible",
        " things",
    ]


@given(st.text(min_size=1, max_size=9), st.integers(1, 2 * MAX_ECHO))
def test_an_echo_is_clipped_between_characters(text: str, times: int) -> None:
    clipped = clip(text * times)
    assert min(MAX_ECHO, len((text * times).encode())) - 3 <= len(clipped.encode()) <= MAX_ECHO
    assert (text * times).startswith(clipped)


def test_same_request_same_answer() -> None:
    first, second = (openai.chat(ask(chat_request("x"))) for _ in range(2))
    assert first == second
    other = openai.chat(ask(chat_request("y")))
    assert isinstance(first, Whole)
    assert isinstance(other, Whole)
    assert json.loads(first.body)["id"] != json.loads(other.body)["id"]


def test_the_last_user_message_is_echoed_and_all_are_counted() -> None:
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "You said: first"},
        {
            "role": "user",
            "content": [{"type": "text", "text": "second"}, {"type": "image_url", "image_url": {}}],
        },
        {"role": "assistant", "content": "I"},
    ]
    prompt = prompt_from(messages, model="m", result_of=openai.tool_result)
    assert (prompt.text, prompt.result, prompt.tokens) == ("second", False, 2 + 1 + 3 + 1 + 1)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("a", "a"),
        (["a", {"text": "b"}], "a\nb"),
        ({"parts": [{"text": "a"}, {"inlineData": {}}]}, "a"),
        ({"type": "input_text", "text": "a"}, "a"),
        (None, ""),
        (7, ""),
    ],
)
def test_text_of_content(content: object, text: str) -> None:
    assert text_of(content) == text


def _schema(name: str) -> dict:
    return {"name": name, "parameters": {"type": "object"}}


ARGUMENTS = {"city": "Zürich", "days": [1, 2]}
CALL = "call weather " + json.dumps(ARGUMENTS)


def _joined_call(events: list[dict], read: Callable[[dict], str | None]) -> object:
    deltas = [part for part in map(read, events) if part]
    assert len(deltas) >= 2
    return json.loads("".join(deltas))


def test_chat_calls_a_tool() -> None:
    request = chat_request(CALL, tools=[{"type": "function", "function": _schema("weather")}])
    whole = openai.chat(ask(request))
    assert isinstance(whole, Whole)
    choice = json.loads(whole.body)["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert json.loads(choice["message"]["tool_calls"][0]["function"]["arguments"]) == ARGUMENTS
    stream = openai.chat(ask({**request, "stream": True}))
    assert isinstance(stream, Stream)
    values = sse(list(stream.events))
    assert values[0]["choices"][0]["delta"]["tool_calls"][0]["function"]["name"] == "weather"
    assert values[-1]["choices"][0]["finish_reason"] == "tool_calls"

    def arguments(value: dict) -> str | None:
        calls = value["choices"][0]["delta"].get("tool_calls")
        return calls[0]["function"]["arguments"] if calls else None

    assert _joined_call(values, arguments) == ARGUMENTS


def test_responses_calls_a_tool() -> None:
    request = {"input": CALL, "stream": True, "tools": [{"type": "function", **_schema("weather")}]}
    stream = responses.responses(ask(request))
    assert isinstance(stream, Stream)
    values = sse(list(stream.events))
    assert [value["sequence_number"] for value in values] == list(range(len(values)))
    assert _joined_call(values, lambda value: value.get("delta")) == ARGUMENTS
    item = values[-1]["response"]["output"][0]
    assert (item["type"], item["name"], json.loads(item["arguments"])) == (
        "function_call",
        "weather",
        ARGUMENTS,
    )


def test_anthropic_calls_a_tool() -> None:
    request = chat_request(CALL, tools=[{"name": "weather", "input_schema": {}}])
    whole = anthropic.messages(ask(request))
    assert isinstance(whole, Whole)
    message = json.loads(whole.body)
    assert (message["stop_reason"], message["content"][0]["input"]) == ("tool_use", ARGUMENTS)
    stream = anthropic.messages(ask({**request, "stream": True}))
    assert isinstance(stream, Stream)
    values = sse(list(stream.events))
    assert _joined_call(values, lambda value: as_object(value.get("delta")).get("partial_json")) == ARGUMENTS
    assert values[-2]["delta"]["stop_reason"] == "tool_use"


def test_gemini_cohere_and_ollama_call_a_tool() -> None:
    asked = ask(gemini_request(CALL, tools=[{"functionDeclarations": [_schema("weather")]}]))
    whole = google.generate(asked)
    assert isinstance(whole, Whole)
    part = json.loads(whole.body)["candidates"][0]["content"]["parts"][0]
    assert part["functionCall"]["args"] == ARGUMENTS
    request = chat_request(CALL, tools=[{"type": "function", "function": _schema("weather")}], stream=False)
    whole = cohere.chat(ask(request))
    assert isinstance(whole, Whole)
    assert json.loads(whole.body)["finish_reason"] == "TOOL_CALL"
    whole = ollama.chat(ask(request))
    assert isinstance(whole, Whole)
    assert json.loads(whole.body)["message"]["tool_calls"][0]["function"]["arguments"] == ARGUMENTS


@pytest.mark.parametrize(
    "text",
    [
        "call weather {",
        "call weather",
        "call other {}",
        "please call weather {}",
        'call weather {"a": 1e999}',
    ],
)
def test_anything_but_a_call_of_an_offered_tool_is_echoed(text: str) -> None:
    prompt = openai.read_chat(
        chat_request(text, tools=[{"type": "function", "function": _schema("weather")}])
    )
    reply = answer(prompt, b"")
    assert reply.call is None
    assert reply.text == "You said: " + text


RESULT = "Tool result received: sunny"


def test_tool_results_are_acknowledged() -> None:
    user = {"role": "user", "content": CALL}
    chat = openai.read_chat({"messages": [user, {"role": "tool", "tool_call_id": "c", "content": "sunny"}]})
    assert answer(chat, b"").text == RESULT
    block = {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "sunny"}]}
    claude = anthropic.read({"messages": [user, {"role": "user", "content": [block]}]})
    assert answer(claude, b"").text == RESULT
    items = responses.read(
        {"input": [user, {"type": "function_call_output", "call_id": "c", "output": "sunny"}]}
    )
    assert answer(items, b"").text == RESULT
    part = {"functionResponse": {"name": "weather", "response": {"sky": "blue"}}}
    gemini = google.read(gemini_request("x") | {"contents": [{"role": "user", "parts": [part]}]})
    assert answer(gemini, b"").text == 'Tool result received: {"sky":"blue"}'


def test_usage_chunk_only_when_asked_for() -> None:
    reply = answer(openai.read_chat(chat_request("one two")), b"")
    plain = sse(openai.chat_events(reply))
    assert all("usage" not in value for value in plain)
    told = sse(openai.chat_events(reply, with_usage=True))
    assert [value["usage"] for value in told[:-1]] == [None] * (len(told) - 1)
    assert told[-1]["choices"] == []
    assert (told[-1]["usage"]["prompt_tokens"], told[-1]["usage"]["completion_tokens"]) == (2, 4)


def test_anthropic_events_in_order() -> None:
    reply = answer(anthropic.read(chat_request("hi")), b"")
    assert [value["type"] for value in sse(anthropic.events(reply))] == [
        "message_start",
        "content_block_start",
        "ping",
        *["content_block_delta"] * 3,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]


@given(st.text(), st.integers(1, 300))
def test_vectors_have_unit_length(text: str, dimensions: int) -> None:
    found = embeddings.vector(text, dimensions)
    assert len(found) == dimensions
    assert sum(number * number for number in found) == pytest.approx(1, abs=1e-4)


def test_packed_vectors_equal_plain_ones() -> None:
    plain = embeddings.embeddings(ask({"input": ["a", "b"], "dimensions": 3}))
    packed = embeddings.embeddings(ask({"input": ["a", "b"], "dimensions": 3, "encoding_format": "base64"}))
    assert isinstance(plain, Whole)
    assert isinstance(packed, Whole)
    for one, other in zip(json.loads(plain.body)["data"], json.loads(packed.body)["data"], strict=True):
        assert struct.unpack("<3f", base64.b64decode(other["embedding"])) == pytest.approx(one["embedding"])
