"""Resources of twisted.web on our connections: what they do there is what they do on the stock ones.

Every request goes to both kinds of site; what comes back must be the same but for ``Server`` and
the stock default ``Content-Type``, which ours has not.
"""

from __future__ import annotations

import gzip
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from bench import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.python.failure import Failure
from twisted.web import http, server, static, util
from twisted.web.resource import EncodingResourceWrapper, IResource, Resource
from twisted.web.server import NOT_DONE_YET, GzipEncoderFactory, Site
from wireclient import Answer, Client, connect, get, pause, request, until

from llmproxyd.wire.head import Limits
from llmproxyd.wire.site import WireSite
from llmproxyd.wire.wheel import Wheel

KINDS = ("stock", "wire")
LARGE = bytes(range(256)) * 2048


class Sites:
    """Opens sites of both kinds, and takes them away."""

    def __init__(self) -> None:
        self._open: list[tuple[Any, Any, Wheel]] = []
        self._clients: list[Client] = []

    def site(self, kind: str, resource: IResource, *, forms: bool = True) -> int:
        """The port of a site of that *kind*."""
        wheel = Wheel(reactor)
        made: Any
        if kind == "stock":
            made = Site(resource, reactor=reactor)
            made.noisy = False
            made.log = lambda _: None
        else:
            limits = Limits(max_body=4 * 1024 * 1024)
            made = WireSite(resource, clock=reactor, wall=time.time, wheel=wheel, limits=limits)
            made._parsePOSTFormSubmission = forms
        port = reactor.listenTCP(0, made, interface="127.0.0.1")
        self._open.append((made, port, wheel))
        number: int = port.getHost().port
        return number

    async def client(self, port: int) -> Client:
        made = await connect(port)
        self._clients.append(made)
        return made

    def close(self) -> Deferred[Any]:
        for client in self._clients:
            if client.lost is None:
                client.transport.abortConnection()

        @inlineCallbacks
        def all_of_it() -> Any:
            for made, port, wheel in self._open:
                yield port.stopListening()
                for session in list(made.sessions.values()):
                    session.expire()
                if isinstance(made, WireSite):
                    yield Deferred.fromCoroutine(until(lambda made=made: not made.channels))
                    assert wheel.waiting == 0

        closing: Deferred[Any] = all_of_it()
        return closing


@pytest.fixture
def sites(_nothing_left: None) -> Iterator[Sites]:
    made = Sites()
    yield made
    pytest_twisted.blockon(made.close())


OWN = {b"server", b"date"}
"""Fields that are looked at for themselves."""


def fields(answer: Answer, without: frozenset[bytes] = frozenset()) -> list[tuple[bytes, bytes]]:
    """All fields, less those that may differ, in one order."""
    return sorted(
        (name.lower(), value)
        for name, value in answer.headers
        if name.lower() not in OWN | without
    )  # fmt: skip


Make = Callable[[], IResource]


async def same(
    sites: Sites,
    make: Make,
    *requests: bytes,
    body: bool = True,
    without: frozenset[bytes] = frozenset(),
) -> list[Answer]:
    """The answers of both kinds of site to *requests* on one connection: the same; ours are returned.

    :param body: bodies are the same, too.
    :param without: fields that may differ.
    """
    found: dict[str, list[Answer]] = {}
    for kind in KINDS:
        port = sites.site(kind, make())
        client = await sites.client(port)
        answers = found[kind] = []
        for data in requests:
            if client.lost is not None:
                client = await sites.client(port)
            answers.append(await client.ask(data))
            if answers[-1].get(b"connection") == b"close":
                await client.closed()
    for stock, wire in zip(found["stock"], found["wire"], strict=True):
        assert (wire.status, wire.reason, wire.whole) == (stock.status, stock.reason, stock.whole)
        if body:
            assert wire.body == stock.body
        expected = fields(stock, without)
        if wire.get(b"content-type") is None:
            expected = [pair for pair in expected if pair != (b"content-type", b"text/html")]
        assert fields(wire, without) == expected
        assert wire.get(b"server") is None
        assert len(wire.all(b"date")) == 1
    return found["wire"]


class Does(Resource):
    """Renders by a function, whatever the method."""

    isLeaf = True

    def __init__(self, does: Callable[[Any], Any]) -> None:
        super().__init__()
        self._does = does

    def render(self, request: Any) -> Any:
        return self._does(request)


