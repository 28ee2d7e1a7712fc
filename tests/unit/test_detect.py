"""Whose API a request speaks: every row of the detection table, with requests as clients send them."""

from __future__ import annotations

import pytest

from llmproxyd.model import Request
from llmproxyd.providers.base import Facts
from llmproxyd.providers.detect import Detector, facts_of
from llmproxyd.providers.registry import built_in

PROVIDERS = built_in()
DETECTOR = Detector(PROVIDERS)
WITHOUT_KEYS = Detector(PROVIDERS, by_key=False)

Row = tuple[str | None, str, *tuple[str, ...]]
"""Provider (``None``: not recognised), request line, fields."""


def request(line: str, *fields: str) -> Request:
    """A request from ``"POST /path"`` and ``"Name: value"``."""
    method, _, target = line.partition(" ")
    headers = [(b"Host", b"127.0.0.1:8888")]
    for one in fields:
        name, _, value = one.partition(": ")
        headers.append((name.encode(), value.encode()))
    return Request(method.encode(), target.encode(), headers)


def detected(line: str, *fields: str, detector: Detector = DETECTOR) -> str | None:
    provider = detector.detect(facts_of(request(line, *fields)))
    return None if provider is None else provider.name


JSON = "Content-Type: application/json"
STAINLESS = "X-Stainless-Lang: python"
SIGV4 = (
    "Authorization: AWS4-HMAC-SHA256 Credential=AKIA/20261101/us-east-1/bedrock/aws4_request, "
    "SignedHeaders=host;x-amz-date, Signature=00"
)
GOOSE = ("HTTP-Referer: https://goose-docs.ai", "X-Title: goose")

