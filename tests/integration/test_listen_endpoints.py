"""Any endpoint string can be listened on, several at once; whatever it is, requests and streams pass."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
import trustme
from bench import Bench, reactor
from OpenSSL import SSL
from twisted.internet import ssl
from twisted.internet.endpoints import clientFromString, connectProtocol, wrapClientTLS
from twisted.internet.error import CannotListenError
from wireclient import Client, request, until

from llmproxyd.testing.proxy import ProxyUnderTest
from llmproxyd.testing.upstream import (
    LAST_CHUNK,
    Close,
    FakeUpstream,
    Gate,
    Send,
    chunk,
    event,
    json_answer,
    stream_head,
)

CHAT = b"/v1/chat/completions"
OK = Send(json_answer({"ok": True}))
V4 = "tcp:0:interface=127.0.0.1"
V6 = r"tcp6:0:interface=\:\:1"
TWISTD = Path(sys.executable).with_name("twistd")


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as one:
            one.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this host has no ::1")


class Secure:
    """A certificate for localhost, in a file, and who trusts it."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        self.file = folder / "localhost.pem"
        authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(self.file))
        self.client = ssl.optionsForClientTLS(
            "localhost", ssl.Certificate.loadPEM(authority.cert_pem.bytes())
        )


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Secure:
    return Secure(tmp_path_factory.mktemp("tls"))


async def dial(bench: Bench, description: str, secure: Secure | None = None) -> Client:
    """A client at a client endpoint's string, with TLS where there is somebody to trust."""
    endpoint: Any = clientFromString(reactor, description)
    if secure is not None:
        endpoint = wrapClientTLS(secure.client, endpoint)
    made: Client = await connectProtocol(endpoint, Client())
    bench._clients.append(made)
    return made


async def serves(client: Client, upstream: FakeUpstream, *, before: bytes = b"") -> None:
    """One answer, then a stream whose pieces come as they are sent, on one connection.

    :param before: what is sent before anything else.
    """
    gate = Gate()
    upstream.scripts = [
        [OK],
        [Send(stream_head() + chunk(event(b"1"))), gate, Send(chunk(event(b"2")) + LAST_CHUNK)],
    ]
    body = b'{"padding": "%b"}' % (b"x" * 200_000)
    got = await client.ask(before + request(CHAT, body=body))
    assert (got.status, got.json) == (200, {"ok": True})
    assert upstream.requests[-1].body == body
    client.send(request(CHAT, body=b'{"stream": true}'))
    await client.has(event(b"1"))
    assert event(b"2") not in client.received
    gate.open()
    stream = await client.answer()
    assert stream.whole
    assert stream.body == event(b"1") + event(b"2")


def ports(proxy: ProxyUnderTest) -> list[int]:
    return [port for _, port in proxy.daemon.listening.addresses]


@pytest_twisted.ensureDeferred
async def test_tcp(bench: Bench, upstream: FakeUpstream) -> None:
    proxy = bench.proxy(listen=[V4])
    await serves(await dial(bench, f"tcp:127.0.0.1:{proxy.port}"), upstream)


@needs_ipv6
@pytest_twisted.ensureDeferred
async def test_tcp6(bench: Bench, upstream: FakeUpstream) -> None:
    proxy = bench.proxy(listen=[V6])
    await serves(await dial(bench, rf"tcp:\:\:1:{proxy.port}"), upstream)
    assert proxy.daemon.listening.urls == [f"http://[::1]:{proxy.port}"]


@pytest_twisted.ensureDeferred
async def test_tls(bench: Bench, upstream: FakeUpstream, secure: Secure) -> None:
    proxy = bench.proxy(listen=[f"ssl:0:interface=127.0.0.1:privateKey={secure.file}"])
    assert proxy.daemon.listening.urls == [f"https://127.0.0.1:{proxy.port}"]
    await serves(await dial(bench, f"tcp:127.0.0.1:{proxy.port}", secure), upstream)


@pytest_twisted.ensureDeferred
async def test_tls_says_no_goodbye_where_the_end_would_pass_for_that_of_the_body(
    bench: Bench, upstream: FakeUpstream, secure: Secure
) -> None:
    proxy = bench.proxy(listen=[f"ssl:0:interface=127.0.0.1:privateKey={secure.file}"])
    client = await dial(bench, f"tcp:127.0.0.1:{proxy.port}", secure)
    upstream.scripts = [[Send(stream_head() + chunk(event(b"1"))), Close()]]
    client.send(request(CHAT, version=b"HTTP/1.0"))
    tls = client.transport._tlsConnection
    await client.closed()
    assert client.received.endswith(event(b"1"))
    assert not tls.get_shutdown() & SSL.RECEIVED_SHUTDOWN
    assert client.reset


