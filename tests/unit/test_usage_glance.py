"""A short answer is read from both ends, and tells the same as when all of it is parsed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxyd.inspection.glance import LONGEST, glance
from llmproxyd.inspection.usage import UsageReader
from llmproxyd.model import Reading
from llmproxyd.providers.base import Usage
from llmproxyd.providers.openai import CHAT_USAGE
from llmproxyd.providers.registry import registry

USAGES = {
    (name, endpoint.operation): endpoint.usage
    for name, provider in registry().items()
    for endpoint in provider.endpoints
    if endpoint.usage is not None
}
MESSAGES = USAGES["anthropic", "messages"]

CHAT: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1741083072,
    "model": "gpt-4o-mini",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"},
    ],
    "usage": {"prompt_tokens": 400, "completion_tokens": 150, "total_tokens": 550},
}
MESSAGE: dict[str, Any] = {
    "model": "claude-sonnet-4",
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "content": [{"type": "text", "text": "Hello"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {
        "input_tokens": 10,
        "cache_read_input_tokens": 5,
        "output_tokens": 7,
        "service_tier": "standard",
    },
}


def parsed(usage: Usage, data: bytes) -> Reading:
    reader = UsageReader(usage, None, b"")
    reader.feed(data)
    return reader.reading(True)


def told(value: object, **how: Any) -> bytes:
    return json.dumps(value, **how).encode()


@pytest.mark.parametrize("indent", [None, 2])
def test_a_chat_completion_is_read_at_a_glance(indent: int | None) -> None:
    reading = glance(CHAT_USAGE, told(CHAT, indent=indent))
    assert reading == Reading(
        model="gpt-4o-mini", tokens={"input": 400, "output": 150, "total": 550}, finish="stop"
    )


@pytest.mark.parametrize("indent", [None, 2])
def test_a_message_is_read_at_a_glance_with_what_its_provider_counts_apart(indent: int | None) -> None:
    reading = glance(MESSAGES, told(MESSAGE, indent=indent))
    assert reading == Reading(
        model="claude-sonnet-4", tokens={"input": 15, "output": 7, "cached": 5}, finish="end_turn"
    )


def test_details_of_counts_are_read_at_a_glance() -> None:
    usage = CHAT["usage"] | {
        "prompt_tokens_details": {"cached_tokens": 300, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 64},
    }
    data = told(CHAT | {"usage": usage, "service_tier": "default", "system_fingerprint": None})
    reading = glance(CHAT_USAGE, data)
    assert reading is not None
    assert reading.tokens == {"input": 400, "output": 150, "total": 550, "cached": 300, "reasoning": 64}
    assert reading == parsed(CHAT_USAGE, data)


@pytest.mark.parametrize(
    "odd",
    [
        b"",
        b"{}",
        b"not json",
        told(CHAT)[:-1],
        told(CHAT) + b"}",
        told([CHAT]),
        told({"wrapped": CHAT}),
        told(CHAT | {"model": 'quo"ted'}),
        told(CHAT | {"usage": None}),
        told(CHAT | {"usage": {"prompt_tokens": 1.0}}),
        told(CHAT | {"usage": {"prompt_tokens": True}}),
        told(CHAT | {"usage": {"prompt_tokens": -1}}),
        told(CHAT | {"usage": {"prompt_tokens": 10**13}}),
        told(CHAT | {"usage": {"prompt_tokens_details": [{"cached_tokens": 1}]}}),
        told(CHAT | {"choices": [{"finish_reason": "stop"}, {"finish_reason": "length"}]}),
        told(CHAT | {"choices": [{"finish_reason": "stop", "filter": {"hate": {}}}]}),
        told(CHAT | {"choices": [{"message": {"arguments": {"finish_reason": "wrong"}}}]}),
        told({name: CHAT[name] for name in ("usage", "choices", "model")}),
        told({name: CHAT[name] for name in ("id", "model", "usage", "choices")}),
        told(CHAT | {"choices": [{"message": "x" * LONGEST, "finish_reason": "stop"}]}),
    ],
)
def test_what_is_not_just_so_is_left_to_whoever_reads_all_of_it(odd: bytes) -> None:
    assert glance(CHAT_USAGE, odd) is None


def test_counts_in_a_call_of_a_tool_are_not_those_of_the_answer() -> None:
    call = {"function": {"arguments": {"usage": {"prompt_tokens": 1}, "finish_reason": "wrong"}}}
    answer = {name: CHAT[name] for name in ("id", "model", "usage")}
    answer["choices"] = [{"finish_reason": "stop", "message": {"tool_calls": [call]}}]
    assert glance(CHAT_USAGE, told(answer)) is None
    assert glance(CHAT_USAGE, told(answer | {"usage": {}})) is None


WORDS = st.sampled_from(
    [
        "model",
        "usage",
        "finish_reason",
        "stop_reason",
        '"usage":{',
        '"}],"usage":{"prompt_tokens":9}}',
        "\\",
        "ü",
    ]
)
TEXTS = st.lists(st.one_of(WORDS, st.text(max_size=5)), max_size=4).map("".join)
COUNTS = st.one_of(st.integers(-1, 10**13), st.none(), st.floats(0, 9), st.booleans(), TEXTS)
NAMES = st.sampled_from(
    [
        "prompt_tokens",
        "completion_tokens",
        "total_tokens",
        "input_tokens",
        "output_tokens",
        "cached_tokens",
        "x",
    ]
)
DETAILS = st.dictionaries(NAMES, COUNTS, max_size=3)
MEMBERS = st.dictionaries(
    st.sampled_from(["prompt_tokens_details", "completion_tokens_details", "usage", "x"]), DETAILS, max_size=2
)
USES = st.builds(lambda one, other: one | other, DETAILS, MEMBERS)
CHOICES = st.lists(
    st.dictionaries(
        st.sampled_from(["finish_reason", "message", "logprobs", "usage"]),
        st.one_of(TEXTS, st.none(), USES),
        max_size=4,
    ),
    max_size=2,
)
MEMBERS_OF_ANSWERS = ("id", "model", "choices", "content", "stop_reason", "usage", "tier")
SOME = st.one_of(TEXTS, st.none())
ANSWERS = st.fixed_dictionaries(
    {},
    optional={
        name: {"choices": CHOICES, "content": CHOICES, "usage": USES}.get(name, SOME)
        for name in MEMBERS_OF_ANSWERS
    },
)
SHAPED = [CHAT_USAGE, MESSAGES]


@given(
    answer=ANSWERS,
    order=st.permutations(MEMBERS_OF_ANSWERS),
    indent=st.sampled_from([None, 0, 2]),
    ascii=st.booleans(),
)
def test_a_glance_tells_what_the_whole_answer_does_or_nothing(
    answer: dict[str, Any], order: list[str], indent: int | None, ascii: bool
) -> None:
    ordered = {name: answer[name] for name in order if name in answer}
    data = told(ordered, indent=indent, ensure_ascii=ascii)
    for usage in SHAPED:
        reading = glance(usage, data)
        assert reading is None or reading == parsed(usage, data)


@pytest.mark.parametrize("answer", [CHAT, MESSAGE], ids=["chat", "message"])
def test_no_dialect_is_misread(answer: dict[str, Any]) -> None:
    data = told(answer)
    for usage in USAGES.values():
        reading = glance(usage, data)
        assert reading is None or reading == parsed(usage, data)
