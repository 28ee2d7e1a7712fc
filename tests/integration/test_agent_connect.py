"""The way to an upstream: addresses, TLS and its sessions, proxies; and how each of them fails."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_twisted
import trustme
from agentbench import Agents, Bytes, fetch, start
from bench import reactor
from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet import ssl
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, ensureDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.error import ConnectionLost, ConnectionRefusedError, DNSLookupError
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from wireclient import until

from llmproxyd.testing.upstream import (
    Action,
    Close,
    FakeUpstream,
    Reset,
    Send,
    Wait,
    answer,
    chunk,
    head,
    stream_head,
)
from llmproxyd.wire.agent import ConnectTimeout, ProxyAgent, ProxyRefused
from llmproxyd.wire.tls import policy

OK = Send(answer(b"{}"))
AT_ONCE = 0.15
"""Seconds: less than a resolver's or a head start's delay."""


@pytest.fixture
def agents(_nothing_left: None, upstream: FakeUpstream) -> Iterator[Agents]:
    made = Agents()
    yield made
    for one in upstream.open:
        one.transport.abortConnection()
    pytest_twisted.blockon(ensureDeferred(made.close()))


async def failing(agent: ProxyAgent, url: str, error: type[Exception]) -> Any:
    """The error of a request, which must be *error* itself, not wrapped."""
    with pytest.raises(error) as caught:
        await start(agent, url)
    assert agent.open_connections == 0
    return caught.value


# Addresses.


@pytest_twisted.ensureDeferred
async def test_refused_at_once(agents: Agents, closed_port: int) -> None:
    began = time.monotonic()
    await failing(agents.agent(), f"http://127.0.0.1:{closed_port}", ConnectionRefusedError)
    assert time.monotonic() - began < AT_ONCE


@pytest_twisted.ensureDeferred
async def test_a_name_refused_at_once(agents: Agents, closed_port: int) -> None:
    """Both of its addresses, where it has two."""
    began = time.monotonic()
    await failing(agents.agent(), f"http://localhost:{closed_port}", ConnectionRefusedError)
    assert time.monotonic() - began < AT_ONCE


@pytest_twisted.ensureDeferred
async def test_no_such_name(agents: Agents) -> None:
    for host in ("no-such-host.invalid", "a" * 64):
        await failing(agents.agent(), f"http://{host}", DNSLookupError)


@pytest_twisted.ensureDeferred
async def test_an_address_of_ipv6(agents: Agents) -> None:
    upstream = FakeUpstream([OK])
    try:
        port = reactor.listenTCP(0, upstream, interface="::1")
    except OSError:
        pytest.skip("no IPv6 here")
    try:
        number = port.getHost().port
        assert (await fetch(agents.agent(), f"http://[::1]:{number}")).whole
        assert upstream.requests[0].all(b"host") == [f"[::1]:{number}".encode()]
    finally:
        for one in upstream.open:
            one.transport.abortConnection()
        await port.stopListening()


class Naming:
    """A reactor with names of its own: a name is its addresses, joined by ``-and-``."""

    def __init__(self) -> None:
        self.nameResolver = self

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)

    def resolveHostName(self, receiver: Any, name: str, portNumber: int) -> None:
        receiver.resolutionBegan(self)
        for host in name.split("-and-"):
            kind = IPv6Address if host == "v6" else IPv4Address
            receiver.addressResolved(kind("TCP", "::1" if host == "v6" else host, portNumber))
        if name != "silence":
            receiver.resolutionComplete()


def naming(agents: Agents, **settings: Any) -> ProxyAgent:
    agent = agents.agent(**settings)
    agent._reactor = Naming()
    return agent


@pytest.mark.parametrize("name", ["v6-and-127.0.0.1", "127.0.0.1-and-v6"])
@pytest_twisted.ensureDeferred
async def test_another_address_of_the_name(agents: Agents, upstream: FakeUpstream, name: str) -> None:
    """Where nobody listens on the first, the second is tried at once."""
    upstream.scripts = [[OK]]
    began = time.monotonic()
    assert (await fetch(naming(agents), f"http://{name}:{upstream.port}")).whole
    assert time.monotonic() - began < AT_ONCE
    assert len(upstream.connections) == 1


@pytest_twisted.ensureDeferred
async def test_a_silent_address_beside_a_good_one(agents: Agents, deaf_port: int) -> None:
    upstream = FakeUpstream([OK])
    try:
        port = reactor.listenTCP(deaf_port, upstream, interface="127.0.0.2")
    except OSError:
        pytest.skip("no second loopback address here")
    try:
        assert (await fetch(naming(agents), f"http://127.0.0.1-and-127.0.0.2:{deaf_port}")).whole
    finally:
        for one in upstream.open:
            one.transport.abortConnection()
        await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_all_of_it_within_the_time(agents: Agents, deaf_port: int, upstream: FakeUpstream) -> None:
    """Name lookup, connection, handshake."""
    port = deaf_port
    for agent, url in (
        (naming(agents, connect_timeout=0.1), f"http://silence:{port}"),
        (agents.agent(connect_timeout=0.1), f"http://127.0.0.1:{port}"),
        (agents.agent(connect_timeout=0.1), f"https://127.0.0.1:{upstream.port}"),
    ):
        began = time.monotonic()
        error = await failing(agent, url, ConnectTimeout)
        assert error.granted == 0.1
        assert 0.09 < time.monotonic() - began < 0.5
    await until(lambda: not upstream.open)


@pytest_twisted.ensureDeferred
async def test_cancelled_in_every_stage(agents: Agents, deaf_port: int, upstream: FakeUpstream) -> None:
    for agent, url in (
        (naming(agents), f"http://silence:{deaf_port}"),
        (agents.agent(), f"http://127.0.0.1:{deaf_port}"),
        (agents.agent(), f"https://127.0.0.1:{upstream.port}"),
        (agents.agent(proxy=upstream.url.encode()), "http://api.example"),
    ):
        count = len(upstream.connections)
        asked = start(agent, url)
        if str(upstream.port) in url or "example" in url:
            await until(lambda seen=count: len(upstream.connections) > seen)
            await until(lambda: upstream.connections[-1].buffer or upstream.requests)
        asked.cancel()
        with pytest.raises(CancelledError):
            await asked
        assert agent.open_connections == 0
    await until(lambda: not upstream.open)


# TLS.


class Certificates:
    def __init__(self, folder: Path) -> None:
        self.authority = trustme.CA()
        self.ca_file = folder / "ca.pem"
        self.authority.cert_pem.write_to_path(str(self.ca_file))

    def server(self, *names: str, old: bool = False) -> Any:
        leaf = self.authority.issue_cert(*names).private_key_and_cert_chain_pem.bytes()
        certificate = ssl.PrivateCertificate.loadPEM(leaf)
        options = ssl.CertificateOptions(
            privateKey=certificate.privateKey.original,
            certificate=certificate.original,
            enableSessions=True,
            enableSessionTickets=True,
        )
        if old:
            options.getContext().set_max_proto_version(SSL.TLS1_2_VERSION)
        return options

    @property
    def trusted(self) -> Any:
        return policy(ca_file=self.ca_file)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("tls"))


class Secure:
    def __init__(self) -> None:
        self.made: list[FakeUpstream] = []

    def upstream(self, context: Any, *scripts: list[Action]) -> FakeUpstream:
        made = FakeUpstream(*scripts).listen(reactor, context)
        self.made.append(made)
        return made


@pytest.fixture
def secure(_nothing_left: None) -> Iterator[Secure]:
    made = Secure()
    yield made
    for upstream in made.made:
        pytest_twisted.blockon(upstream.stop())


def at(upstream: FakeUpstream, host: str = "localhost") -> str:
    return f"https://{host}:{upstream.port}"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
@pytest_twisted.ensureDeferred
async def test_tls(agents: Agents, secure: Secure, certificates: Certificates, host: str) -> None:
    upstream = secure.upstream(certificates.server(host), [OK])
    agent = agents.agent(certificates.trusted)
    for _ in range(3):
        big = Bytes(b"x" * 1_000_000)
        assert (await fetch(agent, at(upstream, host), method=b"POST", body=big)).whole
    assert [len(one.body) for one in upstream.requests] == [1_000_000] * 3
    assert len(upstream.connections) == 1
    assert upstream.requests[0].all(b"host") == [f"{host}:{upstream.port}".encode()]


@pytest_twisted.ensureDeferred
async def test_whom_not_to_trust(agents: Agents, secure: Secure, certificates: Certificates) -> None:
    elsewhere = secure.upstream(certificates.server("elsewhere.example"), [OK])
    unknown = secure.upstream(certificates.server("localhost"), [OK])
    await failing(agents.agent(certificates.trusted), at(elsewhere), VerificationError)
    error = await failing(agents.agent(policy()), at(unknown), SSL.Error)
    assert "certificate verify failed" in str(error)
    assert not elsewhere.requests
    assert not unknown.requests


def test_one_upstream_s_certificate_is_not_shown_to_another(
    certificates: Certificates, tmp_path: Path
) -> None:
    own = tmp_path / "own.pem"
    certificates.authority.issue_cert("me@example.org").private_key_and_cert_chain_pem.write_to_path(str(own))
    policy(ca_file=certificates.ca_file, client_cert=own).creatorForNetloc(b"a.example", 443)
    protocol: Any = SimpleNamespace(factory=SimpleNamespace(wrappedFactory=None))
    shown = []
    for other in (policy(ca_file=certificates.ca_file), policy(verify=False)):
        connection = other.creatorForNetloc(b"b.example", 443).clientConnectionForTLS(protocol)
        shown.append(connection.get_certificate())
    assert shown == [None, None]


@pytest_twisted.ensureDeferred
async def test_no_tls_on_the_other_side(agents: Agents, upstream: FakeUpstream) -> None:
    asked = start(agents.agent(), f"https://127.0.0.1:{upstream.port}")
    await until(lambda: upstream.connections and upstream.connections[0].buffer)
    upstream.connections[0].transport.write(head(status=b"400 Bad"))
    with pytest.raises(SSL.Error):
        await asked


@pytest.mark.parametrize("abort", [True, False])
@pytest_twisted.ensureDeferred
async def test_an_end_within_the_handshake(agents: Agents, upstream: FakeUpstream, abort: bool) -> None:
    asked = start(agents.agent(), f"https://127.0.0.1:{upstream.port}")
    await until(lambda: upstream.connections and upstream.connections[0].buffer)
    transport = upstream.connections[0].transport
    (transport.abortConnection if abort else transport.loseConnection)()
    with pytest.raises(ConnectionLost):
        await asked


@pytest.mark.parametrize("old", [False, True], ids=["1.3", "1.2"])
@pytest_twisted.ensureDeferred
async def test_sessions_are_resumed(
    agents: Agents, secure: Secure, certificates: Certificates, old: bool
) -> None:
    upstream = secure.upstream(
        certificates.server("localhost", old=old), [Send(answer(b"{}", b"connection: close"))], [OK]
    )
    agent = agents.agent(certificates.trusted)
    for _ in range(2):
        assert (await fetch(agent, at(upstream))).whole
    assert [_resumed(one) for one in upstream.connections] == [False, True]


def _resumed(connection: Any) -> bool:
    return bool(connection.resumed)


@pytest.fixture(autouse=True)
def _note_resumption(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection of the upstream remembers whether its session was resumed."""
    from llmproxyd.testing import upstream

    received = upstream.Connection.dataReceived

    def noting(self: Any, data: bytes) -> None:
        if isinstance(self.transport.getHandle(), SSL.Connection):
            handle = self.transport.getHandle()
            self.resumed = SSL._lib.SSL_session_reused(handle._ssl)  # type: ignore[attr-defined]
        received(self, data)

    monkeypatch.setattr(upstream.Connection, "dataReceived", noting)


