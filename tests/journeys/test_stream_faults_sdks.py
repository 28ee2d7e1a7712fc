"""What the official SDKs make of each fault in a stream: what their users have to be ready for."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from daemon import Daemon
from google import genai
from google.genai import types
from google.genai.errors import ClientError, ServerError, UnknownApiResponseError
from raw import MESSAGES

WORDS = ["You", " said:", " tell", " me", " a", " joke"]
PATIENCE = 20.0
"""Seconds that a client waits, where it is not to give up."""


def chat(url: str, patience: float = PATIENCE, **more: Any) -> Iterator[str]:
    """OpenAI's chat completions; usage is told as ``#``."""
    client = openai.OpenAI(base_url=url + "/v1", api_key="sk-test", max_retries=0, timeout=patience)
    asked: Any = {"model": "gpt-4o", "messages": MESSAGES, "stream_options": {"include_usage": True}}
    with client, client.chat.completions.create(**asked, **more, stream=True) as stream:
        for chunk in stream:
            yield "".join(choice.delta.content or "" for choice in chunk.choices)
            if chunk.usage is not None:
                yield "#"


def responses(url: str, patience: float = PATIENCE) -> Iterator[str]:
    """OpenAI's responses."""
    client = openai.OpenAI(base_url=url + "/v1", api_key="sk-test", max_retries=0, timeout=patience)
    with client, client.responses.create(model="gpt-4o", input="tell me a joke", stream=True) as stream:
        for event in stream:
            if event.type == "response.output_text.delta":
                yield event.delta
            elif event.type == "response.completed" and event.response.usage is not None:
                yield "#"


def messages(url: str, patience: float = PATIENCE) -> Iterator[str]:
    """Anthropic's messages."""
    client = anthropic.Anthropic(base_url=url, api_key="sk-ant-test", max_retries=0, timeout=patience)
    asked: Any = {"model": "claude-x", "max_tokens": 64, "messages": MESSAGES}
    with client, client.messages.create(**asked, stream=True) as stream:
        for event in stream:
            if event.type == "content_block_delta" and event.delta.type == "text_delta":
                yield event.delta.text
            elif event.type == "message_delta" and event.usage and event.usage.output_tokens:
                yield "#"


def gemini(url: str, patience: float = PATIENCE) -> Iterator[str]:
    """Gemini's streamGenerateContent; only the last event's usage is told."""
    options = types.HttpOptions(base_url=url, timeout=int(patience * 1000))
    client = genai.Client(api_key="AIza-test", http_options=options)
    chunks = client.models.generate_content_stream(model="gemini-2.5-flash", contents="tell me a joke")
    for chunk in chunks:
        yield chunk.text or ""
        if chunk.usage_metadata and chunk.candidates and chunk.candidates[0].finish_reason:
            yield "#"


Api = Callable[..., Iterator[str]]
APIS: dict[str, Api] = {"chat": chat, "responses": responses, "messages": messages, "gemini": gemini}
each_api = pytest.mark.parametrize("api", APIS)


def heard(stream: Iterator[str]) -> tuple[list[str], Exception | None]:
    """What was said, and what was raised in the end."""
    said: list[str] = []
    try:
        # One by one, so that what came before an error is there.
        for text in filter(None, stream):
            said.append(text)
    except Exception as error:
        return said, error
    return said, None


def chain(error: BaseException | None) -> list[type[BaseException]]:
    """The classes of *error* and of what it came from."""
    found = []
    while error is not None:
        found.append(type(error))
        error = error.__cause__
    return found


@pytest.fixture(autouse=True)
def _ends_clear(proxy: Daemon) -> Iterator[None]:
    yield
    proxy.command("n")


@each_api
def test_without_a_fault_all_of_it_comes(api: str, proxy: Daemon) -> None:
    assert heard(APIS[api](proxy.url)) == ([*WORDS, "#"], None)


@pytest.mark.parametrize("kind", ["cut", "reset"])
@each_api
def test_a_connection_that_breaks_is_an_error_of_the_connection(api: str, kind: str, proxy: Daemon) -> None:
    proxy.command(f"{kind} * at=2")
    said, error = heard(APIS[api](proxy.url))
    assert said == WORDS[:2]
    expected = httpx2.RemoteProtocolError if kind == "cut" else httpx2.ReadError
    # Newer releases of OpenAI's wrap it.
    assert expected in chain(error)
    if isinstance(error, openai.OpenAIError):
        assert isinstance(error, openai.APIConnectionError)


