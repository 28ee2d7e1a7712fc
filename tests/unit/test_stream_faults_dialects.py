"""Every kind of breakage on the streams of every dialect, as they are on the wire."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_content import FORMS, PROMPTS, framed
from test_stream_faults import run
from test_usage import SAMPLES, lines, sse

from llmproxyd.faults.rules import At, Breakage, Manner, Spot
from llmproxyd.faults.stream import ANYWHERE, CHANGES, IN_BODY, Break, Finish, Player, Send, Step, Wait
from llmproxyd.http.framing import Framing
from llmproxyd.http.sse import DONE, Event, EventReader
from llmproxyd.inspection.content import CONTENT, StreamWatch, Trouble
from llmproxyd.inspection.inflate import Inflater
from llmproxyd.inspection.usage import UsageReader
from llmproxyd.providers import anthropic, bedrock, cohere, google, interactions, llamacpp, ollama, openai
from llmproxyd.providers.base import ErrorContext, ErrorKind, StreamForm, Usage, encode
from llmproxyd.providers.events import length
from llmproxyd.providers.registry import registry
from llmproxyd.sandbox import anthropic as sandbox_anthropic
from llmproxyd.sandbox import cohere as sandbox_cohere
from llmproxyd.sandbox import google as sandbox_google
from llmproxyd.sandbox import ollama as sandbox_ollama
from llmproxyd.sandbox import openai as sandbox_openai
from llmproxyd.sandbox import responses as sandbox_responses
from llmproxyd.sandbox.reply import Reply, answer

KNOWN = registry()


@dataclass(frozen=True)
class Stream:
    """One stream and what is known of its dialect."""

    name: str
    form: StreamForm
    usage: Usage | None
    data: bytes
    error: bytes | None = None


def error_of(provider: str, form: StreamForm, operation: str) -> bytes | None:
    speaker = KNOWN[provider]
    context = ErrorContext(
        kind=ErrorKind.OVERLOADED, operation=operation, model="m", request_id="r", wall=1e9, streaming=True
    )
    return speaker.stream_error(form, speaker.spec(ErrorKind.OVERLOADED, operation), context)


ANSWERS = [
    Stream(
        one.name,
        one.form,
        one.usage,
        one.body,
        error_of(one.endpoint.speaks or one.provider, one.form, one.endpoint.operation),
    )
    for one in SAMPLES
    if one.form is not None and one.complete and not one.failed
]


def of(events: Iterable[object]) -> bytes:
    return b"".join(event.data for event in events)  # type: ignore[attr-defined]


def inner(*values: object) -> bytes:
    """The events of a model within chunks of Bedrock's."""
    events = [{"bytes": base64.b64encode(encode(value)).decode()} for value in values]
    return b"".join(framed(bedrock.STREAM, "chunk", event) for event in events)