def told(does: Callable[[Any], object]) -> Make:
    """A resource that answers with what *does* makes of the request."""
    return lambda: Does(lambda request: repr(does(request)).encode())


# Files and data.


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "small.txt").write_bytes(b"0123456789")
    (tmp_path / "large.bin").write_bytes(LARGE)
    (tmp_path / "empty.json").write_bytes(b"")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "index.html").write_bytes(b"<p>")
    return tmp_path


RANGES = [b"0-4", b"-3", b"4-", b"9-9", b"0-0", b"3-100", b"50-60", b"5-2", b"x", b"-0"]


@pytest.mark.parametrize("part", RANGES)
@pytest_twisted.ensureDeferred
async def test_ranges_of_a_file(sites: Sites, folder: Path, part: bytes) -> None:
    (got,) = await same(sites, lambda: static.File(str(folder)), get(b"/small.txt", b"Range: bytes=" + part))
    assert got.status in (200, 206, 416)
    assert got.get(b"accept-ranges") == b"bytes"


@pytest_twisted.ensureDeferred
async def test_several_ranges_of_a_file(sites: Sites, folder: Path) -> None:
    (got,) = await same(
        sites,
        lambda: static.File(str(folder)),
        get(b"/large.bin", b"Range: bytes=0-9,300000-300009"),
        body=False,
        without=frozenset({b"content-type"}),
    )
    assert got.status == 206
    assert (got.get(b"content-type") or b"").startswith(b"multipart/byteranges")
    assert LARGE[300000:300010] in got.body


@pytest_twisted.ensureDeferred
async def test_files(sites: Sites, folder: Path) -> None:
    small, large, empty, none, index, slashless, head, post = await same(
        sites,
        lambda: static.File(str(folder)),
        get(b"/small.txt"),
        get(b"/large.bin"),
        get(b"/empty.json"),
        get(b"/none"),
        get(b"/sub/"),
        get(b"/sub"),
        get(b"/small.txt", method=b"HEAD"),
        request(b"/small.txt", body=b"x=1"),
    )
    assert (small.body, small.get(b"content-type")) == (b"0123456789", b"text/plain")
    assert large.body == LARGE
    assert (empty.body, empty.get(b"content-length")) == (b"", b"0")
    assert none.status == 404
    assert index.body == b"<p>"
    assert slashless.status == 302
    assert (head.body, head.get(b"content-length")) == (b"", b"10")
    assert post.status == 405


@pytest_twisted.ensureDeferred
async def test_a_file_that_was_not_modified(sites: Sites, folder: Path) -> None:
    since = b"If-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT"
    old = b"If-Modified-Since: Sat, 01 Jan 2000 00:00:00 GMT"
    got, again = await same(
        sites, lambda: static.File(str(folder)), get(b"/small.txt", since), get(b"/small.txt", old)
    )
    assert (got.status, got.body) == (304, b"")
    assert (again.status, again.body) == (200, b"0123456789")


class Whole(static.Data):
    """Data for whatever path."""

    isLeaf = True


@pytest_twisted.ensureDeferred
async def test_data(sites: Sites) -> None:
    got, head = await same(
        sites, lambda: Whole(b"{}", "application/json"), get(b"/"), get(b"/", method=b"HEAD")
    )
    assert (got.body, got.get(b"content-type"), got.get(b"content-length")) == (
        b"{}",
        b"application/json",
        b"2",
    )
    assert (head.body, head.get(b"content-length")) == (b"", b"2")


def tree() -> IResource:
    root = Resource()
    root.putChild(b"a", static.Data(b"a", "text/plain"))
    branch = Resource()
    root.putChild(b"b", branch)
    branch.putChild(b"c d", static.Data(b"c", "text/plain"))
    branch.putChild(b"", static.Data(b"index", "text/plain"))
    root.putChild(b"away", util.Redirect(b"/a"))
    return root


@pytest_twisted.ensureDeferred
async def test_a_tree(sites: Sites) -> None:
    got = await same(
        sites,
        tree,
        get(b"/a"),
        get(b"/b/c%20d"),
        get(b"/b/"),
        get(b"/b"),
        get(b"/x"),
        get(b"/a?q=1"),
        get(b"/away"),
        get(b"//a"),
    )
    assert [one.status for one in got] == [200, 200, 200, 405, 404, 200, 302, 404]
    assert got[6].get(b"location") == b"/a"


