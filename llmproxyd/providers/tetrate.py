"""Tetrate Agent Router Service: OpenAI's API on a host of its own.

No error reference is public; errors are OpenAI's, with 402 for low credit as goose knows it.
"""

from __future__ import annotations

from llmproxyd.providers.base import ErrorKind, ErrorSpec, Facts, Provider, Signal
from llmproxyd.providers.openai import DIALECT, ENDPOINTS, ERRORS, VARIANTS


def _goose(facts: Facts) -> bool:
    """Row 12: on the wire all else is OpenAI's, only goose's pair of fields sets it apart.

    OpenAI's own keys start with ``sk-``, and a client of OpenAI's may attribute itself too.
    """
    return (
        facts.path.startswith(b"/v1/")
        and facts.header_names >= {b"http-referer", b"x-title"}
        and not facts.key_prefix.startswith(b"sk-")
    )


PROVIDER = Provider(
    name="tetrate",
    title="Tetrate Agent Router Service",
    base_url="https://api.router.tetrate.ai",
    endpoints=ENDPOINTS,
    errors={
        **ERRORS,
        ErrorKind.QUOTA: ErrorSpec(
            status=402,
            message="Insufficient credits. Please add credits to your account.",
            type="insufficient_quota",
            code="insufficient_quota",
        ),
    },
    variants=VARIANTS,
    dialect=DIALECT,
    signals=(Signal(12, _goose),),
    unknown=ErrorKind.OVERLOADED,
    hosts={"TETRATE_HOST": ""},
    keys=("TETRATE_API_KEY",),
    sample_model="gpt-4o",
)
