"""Reading usage: large answers, hostile bytes, and how much memory and work they can cost."""

from __future__ import annotations

import gzip
import json
import time
import tracemalloc
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmproxyd.http.framing import Framing
from llmproxyd.inspection.excerpt import beginning, ending
from llmproxyd.inspection.findings import MODEL, MOST
from llmproxyd.inspection.usage import UsageReader
from llmproxyd.model import Reading
from llmproxyd.providers import anthropic, google, openai
from llmproxyd.providers.base import StreamForm, Usage, encode
from llmproxyd.providers.registry import registry

CASES: list[tuple[Usage, StreamForm | None]] = [
    (endpoint.usage, form)
    for provider in registry().values()
    for endpoint in provider.endpoints
    if endpoint.usage is not None
    for form in (None, *endpoint.forms)
]
TOLD = {"prompt_tokens": 8, "total_tokens": 8}
LIMIT = 1024 * 1024


def read(
    body: bytes,
    *,
    limit: int = LIMIT,
    usage: Usage = openai.CHAT_USAGE,
    coding: bytes = b"",
    step: int = 65536,
) -> Reading:
    reader = UsageReader(usage, None, coding, limit=limit)
    for at in range(0, len(body), step):
        reader.feed(body[at : at + step])
    return reader.reading(True)


# Large answers.


def vectors(count: int, **more: object) -> bytes:
    """An answer of about 12 bytes a number."""
    data = [{"object": "embedding", "index": 0, "embedding": [0.0123456] * count}]
    return encode({"object": "list", "data": data, "model": "e", "usage": TOLD, **more})


@pytest.mark.parametrize("count", [10, 10_000, 80_000, 300_000])
@pytest.mark.parametrize("step", [1000, 65536, 10**9])
def test_counts_behind_vectors_are_found_whatever_their_number(count: int, step: int) -> None:
    assert read(vectors(count), step=step) == Reading(model="e", tokens={"input": 8, "total": 8})


@pytest.mark.parametrize("count", [10, 10_000, 300_000])
def test_model_before_vectors_is_found(count: int) -> None:
    usage = registry()["ollama"].endpoint(b"POST", b"/api/embed").usage  # type: ignore[union-attr]
    assert usage is not None
    body = encode({"model": "m", "embeddings": [[0.5] * count], "total_duration": 1, "prompt_eval_count": 8})
    assert read(body, usage=usage) == Reading(model="m", tokens={"input": 8})


def test_counts_before_an_image_are_found_as_long_as_all_is_kept() -> None:
    body = encode({"usage": TOLD, "model": "m", "data": [{"b64_json": "A" * 200_000}]})
    assert read(body) == Reading(model="m", tokens={"input": 8, "total": 8})
    assert read(body, limit=100_000) == Reading()


def test_counts_within_something_else_are_not_those_of_the_answer() -> None:
    fake = {"usage": {"prompt_tokens": 666}, "model": "fake"}
    body = encode({"data": ["A" * 200_000, fake], "usage": TOLD, "model": "m", "more": {"deep": fake}})
    for limit in (LIMIT, 100_000):
        assert read(body, limit=limit) == Reading(model="m", tokens={"input": 8, "total": 8})


def test_counts_within_a_text_are_not_those_of_the_answer() -> None:
    text = json.dumps({"usage": {"prompt_tokens": 666}, "model": "fake"})
    body = encode({"x": "A" * 200_000, "usage": TOLD, "model": "m", "text": text + text[:-1]})
    for limit in (LIMIT, 100_000):
        assert read(body, limit=limit) == Reading(model="m", tokens={"input": 8, "total": 8})


@given(st.dictionaries(st.text(max_size=5), st.recursive(st.none() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["usage", "model", "x"]), inner, max_size=3), max_leaves=8), max_size=6), st.booleans())  # fmt: skip
def test_ends_of_an_object_hold_its_own_members_alone(value: dict[str, object], spaced: bool) -> None:
    data = json.dumps(value, indent=1 if spaced else None).encode()
    behind = ending(data, ["usage", "model"]) or {}
    for name, member in behind.items():
        assert value[name] == member
    for name in ("usage", "model"):
        if name in value and data.count(b'"usage"') + data.count(b'"model"') < 16:
            assert behind[name] == value[name]
    for name, member in (beginning(data) or {}).items():
        assert value[name] == member