def moved(request: Any) -> bytes:
    body: bytes = util.redirectTo(b"https://example.org/?a=1&b=2", request)
    return body


@pytest_twisted.ensureDeferred
async def test_redirects(sites: Sites) -> None:
    got, head = await same(sites, lambda: Does(moved), get(b"/"), get(b"/", method=b"HEAD"))
    assert (got.status, got.get(b"location")) == (302, b"https://example.org/?a=1&b=2")
    assert head.status == 302


# What came.


def arguments(request: Any) -> object:
    return sorted(request.args.items())


MULTIPART = (
    b'--B\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n'
    b'--B\r\nContent-Disposition: form-data; name="a"\r\n\r\n2\r\n'
    b'--B\r\nContent-Disposition: form-data; name="f"; filename="x.bin"\r\n'
    b"Content-Type: application/octet-stream\r\n\r\n\x00\xff\r\n--B--\r\n"
)
FORM = b"Content-Type: application/x-www-form-urlencoded"
PARTS = b"Content-Type: multipart/form-data; boundary=B"


@pytest_twisted.ensureDeferred
async def test_arguments(sites: Sites) -> None:
    got = await same(
        sites,
        told(arguments),
        get(b"/?a=1&b=&a=2&c=%20x+y&%3D=1"),
        get(b"/?"),
        request(b"/?q=1", FORM, body=b"a=1&a=2&b=x%26y"),
        request(b"/?a=0", FORM, body=b"a=1"),
        request(b"/", b"Content-Type: application/x-www-form-urlencoded; charset=utf-8", body=b"a=1"),
        request(b"/", FORM, body=b""),
        request(b"/", PARTS, body=MULTIPART),
        request(b"/?q=1", b"Content-Type: application/json", body=b"a=1"),
        request(b"/", FORM, body=b"a=1", method=b"PUT"),
        request(b"/", b"content-type: APPLICATION/x-www-form-urlencoded", body=b"a=1"),
    )
    assert (
        got[0].body == repr([(b"=", [b"1"]), (b"a", [b"1", b"2"]), (b"b", [b""]), (b"c", [b" x y"])]).encode()
    )
    assert got[2].body == repr([(b"a", [b"1", b"2"]), (b"b", [b"x&y"]), (b"q", [b"1"])]).encode()
    assert got[6].body == repr([(b"a", [b"1", b"2"]), (b"f", [b"\x00\xff"])]).encode()
    assert got[8].body == b"[]"


@pytest_twisted.ensureDeferred
async def test_a_form_that_cannot_be_read(sites: Sites) -> None:
    for kind in KINDS:
        client = await sites.client(sites.site(kind, told(arguments)()))
        got = await client.ask(request(b"/", b"Content-Type: multipart/form-data", body=b"nonsense"))
        assert got.status == 400
        if kind == "stock":
            await client.closed()
        else:
            assert b"cannot be read" in got.body
            assert (await client.ask(get(b"/"))).body == b"[]"


@pytest_twisted.ensureDeferred
async def test_forms_are_read_only_where_the_site_says_so(sites: Sites) -> None:
    client = await sites.client(sites.site("wire", told(arguments)(), forms=False))
    assert (await client.ask(request(b"/?q=1", FORM, body=b"a=1"))).body == b"[(b'q', [b'1'])]"


def content(request: Any) -> object:
    first = request.content.read(3)
    request.content.seek(0)
    data = request.content.read()
    return request.method, first, len(data), hash(data)


def in_chunks(data: bytes, size: int) -> bytes:
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    return request(b"/", b"Transfer-Encoding: chunked", body=None) + body


@pytest_twisted.ensureDeferred
async def test_bodies_of_every_size(sites: Sites) -> None:
    got = await same(
        sites,
        told(content),
        get(b"/"),
        request(b"/", body=b""),
        request(b"/", body=b"{}"),
        request(b"/", body=LARGE),
        in_chunks(b"", 1),
        in_chunks(b"abcdef", 2),
        in_chunks(LARGE, 50_000),
        request(b"/", body=b"x", method=b"PUT"),
        request(b"/", body=b"x", method=b"DELETE"),
    )
    assert [eval(one.body)[2] for one in got] == [0, 0, 2, len(LARGE), 0, 6, len(LARGE), 1, 1]


