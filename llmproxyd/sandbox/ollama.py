"""Ollama's own API: chat, generate, embeddings, and what is installed.  Pure.

https://github.com/ollama/ollama/blob/main/docs/api.md
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from llmproxyd.sandbox.embeddings import dimensions_in, inputs, vector
from llmproxyd.sandbox.openai import tool_names, tool_result
from llmproxyd.sandbox.reply import DEFAULT_MODEL, Prompt, Reply, answer, count, prompt_from, text_of
from llmproxyd.sandbox.values import (
    CREATED_TEXT,
    NDJSON,
    Answer,
    Ask,
    Event,
    Json,
    Stream,
    as_text,
    bad_request,
    dump,
    metadata,
    required,
    whole,
)

_DETAILS: Json = {
    "parent_model": "",
    "format": "gguf",
    "family": "sandbox",
    "families": ["sandbox"],
    "parameter_size": "0B",
    "quantization_level": "F32",
}


def chat(ask: Ask) -> Answer:
    """``POST /api/chat``; it streams unless ``stream`` is false."""
    body = ask.json()
    reply = answer(read_chat(body), ask.content)
    if body.get("stream") is False:
        return whole({**_head(reply), "message": _message(reply, reply.text), **_end(reply)})
    return Stream(chat_events(reply), NDJSON)


def read_chat(body: Json) -> Prompt:
    """The prompt of a chat request."""
    return prompt_from(
        required(body, "messages"),
        model=as_text(body.get("model")),
        result_of=tool_result,
        tools=tool_names(body),
    )


def generate(ask: Ask) -> Answer:
    """``POST /api/generate``; it streams unless ``stream`` is false."""
    body = ask.json()
    reply = answer(read_generate(body), ask.content)
    if body.get("stream") is False:
        return whole({**_head(reply), "response": reply.text, **_end(reply)})
    return Stream(generate_events(reply), NDJSON)


def read_generate(body: Json) -> Prompt:
    """The prompt of a generate request."""
    if not isinstance(body.get("prompt"), str):
        raise bad_request("'prompt' must be a string")
    text = as_text(body["prompt"])
    return Prompt(as_text(body.get("model")), text, count(text) + count(text_of(body.get("system"))))


def _head(reply: Reply) -> Json:
    return {"model": reply.model, "created_at": CREATED_TEXT}


def _message(reply: Reply, text: str) -> Json:
    message: dict[str, object] = {"role": "assistant", "content": text}
    if reply.call:
        # Arguments are an object here, and are not split in streams.
        call = {"name": reply.call.name, "arguments": reply.call.value}
        message["tool_calls"] = [{"id": f"call_{reply.id}", "function": call}]
    return message


def _end(reply: Reply) -> Json:
    """The last members; durations are nanoseconds and, being made up, the same every time."""
    return {
        "done": True,
        "done_reason": "stop",
        "total_duration": 3_000_000,
        "load_duration": 1_000_000,
        "prompt_eval_count": reply.input_tokens,
        "prompt_eval_duration": 1_000_000,
        "eval_count": reply.output_tokens,
        "eval_duration": 1_000_000,
    }


def _line(value: Json, *, token: bool = False) -> Event:
    return Event(dump(value) + b"\n", token)


def chat_events(reply: Reply) -> Iterator[Event]:
    """The stream of a chat, an object a line."""
    if reply.call:
        yield _line({**_head(reply), "message": _message(reply, ""), "done": False}, token=True)
    for piece in reply.pieces:
        message = {"role": "assistant", "content": piece}
        yield _line({**_head(reply), "message": message, "done": False}, token=True)
    yield _line({**_head(reply), "message": {"role": "assistant", "content": ""}, **_end(reply)})


def generate_events(reply: Reply) -> Iterator[Event]:
    """The stream of a generation, an object a line."""
    for piece in reply.pieces:
        yield _line({**_head(reply), "response": piece, "done": False}, token=True)
    yield _line({**_head(reply), "response": "", **_end(reply)})


def embed(ask: Ask) -> Answer:
    """``POST /api/embed``."""
    body = ask.json()
    texts = inputs(body.get("input"))
    dimensions = dimensions_in(body)
    return whole(
        {
            "model": as_text(body.get("model")) or DEFAULT_MODEL,
            "embeddings": [vector(text, dimensions) for text in texts],
            "total_duration": 2_000_000,
            "load_duration": 1_000_000,
            "prompt_eval_count": sum(map(count, texts)),
        }
    )


def embeddings(ask: Ask) -> Answer:
    """``POST /api/embeddings``, the elder form: one prompt, one vector."""
    return whole({"embedding": vector(read_generate(ask.json()).text)})


def tags(ask: Ask) -> Answer:
    """``GET /api/tags``: the models at hand."""
    return metadata({"models": [_model(name) for name in ask.models]})


def running(_ask: Ask) -> Answer:
    """``GET /api/ps``: no model is loaded."""
    return metadata({"models": []})


def show(_ask: Ask) -> Answer:
    """``POST /api/show``: every model exists."""
    return metadata(
        {
            "modelfile": "",
            "parameters": "",
            "template": "{{ .Prompt }}",
            "details": _DETAILS,
            "model_info": {"general.architecture": "sandbox"},
            "capabilities": ["completion", "tools"],
            "modified_at": CREATED_TEXT,
        }
    )


def version(_ask: Ask) -> Answer:
    """``GET /api/version``."""
    return metadata({"version": "0.0.0-sandbox"})


def _model(name: str) -> Json:
    return {
        "name": name,
        "model": name,
        "modified_at": CREATED_TEXT,
        "size": 0,
        "digest": hashlib.sha256(name.encode()).hexdigest(),
        "details": _DETAILS,
    }
