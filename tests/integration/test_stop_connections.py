"""A graceful stop: what clients have sent or may be sending is answered, and what they are to get is sent."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
import trustme
from bench import Bench, reactor
from rawhttp import MODELS, OK, small_buffers, turns
from twisted.internet import ssl
from twisted.internet.endpoints import clientFromString, connectProtocol, wrapClientTLS
from wireclient import Client, get, pause, until

from llmproxyd.testing.proxy import ProxyUnderTest
from llmproxyd.testing.upstream import LAST_CHUNK, FakeUpstream, Gate, Send, chunk, event, stream_head
from llmproxyd.wire import channel, transport

ASK = get(MODELS)
PIECE = chunk(event(b"x" * 16384))
AT_ONCE = 0.3
"""Seconds that nothing which does not wait takes here, and far less than any wait."""


class Stop:
    """A daemon that stops, as SIGTERM makes it.

    :ivar over: it has.
    """

    def __init__(self, bench: Bench, proxy: ProxyUnderTest) -> None:
        bench._proxies.remove(proxy)
        self.over = False
        stopping = proxy.daemon.stopService()
        assert stopping is not None
        stopping.addBoth(self._over)

    def _over(self, result: object) -> None:
        assert result is None
        self.over = True

    async def complete(self) -> None:
        await until(lambda: self.over, "the stop to be complete")


def said_goodbye(got: Any) -> bool:
    return bool(got.status == 200 and got.whole and got.get(b"connection") == b"close")


@pytest_twisted.ensureDeferred
async def test_a_connection_that_was_just_used_may_bring_one_more_request(
    bench: Bench, upstream: FakeUpstream
) -> None:
    upstream.scripts = [[OK], [OK]]
    proxy = bench.proxy()
    client = await bench.client(proxy)
    assert (await client.ask(ASK)).get(b"connection") is None
    stopping = Stop(bench, proxy)
    await turns()
    assert client.lost is None
    assert said_goodbye(await client.ask(ASK))
    await stopping.complete()
    assert len(proxy.finished) == 2


@pytest_twisted.ensureDeferred
async def test_a_connection_that_was_just_made_may_bring_its_request(
    bench: Bench, upstream: FakeUpstream
) -> None:
    upstream.scripts = [[OK]]
    proxy = bench.proxy()
    client = await bench.client(proxy)
    await until(lambda: proxy.daemon._site.channels, "the connection to be accepted")
    stopping = Stop(bench, proxy)
    await turns()
    # Its head may also come in pieces.
    client.send(ASK[:10])
    await turns()
    client.send(ASK[10:])
    assert said_goodbye(await client.answer())
    await stopping.complete()


@pytest_twisted.ensureDeferred
async def test_a_request_that_was_sent_and_not_read_yet_is_answered(
    bench: Bench, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the connection was idle before."""
    monkeypatch.setattr(channel, "GRACE", 0.0)
    upstream.scripts = [[OK], [OK]]
    proxy = bench.proxy()
    client = await bench.client(proxy)
    await client.ask(ASK)
    client.transport.socket.send(ASK)
    stopping = Stop(bench, proxy)
    assert said_goodbye(await client.answer())
    await stopping.complete()


@pytest_twisted.ensureDeferred
async def test_connections_that_were_idle_for_longer_are_closed_at_once(
    bench: Bench, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "GRACE", 0.0)
    upstream.scripts = [[OK]]
    proxy = bench.proxy()
    used, unused = await bench.client(proxy), await bench.client(proxy)
    await used.ask(ASK)
    await until(lambda: len(proxy.daemon._site.channels) == 2, "both to be accepted")
    stopping = Stop(bench, proxy)
    await turns()
    assert not proxy.daemon._site.channels
    for client in (used, unused):
        await client.closed()
        assert not client.reset
    await stopping.complete()


@pytest.mark.parametrize("way", ["unix", "haproxy", "tls"])
@pytest_twisted.ensureDeferred
async def test_whatever_the_listener_is_an_idle_connection_is_closed_at_once(
    bench: Bench, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, way: str
) -> None:
    monkeypatch.setattr(channel, "GRACE", 0.0)
    pem = tmp_path / "localhost.pem"
    trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(pem))
    listen = {
        "unix": f"unix:{tmp_path}/s",
        "haproxy": "haproxy:tcp:0:interface=127.0.0.1",
        "tls": f"ssl:0:interface=127.0.0.1:privateKey={pem}",
    }
    upstream.scripts = [[OK]]
    proxy = bench.proxy(listen=[listen[way]])
    address = proxy.daemon.listening.addresses
    endpoint: Any = clientFromString(
        reactor, f"unix:{tmp_path}/s" if way == "unix" else f"tcp:127.0.0.1:{address[0][1]}"
    )
    if way == "tls":
        endpoint = wrapClientTLS(ssl.CertificateOptions(verify=False), endpoint)
    client: Client = await connectProtocol(endpoint, Client())
    bench._clients.append(client)
    if way == "haproxy":
        client.send(b"PROXY TCP4 203.0.113.9 203.0.113.1 5 80\r\n")
    assert (await client.ask(ASK)).status == 200
    stopping = Stop(bench, proxy)
    await turns()
    await client.closed()
    assert not proxy.daemon._site.channels
    await stopping.complete()


