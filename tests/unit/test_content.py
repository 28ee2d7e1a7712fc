"""Which event of a stream is the first content, and when nothing can be told."""

from __future__ import annotations

import base64
import gzip
import json
import struct
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmproxyd.http.framing import Framing
from llmproxyd.inspection.content import CONTENT, StreamWatch, Trouble
from llmproxyd.inspection.inflate import Inflater, inflater
from llmproxyd.providers import anthropic, bedrock, cohere, google, interactions, llamacpp, ollama, openai
from llmproxyd.providers.base import StreamForm, encode
from llmproxyd.providers.registry import registry
from llmproxyd.sandbox import anthropic as sandbox_anthropic
from llmproxyd.sandbox import cohere as sandbox_cohere
from llmproxyd.sandbox import google as sandbox_google
from llmproxyd.sandbox import ollama as sandbox_ollama
from llmproxyd.sandbox import openai as sandbox_openai
from llmproxyd.sandbox import responses as sandbox_responses
from llmproxyd.sandbox.reply import answer, prompt_from
from llmproxyd.sandbox.values import Event

FORMS = {
    form.name: form
    for provider in registry().values()
    for endpoint in provider.endpoints
    for form in endpoint.forms
}


def watch(form: StreamForm, coding: bytes = b"") -> StreamWatch:
    return StreamWatch(form, inflater(coding))


def framed(form: StreamForm, name: str, value: object) -> bytes:
    """One event of *form*, as it stands on the wire."""
    data = value if isinstance(value, bytes) else encode(value)
    if form.framing is Framing.NDJSON:
        return data + b"\n"
    if form.framing is Framing.JSON_ARRAY:
        return b"[" + data
    if form.framing is Framing.EVENT_STREAM:
        kind = b"exception" if name.startswith("exception:") else b"event"
        parts = [(b":message-type", kind), (b":" + kind + b"-type", name.removeprefix("exception:").encode())]
        block = b"".join(
            bytes((len(key),)) + key + b"\x07" + struct.pack(">H", len(text)) + text for key, text in parts
        )
        return struct.pack(">III", len(block) + len(data) + 16, len(block), 0) + block + data + b"\0\0\0\0"
    return (f"event: {name}\n".encode() if name else b"") + b"data: " + data + b"\n\n"


def choice(**members: object) -> dict[str, object]:
    return {"object": "chat.completion.chunk", "choices": [{"index": 0, "finish_reason": None, **members}]}


def delta(**members: object) -> dict[str, object]:
    return choice(delta=members)


def invoked(value: object) -> dict[str, object]:
    return {"bytes": base64.b64encode(encode(value)).decode(), "p": "abcd"}


def part(**members: object) -> dict[str, object]:
    return {"candidates": [{"content": {"role": "model", "parts": [members]}, "index": 0}]}


CHAT, RESPONSES, MESSAGES = openai.CHAT_STREAM, openai.RESPONSES_STREAM, anthropic.STREAM
GEMINI, ARRAY, TALK = google.SSE_STREAM, google.ARRAY_STREAM, interactions.STREAM
COHERE, COHERE_V1, LINES = cohere.STREAM, cohere.STREAM_V1, ollama.STREAM
NATIVE, BEDROCK = llamacpp.NATIVE_STREAM, bedrock.STREAM

