"""Faults in streams and connections as the client sees them, on real sockets."""

from __future__ import annotations

import gzip
import json
import socket
import struct
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import pytest_twisted
from bench import Bench
from faultbench import (
    ASK,
    BODY,
    CHAT,
    DONE,
    EVENTS,
    IN_ONE_WRITE,
    JSON,
    ROLE,
    STOP,
    STREAM,
    WHOLE_STREAM,
    WORDS,
    content,
    finished,
    rule,
    set_fault,
    zipped,
)
from library import Workshop
from twisted.internet.defer import ensureDeferred
from wireclient import get, pause, request, until

from llmproxyd.faults.rules import Breakage, Match, Times
from llmproxyd.model import End, Recorded
from llmproxyd.providers.base import EndpointKind, ErrorKind
from llmproxyd.testing.upstream import (
    LAST_CHUNK,
    Close,
    FakeUpstream,
    Pour,
    Send,
    Stall,
    Wait,
    answer,
    chunk,
    event,
    head,
    stream_head,
)

test = pytest_twisted.ensureDeferred
ARRIVALS = pytest.mark.parametrize("script", [WHOLE_STREAM, IN_ONE_WRITE], ids=["pieces", "one-write"])
BEHIND_TWO = b"".join([ROLE, *WORDS[:2]])
OLD = request(CHAT, version=b"HTTP/1.0")


# What comes of each kind.


@ARRIVALS
@test
async def test_cut_closes_the_connection_behind_so_many_events(
    bench: Bench, upstream: FakeUpstream, script: Any
) -> None:
    upstream.scripts = [script]
    proxy = bench.proxy()
    set_fault(proxy, Breakage.CUT, at="events", number=2)
    client = await bench.client(proxy)
    got = await client.ask(ASK)
    assert (got.status, got.body, got.whole) == (200, BEHIND_TWO, False)
    await client.closed()
    assert not client.reset
    event = await finished(proxy)
    assert (event.fault, event.end, event.code, event.failed) == ("cut", End.TRUNCATED, None, False)
    assert (event.unreached, event.status, event.sent) == (False, 200, len(BEHIND_TWO))


@ARRIVALS
@test
async def test_reset_resets_it(bench: Bench, upstream: FakeUpstream, script: Any) -> None:
    upstream.scripts = [script]
    proxy = bench.proxy()
    set_fault(proxy, Breakage.RESET, at="events", number=2)
    client = await bench.client(proxy)
    got = await client.ask(ASK)
    assert (got.body, got.whole) == (BEHIND_TWO, False)
    await client.closed()
    assert client.reset
    assert (await finished(proxy)).end is End.TRUNCATED


@ARRIVALS
@test
async def test_truncate_ends_well_and_keeps_the_connection(
    bench: Bench, upstream: FakeUpstream, script: Any
) -> None:
    upstream.scripts = [script]
    proxy = bench.proxy()
    set_fault(proxy, Breakage.TRUNCATE, Times(1), at="events", number=2)
    client = await bench.client(proxy)
    got = await client.ask(ASK)
    assert (got.body, got.whole) == (BEHIND_TWO, True)
    assert (await finished(proxy)).end is End.TRUNCATED
    again = await client.ask(ASK)
    assert (again.body, again.whole) == (STREAM, True)


@ARRIVALS
@test
async def test_stream_error_is_the_providers_own_event(
    bench: Bench, upstream: FakeUpstream, script: Any
) -> None:
    upstream.scripts = [script]
    proxy = bench.proxy()
    set_fault(proxy, Breakage.STREAM_ERROR, at="events", number=2, error=ErrorKind.OVERLOADED)
    got = await (await bench.client(proxy)).ask(ASK)
    assert got.whole
    assert got.body.startswith(BEHIND_TWO)
    told = json.loads(got.body.removeprefix(BEHIND_TWO).removeprefix(b"data: "))
    assert told["error"]["code"] == "server_is_overloaded"
    assert (await finished(proxy)).end is End.IN_BAND_ERROR