def test_answer_that_broke_off_tells_nothing() -> None:
    body = vectors(10)
    reader = UsageReader(openai.CHAT_USAGE, None, b"")
    reader.feed(body)
    assert reader.reading(False) == Reading()


# Hostile bytes.

TEXTS = st.sampled_from(["usage", "model", "error", "choices", "finish_reason", "delta", "message", "response", "type", "status", "content", "usageMetadata", "candidates", "done", "interaction", "event_type", "bytes", "input_tokens", "prompt_tokens", "tokens", "meta", "\ud800", "x"])  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=5),
    max_leaves=12,
)
FRAMES = {
    Framing.SSE: lambda data: b"event: error\ndata: " + data + b"\n\n",
    Framing.NDJSON: lambda data: data + b"\n",
    Framing.JSON_ARRAY: lambda data: b"[" + data + b",",
    Framing.EVENT_STREAM: lambda data: (len(data) + 16).to_bytes(4, "big") + b"\0" * 8 + data + b"\0" * 4,
}


def checked(reading: Reading) -> None:
    """What is told is bounded, and can be written down."""
    assert reading.model is None or (0 < len(reading.model) <= MODEL and reading.model.encode())
    assert reading.finish is None or reading.finish.encode()
    assert all(type(count) is int and 0 <= count <= 4 * MOST for count in reading.tokens.values())


@settings(max_examples=300)
@given(st.sampled_from(CASES), st.lists(VALUES, max_size=4), st.integers(1, 40), st.booleans())
def test_any_json_is_read_without_an_exception(
    case: tuple[Usage, StreamForm | None], values: list[object], step: int, complete: bool
) -> None:
    usage, form = case
    frame = (lambda data: data) if form is None else FRAMES[form.framing]
    body = b"".join(frame(json.dumps(value).encode()) for value in values)
    reader = UsageReader(usage, form, b"", limit=500)
    for at in range(0, len(body), step):
        reader.feed(body[at : at + step])
    checked(reader.reading(complete))


@settings(max_examples=300)
@given(st.sampled_from(CASES), st.lists(st.binary(max_size=60), max_size=8), st.sampled_from([b"", b"gzip", b"deflate", b"br", b"\xff,,"]), st.booleans())  # fmt: skip
def test_any_bytes_are_read_without_an_exception(
    case: tuple[Usage, StreamForm | None], pieces: list[bytes], coding: bytes, complete: bool
) -> None:
    reader = UsageReader(*case, coding, limit=100)
    for piece in pieces:
        reader.feed(piece)
    checked(reader.reading(complete))


@given(st.sampled_from(CASES), st.data())
def test_pieces_do_not_matter(case: tuple[Usage, StreamForm | None], data: st.DataObject) -> None:
    usage, form = case
    frame = (lambda data: data) if form is None else FRAMES[form.framing]
    body = b"".join(frame(encode(value)) for value in data.draw(st.lists(SAYABLE, max_size=4)))
    at = data.draw(st.integers(0, len(body)))
    found = []
    for pieces in ([body], [body[:at], body[at:]], [body[i : i + 1] for i in range(len(body))]):
        reader = UsageReader(usage, form, b"")
        for piece in pieces:
            reader.feed(piece)
        found.append((reader.reading(True), reader.began))
    assert found[0] == found[1] == found[2]


SAYABLE = st.recursive(
    st.none() | st.booleans() | st.integers(0, 100) | TEXTS.filter(lambda text: text != "\ud800"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS.filter(str.isascii), inner, max_size=4),
    max_leaves=10,
)


@pytest.mark.parametrize(
    "count", [True, False, -1, 1.5, "7", None, [7], {"n": 7}, 10**13, 1e300, float("nan"), float("inf")]
)
def test_count_that_is_none_is_left_out(count: object) -> None:
    body = json.dumps({"model": "m", "usage": {"prompt_tokens": count, "completion_tokens": 2}}).encode()
    assert read(body).tokens == {"output": 2}


