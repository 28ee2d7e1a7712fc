"""What answers tell of model, tokens and end: every provider's body and stream form, as on the wire."""

from __future__ import annotations

import base64
import gzip
import json
import struct
import zlib
from dataclasses import dataclass, replace

import pytest

from llmproxyd.inspection.usage import UsageReader
from llmproxyd.model import Reading
from llmproxyd.providers.base import Endpoint, StreamForm, Streams, Usage, encode
from llmproxyd.providers.registry import registry
from llmproxyd.sandbox import anthropic as sandbox_anthropic
from llmproxyd.sandbox import cohere as sandbox_cohere
from llmproxyd.sandbox import google as sandbox_google
from llmproxyd.sandbox import ollama as sandbox_ollama
from llmproxyd.sandbox import openai as sandbox_openai
from llmproxyd.sandbox import responses as sandbox_responses
from llmproxyd.sandbox.reply import Reply
from llmproxyd.sandbox.values import Event

LIMIT = 1024 * 1024
KNOWN = registry()
REPLY = Reply("0123456789abcdef01234567", "model-a", ("You", " said:", " Hi"), None, 11, 3)


@dataclass(frozen=True)
class Sample:
    """One answer as it passes, and what is to be read of it."""

    name: str
    provider: str
    path: bytes
    body: bytes
    tokens: dict[str, int]
    model: str | None
    finish: str | None
    media: bytes = b"application/json"
    cost: float | None = None
    failed: bool = False
    complete: bool = True

    @property
    def endpoint(self) -> Endpoint:
        found = KNOWN[self.provider].endpoint(b"POST", self.path)
        assert found is not None
        return found

    @property
    def form(self) -> StreamForm | None:
        endpoint = self.endpoint
        return None if endpoint.streams is Streams.NEVER else endpoint.form_of(self.media)

    @property
    def usage(self) -> Usage:
        usage = self.endpoint.usage
        assert usage is not None
        return usage

    @property
    def expected(self) -> Reading:
        return Reading(
            model=self.model, tokens=self.tokens, finish=self.finish, cost=self.cost, failed=self.failed
        )

    def reader(self, coding: bytes = b"", limit: int = LIMIT) -> UsageReader:
        return UsageReader(self.usage, self.form, coding, limit=limit)


SSE, NDJSON = b"text/event-stream", b"application/x-ndjson"


def joined(events: object) -> bytes:
    return b"".join(event.data for event in events if isinstance(event, Event))  # type: ignore[attr-defined]


def sse(*values: object, names: bool = False, end: bytes = b"\n\n") -> bytes:
    """Server-sent events; with *names* each bears that of its type."""
    parts = []
    for value in values:
        data = value if isinstance(value, bytes) else encode(value)
        name = b"event: " + str(value["type"]).encode() + b"\n" if names and isinstance(value, dict) else b""
        parts.append(name + b"data: " + data + end)
    return b"".join(parts)


def lines(*values: object) -> bytes:
    return b"".join(encode(value) + b"\n" for value in values)


def frame(name: str, value: object, kind: bytes = b"event") -> bytes:
    """One of AWS's, without checksums, which nobody here looks at."""
    data = encode(value)
    parts = [(b":message-type", kind), (b":" + kind + b"-type", name.encode())]
    block = b"".join(
        bytes((len(key),)) + key + b"\x07" + struct.pack(">H", len(text)) + text for key, text in parts
    )
    return struct.pack(">III", len(block) + len(data) + 16, len(block), 0) + block + data + b"\0\0\0\0"


def chunk(content: str | None, finish: str | None = None, **members: object) -> dict[str, object]:
    choice = {"index": 0, "delta": {} if content is None else {"content": content}, "finish_reason": finish}
    return {
        "id": "c",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "gpt-4o-2024-08-06",
        "choices": [choice],
        **members,
    }


DONE = b"[DONE]"
ASKED = {"stream": True}
CHAT = {"input": 11, "output": 3, "total": 14}
CHAT_TOLD = {**CHAT, "cached": 0, "reasoning": 0}
RESPONSES_TOLD = {**CHAT_TOLD, "written": 0}

DETAILED = {
    "prompt_tokens": 2006,
    "completion_tokens": 300,
    "total_tokens": 2306,
    "prompt_tokens_details": {"cached_tokens": 1920, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 192, "accepted_prediction_tokens": 0},
}
DETAILED_TOLD = {"input": 2006, "output": 300, "total": 2306, "cached": 1920, "reasoning": 192}

