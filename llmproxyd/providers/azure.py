"""Azure OpenAI: OpenAI's API by deployment, with keys and errors of Azure's own.

Errors and headers: https://learn.microsoft.com/azure/ai-services/openai/reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from llmproxyd.providers import openai
from llmproxyd.providers.base import (
    CredentialPlace,
    Dialect,
    ErrorContext,
    ErrorKind,
    ErrorSpec,
    Facts,
    Provider,
    Signal,
    path,
    retry_after_fields,
)


def shape(spec: ErrorSpec, message: str, context: ErrorContext) -> Mapping[str, object]:
    """``{"error": {code: <string>, message[, type, param, status, innererror]}}``."""
    error: dict[str, object] = {"code": spec.code, "message": message}
    if spec.type is not None or spec.param is not None:
        error |= {"type": spec.type, "param": spec.param}
    return {"error": {**error, **spec.extra}}


def local(status: int, code: str, message: str) -> ErrorSpec:
    """An error of the proxy's own; the code stands at ``error.code``."""
    return ErrorSpec(status=status, message=message, code=code)


def headers(spec: ErrorSpec, context: ErrorContext) -> list[tuple[bytes, bytes]]:
    """``apim-request-id``, region, and what is left of the deployment's rate on a 429."""
    fields = [(b"apim-request-id", context.request_id.encode()), (b"x-ms-region", b"East US")]
    if spec.status == 429:
        seconds = 20 if context.retry_after is None else context.retry_after
        fields += [
            (b"x-ratelimit-remaining-requests", b"0"),
            (b"x-ratelimit-remaining-tokens", b"0"),
            (b"x-ratelimit-reset-tokens", b"%d" % -int(-seconds // 1)),
        ]
    return fields + retry_after_fields(context)


DIALECT = Dialect(shape=shape, local=local, headers=headers)

_DEPLOYMENT = r"/openai/deployments/(?P<model>[^/]+)"

ENDPOINTS = (
    openai.chat(_DEPLOYMENT + r"/chat/completions$"),
    openai.embeddings(_DEPLOYMENT + r"/embeddings$"),
    replace(openai.COMPLETIONS, pattern=path(_DEPLOYMENT + r"/completions$")),
    replace(
        openai.MEDIA,
        pattern=path(_DEPLOYMENT + r"/(audio/(speech|transcriptions|translations)|images/[a-z]+)$"),
    ),
    # Below /openai and /openai/v1, where the body names the deployment.
    *openai.ENDPOINTS,
)

ERRORS: dict[ErrorKind, ErrorSpec] = {
    ErrorKind.CONTEXT_LENGTH: openai.ERRORS[ErrorKind.CONTEXT_LENGTH],
    ErrorKind.RATE_LIMIT: ErrorSpec(
        status=429,
        message="Requests to the ChatCompletions_Create Operation under Azure OpenAI API version "
        "2024-10-21 have exceeded token rate limit of your current OpenAI S0 pricing tier. Please retry "
        "after {retry_after} seconds.",
        code="429",
    ),
    ErrorKind.SERVER_ERROR: ErrorSpec(
        status=500,
        message="The server had an error while processing your request. Sorry about that!",
        code="InternalServerError",
    ),
    ErrorKind.OVERLOADED: ErrorSpec(
        status=503,
        message="The service is temporarily unable to process your request. Please try again later.",
        code="ServiceUnavailable",
    ),
    ErrorKind.QUOTA: ErrorSpec(
        status=403,
        message="Out of call volume quota. Please retry later or upgrade your pricing tier.",
        code="403",
    ),
    ErrorKind.AUTHENTICATION: ErrorSpec(
        status=401,
        message="Access denied due to invalid subscription key or wrong API endpoint. Make sure to "
        "provide a valid key for an active subscription and use a correct regional API endpoint for "
        "your resource.",
        code="401",
    ),
    ErrorKind.PERMISSION: ErrorSpec(
        status=403,
        message="The principal lacks the required data action to perform this operation.",
        code="PermissionDenied",
    ),
    ErrorKind.NOT_FOUND: ErrorSpec(
        status=404,
        message="The API deployment for this resource does not exist. If you created the deployment "
        "within the last 5 minutes, please wait a moment and try again.",
        code="DeploymentNotFound",
    ),
    ErrorKind.CONTENT_FILTER: ErrorSpec(
        status=400,
        message="The response was filtered due to the prompt triggering Azure OpenAI's content "
        "management policy. Please modify your prompt and retry.",
        code="content_filter",
        param="prompt",
        extra={
            "status": 400,
            "innererror": {
                "code": "ResponsibleAIPolicyViolation",
                "content_filter_result": {"violence": {"filtered": True, "severity": "medium"}},
            },
        },
    ),
    ErrorKind.TOO_LARGE: ErrorSpec(status=413, message="The request body is too large.", code="413"),
    ErrorKind.BAD_GATEWAY: openai.ERRORS[ErrorKind.BAD_GATEWAY],
    ErrorKind.GATEWAY_TIMEOUT: ErrorSpec(
        status=504, message="The operation was timeout.", code="Timeout", type="Timeout"
    ),
}


def _recognised(facts: Facts) -> bool:
    """Row 3, and the client's own name: with an Entra token it sends no ``api-key``."""
    return (
        facts.path.startswith(b"/openai/deployments/")
        or (b"api-version" in facts.query_names and facts.path.startswith(b"/openai/"))
        or b"api-key" in facts.header_names
        or facts.agent in (b"AzureOpenAI/", b"AsyncAzureOpenAI/")
    )


PROVIDER = Provider(
    name="azure",
    title="Azure OpenAI",
    base_url=None,
    endpoints=ENDPOINTS,
    errors=ERRORS,
    variants={
        (ErrorKind.CONTEXT_LENGTH, "responses"): openai.VARIANTS[ErrorKind.CONTEXT_LENGTH, "responses"]
    },
    dialect=DIALECT,
    signals=(Signal(3, _recognised),),
    hosts={"AZURE_OPENAI_ENDPOINT": ""},
    keys=("AZURE_OPENAI_API_KEY",),
    credential=CredentialPlace(b"api-key", b""),
    sample_model="gpt-4o",
)