ROWS: list[Row] = [
    # 1: bedrock
    ("bedrock", "POST /model/anthropic.claude-v1%3A0/converse", SIGV4, "X-Amz-Date: 20261101T000000Z", "amz-sdk-request: attempt=1"),
    ("bedrock", "GET /foundation-models", SIGV4),
    ("bedrock", "POST /model/m/converse-stream", "Authorization: Bearer bedrock-api-key"),
    ("bedrock", "POST /model/m/invoke"),
    ("bedrock", "POST /model/m/invoke-with-response-stream"),
    (None, "POST /model/m/other"),
    (None, "POST /my/model/m/invoke"),
    # 2: databricks
    ("databricks", "POST /serving-endpoints/databricks-claude/invocations", "Authorization: Bearer dapi00"),
    ("databricks", "POST /serving-endpoints/responses", "Authorization: Bearer eyJhbGciOi"),
    ("databricks", "POST /ai-gateway/openai/v1/responses", "Authorization: Bearer eyJhbGciOi"),
    ("databricks", "POST /ai-gateway/anthropic/v1/messages", "anthropic-version: 2023-06-01", "x-api-key: dapi00"),
    ("databricks", "POST /oidc/v1/token", "Content-Type: application/x-www-form-urlencoded"),
    ("databricks", "GET /api/2.0/preview/scim/v2/Me", "User-Agent: unknown/0.0.0 databricks-sdk-py/0.156.0 python/3.11"),
    ("databricks", "GET /api/ai-gateway/v2/endpoints?page_size=100"),
    ("databricks", "GET /.well-known/databricks-config"),
    (None, "GET /.well-known/openid-configuration"),
    # 3: azure
    ("azure", "POST /openai/deployments/gpt/chat/completions?api-version=2024-10-21", "api-key: 00", "User-Agent: AzureOpenAI/Python 2.54.0", STAINLESS),
    ("azure", "POST /openai/deployments/gpt/embeddings?api-version=2024-10-21", "Authorization: Bearer eyJ"),
    ("azure", "POST /openai/responses?api-version=2025-03-01-preview", "Authorization: Bearer eyJ"),
    ("azure", "POST /openai/v1/chat/completions", "api-key: 00", "User-Agent: OpenAI/Python 2.54.0"),
    ("azure", "POST /openai/v1/chat/completions", "Authorization: Bearer eyJ", "User-Agent: AsyncAzureOpenAI/Python 2.54.0"),
    (None, "POST /v1/chat/completions?api-version=2024-10-21", "Authorization: Bearer sk-00"),
    # 4: google
    ("google", "POST /v1/models/gemini-2.5-flash:generateContent", "x-goog-api-key: AIza00", "x-goog-api-client: google-genai-sdk/3.4.0 gl-python/3.11"),
    ("google", "POST /v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse", "x-goog-api-key: AIza00"),
    ("google", "POST /v1beta/models/gemini-2.5-flash:generateContent?key=AIza00"),
    ("google", "POST /models/gemini-2.5-flash:generateContent", JSON),
    ("google", "POST /models/gemini-2.5-flash%3AstreamGenerateContent", JSON),
    ("google", "POST /v1/models/m:countTokens"),
    ("google", "POST /v1/models/m:embedContent"),
    ("google", "POST /v1/models/m:batchEmbedContents"),
    ("google", "POST /v1beta/interactions", "x-goog-api-key: AIza00"),
    ("google", "POST /v1beta/interactions", "Authorization: Bearer ya29.00"),
    ("google", "POST /v1beta/openai/chat/completions", "Authorization: Bearer AIza00", "User-Agent: OpenAI/Python 2.54.0"),
    ("google", "GET /v1/models?key=AIza00"),
    ("google", "GET /models?pageSize=5&key=AIza00"),
    (None, "GET /v1/chat/completions?key=value"),
    # 5: anthropic
    ("anthropic", "POST /v1/messages", "Authorization: Bearer sk-ant-00", "anthropic-version: 2026-10-21", "User-Agent: Anthropic/Python 2.11.0"),
    ("anthropic", "POST /v1/messages", "x-api-key: sk-ant-00", "anthropic-version: 2023-06-01"),
    ("anthropic", "POST /v1/messages/count_tokens", "Authorization: Bearer eyJ"),
    ("anthropic", "POST /v1/complete", "x-api-key: anything"),
    ("anthropic", "GET /v1/models", "anthropic-beta: oauth-2025-04-20"),
    ("anthropic", "GET /v1/files", "Authorization: Bearer sk-ant-00"),
    ("anthropic", "POST /my/prefix/v1/messages", JSON),
    # 6, which outweighs 5: keys
    ("openrouter", "POST /v1/chat/completions", "Authorization: Bearer sk-or-v1-00"),
    ("openrouter", "POST /v1/messages", "Authorization: Bearer sk-or-v1-00", "anthropic-version: 2026-10-21"),
    ("groq", "POST /v1/chat/completions", "Authorization: Bearer gsk_00"),
    ("xai", "POST /v1/chat/completions", "Authorization: Bearer xai-00"),
    ("fireworks", "POST /v1/chat/completions", "Authorization: Bearer fw_00"),
    ("fireworks", "POST /v1/messages", "x-api-key: fw_00", "anthropic-version: 2023-06-01"),
    ("databricks", "POST /v1/messages", "Authorization: Bearer dapi00", "anthropic-version: 2023-06-01"),
    # 7: ollama
    ("ollama", "POST /api/chat", "User-Agent: ollama-python/0.6.3 (x86_64 linux) Python/3.11", JSON),
    ("ollama", "POST /api/generate"),
    ("ollama", "POST /api/embed"),
    ("ollama", "POST /api/embeddings"),
    ("ollama", "GET /api/tags"),
    ("ollama", "POST /api/show"),
    ("ollama", "POST /api/pull"),
    ("ollama", "GET /api/ps"),
    ("ollama", "GET /api/version"),
    ("ollama", "DELETE /api/delete", "User-Agent: ollama-python/0.6.3 (x86_64 linux) Python/3.11"),
    (None, "POST /api/chats"),
    (None, "POST /api/chat/rooms"),
    # 8: cohere
    ("cohere", "POST /v2/chat", "Authorization: Bearer 00", "X-Fern-Language: Python", "User-Agent: cohere/7.3.1"),
    ("cohere", "POST /v2/embed", "Authorization: Bearer 00"),
    ("cohere", "POST /v2/rerank", "Authorization: Bearer 00"),
    (None, "POST /v2/chat/completions", "Authorization: Bearer 00"),
    # 9: openrouter
    ("openrouter", "POST /api/v1/chat/completions", "Authorization: Bearer 00", "User-Agent: OpenAI/Python 2.54.0"),
    ("openrouter", "GET /api/v1/models"),
    ("openrouter", "POST /api/v1/messages", "anthropic-version: 2023-06-01", "x-api-key: 00"),
    # 10: groq
    ("groq", "POST /openai/v1/chat/completions", "Authorization: Bearer 00", "User-Agent: OpenAI/Python 2.54.0"),
    # 11: the client's own name
    ("groq", "POST /v1/chat/completions", "User-Agent: Groq/Python 1.7.0"),
    ("groq", "POST /v1/chat/completions", "User-Agent: AsyncGroq/Python 1.7.0"),
    ("together", "POST /v1/chat/completions", "User-Agent: Together/Python 3.1.1", "Authorization: Bearer 00"),
    ("together", "GET /v1/models", "User-Agent: AsyncTogether/Python 3.1.1"),
    ("fireworks", "POST /v1/chat/completions", "User-Agent: Fireworks/Python 1.2.28"),
    ("mistral", "POST /v1/chat/completions", "User-Agent: mistral-client-python/3.7.0", "Authorization: Bearer 00"),
    ("cohere", "POST /v1/chat", "User-Agent: cohere/7.3.1"),
    # 12: tetrate
    ("tetrate", "POST /v1/chat/completions", "Authorization: Bearer 00", *GOOSE),
    ("tetrate", "GET /v1/models", "Authorization: Bearer 00", *GOOSE),
    (None, "POST /v1/chat/completions", "Authorization: Bearer 00", GOOSE[0]),
    (None, "POST /v1/chat/completions", "Authorization: Bearer 00", GOOSE[1]),
    (None, "POST /v1/chat/completions", "Authorization: Bearer sk-00", *GOOSE),
    (None, "POST /v1/chat/completions", "Authorization: Bearer sk-proj-00", *GOOSE),
    ("openrouter", "POST /api/v1/chat/completions", "Authorization: Bearer 00", *GOOSE),
    # 13: nothing is recognised, the default is taken
    (None, "POST /v1/chat/completions", "Authorization: Bearer sk-00", "User-Agent: OpenAI/Python 2.54.0", STAINLESS, "OpenAI-Organization: org-x"),
    (None, "POST /v1/responses", "Authorization: Bearer sk-00", "x-stainless-retry-count: 0"),
    (None, "POST /v1/embeddings", JSON),
    (None, "GET /"),
    (None, "POST /chat/completions", "Authorization: Bearer sk-00"),
]  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=[f"{row[0]}: {' '.join(row[1:])}"[:90] for row in ROWS])
def test_row(row: Row) -> None:
    name, line, *fields = row
    assert detected(line, *fields) == name


