"""What passes is recorded as it is, and passes as if it were not."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import zlib
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from bench import Bench
from tapebench import Deck, recorded, state
from wireclient import pause, request, until

from llmproxyd.config.load import ConfigError
from llmproxyd.listen import StartError
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
    event,
    head,
    json_answer,
    stream_head,
)

CHAT = b"/v1/chat/completions"
BODY = b'{"model": "gpt-4o",  "messages": []}'
KEY = b"authorization: Bearer sk-proj-Zq947110815abcdefghij"
ASK = request(CHAT, KEY, body=BODY)
EVENTS = (event(b'{"a":1}'), event('{"b":"ü🙂"}'.encode()), event(b"[DONE]"))


@pytest.fixture
def deck(bench: Bench, tmp_path: Path) -> Deck:
    return Deck(bench, tmp_path / "tapes")


@pytest_twisted.ensureDeferred
async def test_a_stream_is_recorded_in_the_pieces_in_which_it_came(
    upstream: FakeUpstream, deck: Deck
) -> None:
    upstream.scripts = [
        [Send(stream_head(b"text/event-stream", b"X-Odd:  a", b"x-odd: b")), Wait(0.1)]
        + [step for one in EVENTS for step in (Send(chunk(one)), Wait(0.1))]
        + [Send(LAST_CHUNK)]
    ]
    proxy = await deck.recorder()
    (got,) = await deck.ask(proxy, ASK)
    assert got.whole
    assert got.body == b"".join(EVENTS)
    await recorded(proxy, 1)
    (exchange,) = deck.recordings()
    assert json.loads(exchange.asked.body) == json.loads(BODY)
    assert (exchange.asked.provider, exchange.asked.method) == ("openai", "POST")
    assert exchange.asked.target == CHAT.decode()
    answered = exchange.answered
    assert [piece.data for piece in answered.pieces] == list(EVENTS)
    assert answered.whole
    times = [piece.after for piece in answered.pieces]
    # The head waited for nobody; what came after it is later by about the waits between.
    assert 0 < times[0] < times[1] < times[2] < answered.ended
    assert answered.ended - times[0] > 0.1
    assert answered.fields == (
        (b"content-type", b"text/event-stream"),
        (b"transfer-encoding", b"chunked"),
        (b"X-Odd", b"a"),
        (b"x-odd", b"b"),
    )
    assert os.listdir(deck.folder) == ["0001-openai-chat-200.yaml"]


@pytest.mark.parametrize(
    ("script", "ask"),
    [
        ([Send(json_answer({"a": 1}))], ASK),
        ([Send(answer(gzip.compress(b'{"a": 1}'), b"content-encoding: gzip"))], ASK),
        ([Send(answer(b"", status=b"429 Too Many"))], ASK),
        ([Send(head(status=b"204 No Content"))], ASK),
        ([Send(head(b"content-length: 99"))], request(b"/v1/models", KEY, method=b"HEAD", body=None)),
        (
            [Send(head(b"content-type: a/b")), Send(b"to the"), Wait(0.02), Send(b" end"), Close()],
            ASK,
        ),
        (
            [Send(head(b"content-length: 9", version=b"HTTP/1.0")), Wait(0.02), Send(b"123456789"), Close()],
            ASK,
        ),
        ([Send(stream_head()), Send(chunk(EVENTS[0])), Wait(0.05), Close()], ASK),
        ([Send(head(b"content-length: 99")), Send(b"half"), Wait(0.05), Reset()], ASK),
    ],
    ids=["json", "gzip", "empty", "204", "head", "to the end", "1.0", "cut stream", "cut length"],
)
@pytest_twisted.ensureDeferred
async def test_a_recording_is_replayed_byte_for_byte(
    bench: Bench, upstream: FakeUpstream, deck: Deck, script: list[Any], ask: bytes
) -> None:
    upstream.scripts = [script]
    plain = await deck.ask(bench.proxy(), ask)
    proxy = await deck.recorder()
    first = await deck.ask(proxy, ask)
    await recorded(proxy, 1)
    again = await deck.ask(await deck.player(), ask)

    def bytes_of(answers: list[Any]) -> list[bytes]:
        # Of a broken stream, our own event tells the time and the request.
        return [one.raw.partition(b"upstream_protocol_error")[0] for one in answers]

    assert bytes_of(plain) == bytes_of(first) == bytes_of(again)
    assert len(upstream.requests) == 2


@pytest_twisted.ensureDeferred
async def test_a_body_that_comes_in_pieces_is_recorded_whole(
    bench: Bench, upstream: FakeUpstream, deck: Deck
) -> None:
    upstream.scripts = [[Send(json_answer({}))]]
    proxy = await deck.recorder()
    client = await bench.client(proxy)
    body = json.dumps({"text": "x" * 300_000}).encode()
    ask = request(CHAT, KEY, body=body)
    for start in range(0, len(ask), 50_000):
        client.send(ask[start : start + 50_000])
        await pause(0.005)
    assert (await client.answer()).status == 200
    assert upstream.requests[0].body == body
    await recorded(proxy, 1)
    assert json.loads(deck.recordings()[0].asked.body) == json.loads(body)


@pytest_twisted.ensureDeferred
async def test_every_attempt_is_recorded_and_replayed_in_order(upstream: FakeUpstream, deck: Deck) -> None:
    upstream.scripts = [
        [Send(answer(b"busy", status=b"503 Busy"))],
        [Send(json_answer({"at": "last"}))],
    ]
    patient = {"default": {"retry": {"max_retries": 2, "base_delay": "1ms"}}}
    proxy = await deck.recorder(resilience=patient)
    (got,) = await deck.ask(proxy, ASK)
    assert (got.status, proxy.finished[0].attempts) == (200, 2)
    await recorded(proxy, 2)
    assert sorted(os.listdir(deck.folder)) == ["0001-openai-chat-503.yaml", "0002-openai-chat-200.yaml"]
    player = await deck.player(resilience=patient)
    (got,) = await deck.ask(player, ASK)
    assert (got.json, player.finished[0].attempts) == ({"at": "last"}, 2)


@pytest_twisted.ensureDeferred
async def test_a_stored_key_is_not_recorded(upstream: FakeUpstream, deck: Deck) -> None:
    upstream.scripts = [[Send(json_answer({"you sent": "stored-Zq9-47110815"}))]]
    proxy = await deck.recorder(upstreams={"openai": {"api_key": "stored-Zq9-47110815"}})
    (got,) = await deck.ask(proxy, request(CHAT, KEY, body=b'{"quote": "stored-Zq9-47110815"}'))
    assert b"stored-Zq9-47110815" in got.body
    assert upstream.requests[0].all(b"authorization") == [b"Bearer stored-Zq9-47110815"]
    await recorded(proxy, 1)
    (file,) = deck.folder.iterdir()
    text = file.read_text()
    assert "47110815" not in text
    assert "Bearer [redacted]" in text


@pytest_twisted.ensureDeferred
async def test_a_rehearsed_failure_is_not_recorded(upstream: FakeUpstream, deck: Deck) -> None:
    upstream.scripts = [[Send(json_answer({}))]]
    proxy = await deck.recorder(faults={"mode": "r 1"})
    answers = await deck.ask(proxy, ASK, ASK)
    assert [one.status for one in answers] == [429, 200]
    await recorded(proxy, 1)
    assert [one.answered.status for one in deck.recordings()] == [200]


@pytest_twisted.ensureDeferred
async def test_a_client_that_leaves_ends_the_upstream_and_leaves_no_recording(
    bench: Bench, upstream: FakeUpstream, deck: Deck
) -> None:
    gate = Gate()
    upstream.scripts = [[Send(stream_head()), Send(chunk(EVENTS[0])), gate, Send(LAST_CHUNK)]]
    proxy = await deck.recorder()
    client = await bench.client(proxy)
    client.send(ASK)
    await client.has(EVENTS[0])
    client.transport.abortConnection()
    await until(lambda: upstream.connections[0].lost is not None)
    await until(lambda: state(proxy)["left_out"] == 1)
    assert state(proxy)["recorded"] == 0
    assert os.listdir(deck.folder) == []
    gate.open()


@pytest_twisted.ensureDeferred
async def test_an_upstream_that_cannot_be_reached_leaves_no_recording(deck: Deck, closed_port: int) -> None:
    proxy = await deck.recorder(base_url=f"http://127.0.0.1:{closed_port}")
    (got,) = await deck.ask(proxy, ASK)
    assert got.status == 502
    assert state(proxy) == {
        "folder": str(deck.folder),
        "recorded": 0,
        "left_out": 0,
        "failed": 0,
        "waiting": 0,
    }


@pytest_twisted.ensureDeferred
async def test_what_is_too_long_passes_and_is_not_recorded(upstream: FakeUpstream, deck: Deck) -> None:
    upstream.scripts = [[Send(answer(b"x" * 5000))], [Send(answer(b"short"))], [Send(answer(b"short"))]]
    proxy = await deck.recorder(record={"max_body": 2000})
    answers = await deck.ask(
        proxy,
        ASK,
        request(CHAT, KEY, body=b'"' + b"y" * 3000 + b'"'),
        ASK,
    )
    assert [len(one.body) for one in answers] == [5000, 5, 5]
    await recorded(proxy, 1)
    assert state(proxy)["left_out"] == 2


@pytest_twisted.ensureDeferred
async def test_no_more_files_are_made_than_may_be(upstream: FakeUpstream, deck: Deck) -> None:
    upstream.scripts = [[Send(answer(b"short"))]]
    proxy = await deck.recorder(record={"max_files": 2})
    answers = await deck.ask(proxy, *[ASK] * 4)
    assert [one.status for one in answers] == [200] * 4
    await recorded(proxy, 2)
    assert len(os.listdir(deck.folder)) == 2
    assert state(proxy)["left_out"] == 2


@pytest_twisted.ensureDeferred
async def test_a_disk_that_fails_harms_no_request(upstream: FakeUpstream, deck: Deck) -> None:
    upstream.scripts = [[Send(answer(b"short"))]]
    proxy = await deck.recorder()
    shutil.rmtree(deck.folder)
    answers = await deck.ask(proxy, *[ASK] * 3)
    assert [one.body for one in answers] == [b"short"] * 3
    await until(lambda: state(proxy)["failed"] == 3)
    assert state(proxy)["waiting"] == 0


@pytest_twisted.ensureDeferred
async def test_a_client_that_does_not_read_holds_the_upstream_up(
    bench: Bench, upstream: FakeUpstream, deck: Deck
) -> None:
    pour = Pour(b"x" * 65536, 1000)
    upstream.scripts = [[Send(head(b"content-length: %d" % (65536 * 1000))), pour]]
    proxy = await deck.recorder(record={"max_body": "1GiB"})
    client = await bench.client(proxy)
    client.transport.pauseProducing()
    client.send(ASK)
    before = -1
    for _ in range(100):
        await pause(0.05)
        if pour.poured == before > 0:
            break
        before = pour.poured
    assert 0 < pour.poured < 65536 * 900
    client.transport.abortConnection()
    await until(lambda: state(proxy)["left_out"] == 1)


@pytest_twisted.ensureDeferred
async def test_two_proxies_do_not_record_to_one_folder(deck: Deck) -> None:
    await deck.recorder()
    with pytest.raises(StartError, match="another process records"):
        await deck.recorder()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"record": {"folder": "{file}"}}, "is no folder"),
        ({"record": {"folder": "{file}/below"}}, "is no folder"),
        ({"replay": {"folder": "{missing}"}}, "is missing"),
        ({"replay": {"folder": "{there}"}, "sandbox": {"enabled": True}}, "sandbox"),
        ({"replay": {"folder": "{there}"}, "record": {"folder": "{there}"}}, "nothing would be recorded"),
        ({"replay": {"on_miss": "record"}}, "there is no replay.folder"),
        ({"replay": {"folder": "{there}", "ignore": ["a..b"]}}, "a member of JSON objects"),
    ],
)
def test_settings_that_do_not_fit_are_told(
    bench: Bench, tmp_path: Path, settings: dict[str, Any], said: str
) -> None:
    (tmp_path / "file").write_text("")
    names = {"file": tmp_path / "file", "missing": tmp_path / "missing", "there": tmp_path}
    filled = json.loads(
        json.dumps(settings)
        .replace("{file}", "%(file)s")
        .replace("{missing}", "%(missing)s")
        .replace("{there}", "%(there)s")
        % names
    )
    with pytest.raises(ConfigError, match=said):
        bench.proxy(**filled)


@pytest.mark.parametrize("coded", [False, True], ids=["plain", "gzip"])
@pytest_twisted.ensureDeferred
async def test_a_client_that_leaves_at_the_last_word_has_a_whole_recording(
    bench: Bench, upstream: FakeUpstream, deck: Deck, coded: bool
) -> None:
    packer = zlib.compressobj(wbits=31)
    events = [packer.compress(one) + packer.flush(zlib.Z_SYNC_FLUSH) if coded else one for one in EVENTS]
    last = chunk(packer.flush()) if coded else b""
    fields = [b"content-encoding: gzip"] if coded else []
    gate = Gate()
    upstream.scripts = [
        [
            Send(stream_head(b"text/event-stream", *fields)),
            *(Send(chunk(one)) for one in events),
            gate,
            Send(last + LAST_CHUNK),
        ]
    ]
    proxy = await deck.recorder()
    client = await bench.client(proxy)
    client.send(ASK)
    await client.has(events[-1])
    client.transport.abortConnection()
    await pause(0.05)
    gate.open()
    await recorded(proxy, 1)
    (exchange,) = deck.recordings()
    assert exchange.answered.whole
    body = exchange.answered.body
    assert (gzip.decompress(body) if coded else body) == b"".join(EVENTS)
    assert not proxy.daemon.pipeline.active


@pytest_twisted.ensureDeferred
async def test_the_end_of_a_stream_is_not_awaited_for_long(
    bench: Bench, upstream: FakeUpstream, deck: Deck
) -> None:
    upstream.scripts = [[Send(head(b"content-type: text/event-stream")), *map(Send, EVENTS), Stall()]]
    proxy = await deck.recorder()
    client = await bench.client(proxy)
    client.send(ASK)
    await client.has(EVENTS[-1])
    client.transport.abortConnection()
    await recorded(proxy, 1)
    assert deck.recordings()[0].answered.whole
    await until(lambda: upstream.connections[0].lost is not None)