CALL: Reply = answer(PROMPTS[1], b"seed")
CLAUDE = [
    {"type": "message_start", "message": {"role": "assistant", "usage": {"input_tokens": 3}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "name": "f", "input": {}}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": '{"a":'}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": "1}"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 5}},
    {"type": "message_stop"},
]  # fmt: skip
CONVERSE = [
    ("messageStart", {"role": "assistant"}),
    ("contentBlockStart", {"contentBlockIndex": 0, "start": {"toolUse": {"toolUseId": "t", "name": "f"}}}),
    ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"toolUse": {"input": '{"a":'}}}),
    ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"toolUse": {"input": "1}"}}}),
    ("contentBlockStop", {"contentBlockIndex": 0}),
    ("messageStop", {"stopReason": "tool_use"}),
    ("metadata", {"usage": {"inputTokens": 3, "outputTokens": 5}, "metrics": {"latencyMs": 1}}),
]
TALK = [
    {"event_type": "interaction.start", "interaction": {"id": "i", "status": "in_progress"}},
    {"event_type": "content.start", "index": 0, "content": {"type": "function_call"}},
    {"event_type": "content.delta", "delta": {"type": "function_call", "name": "f", "arguments": {"a": 1}}},
    {"event_type": "content.stop", "index": 0},
    {"event_type": "interaction.completed", "interaction": {"status": "completed", "outputs": [{"type": "function_call", "name": "f"}], "usage": {"total_tokens": 7}}},
]  # fmt: skip
COHERE_V1 = [
    {"event_type": "stream-start", "generation_id": "g"},
    {"event_type": "tool-calls-chunk", "tool_call_delta": {"name": "f", "index": 0}},
    {"event_type": "tool-calls-chunk", "tool_call_delta": {"index": 0, "parameters": '{"a":'}},
    {"event_type": "tool-calls-chunk", "tool_call_delta": {"index": 0, "parameters": "1}"}},
    {"event_type": "tool-calls-generation", "tool_calls": [{"name": "f", "parameters": {"a": 1}}]},
    {"event_type": "stream-end", "finish_reason": "COMPLETE", "response": {"text": "", "tool_calls": [{"name": "f"}], "meta": {"tokens": {"input_tokens": 3}}}},
]  # fmt: skip

CALLS = [
    Stream("chat", openai.CHAT_STREAM, openai.CHAT_USAGE, of(sandbox_openai.chat_events(CALL, with_usage=True))),
    Stream("responses", openai.RESPONSES_STREAM, openai.RESPONSES_USAGE, of(sandbox_responses.events(CALL, {}))),
    Stream("messages", anthropic.STREAM, anthropic.USAGE, of(sandbox_anthropic.events(CALL))),
    Stream("gemini", google.SSE_STREAM, google.USAGE, of(sandbox_google.events(CALL))),
    Stream("gemini array", google.ARRAY_STREAM, google.USAGE, of(sandbox_google.elements(CALL))),
    Stream("interaction", interactions.STREAM, interactions.USAGE, sse(*TALK)),
    Stream("cohere", cohere.STREAM, cohere.USAGE, of(sandbox_cohere.events(CALL))),
    Stream("cohere v1", cohere.STREAM_V1, cohere.USAGE_V1, lines(*COHERE_V1)),
    Stream("ollama", ollama.STREAM, ollama.USAGE, of(sandbox_ollama.chat_events(CALL))),
    Stream("converse", bedrock.STREAM, bedrock.USAGE, b"".join(framed(bedrock.STREAM, *one) for one in CONVERSE)),
    Stream("claude at bedrock", bedrock.STREAM, None, inner(*CLAUDE)),
    Stream("nova at bedrock", bedrock.STREAM, None, inner(*({name: value} for name, value in CONVERSE))),
]  # fmt: skip

STREAMS = ANSWERS + [Stream(f"{one.name}, a call", one.form, one.usage, one.data) for one in CALLS]
by_stream = pytest.mark.parametrize("stream", STREAMS, ids=lambda one: one.name)
by_call = pytest.mark.parametrize("stream", CALLS, ids=lambda one: one.name)


def player(
    stream: Stream, kind: Breakage, at: At | None = None, known: bool = False, **more: float
) -> Player:
    return Player(
        kind,
        Manner(at=at, **more),  # type: ignore[arg-type]
        form=stream.form,
        length=len(stream.data) if known else None,
        usage=stream.usage,
        error_event=lambda: stream.error,
    )


def play(
    stream: Stream, kind: Breakage, at: At | None = None, known: bool = False, **more: float
) -> list[Step]:
    one = player(stream, kind, at, known, **more)
    steps = run(one, [stream.data])
    assert one.reached
    return steps


def data_of(steps: Iterable[Step]) -> bytes:
    return b"".join(step.data for step in steps if isinstance(step, Send))


def events_of(form: StreamForm, data: bytes) -> list[Event]:
    reader = EventReader(form.framing, len(data) + 1)
    return [*reader.feed(data), *reader.end()]


