"""Connections that are kept, on real sockets: closed meanwhile, broken meanwhile, too many."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted
from agentbench import Agents, Body, Bytes, Pieces, fetch, start
from twisted.internet.defer import DeferredList, ensureDeferred
from wireclient import pause, until

from llmproxyd.testing.upstream import (
    Close,
    FakeUpstream,
    Gate,
    Reset,
    Send,
    Stall,
    Wait,
    answer,
    head,
    stream_head,
)
from llmproxyd.wire import pool
from llmproxyd.wire.agent import PoolTimeout, Stale

OK = Send(answer(b"{}"))


@pytest.fixture
def agents(_nothing_left: None, upstream: FakeUpstream) -> Iterator[Agents]:
    made = Agents()
    yield made
    for one in upstream.open:
        one.transport.abortConnection()
    pytest_twisted.blockon(ensureDeferred(made.close()))


def used(upstream: FakeUpstream) -> list[int]:
    """Which connection each request came on."""
    return [one.connection for one in upstream.requests]


@pytest_twisted.ensureDeferred
async def test_one_connection_for_requests_in_a_row(agents: Agents, upstream: FakeUpstream) -> None:
    upstream.scripts = [[OK]]
    agent = agents.agent()
    for _ in range(5):
        assert (await fetch(agent, upstream.url)).whole
    assert used(upstream) == [0] * 5
    assert (agent.open_connections, agent.idle_connections) == (1, 1)


@pytest_twisted.ensureDeferred
async def test_as_many_as_are_needed(agents: Agents, upstream: FakeUpstream) -> None:
    gate = Gate()
    upstream.scripts = [[gate, OK]]
    agent = agents.agent()
    asked = [start(agent, upstream.url) for _ in range(4)]
    await until(lambda: len(upstream.requests) == 4)
    gate.open()
    await DeferredList(asked)
    assert sorted(used(upstream)) == [0, 1, 2, 3]
    assert agent.idle_connections == 4


@pytest_twisted.ensureDeferred
async def test_no_more_than_are_allowed(agents: Agents, upstream: FakeUpstream) -> None:
    upstream.scripts = [[Wait(0.01), OK]]
    agent = agents.agent(max_connections=3)
    got = await DeferredList([start(agent, upstream.url) for _ in range(6)])
    assert [one.code for good, one in got if good] == [200] * 6
    assert len(upstream.connections) == 3


@pytest_twisted.ensureDeferred
async def test_waiting_in_vain(agents: Agents, upstream: FakeUpstream) -> None:
    upstream.scripts = [[Stall()]]
    agent = agents.agent(max_connections=1, connect_timeout=0.1)
    first = start(agent, upstream.url)
    with pytest.raises(PoolTimeout):
        await start(agent, upstream.url)
    first.addErrback(lambda _: None).cancel()


@pytest_twisted.ensureDeferred
async def test_idle_ones_are_closed_in_time(agents: Agents, upstream: FakeUpstream) -> None:
    upstream.scripts = [[OK]]
    agent = agents.agent(idle=0.05)
    await fetch(agent, upstream.url)
    assert agent.idle_connections == 1
    await until(lambda: not upstream.open)
    await until(lambda: not agent.open_connections)


@pytest.mark.parametrize("end", [Close(), Reset()], ids=["closed", "reset"])
@pytest_twisted.ensureDeferred
async def test_closed_meanwhile(agents: Agents, upstream: FakeUpstream, end: Any) -> None:
    upstream.scripts = [[OK, Wait(0.02), end], [OK]]
    agent = agents.agent()
    await fetch(agent, upstream.url)
    await until(lambda: not agent.open_connections)
    assert (await fetch(agent, upstream.url, method=b"POST", body=Bytes(b"{}"))).whole
    assert used(upstream) == [0, 1]


@pytest.mark.parametrize("surplus", [head(status=b"408 Timeout"), b"\r\n", b"x"])
@pytest.mark.parametrize("apart", [True, False])
@pytest_twisted.ensureDeferred
async def test_bytes_that_nobody_asked_for(
    agents: Agents, upstream: FakeUpstream, surplus: bytes, apart: bool
) -> None:
    """They would be taken for the next answer."""
    sent = [OK, Wait(0.02), Send(surplus)] if apart else [Send(answer(b"{}") + surplus)]
    upstream.scripts = [[*sent, Stall()], [OK]]
    agent = agents.agent()
    body = await fetch(agent, upstream.url)
    assert (body.data, body.whole) == (b"{}", True)
    await until(lambda: not agent.open_connections)
    assert (await fetch(agent, upstream.url)).whole
    assert used(upstream) == [0, 1]


@pytest_twisted.ensureDeferred
async def test_a_connection_is_looked_at_before_it_is_used(
    agents: Agents, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its end may be there, but not yet be read."""
    monkeypatch.setattr(pool, "TRUSTED", -1.0)
    upstream.scripts = [[OK], [OK]]
    agent = agents.agent()
    await fetch(agent, upstream.url)
    # In one turn: the end arrives, the request is made, and only then is anything read.
    upstream.connections[0].transport.socket.shutdown(2)
    assert (await fetch(agent, upstream.url, method=b"POST", body=Bytes(b"{}"))).whole
    assert used(upstream) == [0, 1]