@pytest_twisted.ensureDeferred
async def test_a_socket_file(bench: Bench, upstream: FakeUpstream, tmp_path: Path) -> None:
    proxy = bench.proxy(listen=[f"unix:{tmp_path}/s"])
    assert proxy.daemon.listening.urls == [f"unix:{tmp_path}/s"]
    await serves(await dial(bench, f"unix:{tmp_path}/s"), upstream)
    assert [one.status for one in proxy.finished] == [200, 200]


@pytest_twisted.ensureDeferred
async def test_a_socket_file_goes_with_the_daemon(
    bench: Bench, upstream: FakeUpstream, tmp_path: Path
) -> None:
    proxy = bench.proxy(listen=[f"unix:{tmp_path}/s"])
    assert (tmp_path / "s").is_socket()
    stopping = proxy.stop()
    assert stopping is not None
    await stopping
    assert not (tmp_path / "s").exists()
    bench._proxies.remove(proxy)


@pytest_twisted.ensureDeferred
async def test_behind_a_balancer(bench: Bench, upstream: FakeUpstream) -> None:
    """The connection is then of another class than sockets are; the client is whom it names."""
    proxy = bench.proxy(listen=[f"haproxy:{V4}"])
    (port,) = ports(proxy)
    client = await dial(bench, f"tcp:127.0.0.1:{port}")
    await serves(client, upstream, before=b"PROXY TCP4 203.0.113.9 203.0.113.1 5 80\r\n")
    assert [one.status for one in proxy.finished] == [200, 200]


@pytest.mark.parametrize("leaves", ["abortConnection", "loseConnection"])
@pytest.mark.parametrize("way", ["tls", "unix", "haproxy"])
@pytest_twisted.ensureDeferred
async def test_a_client_that_leaves_is_noticed(
    bench: Bench, upstream: FakeUpstream, secure: Secure, tmp_path: Path, way: str, leaves: str
) -> None:
    listens = {
        "tls": f"ssl:0:interface=127.0.0.1:privateKey={secure.file}",
        "unix": f"unix:{tmp_path}/s",
        "haproxy": f"haproxy:{V4}",
    }
    proxy = bench.proxy(listen=[listens[way]])
    if way == "unix":
        client = await dial(bench, f"unix:{tmp_path}/s")
    else:
        client = await dial(bench, f"tcp:127.0.0.1:{ports(proxy)[0]}", secure if way == "tls" else None)
    upstream.scripts = [[Send(stream_head() + chunk(event(b"1"))), Gate()]]
    if way == "haproxy":
        client.send(b"PROXY TCP4 203.0.113.9 203.0.113.1 5 80\r\n")
    client.send(request(CHAT))
    await client.has(event(b"1"))
    getattr(client.transport, leaves)()
    await until(lambda: proxy.finished and not upstream.open, "the upstream's connection to end")
    assert proxy.finished[0].code == "client_gone"


