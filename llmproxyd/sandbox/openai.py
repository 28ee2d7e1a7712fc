"""OpenAI's chat completions and completions, which most providers speak.  Pure.

https://platform.openai.com/docs/api-reference/chat and …/chat-streaming; how others deviate
(OpenRouter's ``provider``, the comment it opens with) is noted where it is done.
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
    as_object,
    as_text,
    bad_request,
    data_event,
    metadata,
    objects,
    required,
    whole,
)

DONE = Event(b"data: [DONE]\n\n")


def chat(ask: Ask) -> Answer:
    """``POST …/chat/completions``."""
    body = ask.json()
    reply = answer(read_chat(body, ask.named), ask.content)
    router = ask.provider == "openrouter"
    if body.get("stream") is True:
        return Stream(chat_events(reply, with_usage=wants_usage(body) or router, router=router))
    return whole(chat_body(reply, router=router))


def wants_usage(body: Json) -> bool:
    """Whether a stream ends with a chunk of usage (``stream_options.include_usage``)."""
    return as_object(body.get("stream_options")).get("include_usage") is True


def read_chat(body: Json, named: str = "") -> Prompt:
    """The prompt of a chat request; *named* is the model its path names."""
    return prompt_from(
        required(body, "messages"),
        model=as_text(body.get("model")) or named,
        result_of=tool_result,
        tools=tool_names(body),
    )


def tool_result(message: Json) -> str | None:
    """The text of a message of a tool (``function``: of the elder form of tools)."""
    return text_of(message) if message.get("role") in ("tool", "function") else None


def tool_names(body: Json) -> set[str]:
    """The names of the functions on offer: ``tools[].function.name``, elder ``functions[].name``."""
    offered = [as_object(tool.get("function")) for tool in objects(body.get("tools"))]
    offered += objects(body.get("functions"))
    return {as_text(function.get("name")) for function in offered}


def usage(reply: Reply) -> Json:
    """The usage block of chat completions and completions."""
    return {
        "prompt_tokens": reply.input_tokens,
        "completion_tokens": reply.output_tokens,
        "total_tokens": reply.total_tokens,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def _finish(reply: Reply, router: bool) -> dict[str, object]:
    reason = "tool_calls" if reply.call else "stop"
    return {"finish_reason": reason, "native_finish_reason": reason} if router else {"finish_reason": reason}


def _head(reply: Reply, kind: str, router: bool) -> dict[str, object]:
    head: dict[str, object] = {
        "id": f"chatcmpl-{reply.id}",
        "object": kind,
        "created": CREATED,
        "model": reply.model,
    }
    # OpenRouter says which provider answered in its place.
    return {**head, "provider": "Sandbox"} if router else {**head, "system_fingerprint": "fp_sandbox"}


def _call(reply: Reply, arguments: str) -> dict[str, object]:
    assert reply.call is not None
    function = {"name": reply.call.name, "arguments": arguments}
    return {"id": f"call_{reply.id}", "type": "function", "function": function}


def chat_body(reply: Reply, *, router: bool = False) -> Json:
    """A whole ``chat.completion``."""
    message: dict[str, object] = {"role": "assistant", "content": reply.text, "refusal": None}
    if reply.call:
        message |= {"content": None, "tool_calls": [_call(reply, reply.call.text)]}
    choice = {"index": 0, "message": message, "logprobs": None, **_finish(reply, router)}
    return {**_head(reply, "chat.completion", router), "choices": [choice], "usage": usage(reply)}


def chat_events(reply: Reply, *, with_usage: bool = False, router: bool = False) -> Iterator[Event]:
    """The stream of ``chat.completion.chunk`` events, up to ``[DONE]``.

    :param with_usage: a last chunk without choices tells the usage; all others say ``null``.
    :param router: in OpenRouter's manner.
    """
    head = _head(reply, "chat.completion.chunk", router)
    rest: Json = {"usage": None} if with_usage else {}

    def chunk(delta: Json, *, finish: Json | None = None, token: bool = False) -> Event:
        end = {"finish_reason": None} if finish is None else finish
        choice = {"index": 0, "delta": delta, "logprobs": None, **end}
        return data_event({**head, "choices": [choice], **rest}, token=token)

    if router:
        yield Event(b": OPENROUTER PROCESSING\n\n")
    if reply.call:
        opening = {"index": 0, **_call(reply, "")}
        yield chunk({"role": "assistant", "content": None, "tool_calls": [opening]})
        for part in reply.call.deltas():
            yield chunk({"tool_calls": [{"index": 0, "function": {"arguments": part}}]}, token=True)
    else:
        yield chunk({"role": "assistant", "content": "", "refusal": None})
        for piece in reply.pieces:
            yield chunk({"content": piece}, token=True)
    yield chunk({}, finish=_finish(reply, router))
    if with_usage:
        yield data_event({**head, "choices": [], "usage": usage(reply)})
    yield DONE


def completions(ask: Ask) -> Answer:
    """``POST …/completions``, the elder endpoint with a ``prompt``."""
    body = ask.json()
    reply = answer(read_completion(body, ask.named), ask.content)
    if body.get("stream") is True:
        return Stream(completion_events(reply, with_usage=wants_usage(body)))
    return whole(completion_body(reply))


def read_completion(body: Json, named: str = "") -> Prompt:
    """The prompt of a completion: a string or a list of strings (lists of tokens have no text)."""
    if not isinstance(body.get("prompt"), (str, list)):
        raise bad_request("Missing required parameter: 'prompt' must be a string or an array.")
    text = text_of(body["prompt"])
    return Prompt(as_text(body.get("model")) or named, text, count(text))


def _completion(reply: Reply, text: str, finish: str | None) -> dict[str, object]:
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}
    return {
        "id": f"cmpl-{reply.id}",
        "object": "text_completion",
        "created": CREATED,
        "model": reply.model,
        "choices": [choice],
    }


def completion_body(reply: Reply) -> Json:
    """A whole ``text_completion``."""
    return {**_completion(reply, reply.text, "stop"), "usage": usage(reply)}


def completion_events(reply: Reply, *, with_usage: bool = False) -> Iterator[Event]:
    """The stream of a completion, up to ``[DONE]``."""
    rest: Json = {"usage": None} if with_usage else {}
    for piece in reply.pieces:
        yield data_event({**_completion(reply, piece, None), **rest}, token=True)
    yield data_event({**_completion(reply, "", "stop"), **rest})
    if with_usage:
        yield data_event({**_completion(reply, "", None), "choices": [], "usage": usage(reply)})
    yield DONE


def models(ask: Ask) -> Answer:
    """``GET …/models``."""
    return metadata({"object": "list", "data": [_model(name) for name in ask.models]})


def model(ask: Ask) -> Answer:
    """``GET …/models/ID``: every model exists."""
    return metadata(_model(ask.named))


def _model(name: str) -> Json:
    return {"id": name, "object": "model", "created": CREATED, "owned_by": "llmproxyd"}