GOOSE_REQUESTS: list[Row] = [
    (None, "POST /v1/chat/completions", "Authorization: Bearer sk-00", "OpenAI-Organization: o", "OpenAI-Project: p"),
    (None, "POST /v1/responses", "Authorization: Bearer sk-00"),
    (None, "GET /v1/models"),
    (None, "POST /v1/embeddings", "Authorization: Bearer sk-00"),
    ("anthropic", "POST /v1/messages", "x-api-key: sk-ant-00", "anthropic-version: 2023-06-01"),
    ("anthropic", "GET /v1/models", "x-api-key: sk-ant-00", "anthropic-version: 2023-06-01"),
    ("google", "POST /v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse", "x-goog-api-key: AIza00"),
    ("google", "GET /v1beta/models", "x-goog-api-key: AIza00"),
    ("openrouter", "POST /api/v1/chat/completions", "Authorization: Bearer sk-or-v1-00", *GOOSE),
    ("openrouter", "GET /api/v1/models", "Authorization: Bearer sk-or-v1-00", "HTTP-Referer: https://block.github.io/goose", GOOSE[1]),
    ("tetrate", "POST /v1/chat/completions", "Authorization: Bearer 00", *GOOSE),
    ("tetrate", "GET /v1/models", "Authorization: Bearer 00", *GOOSE),
    ("databricks", "POST /serving-endpoints/databricks-claude-sonnet-4/invocations", "Authorization: Bearer dapi00"),
    ("databricks", "POST /serving-endpoints/responses", "Authorization: Bearer dapi00"),
    ("databricks", "GET /api/2.0/serving-endpoints", "Authorization: Bearer dapi00"),
    ("databricks", "GET /api/2.0/serving-endpoints/m", "Authorization: Bearer eyJ"),
    ("databricks", "POST /ai-gateway/openai/v1/responses", "Authorization: Bearer eyJ"),
    ("databricks", "POST /ai-gateway/anthropic/v1/messages", "Authorization: Bearer eyJ", "anthropic-version: 2023-06-01"),
    ("databricks", "POST /ai-gateway/mlflow/v1/chat/completions", "Authorization: Bearer eyJ"),
    ("databricks", "GET /api/ai-gateway/v2/endpoints?page_size=100", "Authorization: Bearer eyJ"),
    ("databricks", "GET /oidc/.well-known/oauth-authorization-server"),
]  # fmt: skip


