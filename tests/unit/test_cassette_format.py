"""A recorded exchange as a text, and back: byte for byte."""

from __future__ import annotations

import gzip
import json
from contextlib import suppress
from dataclasses import replace

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from llmproxyd.cassettes import nodes
from llmproxyd.cassettes.format import Answered, Asked, Exchange, Piece
from llmproxyd.cassettes.reading import Unusable, read
from llmproxyd.cassettes.writing import written

SSE = (
    'data: {"choices":[{"delta":{"content":"Grüß"}}]}\n\n',
    'data: {"choices":[{"delta":{"content":" dich: 🙂 # - |"}}]}\n\n',
    "data: [DONE]\n\n",
)
ASKED = Asked(
    "openai",
    "my-vllm",
    "POST",
    "/v1/chat/completions?a=1",
    ((b"Content-Type", b"application/json"), (b"goose-session-id", b"20251121_1")),
    b'{"model":"gpt-4o","messages":[{"role":"user","content":"hi"}]}',
)
ANSWERED = Answered(
    200,
    b"OK",
    (1, 1),
    ((b"Content-Type", b"text/event-stream; charset=utf-8"), (b"x-odd", b'a: "b" \xe4#\ttab')),
    0.412345,
    tuple(Piece(number * 0.25, text.encode()) for number, text in enumerate(SSE)),
    True,
    0.5,
)
EXCHANGE = Exchange(1_755_000_000.125, ASKED, ANSWERED)


def again(exchange: Exchange) -> Exchange:
    return read(written(exchange), "x.yaml")


def with_pieces(*pieces: bytes) -> Exchange:
    answered = replace(ANSWERED, pieces=tuple(Piece(0.1, data) for data in pieces))
    return replace(EXCHANGE, answered=answered)


def test_an_exchange_is_read_back_as_it_was_written() -> None:
    found = again(EXCHANGE)
    assert json.loads(found.asked.body) == json.loads(ASKED.body)
    assert replace(found, asked=replace(found.asked, body=ASKED.body)) == EXCHANGE


def test_a_stream_is_read_line_by_line() -> None:
    lines = written(EXCHANGE).splitlines()
    for text in SSE:
        assert any(line.strip() == text.strip() for line in lines)


def test_a_request_of_json_is_laid_out() -> None:
    lines = [line.strip() for line in written(EXCHANGE).splitlines()]
    assert '"model": "gpt-4o",' in lines


def test_a_stream_with_carriage_returns_is_read_line_by_line_too() -> None:
    exchange = with_pieces(b'data: {"a": 1}\r\n\r\n', b"data: x\r\n\r\n")
    text = written(exchange)
    assert '        data: {"a": 1}\n' in text
    assert "\r" not in text
    assert again(exchange).answered.pieces == exchange.answered.pieces


def test_a_coded_body_stays_as_it_came_and_is_shown_in_the_clear() -> None:
    body = gzip.compress(b'{"said":"something"}\nsecond')
    answered = replace(
        ANSWERED, fields=((b"Content-Encoding", b"gzip"),), pieces=(Piece(0, body[:9]), Piece(0.1, body[9:]))
    )
    exchange = replace(EXCHANGE, answered=answered)
    text = written(exchange)
    assert '  #   {"said":"something"}\n  #   second\n' in text
    assert read(text, "x").answered.pieces == answered.pieces


def test_a_body_that_claims_a_coding_and_has_none_is_kept() -> None:
    answered = replace(ANSWERED, fields=((b"Content-Encoding", b"gzip"),))
    assert again(replace(EXCHANGE, answered=answered)).answered.pieces == ANSWERED.pieces


TEXTS = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("\r\n \t:#-|'\""))
ODD = (
    "\n",
    " \n",
    "a\n  ",
    "  a\n b\n\n\n",
    "\r\n",
    "a\r\nb\n",
    "\ufeffx",
    "\x85\u2028",
    "---\n...\n",
    "- a: b\n# c\n",
    "\ta\n",
    "x\n\n  \n",
)


def comes_back(text: str) -> None:
    body = text.encode()
    exchange = replace(with_pieces(body, b"end", body), asked=replace(ASKED, body=body))
    found = again(exchange)
    assert found.answered.pieces == tuple(one for one in exchange.answered.pieces if one.data)
    if body != found.asked.body:
        assert json.loads(found.asked.body) == json.loads(body)


@pytest.mark.parametrize("text", ODD, ids=ascii)
def test_an_odd_text_comes_back(text: str) -> None:
    comes_back(text)


@settings(max_examples=400, deadline=None)
@given(TEXTS)
def test_any_text_comes_back(text: str) -> None:
    comes_back(text)


@settings(max_examples=200, deadline=None)
@given(TEXTS | st.sampled_from(ODD))
def test_any_text_comes_back_where_yaml_is_read_in_python(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nodes, "_LOADER", yaml.BaseLoader)
        comes_back(text)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 100), st.binary(max_size=200))),
    st.lists(st.tuples(st.from_regex(rb"[!#-'*+.^_`|~0-9A-Za-z-]{1,20}", fullmatch=True), st.binary())),
    st.booleans(),
)
def test_any_bytes_and_times_come_back(
    pieces: list[tuple[float, bytes]], fields: list[tuple[bytes, bytes]], whole: bool
) -> None:
    fields = [
        (name, bytes(byte for byte in value if byte == 9 or 32 <= byte < 127 or byte > 127))
        for name, value in fields
        if name.lower() != b"content-length"
    ]
    ordered = sorted((round(after, 6), data) for after, data in pieces if data)
    given_ = tuple(Piece(after, data) for after, data in ordered)
    answered = replace(ANSWERED, fields=tuple(fields), pieces=given_, whole=whole, ended=100.0)
    found = again(replace(EXCHANGE, answered=answered)).answered
    assert found == answered