@pytest_twisted.ensureDeferred
async def test_expectation_of_a_go_ahead(sites: Sites) -> None:
    for kind in KINDS:
        client = await sites.client(sites.site(kind, told(content)()))
        client.send(request(b"/", b"Expect: 100-continue", b"Content-Length: 5", body=None))
        await client.has(b"100 Continue")
        got = await client.ask(b"12345")
        assert (got.status, eval(got.body)[1:3]) == (200, (b"123", 5))


COOKIES = b"Cookie: a=1; b=x=y;c=; d"


@pytest_twisted.ensureDeferred
async def test_cookies(sites: Sites) -> None:
    def does(request: Any) -> bytes:
        request.addCookie(b"s", b"1", path=b"/", httpOnly=True, sameSite="lax")
        request.addCookie("t", "2", max_age="5", secure=True)
        return repr([request.getCookie(name) for name in (b"a", b"b", b"c", b"d", b"e")]).encode()

    got, none, two = await same(
        sites, lambda: Does(does), get(b"/", COOKIES), get(b"/"), get(b"/", b"Cookie: a=1", b"Cookie: b=2")
    )
    assert got.body == b"[b'1', b'x=y', b'', None, None]"
    assert len(got.all(b"set-cookie")) == 2
    assert none.body == b"[None, None, None, None, None]"
    assert two.body == b"[b'1', b'2', None, None, None]"


def portless(url: bytes) -> bytes:
    """*url* without the port, which is another one for each site."""
    return re.sub(rb":[0-9]+", b"", url)


ASKED: dict[str, Callable[[Any], object]] = {
    "method": lambda one: (one.method, one.uri, one.path, one.clientproto),
    "client": lambda one: (one.getClientAddress().host, one.client.host, type(one.getClientAddress())),
    "host": lambda one: (one.getHost().host, one.host.host, one.getRequestHostname()),
    "secure": lambda one: one.isSecure(),
    "forced": lambda one: (one.setHost(b"example.org", 443, True), one.getRequestHostname(), one.isSecure()),
    "paths": lambda one: (one.prepath, one.postpath, one.sitepath),
    "urls": lambda one: (portless(str(one.URLPath()).encode()), portless(one.prePathURL())),
    "user": lambda one: (one.getUser(), one.getPassword()),
    "header": lambda one: (one.getHeader(b"x-a"), one.getHeader("X-A"), one.getHeader(b"x-none")),
    "headers": lambda one: sorted(one.getAllHeaders().items()),
    "raw": lambda one: sorted(one.requestHeaders.getAllRawHeaders()),
    "links": lambda one: (one.childLink(b"x"), one.sibLink(b"y")),
    "cached": lambda one: (one.code, one.code_message, one.finished, one.startedWriting, one.sentLength),
    "chunked": lambda one: (one.chunked, one.etag, one.lastModified, bool(one.queued), one.producer),
    "component": lambda one: (one.setComponent(IResource, 1), one.getComponent(IResource)),
    "transport": lambda one: one.transport.getPeer() == one.getClientAddress(),
}


@pytest.mark.parametrize("asked", ASKED)
@pytest_twisted.ensureDeferred
async def test_what_a_request_tells(sites: Sites, asked: str) -> None:
    (got, post) = await same(
        sites,
        told(ASKED[asked]),
        get(b"/a/b%20c?x=1", b"X-A: 1", b"x-a: 2", b"Authorization: Basic dXNlcjpwYXNz"),
        request(b"/", b"X-A:", body=b"{}"),
    )
    assert (got.status, post.status) == (200, 200)


@pytest_twisted.ensureDeferred
async def test_sessions(sites: Sites) -> None:
    def does(request: Any) -> bytes:
        session = request.getSession()
        session.count = getattr(session, "count", 0) + 1
        session.touch()
        return b"%d" % session.count

    for kind in KINDS:
        client = await sites.client(sites.site(kind, Does(does)))
        first = await client.ask(get(b"/"))
        (cookie,) = first.all(b"set-cookie")
        assert cookie.startswith(b"TWISTED_SESSION=")
        second = await client.ask(get(b"/", b"Cookie: " + cookie.partition(b";")[0]))
        other = await client.ask(get(b"/"))
        assert [first.body, second.body, other.body] == [b"1", b"2", b"1"]
        assert second.all(b"set-cookie") == []


