"""The metrics of generative AI clients, by OpenTelemetry's names as Prometheus writes them.

https://github.com/open-telemetry/semantic-conventions-genai, docs/gen-ai/gen-ai-metrics.md.  Dots become
underscores, the unit of seconds stands behind the name, tokens have none
(https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/).
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import Metric

from llmproxyd.model import End, Finished, Reading
from llmproxyd.observe.cells import Histogram, Models

DURATIONS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
"""Seconds, as the conventions have it."""

TOKENS = tuple(float(4**exponent) for exponent in range(14))
"""As the conventions have it: 1, 4, 16 … 67,108,864."""

OPERATIONS = {
    "chat": "chat",
    "responses": "chat",
    "messages": "chat",
    "converse": "chat",
    "native_chat": "chat",
    "invocations": "chat",
    "agents": "chat",
    "interactions": "chat",
    "completions": "text_completion",
    "completion": "text_completion",
    "complete": "text_completion",
    "fim": "text_completion",
    "generate": "generate_content",
    "embeddings": "embeddings",
    "embed": "embeddings",
}
"""``gen_ai.operation.name`` by ours; any other stands as it is."""

PROVIDERS = {
    "azure": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "google": "gcp.gemini",
    "mistral": "mistral_ai",
    "xai": "x_ai",
}
"""``gen_ai.provider.name`` by ours; any other stands as it is."""

_COMMON = (
    "gen_ai_operation_name",
    "gen_ai_provider_name",
    "gen_ai_request_model",
    "gen_ai_response_model",
)


class GenAI:
    """Counts what was asked of upstreams; what was injected or answered here is no operation of theirs."""

    def __init__(self, models: Models) -> None:
        self._models = models
        self._duration = Histogram(
            "gen_ai_client_operation_duration_seconds",
            "GenAI operation duration.",
            (*_COMMON, "error_type"),
            DURATIONS,
        )
        self._first = Histogram(
            "gen_ai_client_operation_time_to_first_chunk_seconds",
            "Time to the first chunk of content of a stream.",
            _COMMON,
            DURATIONS,
        )
        self._tokens = Histogram(
            "gen_ai_client_token_usage",
            "Number of input and output tokens used.",
            (*_COMMON, "gen_ai_token_type"),
            TOKENS,
        )

    def finished(self, event: Finished, reading: Reading | None) -> None:
        """Take one request, and what its answer told."""
        if event.kind != "inference" or event.fault is not None or not event.attempts:
            return
        answered = event.status < 400
        operation = OPERATIONS.get(event.operation, event.operation)
        if event.provider == "ollama" and event.operation == "generate":
            operation = "text_completion"
        common = (
            operation,
            PROVIDERS.get(event.provider, event.provider),
            self._models.label(event.model, answered=answered),
            self._models.label(None if reading is None else reading.model, answered=answered),
        )
        self._duration.of((*common, error_type(event))).observe(event.duration)
        if event.first is not None:
            self._first.of(common).observe(event.first)
        if reading is not None:
            for kind in ("input", "output"):
                number = reading.tokens.get(kind)
                if number is not None:
                    self._tokens.of((*common, kind)).observe(number)

    def collect(self) -> Iterator[Metric]:
        """All families."""
        for histogram in (self._duration, self._first, self._tokens):
            yield from histogram.collect()


def error_type(event: Finished) -> str:
    """``error.type``: the status, or how the answer ended; empty for one that is no error."""
    if event.status >= 400:
        return str(event.status) if event.status < 600 else "_OTHER"
    return "" if event.end is End.COMPLETE else str(event.end)
