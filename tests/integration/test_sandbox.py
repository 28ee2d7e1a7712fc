"""The sandbox on a real socket, asked by the providers' official clients."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from http.client import HTTPConnection

import pytest

anthropic = pytest.importorskip("anthropic")
openai = pytest.importorskip("openai")
genai = pytest.importorskip("google.genai")

SERVER = """
from twisted.internet import reactor
from llmproxyd.config.schema import SandboxSettings
from llmproxyd.sandbox.site import make_site
port = reactor.listenTCP(0, make_site(reactor, SandboxSettings(enabled=True)), interface="127.0.0.1")
print(port.getHost().port, flush=True)
reactor.run()
"""
USER = [{"role": "user", "content": "hello wide world"}]
SAID = "You said: hello wide world"
CALL = [{"role": "user", "content": 'call weather {"city": "Bern"}'}]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
FUNCTION = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def url(port: int) -> str:
    return f"http://127.0.0.1:{port}"


def request(
    port: int, method: str, path: str, body: bytes | None = None
) -> tuple[int, dict[str, str], bytes]:
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, {key.lower(): value for key, value in response.getheaders()}, response.read()
    finally:
        connection.close()


def post(port: int, path: str, body: object) -> dict:
    status, _, data = request(port, "POST", path, json.dumps(body).encode())
    assert status == 200, data
    return json.loads(data)


# OpenAI


@pytest.fixture(scope="module")
def gpt(url: str) -> Iterator:
    with openai.OpenAI(base_url=url + "/openai/v1", api_key="any", max_retries=0) as client:
        yield client


def test_openai_chat(gpt) -> None:
    answer = gpt.chat.completions.create(model="gpt-x", messages=USER)
    assert (answer.model, answer.choices[0].message.content) == ("gpt-x", SAID)
    assert (answer.choices[0].finish_reason, answer.usage.total_tokens) == ("stop", 3 + 5)


def test_openai_chat_stream(gpt) -> None:
    stream = gpt.chat.completions.create(
        model="gpt-x", messages=USER, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    deltas = [
        chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content
    ]
    assert "".join(deltas) == SAID
    assert len(deltas) == 5
    assert chunks[-1].usage.completion_tokens == 5


def test_openai_async(url: str) -> None:
    async def converse() -> str:
        async with openai.AsyncOpenAI(base_url=url + "/openai/v1", api_key="any") as client:
            stream = await client.chat.completions.create(model="m", messages=USER, stream=True)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    assert asyncio.run(converse()) == SAID


def test_openai_tools(gpt) -> None:
    answer = gpt.chat.completions.create(model="m", messages=CALL, tools=[FUNCTION])
    call = answer.choices[0].message.tool_calls[0]
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "Bern"})
    result = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
    history = [*CALL, answer.choices[0].message, result]
    answer = gpt.chat.completions.create(model="m", messages=history, tools=[FUNCTION])
    assert answer.choices[0].message.content == "Tool result received: sunny"


def test_openai_tools_stream(gpt) -> None:
    with gpt.chat.completions.stream(model="m", messages=CALL, tools=[FUNCTION]) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].finish_reason == "tool_calls"
    assert json.loads(final.choices[0].message.tool_calls[0].function.arguments) == {"city": "Bern"}


def test_openai_responses(gpt) -> None:
    answer = gpt.responses.create(model="m", input="hello wide world", instructions="be brief")
    assert (answer.output_text, answer.status, answer.usage.output_tokens) == (SAID, "completed", 5)
    items = gpt.responses.create(
        model="m", input=[{"role": "user", "content": [{"type": "input_text", "text": "x"}]}]
    )
    assert items.output_text == "You said: x"


def test_openai_responses_stream(gpt) -> None:
    events = list(gpt.responses.create(model="m", input="hello wide world", stream=True))
    kinds = [event.type for event in events]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] == "response.completed"
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == SAID
    assert events[-1].response.output_text == SAID


def test_openai_responses_tools(gpt) -> None:
    tool = {"type": "function", "name": "weather", "parameters": SCHEMA, "strict": False}
    with gpt.responses.stream(model="m", input=CALL, tools=[tool]) as stream:
        call = stream.get_final_response().output[0]
    assert (call.type, call.name, json.loads(call.arguments)) == (
        "function_call",
        "weather",
        {"city": "Bern"},
    )
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    answer = gpt.responses.create(model="m", input=[*CALL, call.model_dump(exclude_none=True), result])
    assert answer.output_text == "Tool result received: sunny"


def test_openai_completions_embeddings_and_models(gpt) -> None:
    assert gpt.completions.create(model="m", prompt="hi").choices[0].text == "You said: hi"
    stream = gpt.completions.create(model="m", prompt="hi", stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == "You said: hi"
    found = gpt.embeddings.create(model="e", input=["a", "b", "a"], dimensions=5).data
    assert [len(item.embedding) for item in found] == [5, 5, 5]
    assert found[0].embedding == found[2].embedding != found[1].embedding
    plain = gpt.embeddings.create(model="e", input="a", dimensions=5, encoding_format="float").data
    assert plain[0].embedding == pytest.approx(found[0].embedding)
    assert "sandbox-echo" in [model.id for model in gpt.models.list()]
    assert gpt.models.retrieve("gpt-x").id == "gpt-x"


def test_openai_headers(gpt) -> None:
    raw = gpt.chat.completions.with_raw_response.create(model="m", messages=USER)
    assert raw.headers["x-request-id"].startswith("req_sandbox-")
    assert raw.headers["content-type"] == "application/json"
    assert "x-ratelimit-remaining-requests" in raw.headers
    assert "server" not in raw.headers


def test_openai_errors(gpt) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        gpt.chat.completions.create(model="m", messages=[])
    assert caught.value.code == "sandbox_bad_request"
    with pytest.raises(openai.NotFoundError, match="does not know the path /v1/files"):
        gpt.files.list()


@pytest.mark.parametrize(
    "base",
    [
        "/openrouter/api/v1",
        "/tetrate/v1",
        "/groq/openai/v1",
        "/deepseek",
        "/fireworks/v1",
        "/google/v1beta/openai",
    ],
)
def test_compatible_providers(url: str, base: str) -> None:
    with openai.OpenAI(base_url=url + base, api_key="any") as client:
        assert client.chat.completions.create(model="m", messages=USER).choices[0].message.content == SAID
        stream = client.chat.completions.create(model="m", messages=USER, stream=True)
        chunks = [chunk for chunk in stream if chunk.choices]
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == SAID
        assert client.models.list().data


def test_azure(url: str) -> None:
    with openai.AzureOpenAI(azure_endpoint=url + "/azure", api_key="any", api_version="2024-10-21") as client:
        assert client.chat.completions.create(model="d", messages=USER).choices[0].message.content == SAID


# Anthropic


@pytest.fixture(scope="module")
def claude(url: str) -> Iterator:
    with anthropic.Anthropic(base_url=url + "/anthropic", api_key="any", max_retries=0) as client:
        yield client


def test_anthropic_messages(claude) -> None:
    answer = claude.messages.create(model="claude-x", max_tokens=99, messages=USER)
    assert (answer.model, answer.content[0].text, answer.stop_reason) == ("claude-x", SAID, "end_turn")
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (3, 5)


def test_anthropic_stream(claude) -> None:
    with claude.messages.stream(model="m", max_tokens=99, messages=USER) as stream:
        assert list(stream.text_stream) == ["You", " said:", " hello", " wide", " world"]
        assert stream.get_final_message().usage.output_tokens == 5


def test_anthropic_tools(claude) -> None:
    tools = [{"name": "weather", "input_schema": SCHEMA}]
    answer = claude.messages.create(model="m", max_tokens=99, messages=CALL, tools=tools)
    assert (answer.stop_reason, answer.content[0].input) == ("tool_use", {"city": "Bern"})
    with claude.messages.stream(model="m", max_tokens=99, messages=CALL, tools=tools) as stream:
        final = stream.get_final_message()
    assert (final.stop_reason, final.content[0].input) == ("tool_use", {"city": "Bern"})
    result = {"type": "tool_result", "tool_use_id": final.content[0].id, "content": "sunny"}
    history = [*CALL, {"role": "assistant", "content": final.content}, {"role": "user", "content": [result]}]
    answer = claude.messages.create(model="m", max_tokens=99, messages=history, tools=tools)
    assert answer.content[0].text == "Tool result received: sunny"


def test_anthropic_count_models_and_errors(claude) -> None:
    assert claude.messages.count_tokens(model="m", messages=USER, system="be brief").input_tokens == 5
    assert "sandbox-echo" in [model.id for model in claude.models.list()]
    assert claude.models.retrieve("claude-x").id == "claude-x"
    with pytest.raises(anthropic.BadRequestError) as caught:
        claude.messages.create(model="m", max_tokens=99, messages=[])
    assert caught.value.body["error"]["type"] == "invalid_request_error"
    assert caught.value.request_id.startswith("req_")


def test_anthropic_dialect_at_others(url: str) -> None:
    for base in ("/openrouter/api", "/databricks/ai-gateway/anthropic", "/ollama"):
        with anthropic.Anthropic(base_url=url + base, api_key="any") as client:
            assert client.messages.create(model="m", max_tokens=9, messages=USER).content[0].text == SAID


# Gemini


@pytest.fixture(scope="module")
def gemini(url: str):
    return genai.Client(api_key="any", http_options={"base_url": url + "/google"})


def test_gemini_generate(gemini) -> None:
    answer = gemini.models.generate_content(model="gemini-x", contents="hello wide world")
    assert (answer.text, answer.model_version) == (SAID, "gemini-x")
    assert answer.candidates[0].finish_reason == "STOP"
    usage = answer.usage_metadata
    assert (usage.prompt_token_count, usage.candidates_token_count, usage.total_token_count) == (3, 5, 8)


def test_gemini_stream(gemini) -> None:
    chunks = list(gemini.models.generate_content_stream(model="m", contents="hello wide world"))
    assert "".join(chunk.text or "" for chunk in chunks) == SAID
    assert len(chunks) == 6
    assert chunks[-1].candidates[0].finish_reason == "STOP"


def test_gemini_tools(gemini) -> None:
    declaration = {"name": "weather", "parameters_json_schema": SCHEMA}
    config = {"tools": [{"function_declarations": [declaration]}]}
    answer = gemini.models.generate_content(model="m", contents=CALL[0]["content"], config=config)
    assert (answer.function_calls[0].name, answer.function_calls[0].args) == ("weather", {"city": "Bern"})
    chunks = gemini.models.generate_content_stream(model="m", contents=CALL[0]["content"], config=config)
    assert [call.args for chunk in chunks for call in chunk.function_calls or ()] == [{"city": "Bern"}]


def test_gemini_count_embed_and_models(gemini) -> None:
    assert gemini.models.count_tokens(model="m", contents="hello wide world").total_tokens == 3
    one = gemini.models.embed_content(model="gemini-embedding-001", contents="a")
    assert len(one.embeddings[0].values) == 8
    two = gemini.models.embed_content(
        model="gemini-embedding-001", contents=["a", "b"], config={"output_dimensionality": 4}
    )
    assert [len(item.values) for item in two.embeddings] == [4, 4]
    assert "models/sandbox-echo" in [model.name for model in gemini.models.list()]
    assert gemini.models.get(model="gemini-x").name == "models/gemini-x"


def test_gemini_array_stream(port: int) -> None:
    body = json.dumps({"contents": [{"parts": [{"text": "hi"}]}]}).encode()
    status, headers, data = request(port, "POST", "/google/v1beta/models/m:streamGenerateContent", body)
    assert (status, headers["content-type"]) == (200, "application/json")
    texts = [item["candidates"][0]["content"]["parts"][0]["text"] for item in json.loads(data)]
    assert texts == ["You", " said:", " hi", ""]
    status, _, data = request(port, "POST", "/google/v1beta/models/m:streamGenerateContent", b"{}")
    assert (status, json.loads(data)[0]["error"]["status"]) == (400, "INVALID_ARGUMENT")


# Databricks, Ollama, Cohere, Bedrock


def test_databricks_invocations_and_lists(port: int) -> None:
    path = "/databricks/serving-endpoints/dbrx/invocations"
    answer = post(port, path, {"messages": USER})
    assert (answer["model"], answer["choices"][0]["message"]["content"]) == ("dbrx", SAID)
    assert len(post(port, path, {"input": ["a", "b"]})["data"]) == 2
    _, _, data = request(port, "GET", "/databricks/api/2.0/serving-endpoints")
    assert "sandbox-echo" in [item["name"] for item in json.loads(data)["endpoints"]]
    _, _, data = request(port, "GET", "/databricks/api/2.0/serving-endpoints/dbrx")
    assert json.loads(data)["state"]["ready"] == "READY"
    status, _, data = request(port, "POST", path, b"{}")
    assert (status, "error_code" in json.loads(data)) == (400, True)


def test_databricks_oauth(port: int, url: str) -> None:
    _, _, data = request(port, "GET", "/databricks/oidc/.well-known/oauth-authorization-server")
    found = json.loads(data)
    assert found["token_endpoint"] == url + "/databricks/oidc/v1/token"
    form = urllib.parse.urlencode({"grant_type": "client_credentials", "scope": "all-apis"}).encode()
    with urllib.request.urlopen(found["token_endpoint"], form, timeout=10) as response:
        assert json.load(response)["token_type"] == "Bearer"
    path = found["authorization_endpoint"].removeprefix(url) + "?state=s&redirect_uri="
    status, headers, _ = request(port, "GET", path + urllib.parse.quote("http://localhost:8020/", safe=""))
    assert (status, headers["location"]) == (302, "http://localhost:8020/?code=sandbox-code&state=s")
    for elsewhere in ("http://example.com/", "http://[", ""):
        assert request(port, "GET", path + urllib.parse.quote(elsewhere, safe=""))[0] == 400


def test_ollama(port: int) -> None:
    status, headers, data = request(port, "POST", "/ollama/api/chat", json.dumps({"messages": USER}).encode())
    assert (status, headers["content-type"]) == (200, "application/x-ndjson")
    lines = [json.loads(line) for line in data.splitlines()]
    assert "".join(line["message"]["content"] for line in lines) == SAID
    assert (lines[-1]["done"], lines[-1]["eval_count"]) == (True, 5)
    assert post(port, "/ollama/api/generate", {"prompt": "hi", "stream": False})["response"] == "You said: hi"
    assert len(post(port, "/ollama/api/embed", {"model": "e", "input": "a"})["embeddings"][0]) == 8
    assert json.loads(request(port, "GET", "/ollama/api/tags")[2])["models"]


def test_cohere(port: int) -> None:
    answer = post(port, "/cohere/v2/chat", {"model": "c", "messages": USER})
    assert (answer["message"]["content"][0]["text"], answer["finish_reason"]) == (SAID, "COMPLETE")
    assert len(post(port, "/cohere/v2/embed", {"texts": ["a", "b"]})["embeddings"]["float"]) == 2


def test_bedrock_is_refused_in_its_own_words(port: int) -> None:
    status, headers, data = request(port, "POST", "/bedrock/model/m%3A0/converse", b"{}")
    assert status == 501
    assert "Bedrock" in json.loads(data)["message"]
    assert "x-amzn-errortype" in headers


# Errors and the bare protocol


def test_unknown_provider_speaks_openai(port: int) -> None:
    answer = post(port, "/homegrown/v1/chat/completions", {"messages": USER})
    assert answer["choices"][0]["message"]["content"] == SAID
    status, _, data = request(port, "GET", "/homegrown/nowhere")
    assert (status, json.loads(data)["error"]["code"]) == (404, "sandbox_unknown_path")
    assert request(port, "GET", "/")[0] == 404


def test_wrong_method_names_the_right_one(port: int) -> None:
    status, headers, data = request(port, "GET", "/anthropic/v1/messages")
    assert (status, headers["allow"], json.loads(data)["type"]) == (405, "POST", "error")


def test_head_has_no_body(port: int) -> None:
    status, headers, data = request(port, "HEAD", "/openai/v1/models")
    assert (status, data) == (200, b"")
    assert int(headers["content-length"]) > 0


def test_large_bodies_are_read_and_their_echo_clipped(port: int) -> None:
    answer = post(
        port, "/openai/v1/chat/completions", {"messages": [{"role": "user", "content": "word " * 400_000}]}
    )
    assert len(answer["choices"][0]["message"]["content"]) == len("You said: ") + 32 * 1024
    assert answer["usage"]["prompt_tokens"] == 400_001