# What goes out.


@pytest_twisted.ensureDeferred
async def test_methods_that_a_resource_has_not(sites: Sites) -> None:
    class Gets(Resource):
        isLeaf = True

        def render_GET(self, request: Any) -> bytes:
            return b"got"

    got, head, put, options, post = await same(
        sites,
        Gets,
        get(b"/"),
        get(b"/", method=b"HEAD"),
        request(b"/", method=b"PUT"),
        get(b"/", method=b"OPTIONS"),
        request(b"/"),
    )
    assert (got.status, got.body) == (200, b"got")
    assert (head.status, head.body, head.get(b"content-length")) == (200, b"", b"3")
    assert (put.status, options.status) == (501, 501)
    assert post.status == 405
    assert set((post.get(b"allow") or b"").split(b", ")) == {b"GET", b"HEAD"}


@pytest.mark.parametrize("status", [200, 201, 204, 304, 404, 500, 503])
@pytest_twisted.ensureDeferred
async def test_statuses(sites: Sites, status: int) -> None:
    def does(request: Any) -> bytes:
        request.setResponseCode(status, b"Told So")
        request.setHeader(b"X-A", b"1")
        request.responseHeaders.addRawHeader(b"x-a", b"2")
        return b"" if status in (204, 304) else b"body"

    (got, then) = await same(sites, lambda: Does(does), get(b"/"), get(b"/"))
    assert (got.status, got.reason) == (status, b"Told So")
    assert got.all(b"x-a") == [b"1", b"2"]
    assert then.status == status


@pytest_twisted.ensureDeferred
async def test_a_type_that_was_set_stays(sites: Sites) -> None:
    def does(request: Any) -> bytes:
        request.setHeader("Content-Type", "text/plain; charset=utf-8")
        return "é".encode()

    (got,) = await same(sites, lambda: Does(does), get(b"/"))
    assert got.get(b"content-type") == b"text/plain; charset=utf-8"


@pytest_twisted.ensureDeferred
async def test_conditions(sites: Sites) -> None:
    def does(request: Any) -> bytes:
        cached = request.setETag(b'"v1"') or request.setLastModified(1_700_000_000)
        return b"" if cached is http.CACHED else b"body"

    since = b"If-Modified-Since: Wed, 15 Nov 2023 00:00:00 GMT"
    got = await same(
        sites,
        lambda: Does(does),
        get(b"/"),
        get(b"/", b'If-None-Match: "v1"'),
        get(b"/", b'If-None-Match: "v0", "v1"'),
        get(b"/", b'If-None-Match: "v0"'),
        get(b"/", b"If-None-Match: *"),
        get(b"/", since),
        request(b"/", b'If-None-Match: "v1"'),
        get(b"/", b'If-None-Match: "v1"', method=b"HEAD"),
    )
    assert [one.status for one in got] == [200, 304, 304, 200, 304, 304, 412, 304]
    assert got[0].get(b"etag") == b'"v1"'


def later(*pieces: bytes) -> Make:
    """A resource whose answer comes piece by piece."""

    def does(request: Any) -> int:
        async def go_on() -> None:
            for piece in pieces:
                await pause(0)
                request.write(piece)
            await pause(0)
            request.finish()

        Deferred.fromCoroutine(go_on())
        return NOT_DONE_YET

    return lambda: Does(does)


@pytest_twisted.ensureDeferred
async def test_an_answer_that_comes_later(sites: Sites) -> None:
    got, again = await same(sites, later(b"one", b"two", b"", b"three"), get(b"/"), get(b"/"))
    assert (got.body, got.get(b"transfer-encoding")) == (b"onetwothree", b"chunked")
    assert again.body == got.body


@pytest_twisted.ensureDeferred
async def test_an_answer_that_comes_later_without_a_body(sites: Sites) -> None:
    got, head = await same(sites, later(), get(b"/"), get(b"/", method=b"HEAD"))
    assert (got.body, head.body) == (b"", b"")


OLD = [
    request(b"/", method=b"GET", body=None, version=b"HTTP/1.0"),
    request(b"/", b"Connection: keep-alive", method=b"GET", body=None, version=b"HTTP/1.0"),
]


