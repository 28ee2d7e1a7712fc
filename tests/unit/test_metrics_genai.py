"""OpenTelemetry's GenAI metrics."""

from __future__ import annotations

import pytest
from test_metrics import TOLD, finished, scraped, told, total, value

from llmproxyd.model import End, Reading
from llmproxyd.observe.genai import OPERATIONS
from llmproxyd.providers.base import EndpointKind
from llmproxyd.providers.registry import registry

LABELS = {
    "gen_ai_operation_name": "chat",
    "gen_ai_provider_name": "openai",
    "gen_ai_request_model": "gpt-4o",
    "gen_ai_response_model": "gpt-4o-2024-08-06",
}
DURATION = "gen_ai_client_operation_duration_seconds"
FIRST = "gen_ai_client_operation_time_to_first_chunk_seconds"
TOKENS = "gen_ai_client_token_usage"


def test_durations_and_tokens() -> None:
    metrics = told(finished(model="gpt-4o", reading=TOLD, streamed=True, first=0.05), genai=True)
    assert value(metrics, DURATION + "_count", **LABELS, error_type="") == 1
    assert value(metrics, DURATION + "_sum", **LABELS, error_type="") == 0.3
    assert value(metrics, DURATION + "_bucket", **LABELS, error_type="", le="0.32") == 1
    assert value(metrics, FIRST + "_bucket", **LABELS, le="0.08") == 1
    assert value(metrics, TOKENS + "_sum", **LABELS, gen_ai_token_type="input") == 1000
    assert value(metrics, TOKENS + "_sum", **LABELS, gen_ai_token_type="output") == 500
    assert value(metrics, TOKENS + "_bucket", **LABELS, gen_ai_token_type="output", le="256.0") == 0
    assert value(metrics, TOKENS + "_bucket", **LABELS, gen_ai_token_type="output", le="1024.0") == 1


@pytest.mark.parametrize(
    ("members", "error"),
    [
        ({"status": 429}, "429"),
        ({"status": 600}, "_OTHER"),
        ({"end": End.TRUNCATED}, "truncated"),
        ({"end": End.IN_BAND_ERROR}, "in_band_error"),
    ],
)
def test_error_has_a_type(members: dict[str, object], error: str) -> None:
    assert total(told(finished(**members), genai=True), DURATION + "_count", error_type=error) == 1


@pytest.mark.parametrize(
    "members",
    [
        {"kind": "metadata", "operation": "models"},
        {"fault": "overloaded"},
        {"attempts": 0, "status": 403, "code": "model_not_allowed"},
        {"attempts": 0, "cache": "hit"},
    ],
)
def test_what_no_model_was_asked_is_no_operation(members: dict[str, object]) -> None:
    assert total(told(finished(**members), genai=True), DURATION + "_count") == 0


@pytest.mark.parametrize(
    ("provider", "operation", "names"),
    [
        ("anthropic", "messages", ("anthropic", "chat")),
        ("google", "generate", ("gcp.gemini", "generate_content")),
        ("ollama", "generate", ("ollama", "text_completion")),
        ("bedrock", "converse", ("aws.bedrock", "chat")),
        ("azure", "embeddings", ("azure.ai.openai", "embeddings")),
        ("mistral", "fim", ("mistral_ai", "text_completion")),
        ("xai", "responses", ("x_ai", "chat")),
        ("vllm", "rerank", ("vllm", "rerank")),
    ],
)
def test_names_are_those_of_the_conventions(provider: str, operation: str, names: tuple[str, str]) -> None:
    metrics = told(finished(provider=provider, operation=operation), genai=True)
    labels = {"gen_ai_provider_name": names[0], "gen_ai_operation_name": names[1]}
    assert total(metrics, DURATION + "_count", **labels) == 1


def test_every_operation_that_is_named_there_is() -> None:
    known = {
        endpoint.operation
        for provider in registry().values()
        for endpoint in provider.endpoints
        if endpoint.kind is EndpointKind.INFERENCE
    }
    assert set(OPERATIONS) <= known


def test_count_that_is_not_told_is_not_counted() -> None:
    metrics = told(finished(reading=Reading(tokens={"input": 3})), genai=True)
    assert total(metrics, TOKENS + "_count", gen_ai_token_type="input") == 1
    assert total(metrics, TOKENS + "_count", gen_ai_token_type="output") == 0


def test_switched_off_there_are_none() -> None:
    assert not any(name.startswith("gen_ai") for name, _ in scraped(told(finished())))
