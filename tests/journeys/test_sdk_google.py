"""The official Google Gen AI SDK through the proxy."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
import raw
from daemon import Daemon
from google import genai
from google.genai import types
from google.genai.errors import APIError, ClientError, ServerError

MODEL = "gemini-2.5-flash"
ECHO = "You said: tell me a joke"
JOKE = "tell me a joke"


def generate(client: genai.Client) -> str:
    answer = client.models.generate_content(model=MODEL, contents=JOKE)
    assert answer.usage_metadata is not None
    assert answer.usage_metadata.total_token_count
    return answer.text or ""


def stream(client: genai.Client) -> str:
    chunks = list(client.models.generate_content_stream(model=MODEL, contents=JOKE))
    return "".join(chunk.text or "" for chunk in chunks)


def embed(client: genai.Client) -> str:
    found = client.models.embed_content(model="gemini-embedding-001", contents=JOKE).embeddings
    assert found
    assert found[0].values
    return ECHO


def asynchronously(work: Callable[[genai.Client], Awaitable[str]]) -> Callable[[genai.Client], str]:
    return lambda client: asyncio.run(_alone(work, client))


async def _alone(work: Callable[[genai.Client], Awaitable[str]], client: genai.Client) -> str:
    """*work* on a client of its own: one is bound to the event loop that it was first used in."""
    base = client._api_client._http_options.base_url
    other = genai.Client(api_key="AIza-test", http_options=types.HttpOptions(base_url=base))
    try:
        return await work(other)
    finally:
        await other.aio.aclose()


@asynchronously
async def async_generate(client: genai.Client) -> str:
    return (await client.aio.models.generate_content(model=MODEL, contents=JOKE)).text or ""


@asynchronously
async def async_stream(client: genai.Client) -> str:
    chunks = await client.aio.models.generate_content_stream(model=MODEL, contents=JOKE)
    return "".join([chunk.text or "" async for chunk in chunks])


WAYS = {
    "generate": generate,
    "stream": stream,
    "embed": embed,
    "async generate": async_generate,
    "async stream": async_stream,
}

Expected = tuple[type[APIError], int, str | None]
COMMANDS: dict[str, Expected] = {
    "c": (ClientError, 400, "INVALID_ARGUMENT"),
    "r": (ClientError, 429, "RESOURCE_EXHAUSTED"),
    "u": (ServerError, 503, "UNAVAILABLE"),
}

KINDS: dict[str, Expected] = {
    "context_length": (ClientError, 400, "INVALID_ARGUMENT"),
    "rate_limit": (ClientError, 429, "RESOURCE_EXHAUSTED"),
    "server_error": (ServerError, 500, "INTERNAL"),
    "overloaded": (ServerError, 503, "UNAVAILABLE"),
    "quota": (ClientError, 429, "RESOURCE_EXHAUSTED"),
    "authentication": (ClientError, 400, "INVALID_ARGUMENT"),
    "permission": (ClientError, 403, "PERMISSION_DENIED"),
    "not_found": (ClientError, 404, "NOT_FOUND"),
    "too_large": (ClientError, 400, "INVALID_ARGUMENT"),
    "bad_gateway": (ServerError, 502, None),
    "gateway_timeout": (ServerError, 504, "DEADLINE_EXCEEDED"),
}


@pytest.fixture(scope="module")
def client(sandbox: Daemon) -> genai.Client:
    return genai.Client(api_key="AIza-test", http_options=types.HttpOptions(base_url=sandbox.url))


def fails(work: Callable[[genai.Client], str], client: genai.Client, expected: Expected) -> APIError:
    kind, code, status = expected
    with pytest.raises(APIError) as caught:
        work(client)
    assert type(caught.value) is kind
    assert caught.value.code == code
    if status is not None:
        assert caught.value.status == status
    return caught.value


@pytest.mark.parametrize("way", WAYS)
def test_with_n_every_call_succeeds(way: str, proxy: Daemon, client: genai.Client) -> None:
    assert WAYS[way](client) == ECHO


@pytest.mark.parametrize("letter", COMMANDS)
@pytest.mark.parametrize("way", WAYS)
def test_with_a_letter_every_call_raises_its_class_with_its_status(
    letter: str, way: str, proxy: Daemon, client: genai.Client
) -> None:
    proxy.command(f"{letter} *")
    error = fails(WAYS[way], client, COMMANDS[letter])
    if letter == "c":
        assert "exceeds the maximum number of tokens" in str(error)


@pytest.mark.parametrize("way", ["generate", "stream"])
@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_error_has_its_class_and_status(
    name: str, way: str, proxy: Daemon, client: genai.Client
) -> None:
    proxy.command(f"error {name} *")
    fails(WAYS[way], client, KINDS[name])


def test_filtered_content_is_a_blocked_prompt_and_no_error(proxy: Daemon, client: genai.Client) -> None:
    proxy.command("error content_filter *")
    chunks = list(client.models.generate_content_stream(model=MODEL, contents=JOKE))
    for answer in (client.models.generate_content(model=MODEL, contents=JOKE), *chunks):
        assert answer.prompt_feedback is not None
        assert answer.prompt_feedback.block_reason == types.BlockedReason.PROHIBITED_CONTENT
        assert not answer.candidates
    assert len(chunks) == 1


@pytest.mark.parametrize("letter", COMMANDS)
@pytest.mark.parametrize("query", ["", "?key=AIzaX", "?alt=json"])
def test_a_stream_without_events_gets_its_error_as_an_array_of_one(
    letter: str, query: str, proxy: Daemon
) -> None:
    proxy.command(f"{letter} *")
    answer = raw.google(proxy.url, method="streamGenerateContent", query=query)
    _, code, status = COMMANDS[letter]
    assert answer.status == code
    assert answer.headers["content-type"] == "application/json"
    assert [(one["error"]["code"], one["error"]["status"]) for one in answer.json] == [(code, status)]


def test_a_stream_of_events_gets_its_error_as_an_object(proxy: Daemon) -> None:
    proxy.command("r *")
    answer = raw.google(proxy.url, method="streamGenerateContent", query="?alt=sse")
    assert (answer.status, answer.headers["content-type"]) == (429, "application/json")
    assert answer.error["status"] == "RESOURCE_EXHAUSTED"


def test_a_stream_without_events_is_one_array(proxy: Daemon) -> None:
    answer = raw.google(proxy.url, method="streamGenerateContent")
    assert answer.headers["content-type"] == "application/json"
    parts = [one["candidates"][0]["content"]["parts"] for one in answer.json]
    assert len(parts) > 2
    assert "".join(part["text"] for some in parts for part in some) == ECHO


@pytest.mark.parametrize("version", ["/v1", "/v1beta", ""])
def test_errors_are_googles_at_every_version(version: str, proxy: Daemon) -> None:
    proxy.command("u *")
    body = {"contents": [{"parts": [{"text": JOKE}]}]}
    answer = raw.ask(proxy.url, f"{version}/models/{MODEL}:generateContent?key=AIzaX", {}, body)
    assert (answer.status, answer.error["status"]) == (503, "UNAVAILABLE")


def test_a_delay_stands_in_the_body(proxy: Daemon) -> None:
    proxy.command("r retry_after=7")
    details = raw.google(proxy.url).error["details"]
    assert [one["retryDelay"] for one in details if one["@type"].endswith(".RetryInfo")] == ["7s"]


def test_model_lists_and_token_counts_go_through_while_every_request_fails(
    proxy: Daemon, client: genai.Client
) -> None:
    for letter in "cru":
        proxy.command(f"{letter} *")
        assert f"models/{MODEL}" in [model.name for model in client.models.list()]
        assert client.models.get(model=MODEL).name == f"models/{MODEL}"
        assert client.models.count_tokens(model=MODEL, contents=JOKE).total_tokens == 4