def watched(form: StreamForm, data: bytes) -> tuple[StreamWatch, list[object]]:
    """A stream as the readers of this proxy see it, and the sign in each event; of an array only the first."""
    one = StreamWatch(form, Inflater(b"", len(data) + 1), len(data) + 1)
    if form.framing is Framing.JSON_ARRAY:
        return one, [one.feed(data)]
    return one, [one.feed(framed(form, event.name, event.data)) for event in events_of(form, data)]


def is_whole(framing: Framing, data: bytes) -> bool:
    """Whether an array is one; any other framing ends with each event."""
    try:
        return framing is not Framing.JSON_ARRAY or isinstance(json.loads(data), list)
    except ValueError:
        return False


# -- for every kind ----------------------------------------------------------------------

PLACES = [None, At(Spot.START), At(Spot.EVENTS, 2), At(Spot.TOOL), At(Spot.END), At(Spot.BYTES, 100), At(Spot.PERCENT, 70)]  # fmt: skip


@by_stream
@pytest.mark.parametrize("kind", sorted(IN_BODY))
def test_steps_do_not_depend_on_how_the_bytes_came(stream: Stream, kind: Breakage) -> None:
    for at in (None, At(Spot.PERCENT, 60)):
        whole = run(player(stream, kind, at, True, per_event=1.0), [stream.data])
        pieces = (stream.data[at : at + 1] for at in range(len(stream.data)))
        assert run(player(stream, kind, at, True, per_event=1.0), pieces) == whole