CLAUDE_START = {
    "type": "message_start",
    "message": {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-5-20250929",
        "content": [],
        "stop_reason": None,
        "usage": {
            "input_tokens": 25,
            "cache_creation_input_tokens": 100,
            "cache_read_input_tokens": 1000,
            "output_tokens": 1,
        },
    },
}
CLAUDE_TEXT = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}}
CLAUDE_END = {
    "type": "message_delta",
    "delta": {"stop_reason": "end_turn", "stop_sequence": None},
    "usage": {"output_tokens": 15},
}
CLAUDE_TOLD = {"input": 1125, "output": 15, "cached": 1000, "written": 100}

GEMINI_LAST = {
    "candidates": [
        {"content": {"parts": [{"text": "!"}], "role": "model"}, "finishReason": "STOP", "index": 0}
    ],
    "usageMetadata": {
        "promptTokenCount": 100,
        "cachedContentTokenCount": 60,
        "candidatesTokenCount": 20,
        "thoughtsTokenCount": 30,
        "toolUsePromptTokenCount": 5,
        "totalTokenCount": 155,
    },
    "modelVersion": "gemini-2.5-pro",
}
GEMINI_FIRST = {
    "candidates": [{"content": {"parts": [{"text": "Hi"}], "role": "model"}, "index": 0}],
    "usageMetadata": {"promptTokenCount": 100, "totalTokenCount": 100},
    "modelVersion": "gemini-2.5-pro",
}
GEMINI_TOLD = {"input": 105, "output": 50, "total": 155, "cached": 60, "reasoning": 30, "tools": 5}

CONVERSE_USAGE = {
    "inputTokens": 30,
    "outputTokens": 628,
    "totalTokens": 1658,
    "cacheReadInputTokens": 800,
    "cacheWriteInputTokens": 200,
}
CONVERSE_TOLD = {"input": 1030, "output": 628, "total": 1658, "cached": 800, "written": 200}

GENERATE = b"/v1beta/models/gemini-2.5-pro:generateContent"
STREAM_GENERATE = b"/v1beta/models/gemini-2.5-pro:streamGenerateContent"