@pytest.mark.parametrize(("at", "words"), [("2", WORDS[:2]), ("end", WORDS)])
@each_api
def test_an_end_without_the_terminator_is_a_silent_success(
    api: str, at: str, words: list[str], proxy: Daemon
) -> None:
    proxy.command(f"truncate * at={at}")
    said, error = heard(APIS[api](proxy.url))
    assert [word for word in said if word != "#"] == words
    assert error is None


@each_api
def test_an_error_within_the_stream(api: str, proxy: Daemon) -> None:
    proxy.command("stream_error * at=2 error=overloaded")
    said, error = heard(APIS[api](proxy.url))
    assert said == WORDS[:2]
    if api in ("chat", "responses"):
        assert type(error) is openai.APIError
        assert "overloaded" in error.message
    elif api == "messages":
        assert type(error) is anthropic.APIStatusError
        assert (error.status_code, error.type) == (200, "overloaded_error")
    else:
        assert type(error) is ServerError
        assert error.code == 503


@each_api
def test_an_event_that_is_no_json(api: str, proxy: Daemon) -> None:
    proxy.command("garbage * at=2")
    said, error = heard(APIS[api](proxy.url))
    assert said == WORDS[:2]
    assert type(error) is (UnknownApiResponseError if api == "gemini" else json.JSONDecodeError)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("duplicate", ["You", " said:", " tell", " tell", " me", " a", " joke", "#"]),
        ("reorder", ["You", " said:", " me", " tell", " a", " joke", "#"]),
    ],
)
@each_api
def test_events_that_come_twice_or_too_late_are_taken_as_they_come(
    api: str, kind: str, words: list[str], proxy: Daemon
) -> None:
    proxy.command(f"{kind} * at=2")
    assert heard(APIS[api](proxy.url)) == (words, None)


@each_api
def test_without_usage_the_rest_is_as_ever(api: str, proxy: Daemon) -> None:
    proxy.command("no_usage *")
    assert heard(APIS[api](proxy.url)) == (WORDS, None)


@each_api
def test_a_stream_without_content_is_a_success(api: str, proxy: Daemon) -> None:
    proxy.command("empty *")
    said, error = heard(APIS[api](proxy.url))
    assert [word for word in said if word != "#"] == []
    assert error is None


@pytest.mark.parametrize("command", ["stall * at=2 for=300ms", "slow * per_event=50ms", "delay * for=300ms"])
@each_api
def test_what_is_only_late_is_waited_for(api: str, command: str, proxy: Daemon) -> None:
    proxy.command(command)
    start = time.monotonic()
    assert heard(APIS[api](proxy.url)) == ([*WORDS, "#"], None)
    assert time.monotonic() - start >= 0.25


LATE = {
    "chat": (openai.APITimeoutError, httpx2.ReadTimeout),
    "responses": (openai.APITimeoutError, httpx2.ReadTimeout),
    "messages": (anthropic.APITimeoutError, httpx2.ReadTimeout),
    "gemini": (httpx2.ReadTimeout, httpx2.ReadTimeout),
}


@pytest.mark.parametrize("command", ["stall * at=2", "never *"])
@each_api
def test_a_silence_is_ended_by_the_clients_own_timeout(api: str, command: str, proxy: Daemon) -> None:
    proxy.command(command)
    start = len(proxy.output)
    said, error = heard(APIS[api](proxy.url, 1.0))
    assert said == (WORDS[:2] if command.startswith("stall") else [])
    assert set(LATE[api]) & set(chain(error))
    proxy.wait_for("client_gone", start)


@each_api
def test_a_connection_closed_without_an_answer(api: str, proxy: Daemon) -> None:
    proxy.command("refuse *")
    said, error = heard(APIS[api](proxy.url))
    assert said == []
    assert httpx2.RemoteProtocolError in chain(error)


@each_api
def test_any_status_is_that_status(api: str, proxy: Daemon) -> None:
    proxy.command("status=418 *")
    said, error = heard(APIS[api](proxy.url))
    assert said == []
    if api == "gemini":
        assert isinstance(error, ClientError)
        assert error.code == 418
    else:
        assert isinstance(error, openai.APIStatusError | anthropic.APIStatusError)
        assert error.status_code == 418


def test_a_length_that_is_too_large_breaks_the_answer(proxy: Daemon) -> None:
    proxy.command("wrong_length *")
    client = openai.OpenAI(base_url=proxy.url + "/v1", api_key="sk-test", max_retries=0, timeout=PATIENCE)
    with client, pytest.raises(openai.APIConnectionError) as caught:
        client.chat.completions.create(model="gpt-4o", messages=MESSAGES)  # type: ignore[arg-type]
    assert httpx2.RemoteProtocolError in chain(caught.value)