@given(
    st.sampled_from(STREAMS),
    st.sampled_from(sorted(IN_BODY)),
    st.sampled_from(PLACES),
    st.lists(st.integers(0, 3000), max_size=6),
)
@settings(max_examples=300, deadline=None)
def test_steps_are_the_same_wherever_the_bytes_were_split(
    stream: Stream, kind: Breakage, at: At | None, places: list[int]
) -> None:
    data = stream.data
    ends = sorted({min(place, len(data)) for place in places} | {len(data)})
    pieces = [data[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]
    assert run(player(stream, kind, at, True), pieces) == run(player(stream, kind, at, True), [data])


@given(
    st.sampled_from(sorted(FORMS)),
    st.sampled_from(sorted(IN_BODY)),
    st.sampled_from(PLACES),
    st.lists(st.binary(max_size=30) | st.sampled_from([b"data: ", b"\n\n", b"[{", b"}", b'{"choices":', b"\0\0\0\x20"]), max_size=8),
)  # fmt: skip
@settings(max_examples=400, deadline=None)
def test_any_bytes_are_played_without_raising(
    name: str, kind: Breakage, at: At | None, pieces: list[bytes]
) -> None:
    stream = Stream("x", FORMS[name], openai.CHAT_USAGE, b"".join(pieces))
    one = player(stream, kind, at, True, per_event=1.0)
    steps = run(one, pieces)
    assert isinstance(steps[-1], (Break, Finish))
    if not one.reached:
        assert steps == [*([Send(stream.data)] if stream.data else []), Finish()]


@by_stream
@pytest.mark.parametrize("kind", sorted(IN_BODY - {Breakage.EMPTY, Breakage.NO_USAGE, Breakage.SLOW}))
def test_what_is_not_reached_passes_byte_for_byte(stream: Stream, kind: Breakage) -> None:
    one = player(stream, kind, At(Spot.EVENTS, 10_000))
    assert run(one, [stream.data]) == [Send(stream.data), Finish()]
    assert not one.reached


# -- where they end ----------------------------------------------------------------------


@by_stream
def test_start_is_before_anything_is_said(stream: Stream) -> None:
    data = data_of(play(stream, Breakage.CUT, At(Spot.START)))
    assert stream.data.startswith(data)
    assert watched(stream.form, data)[0].empty
    behind = data_of(play(stream, Breakage.CUT, At(Spot.EVENTS, 1)))
    assert not watched(stream.form, behind)[0].empty
    assert len(events_of(stream.form, behind)) == len(events_of(stream.form, data)) + 1


@by_stream
def test_at_the_end_all_is_said_and_nothing_tells_that_it_is_complete(stream: Stream) -> None:
    if not watched(stream.form, stream.data)[0].finished:
        # What closes a chunk of Bedrock's is the model's own affair; vLLM's sample breaks off.
        assert stream.form is bedrock.STREAM or stream.name == "vllm messages"
        assert run(player(stream, Breakage.CUT, At(Spot.END)), [stream.data]) == [Send(stream.data), Finish()]
        return
    for kind in (Breakage.CUT, Breakage.TRUNCATE):
        data = data_of(play(stream, kind, At(Spot.END)))
        assert stream.data.startswith(data)
        one, _ = watched(stream.form, data)
        assert not one.finished
        rest = events_of(stream.form, stream.data)[len(events_of(stream.form, data)) :]
        assert rest[0].data == DONE or closes(stream.form, rest[0])


def closes(form: StreamForm, event: Event) -> bool:
    return form.closes(event.name, json.loads(event.data))


@by_stream
def test_a_truncated_stream_ends_well_and_is_not_complete(stream: Stream) -> None:
    steps = play(stream, Breakage.TRUNCATE)
    assert steps[-1] == Finish()
    data = data_of(steps)
    assert stream.data.startswith(data)
    assert len(data) < len(stream.data)
    first = watched(stream.form, data)[0]
    assert not first.empty
    # A stream that says all in its first event is complete with it.
    assert not first.finished or closes(stream.form, events_of(stream.form, data)[-1])
    assert DONE not in data


@by_stream
def test_an_error_event_is_the_last_of_the_stream(stream: Stream) -> None:
    steps = play(stream, Breakage.STREAM_ERROR)
    if stream.error is None:
        assert steps[-1] == Break(reset=False)
        return
    assert steps[-1] == Finish()
    data = data_of(steps)
    assert is_whole(stream.form.framing, data)
    last = events_of(stream.form, data)[-1]
    _, signs = watched(stream.form, data)
    assert stream.form.failure(last.name, json.loads(last.data)) is not None
    if stream.form.framing is not Framing.JSON_ARRAY:
        assert isinstance(signs[-1], Trouble)


def test_errors_are_worded_for_every_form_that_has_any() -> None:
    with_error = {one.form.name for one in ANSWERS if one.error is not None}
    without = {name for name, form in FORMS.items() if form.error is None}
    assert with_error | without | {"progress"} == set(FORMS)


# -- what they change --------------------------------------------------------------------


@by_stream
def test_garbage_is_one_event_that_is_no_json(stream: Stream) -> None:
    data = data_of(play(stream, Breakage.GARBAGE, At(Spot.START)))
    before = events_of(stream.form, stream.data)
    after = events_of(stream.form, data)
    assert [one.name for one in after] == [one.name for one in before], "the framing is whole"
    changed = [at for at, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]
    assert len(changed) == 1
    with pytest.raises(ValueError, match=r"."):
        json.loads(after[changed[0]].data)


@by_stream
def test_a_duplicate_is_the_same_event_again(stream: Stream) -> None:
    data = data_of(play(stream, Breakage.DUPLICATE, At(Spot.START)))
    before, after = events_of(stream.form, stream.data), events_of(stream.form, data)
    at = next(at for at, event in enumerate(after) if at and event == after[at - 1])
    assert after[:at] + after[at + 1 :] == before
    assert is_whole(stream.form.framing, data)


@by_stream
def test_two_events_in_turn_are_the_same_events(stream: Stream) -> None:
    data = data_of(play(stream, Breakage.REORDER, At(Spot.START)))
    before, after = events_of(stream.form, stream.data), events_of(stream.form, data)
    at = next(at for at, (old, new) in enumerate(zip(before, after, strict=True)) if old != new)
    assert after == [*before[:at], before[at + 1], before[at], *before[at + 2 :]]
    assert is_whole(stream.form.framing, data)


@by_stream
def test_without_usage_nothing_counts_and_the_rest_is_there(stream: Stream) -> None:
    one = player(stream, Breakage.NO_USAGE)
    steps = run(one, [stream.data])
    data = data_of(steps)
    assert steps[-1] == Finish()
    told = reading(stream, stream.data)
    assert one.reached is bool(told)
    assert reading(stream, data) == {}
    assert is_whole(stream.form.framing, data)
    assert said(stream.form, data) == said(stream.form, stream.data)
    assert watched(stream.form, data)[0].finished is watched(stream.form, stream.data)[0].finished
    assert (data == stream.data) is not one.reached


def reading(stream: Stream, data: bytes) -> dict[str, int]:
    reader = UsageReader(stream.usage, stream.form, b"")
    reader.feed(data)
    return dict(reader.reading(True).tokens)


def said(form: StreamForm, data: bytes) -> list[object]:
    values = [(event.name, json.loads(event.data)) for event in events_of(form, data) if event.data != DONE]
    found = [form.said(name, value) for name, value in values]
    return [one for one in found if length(one)]


@by_stream
def test_an_empty_stream_opens_and_closes_and_says_nothing(stream: Stream) -> None:
    data = data_of(play(stream, Breakage.EMPTY))
    assert is_whole(stream.form.framing, data)
    assert said(stream.form, data) == []
    complete = watched(stream.form, stream.data)[0].finished
    assert watched(stream.form, data)[0].finished is complete
    kept = events_of(stream.form, data)
    opening = events_of(stream.form, stream.data)[0]
    if watched(stream.form, framed(stream.form, *opening))[0].empty and stream.form is not ollama.STREAM:
        assert kept[0] == opening
    assert b"Hi" not in data
    assert b'"f"' not in data


# -- a pace ------------------------------------------------------------------------------


@by_stream
def test_a_slow_stream_is_the_same_stream(stream: Stream) -> None:
    steps = play(stream, Breakage.SLOW, first_token=2.0, per_event=1.0)
    assert data_of(steps) == stream.data
    found = [step.seconds for step in steps if isinstance(step, Wait)]
    if stream.form.framing is not Framing.JSON_ARRAY:
        contents = [sign for sign in watched(stream.form, stream.data)[1] if sign is CONTENT]
        assert len(found) == len(contents)
    assert found == [2.0, *[1.0] * (len(found) - 1)]


@pytest.mark.parametrize(
    ("form", "name", "value", "characters"),
    [
        (openai.CHAT_STREAM, "", {"id": "abc", "object": "x", "choices": [{"delta": {"role": "assistant", "content": "four"}}]}, 4),
        (openai.CHAT_STREAM, "", {"choices": [{"delta": {}, "finish_reason": "stop"}]}, 0),
        (openai.CHAT_STREAM, "", {"choices": [{"text": "five."}]}, 5),
        (openai.RESPONSES_STREAM, "", {"type": "response.output_text.delta", "item_id": "x", "delta": "four"}, 4),
        (openai.RESPONSES_STREAM, "", {"type": "response.output_text.done", "text": "four"}, 0),
        (openai.RESPONSES_STREAM, "", {"type": "response.completed", "response": {"output": ["four"]}}, 0),
        (anthropic.STREAM, "", {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "four"}}, 4),
        (anthropic.STREAM, "", {"type": "content_block_delta", "delta": {"type": "signature_delta", "signature": "x" * 400}}, 0),
        (anthropic.STREAM, "", {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}, 0),
        (google.SSE_STREAM, "", {"candidates": [{"content": {"parts": [{"text": "four", "thoughtSignature": "xyz"}]}}], "modelVersion": "m"}, 4),
        (google.SSE_STREAM, "", {"candidates": [{"content": {"parts": [{"inlineData": {"mimeType": "image/png", "data": "xyz"}}]}}]}, 0),
        (interactions.STREAM, "", {"event_type": "content.delta", "delta": {"type": "text", "text": "four"}}, 4),
        (cohere.STREAM, "", {"type": "content-delta", "delta": {"message": {"content": {"text": "four"}}}}, 4),
        (cohere.STREAM_V1, "", {"event_type": "text-generation", "text": "four"}, 4),
        (cohere.STREAM_V1, "", {"event_type": "stream-end", "response": {"text": "four"}}, 0),
        (ollama.STREAM, "", {"model": "m", "message": {"role": "assistant", "content": "four"}}, 4),
        (ollama.STREAM, "", {"model": "m", "response": "four"}, 4),
        (llamacpp.NATIVE_STREAM, "", {"content": "four", "model": "m"}, 4),
        (bedrock.STREAM, "contentBlockDelta", {"delta": {"text": "four"}}, 4),
        (bedrock.STREAM, "chunk", {"bytes": base64.b64encode(encode({"type": "content_block_delta", "delta": {"text": "four"}})).decode()}, 4),
        (bedrock.STREAM, "chunk", {"bytes": base64.b64encode(encode({"choices": [{"delta": {"content": "four"}}], "id": "x"})).decode()}, 4),
        (bedrock.STREAM, "chunk", {"bytes": base64.b64encode(encode({"generation": "four"})).decode()}, 4),
        (bedrock.STREAM, "chunk", {"bytes": "!"}, 0),
    ],
)  # fmt: skip
def test_what_the_model_said_is_what_takes_time(
    form: StreamForm, name: str, value: dict[str, object], characters: int
) -> None:
    assert length(form.said(name, value)) == characters


