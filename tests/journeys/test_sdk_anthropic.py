"""The official Anthropic SDK through the proxy."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic, AsyncAnthropic
from daemon import Daemon
from raw import MESSAGES

MESSAGE: Any = {"model": "claude-x", "max_tokens": 64, "messages": MESSAGES}
ECHO = "You said: tell me a joke"


def text_of(message: Any) -> str:
    assert message.stop_reason == "end_turn"
    assert message.usage.output_tokens > 0
    return str(message.content[0].text)


def create(client: Anthropic) -> str:
    return text_of(client.messages.create(**MESSAGE))


def create_stream(client: Anthropic) -> str:
    events = list(client.messages.create(**MESSAGE, stream=True))
    assert (events[0].type, events[-1].type) == ("message_start", "message_stop")
    parts: list[Any] = [event for event in events if event.type == "content_block_delta"]
    return "".join(part.delta.text for part in parts)


def stream(client: Anthropic) -> str:
    with client.messages.stream(**MESSAGE) as events:
        text = "".join(events.text_stream)
        assert text == text_of(events.get_final_message())
    return text


def asynchronously(work: Callable[[AsyncAnthropic], Awaitable[str]]) -> Callable[[Anthropic], str]:
    """*work* on an asynchronous client with the settings of a synchronous one."""

    def run(client: Anthropic) -> str:
        async def main() -> str:
            async with AsyncAnthropic(
                base_url=str(client.base_url), api_key=client.api_key, max_retries=client.max_retries
            ) as other:
                return await work(other)

        return asyncio.run(main())

    return run


@asynchronously
async def async_create(client: AsyncAnthropic) -> str:
    return text_of(await client.messages.create(**MESSAGE))


@asynchronously
async def async_stream(client: AsyncAnthropic) -> str:
    async with client.messages.stream(**MESSAGE) as events:
        return "".join([text async for text in events.text_stream])


WAYS = {
    "create": create,
    "create stream": create_stream,
    "stream": stream,
    "async create": async_create,
    "async stream": async_stream,
}

Expected = tuple[type[anthropic.APIStatusError], int, str, str]
CONTEXT: Expected = (anthropic.BadRequestError, 400, "invalid_request_error", "prompt is too long")
RATE: Expected = (anthropic.RateLimitError, 429, "rate_limit_error", "rate limit")
OVERLOADED: Expected = (anthropic.OverloadedError, 529, "overloaded_error", "Overloaded")
COMMANDS = {"c": CONTEXT, "r": RATE, "u": OVERLOADED}

KINDS: dict[str, Expected] = {
    "context_length": CONTEXT,
    "rate_limit": RATE,
    "server_error": (anthropic.InternalServerError, 500, "api_error", "server error"),
    "overloaded": OVERLOADED,
    "quota": (anthropic.BadRequestError, 400, "invalid_request_error", "credit balance is too low"),
    "authentication": (anthropic.AuthenticationError, 401, "authentication_error", "invalid x-api-key"),
    "permission": (anthropic.PermissionDeniedError, 403, "permission_error", "permission"),
    "not_found": (anthropic.NotFoundError, 404, "not_found_error", "model: claude"),
    "content_filter": (anthropic.BadRequestError, 400, "invalid_request_error", "content filtering policy"),
    "too_large": (anthropic.RequestTooLargeError, 413, "request_too_large", "exceeds"),
    "bad_gateway": (anthropic.InternalServerError, 502, "", "Bad Gateway"),
    "gateway_timeout": (anthropic.GatewayTimeoutError, 504, "timeout_error", "timed out"),
}


@pytest.fixture(scope="module")
def client(sandbox: Daemon) -> Anthropic:
    return Anthropic(base_url=sandbox.url, api_key="sk-ant-test", max_retries=0)


def fails(work: Callable[[Anthropic], str], client: Anthropic, expected: Expected) -> None:
    kind, status, name, words = expected
    with pytest.raises(anthropic.APIStatusError) as caught:
        work(client)
    error = caught.value
    assert type(error) is kind
    assert error.status_code == status
    assert words in str(error)
    assert error.request_id
    if name:
        body: Any = error.body
        assert (body["type"], body["error"]["type"]) == ("error", name)
        assert body["request_id"] == error.request_id


@pytest.mark.parametrize("way", WAYS)
def test_with_n_every_call_succeeds(way: str, proxy: Daemon, client: Anthropic) -> None:
    assert WAYS[way](client) == ECHO


@pytest.mark.parametrize("letter", COMMANDS)
@pytest.mark.parametrize("way", WAYS)
def test_with_a_letter_every_call_raises_its_class_with_its_words(
    letter: str, way: str, proxy: Daemon, client: Anthropic
) -> None:
    proxy.command(f"{letter} *")
    fails(WAYS[way], client, COMMANDS[letter])


@pytest.mark.parametrize("way", ["create", "stream"])
@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_error_has_its_class_and_status(
    name: str, way: str, proxy: Daemon, client: Anthropic
) -> None:
    proxy.command(f"error {name} *")
    fails(WAYS[way], client, KINDS[name])


def test_model_lists_and_token_counts_go_through_while_every_request_fails(
    proxy: Daemon, client: Anthropic
) -> None:
    for letter in "cru":
        proxy.command(f"{letter} *")
        assert len(list(client.models.list())) > 1
        assert client.models.retrieve("claude-x").id == "claude-x"
        assert client.messages.count_tokens(model="claude-x", messages=MESSAGE["messages"]).input_tokens == 4


def test_a_single_overload_is_invisible_to_a_client_that_retries(proxy: Daemon, client: Anthropic) -> None:
    proxy.command("u retry_after=0.01")
    assert create(client.with_options(max_retries=2)) == ECHO
    assert "No error" in proxy.command("status")


def test_three_overloads_fail_a_call_of_a_client_that_retries_twice(proxy: Daemon, client: Anthropic) -> None:
    proxy.command("u 3 retry_after=0.01")
    fails(create, client.with_options(max_retries=2), OVERLOADED)
    assert "No error" in proxy.command("status")