@ARRIVALS
@test
async def test_stall_is_a_silence_in_which_nothing_is_given_up(
    bench: Bench, upstream: FakeUpstream, script: Any
) -> None:
    upstream.scripts = [script]
    proxy = bench.proxy(timeouts={"idle": 0.2})
    set_fault(proxy, Breakage.STALL, at="events", number=2, silence=0.7)
    client = await bench.client(proxy)
    client.send(ASK)
    await client.has(WORDS[1])
    await pause(0.4)
    assert WORDS[2] not in client.received
    got = await client.answer()
    assert (got.body, got.whole) == (STREAM, True)
    event = await finished(proxy)
    assert (event.end, event.failed, event.fault) == (End.COMPLETE, False, "stall")


CHANGED = {
    Breakage.DUPLICATE: [ROLE, *WORDS[:2], WORDS[2], WORDS[2], WORDS[3], STOP, DONE],
    Breakage.REORDER: [ROLE, *WORDS[:2], WORDS[3], WORDS[2], STOP, DONE],
}


@pytest.mark.parametrize("kind", CHANGED, ids=str)
@ARRIVALS
@test
async def test_events_come_twice_or_too_late(
    bench: Bench, upstream: FakeUpstream, script: Any, kind: Breakage
) -> None:
    upstream.scripts = [script]
    proxy = bench.proxy()
    set_fault(proxy, kind, at="events", number=2)
    got = await (await bench.client(proxy)).ask(ASK)
    assert (got.body, got.whole) == (b"".join(CHANGED[kind]), True)
    assert (await finished(proxy)).end is End.COMPLETE


@ARRIVALS
@test
async def test_garbage_is_one_event_that_is_no_json(
    bench: Bench, upstream: FakeUpstream, script: Any
) -> None:
    upstream.scripts = [script]
    proxy = bench.proxy()
    set_fault(proxy, Breakage.GARBAGE, at="events", number=2)
    got = await (await bench.client(proxy)).ask(ASK)
    assert got.whole
    events = got.body.split(b"\n\n")
    assert len(events) == len(STREAM.split(b"\n\n"))
    wrong = [one for one in events if one and one != b"data: [DONE]" and not _is_json(one)]
    assert len(wrong) == 1


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line.removeprefix(b"data: "))
    except ValueError:
        return False
    return True