@pytest_twisted.ensureDeferred
async def test_an_open_end_with_and_without_a_goodbye(
    agents: Agents, secure: Secure, certificates: Certificates
) -> None:
    """Anybody can close a TCP connection; only the peer can say that it ends."""
    upstream = secure.upstream(certificates.server("localhost"), [Send(head() + b"abc"), Close()])
    agent = agents.agent(certificates.trusted)
    body = await fetch(agent, at(upstream))
    assert (body.data, body.whole) == (b"abc", True)
    response = await _cut(upstream, agent)
    assert (response.data, response.whole) == (b"abc", False)


@pytest_twisted.ensureDeferred
async def test_an_open_end_of_a_peer_that_closes_right_behind_its_goodbye(
    agents: Agents, secure: Secure, certificates: Certificates
) -> None:
    """Most servers do not wait for our answer to it, which then meets a reset."""
    upstream = secure.upstream(certificates.server("localhost"), [Send(head() + b"abc"), Wait(60)])
    fetching = ensureDeferred(fetch(agents.agent(certificates.trusted), at(upstream)))
    await until(lambda: len(upstream.requests) == 1)
    tls = upstream.connections[-1].transport
    tls.loseConnection()
    tls.transport.loseConnection()
    body = await fetching
    assert (body.data, body.whole) == (b"abc", True)