@pytest.mark.parametrize("data", OLD)
@pytest.mark.parametrize("kind", KINDS)
@pytest_twisted.ensureDeferred
async def test_an_old_client_reads_to_the_end(sites: Sites, kind: str, data: bytes) -> None:
    client = await sites.client(sites.site(kind, later(b"one", b"two")()))
    got = await client.ask(data)
    assert (got.status, got.body) == (200, b"onetwo")
    assert got.get(b"transfer-encoding") is None
    assert not client.reset


@pytest_twisted.ensureDeferred
async def test_an_answer_of_known_length_that_comes_later(sites: Sites) -> None:
    def does(request: Any) -> int:
        request.setHeader(b"content-length", b"6")
        request.write(b"one")
        reactor.callLater(0, request.write, b"two")
        reactor.callLater(0, request.finish)
        return NOT_DONE_YET

    got, again = await same(sites, lambda: Does(does), get(b"/"), get(b"/"))
    assert (got.body, got.get(b"content-length")) == (b"onetwo", b"6")
    assert again.body == b"onetwo"


class Pulls:
    """Gives a piece whenever it is asked."""

    def __init__(self, request: Any, count: int, piece: bytes) -> None:
        self._request, self._left, self._piece = request, count, piece
        self.stopped = False
        request.registerProducer(self, False)

    def resumeProducing(self) -> None:
        if self._left:
            self._left -= 1
            self._request.write(self._piece)
            return
        self._request.unregisterProducer()
        self._request.finish()

    def stopProducing(self) -> None:
        self.stopped = True


class Pushes:
    """Gives pieces until it is told to pause."""

    def __init__(self, request: Any, count: int, piece: bytes) -> None:
        self._request, self._left, self._piece = request, count, piece
        self.paused = self.stopped = False
        self.pauses = 0
        request.registerProducer(self, True)
        self.resumeProducing()

    def pauseProducing(self) -> None:
        self.paused = True
        self.pauses += 1

    def resumeProducing(self) -> None:
        self.paused = False
        while self._left and not self.paused and not self.stopped:
            self._left -= 1
            self._request.write(self._piece)
        if not self._left and not self.stopped:
            self.stopped = True
            self._request.unregisterProducer()
            self._request.finish()

    def stopProducing(self) -> None:
        self.stopped = True


@pytest.mark.parametrize("producer", [Pulls, Pushes])
@pytest_twisted.ensureDeferred
async def test_producers(sites: Sites, producer: Any) -> None:
    made: list[Any] = []

    def does(request: Any) -> int:
        made.append(producer(request, 200, b"x" * 65536))
        return NOT_DONE_YET

    got, again = await same(sites, lambda: Does(does), get(b"/"), get(b"/"))
    assert len(got.body) == len(again.body) == 200 * 65536
    if producer is Pushes:
        assert all(one.pauses for one in made)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("producer", [Pulls, Pushes])
@pytest_twisted.ensureDeferred
async def test_producers_go_at_the_clients_pace_and_stop_with_it(
    sites: Sites, kind: str, producer: Any
) -> None:
    made: list[Any] = []
    ends: list[object] = []

    def does(request: Any) -> int:
        request.notifyFinish().addBoth(ends.append)
        made.append(producer(request, 4000, b"x" * 65536))
        return NOT_DONE_YET

    client = await sites.client(sites.site(kind, Does(does)))
    client.transport.pauseProducing()
    client.send(get(b"/"))
    await until(lambda: made and made[0]._left < 4000, "it to begin")
    before = -1
    while made[0]._left != before:
        before = made[0]._left
        await pause(0.05)
    assert before > 3000
    client.transport.abortConnection()
    await until(lambda: ends, "it to be told")
    assert isinstance(ends[0], Failure)
    assert made[0]._left == before


# How it ends.


@pytest.mark.parametrize("kind", KINDS)
@pytest_twisted.ensureDeferred
async def test_the_end_is_told(sites: Sites, kind: str) -> None:
    ends: list[object] = []

    def does(request: Any) -> bytes:
        request.notifyFinish().addBoth(ends.append)
        request.notifyFinish().addBoth(ends.append)
        return b"ok"

    client = await sites.client(sites.site(kind, Does(does)))
    await client.ask(get(b"/"))
    assert ends == [None, None]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("written", [False, True])
