"""Streams reach the client as they come; one that breaks off is seen to be broken."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
import pytest_twisted
from bench import Ask, Bench
from wireclient import Answer, parse, request, until

from llmproxyd.model import End
from llmproxyd.testing.upstream import (
    LAST_CHUNK,
    Action,
    Close,
    FakeUpstream,
    Gate,
    Reset,
    Send,
    Stall,
    Wait,
    chunk,
    event,
    head,
    stream_head,
)

SSE = b"text/event-stream"
CHAT = b"/v1/chat/completions"
GEMINI = b"/v1beta/models/gemini-2.5-flash:streamGenerateContent"

FORMS = [
    pytest.param(CHAT, SSE + b"; charset=utf-8", event(b'{"a":1}'), event(b"[DONE]"), id="sse"),
    pytest.param(b"/api/chat", b"application/x-ndjson", b'{"done":false}\n', b'{"done":true}\n', id="ndjson"),
    pytest.param(GEMINI, b"application/json", b'[{"a":1}', b",\r\n{}]", id="array"),
    pytest.param(
        b"/model/x/converse-stream",
        b"application/vnd.amazon.eventstream",
        bytes(range(64)),
        b"\0\r\n",
        id="aws",
    ),
    pytest.param(b"/v1/audio/speech", b"audio/mpeg", b"\xff\xfb\x90\x00", bytes(range(256)), id="audio"),
]


@pytest.mark.parametrize(("target", "media", "first", "second"), FORMS)
@pytest.mark.parametrize("chunked", [True, False])
@pytest_twisted.ensureDeferred
async def test_each_piece_arrives_while_the_upstream_still_waits(
    bench: Bench,
    upstream: FakeUpstream,
    target: bytes,
    media: bytes,
    first: bytes,
    second: bytes,
    chunked: bool,
) -> None:
    frame = chunk if chunked else bytes
    gate, last = Gate(), Gate()
    start = stream_head(media) if chunked else head(b"content-type: " + media, b"connection: close")
    upstream.scripts = [
        [Send(start + frame(first)), gate, Send(frame(second)), last, Send(LAST_CHUNK * chunked), Close()]
    ]
    client = await bench.client(bench.proxy())
    client.send(request(target))
    await client.has(chunk(first))
    assert second not in client.received
    gate.open()
    await client.has(chunk(first) + chunk(second))
    assert not client.received.endswith(LAST_CHUNK)
    last.open()
    got = await client.answer()
    assert (got.body, got.whole, got.all(b"content-type")) == (first + second, True, [media])


@pytest_twisted.ensureDeferred
async def test_the_head_arrives_before_the_body(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [[Send(stream_head()), Stall()]]
    client = await bench.client(bench.proxy())
    client.send(request(CHAT))
    await client.has(b"\r\n\r\n")


@pytest_twisted.ensureDeferred
async def test_a_stream_may_take_longer_than_any_timeout(bench: Bench, upstream: FakeUpstream) -> None:
    steps = [part for _ in range(12) for part in (Wait(0.05), Send(chunk(event(b"{}"))))]
    upstream.scripts = [[Send(stream_head()), *steps, Send(LAST_CHUNK)]]
    client = await bench.client(bench.proxy(timeouts={"headers": 0.3, "idle": 0.3}))
    got = await client.ask(request(CHAT))
    assert (got.whole, got.body) == (True, event(b"{}") * 12)


# Broken off.

ENDS: list[list[Action]] = [[Close()], [Wait(0.05), Reset()]]


async def broken(
    bench: Bench, upstream: FakeUpstream, data: bytes, *script: Action, **settings: Any
) -> tuple[Answer, Any]:
    """What a client has when *script* is over, and how the exchange ended."""
    upstream.scripts = [script]
    proxy = bench.proxy(**settings)
    client = await bench.client(proxy)
    client.send(data)
    await client.closed()
    parsed = parse(client.received, bodiless=False, ended=True)
    assert parsed is not None
    answer, left = parsed
    assert left == b""
    assert b"[DONE]" not in answer.body
    assert not answer.raw.endswith(LAST_CHUNK)
    (finished,) = proxy.finished
    assert finished.status == 200
    return answer, (client, finished)


def told(body: bytes) -> Any:
    """The JSON of one server-sent event."""
    lines = [line[5:] for line in body.splitlines() if line.startswith(b"data:")]
    assert len(lines) == 1
    assert body.endswith(b"\n\n")
    return json.loads(lines[0])


ONE = event(b'{"x":1}')
CUT = Send(stream_head() + chunk(ONE))
MESSAGES = b"/v1/messages"
CODE = "upstream_protocol_error"


@pytest.mark.parametrize("end", ENDS, ids=["closed", "reset"])
@pytest_twisted.ensureDeferred
async def test_between_two_events_of_chat(bench: Bench, upstream: FakeUpstream, end: list[Action]) -> None:
    got, (_, finished) = await broken(bench, upstream, request(CHAT), CUT, *end)
    assert not got.whole
    assert got.body.startswith(ONE)
    error = told(got.body.removeprefix(ONE))["error"]
    assert (error["code"], error["type"], error["param"]) == (CODE, "server_error", None)
    assert (finished.end, finished.code) == (End.TRUNCATED, CODE)
    assert not [name for name in got.names if name.startswith(b"x-llmproxyd")]


@pytest_twisted.ensureDeferred
async def test_between_two_events_of_responses(bench: Bench, upstream: FakeUpstream) -> None:
    got, _ = await broken(bench, upstream, request(b"/v1/responses"), CUT, Close())
    tail = got.body.removeprefix(ONE)
    assert tail.startswith(b"event: error\n")
    assert told(tail)["type"] == "error"
    assert CODE in str(told(tail))


@pytest_twisted.ensureDeferred
async def test_between_two_events_of_anthropic(bench: Bench, upstream: FakeUpstream) -> None:
    data = request(MESSAGES, b"anthropic-version: 2023-06-01", b"x-api-key: sk-ant-x")
    got, _ = await broken(bench, upstream, data, CUT, Close())
    tail = got.body.removeprefix(ONE)
    assert tail.startswith(b"event: error\n")
    value = told(tail)
    assert (value["type"], value["error"]["type"]) == ("error", "api_error")
    assert value["error"]["details"]["error_code"] == CODE


@pytest_twisted.ensureDeferred
async def test_between_two_events_of_gemini(bench: Bench, upstream: FakeUpstream) -> None:
    first = b"data: {}\r\n\r\n"
    script = [Send(stream_head() + chunk(first)), Close()]
    got, _ = await broken(bench, upstream, request(GEMINI + b"?alt=sse"), *script)
    tail = got.body.removeprefix(first)
    assert tail.endswith(b"\r\n\r\n")
    error = json.loads(tail.removeprefix(b"data: "))["error"]
    assert (error["code"], error["status"], error["details"][0]["reason"]) == (502, "UNAVAILABLE", CODE)


@pytest.mark.parametrize("first", [b"[", b'[{"a":"]},{"}', b'[{"a":[1]}\r\n'])
@pytest_twisted.ensureDeferred
async def test_between_two_elements_of_a_gemini_array(
    bench: Bench, upstream: FakeUpstream, first: bytes
) -> None:
    script = [Send(stream_head(b"application/json; charset=UTF-8") + chunk(first)), Close()]
    got, _ = await broken(bench, upstream, request(GEMINI), *script)
    assert got.body.startswith(first)
    assert json.loads(got.body + b"]")[-1]["error"]["details"][0]["reason"] == CODE
    assert not got.body.endswith(b"]")


@pytest_twisted.ensureDeferred
async def test_between_two_lines_of_ollama(bench: Bench, upstream: FakeUpstream) -> None:
    line = b'{"message":{"content":"x"},"done":false}\n'
    script = [Send(stream_head(b"application/x-ndjson") + chunk(line)), Close()]
    got, _ = await broken(bench, upstream, request(b"/api/chat"), *script)
    tail = got.body.removeprefix(line)
    assert tail.endswith(b"\n")
    value = json.loads(tail)
    assert isinstance(value["error"], str)
    assert value["code"] == CODE


@pytest_twisted.ensureDeferred
async def test_before_the_first_event(bench: Bench, upstream: FakeUpstream) -> None:
    got, _ = await broken(bench, upstream, request(CHAT), Send(stream_head()), Close())
    assert told(got.body)["error"]["code"] == CODE


@pytest.mark.parametrize(
    ("target", "media", "part"),
    [
        (CHAT, SSE, b'data: {"x":'),
        (CHAT, SSE, ONE + b"data: "),
        (CHAT, SSE, ONE[:-1]),
        (CHAT, SSE, ONE + b"event: x\n"),
        (b"/api/chat", b"application/x-ndjson", b'{"a":1}\n{"a"'),
        (GEMINI, b"application/json", b'[{"a":1},'),
        (GEMINI, b"application/json", b'[{"a":"x'),
        (CHAT, b"application/json", b'{"id":'),
        (b"/v1/audio/speech", b"audio/mpeg", b"\xff\n\n"),
        (b"/model/x/converse-stream", b"application/vnd.amazon.eventstream", b"\0\n\n"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_within_an_event_it_is_cut_alone(
    bench: Bench, upstream: FakeUpstream, target: bytes, media: bytes, part: bytes
) -> None:
    got, _ = await broken(bench, upstream, request(target), Send(stream_head(media) + chunk(part)), Close())
    assert (got.body, got.whole) == (part, False)


@pytest_twisted.ensureDeferred
async def test_a_chunk_that_is_cut(bench: Bench, upstream: FakeUpstream) -> None:
    """The chunk's payload that came is passed on; it ended within an event."""
    script = [Send(stream_head() + b"ff\r\n" + b"data: x"), Close()]
    got, _ = await broken(bench, upstream, request(CHAT), *script)
    assert (got.body, got.whole) == (b"data: x", False)


