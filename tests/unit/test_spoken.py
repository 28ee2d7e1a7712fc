"""How much a model said, counted while it passes."""

from __future__ import annotations

import gzip
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmproxyd.inspection.spoken import Spoken
from llmproxyd.providers.base import StreamForm
from llmproxyd.providers.registry import registry


def form_of(name: str, operation: str) -> StreamForm:
    endpoint = next(one for one in registry()[name].endpoints if one.operation == operation and one.forms)
    return endpoint.forms[0]


CHAT = form_of("openai", "chat")
MESSAGES = form_of("anthropic", "messages")


def event(value: object) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def said(text: str) -> bytes:
    return event({"id": "chatcmpl-1234567890", "choices": [{"index": 0, "delta": {"content": text}}]})


STREAM = (
    event({"id": "chatcmpl-1234567890", "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
    + said("Hello")
    + said(" wide")
    + b": comment\n\n"
    + said(" world")
    + event({"choices": [], "usage": {"total_tokens": 12345}})
    + b"data: [DONE]\n\n"
)  # fmt: skip


def counted(form: StreamForm | None, data: bytes, coding: bytes = b"", piece: int = 10**6) -> int:
    spoken = Spoken(form, coding)
    for start in range(0, len(data), piece):
        spoken.feed(data[start : start + piece])
    return spoken.characters


@pytest.mark.parametrize("piece", [1, 7, 10**6])
@pytest.mark.parametrize("coding", [b"", b"identity", b"gzip"])
def test_only_what_the_model_said_counts(coding: bytes, piece: int) -> None:
    data = gzip.compress(STREAM) if coding == b"gzip" else STREAM
    assert counted(CHAT, data, coding, piece) == len("Hello wide world")


def test_what_says_nothing_counts_nothing() -> None:
    opening = event({"type": "message_start", "message": {"id": "msg_0123456789", "model": "claude"}})
    delta = event({"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Hi"}})
    assert counted(MESSAGES, opening) == 0
    assert 2 <= counted(MESSAGES, opening + delta) < 20


def test_all_of_an_answer_in_one_piece_counts() -> None:
    assert counted(None, b'{"a": 1}') == 8
    assert counted(None, gzip.compress(b'{"a": 1}'), b"gzip") == 8


def test_a_coding_that_cannot_be_read_counts_nothing() -> None:
    assert counted(CHAT, STREAM, b"br") == 0
    assert counted(None, STREAM, b"br") == 0


@settings(deadline=None)
@given(
    st.binary(max_size=300)
    | st.sampled_from([STREAM, b"data: [1, {}]\n\n", b"data: " + b"[" * 5000 + b"\n\n"])
)
def test_nothing_raises(data: bytes) -> None:
    for form in (None, CHAT, MESSAGES):
        for coding in (b"", b"gzip", b"br", b"gzip, deflate"):
            assert counted(form, data, coding, 13) >= 0