@pytest.mark.parametrize("row", GOOSE_REQUESTS, ids=[f"{row[0]}: {row[1]}" for row in GOOSE_REQUESTS])
def test_request_of_goose(row: Row) -> None:
    name, line, *fields = row
    assert detected(line, *fields, "goose-session-id: 20261101_1") == name


def test_request_of_goose_finds_its_endpoint() -> None:
    by_name = {provider.name: provider for provider in PROVIDERS}
    for name, line, *_ in GOOSE_REQUESTS:
        one = request(line)
        endpoint = by_name[name or "openai"].endpoint(one.method, one.path)
        assert endpoint is not None, line
        assert (endpoint.kind == "inference") == (one.method == b"POST"), line


# -- ambiguities -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("anthropic", "anthropic-version: 2023-06-01"),
        ("google", "x-goog-api-key: AIza00"),
        (None, "Authorization: Bearer sk-00"),
    ],
)
def test_model_list_is_told_apart_by_fields(name: str | None, field: str) -> None:
    assert detected("GET /v1/models", field) == name


def test_messages_of_a_thread_are_not_anthropic() -> None:
    assert detected("POST /v1/threads/thread_1/messages", "Authorization: Bearer sk-00") is None
    assert detected("GET /v1/threads/thread_1/messages", "OpenAI-Beta: assistants=v2") is None


@pytest.mark.parametrize("name", [provider.name for provider in PROVIDERS])
def test_name_of_a_provider_in_a_path_does_not_matter(name: str) -> None:
    assert detected(f"POST /my/{name}/v1/chat/completions", "Authorization: Bearer 00") is None
    assert detected(f"GET /v1/models/{name}", "Authorization: Bearer 00") is None


def test_case_of_field_names_does_not_matter() -> None:
    assert detected("GET /v1/models", "ANTHROPIC-VERSION: 2023-06-01") == "anthropic"
    assert detected("GET /x", SIGV4.replace("AWS4-HMAC-SHA256", "aws4-hmac-sha256")) == "bedrock"


def test_azure_key_outweighs_groq_path_and_wire_shape() -> None:
    assert detected("POST /openai/v1/messages", "api-key: gsk_00", "anthropic-version: 1") == "azure"


# -- without keys ------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["sk-or-v1-00", "gsk_00", "xai-00", "fw_00", "dapi00", "sk-ant-00"])
def test_keys_do_not_count_where_clients_present_our_tokens(key: str) -> None:
    line = "POST /v1/chat/completions"
    assert detected(line, f"Authorization: Bearer {key}") is not None
    assert detected(line, f"Authorization: Bearer {key}", detector=WITHOUT_KEYS) is None


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("openrouter", "POST /api/v1/messages"),
        ("databricks", "POST /ai-gateway/anthropic/v1/messages"),
        ("anthropic", "POST /v1/messages"),
    ],
)
def test_paths_count_without_keys(name: str, line: str) -> None:
    assert detected(line, "anthropic-version: 2023-06-01", "x-api-key: 00", detector=WITHOUT_KEYS) == name


# -- facts -------------------------------------------------------------------------------


def test_facts_hold_prefixes_alone() -> None:
    facts = facts_of(
        request(
            "POST /v1/x?alt=sse&key=secret",
            "Authorization: Bearer sk-proj-secret-secret",
            "User-Agent: Groq/Python 1.7.0",
        )
    )
    assert facts == Facts(
        method=b"POST",
        path=b"/v1/x",
        query_names=frozenset({b"alt", b"key"}),
        header_names=frozenset({b"host", b"authorization", b"user-agent"}),
        scheme=b"bearer",
        key_prefix=b"sk-proj-secr",
        agent=b"Groq/",
    )


def test_user_agent_without_slash_says_nothing() -> None:
    assert facts_of(request("GET /", "User-Agent: curl")).agent == b""