@pytest.mark.parametrize("garbage", [b"zz\r\n", b"-1\r\n", b"\r\n\r\n"])
@pytest_twisted.ensureDeferred
async def test_a_chunk_that_is_no_chunk(bench: Bench, upstream: FakeUpstream, garbage: bytes) -> None:
    got, _ = await broken(bench, upstream, request(CHAT), Send(stream_head() + chunk(ONE) + garbage), Stall())
    assert told(got.body.removeprefix(ONE))["error"]["code"] == CODE


@pytest_twisted.ensureDeferred
async def test_a_coded_stream_is_cut_alone(bench: Bench, upstream: FakeUpstream) -> None:
    packed = gzip.compress(ONE) + b"\n\n"
    script = [Send(stream_head(SSE, b"content-encoding: gzip") + chunk(packed)), Close()]
    got, _ = await broken(bench, upstream, request(CHAT), *script)
    assert (got.body, got.whole) == (packed, False)


@pytest.mark.parametrize("end", ENDS, ids=["closed", "reset"])
@pytest_twisted.ensureDeferred
async def test_a_body_shorter_than_it_was_said_to_be(
    bench: Bench, upstream: FakeUpstream, end: list[Action]
) -> None:
    script = [Send(head(b"content-type: text/event-stream", b"content-length: 500") + ONE), *end]
    got, (_, finished) = await broken(bench, upstream, request(CHAT), *script)
    assert (got.body, got.whole, got.all(b"content-length")) == (ONE, False, [b"500"])
    assert finished.end is End.TRUNCATED


