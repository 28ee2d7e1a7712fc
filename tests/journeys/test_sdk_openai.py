"""The official OpenAI SDK through the proxy."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import openai
import pytest
from daemon import Daemon
from openai import AsyncOpenAI, OpenAI
from raw import MESSAGES

CHAT: Any = {"model": "gpt-4o", "messages": MESSAGES}
INPUT: Any = {"model": "gpt-4o", "input": "tell me a joke"}
ECHO = "You said: tell me a joke"


def chat(client: OpenAI) -> str:
    answer = client.chat.completions.create(**CHAT)
    assert answer.usage is not None
    assert answer.usage.total_tokens > 0
    return str(answer.choices[0].message.content)


def chat_stream(client: OpenAI) -> str:
    chunks = list(client.chat.completions.create(**CHAT, stream=True, stream_options={"include_usage": True}))
    assert len(chunks) > 3
    assert chunks[-1].usage is not None
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def responses(client: OpenAI) -> str:
    return client.responses.create(**INPUT).output_text


def responses_stream(client: OpenAI) -> str:
    events = list(client.responses.create(**INPUT, stream=True))
    assert (events[0].type, events[-1].type) == ("response.created", "response.completed")
    return "".join(event.delta for event in events if event.type == "response.output_text.delta")


def embeddings(client: OpenAI) -> str:
    answer = client.embeddings.create(model="text-embedding-3-small", input=["tell me", "a joke"])
    assert [len(one.embedding) > 1 for one in answer.data] == [True, True]
    return ECHO


def asynchronously(work: Callable[[AsyncOpenAI], Awaitable[str]]) -> Callable[[OpenAI], str]:
    """*work* on an asynchronous client with the settings of a synchronous one."""

    def run(client: OpenAI) -> str:
        async def main() -> str:
            async with AsyncOpenAI(
                base_url=str(client.base_url), api_key=client.api_key, max_retries=client.max_retries
            ) as other:
                return await work(other)

        return asyncio.run(main())

    return run


@asynchronously
async def async_chat(client: AsyncOpenAI) -> str:
    return str((await client.chat.completions.create(**CHAT)).choices[0].message.content)


@asynchronously
async def async_chat_stream(client: AsyncOpenAI) -> str:
    stream = await client.chat.completions.create(**CHAT, stream=True)
    return "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])


@asynchronously
async def async_responses_stream(client: AsyncOpenAI) -> str:
    stream = await client.responses.create(**INPUT, stream=True)
    return "".join([event.delta async for event in stream if event.type == "response.output_text.delta"])


WAYS = {
    "chat": chat,
    "chat stream": chat_stream,
    "responses": responses,
    "responses stream": responses_stream,
    "embeddings": embeddings,
    "async chat": async_chat,
    "async chat stream": async_chat_stream,
    "async responses stream": async_responses_stream,
}

COMMANDS = {
    "c": (openai.BadRequestError, 400, "context_length_exceeded"),
    "r": (openai.RateLimitError, 429, "rate_limit_exceeded"),
    "u": (openai.InternalServerError, 500, "internal_server_error"),
}

KINDS: dict[str, tuple[type[openai.APIStatusError], int, str | None]] = {
    "context_length": (openai.BadRequestError, 400, "context_length_exceeded"),
    "rate_limit": (openai.RateLimitError, 429, "rate_limit_exceeded"),
    "server_error": (openai.InternalServerError, 500, "internal_server_error"),
    "overloaded": (openai.InternalServerError, 503, "server_is_overloaded"),
    "quota": (openai.RateLimitError, 429, "insufficient_quota"),
    "authentication": (openai.AuthenticationError, 401, "invalid_api_key"),
    "permission": (openai.PermissionDeniedError, 403, "unsupported_country_region_territory"),
    "not_found": (openai.NotFoundError, 404, "model_not_found"),
    "content_filter": (openai.BadRequestError, 400, "content_policy_violation"),
    "too_large": (openai.APIStatusError, 413, "request_too_large"),
    "bad_gateway": (openai.InternalServerError, 502, None),
    "gateway_timeout": (openai.InternalServerError, 504, None),
}


@pytest.fixture(scope="module")
def client(sandbox: Daemon) -> OpenAI:
    return OpenAI(base_url=sandbox.url + "/v1", api_key="sk-test", max_retries=0)


@pytest.mark.parametrize("way", WAYS)
def test_with_n_every_call_succeeds(way: str, proxy: Daemon, client: OpenAI) -> None:
    assert WAYS[way](client) == ECHO


@pytest.mark.parametrize("letter", COMMANDS)
@pytest.mark.parametrize("way", WAYS)
def test_with_a_letter_every_call_raises_its_class_with_its_code(
    letter: str, way: str, proxy: Daemon, client: OpenAI
) -> None:
    proxy.command(f"{letter} *")
    kind, status, code = COMMANDS[letter]
    with pytest.raises(openai.APIStatusError) as caught:
        WAYS[way](client)
    assert type(caught.value) is kind
    assert (caught.value.status_code, caught.value.code) == (status, code)
    assert caught.value.request_id
    assert caught.value.response.headers["x-llmproxyd-error"] == "injected"


@pytest.mark.parametrize("way", ["chat", "chat stream"])
@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_error_has_its_class_and_status(
    name: str, way: str, proxy: Daemon, client: OpenAI
) -> None:
    proxy.command(f"error {name} *")
    kind, status, code = KINDS[name]
    with pytest.raises(openai.APIStatusError) as caught:
        WAYS[way](client)
    assert type(caught.value) is kind
    assert (caught.value.status_code, caught.value.code) == (status, code)


def test_a_context_error_of_responses_speaks_of_the_input(proxy: Daemon, client: OpenAI) -> None:
    proxy.command("c *")
    with pytest.raises(openai.BadRequestError, match="context window") as caught:
        responses(client)
    assert caught.value.param == "input"
    with pytest.raises(openai.BadRequestError, match="maximum context length") as caught:
        chat(client)
    assert caught.value.param == "messages"


def test_model_lists_go_through_while_every_request_fails(proxy: Daemon, client: OpenAI) -> None:
    for letter in "cru":
        proxy.command(f"{letter} *")
        assert "gpt-4o" in [model.id for model in client.models.list()]
        assert client.models.retrieve("gpt-4o").id == "gpt-4o"


def test_a_single_rate_limit_is_invisible_to_a_client_that_retries(proxy: Daemon, client: OpenAI) -> None:
    patient = client.with_options(max_retries=2)
    said = proxy.command("r retry_after=0")
    assert "Clients retry this error by themselves" in said
    assert chat(patient) == ECHO
    assert "No error" in proxy.command("status")


def test_three_rate_limits_fail_a_call_of_a_client_that_retries_twice(proxy: Daemon, client: OpenAI) -> None:
    patient = client.with_options(max_retries=2)
    proxy.command("r 3 retry_after=0")
    with pytest.raises(openai.RateLimitError) as caught:
        chat(patient)
    assert caught.value.response.request.headers["x-stainless-retry-count"] == "2"
    assert "No error" in proxy.command("status")
    assert chat(patient) == ECHO


def test_a_tool_is_called_when_the_message_asks_for_it(proxy: Daemon, client: OpenAI) -> None:
    tools: Any = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
    messages: Any = [{"role": "user", "content": 'call weather {"city": "Oslo"}'}]
    answer = client.chat.completions.create(model="gpt-4o", messages=messages, tools=tools)
    calls: Any = answer.choices[0].message.tool_calls
    assert [call.function.name for call in calls] == ["weather"]
    assert json.loads(calls[0].function.arguments) == {"city": "Oslo"}
