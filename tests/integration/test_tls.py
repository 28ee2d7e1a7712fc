"""Upstreams by HTTPS: who they are is verified, and we show who we are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
import trustme
from bench import Bench, reactor
from twisted.internet import ssl
from wireclient import request, until

from llmproxyd.model import End
from llmproxyd.testing.upstream import (
    Action,
    Close,
    FakeUpstream,
    Reset,
    Send,
    Stall,
    Wait,
    chunk,
    event,
    json_answer,
    stream_head,
)

CHAT = b"/v1/chat/completions"
OK = Send(json_answer({"ok": True}))


class Certificates:
    """An authority, what it has signed, and files of both."""

    def __init__(self, folder: Path) -> None:
        self.authority = trustme.CA()
        self.other = trustme.CA()
        self.ca_file = folder / "ca.pem"
        self.authority.cert_pem.write_to_path(str(self.ca_file))
        self.other_file = folder / "other.pem"
        self.other.cert_pem.write_to_path(str(self.other_file))
        self.client_cert = folder / "client.pem"
        self.client = self.authority.issue_cert("client@example.org")
        self.client.private_key_and_cert_chain_pem.write_to_path(str(self.client_cert))
        self.client_cert.chmod(0o600)

    def server(self, name: str, *, asks: bool = False) -> Any:
        """The context of a server that is *name*; *asks* for a certificate of the client."""
        leaf = self.authority.issue_cert(name).private_key_and_cert_chain_pem.bytes()
        certificate = ssl.PrivateCertificate.loadPEM(leaf)
        if not asks:
            return certificate.options()
        root = ssl.Certificate.loadPEM(self.authority.cert_pem.bytes())
        return certificate.options(root)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("tls"))


class Secure:
    """Makes upstreams with TLS."""

    def __init__(self) -> None:
        self.made: list[FakeUpstream] = []

    def upstream(self, context: Any, *script: Action) -> FakeUpstream:
        made = FakeUpstream(list(script)).listen(reactor, context)
        self.made.append(made)
        return made


@pytest.fixture
def secure(_nothing_left: None) -> Iterator[Secure]:
    made = Secure()
    yield made
    for upstream in made.made:
        pytest_twisted.blockon(upstream.stop())


def to(upstream: FakeUpstream, host: str = "localhost", **tls: Any) -> dict[str, Any]:
    """Settings of a proxy before *upstream*."""
    settings = {key: str(value) if isinstance(value, Path) else value for key, value in tls.items()}
    return {"upstreams": {"openai": {"base_url": f"https://{host}:{upstream.port}", "tls": settings}}}


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
@pytest_twisted.ensureDeferred
async def test_a_private_authority(
    bench: Bench, secure: Secure, certificates: Certificates, host: str
) -> None:
    upstream = secure.upstream(certificates.server(host), OK)
    proxy = bench.proxy(**to(upstream, host, ca_file=certificates.ca_file))
    client = await bench.client(proxy)
    for _ in range(2):
        assert (await client.ask(request(CHAT))).json == {"ok": True}
    assert upstream.requests[0].all(b"host") == [f"{host}:{upstream.port}".encode()]
    assert [one.connection for one in upstream.requests] == [0, 0]


REFUSED = {
    "wrong-host": ("elsewhere.example", {"ca_file": "ca_file"}, "is not for its host name"),
    "other-authority": ("localhost", {"ca_file": "other_file"}, "tls.ca_file"),
    "no-authority": ("localhost", {}, "tls.ca_file"),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest_twisted.ensureDeferred
async def test_a_certificate_that_does_not_verify(
    bench: Bench, secure: Secure, certificates: Certificates, case: str
) -> None:
    name, tls, words = REFUSED[case]
    upstream = secure.upstream(certificates.server(name), OK)
    files = {key: getattr(certificates, value) for key, value in tls.items()}
    client = await bench.client(bench.proxy(**to(upstream, **files)))
    got = await client.ask(request(CHAT, b"Authorization: Bearer sk-secret"))
    assert (got.status, got.json["error"]["code"]) == (502, "upstream_unreachable")
    assert got.get(b"x-llmproxyd-error") == b"upstream"
    assert words in got.json["error"]["message"]
    assert not upstream.requests
    assert not any(b"sk-secret" in one.buffer for one in upstream.connections)


@pytest.mark.parametrize("case", REFUSED)
@pytest_twisted.ensureDeferred
async def test_verification_can_be_switched_off(
    bench: Bench, secure: Secure, certificates: Certificates, case: str
) -> None:
    upstream = secure.upstream(certificates.server(REFUSED[case][0]), OK)
    client = await bench.client(bench.proxy(**to(upstream, verify=False)))
    assert (await client.ask(request(CHAT))).json == {"ok": True}


@pytest.mark.parametrize("verify", [True, False])
@pytest_twisted.ensureDeferred
async def test_a_certificate_of_ours(
    bench: Bench, secure: Secure, certificates: Certificates, verify: bool
) -> None:
    upstream = secure.upstream(certificates.server("localhost", asks=True), OK)
    tls = {"ca_file": certificates.ca_file} if verify else {"verify": False}
    client = await bench.client(bench.proxy(**to(upstream, client_cert=certificates.client_cert, **tls)))
    assert (await client.ask(request(CHAT))).json == {"ok": True}
    shown = upstream.connections[0].transport.getPeerCertificate()
    pem = certificates.client.cert_chain_pems[0].bytes().decode()
    assert ssl.Certificate(shown).dumpPEM().decode().strip() == pem.strip()


@pytest_twisted.ensureDeferred
async def test_none_where_one_is_asked_for(bench: Bench, secure: Secure, certificates: Certificates) -> None:
    upstream = secure.upstream(certificates.server("localhost", asks=True), OK)
    client = await bench.client(bench.proxy(**to(upstream, ca_file=certificates.ca_file)))
    got = await client.ask(request(CHAT))
    assert got.status == 502
    assert got.get(b"x-llmproxyd-error") == b"upstream"


@pytest_twisted.ensureDeferred
async def test_no_tls_at_all(bench: Bench, upstream: FakeUpstream) -> None:
    """A port that speaks plain HTTP, or anything else."""
    upstream.scripts = [[Send(b"HTTP/1.1 400 Bad Request\r\n\r\n"), Close()]]
    client = await bench.client(bench.proxy(**to(upstream)))
    # The fake one would wait for the end of a head that never comes.
    client.send(request(CHAT))
    await until(lambda: upstream.connections and upstream.connections[0].buffer, "the handshake to begin")
    upstream.connections[0].transport.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    got = await client.answer()
    assert (got.status, got.json["error"]["code"]) == (502, "upstream_unreachable")
    assert "TLS handshake" in got.json["error"]["message"]


@pytest.mark.parametrize("abort", [True, False])
@pytest_twisted.ensureDeferred
async def test_the_end_of_the_connection_within_the_handshake(
    bench: Bench, upstream: FakeUpstream, abort: bool
) -> None:
    client = await bench.client(bench.proxy(**to(upstream)))
    client.send(request(CHAT))
    await until(lambda: upstream.connections and upstream.connections[0].buffer, "the handshake to begin")
    transport = upstream.connections[0].transport
    (transport.abortConnection if abort else transport.loseConnection)()
    got = await client.answer()
    assert got.status == 502
    assert got.get(b"x-llmproxyd-error") == b"upstream"


@pytest_twisted.ensureDeferred
async def test_a_handshake_that_does_not_end(bench: Bench, upstream: FakeUpstream) -> None:
    """It is part of connecting."""
    client = await bench.client(bench.proxy(timeouts={"connect": 0.2}, **to(upstream)))
    got = await client.ask(request(CHAT))
    assert (got.status, got.json["error"]["code"]) == (504, "connect_timeout")
    assert "timeouts.connect" in got.json["error"]["message"]
    assert upstream.connections
    await until(lambda: not upstream.open, "the connection to be given up")


ONE = event(b"{}")


@pytest_twisted.ensureDeferred
async def test_silence_within_a_stream(bench: Bench, secure: Secure, certificates: Certificates) -> None:
    """A peer that has gone silent takes no part in closing the session either."""
    upstream = secure.upstream(certificates.server("localhost"), Send(stream_head() + chunk(ONE)), Stall())
    proxy = bench.proxy(timeouts={"idle": 0.2}, **to(upstream, ca_file=certificates.ca_file))
    client = await bench.client(proxy)
    client.send(request(CHAT))
    await client.has(ONE)
    upstream.connections[0].transport.pauseProducing()
    await client.closed()
    assert b"idle_timeout" in client.received
    assert proxy.finished[0].end is End.IDLE


@pytest_twisted.ensureDeferred
async def test_a_client_that_leaves(bench: Bench, secure: Secure, certificates: Certificates) -> None:
    upstream = secure.upstream(certificates.server("localhost"), Send(stream_head() + chunk(ONE)), Stall())
    proxy = bench.proxy(**to(upstream, ca_file=certificates.ca_file))
    client = await bench.client(proxy)
    client.send(request(CHAT))
    await client.has(ONE)
    client.transport.abortConnection()
    await until(lambda: proxy.finished and not upstream.open, "the upstream's connection to end")
    assert proxy.finished[0].end is End.CLIENT_GONE


@pytest.mark.parametrize("end", [[Close()], [Wait(0.05), Reset()]], ids=["closed", "reset"])
@pytest_twisted.ensureDeferred
async def test_a_stream_that_breaks_off(
    bench: Bench, secure: Secure, certificates: Certificates, end: list[Action]
) -> None:
    script = [Send(stream_head() + chunk(ONE)), *end]
    upstream = secure.upstream(certificates.server("localhost"), *script)
    client = await bench.client(bench.proxy(**to(upstream, ca_file=certificates.ca_file)))
    client.send(request(CHAT))
    await client.closed()
    assert b"upstream_protocol_error" in client.received
    assert not client.received.endswith(b"0\r\n\r\n")


@pytest_twisted.ensureDeferred
async def test_a_kept_connection_that_was_closed_meanwhile(
    bench: Bench, secure: Secure, certificates: Certificates
) -> None:
    upstream = secure.upstream(certificates.server("localhost"), OK, Wait(0.03), Close())
    client = await bench.client(bench.proxy(**to(upstream, ca_file=certificates.ca_file)))
    assert (await client.ask(request(CHAT))).status == 200
    await until(lambda: not upstream.open, "the upstream to close")
    assert (await client.ask(request(CHAT))).status == 200