async def _cut(upstream: FakeUpstream, agent: ProxyAgent) -> Any:
    upstream.scripts = [[Send(head() + b"abc"), Wait(60)]]
    fetching = ensureDeferred(fetch(agent, at(upstream)))
    await until(lambda: len(upstream.requests) == 2)
    tls = upstream.connections[-1].transport
    tls.transport.loseConnection()  # the socket, below TLS
    return await fetching


@pytest_twisted.ensureDeferred
async def test_a_stream_that_breaks_off(agents: Agents, secure: Secure, certificates: Certificates) -> None:
    upstream = secure.upstream(
        certificates.server("localhost"), [Send(stream_head() + chunk(b"a")), Wait(0.05), Reset()]
    )
    body = await fetch(agents.agent(certificates.trusted), at(upstream))
    assert (body.data, body.whole) == (b"a", False)


@pytest_twisted.ensureDeferred
async def test_a_kept_one_that_was_closed(agents: Agents, secure: Secure, certificates: Certificates) -> None:
    upstream = secure.upstream(
        certificates.server("localhost"), [OK, Wait(0.02), Close()], [OK], [Close()], [OK]
    )
    agent = agents.agent(certificates.trusted)
    await fetch(agent, at(upstream))
    await until(lambda: not agent.open_connections)
    for _ in range(2):
        assert (await fetch(agent, at(upstream))).whole
    assert [one.connection for one in upstream.requests] == [0, 1, 1, 2]