@pytest_twisted.ensureDeferred
async def test_a_body_longer_than_it_was_said_to_be(bench: Bench, upstream: FakeUpstream) -> None:
    """What is too much is dropped, and so is the connection that it came on."""
    upstream.scripts = [[Send(head(b"content-length: 3") + b"abcHTTP/1.1 200 OK\r\n\r\n")]]
    client = await bench.client(bench.proxy())
    for _ in range(2):
        assert (await client.ask(request(CHAT))).body == b"abc"
    assert [one.connection for one in upstream.requests] == [0, 1]


@pytest_twisted.ensureDeferred
async def test_a_reset_does_not_end_a_body_of_no_length(bench: Bench, upstream: FakeUpstream) -> None:
    gate = Gate()
    upstream.scripts = [[Send(head(b"content-type: a/b") + b"abc"), gate, Reset()]]
    proxy = bench.proxy()
    client = await bench.client(proxy)
    client.send(request(b"/v1/files"))
    await client.has(b"abc")
    gate.open()
    got = await client.answer()
    assert (got.body, got.whole) == (b"abc", False)
    assert proxy.finished[0].end is End.TRUNCATED


@pytest_twisted.ensureDeferred
async def test_a_client_of_http_1_0_is_reset(bench: Bench, upstream: FakeUpstream) -> None:
    gate = Gate()
    upstream.scripts = [[CUT, gate, Close()]]
    client = await bench.client(bench.proxy())
    client.send(request(CHAT, version=b"HTTP/1.0"))
    await client.has(ONE)
    gate.open()
    await client.closed()
    assert client.reset
    assert client.received.endswith(ONE)