# A request on its way to a connection that is being closed.

REPEATED: list[Any] = [
    pytest.param(b"GET", None, True, id="get"),
    pytest.param(b"HEAD", None, True, id="head"),
    pytest.param(b"OPTIONS", None, True, id="options"),
    pytest.param(b"DELETE", None, True, id="delete"),
    pytest.param(b"PUT", Bytes(b"x"), True, id="put"),
    pytest.param(b"POST", Bytes(b"x"), False, id="post"),
    pytest.param(b"POST", None, False, id="post-none"),
    pytest.param(b"PATCH", Bytes(b"x"), False, id="patch"),
]


@pytest.mark.parametrize("end", [Close(), Reset()], ids=["closed", "reset"])
@pytest.mark.parametrize(("method", "body", "repeated"), REPEATED)
@pytest_twisted.ensureDeferred
async def test_closed_under_a_request(
    agents: Agents, upstream: FakeUpstream, method: bytes, body: Any, repeated: bool, end: Any
) -> None:
    upstream.scripts = [[OK], [end], [Send(head(b"Content-Length: 0"))]]
    agent = agents.agent()
    await fetch(agent, upstream.url)
    if repeated:
        assert (await fetch(agent, upstream.url, method=method, body=body)).whole
        assert used(upstream) == [0, 0, 1]
        assert upstream.requests[1].raw == upstream.requests[2].raw
    else:
        with pytest.raises(Stale):
            await start(agent, upstream.url, method=method, body=body)
        assert used(upstream) == [0, 0]


@pytest_twisted.ensureDeferred
async def test_a_body_that_has_flowed_cannot_be_repeated(agents: Agents, upstream: FakeUpstream) -> None:
    upstream.scripts = [[OK], [Close()]]
    agent = agents.agent()
    await fetch(agent, upstream.url)
    upstream.at_head = True
    body = Pieces()
    with pytest.raises(Stale):
        await start(agent, upstream.url, method=b"PUT", body=body)
    assert body.stopped == 1


@pytest_twisted.ensureDeferred
async def test_repeated_once(agents: Agents, upstream: FakeUpstream) -> None:
    upstream.scripts = [[OK], [Close()]]
    agent = agents.agent()
    await fetch(agent, upstream.url)
    with pytest.raises(Exception, match="closed"):
        await start(agent, upstream.url)
    assert used(upstream) == [0, 0, 1]


@pytest_twisted.ensureDeferred
async def test_what_the_system_never_took(agents: Agents, upstream: FakeUpstream) -> None:
    """A reset that has arrived makes the very first write fail: nothing was sent, not even a POST."""
    upstream.scripts = [[OK], [OK]]
    agent = agents.agent()
    await fetch(agent, upstream.url)
    (site,) = agent._sites.values()
    (connection,) = site.pool._idle
    connection.transport.stopReading()
    upstream.connections[0].transport.abortConnection()
    await pause(0.05)
    connection.transport.startReading()
    assert (await fetch(agent, upstream.url, method=b"POST", body=Bytes(b"x"))).whole
    assert used(upstream) == [0, 1]


# Closing.


@pytest_twisted.ensureDeferred
async def test_close(agents: Agents, upstream: FakeUpstream) -> None:
    gate = Gate()
    upstream.scripts = [[OK], [Send(stream_head()), gate, Send(b"0\r\n\r\n")], [OK]]
    agent = agents.agent()
    await fetch(agent, upstream.url)
    running = await start(agent, upstream.url)
    other = await start(agent, upstream.url)
    assert other.complete
    await agent.close()
    assert (agent.open_connections, agent.idle_connections) == (1, 0)
    body = Body(running)
    running.deliverBody(body)
    gate.open()
    assert (await body.end()).whole
    await until(lambda: not agent.open_connections)
    assert (await fetch(agent, upstream.url)).whole
    await until(lambda: not agent.open_connections)


@pytest_twisted.ensureDeferred
async def test_nothing_to_close(agents: Agents) -> None:
    agent = agents.agent()
    await agent.close()
    await agent.close()
