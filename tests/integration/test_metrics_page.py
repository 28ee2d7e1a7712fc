"""``/metrics`` over real connections: who gets it, in which form, and what else is there."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted
from bench import reactor
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_open_metrics
from prometheus_client.parser import text_string_to_metric_families as read_text
from twisted.internet.defer import DeferredList, maybeDeferred
from twisted.web.resource import Resource
from wireclient import Answer, Client, connect, get, request, until

from llmproxyd.model import End, Finished
from llmproxyd.observe.metrics import Metrics, Sources
from llmproxyd.redaction import Secret
from llmproxyd.site.metrics import PATH, MetricsPage, metrics_site
from llmproxyd.site.root import Root
from llmproxyd.wire.head import Limits
from llmproxyd.wire.site import WireSite
from llmproxyd.wire.wheel import Wheel

TOKEN = b"Authorization: Bearer admin-token-1"
FORWARDED = b"X-Forwarded-For: 203.0.113.9"


class Elsewhere(Resource):
    """Stands for the upstreams."""

    isLeaf = True

    def render(self, request: Any) -> bytes:
        return b"upstream"


class Pages:
    """The public listener with the page among others, and a listener for the page alone."""

    def __init__(self) -> None:
        self.metrics = Metrics(Sources(uptime=lambda: 1.5))
        self.metrics(Finished(1, "r-1", "POST", "/v1/x", "openai", "openai", 200, 0.1, 5, End.COMPLETE))
        self._wheel = Wheel(reactor)
        wire = {"clock": reactor, "wall": time.time, "wheel": self._wheel, "limits": Limits()}
        page = MetricsPage(self.metrics.render, Secret("admin-token-1"))
        self._sites = [
            WireSite(Root(Elsewhere(), {PATH: page}), **wire),
            metrics_site(self.metrics.render, **wire),
        ]
        self._ports = [reactor.listenTCP(0, site, interface="127.0.0.1") for site in self._sites]
        self._clients: list[Client] = []

    async def ask(self, data: bytes, *, alone: bool = False, bodiless: bool = False) -> Answer:
        client = await connect(self._ports[alone].getHost().port)
        self._clients.append(client)
        client.send(data)
        return await client.answer(bodiless=bodiless)

    async def close(self) -> None:
        for client in self._clients:
            client.transport.abortConnection()
        await DeferredList([maybeDeferred(port.stopListening) for port in self._ports])
        await until(lambda: not any(site.channels for site in self._sites))


@pytest.fixture
def pages(_nothing_left: None) -> Iterator[Pages]:
    made = Pages()
    yield made
    pytest_twisted.blockon(pytest_twisted.defer.ensureDeferred(made.close()))


def names(answer: Answer) -> set[str]:
    return {family.name for family in read_text(answer.body.decode())}


@pytest_twisted.ensureDeferred
async def test_caller_on_this_machine_gets_the_page(pages: Pages) -> None:
    answer = await pages.ask(get(PATH))
    assert answer.status == 200
    assert answer.get(b"content-type") == b"text/plain; version=0.0.4; charset=utf-8"
    assert answer.get(b"cache-control") == b"no-store"
    assert {"llmproxyd_requests", "llmproxyd_uptime_seconds"} <= names(answer)


@pytest_twisted.ensureDeferred
async def test_open_metrics_where_it_is_accepted(pages: Pages) -> None:
    # As Prometheus 3 asks.
    accept = b"Accept: application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=0.0.4;q=0.4,*/*;q=0.1"
    answer = await pages.ask(get(PATH, accept))
    assert answer.get(b"content-type") == b"application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert "llmproxyd_requests" in {family.name for family in read_open_metrics(answer.body.decode())}


@pytest.mark.parametrize(
    "fields", [(FORWARDED,), (b"Forwarded: for=x",), (FORWARDED, b"Authorization: Bearer wrong")]
)
@pytest_twisted.ensureDeferred
async def test_caller_from_elsewhere_does_not(pages: Pages, fields: tuple[bytes, ...]) -> None:
    answer = await pages.ask(get(PATH, *fields))
    assert answer.status == 403
    assert answer.get(b"x-llmproxyd-code") == b"local_only"
    assert b"llmproxyd_requests" not in answer.body


@pytest_twisted.ensureDeferred
async def test_web_page_whose_name_leads_here_does_not(pages: Pages) -> None:
    answer = await pages.ask(request(PATH, method=b"GET", body=None, host=b"evil.example"))
    assert answer.status == 403


@pytest_twisted.ensureDeferred
async def test_admin_gets_it_from_anywhere(pages: Pages) -> None:
    assert (await pages.ask(get(PATH, FORWARDED, TOKEN))).status == 200


@pytest_twisted.ensureDeferred
async def test_head_has_no_body(pages: Pages) -> None:
    answer = await pages.ask(get(PATH, method=b"HEAD"), bodiless=True)
    assert answer.status == 200
    assert answer.body == b""


@pytest.mark.parametrize("path", [b"/metrics/", b"/metrics/x", b"//metrics", b"/Metrics", b"/v1/metrics"])
@pytest_twisted.ensureDeferred
async def test_other_paths_are_upstreams(pages: Pages, path: bytes) -> None:
    assert (await pages.ask(get(path))).body == b"upstream"


# On a listener of its own.


@pytest.mark.parametrize("fields", [(), (FORWARDED,), (b"Accept: text/html",)])
@pytest_twisted.ensureDeferred
async def test_on_its_own_listener_everybody_gets_it(pages: Pages, fields: tuple[bytes, ...]) -> None:
    for target in (PATH, PATH + b"?name%5B%5D=up"):
        answer = await pages.ask(get(target, *fields), alone=True)
        assert answer.status == 200
        assert "llmproxyd_requests" in names(answer)


@pytest.mark.parametrize(
    "target",
    [b"/", b"/metrics/", b"/metrics/x", b"//metrics", b"/health", b"/logs/errors", b"/v1/models", b"/x?/metrics", b"/%6detrics"],
)  # fmt: skip
@pytest_twisted.ensureDeferred
async def test_on_its_own_listener_nothing_else_is(pages: Pages, target: bytes) -> None:
    answer = await pages.ask(get(target), alone=True)
    assert answer.status == 404
    assert b"llmproxyd_requests" not in answer.body


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"DELETE"])
@pytest_twisted.ensureDeferred
async def test_it_is_only_read(pages: Pages, method: bytes) -> None:
    answer = await pages.ask(request(PATH, method=method), alone=True)
    assert answer.status in (405, 501)
    assert b"llmproxyd_requests" not in answer.body