@test
async def test_slow_waits_before_each_word(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [IN_ONE_WRITE]
    proxy = bench.proxy()
    set_fault(proxy, Breakage.SLOW, first_token=0.1, per_event=0.1)
    got = await (await bench.client(proxy)).ask(ASK)
    assert (got.body, got.whole) == (STREAM, True)
    event = await finished(proxy)
    assert event.duration >= 0.4
    assert event.end is End.COMPLETE


@test
async def test_delay_is_before_the_head(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [[JSON]]
    proxy = bench.proxy()
    set_fault(proxy, Breakage.DELAY, silence=0.3)
    client = await bench.client(proxy)
    client.send(ASK)
    await pause(0.1)
    assert not upstream.requests
    assert (await client.answer()).json == BODY
    event = await finished(proxy)
    assert (event.fault, event.end, event.unreached) == ("delay", End.COMPLETE, False)
    assert event.duration >= 0.3


@test
async def test_refuse_closes_without_a_byte(bench: Bench, upstream: FakeUpstream) -> None:
    proxy = bench.proxy()
    set_fault(proxy, Breakage.REFUSE)
    client = await bench.client(proxy)
    client.send(ASK)
    await client.closed()
    assert (client.received, client.reset) == (b"", False)
    event = await finished(proxy)
    assert (event.fault, event.status, event.end, event.sent) == ("refuse", 444, End.TRUNCATED, 0)
    assert not upstream.requests


@test
async def test_never_lasts_until_the_client_leaves(bench: Bench, upstream: FakeUpstream) -> None:
    proxy = bench.proxy()
    set_fault(proxy, Breakage.NEVER)
    client = await bench.client(proxy)
    body = b"x" * 300_000
    asking = request(CHAT, b"Expect: 100-continue", body=body)
    client.send(asking.removesuffix(body))
    await client.has(b"100 Continue")
    client.send(body)
    await pause(0.3)
    assert client.received == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.transport.abortConnection()
    event = await finished(proxy)
    assert (event.fault, event.status, event.code) == ("never", 499, "client_gone")
    assert not upstream.requests


@pytest.mark.parametrize("kind", [Breakage.NEVER, Breakage.STALL, Breakage.DELAY, Breakage.SLOW], ids=str)
@test
async def test_waits_end_when_the_daemon_stops(bench: Bench, upstream: FakeUpstream, kind: Breakage) -> None:
    upstream.scripts = [IN_ONE_WRITE]
    proxy = bench.proxy()
    more = {Breakage.DELAY: {"silence": 99.0}, Breakage.SLOW: {"first_token": 99.0}}
    set_fault(proxy, kind, **more.get(kind, {}))
    client = await bench.client(proxy)
    client.send(ASK)
    await until(lambda: proxy.daemon.pipeline.active, "the request")
    await pause(0.1)
    proxy.daemon.pipeline.cut_all()
    if kind is Breakage.DELAY:
        assert (await client.answer()).status == 503
    else:
        await client.closed()
    event = await finished(proxy)
    assert event.fault == kind
    assert event.failed is False
    assert (event.status, client.received[:12]) == {
        Breakage.NEVER: (444, b""),
        Breakage.DELAY: (503, b""),
    }.get(kind, (200, b"HTTP/1.1 200"))
    assert LAST_CHUNK not in client.received


@test
async def test_status_is_any_status_and_body(bench: Bench, upstream: FakeUpstream) -> None:
    proxy = bench.proxy()
    set_fault(proxy, Breakage.STATUS, status=418, body=b"<p>short and stout", media="text/html")
    client = await bench.client(proxy)
    for _ in range(2):
        got = await client.ask(ASK)
        assert (got.status, got.body, got.get(b"content-type")) == (418, b"<p>short and stout", b"text/html")
        assert got.get(b"x-llmproxyd-error") == b"injected"
    set_fault(proxy, Breakage.STATUS, status=204, body=b"nothing")
    assert (await client.ask(ASK)).body == b""
    assert (await client.ask(request(CHAT, method=b"POST"))).status == 204
    assert not upstream.requests
    assert {event.fault for event in proxy.finished} == {"status"}


# Lengths.


@pytest.mark.parametrize(("excess", "told"), [(0, 10), (25, 25), (-4, -4)])
@pytest.mark.parametrize("version", [b"HTTP/1.1", b"HTTP/1.0"])
@test
async def test_wrong_length_is_told_and_the_connection_is_closed(
    bench: Bench, upstream: FakeUpstream, excess: int, told: int, version: bytes
) -> None:
    upstream.scripts = [[JSON]]
    proxy = bench.proxy()
    set_fault(proxy, Breakage.WRONG_LENGTH, excess=excess)
    client = await bench.client(proxy)
    client.send(request(CHAT, version=version))
    await client.closed()
    assert not client.reset
    whole = json.dumps(BODY, separators=(",", ":")).encode()
    first, _, body = client.received.partition(b"\r\n\r\n")
    assert b"content-length: %d" % (len(whole) + told) in first.lower()
    assert first.lower().count(b"content-length") == 1
    assert body == whole[: len(whole) + min(told, 0)]
    event = await finished(proxy)
    assert (event.end, event.unreached, event.failed) == (End.TRUNCATED, False, False)


@test
async def test_wrong_length_of_a_stream_is_not_reached(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [WHOLE_STREAM]
    proxy = bench.proxy()
    set_fault(proxy, Breakage.WRONG_LENGTH)
    got = await (await bench.client(proxy)).ask(ASK)
    assert (got.body, got.whole) == (STREAM, True)
    assert (await finished(proxy)).unreached


@pytest.mark.parametrize("version", [b"HTTP/1.1", b"HTTP/1.0"])
@pytest.mark.parametrize("kind", [Breakage.CUT, Breakage.RESET, Breakage.TRUNCATE], ids=str)
@test
async def test_an_answer_in_one_piece_breaks_in_its_middle(
    bench: Bench, upstream: FakeUpstream, kind: Breakage, version: bytes
) -> None:
    upstream.scripts = [[JSON]]
    proxy = bench.proxy()
    set_fault(proxy, kind)
    client = await bench.client(proxy)
    client.send(request(CHAT, version=version))
    got = await client.answer()
    whole = json.dumps(BODY, separators=(",", ":")).encode()
    assert got.body == whole[: len(whole) // 2]
    assert got.whole is (kind is Breakage.TRUNCATE)
    if kind is not Breakage.TRUNCATE:
        assert got.get(b"content-length") == b"%d" % len(whole)
        await client.closed()
        assert client.reset is (kind is Breakage.RESET)
    elif version == b"HTTP/1.1":
        assert got.get(b"transfer-encoding") == b"chunked"
        assert got.get(b"content-length") is None


@pytest.mark.parametrize(
    ("kind", "reset", "body"),
    [
        (Breakage.CUT, True, BEHIND_TWO),  # a plain end would look whole
        (Breakage.RESET, True, BEHIND_TWO),
        (Breakage.TRUNCATE, False, BEHIND_TWO),
        (Breakage.DUPLICATE, False, b"".join(CHANGED[Breakage.DUPLICATE])),
    ],
)
@test
async def test_streams_to_old_clients(
    bench: Bench, upstream: FakeUpstream, kind: Breakage, reset: bool, body: bytes
) -> None:
    upstream.scripts = [WHOLE_STREAM]
    proxy = bench.proxy()
    set_fault(proxy, kind, at="events", number=2)
    client = await bench.client(proxy)
    client.send(OLD)
    await client.closed()
    assert client.received.partition(b"\r\n\r\n")[2] == body
    assert client.reset is reset


# What cannot be broken.


@pytest.mark.parametrize("kind", [Breakage.CUT, Breakage.WRONG_LENGTH], ids=str)
@test
async def test_head_passes(bench: Bench, upstream: FakeUpstream, kind: Breakage) -> None:
    upstream.scripts = [[Send(head(b"content-type: text/event-stream", b"content-length: 77"))]]
    proxy = bench.proxy()
    everything = Match(kinds=frozenset(EndpointKind))
    proxy.daemon.works.engine.set_mode(replace(rule(kind), match=everything))
    client = await bench.client(proxy)
    client.send(get(CHAT, method=b"HEAD"))
    got = await client.answer(bodiless=True)
    assert got.get(b"content-length") == b"77"
    assert (await finished(proxy)).unreached


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
@test
async def test_answers_without_a_body_pass(bench: Bench, upstream: FakeUpstream, status: bytes) -> None:
    upstream.scripts = [[Send(head(status=status))]]
    proxy = bench.proxy()
    set_fault(proxy, Breakage.CUT)
    client = await bench.client(proxy)
    got = await client.ask(ASK)
    assert got.whole
    event = await finished(proxy)
    assert (event.unreached, event.end, event.fault) == (True, End.COMPLETE, "cut")
    assert proxy.daemon.works.engine.tally().injected == 0


@test
async def test_a_spot_that_never_comes_is_told(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [WHOLE_STREAM]
    proxy = bench.proxy()
    set_fault(proxy, Breakage.CUT, Times(1), at="events", number=50)
    client = await bench.client(proxy)
    got = await client.ask(ASK)
    assert (got.body, got.whole) == (STREAM, True)
    assert (await finished(proxy)).unreached
    tally = proxy.daemon.works.engine.tally()
    assert (tally.injected, tally.never) == (0, 1)


@test
async def test_refusals_of_our_own_are_not_broken(
    bench: Bench, upstream: FakeUpstream, closed_port: int
) -> None:
    proxy = bench.proxy(base_url=f"http://127.0.0.1:{closed_port}")
    set_fault(proxy, Breakage.TRUNCATE)
    got = await (await bench.client(proxy)).ask(ASK)
    assert (got.status, got.json["error"]["code"]) == (502, "upstream_unreachable")
    assert (await finished(proxy)).unreached


# Codings.


@pytest.mark.parametrize("times", [1, 2000])
@test
async def test_a_coded_stream_is_sent_in_the_clear(bench: Bench, upstream: FakeUpstream, times: int) -> None:
    upstream.scripts = [zipped(b'etag: "x"', times=times)]
    proxy = bench.proxy()
    set_fault(proxy, Breakage.DUPLICATE, at="events", number=2)
    client = await bench.client(proxy)
    got = await client.ask(request(CHAT, b"Accept-Encoding: br, gzip;q=0.5, zstd"))
    assert upstream.requests[0].all(b"accept-encoding") == [b"gzip;q=0.5"]
    assert got.names.isdisjoint({b"content-encoding", b"etag", b"content-length"})
    rest = STREAM * (times - 1)
    assert (got.body, got.whole) == (b"".join(CHANGED[Breakage.DUPLICATE]) + rest, True)
    assert (await finished(proxy)).sent == len(got.body)


@test
async def test_a_coded_stream_that_breaks_off_is_cut(bench: Bench, upstream: FakeUpstream) -> None:
    data = gzip.compress(STREAM)[:-12]
    first = stream_head(b"text/event-stream", b"content-encoding: gzip")
    upstream.scripts = [[Send(first + chunk(data) + LAST_CHUNK)]]
    proxy = bench.proxy()
    set_fault(proxy, Breakage.STALL, at="events", number=2, silence=0.0)
    client = await bench.client(proxy)
    got = await client.ask(ASK)
    assert not got.whole
    assert (await finished(proxy)).end is End.TRUNCATED


@test
async def test_a_coding_that_cannot_be_read_passes(bench: Bench, upstream: FakeUpstream) -> None:
    first = stream_head(b"text/event-stream", b"content-encoding: br")
    upstream.scripts = [[Send(first + chunk(b"\x0b\x02") + LAST_CHUNK)]]
    proxy = bench.proxy()
    set_fault(proxy, Breakage.CUT)
    got = await (await bench.client(proxy)).ask(ASK)
    assert (got.body, got.whole, got.get(b"content-encoding")) == (b"\x0b\x02", True, b"br")
    assert (await finished(proxy)).unreached


# What the rest of the proxy sees.


@test
async def test_records_have_what_the_client_got(bench: Bench, upstream: FakeUpstream, tmp_path: Any) -> None:
    upstream.scripts = [WHOLE_STREAM]
    proxy = bench.proxy(logging={"enabled": True, "folder": str(tmp_path)})
    set_fault(proxy, Breakage.TRUNCATE, at="events", number=2)
    await (await bench.client(proxy)).ask(ASK)
    await finished(proxy)
    (recorded,) = [one for one in proxy.sink.events if isinstance(one, Recorded)]
    assert recorded.response_body is not None
    assert recorded.response_body.data == BEHIND_TWO


@test
async def test_usage_is_read_from_the_upstreams_words(bench: Bench, upstream: FakeUpstream) -> None:
    counts = event(b'{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}')
    pieces = [*EVENTS[:-1], counts, DONE]
    upstream.scripts = [[Send(stream_head()), *(Send(chunk(one)) for one in pieces), Send(LAST_CHUNK)]]
    proxy = bench.proxy(events={"usage": True})
    set_fault(proxy, Breakage.NO_USAGE)
    got = await (await bench.client(proxy)).ask(ASK)
    assert b"prompt_tokens" not in got.body
    assert got.whole
    reading = (await finished(proxy)).reading
    assert reading is not None
    assert reading.tokens["input"] == 3


@test
async def test_breakers_and_retries_learn_nothing_of_it(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [WHOLE_STREAM]
    policy = {"retry": {"max_retries": 3}, "breaker": {"enabled": True, "failure_threshold": 1}}
    proxy = bench.proxy(resilience={"default": policy})
    for kind in (Breakage.CUT, Breakage.RESET, Breakage.TRUNCATE, Breakage.STREAM_ERROR, Breakage.REFUSE):
        set_fault(proxy, kind, Times(1))
        client = await bench.client(proxy)
        client.send(ASK)
        if kind in (Breakage.CUT, Breakage.RESET, Breakage.REFUSE):
            await client.closed()
        else:
            await client.answer()
    got = await (await bench.client(proxy)).ask(ASK)
    assert (got.status, got.body) == (200, STREAM)
    assert [event.failed for event in proxy.finished] == [False] * 6
    assert len(upstream.requests) == 5


CACHED = {"enabled": True, "rules": [{"path": "/v1/*", "methods": ["POST"], "default_ttl": 60}]}


@pytest.mark.parametrize(
    "kind",
    [Breakage.CUT, Breakage.TRUNCATE, Breakage.EMPTY, Breakage.GARBAGE, Breakage.STREAM_ERROR],
    ids=str,
)
@ARRIVALS
@test
async def test_nothing_faulty_is_stored_and_what_is_stored_is_broken_too(
    bench: Bench, upstream: FakeUpstream, script: Any, kind: Breakage
) -> None:
    upstream.scripts = [script]
    proxy = bench.proxy(cache=CACHED)
    set_fault(proxy, kind, Times(1))
    client = await bench.client(proxy)
    broken = await client.ask(ASK)
    assert broken.body != STREAM
    client = await bench.client(proxy)
    assert (await client.ask(ASK)).body == STREAM
    asked = len(upstream.requests)
    set_fault(proxy, kind, Times(1))
    again = await client.ask(ASK)
    assert (again.body, again.whole) == (broken.body, broken.whole)
    assert again.get(b"x-cache-status") == b"hit"
    assert len(upstream.requests) == asked
    assert proxy.finished[-1].fault == kind


@test
async def test_nobody_else_waits_for_what_is_held_up(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [IN_ONE_WRITE]
    proxy = bench.proxy(cache=CACHED)
    set_fault(proxy, Breakage.STALL, Times(1))
    stalled, other = await bench.client(proxy), await bench.client(proxy)
    stalled.send(ASK)
    await stalled.has(WORDS[0])
    assert (await other.ask(ASK)).body == STREAM
    stalled.transport.abortConnection()


@test
async def test_a_large_stored_answer_is_broken_at_the_clients_pace(
    bench: Bench, upstream: FakeUpstream
) -> None:
    body = b'{"text":"%s"}' % (b"x" * 900_000)
    upstream.scripts = [[Send(answer(body, b"content-type: application/json"))]]
    proxy = bench.proxy(cache=CACHED)
    client = await bench.client(proxy)
    assert (await client.ask(ASK)).body == body
    set_fault(proxy, Breakage.STALL, silence=0.05)
    got = await client.ask(ASK)
    assert (got.body, got.whole) == (body, True)
    set_fault(proxy, Breakage.STALL, at="bytes", number=len(body) - 1, silence=0.05)
    got = await client.ask(ASK)
    assert (got.body, got.whole) == (body, True)
    set_fault(proxy, Breakage.CUT, at="bytes", number=700_000)
    got = await client.ask(ASK)
    assert (got.body, got.whole) == (body[:700_000], False)
    assert len(upstream.requests) == 1


@test
async def test_first_content_and_total_timeouts_are_not_the_upstreams_fault(
    bench: Bench, upstream: FakeUpstream
) -> None:
    upstream.scripts = [[Send(stream_head()), Send(chunk(ROLE)), Wait(0.1), *WHOLE_STREAM[2:]]]
    policy = {"breaker": {"enabled": True, "failure_threshold": 1}, "timeouts": {"first_content": 0.3}}
    proxy = bench.proxy(resilience={"default": policy})
    set_fault(proxy, Breakage.STALL, Times(1), at="bytes", number=10, silence=0.8)
    got = await (await bench.client(proxy)).ask(ASK)
    assert (got.body, got.whole) == (STREAM, True)
    policy["timeouts"] = {"total": 0.4}
    upstream.scripts = [[*WHOLE_STREAM[:4], Stall()], WHOLE_STREAM]
    proxy = bench.proxy(resilience={"default": policy})
    set_fault(proxy, Breakage.STALL, Times(1))
    client = await bench.client(proxy)
    got = await client.ask(ASK)
    assert not got.whole
    event = await finished(proxy)
    assert (event.code, event.failed, event.end) == ("total_timeout", False, End.TRUNCATED)
    assert (await (await bench.client(proxy)).ask(ASK)).body == STREAM


@test
async def test_an_upstream_that_breaks_off_is_to_blame_all_the_same(
    bench: Bench, upstream: FakeUpstream
) -> None:
    upstream.scripts = [[*WHOLE_STREAM[:4], Wait(0.05), Close()]]
    proxy = bench.proxy()
    set_fault(proxy, Breakage.CUT, at="events", number=50)
    got = await (await bench.client(proxy)).ask(ASK)
    assert not got.whole
    assert b"upstream_protocol_error" not in got.body
    event = await finished(proxy)
    assert (event.failed, event.unreached, event.code) == (True, True, "upstream_protocol_error")


# Clients that do as they like.


@pytest.mark.parametrize("way", ["closes", "resets"])
@pytest.mark.parametrize("kind", [Breakage.STALL, Breakage.SLOW, Breakage.DELAY, Breakage.NEVER], ids=str)
@test
async def test_who_leaves_is_waited_for_no_more(
    bench: Bench, upstream: FakeUpstream, kind: Breakage, way: str
) -> None:
    upstream.scripts = [[*WHOLE_STREAM[:4], Stall()]]
    proxy = bench.proxy()
    more: dict[Breakage, dict[str, Any]] = {
        Breakage.DELAY: {"silence": 99.0},
        Breakage.SLOW: {"per_event": 99.0},
    }
    set_fault(proxy, kind, **more.get(kind, {}))
    client = await bench.client(proxy)
    client.send(ASK)
    await until(lambda: proxy.daemon.pipeline.active, "the request")
    await pause(0.1)
    if way == "closes":
        client.transport.loseConnection()
    else:
        client.transport.abortConnection()
    event = await finished(proxy)
    assert (event.code, event.end) == ("client_gone", End.CLIENT_GONE)
    await until(lambda: not upstream.open, "the upstream's connection to end")


@test
async def test_a_client_that_leaves_at_the_last_word_has_all(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [[*WHOLE_STREAM[:-1], Stall()]]
    proxy = bench.proxy()
    set_fault(proxy, Breakage.STALL, at="events", number=1, silence=0.0)
    client = await bench.client(proxy)
    client.send(ASK)
    await client.has(DONE)
    client.transport.loseConnection()
    event = await finished(proxy)
    assert (event.code, event.end) == (None, End.COMPLETE)


@test
async def test_a_client_that_does_not_read_holds_the_upstream_back(
    bench: Bench, upstream: FakeUpstream
) -> None:
    pour = Pour(chunk(content(b"x" * 60_000)), 1000)
    upstream.scripts = [[Send(stream_head()), pour, Send(LAST_CHUNK)]]
    proxy = bench.proxy()
    set_fault(proxy, Breakage.DUPLICATE, at="events", number=2)
    client = await bench.client(proxy)
    client.transport.pauseProducing()
    client.send(ASK)
    await pause(0.5)
    before = pour.poured
    assert before < 30_000_000
    await pause(0.2)
    assert pour.poured == before
    client.transport.resumeProducing()
    got = await client.answer()
    assert (got.whole, len(got.body)) == (True, len(content(b"x" * 60_000)) * 1001)


@test
async def test_a_stall_holds_the_upstream_back(bench: Bench, upstream: FakeUpstream) -> None:
    pour = Pour(chunk(content(b"x" * 60_000)), 1000)
    upstream.scripts = [[Send(stream_head()), pour, Send(LAST_CHUNK)]]
    proxy = bench.proxy()
    set_fault(proxy, Breakage.STALL, at="events", number=2)
    client = await bench.client(proxy)
    client.send(ASK)
    await client.has(b"xxxx")
    await pause(0.4)
    assert pour.poured < 30_000_000
    client.transport.abortConnection()
    assert (await finished(proxy)).end is End.CLIENT_GONE


@test
async def test_however_the_stream_is_cut_into_pieces(bench: Bench, upstream: FakeUpstream) -> None:
    raw = b"".join(EVENTS)
    proxy = bench.proxy()
    set_fault(proxy, Breakage.TRUNCATE, at="events", number=2)
    client = await bench.client(proxy)
    for at in range(1, len(raw)):
        pieces = [chunk(raw[:at]), chunk(raw[at:])]
        upstream.scripts = [[Send(stream_head() + pieces[0]), Wait(0), Send(pieces[1] + LAST_CHUNK)]]
        got = await client.ask(ASK)
        assert (got.body, got.whole) == (BEHIND_TWO, True), at


@test
async def test_a_reset_lingers_for_nobody(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [WHOLE_STREAM]
    proxy = bench.proxy()
    set_fault(proxy, Breakage.RESET, at="start")
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=5) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 0, 0))
        raw.sendall(ASK)
        await finished(proxy)
        await pause(0.05)
        raw.recv(65536)  # the head, at most
        with pytest.raises(ConnectionResetError):
            raw.recv(65536)


@test
async def test_a_second_request_behind_a_cut_one_is_not_answered(
    bench: Bench, upstream: FakeUpstream
) -> None:
    upstream.scripts = [WHOLE_STREAM]
    proxy = bench.proxy()
    set_fault(proxy, Breakage.CUT, Times(1))
    client = await bench.client(proxy)
    client.send(ASK + ASK)
    await client.closed()
    assert client.received.count(b"HTTP/1.1 200") == 1
    assert len(proxy.finished) == 1


# The request asks for it.


@test
async def test_a_fault_of_the_requests_own_may_be_a_breakage(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [WHOLE_STREAM]
    proxy = bench.proxy(faults={"header": True})
    client = await bench.client(proxy)
    got = await client.ask(request(CHAT, b"x-llmproxyd-fault: truncate; at=2"))
    assert (got.body, got.whole) == (BEHIND_TWO, True)
    assert upstream.requests[0].all(b"x-llmproxyd-fault") == []
    assert (await finished(proxy)).fault == "truncate"


@test
async def test_the_event_names_the_test(bench: Bench, upstream: FakeUpstream) -> None:
    upstream.scripts = [[JSON]]
    proxy = bench.proxy()
    await (await bench.client(proxy)).ask(request(CHAT, b"x-llmproxyd-test: one"))
    assert (await finished(proxy)).test == "one"


# Behind a server of twisted.web's own.


@pytest.fixture
def workshop(upstream: FakeUpstream) -> Iterator[Workshop]:
    made = Workshop(upstream)
    yield made
    pytest_twisted.blockon(ensureDeferred(made.close()))


@pytest.mark.parametrize("site", ["stock", "ours"])
@pytest.mark.parametrize(
    ("kind", "body", "whole"),
    [
        (Breakage.CUT, BEHIND_TWO, False),
        (Breakage.RESET, BEHIND_TWO, False),
        (Breakage.TRUNCATE, BEHIND_TWO, True),
        (Breakage.REORDER, b"".join(CHANGED[Breakage.REORDER]), True),
    ],
)
@test
async def test_in_somebody_elses_site(
    workshop: Workshop, upstream: FakeUpstream, site: str, kind: Breakage, body: bytes, whole: bool
) -> None:
    upstream.scripts = [WHOLE_STREAM]
    proxy = await workshop.serve(site=site)
    proxy._works.engine.set_mode(rule(kind, at="events", number=2))
    client = await workshop.client(proxy)
    got = await client.ask(ASK)
    assert (got.body, got.whole) == (body, whole)
    if not whole:
        await client.closed()
        assert client.reset is (kind is Breakage.RESET)
    (event,) = workshop.finished
    assert event.fault == kind


@pytest.mark.parametrize("site", ["stock", "ours"])
@test
async def test_refused_in_somebody_elses_site(workshop: Workshop, upstream: FakeUpstream, site: str) -> None:
    proxy = await workshop.serve(site=site)
    proxy._works.engine.set_mode(rule(Breakage.REFUSE))
    client = await workshop.client(proxy)
    client.send(ASK)
    await client.closed()
    assert (client.received, client.reset) == (b"", False)
    (event,) = workshop.finished
    assert event.status == 444
