"""Gemini: generation, streams as events and as one array, token counts, embeddings, models.  Pure.

https://ai.google.dev/api/generate-content, …/api/embeddings, …/api/tokens, …/api/models.
"""

from __future__ import annotations

from collections.abc import Iterator

from llmproxyd.sandbox.embeddings import dimensions_in, vector
from llmproxyd.sandbox.reply import Prompt, Reply, answer, count, prompt_from, text_of
from llmproxyd.sandbox.values import (
    JSON,
    Answer,
    Ask,
    Event,
    Json,
    Stream,
    as_object,
    as_text,
    bad_request,
    data_event,
    dump,
    metadata,
    objects,
    required,
    text_json,
    whole,
)


def generate(ask: Ask) -> Answer:
    """``POST …/models/ID:generateContent``."""
    reply = answer(read(ask.json(), ask.named), ask.content)
    return whole(_chunk(reply, _parts(reply), reply.output_tokens, last=True))


def stream(ask: Ask) -> Answer:
    """``POST …/models/ID:streamGenerateContent``: events with ``alt=sse``, else one JSON array."""
    reply = answer(read(ask.json(), ask.named), ask.content)
    if ask.query.get("alt") == "sse":
        return Stream(events(reply), b"text/event-stream")
    return Stream(elements(reply), JSON)


def read(body: Json, named: str = "") -> Prompt:
    """The prompt of a generate request; names in camel case, as Google's clients send them."""
    declared = [
        function
        for tool in objects(body.get("tools"))
        for function in objects(_either(tool, "functionDeclarations", "function_declarations"))
    ]
    return prompt_from(
        _contents(body),
        model=named,
        result_of=_result,
        tools={as_text(function.get("name")) for function in declared},
        system=_either(body, "systemInstruction", "system_instruction"),
    )


def _contents(body: Json) -> list[Json]:
    if isinstance(body.get("contents"), dict):
        return [as_object(body["contents"])]
    return required(body, "contents")


def _either(body: Json, camel: str, snake: str) -> object:
    """A member under its JSON name, or under its name in the protocol's source."""
    return body.get(camel, body.get(snake))


def _result(content: Json) -> str | None:
    found = [_either(part, "functionResponse", "function_response") for part in objects(content.get("parts"))]
    results = [text_json(as_object(item).get("response")) for item in found if item is not None]
    return "\n".join(results) if results else None


def _usage(reply: Reply, output: int) -> Json:
    return {
        "promptTokenCount": reply.input_tokens,
        "candidatesTokenCount": output,
        "totalTokenCount": reply.input_tokens + output,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": reply.input_tokens}],
    }


def _parts(reply: Reply) -> list[Json]:
    if reply.call:
        call = {"id": f"call_{reply.id}", "name": reply.call.name, "args": reply.call.value}
        return [{"functionCall": call}]
    return [{"text": reply.text}]


def _chunk(reply: Reply, parts: list[Json], output: int, *, last: bool) -> Json:
    candidate: dict[str, object] = {"content": {"parts": parts, "role": "model"}, "index": 0}
    if last:
        candidate["finishReason"] = "STOP"
    return {
        "candidates": [candidate],
        "usageMetadata": _usage(reply, output),
        "modelVersion": reply.model,
        "responseId": reply.id,
    }


def _chunks(reply: Reply) -> Iterator[tuple[Json, bool]]:
    """The stream's objects; the last one only has the reason of its end.

    Gemini does not split the arguments of a call.
    """
    if reply.call:
        yield _chunk(reply, _parts(reply), reply.output_tokens, last=False), True
    for number, piece in enumerate(reply.pieces, 1):
        yield _chunk(reply, [{"text": piece}], number, last=False), True
    yield _chunk(reply, [{"text": ""}], reply.output_tokens, last=True), False


def events(reply: Reply) -> Iterator[Event]:
    """The stream of ``alt=sse``; lines end in CRLF and nothing marks the end."""
    for value, token in _chunks(reply):
        yield data_event(value, token=token, end=b"\r\n\r\n")


def elements(reply: Reply) -> Iterator[Event]:
    """The stream as one JSON array, an element a write."""
    opening = b"["
    for value, token in _chunks(reply):
        yield Event(opening + dump(value), token)
        opening = b"\n,\r\n"
    yield Event(b"\n]\n")


def count_tokens(ask: Ask) -> Answer:
    """``POST …/models/ID:countTokens``, of contents or of a whole ``generateContentRequest``."""
    body = ask.json()
    inner = _either(body, "generateContentRequest", "generate_content_request")
    tokens = read(as_object(inner) if inner is not None else body, ask.named).tokens
    details = [{"modality": "TEXT", "tokenCount": tokens}]
    return metadata({"totalTokens": tokens, "promptTokensDetails": details})


def _embedding(body: Json) -> tuple[Json, int]:
    """The embedding of one request and its number of tokens."""
    if not isinstance(body.get("content"), dict):
        raise bad_request("'content' is required.")
    text = text_of(body["content"])
    # Newer clients put the settings into an object of their own.
    settings = {**as_object(body.get("embedContentConfig")), **body}
    return {"values": vector(text, dimensions_in(settings, "outputDimensionality"))}, count(text)


def embed(ask: Ask) -> Answer:
    """``POST …/models/ID:embedContent``."""
    found, tokens = _embedding(ask.json())
    return whole({"embedding": found, "usageMetadata": {"promptTokenCount": tokens}})


def embed_batch(ask: Ask) -> Answer:
    """``POST …/models/ID:batchEmbedContents``."""
    found = [_embedding(request) for request in required(ask.json(), "requests")]
    tokens = sum(number for _, number in found)
    return whole({"embeddings": [value for value, _ in found], "usageMetadata": {"promptTokenCount": tokens}})


def models(ask: Ask) -> Answer:
    """``GET …/models``, always one page."""
    return metadata({"models": [_model(name) for name in ask.models]})


def model(ask: Ask) -> Answer:
    """``GET …/models/ID``: every model exists."""
    return metadata(_model(ask.named))


def _model(name: str) -> Json:
    methods = [
        "generateContent",
        "streamGenerateContent",
        "countTokens",
        "embedContent",
        "batchEmbedContents",
    ]
    return {
        "name": f"models/{name}",
        "version": "001",
        "displayName": name,
        "description": "Echoes the last user message.",
        "inputTokenLimit": 1048576,
        "outputTokenLimit": 65536,
        "supportedGenerationMethods": methods,
    }
