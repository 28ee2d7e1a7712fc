"""Which path of the sandbox means what, and that no body, however odd, upsets whoever answers it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxyd.errors import Refused
from llmproxyd.sandbox import anthropic, google, openai, responses
from llmproxyd.sandbox.routes import ROUTES, find
from llmproxyd.sandbox.values import Ask, Stream, dump, loads

CALL = 'call weather {"city": "Bern"}'
DEEP = b'{"messages":[{"role":"user","content":"x"}],"a":' + b"[" * 200 + b"]" * 200 + b"}"


@pytest.mark.parametrize(
    ("method", "provider", "path", "handler", "speaks", "model"),
    [
        (b"POST", "openai", b"/v1/chat/completions", openai.chat, None, ""),
        (b"POST", "openai", b"/v1/completions", openai.completions, None, ""),
        (b"POST", "deepseek", b"/chat/completions", openai.chat, None, ""),
        (b"POST", "azure", b"/openai/deployments/d%201/chat/completions", openai.chat, None, "d 1"),
        (b"POST", "azure", b"/openai/deployments/d/completions", openai.completions, None, "d"),
        (b"POST", "openrouter", b"/api/v1/messages", anthropic.messages, "anthropic", ""),
        (b"POST", "databricks", b"/ai-gateway/anthropic/v1/messages", anthropic.messages, "anthropic", ""),
        (b"POST", "databricks", b"/ai-gateway/openai/v1/responses", responses.responses, None, ""),
        (b"POST", "databricks", b"/serving-endpoints/chat/completions", openai.chat, None, ""),
        (
            b"POST",
            "google",
            b"/v1beta/models/gemini%2Fx:countTokens",
            google.count_tokens,
            "google",
            "gemini/x",
        ),
        (b"POST", "google", b"/models/m%3AgenerateContent", google.generate, "google", "m"),
        (b"POST", "google", b"/v1beta/openai/chat/completions", openai.chat, None, ""),
        (b"GET", "google", b"/v1beta/openai/models", openai.models, None, ""),
        (b"GET", "google", b"/v1beta/models", google.models, "google", ""),
        (b"GET", "anthropic", b"/v1/models/claude", anthropic.model, "anthropic", "claude"),
        (b"HEAD", "fireworks", b"/models/accounts/a/models/m", openai.model, None, "accounts/a/models/m"),
    ],
)
def test_routes(
    method: bytes, provider: str, path: bytes, handler: object, speaks: str | None, model: str
) -> None:
    route, named = find(method, provider, path)
    assert (route.handler, route.speaks, named) == (handler, speaks, model)


def test_unknown_path_and_wrong_method_are_refused() -> None:
    with pytest.raises(Refused) as caught:
        find(b"POST", "openai", b"/v1/nonsense")
    assert caught.value.status == 404
    with pytest.raises(Refused) as caught:
        find(b"GET", "openai", b"/v1/chat/completions")
    assert (caught.value.status, caught.value.headers) == (405, ((b"allow", b"POST"),))


KEYS = st.sampled_from(
    [
        "messages",
        "contents",
        "input",
        "prompt",
        "requests",
        "content",
        "parts",
        "text",
        "role",
        "tools",
        "function",
        "functions",
        "name",
        "type",
        "texts",
        "functionDeclarations",
        "functionResponse",
        "stream",
        "stream_options",
        "model",
        "dimensions",
        "system",
        "output",
    ]
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["user", "tool", CALL, "\ud800"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=25,
)


@given(st.dictionaries(KEYS, VALUES) | VALUES)
def test_any_body_is_answered_or_refused(body: object) -> None:
    content = json.dumps(body).encode()
    for route in ROUTES:
        if b"POST" in route.methods:
            try:
                answered = route.handler(Ask("openrouter", content=content))
            except Refused as refused:
                if refused.status not in (400, 501):
                    raise
                continue
            if isinstance(answered, Stream):
                b"".join(event.data for event in answered.events).decode()
            else:
                loads(answered.body)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b'"x"', b"NaN", b"[" * 100000, DEEP])
def test_what_is_no_json_object_is_refused(content: bytes) -> None:
    with pytest.raises(Refused) as caught:
        openai.chat(Ask("openai", content=content))
    assert caught.value.status == 400


def test_dump_never_fails_on_half_a_surrogate_pair() -> None:
    assert dump({"a": "\ud800"}) == b'{"a":"?"}'