# -- calls -------------------------------------------------------------------------------


def arguments_of(form: StreamForm, data: bytes) -> list[str]:
    events = [event for event in events_of(form, data) if event.data != DONE]
    found = [form.tool(event.name, json.loads(event.data)) for event in events]
    return [piece for piece in found if piece]


@by_call
def test_arguments_of_a_call_are_known(stream: Stream) -> None:
    pieces = arguments_of(stream.form, stream.data)
    assert pieces
    whole = pieces[0] if stream.form is not cohere.STREAM_V1 else "".join(pieces[:2])
    text = whole if whole.endswith("}") else "".join(pieces)
    assert isinstance(json.loads(text), dict)


@by_call
def test_a_call_is_cut_within_its_arguments(stream: Stream) -> None:
    steps = play(stream, Breakage.CUT, At(Spot.TOOL))
    assert steps[-1] == Break(reset=False)
    data = data_of(steps)
    assert stream.data.startswith(data)
    pieces = arguments_of(stream.form, stream.data)
    got = arguments_of(stream.form, data)
    assert got == ([] if len(pieces) == 1 else pieces[:1])
    with pytest.raises(ValueError, match=r"."):
        json.loads("".join(got))


@by_call
@pytest.mark.parametrize("kind", sorted((ANYWHERE | CHANGES | {Breakage.STREAM_ERROR}) - {Breakage.CUT}))
def test_the_arguments_are_a_spot_for_every_kind(stream: Stream, kind: Breakage) -> None:
    play(stream, kind, At(Spot.TOOL))