@pytest_twisted.ensureDeferred
async def test_a_peer_that_does_not_say_goodbye(
    agents: Agents, secure: Secure, certificates: Certificates
) -> None:
    """It does not hold up our own."""
    upstream = secure.upstream(certificates.server("localhost"), [OK])
    agent = agents.agent(certificates.trusted)
    await fetch(agent, at(upstream))
    upstream.connections[0].transport.pauseProducing()
    await agent.close()
    assert agent.open_connections == 0
    upstream.connections[0].transport.resumeProducing()


# Proxies.


class Proxy(Factory):
    """Opens tunnels, or does as it is told.

    :param reply: sent instead, and nothing else is done.
    """

    noisy = False

    def __init__(self, reply: bytes | None = None, *, close: bool = False) -> None:
        self.reply = reply
        self.close = close
        self.heads: list[bytes] = []
        self.connections: list[_ToProxy] = []
        self.port = reactor.listenTCP(0, self, interface="127.0.0.1")

    @property
    def place(self) -> bytes:
        return b"127.0.0.1:%d" % self.port.getHost().port

    def buildProtocol(self, addr: Any) -> Protocol:
        made = _ToProxy(self)
        self.connections.append(made)
        return made


class _ToProxy(Protocol):
    transport: Any

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.buffer: bytes | None = b""
        self.other: Any = None

    def dataReceived(self, data: bytes) -> None:
        if self.buffer is None:
            self.other.sendall(data)
            return
        self.buffer += data
        if not self.buffer.endswith(b"\r\n\r\n"):
            return
        self.proxy.heads.append(self.buffer)
        if self.proxy.reply is not None:
            self.transport.write(self.proxy.reply)
        if self.proxy.close:
            self.transport.loseConnection()
        if self.proxy.reply is None and not self.proxy.close:
            self._open(self.buffer.split(b" ")[1])

    def _open(self, target: bytes) -> None:
        _, _, port = target.rpartition(b":")
        self.buffer = None
        back = _Back(self)

        def there(_: Any) -> None:
            self.other = back
            self.transport.write(b"HTTP/1.1 200 Tunnel\r\nX: y\r\nContent-Length: 5\r\n\r\n")

        connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", int(port)), back).addCallback(there)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.other is not None:
            self.other.transport.abortConnection()


class _Back(Protocol):
    transport: Any

    def __init__(self, to_proxy: _ToProxy) -> None:
        self.to_proxy = to_proxy

    def sendall(self, data: bytes) -> None:
        self.transport.write(data)

    def dataReceived(self, data: bytes) -> None:
        self.to_proxy.transport.write(data)