@pytest.mark.parametrize("body", [b'{"a":1,"a":2}', b'{"a":"\\ud800"}', b"{broken", b"[" * 5000, b"{\xff}"])
def test_json_that_would_be_another_one_is_kept_as_it_came(body: bytes) -> None:
    assert again(replace(EXCHANGE, asked=replace(ASKED, body=body))).asked.body == body


def test_what_was_redacted_of_fields_is_not_replayed() -> None:
    fields = ((b"set-cookie", b"[redacted]"), (b"x", b"y"))
    found = again(replace(EXCHANGE, answered=replace(ANSWERED, fields=fields)))
    assert found.answered.fields == ((b"x", b"y"),)


def test_a_length_is_put_right_where_the_body_was_edited() -> None:
    fields = ((b"Content-Length", b"7"),)
    answered = replace(ANSWERED, fields=fields, pieces=(Piece(0, b"ten bytes!"),))
    assert again(replace(EXCHANGE, answered=answered)).answered.fields == ((b"Content-Length", b"10"),)
    # Of one that broke off, and of one without a body, it is what was promised.
    broken = replace(answered, whole=False)
    assert again(replace(EXCHANGE, answered=broken)).answered.fields == fields
    head = replace(EXCHANGE, asked=replace(ASKED, method="HEAD"), answered=replace(answered, pieces=()))
    assert again(head).answered.fields == fields


# Mistakes.


def problems(text: str) -> list[str]:
    with pytest.raises(Unusable) as caught:
        read(text, "x.yaml")
    return [str(one) for one in caught.value.problems]


GOOD = written(EXCHANGE)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("version: 1", "version: 2", 'x.yaml:1: version: found "2"; accepted: 1'),
        (
            "  status: 200",
            "  status: abc",
            'response.status: found "abc"; accepted: a status from 200 to 999',
        ),
        ("  status: 200\n", "", "response.status: is missing"),
        ("  status: 200", "  stauts: 200", 'did you mean "status"?'),
        ("  whole: true", "  whole: yes", 'response.whole: found "yes"; accepted: true or false'),
        ("  ended: 0.5", "  ended: -1", "response.ended"),
        ("  ended: 0.5", "  ended: 0.4", "response.pieces[2].after: pieces come one after the other"),
        ("  ended: 0.5", "  ended: 0.5\n  ended: 0.5", "response.ended: duplicate key"),
        ("      text: ", "      txt: ", "response.pieces[0]: accepted: one of json, text, crlf, base64"),
        ("    - after: 0.25", "    - after: .nan", "response.pieces[1].after"),
        ('"model": "gpt-4o",', '"model": "gpt-4o"', "request.json: not JSON"),
        ("  method: POST", "  method: P ST", "request.method"),
        ('  target: "/v1', '  target: "v1', "request.target"),
        ("    - goose-session-id: 20251121_1", "    - [a, b]", "request.fields[1]: accepted: one field"),
        ("recorded: ", "recorded: x", "recorded: found"),
        ("  fields:\n    - Content-Type: text", "  fields: x\n    - Content-Type: text", "not YAML"),
        ("  method: POST", "  method: [POST]", "request.method: accepted: a text"),
        ("version: 1", "\x00", "not YAML: a character or an escape"),
    ],
)
def test_a_mistake_is_told_with_its_place(old: str, new: str, said: str) -> None:
    assert old in GOOD
    found = problems(GOOD.replace(old, new, 1))
    assert any(said in one for one in found), found
    assert all(one.startswith("x.yaml") for one in found)


def test_all_mistakes_are_told_at_once_with_their_lines() -> None:
    text = GOOD.replace("  status: 200", "  status: abc").replace("  method: POST", "  method: P ST")
    lines = text.splitlines()
    assert [one.split(" ")[0] for one in problems(text)] == [
        f"x.yaml:{lines.index('  method: P ST') + 1}:",
        f"x.yaml:{lines.index('  status: abc') + 1}:",
    ]


NO_RECORDINGS = {
    "nothing": "",
    "text": "a",
    "list": "[]",
    "alias": "a: &a [*a]",
    "deep": "[" * 300_000,
    "deep block": "- " * 100_000,
    "deep mapping": "{a: " * 100_000,
    "two": "version: 1\n---\nversion: 1",
    "empty parts": "version: 1\nrequest: {}\n",
    "odd key": "? {}\n: x",
}


@pytest.mark.parametrize("text", NO_RECORDINGS.values(), ids=NO_RECORDINGS)
def test_what_is_no_recording_is_refused(text: str) -> None:
    assert problems(text)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(GOOD)), st.integers(0, 40), st.text(max_size=8))
def test_any_damage_is_read_or_refused(at: int, taken: int, put: str) -> None:
    with suppress(Unusable):
        read(GOOD[:at] + put + GOOD[at + taken :], "x.yaml")