def test_every_form_with_calls_knows_their_arguments() -> None:
    tested = {one.form.name for one in CALLS}
    assert tested == set(FORMS) - {"progress", "completion"}
    assert {name for name, form in FORMS.items() if form.empty is not None} == set(FORMS) - {"progress"}


@pytest.mark.parametrize(
    ("form", "value"),
    [
        (openai.CHAT_STREAM, {"choices": [{"delta": {"function_call": {"name": "f", "arguments": "{"}}}]}),
        (openai.RESPONSES_STREAM, {"type": "response.custom_tool_call_input.delta", "delta": "{"}),
        (openai.RESPONSES_STREAM, {"type": "response.mcp_call_arguments.delta", "delta": "{"}),
        (interactions.STREAM, {"event_type": "content.delta", "delta": {"arguments": "{"}}),
    ],
)  # fmt: skip
def test_other_calls_have_arguments_too(form: StreamForm, value: dict[str, object]) -> None:
    assert form.tool("", value) == "{"


@pytest.mark.parametrize(
    ("form", "value"),
    [
        (openai.CHAT_STREAM, {"choices": [{"delta": {"tool_calls": [{"function": {"name": "f", "arguments": ""}}]}}]}),
        (openai.CHAT_STREAM, {"choices": [{"delta": {"tool_calls": None, "function_call": None}}]}),
        (openai.RESPONSES_STREAM, {"type": "response.output_text.delta", "delta": "{"}),
        (anthropic.STREAM, {"type": "content_block_start", "content_block": {"type": "tool_use", "input": {}}}),
        (anthropic.STREAM, {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "{"}}),
        (google.SSE_STREAM, {"candidates": [{"content": {"parts": [{"functionCall": {"name": "f", "args": {}}}]}}]}),
        (ollama.STREAM, {"message": {"tool_calls": [{"function": {"name": "f", "arguments": {}}}]}}),
        (bedrock.STREAM, {"delta": {"text": "{"}}),
        (llamacpp.NATIVE_STREAM, {"content": "{"}),
    ],
)  # fmt: skip
def test_what_holds_no_arguments_is_no_call(form: StreamForm, value: dict[str, object]) -> None:
    assert form.tool("", value) == ""