@pytest_twisted.ensureDeferred
async def test_a_client_that_gets_chunks_sees_a_clean_end_of_the_connection(
    bench: Bench, upstream: FakeUpstream
) -> None:
    """The missing last chunk says enough; a reset could eat the error event."""
    _, (client, _) = await broken(bench, upstream, request(CHAT), CUT, Close())
    assert not client.reset


@pytest_twisted.ensureDeferred
async def test_silence_between_two_events(bench: Bench, upstream: FakeUpstream) -> None:
    got, (_, finished) = await broken(bench, upstream, request(CHAT), CUT, Stall(), timeouts={"idle": 0.15})
    error = told(got.body.removeprefix(ONE))["error"]
    assert error["code"] == "idle_timeout"
    assert "timeouts.idle" in error["message"]
    assert (finished.end, finished.code) == (End.IDLE, "idle_timeout")


@pytest_twisted.ensureDeferred
async def test_silence_within_an_event(bench: Bench, upstream: FakeUpstream) -> None:
    script = [Send(stream_head() + chunk(b"data: ")), Stall()]
    got, _ = await broken(bench, upstream, request(CHAT), *script, timeouts={"idle": 0.15})
    assert (got.body, got.whole) == (b"data: ", False)
    assert not upstream.open


@pytest_twisted.ensureDeferred
async def test_silence_and_a_client_of_http_1_0(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [[CUT, Stall()]]
    client = await bench.client(bench.proxy(timeouts={"idle": 0.15}))
    client.send(request(CHAT, version=b"HTTP/1.0"))
    await client.closed()
    assert client.reset


@pytest_twisted.ensureDeferred
async def test_the_next_request_is_not_harmed(bench: Bench, upstream: FakeUpstream, ask: Ask) -> None:
    upstream.scripts = [[CUT, Close()], [Send(stream_head() + chunk(ONE) + LAST_CHUNK)]]
    proxy = bench.proxy()
    first = await bench.client(proxy)
    first.send(request(CHAT))
    await first.closed()
    second = await bench.client(proxy)
    assert (await second.ask(request(CHAT))).body == ONE


@pytest.mark.parametrize(
    ("piece", "events"), [(ONE, 2), (b'data: {"x"', 0)], ids=["between events", "within one"]
)
@pytest_twisted.ensureDeferred
async def test_stopping_breaks_a_stream_off_as_visibly(
    bench: Bench, upstream: FakeUpstream, piece: bytes, events: int
) -> None:
    upstream.scripts = [[Send(stream_head() + chunk(piece)), Stall()]]
    proxy = bench.proxy()
    client = await bench.client(proxy)
    client.send(request(CHAT))
    await client.has(piece)
    proxy.daemon.pipeline.cut_all()
    await client.closed()
    parsed = parse(client.received, bodiless=False, ended=True)
    assert parsed is not None
    got, _ = parsed
    assert not got.whole
    assert got.body.count(b"\n\n") == events
    if events:
        assert told(got.body.removeprefix(ONE))["error"]["code"] == "shutting_down"
    assert [(one.end, one.code) for one in proxy.finished] == [(End.TRUNCATED, "shutting_down")]
    await until(lambda: not upstream.open, "the end of the upstream's connection")
