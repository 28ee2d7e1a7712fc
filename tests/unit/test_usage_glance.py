"""A short answer is read from both ends, and tells the same as when all of it is parsed."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from llmproxyd.inspection.glance import _KNOWN, FORMS, LONGEST, OFTEN, SELDOM, _read, _Shape, glance
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
@settings(deadline=None)
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


DETAILED: dict[str, Any] = CHAT | {
    "usage": CHAT["usage"]
    | {
        "prompt_tokens_details": {"cached_tokens": 300, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 64},
        "queue_time": 0.037,
    },
    "service_tier": "default",
    "system_fingerprint": None,
}
VECTORS: dict[str, Any] = {
    "object": "list",
    "model": "m",
    "data": [{"embedding": [0.5, -1e-3]}],
    "usage": {"prompt_tokens": 8, "total_tokens": 8},
}
LAID_OUT = [(CHAT_USAGE, CHAT), (CHAT_USAGE, DETAILED), (CHAT_USAGE, VECTORS), (MESSAGES, MESSAGE)]
IDS = ["chat", "details", "vectors", "message"]


def taught(usage: Usage, *samples: bytes) -> tuple[Usage, _Shape]:
    """The same dialect without any forms but those of *samples*."""
    _KNOWN.clear()
    fresh = replace(usage)
    every = OFTEN
    for sample in samples:
        for _ in range(every):
            glance(fresh, sample)
        every *= 2
    shape = _KNOWN[id(fresh)][1]
    assert shape is not None
    return fresh, shape


def formed(usage: Usage, shape: _Shape, data: bytes) -> Reading | None:
    """What the only known form of *shape* makes of *data*."""
    (form,) = shape.forms
    begins = form.begins(data)
    return None if begins is None else form.reading(usage, begins, data, shape.start(data))


def counted(answer: dict[str, Any], number: int) -> dict[str, Any]:
    """*answer* with other counts."""
    usage = {
        name: number + at if type(n) is int else n for at, (name, n) in enumerate(answer["usage"].items())
    }
    return answer | {"usage": usage}


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize(("usage", "answer"), LAID_OUT, ids=IDS)
def test_a_form_that_was_met_often_is_read_as_before(
    usage: Usage, answer: dict[str, Any], indent: int | None
) -> None:
    fresh, shape = taught(usage, told(answer, indent=indent))
    assert len(shape.forms) == 1
    for number in (0, 7, 10**6, 10**11):
        data = told(counted(answer, number), indent=indent)
        reading = formed(fresh, shape, data)
        assert reading == _read(shape, fresh, data) == parsed(usage, data) == glance(fresh, data)
        assert reading is not None
        assert reading.tokens


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"total_tokens": 550', b'"total_tokens": 0550'),
        (b'"total_tokens": 550', b'"total_tokens": -550'),
        (b'"total_tokens": 550', b'"total_tokens": 550.0'),
        (b'"total_tokens": 550', b'"total_tokens": 5e2'),
        (b'"total_tokens": 550', b'"total_tokens": 9999999999999'),
        (b'"total_tokens": 550', b'"total_tokens": true'),
        (b'"total_tokens": 550', b'"total_tokens": '),
        (b'"default"', b'"de\nfault"'),
        (b'"default"', b'"de\xfffault"'),
        (b"0.037", b"0.03.7"),
        (b"0.037", b"00.37"),
        (b"null}", b"null}}"),
        (b"null}", b"null} {"),
        (b"null}", b"null"),
        (b'{"index"', b'{"finish_reason": "length"}, {"index"'),
        (b'"finish_reason"', b'\\"finish_reason"'),
        (b'"model": "gpt-4o-mini"', b'"model": "gpt\\u0034"'),
        (b'"id": "chatcmpl-1"', b'"id": {"x": 1}'),
        (b'"model": "gpt-4o-mini"', b'"model": ""'),
    ],
)
def test_what_a_known_form_does_not_fit_is_told_no_more_than_before(old: bytes, new: bytes) -> None:
    sample = told(DETAILED)
    fresh, shape = taught(CHAT_USAGE, sample)
    odd = sample.replace(old, new)
    assert odd != sample
    assert glance(fresh, odd) is None
    assert formed(fresh, shape, odd) is None


@pytest.mark.parametrize(
    "odd",
    [
        told(CHAT)
        .replace(b'"usage": {', b'"usage": {"prompt_tokens_details": {"cached_tokens": 4}, ')
        .replace(b"}}", b', "prompt_tokens_details": {}}}'),
        told(CHAT).replace(b'"total_tokens": 550', b'"total_tokens": 550, "total_tokens": 7'),
        told(CHAT | {"usage": CHAT["usage"] | {"tiers": [1]}}),
        told(CHAT | {"usage": CHAT["usage"] | {"tier": 'a"b'}}),
        told(CHAT | {"usage": CHAT["usage"] | {"x" * 3000: 1}}),
        told(CHAT | {"usage": CHAT["usage"] | {"total_tokens": 10**12}}),
        # In parts they would match what follows in more ways than could ever be tried.
        told(CHAT | {"created": int("1" * 300)}),
        told(CHAT | {"usage": CHAT["usage"] | {"x": int("1" * 300)}}),
    ],
    ids=[
        "member twice",
        "count twice",
        "array",
        "escaped",
        "long",
        "huge",
        "long number",
        "long number at the end",
    ],
)
def test_an_answer_of_no_plain_form_teaches_none(odd: bytes) -> None:
    fresh, shape = taught(CHAT_USAGE, odd)
    assert shape.forms == []
    assert glance(fresh, odd) == parsed(CHAT_USAGE, odd)


def test_the_last_of_several_members_of_a_name_counts_in_a_known_form_too() -> None:
    fresh, shape = taught(CHAT_USAGE, told(CHAT))
    twice = told(CHAT).replace(b'"choices"', b'"usage": {"prompt_tokens": 1}, "choices"')
    assert formed(fresh, shape, twice) == parsed(CHAT_USAGE, twice)
    after = told(CHAT)[:-1] + b', "usage": {"prompt_tokens": 1}}'
    assert formed(fresh, shape, after) is None


def test_forms_are_few_and_those_without_end_are_seldom_made() -> None:
    fresh, shape = taught(CHAT_USAGE, told(CHAT))
    kept = shape.forms[0]
    made = {id(kept): kept}
    for number in range(2 * SELDOM):
        glance(fresh, told(CHAT | {"usage": CHAT["usage"] | {f"x{number}": 1}}))
        made.update((id(form), form) for form in shape.forms)
        if number % 10 == 0:
            glance(fresh, told(CHAT))
    assert len(shape.forms) <= FORMS
    assert len(made) <= 10
    assert kept in shape.forms  # as it is met again and again


@given(
    which=st.sampled_from(range(len(LAID_OUT))),
    texts=st.lists(TEXTS, min_size=3, max_size=3),
    number=st.integers(0, 10**13),
    extra=st.dictionaries(NAMES, COUNTS, max_size=2),
    indent=st.sampled_from([None, 2]),
    place=st.integers(0, 2000),
    put=st.sampled_from(
        [b"", b'"', b"\\", b"0", b"-", b" ", b"{", b"}", b"]", b",", b"\xff", b'"usage":{}', b"1"]
    ),
    cut=st.integers(0, 2),
)
@settings(deadline=None)
def test_a_known_form_tells_what_was_told_before_or_nothing(
    which: int,
    texts: list[str],
    number: int,
    extra: dict[str, Any],
    indent: int | None,
    place: int,
    put: bytes,
    cut: int,
) -> None:
    usage, answer = LAID_OUT[which]
    fresh, shape = taught(usage, told(answer, indent=indent))
    other = counted(answer, number) | {"id": texts[0]}
    other["usage"] |= extra
    message = {"message": {"content": texts[1]}, "finish_reason": texts[2]}
    other |= {"choices": [message]} if usage is CHAT_USAGE else {"stop_reason": texts[2]}
    for changed in (other, counted(answer, number)):
        data = told(changed, indent=indent)
        # Where a reason to finish is the name of that member, a form tells more.
        assert _read(shape, fresh, data) in (None, glance(fresh, data))
        assert glance(fresh, data) in (None, parsed(usage, data))
        broken = data[: len(data) - place] + put + data[len(data) - place + cut :]
        assume(place <= len(data))
        reading = formed(fresh, shape, broken)
        assert reading in (None, _read(shape, fresh, broken), parsed(usage, broken))