CONTENTS: list[tuple[StreamForm, str, object]] = [
    (CHAT, "", delta(content="Hi")),
    (CHAT, "", delta(content=" ")),
    (CHAT, "", delta(content=None, reasoning_content="hm")),
    (CHAT, "", delta(content="", reasoning="hm")),
    (CHAT, "", delta(content="", reasoning_details=[{"type": "reasoning.text", "text": "hm", "format": "x"}])),
    (CHAT, "", delta(content=[{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}])),
    (CHAT, "", delta(refusal="No")),
    (CHAT, "", delta(role="assistant", content=None, tool_calls=[{"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}])),
    (CHAT, "", delta(tool_calls=[{"index": 0, "function": {"arguments": "{"}}])),
    (CHAT, "", delta(function_call={"name": "f", "arguments": ""})),
    (CHAT, "", delta(audio={"id": "a", "data": "AAAA"})),
    (CHAT, "", delta(images=[{"type": "image_url", "image_url": {"url": "data:"}}])),
    (CHAT, "", choice(delta={}, finish_reason="stop")),
    (CHAT, "", choice(delta={"content": ""}, finish_reason="content_filter")),
    (CHAT, "", {"choices": [{"index": 0, "delta": {}}, {"index": 1, "delta": {"content": "Hi"}}]}),
    (CHAT, "", choice(text="Hi")),
    (CHAT, "", choice(message={"role": "assistant", "content": "Hi"})),
    (RESPONSES, "response.output_text.delta", {"type": "response.output_text.delta", "delta": "Hi"}),
    (RESPONSES, "", {"type": "response.output_text.delta", "delta": "Hi"}),
    (RESPONSES, "response.output_text.delta", {"delta": "Hi"}),
    (RESPONSES, "", {"type": "response.refusal.delta", "delta": "No"}),
    (RESPONSES, "", {"type": "response.reasoning_summary_text.delta", "delta": "hm"}),
    (RESPONSES, "", {"type": "response.function_call_arguments.delta", "delta": "{"}),
    (RESPONSES, "", {"type": "response.function_call_arguments.done", "arguments": "{}"}),
    (RESPONSES, "", {"type": "response.image_generation_call.partial_image", "partial_image_b64": "AAAA"}),
    (RESPONSES, "", {"type": "response.output_item.done", "item": {"type": "message"}}),
    (RESPONSES, "", {"type": "response.completed", "response": {"status": "completed", "error": None}}),
    (RESPONSES, "", {"type": "response.incomplete", "response": {"status": "incomplete"}}),
    (MESSAGES, "content_block_delta", {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}}),
    (MESSAGES, "", {"type": "content_block_delta", "delta": {"type": "thinking_delta", "thinking": "hm"}}),
    (MESSAGES, "", {"type": "content_block_delta", "delta": {"type": "input_json_delta", "partial_json": "{"}}),
    (MESSAGES, "", {"type": "content_block_start", "content_block": {"type": "tool_use", "id": "t", "name": "f", "input": {}}}),
    (MESSAGES, "", {"type": "content_block_start", "content_block": {"type": "redacted_thinking", "data": "x"}}),
    (MESSAGES, "", {"type": "message_delta", "delta": {"stop_reason": "refusal"}, "usage": {"output_tokens": 1}}),
    (MESSAGES, "completion", {"type": "completion", "completion": " Hi", "stop_reason": None}),
    *(
        (form, "", value)
        for form in (GEMINI, ARRAY)
        for value in (
            part(text="Hi"),
            part(text="hm", thought=True),
            part(functionCall={"name": "f", "args": {}}),
            part(inlineData={"mimeType": "image/png", "data": "AAAA"}),
            {"candidates": [{"finishReason": "SAFETY", "index": 0}]},
            {"promptFeedback": {"blockReason": "OTHER"}},
        )
    ),
    (TALK, "content.delta", {"event_type": "content.delta", "index": 0, "delta": {"type": "text", "text": "Hi"}}),
    (TALK, "", {"event_type": "step.delta", "delta": {"type": "thought", "text": "hm"}}),
    (TALK, "", {"event_type": "interaction.completed", "interaction": {"status": "completed"}}),
    (COHERE, "content-delta", {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": "Hi"}}}}),
    (COHERE, "", {"type": "tool-plan-delta", "delta": {"message": {"tool_plan": "I will"}}}),
    (COHERE, "", {"type": "tool-call-start", "delta": {"message": {"tool_calls": {"id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}}}}),
    (COHERE, "", {"type": "message-end", "delta": {"finish_reason": "COMPLETE"}}),
    (COHERE_V1, "", {"event_type": "text-generation", "text": "Hi", "is_finished": False}),
    (COHERE_V1, "", {"event_type": "tool-calls-chunk", "tool_call_delta": {}}),
    (COHERE_V1, "", {"event_type": "stream-end", "finish_reason": "COMPLETE"}),
    (LINES, "", {"model": "m", "message": {"role": "assistant", "content": "Hi"}, "done": False}),
    (LINES, "", {"message": {"role": "assistant", "content": "", "thinking": "hm"}, "done": False}),
    (LINES, "", {"message": {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}, "done": False}),
    (LINES, "", {"response": "Hi", "done": False}),
    (LINES, "", {"response": "", "done": True, "done_reason": "stop"}),
    (ollama.PROGRESS, "", {"status": "pulling manifest"}),
    (NATIVE, "", {"content": "Hi", "stop": False}),
    (NATIVE, "", {"content": "", "stop": True, "stop_type": "limit"}),
    (BEDROCK, "contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "Hi"}, "p": "abc"}),
    (BEDROCK, "contentBlockDelta", {"delta": {"toolUse": {"input": "{"}}}),
    (BEDROCK, "contentBlockDelta", {"delta": {"reasoningContent": {"text": "hm"}}}),
    (BEDROCK, "contentBlockStart", {"start": {"toolUse": {"toolUseId": "t", "name": "f"}}}),
    (BEDROCK, "messageStop", {"stopReason": "end_turn"}),
    (BEDROCK, "chunk", invoked({"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Hi"}})),
    (BEDROCK, "chunk", invoked({"contentBlockDelta": {"delta": {"text": "Hi"}}})),
    (BEDROCK, "chunk", invoked(delta(content="Hi"))),
    (BEDROCK, "chunk", invoked({"outputText": "Hi"})),
    (BEDROCK, "chunk", invoked({"generation": "", "stop_reason": None})),
    (BEDROCK, "chunk", {"bytes": "!"}),
    (BEDROCK, "chunk", invoked([])),
]  # fmt: skip

SILENCES: list[tuple[StreamForm, str, object]] = [
    (CHAT, "", delta(role="assistant", content="", refusal=None)),
    (CHAT, "", delta(role="assistant")),
    (CHAT, "", delta(role="assistant", content=None, tool_calls=[])),
    (CHAT, "", delta(tool_calls=[{"index": 0, "id": "c", "type": "function", "function": {"name": "", "arguments": ""}}])),
    (CHAT, "", delta(content=[{"type": "text", "text": ""}])),
    (CHAT, "", choice(text="")),
    (CHAT, "", choice(delta=None)),
    (CHAT, "", {"choices": [], "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": {"hate": {"severity": "safe"}}}]}),
    (CHAT, "", {"choices": [], "usage": {"prompt_tokens": 3}}),
    (CHAT, "", {"id": "x", "choices": None, "error": None}),
    (CHAT, "", {}),
    (CHAT, "ping", {}),
    (CHAT, "", b"null"),
    (RESPONSES, "response.created", {"type": "response.created", "response": {"status": "in_progress", "error": None, "instructions": "Be kind"}}),
    (RESPONSES, "", {"type": "response.in_progress", "response": {"error": None}}),
    (RESPONSES, "", {"type": "response.queued", "response": {}}),
    (RESPONSES, "", {"type": "response.output_item.added", "item": {"type": "message", "content": []}}),
    (RESPONSES, "", {"type": "response.output_item.added", "item": {"type": "function_call", "name": "f", "arguments": ""}}),
    (RESPONSES, "", {"type": "response.content_part.added", "part": {"type": "output_text", "text": ""}}),
    (RESPONSES, "", {"type": "response.web_search_call.searching"}),
    (RESPONSES, "", {"type": "response.output_text.delta", "delta": ""}),
    (MESSAGES, "message_start", {"type": "message_start", "message": {"id": "m", "content": [], "stop_reason": None, "usage": {"input_tokens": 3}}}),
    (MESSAGES, "ping", {"type": "ping"}),
    (MESSAGES, "", {"type": "content_block_start", "content_block": {"type": "text", "text": ""}}),
    (MESSAGES, "", {"type": "content_block_start", "content_block": {"type": "thinking", "thinking": "", "signature": ""}}),
    (MESSAGES, "", {"type": "content_block_delta", "delta": {"type": "input_json_delta", "partial_json": ""}}),
    (MESSAGES, "", {"type": "content_block_stop", "index": 0}),
    (MESSAGES, "", {"type": "message_delta", "delta": {"stop_reason": None}}),
    (MESSAGES, "", {"type": "message_stop"}),
    (GEMINI, "", part(text="")),
    (GEMINI, "", {"usageMetadata": {"promptTokenCount": 3}, "modelVersion": "m"}),
    (ARRAY, "", {"candidates": [{"content": {"role": "model"}, "index": 0}]}),
    (TALK, "", {"event_type": "interaction.created", "interaction": {"id": "i", "status": "in_progress"}}),
    (TALK, "", {"event_type": "interaction.start", "interaction": {"id": "i"}}),
    (TALK, "", {"event_type": "content.start", "index": 0, "content": {"type": "text"}}),
    (TALK, "", {"event_type": "content.stop"}),
    (COHERE, "message-start", {"type": "message-start", "id": "m", "delta": {"message": {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}}}),
    (COHERE, "", {"type": "content-start", "index": 0, "delta": {"message": {"content": {"type": "text", "text": ""}}}}),
    (COHERE_V1, "", {"event_type": "stream-start", "generation_id": "g", "is_finished": False}),
    (COHERE_V1, "", {"event_type": "text-generation", "text": ""}),
    (LINES, "", {"model": "m", "message": {"role": "assistant", "content": ""}, "done": False}),
    (LINES, "", {"response": "", "done": False}),
    (NATIVE, "", {"content": "", "stop": False}),
    (BEDROCK, "messageStart", {"role": "assistant", "p": "abcdef"}),
    (BEDROCK, "contentBlockStart", {"start": {}, "contentBlockIndex": 0}),
    (BEDROCK, "contentBlockDelta", {"delta": {"text": ""}}),
    (BEDROCK, "contentBlockStop", {"contentBlockIndex": 0}),
    (BEDROCK, "metadata", {"usage": {"inputTokens": 3}}),
    (BEDROCK, "chunk", invoked({"type": "message_start", "message": {"content": []}})),
    (BEDROCK, "chunk", invoked({"messageStart": {"role": "assistant"}})),
    (BEDROCK, "chunk", invoked(delta(role="assistant"))),
]  # fmt: skip


def ids(cases: list[tuple[StreamForm, str, object]]) -> list[str]:
    return [f"{number}-{form.name}-{name}" for number, (form, name, _) in enumerate(cases)]


@pytest.mark.parametrize(("form", "name", "value"), CONTENTS, ids=ids(CONTENTS))
def test_content_is_known_with_the_last_byte_of_its_event(form: StreamForm, name: str, value: object) -> None:
    data = framed(form, name, value)
    assert watch(form).feed(data) is CONTENT
    slow = watch(form)
    signs = [slow.feed(data[at : at + 1]) for at in range(len(data))]
    assert [sign for sign in signs if sign] == [CONTENT]
    assert not slow.empty
    assert not slow.blind


@pytest.mark.parametrize(("form", "name", "value"), SILENCES, ids=ids(SILENCES))
def test_what_says_nothing_is_no_content(form: StreamForm, name: str, value: object) -> None:
    one = watch(form)
    assert one.feed(framed(form, name, value)) is None
    assert one.end() is None
    assert one.empty
    assert not one.blind


def test_every_form_knows_its_content_and_silence() -> None:
    known = {form.name for form, _, _ in CONTENTS}
    assert set(FORMS) == known
    assert {form.name for form, _, _ in SILENCES} == known - {"progress"}, "of a transfer every line is news"


PROMPTS = [
    prompt_from([{"role": "user", "content": "Hello there"}], model="m", result_of=lambda _: None),
    prompt_from(
        [{"role": "user", "content": 'call f {"a": "bcdefghijk"}'}],
        model="m",
        result_of=lambda _: None,
        tools=("f",),
    ),
]


def _responses(reply: object) -> object:
    return sandbox_responses.events(reply, {})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("form", "events"),
    [
        (CHAT, sandbox_openai.chat_events),
        (CHAT, sandbox_openai.completion_events),
        (RESPONSES, _responses),
        (MESSAGES, sandbox_anthropic.events),
        (GEMINI, sandbox_google.events),
        (ARRAY, sandbox_google.elements),
        (COHERE, sandbox_cohere.events),
        (LINES, sandbox_ollama.chat_events),
    ],
)
@pytest.mark.parametrize("prompt", PROMPTS, ids=["text", "call"])
def test_whole_streams_open_with_their_first_token_and_finish(
    form: StreamForm, events: Callable[[object], list[Event]], prompt: object
) -> None:
    one = watch(form)
    first = None
    for event in events(answer(prompt, b"seed")):  # type: ignore[arg-type]
        sign = one.feed(event.data)
        assert not isinstance(sign, Trouble)
        if first is None and sign is CONTENT:
            first = event
    assert first is not None
    # The name of a call comes in an event of its own, before the first token of its arguments.
    assert first.token or b'"f"' in first.data or events is sandbox_openai.completion_events
    assert one.finished
    assert not one.empty
    assert not one.blind


@pytest.mark.parametrize(
    ("form", "stream", "finished"),
    [
        (CHAT, b"data: [DONE]\n\n", True),
        (CHAT, b"data: [DONE]", True),
        (CHAT, framed(CHAT, "", delta(content="Hi")), False),
        (CHAT, framed(CHAT, "", choice(delta={}, finish_reason="stop")), True),
        (MESSAGES, framed(MESSAGES, "message_stop", {"type": "message_stop"}), True),
        (MESSAGES, framed(MESSAGES, "ping", {"type": "ping"}), False),
        (RESPONSES, framed(RESPONSES, "", {"type": "response.incomplete", "response": {}}), True),
        (GEMINI, framed(GEMINI, "", {"candidates": [{"finishReason": "STOP"}]}), True),
        (GEMINI, framed(GEMINI, "", part(text="Hi")), False),
        (BEDROCK, framed(BEDROCK, "metadata", {}), True),
        (LINES, b'{"done":false,"total_duration":0}\n', False),
        (LINES, b'{"done":true,"done_reason":"stop"}', True),
    ],
)
def test_a_stream_says_when_it_is_complete(form: StreamForm, stream: bytes, finished: bool) -> None:
    one = watch(form)
    one.feed(stream)
    one.end()
    assert one.finished is finished


def test_a_terminator_alone_leaves_a_stream_empty() -> None:
    one = watch(CHAT)
    assert one.feed(b": keep-alive\n\ndata: [DONE]\n\n") is None
    assert one.finished
    assert one.empty


HELLO = framed(CHAT, "", delta(role="assistant")) + framed(CHAT, "", delta(content="Hi"))


@pytest.mark.parametrize(("coding", "pack"), [(b"gzip", gzip.compress), (b"deflate", zlib.compress)])
def test_coded_streams_are_read(coding: bytes, pack: Callable[[bytes], bytes]) -> None:
    one, data = watch(CHAT, coding), pack(HELLO)
    assert [sign for at in range(len(data)) if (sign := one.feed(data[at : at + 1]))] == [CONTENT]
    assert not one.blind


@pytest.mark.parametrize(
    ("one", "data"),
    [
        (watch(CHAT, b"br"), b"x"),
        (watch(CHAT, b"gzip"), HELLO),
        (StreamWatch(CHAT, Inflater(b"", 10)), HELLO),
        (StreamWatch(CHAT, Inflater(b""), limit=20), HELLO),
        (watch(BEDROCK), b"these bytes are no frames"),
    ],
    ids=["unknown coding", "not coded", "too much", "event too large", "no frames"],
)
def test_what_cannot_be_read_makes_blind(one: StreamWatch, data: bytes) -> None:
    assert one.feed(data) is None
    assert one.blind
    assert one.end() is None


@pytest.mark.parametrize("data", [b"hello", b'{"cut', b"1", b'"text"', b"[1]"])
def test_an_event_that_is_no_object_is_content_for_all_that_is_known(data: bytes) -> None:
    assert watch(CHAT).feed(b"data: " + data + b"\n\n") is CONTENT


def test_a_signal_comes_first_and_the_rest_of_the_piece_is_read_on() -> None:
    one = watch(CHAT)
    error = framed(CHAT, "", {"error": {"message": "m"}})
    assert one.feed(HELLO + error + b"data: [DONE]\n\n") is CONTENT
    assert one.finished
    assert isinstance(one.feed(error + HELLO), Trouble)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "choices",
                    "delta",
                    "error",
                    "type",
                    "event_type",
                    "object",
                    "response",
                    "status",
                    "item",
                    "content_block",
                    "candidates",
                    "content",
                    "parts",
                    "promptFeedback",
                    "message",
                    "finish_reason",
                    "interaction",
                    "done",
                    "bytes",
                    "start",
                    "text",
                    "code",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=15,
)


@given(
    JSON,
    st.sampled_from(sorted(FORMS)),
    st.sampled_from(["", "error", "chunk", "exception:x", "response.failed", "contentBlockDelta"]),
)
@settings(max_examples=500)
def test_any_json_is_judged_without_raising(value: object, form: str, name: str) -> None:
    one = watch(FORMS[form])
    text = json.dumps(value).encode()
    one.feed(framed(FORMS[form], name, text))
    one.end()
    if form == "events":
        watch(BEDROCK).feed(framed(BEDROCK, "chunk", invoked(value)))


@pytest.mark.parametrize("form", sorted(FORMS))
def test_what_is_nested_too_deeply_to_be_parsed_does_not_raise(form: str) -> None:
    for deep in (
        b'{"choices":' + b"[" * 30_000,
        b'{"delta":' * 6_000 + b"1" + b"}" * 6_000,
        b"[" * 900 + b"]" * 900,
    ):
        for name in ("", "chunk", "contentBlockDelta"):
            one = watch(FORMS[form])
            one.feed(framed(FORMS[form], name, deep))
            one.end()
    inner: object = "x"
    for _ in range(300):
        inner = {"a": [inner]}
    one = watch(FORMS[form])
    one.feed(
        framed(
            FORMS[form], "", {"choices": [{"delta": inner}], "candidates": [{"content": {"parts": [inner]}}]}
        )
    )


@given(st.binary(max_size=150), st.sampled_from(sorted(FORMS)), st.sampled_from([b"", b"gzip", b"deflate"]))
def test_garbage_never_raises(data: bytes, form: str, coding: bytes) -> None:
    one = watch(FORMS[form], coding)
    for at in range(0, len(data), 7):
        one.feed(data[at : at + 7])
    one.end()