@pytest.mark.parametrize("kind", sorted(IN_BODY))
@pytest.mark.parametrize(
    ("form", "event"),
    [
        (anthropic.STREAM, b'{"type":"content_block_start","content_block":{"input":%b}}'),
        (openai.CHAT_STREAM, b'{"choices":[{"delta":{"content":"x"},"finish_reason":"stop"}],"x":%b}'),
    ],
    ids=["a call", "an end"],
)
def test_what_is_nested_deeply_is_played_without_raising(
    kind: Breakage, form: StreamForm, event: bytes
) -> None:
    # What is read with the last frame of the stack to spare cannot be written with it any more.
    for depth in (100, *range(850, 1000), 100_000):
        deep = b'{"a":' * depth + b"1" + b"}" * depth
        stream = Stream("x", form, openai.CHAT_USAGE, b"data: " + event % deep + b"\n\n")
        steps = run(player(stream, kind, At(Spot.TOOL)), [stream.data])
        assert isinstance(steps[-1], (Break, Finish))


def judges(form: StreamForm) -> list[Callable[[str, dict[str, object]], object]]:
    return [form.said, form.tool, form.closes, *([form.empty] if form.empty else [])]


@given(
    st.sampled_from(sorted(FORMS)),
    st.sampled_from(["", "chunk", "contentBlockDelta", "content_block_delta", "message-end"]),
    st.dictionaries(
        st.sampled_from(
            ["choices", "delta", "message", "candidates", "content", "parts", "type", "event_type", "response",
             "interaction", "tool_calls", "function", "arguments", "bytes", "done", "finish_reason"]
        ),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.sampled_from(["", "x", "response.completed", "content.delta"]),
            lambda one: st.lists(one, max_size=2)
            | st.dictionaries(st.sampled_from(["delta", "content", "parts", "function", "arguments", "message"]), one, max_size=2),
            max_leaves=6,
        ),
        max_size=4,
    ),
)  # fmt: skip
@settings(max_examples=400, deadline=None)
def test_any_object_is_judged_without_raising(form: str, name: str, value: dict[str, object]) -> None:
    before = json.dumps(value)
    for judge in judges(FORMS[form]):
        judge(name, value)
    assert json.dumps(value) == before, "nothing is changed in place"
