"""The link to a Redis server: bounded in time, in step, and back by itself when the server is."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
import trustme
from bench import reactor
from twisted.internet.defer import DeferredList, ensureDeferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import PrivateCertificate
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.protocols.portforward import ProxyFactory
from wireclient import pause, until

sys.path.insert(0, str(Path(__file__).parents[1]))

from redisserver import RedisServer

from llmproxyd.redaction import Secret
from llmproxyd.redis.interface import RedisRefused, RedisUnavailable
from llmproxyd.redis.link import RedisLink

TIMEOUT = 0.1
ECHO = "return {KEYS[1], ARGV[1]}"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A server that no test ends."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """A server that the test may do anything to."""
    made = RedisServer(tmp_path)
    yield made
    made.kill()


@pytest.fixture
def link(_nothing_left: None) -> Iterator[Any]:
    """Makes links, and closes them."""
    made: list[RedisLink] = []

    def make(url: Secret, **more: Any) -> RedisLink:
        made.append(RedisLink(reactor, url, timeout=TIMEOUT, **more))
        return made[-1]

    yield make
    for one in made:
        pytest_twisted.blockon(one.close())


@pytest.fixture
def said() -> Iterator[list[str]]:
    """What is logged of the server."""
    lines: list[str] = []

    def observe(event: LogEvent) -> None:
        if event.get("log_namespace") == "llmproxyd.redis.link.RedisLink":
            lines.append(f"{event['log_level'].name} {formatEvent(event)}")

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)


async def fails(call: Any, kind: type[Exception] = RedisUnavailable) -> tuple[str, float]:
    """Why *call* failed, and after how many seconds."""
    began = time.monotonic()
    with pytest.raises(kind) as caught:
        await call
    return str(caught.value), time.monotonic() - began


@pytest_twisted.ensureDeferred
async def test_bytes_come_back_as_they_were(shared: RedisServer, link: Any) -> None:
    redis = link(shared.url)
    value = bytes(range(256)) * 9000
    await redis.call("SET", b"k\xff\r\n", value)
    assert await redis.call("GET", b"k\xff\r\n") == value
    await redis.call("RPUSH", "list", b"", b"1", b"\r\n", b"-0.5", "\u00e9", 7)
    assert await redis.call("LRANGE", "list", 0, -1) == [b"", b"1", b"\r\n", b"-0.5", "\u00e9".encode(), b"7"]
    assert await redis.call("GET", "nothing") is None
    assert redis.up


@pytest_twisted.ensureDeferred
async def test_many_calls_at_once_each_get_their_own_reply(shared: RedisServer, link: Any) -> None:
    redis = link(shared.url)
    results = await DeferredList([redis.call("ECHO", b"%d" % number) for number in range(1500)])
    assert results == [(True, b"%d" % number) for number in range(1500)]


@pytest_twisted.ensureDeferred
async def test_unix_socket_with_password_and_database(tmp_path: Path, link: Any) -> None:
    server = RedisServer(tmp_path, unix=True, password="p%w")
    try:
        redis = link(Secret(f"redis+unix://:p%25w@{server.path}?db=3"))
        await redis.call("SET", "here", "1")
        assert (await redis.call("INFO", "keyspace")).strip().endswith(b"avg_ttl=0")
        assert b"db3:" in await redis.call("INFO", "keyspace")
    finally:
        server.kill()


@pytest_twisted.ensureDeferred
async def test_script_is_sent_whole_once_and_after_the_server_forgot_it(
    shared: RedisServer, link: Any
) -> None:
    redis = link(shared.url)
    shared.ask("SCRIPT", "FLUSH")
    for _ in range(3):
        assert await redis.script(ECHO, [b"k\0"], [b"\xff"]) == [b"k\0", b"\xff"]
    shared.ask("CONFIG", "RESETSTAT")
    assert await redis.script(ECHO, [b"k"], [5]) == [b"k", b"5"]
    assert b"cmdstat_eval:" not in shared.ask("INFO", "commandstats")
    shared.ask("SCRIPT", "FLUSH")
    assert await redis.script(ECHO, [b"k"], ["x"]) == [b"k", b"x"]


@pytest_twisted.ensureDeferred
async def test_error_reply_fails_its_own_call_alone(shared: RedisServer, link: Any) -> None:
    redis = link(shared.url)
    await redis.call("SET", "text", "abc")
    one, two = redis.call("INCR", "text"), redis.call("GET", "text")
    why, _ = await fails(one, RedisRefused)
    assert "not an integer" in why
    assert await two == b"abc"
    assert redis.up


@pytest_twisted.ensureDeferred
async def test_nobody_there_fails_at_once_and_is_said_once(
    closed_port: int, link: Any, said: list[str]
) -> None:
    redis = link(Secret(f"redis://user:geheimnis@127.0.0.1:{closed_port}/2"))
    for _ in range(5):
        _, seconds = await fails(redis.call("PING"))
        assert seconds < TIMEOUT / 2
        await pause(0.06)
    assert not redis.up
    assert len(said) == 1
    assert f"127.0.0.1:{closed_port}/2 does not answer" in said[0]
    assert "geheimnis" not in said[0]


@pytest_twisted.ensureDeferred
async def test_host_that_never_accepts_is_waited_for_no_longer_than_granted(
    deaf_port: int, link: Any
) -> None:
    redis = link(Secret(f"redis://127.0.0.1:{deaf_port}"), connect_timeout=0.3)
    _, seconds = await fails(redis.call("PING"))
    assert TIMEOUT * 0.8 <= seconds < TIMEOUT * 2
    _, seconds = await fails(redis.call("PING"))
    assert seconds < TIMEOUT / 2


@pytest_twisted.ensureDeferred
async def test_server_that_accepts_and_never_answers(link: Any, said: list[str]) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        redis = link(Secret(f"redis://127.0.0.1:{listening.getsockname()[1]}"), connect_timeout=0.2)
        _, seconds = await fails(redis.call("PING"))
        assert seconds < TIMEOUT * 2
        await until(lambda: said, "the log")
        assert said == [said[0]]
        assert "no answer in time" in said[0]
        for _ in range(3):
            _, seconds = await fails(redis.call("PING"))
            assert seconds < TIMEOUT / 2


@pytest_twisted.ensureDeferred
async def test_whatever_else_answers_on_the_port(link: Any) -> None:
    class Other(Protocol):
        def connectionMade(self) -> None:
            self.transport.write(b"\xff\xfe$x\r\n*-\r\n:\xff\r\n$99999999999\r\n" + bytes(range(256)) * 200)

    port = reactor.listenTCP(0, Factory.forProtocol(Other), interface="127.0.0.1")
    try:
        redis = link(Secret(f"redis://127.0.0.1:{port.getHost().port}"), connect_timeout=0.2)
        for _ in range(4):
            await fails(redis.call("PING"))
            await pause(0.1)
    finally:
        await port.stopListening()
        await redis.close()


@pytest_twisted.ensureDeferred
async def test_hanging_server_is_given_up_on_all_connections_and_found_again(
    server: RedisServer, link: Any, said: list[str]
) -> None:
    redis = link(server.url)
    await redis.call("PING")
    await until(lambda: len(redis._ready) == 4)
    server.pause()
    try:
        calls = [redis.call("ECHO", b"%d" % number) for number in range(20)]
        began = time.monotonic()
        results = await DeferredList(calls, consumeErrors=True)
        assert not any(success for success, _ in results)
        assert time.monotonic() - began < TIMEOUT * 2
        assert not redis.up
        _, seconds = await fails(redis.call("PING"))
        assert seconds < TIMEOUT / 2
    finally:
        server.resume()
    await until(lambda: redis.up)
    # No reply of before is taken for one of now.
    assert await redis.call("ECHO", b"now") == b"now"
    assert [line.split()[0] for line in said] == ["warn", "info"]


@pytest_twisted.ensureDeferred
async def test_first_call_that_hangs_speaks_for_the_connections_that_are_idle(
    server: RedisServer, link: Any
) -> None:
    redis = link(server.url)
    await redis.call("PING")
    await until(lambda: len(redis._ready) == 4)
    await pause(TIMEOUT * 1.5)
    server.pause()
    try:
        await fails(redis.call("PING"))
        assert not redis.up
    finally:
        server.resume()


@pytest_twisted.ensureDeferred
async def test_late_reply_is_not_taken_for_that_of_the_next_call(shared: RedisServer, link: Any) -> None:
    redis = link(shared.url, connections=2)
    await redis.call("PING")
    await until(lambda: len(redis._ready) == 2)
    slow = redis.call("BLPOP", "never", 1)
    await pause(TIMEOUT / 2)
    quick = [await redis.call("ECHO", b"%d" % number) for number in range(20)]
    assert quick == [b"%d" % number for number in range(20)]
    await fails(slow)
    assert redis.up, "the other connection was answered meanwhile"
    for number in range(20):
        assert await redis.call("ECHO", b"%d" % number) == b"%d" % number
    await until(lambda: len(redis._ready) == 2)


@pytest_twisted.ensureDeferred
async def test_cancelled_call_keeps_the_place_of_its_reply(shared: RedisServer, link: Any) -> None:
    redis = link(shared.url, connections=1)
    await redis.call("PING")
    one, two = redis.call("ECHO", b"one"), redis.call("ECHO", b"two")
    one.addErrback(lambda _: None)
    one.cancel()
    assert await two == b"two"


@pytest_twisted.ensureDeferred
async def test_killed_and_started_again_in_the_middle(
    server: RedisServer, link: Any, said: list[str]
) -> None:
    redis = link(server.url)
    done = {"answered": 0, "failed": 0}
    wrong: list[object] = []

    async def ask(number: int) -> None:
        try:
            reply = await redis.call("ECHO", b"%d" % number)
        except RedisUnavailable:
            done["failed"] += 1
            return
        done["answered"] += 1
        if reply != b"%d" % number:
            wrong.append(reply)

    for number in range(300):
        ensureDeferred(ask(number))
        if number == 100:
            server.kill()
        if number == 200:
            server.start()
        await pause(0.002)
    await until(lambda: redis.up)
    await ask(1)
    await until(lambda: sum(done.values()) == 301)
    assert not wrong
    assert done["failed"] >= 50
    assert done["answered"] >= 101
    assert [line.split()[0] for line in said] == ["warn", "info"]


@pytest_twisted.ensureDeferred
async def test_wrong_password_is_said_and_tried_again(tmp_path: Path, link: Any, said: list[str]) -> None:
    server = RedisServer(tmp_path, password="right")
    try:
        redis = link(Secret(f"redis://:falschespasswort@127.0.0.1:{server.port}"))
        why, _ = await fails(redis.call("PING"))
        assert len(said) == 1
        assert "WRONGPASS" in said[0]
        assert "falschespasswort" not in said[0] + why
        server.ask("CONFIG", "SET", "requirepass", "falschespasswort")
        await until(lambda: redis.up)
        assert len(said) == 2
    finally:
        server.kill()


@pytest_twisted.ensureDeferred
async def test_missing_password_is_an_outage_not_a_connection(tmp_path: Path, link: Any) -> None:
    server = RedisServer(tmp_path, password="right")
    try:
        redis = link(Secret(f"redis://127.0.0.1:{server.port}"))
        await fails(redis.call("GET", "x"))
        assert not redis.up
    finally:
        server.kill()


@pytest_twisted.ensureDeferred
async def test_full_server_refuses_and_stays_up(tmp_path: Path, link: Any) -> None:
    server = RedisServer(tmp_path, "--maxmemory", "1", "--maxmemory-policy", "noeviction")
    try:
        redis = link(server.url)
        why, _ = await fails(redis.call("SET", "k", "v"), RedisRefused)
        assert "OOM" in why
        assert redis.up
    finally:
        server.kill()


@pytest_twisted.ensureDeferred
async def test_calls_under_way_are_bounded(server: RedisServer, link: Any) -> None:
    redis = link(server.url)
    await redis.call("PING")
    await until(lambda: len(redis._ready) == 4)
    server.pause()
    try:
        calls = [redis.call("ECHO", b"x") for _ in range(5000)]
        assert sum(not call.called for call in calls) <= 2000
        await DeferredList(calls, consumeErrors=True)
    finally:
        server.resume()


@pytest_twisted.ensureDeferred
async def test_closing_leaves_nothing_unanswered(server: RedisServer, link: Any) -> None:
    redis = link(server.url)
    await redis.call("PING")
    server.pause()
    try:
        calls = [redis.call("PING") for _ in range(10)]
        began = time.monotonic()
        await redis.close()
        results = await DeferredList(calls, consumeErrors=True)
        assert not any(success for success, _ in results)
        assert time.monotonic() - began < TIMEOUT * 2
        await fails(redis.call("PING"))
    finally:
        server.resume()


@pytest_twisted.ensureDeferred
async def test_closing_while_connecting_leaves_nothing_behind(
    deaf_port: int, closed_port: int, shared: RedisServer, link: Any
) -> None:
    for port in (deaf_port, closed_port, shared.port):
        redis = link(Secret(f"redis://127.0.0.1:{port}"))
        call = redis.call("PING")
        await redis.close()
        await fails(call)
    never = link(shared.url)
    await never.close()
    await fails(never.call("PING"))


@pytest_twisted.ensureDeferred
async def test_our_own_delay_is_not_taken_for_the_servers(shared: RedisServer, link: Any) -> None:
    redis = link(shared.url)
    await redis.call("PING")
    call = redis.call("ECHO", b"x")
    time.sleep(TIMEOUT * 1.5)  # something else kept the reactor busy
    assert await call == b"x"


@pytest.mark.parametrize("trusted", [True, False])
@pytest_twisted.ensureDeferred
async def test_tls_is_spoken_to_a_server_whose_name_is_vouched_for(
    shared: RedisServer,
    link: Any,
    said: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    trusted: bool,
) -> None:
    authority = trustme.CA()
    (authority if trusted else trustme.CA()).cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    leaf = authority.issue_cert("localhost").private_key_and_cert_chain_pem.bytes()
    factory = ProxyFactory("127.0.0.1", shared.port)
    factory.noisy = factory.protocol.clientProtocolFactory.noisy = False
    port = reactor.listenSSL(0, factory, PrivateCertificate.loadPEM(leaf).options(), interface="127.0.0.1")
    try:
        redis = link(Secret(f"rediss://localhost:{port.getHost().port}"), connect_timeout=1.0)
        if trusted:
            redis.open()
            await until(lambda: redis.up)
            assert await redis.call("ECHO", b"\xff") == b"\xff"
        else:
            await fails(redis.call("PING"))
            await until(lambda: said)
            assert not redis.up
        await redis.close()
    finally:
        await port.stopListening()
