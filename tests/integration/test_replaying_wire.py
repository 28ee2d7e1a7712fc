"""Recordings answer, with nobody behind them; what has none is refused, forwarded or recorded."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_twisted
from bench import Bench, reactor
from tapebench import Deck, recorded, state
from wireclient import request, until

from llmproxyd.cassettes.format import Answered, Asked, Exchange, Piece
from llmproxyd.cassettes.writing import written
from llmproxyd.listen import StartError
from llmproxyd.testing.proxy import ProxyUnderTest
from llmproxyd.testing.upstream import FakeUpstream, Send, json_answer

CHAT = b"/v1/chat/completions"
BODY = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}
ASKED = Asked("openai", "openai", "POST", CHAT.decode(), (), json.dumps(BODY).encode())
SSE = ((b"Content-Type", b"text/event-stream"), (b"Transfer-Encoding", b"chunked"))
EVENTS = (b'data: {"a":1}\n\n', b'data: {"a":2}\n\n', b"data: [DONE]\n\n")
STREAM = Answered(
    200, b"OK", (1, 1), SSE, 0.1, tuple(Piece(0.1 * (n + 1), one) for n, one in enumerate(EVENTS)), True, 0.4
)
JSON = ((b"Content-Type", b"application/json"), (b"Content-Length", b"7"))
SHORT = Answered(200, b"OK", (1, 1), JSON, 0.0, (Piece(0, b'{"a":1}'),), True, 0.0)


def asks(body: object = BODY, *fields: bytes, target: bytes = CHAT) -> bytes:
    return request(target, b"content-type: application/json", *fields, body=json.dumps(body).encode())


@pytest.fixture
def deck(bench: Bench, tmp_path: Path) -> Deck:
    return Deck(bench, tmp_path / "tapes")


def put(deck: Deck, *exchanges: Exchange) -> None:
    deck.folder.mkdir()
    for number, one in enumerate(exchanges, 1):
        (deck.folder / f"{number:04}.yaml").write_text(written(one))


def answered(*answers: Answered) -> list[Exchange]:
    return [Exchange(1e9, ASKED, one) for one in answers]


@pytest_twisted.ensureDeferred
async def test_a_stream_comes_no_sooner_than_it_came(bench: Bench, deck: Deck) -> None:
    put(deck, *answered(STREAM))
    client = await bench.client(await deck.player(replay={"speed": 1}))
    began = time.monotonic()
    client.send(asks())
    for number, one in enumerate(EVENTS):
        await client.has(one)
        assert time.monotonic() - began >= 0.1 + 0.1 * (number + 1) - 0.01
    got = await client.answer()
    assert (got.whole, got.body) == (True, b"".join(EVENTS))
    # Each piece is a chunk of its own, as it was.
    assert all(b"%x\r\n%b\r\n" % (len(one), one) in got.raw for one in EVENTS)


@pytest_twisted.ensureDeferred
async def test_the_order_of_members_does_not_matter_and_nobody_is_asked(deck: Deck) -> None:
    put(deck, *answered(STREAM))
    player = await deck.player()
    answers = await deck.ask(player, asks(dict(reversed(BODY.items()))), asks())
    assert [one.body for one in answers] == [b"".join(EVENTS)] * 2
    assert state(player) == {"folder": str(deck.folder), "recordings": 1, "played": 2, "missed": 0}
    assert player.daemon.works.metrics is not None
    assert all(made.agent.open_connections == 0 for made in player.daemon.works._agents.values())


@pytest_twisted.ensureDeferred
async def test_the_same_request_is_answered_in_the_order_of_recordings(deck: Deck) -> None:
    put(deck, *answered(replace(SHORT, status=429), SHORT))
    answers = await deck.ask(await deck.player(), *[asks()] * 3)
    assert [one.status for one in answers] == [429, 200, 200]


@pytest.mark.parametrize(
    ("provider", "target", "place"),
    [
        ("openai", CHAT, ("error", "code")),
        ("anthropic", b"/v1/messages", ("error", "details", "error_code")),
        ("google", b"/v1beta/models/gemini-2.5-flash:generateContent", ("error", "details", 0, "reason")),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_miss_is_told_in_the_words_of_the_provider(
    deck: Deck, provider: str, target: bytes, place: tuple[str | int, ...]
) -> None:
    put(deck, *answered(SHORT))
    (got,) = await deck.ask(
        await deck.player(), asks(target=b"/to/" + provider.encode() + target, body={"x": 1})
    )
    found = got.json
    for key in place:
        found = found[key]
    assert (got.status, found) == (404, "no_recording")
    assert got.get(b"x-llmproxyd-error") == b"proxy"


@pytest_twisted.ensureDeferred
async def test_a_miss_is_made_once_and_speaks_against_nobody(deck: Deck) -> None:
    put(deck, *answered(SHORT))
    patient = {
        "retry": {"max_retries": 3, "base_delay": "1ms"},
        "breaker": {"enabled": True, "failure_threshold": 1},
    }
    player = await deck.player(resilience={"default": patient})
    answers = await deck.ask(player, *[asks({"other": 1})] * 3, asks())
    assert [one.status for one in answers] == [404, 404, 404, 200]
    assert [one.attempts for one in player.finished] == [1, 1, 1, 1]
    assert "0001.yaml" in answers[0].json["error"]["message"]


@pytest_twisted.ensureDeferred
async def test_a_miss_may_be_forwarded(bench: Bench, upstream: FakeUpstream, deck: Deck) -> None:
    put(deck, *answered(SHORT))
    upstream.scripts = [[Send(json_answer({"real": True}))]]
    player = await deck.player(replay={"on_miss": "forward"}, base_url=upstream.url)
    answers = await deck.ask(player, asks(), asks({"other": "ü"}, b"Authorization: Bearer sk-x"))
    assert [one.json for one in answers] == [{"a": 1}, {"real": True}]
    (one,) = upstream.requests
    assert json.loads(one.body) == {"other": "ü"}
    assert one.all(b"authorization") == [b"Bearer sk-x"]
    assert os.listdir(deck.folder) == ["0001.yaml"]


@pytest_twisted.ensureDeferred
async def test_a_miss_may_be_recorded_for_the_next_time(
    bench: Bench, upstream: FakeUpstream, deck: Deck
) -> None:
    upstream.scripts = [[Send(json_answer({"real": True}))]]
    proxy = await deck.player(replay={"on_miss": "record"}, base_url=upstream.url)
    (got,) = await deck.ask(proxy, asks())
    assert got.json == {"real": True}
    await recorded(proxy, 1)
    stopping = proxy.stop()
    assert stopping is not None
    await stopping
    answers = await deck.ask(await deck.player(), asks())
    assert answers[0].json == {"real": True}
    assert len(upstream.requests) == 1


@pytest_twisted.ensureDeferred
async def test_what_is_ignored_does_not_matter(deck: Deck) -> None:
    put(deck, *answered(SHORT))
    player = await deck.player(replay={"ignore": ["user", "metadata.session"]})
    answers = await deck.ask(
        player,
        asks({**BODY, "user": "me", "metadata": {"session": 7}}),
        asks({**BODY, "metadata": {"session": 7, "team": "x"}}),
    )
    assert [one.status for one in answers] == [200, 404]


@pytest_twisted.ensureDeferred
async def test_faults_apply_on_top(deck: Deck) -> None:
    put(deck, *answered(SHORT))
    player = await deck.player(faults={"mode": "r 1"})
    answers = await deck.ask(player, asks(), asks())
    assert [one.status for one in answers] == [429, 200]
    assert state(player)["played"] == 1


@pytest_twisted.ensureDeferred
async def test_a_provider_without_an_address_is_replayed(deck: Deck) -> None:
    target = "/serving-endpoints/x/invocations"
    put(
        deck,
        Exchange(1e9, replace(ASKED, provider="databricks", upstream="databricks", target=target), SHORT),
    )
    alone = ProxyUnderTest(reactor, {"replay": {"folder": str(deck.folder), "speed": 0}}).start()
    try:
        (got,) = await deck.ask(alone, asks(target=b"/to/databricks" + target.encode()))
        assert got.json == {"a": 1}
    finally:
        stopping = alone.stop()
        assert stopping is not None
        await stopping


@pytest_twisted.ensureDeferred
async def test_a_client_that_leaves_ends_the_replay(bench: Bench, deck: Deck) -> None:
    put(deck, *answered(replace(STREAM, ended=3600.0), replace(STREAM, after=500.0)))
    player = await deck.player(replay={"speed": 1})
    for wanted in (EVENTS[0], b""):
        client = await bench.client(player)
        client.send(asks())
        await client.has(wanted)
        await until(lambda: len(player.daemon.pipeline.active) == 1)
        client.transport.abortConnection()
        await until(lambda: not player.daemon.pipeline.active)


@pytest_twisted.ensureDeferred
async def test_an_answer_that_broke_off_is_seen_to_break_off(deck: Deck) -> None:
    put(deck, *answered(replace(STREAM, whole=False)))
    (got,) = await deck.ask(await deck.player(), asks())
    assert not got.whole
    assert got.body.startswith(b"".join(EVENTS))
    assert b"upstream_protocol_error" in got.body


@pytest_twisted.ensureDeferred
async def test_a_client_that_reads_slowly_gets_all_of_it(bench: Bench, deck: Deck) -> None:
    pieces = tuple(Piece(0.001 * (n + 1), bytes([65 + n % 26]) * 65536) for n in range(200))
    put(deck, *answered(replace(STREAM, pieces=pieces, ended=0.2)))
    client = await bench.client(await deck.player())
    client.transport.pauseProducing()
    client.send(asks())
    for _ in range(20):
        await until(lambda: True)
    client.transport.resumeProducing()
    got = await client.answer()
    assert got.whole
    assert got.body == b"".join(piece.data for piece in pieces)


@pytest_twisted.ensureDeferred
async def test_mistakes_in_recordings_end_the_start_all_together(bench: Bench, deck: Deck) -> None:
    put(deck, *answered(SHORT, SHORT))
    for name, old, new in (("0001.yaml", "whole: true", "whole: x"), ("0002.yaml", "  status: 200\n", "")):
        file = deck.folder / name
        file.write_text(file.read_text().replace(old, new))
    with pytest.raises(StartError) as caught:
        await deck.player()
    lines = str(caught.value).splitlines()
    assert lines[0] == "replay.folder: recordings that cannot be used:"
    assert [line.partition(": ")[0].rpartition("/")[2].partition(":")[0] for line in lines[1:]] == [
        "0001.yaml",
        "0002.yaml",
    ]


@pytest_twisted.ensureDeferred
async def test_an_empty_folder_answers_nothing(deck: Deck) -> None:
    put(deck)
    (got,) = await deck.ask(await deck.player(), asks())
    assert got.status == 404