@pytest.fixture
def proxies(_nothing_left: None) -> Iterator[list[Proxy]]:
    made: list[Proxy] = []
    yield made
    for proxy in made:
        for one in proxy.connections:
            one.transport.abortConnection()
        pytest_twisted.blockon(proxy.port.stopListening())


@pytest_twisted.ensureDeferred
async def test_through_a_proxy(agents: Agents, proxies: list[Proxy], upstream: FakeUpstream) -> None:
    """The name of the upstream is the proxy's to look up."""
    proxies.append(Proxy())
    upstream.scripts = [[OK]]
    agent = agents.agent(proxy=b"http://user:pass%20word@" + proxies[0].place)
    for _ in range(2):
        assert (await fetch(agent, f"http://no-such-host.invalid:{upstream.port}")).whole
    target = b"no-such-host.invalid:%d" % upstream.port
    assert proxies[0].heads == [
        b"CONNECT %b HTTP/1.1\r\nHost: %b\r\nProxy-Authorization: Basic dXNlcjpwYXNzIHdvcmQ=\r\n\r\n"
        % (target, target)
    ]
    assert upstream.requests[0].headers == [(b"Host", target)]


@pytest_twisted.ensureDeferred
async def test_tls_through_a_proxy(
    agents: Agents, proxies: list[Proxy], secure: Secure, certificates: Certificates
) -> None:
    proxies.append(Proxy())
    upstream = secure.upstream(certificates.server("localhost"), [OK])
    agent = agents.agent(certificates.trusted, proxy=b"http://" + proxies[0].place)
    assert (await fetch(agent, at(upstream))).whole
    assert proxies[0].heads == [
        b"CONNECT localhost:%d HTTP/1.1\r\nHost: localhost:%d\r\n\r\n" % ((upstream.port,) * 2)
    ]


REFUSALS: list[Any] = [
    pytest.param(head(b"Proxy-Authenticate: Basic", status=b"407 Who"), False, 407, id="407"),
    pytest.param(answer(b"no", status=b"502 No"), False, 502, id="502"),
    pytest.param(head(status=b"101 Switching"), False, None, id="101"),
    pytest.param(head(status=b"302 Found"), True, 302, id="302-closed"),
    pytest.param(b"", True, None, id="closed"),
    pytest.param(b"HTTP/1.1 200", True, None, id="closed-in-head"),
    pytest.param(b"SOCKS?", False, None, id="junk"),
    pytest.param(head(b"A: " + b"b" * 17_000, status=b"200 OK"), False, None, id="long"),
    pytest.param(b"HTTP/1.1 200 OK\r\nA: " + b"b" * 17_000, False, None, id="endless"),
]


@pytest.mark.parametrize(("reply", "close", "status"), REFUSALS)
@pytest_twisted.ensureDeferred
async def test_no_tunnel(
    agents: Agents, proxies: list[Proxy], reply: bytes, close: bool, status: Any
) -> None:
    proxies.append(Proxy(reply, close=close))
    agent = agents.agent(proxy=b"http://user:secret@" + proxies[0].place)
    error = await failing(agent, "https://api.example", ProxyRefused)
    assert error.status == status
    assert "secret" not in repr(error) + str(error)


@pytest_twisted.ensureDeferred
async def test_words_before_ours(agents: Agents, proxies: list[Proxy]) -> None:
    """What comes with the proxy's answer did not come from the upstream."""
    proxies.append(Proxy(head() + answer(b"forged")))
    await failing(agents.agent(proxy=b"http://" + proxies[0].place), "http://api.example", ProxyRefused)


@pytest_twisted.ensureDeferred
async def test_a_silent_proxy(agents: Agents, proxies: list[Proxy]) -> None:
    proxies.append(Proxy(b""))
    agent = agents.agent(proxy=b"http://" + proxies[0].place, connect_timeout=0.1)
    await failing(agent, "http://api.example", ConnectTimeout)


@pytest_twisted.ensureDeferred
async def test_no_proxy(agents: Agents, closed_port: int) -> None:
    agent = agents.agent(proxy=b"http://127.0.0.1:%d" % closed_port)
    await failing(agent, "http://api.example", ConnectionRefusedError)


def test_not_the_url_of_a_proxy(agents: Agents) -> None:
    with pytest.raises(ValueError):
        agents.agent(proxy=b"socks5://127.0.0.1:1")
