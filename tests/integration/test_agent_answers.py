"""What an agent sends, byte for byte, and what it makes of the answers, on real sockets."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted
from agentbench import Agents, Body, Bytes, Pieces, fetch, start
from twisted.internet.defer import CancelledError, ensureDeferred
from twisted.internet.error import ConnectionDone, ConnectionLost, ConnectionRefusedError
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH
from wireclient import pause, until

from llmproxyd.model import Response
from llmproxyd.testing.upstream import (
    LAST_CHUNK,
    Close,
    FakeUpstream,
    Gate,
    Pour,
    Reset,
    Send,
    Stall,
    Wait,
    answer,
    chunk,
    head,
    stream_head,
)
from llmproxyd.wire.agent import BadAnswer, ConnectTimeout, WireHeaders, abort

OK = Send(answer(b"{}"))
HOST = (b"Host", b"api.example")
CHUNKED = b"Transfer-Encoding: chunked"


@pytest.fixture
def agents(_nothing_left: None, upstream: FakeUpstream) -> Iterator[Agents]:
    made = Agents()
    yield made
    for one in upstream.open:
        one.transport.abortConnection()
    pytest_twisted.blockon(ensureDeferred(made.close()))


# What is sent.


async def sent(agents: Agents, upstream: FakeUpstream, *fields: tuple[bytes, bytes], **more: Any) -> bytes:
    upstream.scripts = [[OK]]
    await fetch(agents.agent(), upstream.url, *fields, **more)
    return upstream.requests[-1].raw


@pytest_twisted.ensureDeferred
async def test_fields_go_out_as_they_are(agents: Agents, upstream: FakeUpstream) -> None:
    fields = [
        (b"x-B", b"1"),
        (b"X-a", b" two  spaces\t"),
        HOST,
        (b"x-b", b"2"),
        (b"empty", b""),
        (b"b", b"\xff"),
    ]
    raw = await sent(agents, upstream, *fields, target=b"//a/../%41;b?c=%2F&&?")
    assert raw == (
        b"GET //a/../%41;b?c=%2F&&? HTTP/1.1\r\n"
        b"x-B: 1\r\nX-a:  two  spaces\t\r\nHost: api.example\r\nx-b: 2\r\nempty: \r\nb: \xff\r\n\r\n"
    )


@pytest_twisted.ensureDeferred
async def test_a_host_is_added_first(agents: Agents, upstream: FakeUpstream) -> None:
    raw = await sent(agents, upstream, (b"A", b"b"))
    assert raw == b"GET / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nA: b\r\n\r\n" % upstream.port


BODY = b'{"a":1}'
FRAMED: list[Any] = [
    pytest.param("POST", [], BODY, b"Content-Length: 7\r\n", id="appended"),
    pytest.param("POST", [(b"content-length", b"99"), (b"Z", b"z")], BODY, b"content-length: 7\r\nZ: z\r\n", id="slot"),
    pytest.param(
        "POST", [(b"transfer-ENCODING", b"chunked"), (b"Z", b"z")], BODY, b"Content-Length: 7\r\nZ: z\r\n", id="other"
    ),
    pytest.param(
        "POST", [(b"Content-length", b"1"), (b"Transfer-Encoding", b"x"), (b"Content-Length", b"2")], BODY,
        b"Content-length: 7\r\n", id="several",
    ),
    pytest.param("POST", [], None, b"Content-Length: 0\r\n", id="post-none"),
    pytest.param("PATCH", [(b"CONTENT-LENGTH", b"5"), (b"Z", b"z")], None, b"CONTENT-LENGTH: 0\r\nZ: z\r\n", id="patch-none"),
    pytest.param("GET", [(b"Content-Length", b"5"), (b"Z", b"z")], None, b"Z: z\r\n", id="get-none"),
    pytest.param("DELETE", [], None, b"", id="delete-none"),
    pytest.param("GET", [], BODY, b"Content-Length: 7\r\n", id="get-body"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "fields", "body", "lines"), FRAMED)
@pytest_twisted.ensureDeferred
async def test_framing(
    agents: Agents, upstream: FakeUpstream, method: str, fields: Any, body: bytes | None, lines: bytes
) -> None:
    given = None if body is None else Bytes(body)
    raw = await sent(agents, upstream, HOST, *fields, method=method.encode(), body=given)
    start_line = b"%b / HTTP/1.1\r\nHost: api.example\r\n" % method.encode()
    assert raw == start_line + lines + b"\r\n" + (body or b"")


@pytest.mark.parametrize("at_hand", [True, False])
@pytest.mark.parametrize("fields", [[], [(b"transfer-encoding", b"chunked")], [(b"Content-Length", b"7")]])
@pytest_twisted.ensureDeferred
async def test_chunks(agents: Agents, upstream: FakeUpstream, at_hand: bool, fields: Any) -> None:
    upstream.scripts = [[OK]]
    body: Any = Pieces()
    if at_hand:
        body = Bytes(BODY)
        body.length = UNKNOWN_LENGTH
    asked = start(agents.agent(), upstream.url, HOST, *fields, method=b"POST", body=body)
    if not at_hand:
        await until(lambda: body.consumer)
        for piece in (BODY[:3], b"", BODY[3:]):
            body.consumer.write(piece)
            await pause(0.01)
        body.done.callback(None)
    assert (await asked).code == 200
    request = upstream.requests[0]
    name = b"transfer-encoding" if fields and fields[0][0].startswith(b"t") else b"Transfer-Encoding"
    assert request.headers == [HOST, (name, b"chunked")]
    assert request.body == BODY
    assert request.raw.count(b"0\r\n") == 1


@pytest_twisted.ensureDeferred
async def test_an_empty_body_in_chunks(agents: Agents, upstream: FakeUpstream) -> None:
    body = Bytes(b"")
    body.length = UNKNOWN_LENGTH
    raw = await sent(agents, upstream, HOST, method=b"POST", body=body)
    assert raw.endswith(b"\r\nTransfer-Encoding: chunked\r\n\r\n" + LAST_CHUNK)
    assert upstream.connections[0].buffer == b""


@pytest_twisted.ensureDeferred
async def test_prepared_fields_serve_many_requests(agents: Agents, upstream: FakeUpstream) -> None:
    upstream.scripts = [[OK]]
    agent, headers = agents.agent(), WireHeaders([HOST, (b"Content-Length", b"0"), (b"Z", b"z")])
    for body in (b"a", b"bcd"):
        response = await agent.request(b"POST", upstream.url.encode() + b"/", headers, Bytes(body))
        response.deliverBody(Body(response))
    assert [one.body for one in upstream.requests] == [b"a", b"bcd"]
    assert headers.encoded() is headers.encoded()


@pytest_twisted.ensureDeferred
async def test_headers_of_twisted(agents: Agents, upstream: FakeUpstream) -> None:
    upstream.scripts = [[OK]]
    headers = Headers({b"x-a": [b"1", b"2"]})
    await agents.agent().request(b"GET", upstream.url.encode() + b"/", headers)
    assert upstream.requests[0].all(b"x-a") == [b"1", b"2"]
    assert (await agents.agent().request(b"GET", upstream.url.encode() + b"/")).code == 200


FORBIDDEN: list[Any] = [
    *({"fields": [(b"A", value)]} for value in (b"a\rb", b"a\nb", b"a\0b", b"a\r\nB: c")),
    *({"fields": [(name, b"a")]} for name in (b"A\r", b"A\n", b"A\0", b"A b", b"A:", b"", b"A\xff")),
    *({"target": b"/" + one} for one in (b"a b", b"a\r\n", b"\n", b"\0", b"\t", b"\x7f", b"\xc3\xa9")),
    *({"method": one} for one in (b"GET /x", b"G\r\n", b"", b"GET\0", b"CONNECT")),
    *({"url": one} for one in ("http://a b", "http://u:p@host", "ftp://host", "http://", "http://h:0", "http://h:99999", "http://h?x")),
]  # fmt: skip


@pytest.mark.parametrize("case", FORBIDDEN, ids=repr)
def test_what_would_be_another_request(agents: Agents, upstream: FakeUpstream, case: dict[str, Any]) -> None:
    agent, url = agents.agent(), case.pop("url", upstream.url)
    with pytest.raises(ValueError):
        start(agent, url, *case.pop("fields", ()), **case)
    with pytest.raises(ValueError):
        agent.request(b"GET", b"http://host")
    assert agent.open_connections == 0
    assert not upstream.connections


# What comes.


@pytest_twisted.ensureDeferred
async def test_an_answer(agents: Agents, upstream: FakeUpstream) -> None:
    upstream.scripts = [[Send(answer(b"{}", b"X-a: 1", b"x-A: 2", b"Connection: keep-alive"))]]
    body = await fetch(agents.agent(), upstream.url)
    response = body.response
    assert (response.version, response.code, response.phrase) == ((b"HTTP", 1, 1), 200, b"OK")
    assert response.raw == [
        (b"X-a", b"1"),
        (b"x-A", b"2"),
        (b"Connection", b"keep-alive"),
        (b"content-length", b"2"),
    ]
    assert isinstance(response.headers, WireHeaders)
    assert response.headers.getRawHeaders(b"x-a") == [b"1", b"2"]
    assert response.headers.getRawHeaders("Content-Length") == ["2"]
    assert (response.length, body.data, body.complete, body.whole) == (2, b"{}", [True], True)


@pytest_twisted.ensureDeferred
async def test_a_stream_comes_as_it_comes(agents: Agents, upstream: FakeUpstream) -> None:
    gate, end = Gate(), Gate()
    upstream.scripts = [
        [Send(stream_head()), Send(chunk(b"one")), gate, Send(chunk(b"two")), end, Send(LAST_CHUNK)]
    ]
    response = await start(agents.agent(), upstream.url)
    body = Body(response)
    response.deliverBody(body)
    await until(lambda: body.data == b"one")
    gate.open()
    await until(lambda: body.data == b"onetwo")
    assert not response.complete
    end.open()
    assert (await body.end()).whole
    assert response.complete
    assert response.length == UNKNOWN_LENGTH


@pytest_twisted.ensureDeferred
async def test_the_last_piece_knows_that_it_is(agents: Agents, upstream: FakeUpstream) -> None:
    upstream.scripts = [
        [Send(stream_head()), Wait(0.02), Send(chunk(b"a")), Wait(0.02), Send(chunk(b"b") + LAST_CHUNK)]
    ]
    body = await fetch(agents.agent(), upstream.url)
    assert (body.pieces, body.complete) == ([b"a", b"b"], [False, True])


@pytest_twisted.ensureDeferred
async def test_a_body_that_is_asked_for_later(agents: Agents, upstream: FakeUpstream) -> None:
    """Until then hardly anything is taken from the network."""
    pour = Pour(b"x" * 65536, 400)
    upstream.scripts = [[Send(head(b"Content-Length: %d" % (65536 * 400))), pour]]
    response = await start(agents.agent(), upstream.url)
    await pause(0.1)
    poured = pour.poured
    await pause(0.1)
    assert pour.poured == poured < 65536 * 400
    body = Body(response)
    response.deliverBody(body)
    await body.end()
    assert (body.whole, len(body.data)) == (True, 65536 * 400)
    with pytest.raises(RuntimeError):
        response.deliverBody(body)


@pytest_twisted.ensureDeferred
async def test_a_whole_answer_that_is_asked_for_later(agents: Agents, upstream: FakeUpstream) -> None:
    upstream.scripts = [[OK]]
    agent = agents.agent()
    response = await start(agent, upstream.url)
    assert (response.complete, agent.idle_connections) == (True, 1)
    upstream.connections[0].transport.abortConnection()
    await until(lambda: not agent.open_connections)
    body = Body(response)
    response.deliverBody(body)
    assert (body.data, body.whole) == (b"{}", True)


@pytest_twisted.ensureDeferred
async def test_backpressure(agents: Agents, upstream: FakeUpstream) -> None:
    pour = Pour(b"x" * 65536, 400)
    upstream.scripts = [[Send(head(b"Content-Length: %d" % (65536 * 400))), pour]]
    response = await start(agents.agent(), upstream.url)
    body = Body(response)
    response.deliverBody(body)
    response.pauseProducing()
    await pause(0.1)
    assert pour.poured < 65536 * 300
    response.resumeProducing()
    assert (await body.end()).whole


@pytest_twisted.ensureDeferred
async def test_interim_answers(agents: Agents, upstream: FakeUpstream) -> None:
    early = head(b"Link: </a>", status=b"103 Early Hints")
    upstream.scripts = [[Send(head(status=b"100 Continue") + early), Wait(0.02), Send(early), OK]]
    got: list[Response] = []
    body = await fetch(agents.agent(), upstream.url, interim=got.append)
    assert body.whole
    assert [(one.status, one.reason, list(one.headers)) for one in got] == [
        (103, b"Early Hints", [(b"Link", b"</a>")])
    ] * 2
    assert (await fetch(agents.agent(), upstream.url)).whole


@pytest_twisted.ensureDeferred
async def test_cancelled_by_an_interim_answer(agents: Agents, upstream: FakeUpstream) -> None:
    upstream.scripts = [[Send(head(status=b"103 E") * 2), OK]]
    asked: Any = None
    got: list[Response] = []

    def interim(response: Response) -> None:
        got.append(response)
        asked.cancel()

    asked = start(agents.agent(), upstream.url, interim=interim)
    with pytest.raises(CancelledError):
        await asked
    assert len(got) == 1


@pytest_twisted.ensureDeferred
async def test_head_has_no_body(agents: Agents, upstream: FakeUpstream) -> None:
    upstream.scripts = [[Send(head(b"Content-Length: 5"))], [Send(head(CHUNKED))], [OK]]
    agent = agents.agent()
    for _ in range(2):
        body = await fetch(agent, upstream.url, method=b"HEAD")
        assert (body.response.length, body.data, body.whole) == (0, b"", True)
    assert (await fetch(agent, upstream.url)).data == b"{}"
    assert len(upstream.connections) == 1


# Ends of bodies.

LENGTH, OPEN = head(b"Content-Length: 9"), head()
ENDS: list[Any] = [
    pytest.param(OPEN, [Close()], True, id="open-closed"),
    pytest.param(OPEN, [Wait(0.05), Reset()], False, id="open-reset"),
    pytest.param(LENGTH, [Close()], False, id="length-closed"),
    pytest.param(LENGTH, [Wait(0.05), Reset()], False, id="length-reset"),
    pytest.param(head(CHUNKED) + b"3\r\n", [Close()], False, id="chunk-closed"),
    pytest.param(head(CHUNKED) + b"9\r\n", [Close()], False, id="within-chunk-closed"),
    pytest.param(head(CHUNKED) + b"9\r\n", [Wait(0.05), Reset()], False, id="within-chunk-reset"),
]


@pytest.mark.parametrize(("start_of", "end", "whole"), ENDS)
@pytest_twisted.ensureDeferred
async def test_how_a_body_ends(
    agents: Agents, upstream: FakeUpstream, start_of: bytes, end: Any, whole: bool
) -> None:
    upstream.scripts = [[Send(start_of + b"abc"), *end]]
    agent = agents.agent()
    body = await fetch(agent, upstream.url)
    assert (body.data, body.whole, body.response.complete) == (b"abc", whole, whole)
    assert body.lost is not None
    assert whole or not body.lost.check(ResponseDone, PotentialDataLoss)
    await until(lambda: not agent.open_connections)


@pytest_twisted.ensureDeferred
async def test_chunks_that_turn_bad(agents: Agents, upstream: FakeUpstream) -> None:
    upstream.scripts = [
        [Send(stream_head() + chunk(b"good")), Wait(0.03), Send(chunk(b"more") + b"zz\r\n"), Stall()]
    ]
    body = await fetch(agents.agent(), upstream.url)
    assert body.data == b"goodmore"
    assert body.lost is not None
    assert body.lost.check(BadAnswer)
    await until(lambda: not upstream.open)


@pytest_twisted.ensureDeferred
async def test_bad_from_the_start(agents: Agents, upstream: FakeUpstream) -> None:
    """In the same read as the head: the head is told all the same."""
    upstream.scripts = [[Send(stream_head() + chunk(b"good") + b"zz\r\n"), Stall()]]
    body = await fetch(agents.agent(), upstream.url)
    assert body.data == b"good"
    assert body.lost is not None
    assert body.lost.check(BadAnswer)


@pytest.mark.parametrize(
    "junk",
    [
        b"SSH-2.0-x\r\n",
        head(CHUNKED, CHUNKED),
        head(status=b"101 S"),
        b"x" * 70_000,
        head()[:-2] + b"A: b\r\n" * 20_000,
    ],
)
@pytest_twisted.ensureDeferred
async def test_no_answer_of_http(agents: Agents, upstream: FakeUpstream, junk: bytes) -> None:
    upstream.scripts = [[Send(junk), Stall()]]
    with pytest.raises(BadAnswer):
        await start(agents.agent(), upstream.url)
    await until(lambda: not upstream.open)


@pytest_twisted.ensureDeferred
async def test_a_head_without_end_is_cut_off(agents: Agents, upstream: FakeUpstream) -> None:
    pour = Pour(b"A: " + b"b" * 500 + b"\r\n", 100_000)
    upstream.scripts = [[Send(head()[:-2]), pour]]
    with pytest.raises(BadAnswer):
        await start(agents.agent(), upstream.url)
    await until(lambda: not upstream.open)
    assert pour.poured < 20_000_000


BEFORE: list[Any] = [
    pytest.param([Close()], ConnectionDone, id="closed"),
    pytest.param([Reset()], ConnectionLost, id="reset"),
    pytest.param([Send(b"HTTP/1.1 200 OK\r\nA: "), Close()], BadAnswer, id="in-head"),
    pytest.param([Send(b"H"), Close()], BadAnswer, id="in-version"),
    pytest.param([Send(head(status=b"100 Continue")), Close()], ConnectionDone, id="interim"),
]


@pytest.mark.parametrize(("script", "error"), BEFORE)
@pytest_twisted.ensureDeferred
async def test_no_answer(agents: Agents, upstream: FakeUpstream, script: Any, error: type[Exception]) -> None:
    upstream.scripts = [script]
    with pytest.raises(error):
        await start(agents.agent(), upstream.url)
    assert len(upstream.requests) == 1


# Bodies that are sent, and answers that do not wait for them.


async def under_way(agents: Agents, upstream: FakeUpstream, body: Pieces) -> Any:
    asked = start(agents.agent(), upstream.url, method=b"POST", body=body)
    await until(lambda: body.consumer, "the body to be asked for")
    return asked


@pytest_twisted.ensureDeferred
async def test_a_body_at_the_pace_of_the_network(agents: Agents, upstream: FakeUpstream) -> None:
    body = Pieces(50_000_000)
    upstream.scripts, upstream.at_head = [[Stall()]], True
    asked = await under_way(agents, upstream, body)
    upstream.connections[0].transport.pauseProducing()
    for _ in range(50):
        body.consumer.write(b"x" * 1_000_000)
        if body.paused:
            break
        await pause(0)
    assert body.paused == 1
    upstream.connections[0].transport.resumeProducing()
    await until(lambda: not body.paused)
    asked.addErrback(lambda _: None).cancel()
    assert body.stopped == 1


@pytest.mark.parametrize(
    ("length", "write", "end"),
    [
        (UNKNOWN_LENGTH, b"abc", KeyError("lost")),
        (5, b"abc", KeyError("lost")),
        (5, b"abc", None),
        (5, b"abcdef", None),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_body_that_fails(
    agents: Agents, upstream: FakeUpstream, length: Any, write: bytes, end: Any
) -> None:
    """The upstream never takes it for a whole one."""
    body = Pieces(length)
    asked = await under_way(agents, upstream, body)
    body.consumer.write(write)
    if end is None:
        body.done.callback(None)
    else:
        body.done.errback(end)
    with pytest.raises(ValueError if end is None else KeyError):
        await asked
    await until(lambda: upstream.connections and not upstream.open)
    assert not upstream.requests
    assert not upstream.connections[0].buffer.endswith(LAST_CHUNK)


@pytest_twisted.ensureDeferred
async def test_a_body_that_fails_at_once(agents: Agents, upstream: FakeUpstream) -> None:
    class Broken(Pieces):
        def startProducing(self, consumer: Any) -> Any:
            raise KeyError("no file")

    with pytest.raises(KeyError):
        await start(agents.agent(), upstream.url, method=b"POST", body=Broken())
    await until(lambda: not upstream.open)


@pytest_twisted.ensureDeferred
async def test_a_body_that_fails_within_the_answer(agents: Agents, upstream: FakeUpstream) -> None:
    upstream.scripts, upstream.at_head = [[Send(stream_head() + chunk(b"a")), Stall()]], True
    body = Pieces()
    response = await (await under_way(agents, upstream, body))
    got = Body(response)
    response.deliverBody(got)
    body.done.errback(KeyError("lost"))
    await got.end()
    assert got.lost is not None
    assert got.lost.check(KeyError)
    assert got.data == b"a"


@pytest_twisted.ensureDeferred
async def test_an_answer_that_begins_before_the_body_ends(agents: Agents, upstream: FakeUpstream) -> None:
    upstream.scripts, upstream.at_head = [[Send(stream_head() + chunk(b"a")), Stall()]], True
    body = Pieces(6)
    response = await (await under_way(agents, upstream, body))
    got = Body(response)
    response.deliverBody(got)
    upstream.at_head = False
    connection = upstream.connections[0]
    body.consumer.write(b"abc")
    body.consumer.write(b"def")
    body.done.callback(None)
    await until(lambda: connection.buffer == b"abcdef")
    assert body.stopped == 0
    connection.transport.write(chunk(b"b") + LAST_CHUNK)
    assert (await got.end()).whole
    assert got.data == b"ab"


@pytest_twisted.ensureDeferred
async def test_an_answer_that_is_whole_before_the_body(agents: Agents, upstream: FakeUpstream) -> None:
    upstream.scripts, upstream.at_head = [[OK]], True
    body = Pieces()
    got = Body(await (await under_way(agents, upstream, body)))
    got.response.deliverBody(got)
    assert (got.whole, got.data, body.stopped) == (True, b"{}", 1)
    await until(lambda: not upstream.open)
    body.done.callback(None)
    body.consumer.write(b"late")


@pytest_twisted.ensureDeferred
async def test_an_early_answer_to_a_body_at_hand(agents: Agents, upstream: FakeUpstream) -> None:
    """The upstream refuses, and takes no more."""
    refusal = answer(b"too large", b"Connection: close", status=b"413 L")
    upstream.scripts, upstream.at_head = [[Send(refusal), Wait(0.05), Close()]], True
    agent = agents.agent()
    body = await fetch(agent, upstream.url, method=b"POST", body=Bytes(b"x" * 30_000_000))
    assert (body.response.code, body.data, body.whole) == (413, b"too large", True)
    await until(lambda: not agent.open_connections)


@pytest_twisted.ensureDeferred
async def test_an_answer_that_was_sent_before_a_reset(agents: Agents, upstream: FakeUpstream) -> None:
    """Although our sending fails first."""
    gate = Gate()
    upstream.scripts, upstream.at_head = [[gate, Send(answer(b"no", status=b"413 L")), Close()]], True
    body = Pieces(10_000_000)
    asked = await under_way(agents, upstream, body)
    await until(lambda: gate.reached)
    upstream.connections[0].transport.pauseProducing()
    body.consumer.write(b"x" * 1_000_000)
    gate.open()
    response = await asked
    assert response.code == 413
    assert body.stopped == 1


# Giving up.


@pytest.mark.parametrize("how", ["abort-answer", "abort-transport", "stop"])
@pytest_twisted.ensureDeferred
async def test_giving_up_a_body(agents: Agents, upstream: FakeUpstream, how: str) -> None:
    upstream.scripts = [[Send(stream_head() + chunk(b"a")), Stall()]]
    response = await start(agents.agent(), upstream.url)
    body = Body(response)
    response.deliverBody(body)
    if how == "stop":
        response.stopProducing()
    else:
        abort(response if how == "abort-answer" else body.transport)
    await body.end()
    assert not body.whole
    await until(lambda: not upstream.open)


@pytest_twisted.ensureDeferred
async def test_giving_up_a_whole_answer_does_nothing(agents: Agents, upstream: FakeUpstream) -> None:
    upstream.scripts = [[OK]]
    agent = agents.agent()
    response = await start(agent, upstream.url)
    abort(response)
    response.pauseProducing()
    response.resumeProducing()
    assert (await fetch(agent, upstream.url)).whole
    assert len(upstream.connections) == 1


@pytest_twisted.ensureDeferred
async def test_cancelled(agents: Agents, upstream: FakeUpstream) -> None:
    upstream.scripts = [[Stall()]]
    agent = agents.agent()
    asked = start(agent, upstream.url)
    await until(lambda: upstream.requests)
    asked.cancel()
    with pytest.raises(CancelledError):
        await asked
    await until(lambda: not upstream.open and not agent.open_connections)


# Nothing is left for the collector.


async def good(agents: Agents, agent: Any, upstream: FakeUpstream) -> None:
    assert (await fetch(agent, upstream.url, method=b"POST", body=Bytes(b"{}"))).whole


async def streamed(agents: Agents, agent: Any, upstream: FakeUpstream) -> None:
    upstream.scripts = [[Send(stream_head() + chunk(b"a")), Wait(0), Send(LAST_CHUNK)]]
    assert (await fetch(agent, upstream.url)).whole


async def uploaded(agents: Agents, agent: Any, upstream: FakeUpstream) -> None:
    body = Pieces()
    asked = start(agent, upstream.url, method=b"POST", body=body)
    await until(lambda: body.consumer)
    body.done.callback(None)
    body.consumer = None
    await asked


async def failing(agent: Any, url: str, error: Any, **more: Any) -> None:
    with pytest.raises(error):
        await start(agent, url, **more)


async def refused(agents: Agents, agent: Any, upstream: FakeUpstream) -> None:
    await failing(agent, "http://127.0.0.1:1", ConnectionRefusedError)


async def closed(agents: Agents, agent: Any, upstream: FakeUpstream) -> None:
    upstream.scripts = [[Close()]]
    await failing(agent, upstream.url, ConnectionDone)


async def truncated(agents: Agents, agent: Any, upstream: FakeUpstream) -> None:
    upstream.scripts = [[Send(LENGTH + b"abc"), Close()]]
    assert not (await fetch(agent, upstream.url)).whole


async def bad(agents: Agents, agent: Any, upstream: FakeUpstream) -> None:
    upstream.scripts = [[Send(b"junk"), Stall()]]
    await failing(agent, upstream.url, BadAnswer)


async def late_bad(agents: Agents, agent: Any, upstream: FakeUpstream) -> None:
    upstream.scripts = [[Send(stream_head() + b"zz\r\n"), Stall()]]
    assert not (await fetch(agent, upstream.url)).whole


async def cancelled(agents: Agents, agent: Any, upstream: FakeUpstream) -> None:
    upstream.scripts = [[Stall()]]
    asked = start(agent, upstream.url)
    count = len(upstream.requests)
    await until(lambda: len(upstream.requests) > count)
    asked.cancel()
    with pytest.raises(CancelledError):
        await asked


async def cancelled_early(agents: Agents, agent: Any, upstream: FakeUpstream) -> None:
    asked = start(agent, upstream.url)
    asked.cancel()
    with pytest.raises(CancelledError):
        await asked


async def early(agents: Agents, agent: Any, upstream: FakeUpstream) -> None:
    upstream.at_head = True
    body = Pieces()
    response = await start(agent, upstream.url, method=b"POST", body=body)
    upstream.at_head = False
    assert response.complete
    body.consumer = None


async def timed_out(agents: Agents, agent: Any, upstream: FakeUpstream) -> None:
    await failing(agent, f"http://127.0.0.1:{agents.deaf_port}", ConnectTimeout)


WAYS: list[Any] = [
    good, streamed, uploaded, refused, closed, truncated, bad, late_bad, cancelled, cancelled_early, early, timed_out
]  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
@pytest_twisted.ensureDeferred
async def test_no_circles(agents: Agents, upstream: FakeUpstream, deaf_port: int, way: Any) -> None:
    """Only the collector would take them away, and it stops everything when it does."""
    agents.deaf_port = deaf_port
    timeout = 0.02 if way is timed_out else 5.0
    count = 20 if way is timed_out else 100
    agent = agents.agent(connect_timeout=timeout)

    async def run(times: int) -> None:
        for _ in range(times):
            upstream.scripts = [[OK]]
            await way(agents, agent, upstream)
            upstream.requests.clear()
        await until(lambda: agent.open_connections == agent.idle_connections)
        await until(lambda: len(upstream.open) == agent.open_connections)
        upstream.connections[:] = upstream.open
        await pause(0.02)

    await run(3)
    gc.collect()
    gc.disable()
    try:
        await run(count)
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        ours = [one for one in gc.garbage if _ours(one)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
        gc.collect()
    assert not ours, {type(one).__name__ for one in ours}


def _ours(thing: object) -> bool:
    """Of the wire, or of a transport on the client's side."""
    kind = type(thing)
    return kind.__module__.startswith("llmproxyd.wire") or kind.__name__ in {"Client", "Connector"}