@pytest.mark.parametrize("model", ["", "x" * 257, "a\nb", "\ud800", 7, None, ["m"], {"m": 1}])
def test_model_that_is_none_is_left_out(model: object) -> None:
    assert read(json.dumps({"model": model, "usage": TOLD}).encode()).model is None


def test_last_count_wins_and_the_first_model() -> None:
    reader = UsageReader(openai.CHAT_USAGE, openai.CHAT_STREAM, b"")
    for model, count in (("a", 1), ("b", 2), ("", 3)):
        reader.feed(b"data: " + encode({"model": model, "usage": {"prompt_tokens": count}}) + b"\n\n")
    assert reader.reading(True) == Reading(model="a", tokens={"input": 3})


def test_reading_twice_counts_once() -> None:
    reader = UsageReader(anthropic.USAGE, None, b"")
    reader.feed(encode({"model": "m", "usage": {"input_tokens": 5, "cache_read_input_tokens": 7}}))
    assert reader.reading(True) == reader.reading(True)
    assert reader.reading(True).tokens == {"input": 12, "cached": 7}


# Memory and work.


def peak(reader: UsageReader, pieces: list[bytes]) -> int:
    tracemalloc.start()
    try:
        for piece in pieces:
            reader.feed(piece)
        reader.reading(True)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("form", [None, openai.CHAT_STREAM, google.ARRAY_STREAM])
def test_memory_is_bounded_whatever_the_length(form: StreamForm | None) -> None:
    pieces = [b'{"a": "' + b"x" * 65_000] * 1000
    assert peak(UsageReader(openai.CHAT_USAGE, form, b"", limit=100_000), pieces) < 1_000_000


@pytest.mark.parametrize("form", [None, openai.CHAT_STREAM])
def test_a_bomb_neither_fills_memory_nor_takes_long(form: StreamForm | None) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    zeros = b"\0" * 1_000_000
    bomb = b"".join(packer.compress(zeros) for _ in range(300)) + packer.flush()
    reader = UsageReader(openai.CHAT_USAGE, form, b"gzip", limit=100_000)
    begun = time.perf_counter()
    assert peak(reader, [bomb]) < 6_000_000
    # Traced, it takes some times as long; all 300 MB would take minutes.
    assert time.perf_counter() - begun < 10


def test_coded_stream_longer_than_the_limit_is_read_to_its_end() -> None:
    event = b'data: {"model":"m","choices":[{"delta":{"content":"Hi"}}]}\n\n'
    body = event * 2000 + b"data: " + encode({"choices": [], "usage": TOLD}) + b"\n\n"
    reader = UsageReader(openai.CHAT_USAGE, openai.CHAT_STREAM, b"gzip", limit=10_000)
    reader.feed(gzip.compress(body))
    assert reader.reading(True) == Reading(model="m", tokens={"input": 8, "total": 8})


def test_no_more_is_inflated_than_so_many_times_the_limit() -> None:
    event = b'data: {"model":"m","choices":[{"delta":{"content":"Hi"}}]}\n\n'
    body = event * 2000 + b"data: " + encode({"choices": [], "usage": TOLD}) + b"\n\n"
    assert len(body) > 64 * 1000
    reader = UsageReader(openai.CHAT_USAGE, openai.CHAT_STREAM, b"gzip", limit=1000)
    reader.feed(gzip.compress(body))
    assert reader.reading(True) == Reading(model="m")


def test_many_places_that_look_right_do_not_take_long() -> None:
    body = b'{"a": [' + b'{"usage": [' * 6000 + b"]" * 10
    begun = time.perf_counter()
    assert read(body, limit=20_000) == Reading()
    assert read(b'{"a":"' + b'\\"' * 500_000, limit=LIMIT) == Reading()
    assert read(b'{"a":1,' * 100_000, limit=LIMIT) == Reading()
    assert time.perf_counter() - begun < 3
