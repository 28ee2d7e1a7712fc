"""A reload that fails in the middle: systemd hears that it is over, and everything is as it was."""

from __future__ import annotations

import io
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import pytest_twisted
from bench import reactor
from rawhttp import turns
from twisted.internet.defer import Deferred
from wireclient import connect, get

from llmproxyd import reload, safety
from llmproxyd.config.load import load
from llmproxyd.config.schema import Config
from llmproxyd.observe.output import Output
from llmproxyd.observe.requestlog import RequestLog
from llmproxyd.providers.registry import registry
from llmproxyd.service import Daemon
from llmproxyd.testing.upstream import FakeUpstream, Send, json_answer


def config(listen: list[str], base_url: str, **more: Any) -> Config:
    given: Mapping[str, object] = {
        "listen": listen,
        "upstreams": {"openai": {"base_url": base_url}},
        "operator": {"stdin": False},
        **more,
    }
    overrides = {(key,): (value, "test") for key, value in given.items()}
    return load(environ={"STATE_DIRECTORY": "/nonexistent"}, overrides=overrides, providers=registry())


class Service:
    """A daemon under a service manager, whose file becomes another one.

    :ivar wanted: the configuration as it is now, or what is raised when it is read.
    """

    def __init__(self, folder: Path, upstream: FakeUpstream) -> None:
        self.channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.channel.bind(str(folder / "notify"))
        self.channel.setblocking(False)
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            other.bind(("127.0.0.1", 0))
            self.port, self.more = one.getsockname()[1], other.getsockname()[1]
        here, there = (f"tcp:{port}:interface=127.0.0.1" for port in (self.port, self.more))
        self.before = config([here], upstream.url)
        self.wanted: Config | Exception = config(
            [there],
            "http://127.0.0.1:1",
            timeouts={"idle": 5},
            faults={"rules": [{"name": "flaky", "error": "r"}]},
        )
        output = Output(io.StringIO())
        self.daemon = Daemon(
            self.before,
            reactor,
            providers=registry(),
            output=output,
            requests=RequestLog(output, reactor, time.time, as_json=False),
            load=self.read,
            environ={"NOTIFY_SOCKET": str(folder / "notify")},
        )
        self.daemon.privilegedStartService()

    def read(self) -> Config:
        if isinstance(self.wanted, Exception):
            raise self.wanted
        return self.wanted

    def said(self) -> list[dict[str, str]]:
        found = []
        with suppress(BlockingIOError):
            while True:
                message = self.channel.recv(65536).decode()
                found.append(dict(line.split("=", 1) for line in message.split("\n")))
        return found

    def stop(self) -> Deferred[None] | None:
        self.channel.close()
        stopping = self.daemon.stopService()
        self.daemon.hurry()
        return stopping


@pytest.fixture
def service(upstream: FakeUpstream) -> Iterator[Service]:
    with TemporaryDirectory(prefix="sd-") as name:
        made = Service(Path(name), upstream)
        yield made
        stopping = made.stop()
        if stopping is not None:
            pytest_twisted.blockon(stopping)


def fail(*args: object, **kwargs: object) -> None:
    raise RuntimeError("in the middle")


async def is_as_it_was(service: Service, upstream: FakeUpstream) -> None:
    began, over = service.said()
    assert "RELOADING" in began
    assert over == {"READY": "1", "STATUS": "Not reloaded; the log says why"}
    daemon = service.daemon
    assert daemon.config is service.before
    assert [port for _, port in daemon.listening.addresses] == [service.port]
    assert not daemon.works.engine.rules
    await turns()
    with socket.socket() as free:
        free.bind(("127.0.0.1", service.more))
    upstream.scripts = [[Send(json_answer({"ok": True}))]]
    client = await connect(service.port)
    assert (await client.ask(get(b"/v1/models"))).json == {"ok": True}
    client.transport.abortConnection()


@pytest.mark.parametrize(
    ("owner", "name"),
    [("works", "prepare"), ("reload", "changed"), ("safety", "refuse_loops"), ("safety", "exposure")],
)
@pytest_twisted.ensureDeferred
async def test_whatever_step_fails_it_is_over_and_nothing_has_changed(
    service: Service, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch, owner: str, name: str
) -> None:
    monkeypatch.setattr(
        {"works": service.daemon.works, "reload": reload, "safety": safety}[owner], name, fail
    )
    with pytest.raises(RuntimeError, match="in the middle"):
        service.daemon.reload()
    await is_as_it_was(service, upstream)


@pytest_twisted.ensureDeferred
async def test_a_file_that_cannot_even_be_read_fails_no_other_way(
    service: Service, upstream: FakeUpstream
) -> None:
    service.wanted = RuntimeError("in the middle")
    with pytest.raises(RuntimeError, match="in the middle"):
        service.daemon.reload()
    await is_as_it_was(service, upstream)


@pytest_twisted.ensureDeferred
async def test_the_next_reload_succeeds(
    service: Service, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(service.daemon.works, "prepare", fail)
        with pytest.raises(RuntimeError):
            service.daemon.reload()
    service.said()
    assert service.daemon.reload().ok
    began, over = service.said()
    assert "RELOADING" in began
    assert over["STATUS"].startswith(f"Listening on http://127.0.0.1:{service.more}; ")
    assert service.daemon.config.timeouts.idle == 5
