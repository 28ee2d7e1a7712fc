"""``/logs/errors``: the summary as JSON, read in another thread, for those who may."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import SimpleNamespace

import pytest
from twisted.internet.defer import Deferred
from twisted.web.server import NOT_DONE_YET
from twisted.web.test.requesthelper import DummyRequest

from llmproxyd.model import Request
from llmproxyd.redaction import Secret
from llmproxyd.site.logs import ErrorLogs

SUMMARY = {"enabled": True, "total_files": 1, "files": [{"name": "503_\ud800.log"}]}


class Asked(DummyRequest):
    """A request for the page."""

    _disconnected = False

    def __init__(self, peer: str = "127.0.0.1:5", method: bytes = b"GET") -> None:
        super().__init__([b"logs", b"errors"])
        self.method = method
        self.head = SimpleNamespace(request=Request(method, b"/logs/errors", (), peer=peer))

    def field(self, name: bytes) -> bytes | None:
        return (self.responseHeaders.getRawHeaders(name) or [None])[0]

    @property
    def json(self) -> dict:
        return json.loads(b"".join(self.written))


class Page:
    """The resource, whose reading of the folder is under control."""

    def __init__(self) -> None:
        self.reading: list[Deferred[Mapping[str, object]]] = []
        self.resource = ErrorLogs(lambda: SUMMARY, self._in_thread, Secret("admin-token-1"))

    def _in_thread(self, call: object) -> Deferred[Mapping[str, object]]:
        self.reading.append(Deferred())
        return self.reading[-1]

    def get(self, request: Asked) -> Asked:
        body = self.resource.render(request)  # type: ignore[arg-type]
        if body is not NOT_DONE_YET:
            request.write(body)
            request.finish()
        return request


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_summary_is_json_that_is_not_stored(method: bytes) -> None:
    page = Page()
    request = page.get(Asked(method=method))
    assert not request.finished
    page.reading[0].callback(SUMMARY)
    assert request.finished
    assert request.responseCode == 200
    assert request.field(b"content-type") == b"application/json"
    assert request.field(b"cache-control") == b"no-store"
    assert request.json["total_files"] == 1
    assert request.field(b"content-length") == b"%d" % len(b"".join(request.written))


def test_folder_is_read_once_for_all_who_wait() -> None:
    page = Page()
    requests = [page.get(Asked()) for _ in range(3)]
    assert len(page.reading) == 1
    page.reading[0].callback(SUMMARY)
    assert all(request.json == requests[0].json for request in requests)
    page.get(Asked())
    assert len(page.reading) == 2


def test_client_that_left_is_sent_nothing() -> None:
    page = Page()
    gone, other = page.get(Asked()), page.get(Asked())
    gone._disconnected = True
    page.reading[0].callback(SUMMARY)
    assert not gone.written
    assert other.finished


def test_stranger_is_refused_and_told_who_may() -> None:
    page = Page()
    request = page.get(Asked("10.0.0.1:5"))
    assert request.responseCode == 403
    assert page.reading == []
    assert request.json["error"]["code"] == "local_only"
    assert "admin token" in request.json["error"]["message"]
    assert request.field(b"x-llmproxyd-code") == b"local_only"


def test_folder_that_cannot_be_summed_up_is_an_error_without_details() -> None:
    page = Page()
    request = page.get(Asked())
    page.reading[0].errback(KeyError("sk-secret"))
    assert request.responseCode == 500
    assert "sk-secret" not in json.dumps(request.json)
    assert page.get(Asked()) is not None
    assert len(page.reading) == 2