@each_api
def test_our_own_retries_absorb_what_the_upstream_is_made_to_do(api: str, tmp_path: Any) -> None:
    file = tmp_path / "llmproxyd.yaml"
    file.write_text("resilience: {default: {retry: {max_retries: 2, base_delay: 10ms, retry_empty: true}}}\n")
    with Daemon("--sandbox", "--config", str(file)) as daemon:
        for command in (
            "cut 1 at=start place=upstream",
            "truncate 1 at=start place=upstream",
            "stream_error 1 at=start error=overloaded place=upstream",
            "refuse 1 place=upstream",
            "u 1 place=upstream",
            "status=503 1 place=upstream",
        ):
            daemon.command(command)
            start = len(daemon.output)
            assert heard(APIS[api](daemon.url)) == ([*WORDS, "#"], None), command
            daemon.wait_for("injected", start)


# Within the arguments of a call of a tool.

CITY = {"city": "Paris", "unit": "celsius", "days": [1, 2, 3]}
CALL = f"call get_weather {json.dumps(CITY)}"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}


def chat_call(url: str) -> Iterator[str]:
    client = openai.OpenAI(base_url=url + "/v1", api_key="sk-test", max_retries=0)
    tools: Any = [{"type": "function", "function": {"name": "get_weather", "parameters": SCHEMA}}]
    asked: Any = {"model": "gpt-4o", "messages": [{"role": "user", "content": CALL}], "tools": tools}
    for chunk in client.chat.completions.create(**asked, stream=True):
        for choice in chunk.choices:
            for call in choice.delta.tool_calls or ():
                yield (call.function.arguments if call.function else None) or ""


def responses_call(url: str) -> Iterator[str]:
    client = openai.OpenAI(base_url=url + "/v1", api_key="sk-test", max_retries=0)
    tools: Any = [{"type": "function", "name": "get_weather", "parameters": SCHEMA, "strict": False}]
    for event in client.responses.create(model="gpt-4o", input=CALL, tools=tools, stream=True):
        if event.type == "response.function_call_arguments.delta":
            yield event.delta


def messages_call(url: str) -> Iterator[str]:
    client = anthropic.Anthropic(base_url=url, api_key="sk-ant-test", max_retries=0)
    asked: Any = {
        "model": "claude-x",
        "max_tokens": 64,
        "messages": [{"role": "user", "content": CALL}],
        "tools": [{"name": "get_weather", "input_schema": SCHEMA}],
    }
    for event in client.messages.create(**asked, stream=True):
        if event.type == "content_block_delta" and event.delta.type == "input_json_delta":
            yield event.delta.partial_json


def gemini_call(url: str) -> Iterator[str]:
    """Its arguments come in one piece."""
    client = genai.Client(api_key="AIza-test", http_options=types.HttpOptions(base_url=url))
    declared = types.FunctionDeclaration(name="get_weather", parameters_json_schema=SCHEMA)
    config = types.GenerateContentConfig(
        tools=[types.Tool(function_declarations=[declared])],
        automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
    )
    chunks = client.models.generate_content_stream(model="gemini-2.5-flash", contents=CALL, config=config)
    for chunk in chunks:
        for call in chunk.function_calls or ():
            yield json.dumps(call.args)


CALLS: dict[str, Callable[[str], Iterator[str]]] = {
    "chat": chat_call,
    "responses": responses_call,
    "messages": messages_call,
    "gemini": gemini_call,
}


@pytest.mark.parametrize("api", CALLS)
def test_a_call_of_a_tool_comes_whole_without_a_fault(api: str, proxy: Daemon) -> None:
    said, error = heard(CALLS[api](proxy.url))
    assert error is None
    assert json.loads("".join(said)) == CITY


@pytest.mark.parametrize("api", CALLS)
def test_a_cut_within_the_arguments_of_a_call_leaves_no_whole_call(api: str, proxy: Daemon) -> None:
    proxy.command("cut * at=tool")
    said, error = heard(CALLS[api](proxy.url))
    assert httpx2.RemoteProtocolError in chain(error)
    arguments = "".join(said)
    if api == "gemini":
        assert arguments == ""
    else:
        assert arguments
        assert arguments.startswith('{"city"')
        with pytest.raises(ValueError):
            json.loads(arguments)