@pytest.mark.parametrize("abort", [False, True])
@pytest_twisted.ensureDeferred
async def test_a_client_that_leaves_is_told_of(sites: Sites, kind: str, written: bool, abort: bool) -> None:
    ends: list[Any] = []
    seen: list[Any] = []

    def does(request: Any) -> int:
        seen.append(request)
        request.notifyFinish().addBoth(ends.append)
        if written:
            request.write(b"begun")
        return NOT_DONE_YET

    client = await sites.client(sites.site(kind, Does(does)))
    client.send(get(b"/"))
    await until(lambda: seen, "the request")
    if abort:
        client.transport.abortConnection()
    else:
        client.transport.loseConnection()
    await until(lambda: ends, "it to be told")
    assert ends[0].check(ConnectionDone, ConnectionLost)
    (request,) = seen
    request.write(b"late")
    with pytest.raises(RuntimeError):
        request.finish()
    assert len(ends) == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest_twisted.ensureDeferred
async def test_an_answer_that_is_broken_off(sites: Sites, kind: str) -> None:
    def does(request: Any) -> int:
        request.write(b"begun")
        reactor.callLater(0, request.loseConnection)
        return NOT_DONE_YET

    client = await sites.client(sites.site(kind, Does(does)))
    got = await client.ask(get(b"/"))
    await client.closed()
    assert (got.body, got.whole) == (b"begun", False)


@pytest.mark.parametrize("late", [False, True])
@pytest_twisted.ensureDeferred
async def test_a_fault_of_the_resource_is_a_500(
    sites: Sites, monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    logged: list[Failure] = []

    class Log:
        def failure(self, text: str, failure: Failure, **more: object) -> None:
            logged.append(failure)

        def __getattr__(self, name: str) -> Any:
            return lambda *_, **__: None

    monkeypatch.setattr(server.Request, "_log", Log())

    def does(request: Any) -> int:
        if not late:
            raise RuntimeError("a fault of the resource's")
        reactor.callLater(0, lambda: request.processingFailed(Failure(RuntimeError("later"))))
        return NOT_DONE_YET

    got, again = await same(sites, lambda: Does(does), get(b"/"), get(b"/"))
    assert (got.status, again.status) == (500, 500)
    assert b"fault of" not in got.body
    assert [one.type for one in logged] == [RuntimeError] * 4


@pytest.mark.parametrize("accepted", [b"gzip", b"deflate, gzip", b"identity", b""])
@pytest_twisted.ensureDeferred
async def test_encodings(sites: Sites, accepted: bytes) -> None:
    def make() -> IResource:
        return EncodingResourceWrapper(Whole(LARGE, "text/plain"), [GzipEncoderFactory()])

    (got,) = await same(sites, make, get(b"/", b"Accept-Encoding: " + accepted), body=False)
    if b"gzip" in accepted:
        assert got.get(b"content-encoding") == b"gzip"
        assert got.get(b"content-length") is None
        assert gzip.decompress(got.body) == LARGE
    else:
        assert got.body == LARGE


# The connection.


@pytest.mark.parametrize("kind", KINDS)
@pytest_twisted.ensureDeferred
async def test_requests_behind_each_other(sites: Sites, kind: str) -> None:
    client = await sites.client(sites.site(kind, later(b"x")()))
    client.send(get(b"/1") * 3 + request(b"/2", body=LARGE) + get(b"/3"))
    got = [await client.answer() for _ in range(5)]
    assert [one.body for one in got] == [b"x"] * 5
    assert client.received == b""


@pytest_twisted.ensureDeferred
async def test_the_end_of_the_connection_when_the_client_asks_for_it(sites: Sites) -> None:
    (got,) = await same(sites, tree, get(b"/a", b"Connection: close"))
    assert got.get(b"connection") == b"close"


@pytest_twisted.ensureDeferred
async def test_a_body_that_is_too_large_for_memory_is_refused(sites: Sites) -> None:
    client = await sites.client(sites.site("wire", told(content)()))
    client.send(request(b"/", b"Content-Length: 5000000", body=None))
    got = await client.answer()
    assert got.status == 413
    client = await sites.client(sites.site("wire", told(content)()))
    client.send(request(b"/", b"Transfer-Encoding: chunked", body=None) + b"4c4b40\r\n" + b"x" * 5_000_000)
    got = await client.answer()
    assert got.status == 413