@pytest_twisted.ensureDeferred
async def test_several_at_once(bench: Bench, upstream: FakeUpstream, secure: Secure, tmp_path: Path) -> None:
    listens = [V4, f"ssl:0:interface=127.0.0.1:privateKey={secure.file}", f"unix:{tmp_path}/s"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        second = free.getsockname()[1]
    listens[1] = listens[1].replace("ssl:0", f"ssl:{second}")
    if has_ipv6():
        listens.append(V6)
    proxy = bench.proxy(listen=listens)
    port = ports(proxy)[0]
    ways: list[tuple[str, Secure | None]] = [
        (f"tcp:127.0.0.1:{port}", None),
        (f"tcp:127.0.0.1:{second}", secure),
        (f"unix:{tmp_path}/s", None),
    ]
    if has_ipv6():
        ways.append((rf"tcp:\:\:1:{port}", None))
    clients = [await dial(bench, *way) for way in ways]
    for client in [*clients, *clients]:
        await serves(client, upstream)
    assert len(proxy.finished) == 4 * len(ways)
    assert len(proxy.daemon.listening.urls) == len(listens)


@needs_ipv6
@pytest_twisted.ensureDeferred
async def test_both_loopbacks_answer_on_one_number(bench: Bench, upstream: FakeUpstream) -> None:
    proxy = bench.proxy(listen=[V4, V6])
    assert len(set(ports(proxy))) == 1
    await serves(await dial(bench, f"tcp:127.0.0.1:{proxy.port}"), upstream)
    await serves(await dial(bench, rf"tcp:\:\:1:{proxy.port}"), upstream)


@pytest.mark.parametrize("number", [errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT])
@pytest_twisted.ensureDeferred
async def test_a_host_without_the_other_loopback(
    bench: Bench, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """It is left out, without a word."""
    stock = reactor.listenTCP

    def listen(port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        if ":" in interface:
            raise CannotListenError(interface, port, OSError(number, os.strerror(number)))
        return stock(port, factory, backlog, interface)

    monkeypatch.setattr(reactor, "listenTCP", listen)
    proxy = bench.proxy(listen=[V4, V6])
    assert proxy.daemon.listening.urls == [f"http://127.0.0.1:{proxy.port}"]
    assert proxy.daemon._warnings == []
    assert proxy.log.getvalue() == ""
    await serves(await dial(bench, f"tcp:127.0.0.1:{proxy.port}"), upstream)


# Ports that systemd has opened.

HANDS_OVER = """
import os, sys
count = int(sys.argv[1])
for number, given in enumerate(sys.argv[2:2 + count]):
    os.dup2(int(given), 100 + number)
for number in range(count):
    os.dup2(100 + number, 3 + number, inheritable=True)
    os.close(100 + number)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[2 + count], sys.argv[2 + count:])
"""
"""As systemd does: descriptors from 3 on, for this process alone."""


class Activated:
    """A daemon that was handed its sockets, by name."""

    def __init__(self, folder: Path, upstream: FakeUpstream, **sockets: socket.socket) -> None:
        self.ready = folder / "ready"
        self._said = folder / "said"
        config = folder / "llmproxyd.yaml"
        listens = "".join(
            f'  - "systemd:domain={"UNIX" if one.family == socket.AF_UNIX else "INET"}:name={name}"\n'
            for name, one in sockets.items()
        )
        config.write_text(f"listen:\n{listens}upstreams:\n  openai:\n    base_url: {upstream.url}\n")
        numbers = [str(one.fileno()) for one in sockets.values()]
        daemon = [str(TWISTD), "-n", "llmproxy", "--config", str(config), "--ready-file", str(self.ready)]
        with self._said.open("wb") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-c", HANDS_OVER, str(len(numbers)), *numbers, *daemon],
                pass_fds=[one.fileno() for one in sockets.values()],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env={
                    "PATH": os.environ["PATH"],
                    "HOME": str(folder),
                    "LC_ALL": "C.UTF-8",
                    "LISTEN_FDS": str(len(numbers)),
                    "LISTEN_FDNAMES": ":".join(sockets),
                },
            )

    @property
    def said(self) -> str:
        return self._said.read_text()

    async def is_ready(self) -> None:
        await until(lambda: self.ready.exists() or self.process.poll() is not None, "it to be ready")
        assert self.process.poll() is None, self.said

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


@pytest.fixture
def handed(tmp_path: Path) -> Iterator[dict[str, socket.socket]]:
    """Sockets that listen already."""
    made = {"http": socket.socket(), "file": socket.socket(socket.AF_UNIX)}
    made["http"].bind(("127.0.0.1", 0))
    made["file"].bind(f"{tmp_path}/s")
    for one in made.values():
        one.listen(8)
    yield made
    for one in made.values():
        one.close()


@pytest_twisted.ensureDeferred
async def test_sockets_that_systemd_has_opened(
    bench: Bench, upstream: FakeUpstream, handed: dict[str, socket.socket], tmp_path: Path
) -> None:
    port = handed["http"].getsockname()[1]
    daemon = Activated(tmp_path, upstream, **handed)
    try:
        await daemon.is_ready()
        assert daemon.ready.read_text().strip() == f"http://127.0.0.1:{port}"
        for way in (f"tcp:127.0.0.1:{port}", f"unix:{tmp_path}/s"):
            await serves(await dial(bench, way), upstream)
    finally:
        status = daemon.stop()
    assert status == 0, daemon.said
    # Those who wait for the next start are not turned away.
    with socket.create_connection(("127.0.0.1", port)):
        pass


@pytest_twisted.ensureDeferred
async def test_a_request_that_came_before_the_daemon_was_there(
    bench: Bench, upstream: FakeUpstream, handed: dict[str, socket.socket], tmp_path: Path
) -> None:
    """That is what such sockets are for."""
    upstream.scripts = [[OK]]
    client = await dial(bench, f"tcp:127.0.0.1:{handed['http'].getsockname()[1]}")
    client.send(request(CHAT))
    daemon = Activated(tmp_path, upstream, http=handed["http"])
    try:
        await daemon.is_ready()
        got = await client.answer()
        assert (got.status, got.json) == (200, {"ok": True})
    finally:
        daemon.stop()