@pytest_twisted.ensureDeferred
async def test_connections_that_bring_nothing_hold_it_up_for_a_moment_alone(
    bench: Bench, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "GRACE", 0.2)
    proxy = bench.proxy()
    silent, partial = await bench.client(proxy), await bench.client(proxy)
    partial.send(ASK[:10])
    await until(lambda: len(proxy.daemon._site.channels) == 2, "both to be accepted")
    await turns()
    stopping = Stop(bench, proxy)
    assert not stopping.over
    await stopping.complete()
    await silent.closed()


@pytest_twisted.ensureDeferred
async def test_it_is_over_as_soon_as_the_last_client_leaves(bench: Bench, upstream: FakeUpstream) -> None:
    proxy = bench.proxy()
    client = await bench.client(proxy)
    await until(lambda: proxy.daemon._site.channels, "the connection to be accepted")
    stopping = Stop(bench, proxy)
    client.transport.loseConnection()
    await turns()
    assert stopping.over
    await stopping.complete()


@pytest.mark.parametrize("way", ["again", "late"])
@pytest_twisted.ensureDeferred
async def test_neither_a_second_signal_nor_the_end_of_the_drain_waits_for_connections(
    bench: Bench, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr(channel, "GRACE", 30.0)
    proxy = bench.proxy(server={"drain_timeout": 0.1 if way == "late" else 30})
    client = await bench.client(proxy)
    await until(lambda: proxy.daemon._site.channels, "the connection to be accepted")
    stopping = Stop(bench, proxy)
    await turns()
    assert not stopping.over
    if way == "again":
        proxy.daemon.hurry()
        assert stopping.over
    await stopping.complete()
    await client.closed()


async def slow(bench: Bench, upstream: FakeUpstream, proxy: ProxyUnderTest) -> Client:
    """A client that has not taken all of an answer with which upstream and proxy are done."""
    gate = Gate()
    upstream.scripts = [[Send(stream_head()), gate]]
    small_buffers(*proxy.daemon.listening.ports)
    client = await bench.client(proxy)
    client.send(ASK)
    await until(lambda: gate.reached, "the answer to begin")
    client.transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    client.transport.pauseProducing()
    (here,) = proxy.daemon._site.channels
    (there,) = upstream.open
    while not transport.unsent(here.transport):
        there.transport.write(PIECE)
        # What the kernel has no room for at once it may yet take.
        await pause(0.02)
    there.transport.write(LAST_CHUNK)
    await until(lambda: proxy.finished, "the request to end")
    assert transport.unsent(here.transport)
    return client


@pytest_twisted.ensureDeferred
async def test_an_answer_that_a_slow_client_has_not_taken_yet_is_waited_for(
    bench: Bench, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "GRACE", 0.0)
    proxy = bench.proxy()
    client = await slow(bench, upstream, proxy)
    stopping = Stop(bench, proxy)
    await pause(AT_ONCE)
    assert not stopping.over
    client.transport.resumeProducing()
    await stopping.complete()
    assert (await client.answer()).whole


@pytest_twisted.ensureDeferred
async def test_a_slow_client_has_no_longer_than_the_drain(
    bench: Bench, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "GRACE", 0.0)
    proxy = bench.proxy(server={"drain_timeout": 0.1})
    client = await slow(bench, upstream, proxy)
    await Stop(bench, proxy).complete()
    client.transport.abortConnection()


@pytest_twisted.ensureDeferred
async def test_a_stream_runs_on_while_idle_connections_go(bench: Bench, upstream: FakeUpstream) -> None:
    gate = Gate()
    upstream.scripts = [
        [Send(stream_head() + chunk(event(b"1"))), gate, Send(chunk(event(b"2")) + LAST_CHUNK)]
    ]
    proxy = bench.proxy()
    client = await bench.client(proxy)
    client.send(ASK)
    await client.has(event(b"1"))
    stopping = Stop(bench, proxy)
    await pause(AT_ONCE)
    assert not stopping.over
    gate.open()
    assert (await client.answer()).whole
    await stopping.complete()
