"""Together AI: OpenAI's API and dialect."""

from __future__ import annotations

from llmproxyd.providers.base import ErrorKind, ErrorSpec, Provider, Signal
from llmproxyd.providers.openai import DIALECT, ENDPOINTS, ERRORS

PROVIDER = Provider(
    name="together",
    title="Together AI",
    base_url="https://api.together.ai",
    endpoints=ENDPOINTS,
    errors={
        **ERRORS,
        # The one wording on record; clients that search for "context" do not recognise it.
        ErrorKind.CONTEXT_LENGTH: ErrorSpec(
            status=400,
            message="Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4097. Given: "
            "4242 `inputs` tokens and 512 `max_new_tokens`",
            type="invalid_request_error",
        ),
        ErrorKind.RATE_LIMIT: ErrorSpec(
            status=429,
            message="You have reached the rate limit for the model {model}. Please try again later.",
            type="rate_limit",
            code="rate_limit_exceeded",
        ),
        ErrorKind.QUOTA: ErrorSpec(
            status=402,
            message="Credit limit exceeded, please navigate to your billing settings to add credits.",
            type="credit_limit",
            code="insufficient_quota",
        ),
    },
    dialect=DIALECT,
    signals=(Signal(11, lambda facts: facts.agent in (b"Together/", b"AsyncTogether/")),),
    hosts={"TOGETHER_BASE_URL": ""},
    keys=("TOGETHER_API_KEY",),
    sample_model="meta-llama/Llama-3.3-70B-Instruct-Turbo",
)