SAMPLES = [
    # OpenAI, and who speaks as it does.
    Sample("chat", "openai", b"/v1/chat/completions", encode(sandbox_openai.chat_body(REPLY)), CHAT_TOLD, "model-a", "stop"),
    Sample("chat detailed", "openai", b"/v1/chat/completions", encode({"id": "c", "model": "o3", "choices": [{"index": 0, "message": {"role": "assistant", "content": 'say "usage": {"prompt_tokens": 7}'}, "finish_reason": "length"}], "usage": DETAILED}), DETAILED_TOLD, "o3", "length"),
    Sample("chat stream", "openai", b"/v1/chat/completions", joined(sandbox_openai.chat_events(REPLY, with_usage=True)), CHAT_TOLD, "model-a", "stop", SSE),
    Sample("chat stream without usage", "openai", b"/v1/chat/completions", joined(sandbox_openai.chat_events(REPLY)), {}, "model-a", "stop", SSE),
    Sample("chat stream, usage on the last choice", "together", b"/v1/chat/completions", sse(chunk("Hi", usage=None), chunk(None, "stop", usage=DETAILED), DONE), DETAILED_TOLD, "gpt-4o-2024-08-06", "stop", SSE),
    Sample("chat stream, usage counted on", "vllm", b"/v1/chat/completions", sse(chunk("Hi", usage={"prompt_tokens": 5, "completion_tokens": 1}), chunk(None, "tool_calls", usage={"prompt_tokens": 5, "completion_tokens": 9, "total_tokens": 14})), {"input": 5, "output": 9, "total": 14}, "gpt-4o-2024-08-06", "tool_calls", SSE),
    Sample("completion", "openai", b"/v1/completions", encode(sandbox_openai.completion_body(REPLY)), CHAT_TOLD, "model-a", "stop"),
    Sample("completion stream", "openai", b"/v1/completions", joined(sandbox_openai.completion_events(REPLY, with_usage=True)), CHAT_TOLD, "model-a", "stop", SSE),
    Sample("responses", "openai", b"/v1/responses", encode(sandbox_responses.finished(REPLY, {})), RESPONSES_TOLD, "model-a", "completed"),
    Sample("responses stream", "openai", b"/v1/responses", joined(sandbox_responses.events(REPLY, {})), RESPONSES_TOLD, "model-a", "completed", SSE),
    Sample("responses, incomplete", "openai", b"/v1/responses", encode({"object": "response", "status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}, "model": "gpt-5", "output": [], "usage": {"input_tokens": 328, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 52, "output_tokens_details": {"reasoning_tokens": 40}, "total_tokens": 380}}), {"input": 328, "output": 52, "total": 380, "cached": 0, "reasoning": 40}, "gpt-5", "max_output_tokens"),
    Sample("responses stream, failed", "openai", b"/v1/responses", sse({"type": "response.created", "response": {"model": "gpt-5", "status": "in_progress", "usage": None}}, {"type": "response.failed", "response": {"model": "gpt-5", "status": "failed", "error": {"code": "server_error", "message": "x"}, "usage": None}}, names=True), {}, "gpt-5", "failed", SSE, failed=True),
    Sample("embeddings", "openai", b"/v1/embeddings", encode({"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": [0.5, -0.25]}], "model": "text-embedding-3-small", "usage": {"prompt_tokens": 8, "total_tokens": 8}}), {"input": 8, "total": 8}, "text-embedding-3-small", None),
    Sample("error in a stream", "openai", b"/v1/chat/completions", sse(chunk("Hi"), {"error": {"message": "x", "type": "server_error", "param": None, "code": None}}), {}, "gpt-4o-2024-08-06", None, SSE, failed=True),
    Sample("azure", "azure", b"/openai/deployments/d/chat/completions", sse({"choices": [], "created": 0, "id": "", "model": "", "object": "", "prompt_filter_results": [{"prompt_index": 0}]}, chunk("Hi"), chunk(None, "content_filter"), {**chunk(None), "choices": [], "usage": DETAILED}, DONE), DETAILED_TOLD, "gpt-4o-2024-08-06", "content_filter", SSE),
    Sample("groq stream", "groq", b"/openai/v1/chat/completions", sse(chunk("Hi", x_groq={"id": "req_1"}), chunk(None, "stop", x_groq={"id": "req_1", "usage": {"queue_time": 0.1, "prompt_tokens": 18, "completion_tokens": 6, "total_tokens": 24}}), DONE), {"input": 18, "output": 6, "total": 24}, "gpt-4o-2024-08-06", "stop", SSE),
    Sample("deepseek", "deepseek", b"/chat/completions", b"\n\n\n" + encode({"model": "deepseek-chat", "choices": [{"finish_reason": "stop", "message": {"content": "Hi", "reasoning_content": "hm"}}], "usage": {"prompt_tokens": 16, "completion_tokens": 10, "total_tokens": 26, "prompt_cache_hit_tokens": 12, "prompt_cache_miss_tokens": 4, "completion_tokens_details": {"reasoning_tokens": 3}}}), {"input": 16, "output": 10, "total": 26, "cached": 12, "reasoning": 3}, "deepseek-chat", "stop"),
    Sample("mistral", "mistral", b"/v1/chat/completions", sse(chunk("Hi"), chunk(None, "model_length", usage={"prompt_tokens": 5, "total_tokens": 8, "completion_tokens": 3}), DONE), {"input": 5, "output": 3, "total": 8}, "gpt-4o-2024-08-06", "model_length", SSE),
    Sample("xai", "xai", b"/v1/chat/completions", encode({"model": "grok-4", "choices": [{"finish_reason": "stop", "message": {"content": "Hi"}}], "usage": DETAILED}), DETAILED_TOLD, "grok-4", "stop"),
    Sample("fireworks", "fireworks", b"/inference/v1/chat/completions", sse(chunk("Hi"), chunk(None, "stop", usage=DETAILED), DONE), DETAILED_TOLD, "gpt-4o-2024-08-06", "stop", SSE),
    Sample("venice", "venice", b"/api/v1/chat/completions", sse(chunk("Hi"), chunk(None, "stop", usage=DETAILED), DONE), DETAILED_TOLD, "gpt-4o-2024-08-06", "stop", SSE),
    Sample("tetrate", "tetrate", b"/v1/chat/completions", sse(chunk("Hi"), chunk(None, "stop", usage=DETAILED), DONE), DETAILED_TOLD, "gpt-4o-2024-08-06", "stop", SSE),
    Sample("openrouter", "openrouter", b"/api/v1/chat/completions", encode({"id": "gen-1", "provider": "Example", "model": "openai/gpt-4o", "choices": [{"finish_reason": "stop", "native_finish_reason": "stop", "message": {"content": "Hi"}}], "usage": {**DETAILED, "cost": 0.00492}}), DETAILED_TOLD, "openai/gpt-4o", "stop", cost=0.00492),
    Sample("openrouter stream", "openrouter", b"/api/v1/chat/completions", b": OPENROUTER PROCESSING\n\n" + sse(chunk("Hi"), chunk(None, "stop"), {**chunk(""), "choices": [], "usage": {**DETAILED, "cost": 1, "is_byok": False}}, DONE), DETAILED_TOLD, "gpt-4o-2024-08-06", "stop", SSE, cost=1.0),
    Sample("openrouter error", "openrouter", b"/api/v1/chat/completions", sse(chunk("Hi"), chunk("", "error", error={"code": 502, "message": "x"})), {}, "gpt-4o-2024-08-06", "error", SSE, failed=True),
    Sample("databricks", "databricks", b"/serving-endpoints/my-claude/invocations", encode(sandbox_openai.chat_body(REPLY)), CHAT_TOLD, "model-a", "stop"),
    Sample("databricks stream", "databricks", b"/serving-endpoints/my-claude/invocations", joined(sandbox_openai.chat_events(REPLY, with_usage=True)), CHAT_TOLD, "model-a", "stop", SSE),
    Sample("databricks gateway", "databricks", b"/ai-gateway/anthropic/v1/messages", sse(CLAUDE_START, CLAUDE_TEXT, CLAUDE_END, {"type": "message_stop"}, names=True), CLAUDE_TOLD, "claude-sonnet-4-5-20250929", "end_turn", SSE),
    # Anthropic.
    Sample("messages", "anthropic", b"/v1/messages", encode(sandbox_anthropic.message(REPLY)), {"input": 11, "output": 3, "cached": 0, "written": 0}, "model-a", "end_turn"),
    Sample("messages stream", "anthropic", b"/v1/messages", joined(sandbox_anthropic.events(REPLY)), {"input": 11, "output": 3, "cached": 0, "written": 0}, "model-a", "end_turn", SSE),
    Sample("messages, cached", "anthropic", b"/v1/messages", encode({"model": "claude-x", "content": [{"type": "tool_use", "name": "f", "input": {"usage": {"input_tokens": 7}}}], "stop_reason": "tool_use", "usage": {"input_tokens": 25, "cache_creation_input_tokens": 100, "cache_read_input_tokens": 1000, "output_tokens": 15}}), CLAUDE_TOLD, "claude-x", "tool_use"),
    Sample("messages stream, cached", "anthropic", b"/v1/messages", sse(CLAUDE_START, {"type": "ping"}, CLAUDE_TEXT, CLAUDE_END, {"type": "message_stop"}, names=True), CLAUDE_TOLD, "claude-sonnet-4-5-20250929", "end_turn", SSE),
    Sample("messages stream, overloaded", "anthropic", b"/v1/messages", sse(CLAUDE_START, CLAUDE_TEXT, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, names=True), {**CLAUDE_TOLD, "output": 1}, "claude-sonnet-4-5-20250929", None, SSE, failed=True),
    Sample("messages stream, cut", "anthropic", b"/v1/messages", sse(CLAUDE_START, CLAUDE_TEXT, names=True), {**CLAUDE_TOLD, "output": 1}, "claude-sonnet-4-5-20250929", None, SSE, complete=False),
    # Gemini.
    Sample("generate", "google", GENERATE, encode(GEMINI_LAST), GEMINI_TOLD, "gemini-2.5-pro", "STOP"),
    Sample("generate stream", "google", STREAM_GENERATE, sse(GEMINI_FIRST, GEMINI_LAST, end=b"\r\n\r\n"), GEMINI_TOLD, "gemini-2.5-pro", "STOP", SSE),
    Sample("generate stream of the sandbox", "google", STREAM_GENERATE, joined(sandbox_google.events(REPLY)), CHAT, "model-a", "STOP", SSE),
    Sample("generate array", "google", STREAM_GENERATE, b"[" + json.dumps(GEMINI_FIRST, indent=2).encode() + b"\n,\r\n" + json.dumps(GEMINI_LAST, indent=2).encode() + b"]", GEMINI_TOLD, "gemini-2.5-pro", "STOP"),
    Sample("generate array of the sandbox", "google", STREAM_GENERATE, joined(sandbox_google.elements(REPLY)), CHAT, "model-a", "STOP"),
    Sample("generate, blocked", "google", GENERATE, encode({"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 4, "totalTokenCount": 4}, "modelVersion": "gemini-x"}), {"input": 4, "total": 4}, "gemini-x", "SAFETY"),
    Sample("generate array, error", "google", STREAM_GENERATE, b"[" + encode(GEMINI_FIRST) + b",\n" + encode({"error": {"code": 503, "message": "x", "status": "UNAVAILABLE"}}) + b"]", {"input": 100, "total": 100}, "gemini-2.5-pro", None, failed=True),
    Sample("embed", "google", b"/v1beta/models/text-embedding-004:embedContent", encode({"embedding": {"values": [0.5]}, "usageMetadata": {"promptTokenCount": 3}}), {"input": 3}, None, None),
    Sample("interaction stream", "google", b"/v1beta/interactions", sse({"event_type": "interaction.start", "interaction": {"id": "i", "status": "in_progress", "model": "gemini-3"}}, {"event_type": "content.delta", "delta": {"type": "text", "text": "Hi"}}, {"event_type": "interaction.completed", "interaction": {"status": "completed", "model": "gemini-3", "usage": {"total_input_tokens": 7, "total_output_tokens": 20, "total_thought_tokens": 22, "total_cached_tokens": 0, "total_tokens": 49, "total_tool_use_tokens": 0}}}), {"input": 7, "output": 42, "total": 49, "cached": 0, "reasoning": 22, "tools": 0}, "gemini-3", "completed", SSE),
    # Bedrock.
    Sample("converse", "bedrock", b"/model/m/converse", encode({"metrics": {"latencyMs": 1}, "output": {"message": {"role": "assistant", "content": [{"text": "Hi"}]}}, "stopReason": "end_turn", "usage": CONVERSE_USAGE}), CONVERSE_TOLD, None, "end_turn"),
    Sample("converse stream", "bedrock", b"/model/m/converse-stream", frame("messageStart", {"role": "assistant"}) + frame("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "Hi"}}) + frame("contentBlockStop", {"contentBlockIndex": 0}) + frame("messageStop", {"stopReason": "max_tokens"}) + frame("metadata", {"usage": CONVERSE_USAGE, "metrics": {"latencyMs": 9}}), CONVERSE_TOLD, None, "max_tokens", b"application/vnd.amazon.eventstream"),
    Sample("converse stream, exception", "bedrock", b"/model/m/converse-stream", frame("contentBlockDelta", {"delta": {"text": "Hi"}}) + frame("throttlingException", {"message": "x"}, b"exception"), {}, None, None, b"application/vnd.amazon.eventstream", failed=True),
    # Cohere.
    Sample("cohere", "cohere", b"/v2/chat", encode({"id": "x", "message": {"role": "assistant", "content": [{"type": "text", "text": "Hi"}]}, "finish_reason": "COMPLETE", "usage": {"billed_units": {"input_tokens": 5.0, "output_tokens": 418.0}, "tokens": {"input_tokens": 71.0, "output_tokens": 418.0}}}), {"input": 71, "output": 418}, None, "COMPLETE"),
    Sample("cohere stream", "cohere", b"/v2/chat", joined(sandbox_cohere.events(REPLY)), {"input": 11, "output": 3}, None, "COMPLETE", SSE),
    Sample("cohere stream, error", "cohere", b"/v2/chat", sse({"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": "Hi"}}}}, {"type": "message-end", "delta": {"error": "x", "finish_reason": "ERROR"}}, names=True), {}, None, "ERROR", SSE, failed=True),
    Sample("cohere v1", "cohere", b"/v1/chat", encode({"text": "Hi", "finish_reason": "COMPLETE", "meta": {"api_version": {"version": "1"}, "billed_units": {"input_tokens": 4, "output_tokens": 3}, "tokens": {"input_tokens": 66, "output_tokens": 3}}}), {"input": 66, "output": 3}, None, "COMPLETE"),
    Sample("cohere v1 stream", "cohere", b"/v1/chat", lines({"is_finished": False, "event_type": "stream-start", "generation_id": "g"}, {"is_finished": False, "event_type": "text-generation", "text": "Hi"}, {"is_finished": True, "event_type": "stream-end", "finish_reason": "COMPLETE", "response": {"text": "Hi", "meta": {"tokens": {"input_tokens": 66, "output_tokens": 3}}, "finish_reason": "COMPLETE"}}), {"input": 66, "output": 3}, None, "COMPLETE", b"application/stream+json"),
    Sample("cohere embed", "cohere", b"/v2/embed", encode({"id": "x", "texts": ["a"], "embeddings": {"float": [[0.5]]}, "meta": {"billed_units": {"input_tokens": 2}}}), {"input": 2}, None, None),
    # Local servers.
    Sample("ollama chat", "ollama", b"/api/chat", encode({"model": "llama3", "message": {"role": "assistant", "content": "Hi"}, "done": True, "done_reason": "stop", "total_duration": 1, "prompt_eval_count": 26, "eval_count": 282}), {"input": 26, "output": 282}, "llama3", "stop"),
    Sample("ollama chat stream", "ollama", b"/api/chat", joined(sandbox_ollama.chat_events(REPLY)), {"input": 11, "output": 3}, "model-a", "stop", NDJSON),
    Sample("ollama generate stream", "ollama", b"/api/generate", joined(sandbox_ollama.generate_events(REPLY)), {"input": 11, "output": 3}, "model-a", "stop", NDJSON),
    Sample("ollama error", "ollama", b"/api/chat", lines({"model": "m", "message": {"content": "Hi"}, "done": False}, {"error": "boom"}), {}, "m", None, NDJSON, failed=True),
    Sample("ollama embed", "ollama", b"/api/embed", encode({"model": "m", "embeddings": [[0.5]], "total_duration": 1, "prompt_eval_count": 8}), {"input": 8}, "m", None),
    Sample("ollama, OpenAI's way", "ollama", b"/v1/chat/completions", sse(chunk("Hi"), chunk(None, "stop"), {**chunk(None), "choices": [], "usage": DETAILED}, DONE), DETAILED_TOLD, "gpt-4o-2024-08-06", "stop", SSE),
    Sample("llama.cpp", "llamacpp", b"/completion", encode({"content": "Hi", "stop": True, "model": "m.gguf", "tokens_predicted": 5, "tokens_evaluated": 9, "stop_type": "eos"}), {"input": 9, "output": 5}, "m.gguf", "eos"),
    Sample("llama.cpp stream", "llamacpp", b"/completion", sse({"content": "Hi", "stop": False}, {"content": "", "stop": True, "model": "m.gguf", "tokens_predicted": 5, "tokens_evaluated": 9, "stop_type": "limit"}), {"input": 9, "output": 5}, "m.gguf", "limit", SSE),
    Sample("llama.cpp, elder error", "llamacpp", b"/completion", sse({"content": "Hi", "stop": False}) + b'error: {"code":500,"message":"x"}\n\n', {}, None, None, SSE, failed=True),
    Sample("vllm messages", "vllm", b"/v1/messages", sse(CLAUDE_START, CLAUDE_TEXT, CLAUDE_END, names=True), CLAUDE_TOLD, "claude-sonnet-4-5-20250929", "end_turn", SSE),
    Sample("vllm, elder error", "vllm", b"/v1/chat/completions", sse(chunk("Hi"), {"object": "error", "message": "x", "code": 500}, DONE), {}, "gpt-4o-2024-08-06", None, SSE, failed=True),
]  # fmt: skip

by_name = pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)


def read(sample: Sample, pieces: list[bytes], coding: bytes = b"") -> UsageReader:
    reader = sample.reader(coding)
    for piece in pieces:
        reader.feed(piece)
    assert reader.reading(sample.complete) == sample.expected
    assert reader.cost == sample.cost
    return reader


@by_name
def test_answer_at_once(sample: Sample) -> None:
    read(sample, [sample.body])


@by_name
def test_answer_split_at_every_byte(sample: Sample) -> None:
    for at in range(1, len(sample.body)):
        read(sample, [sample.body[:at], sample.body[at:]])


@by_name
def test_answer_byte_by_byte(sample: Sample) -> None:
    read(sample, [sample.body[at : at + 1] for at in range(len(sample.body))])


@by_name
@pytest.mark.parametrize("coding", [b"gzip", b"deflate", b"GZIP", b"identity, x-gzip"])
def test_coded_answer(sample: Sample, coding: bytes) -> None:
    packed = zlib.compress(sample.body) if coding == b"deflate" else gzip.compress(sample.body)
    read(sample, [packed[at : at + 7] for at in range(0, len(packed), 7)], coding)


@by_name
@pytest.mark.parametrize("coding", [b"br", b"zstd", b"gzip, gzip", b"deflate,gzip"])
def test_coding_that_is_not_read_gives_nothing(sample: Sample, coding: bytes) -> None:
    reader = sample.reader(coding)
    reader.feed(sample.body)
    assert not reader.began
    assert reader.reading(True) == Reading()


@by_name
def test_every_sample_has_the_form_that_its_name_says(sample: Sample) -> None:
    streamed = "stream" in sample.name or "array" in sample.name or sample.media != b"application/json"
    assert (sample.form is not None) == streamed


@by_name
def test_content_of_a_stream_begins(sample: Sample) -> None:
    reader = read(sample, [sample.body])
    said = sample.form is not None and sample.name != "responses stream, failed"
    assert reader.began is said


def test_every_endpoint_of_inference_with_usage_tells_counts() -> None:
    covered = {(sample.provider, sample.endpoint.operation) for sample in SAMPLES}
    for provider in KNOWN.values():
        for endpoint in provider.endpoints:
            usage = endpoint.usage
            if usage is not None:
                assert "input" in usage.tokens
                assert usage.finish or endpoint.operation in ("embeddings", "rerank")
                for parts in usage.apart.values():
                    assert set(parts) <= set(usage.tokens)
    assert {name for name, _ in covered} == set(KNOWN)


# When content begins.


def test_opening_and_pings_are_no_content() -> None:
    sample = next(one for one in SAMPLES if one.name == "messages stream, cached")
    reader = sample.reader()
    reader.feed(sse(CLAUDE_START, {"type": "ping"}, names=True))
    assert not reader.began
    reader.feed(sse(CLAUDE_TEXT, names=True))
    assert reader.began


def test_answer_in_one_piece_has_no_first_content() -> None:
    sample = SAMPLES[0]
    reader = sample.reader()
    reader.feed(sample.body)
    assert not reader.began


def test_event_that_is_too_large_is_content() -> None:
    sample = next(one for one in SAMPLES if one.name == "chat stream")
    reader = sample.reader(limit=1000)
    reader.feed(b"data: " + b"x" * 2000)
    assert reader.began


def test_stream_of_an_endpoint_without_usage_is_watched_all_the_same() -> None:
    endpoint = KNOWN["bedrock"].endpoint(b"POST", b"/model/m/invoke-with-response-stream")
    assert endpoint is not None
    assert endpoint.usage is None
    event = base64.b64encode(encode(CLAUDE_TEXT)).decode()
    reader = UsageReader(endpoint.usage, endpoint.forms[0], b"")
    reader.feed(frame("chunk", {"bytes": event}))
    assert reader.began
    reader.feed(frame("modelStreamErrorException", {"message": "x"}, b"exception"))
    assert reader.reading(True) == Reading(failed=True)


# What is not parsed.


def test_events_that_cannot_matter_are_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    from llmproxyd.inspection import usage

    seen: list[bytes] = []
    parsed = usage.parsed
    monkeypatch.setattr(usage, "parsed", lambda data: seen.append(data) or parsed(data))
    sample = SAMPLES[0]
    pieces = [sse(chunk("Hi", usage=None))] * 100 + [sse(chunk(None, "stop", usage=DETAILED)), sse(DONE)]
    reader = replace(sample, media=SSE).reader()
    for piece in pieces:
        reader.feed(piece)
    reader.feed(b"".join(pieces))
    assert reader.reading(True).tokens == DETAILED_TOLD
    assert len(seen) == 3


def test_model_is_not_looked_for_forever(monkeypatch: pytest.MonkeyPatch) -> None:
    from llmproxyd.inspection import usage

    seen: list[bytes] = []
    parsed = usage.parsed
    monkeypatch.setattr(usage, "parsed", lambda data: seen.append(data) or parsed(data))
    reader = replace(SAMPLES[0], media=SSE).reader()
    for _ in range(1000):
        reader.feed(sse({"choices": [{"delta": {"content": "Hi"}, "finish_reason": None}]}))
    assert len(seen) == 16
