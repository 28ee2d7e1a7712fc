"""What is no request of HTTP/1.1 is refused, however it is cut, and nothing of it goes upstream."""

from __future__ import annotations

import ssl
from typing import Any

import pytest
import pytest_twisted
from bench import Bench
from rawhttp import (
    CHAT,
    MODELS,
    NEXT,
    OK,
    accepted,
    ended,
    fault_of,
    head_of,
    models,
    post,
    refused,
    send_all,
    settled,
    turns,
)
from wireclient import get, request

from llmproxyd.model import End
from llmproxyd.testing.upstream import FakeUpstream

HOST = b"Host: localhost"


# Host, RFC 9112 §3.2: exactly one, and one that is a host.


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param((b"X-A: b",), id="missing"),
        pytest.param((HOST, HOST), id="twice"),
        pytest.param((HOST, b"X-A: b", b"host: localhost"), id="twice-apart"),
        pytest.param((HOST, b"Host: other"), id="two"),
        pytest.param((b"Host: a b",), id="space"),
        pytest.param((b"Host: a/b",), id="slash"),
        pytest.param((b"Host: a@b",), id="userinfo"),
        pytest.param((b"Host: [::1",), id="bracket"),
        pytest.param((b"Host: a:b",), id="port"),
        pytest.param((b"Host: a, b",), id="list"),
        pytest.param((b"Host: a?b",), id="query"),
        pytest.param((b"Host: a#b",), id="fragment"),
        pytest.param((b"Host: a:65536",), id="no port there can be"),
        pytest.param((b"Host: a%zz",), id="no percent-encoding"),
        pytest.param((b"Host: [::1",), id="open bracket"),
        pytest.param((b"Host: [:::1]",), id="no address"),
        pytest.param((b"Host: [127.0.0.1]",), id="no address of IPv6"),
        pytest.param((b"Host: caf\xe9",), id="latin"),
        pytest.param((b"Host:",), id="empty"),
        pytest.param((b"Host:  ",), id="blank"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_not_one_good_host(bench: Bench, upstream: FakeUpstream, fields: tuple[bytes, ...]) -> None:
    await refused(bench, upstream, models(*fields, host=None), 400, "bad_host")


@pytest_twisted.ensureDeferred
async def test_two_hosts_are_refused_in_http_1_0_too(bench: Bench, upstream: FakeUpstream) -> None:
    """RFC 9112 §3.2: "any request message that contains more than one Host"."""
    await refused(bench, upstream, models(HOST, version=b"HTTP/1.0"), 400, "bad_host")


@pytest_twisted.ensureDeferred
async def test_http_1_0_needs_no_host(bench: Bench, upstream: FakeUpstream) -> None:
    arrived = await accepted(bench, upstream, models(b"X-A: b", host=None, version=b"HTTP/1.0"), behind=b"")
    assert {one.target for one in arrived} == {MODELS}


@pytest.mark.parametrize(
    "host",
    [
        b"localhost.:8888",
        b"a%2Db:",
        b"[::ffff:127.0.0.1]:0",
        b"localhost:8888",
        b"LocalHost",
        b"127.0.0.1:1",
        b"[::1]",
        b"[::1]:65535",
        b"a-b_c.example",
    ],
)
@pytest_twisted.ensureDeferred
async def test_good_hosts(bench: Bench, upstream: FakeUpstream, host: bytes) -> None:
    await accepted(bench, upstream, models(host=b"Host: " + host))


# Absolute form, RFC 9112 §3.2.2.


@pytest.mark.parametrize(
    ("target", "origin_form"),
    [
        (b"http://localhost/v1/models?x=%2F&y", b"/v1/models?x=%2F&y"),
        (b"http://localhost//v1/../a;b", b"//v1/../a;b"),
        (b"http://localhost/", b"/"),
        (b"http://localhost", b"/"),
        (b"http://localhost/?", b"/?"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_absolute_form(bench: Bench, upstream: FakeUpstream, target: bytes, origin_form: bytes) -> None:
    arrived = await accepted(bench, upstream, head_of(b"GET " + target + b" HTTP/1.1", HOST))
    assert {one.target for one in arrived} == {origin_form}


@pytest.mark.parametrize(
    ("target", "host", "codes"),
    [
        (b"http://other/v1/models", b"localhost", ["bad_host"]),
        (b"http://localhost:81/v1/models", b"localhost", ["bad_host"]),
        (b"http://u@localhost/v1/models", b"localhost", []),
        (b"http://u:p@localhost/v1/models", b"localhost", []),
        (b"http://localhost@evil.example/v1/models", b"localhost", []),
        (b"http://u@localhost/v1/models", b"u@localhost", []),
    ],
)
@pytest_twisted.ensureDeferred
async def test_absolute_form_of_another_host(
    bench: Bench, upstream: FakeUpstream, target: bytes, host: bytes, codes: list[str]
) -> None:
    data = head_of(b"GET " + target + b" HTTP/1.1", b"Host: " + host)
    await refused(bench, upstream, data, 400, *codes)


# Field lines, RFC 9112 §2.2, §5; RFC 9110 §5.5.

CONTROLS = (b"\x00", b"\x01", b"\x08", b"\x0b", b"\x1f")

LINES: list[Any] = [
    pytest.param(b"GET /v1/models HTTP/1.1\nHost: localhost\n\n", id="bare-lf"),
    pytest.param(b"GET /v1/models HTTP/1.1\nHost: localhost\r\n\r\n", id="bare-lf-after-the-request-line"),
    pytest.param(b"GET /v1/models HTTP/1.1\r\nHost: localhost\nX-A: b\r\n\r\n", id="bare-lf-after-a-field"),
    pytest.param(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\n", id="bare-lf-at-the-end"),
    pytest.param(b"GET /v1/models HTTP/1.1\r\nHost: localhost\n\r\n", id="bare-lf-before-the-end"),
    pytest.param(b"GET /v1/models HTTP/1.1\rHost: localhost\r\r", id="bare-cr"),
    pytest.param(models(b"X-A: b\r\n c"), id="fold"),
    pytest.param(models(b"X-A: b\r\n\tc"), id="fold-tab"),
    pytest.param(models(b"X-A:\r\n b"), id="fold-of-an-empty-value"),
    pytest.param(models(host=b" Host: localhost"), id="first-line-indented"),
    pytest.param(models(b"X-A: b\rc"), id="bare-cr-in-a-value"),
    pytest.param(models(b"X-A: b\r"), id="two-crs"),
    pytest.param(models(b"X-A: b\rContent-Length: 5"), id="bare-cr-as-a-line-end"),
    pytest.param(models(b"X-A : b"), id="space-before-the-colon"),
    pytest.param(models(b"X-A\t: b"), id="tab-before-the-colon"),
    pytest.param(models(b"X A: b"), id="space-in-a-name"),
    pytest.param(models(b": b"), id="empty-name"),
    pytest.param(models(b"X-A"), id="no-colon"),
    pytest.param(models(b"X-\xe9: b"), id="latin-name"),
    pytest.param(models(b"\xef\xbb\xbfX-A: b"), id="byte-order-mark"),
    pytest.param(models(b"X(A): b"), id="delimiters-in-a-name"),
    *(pytest.param(models(b"X-A: b" + one + b"c"), id=f"{one.hex()}-in-a-value") for one in CONTROLS),
    *(pytest.param(models(b"X" + one + b"A: b"), id=f"{one.hex()}-in-a-name") for one in CONTROLS),
    *(
        pytest.param(head_of(b"GET /v1/mo" + one + b"dels HTTP/1.1", HOST), id=f"{one.hex()}-in-the-target")
        for one in CONTROLS
    ),
]


@pytest.mark.parametrize("data", LINES)
@pytest_twisted.ensureDeferred
async def test_lines_that_are_none(bench: Bench, upstream: FakeUpstream, data: bytes) -> None:
    await refused(bench, upstream, data, 400)


@pytest.mark.parametrize(
    "field",
    [
        b"Content_Length: 5",
        b"content_length: 0",
        b"CONTENT_LENGTH: 5",
        b"Transfer_Encoding: chunked",
        b"transfer_encoding: chunked",
        b"TRANSFER_Encoding: x",
    ],
)
@pytest_twisted.ensureDeferred
async def test_names_that_another_server_takes_for_framing(
    bench: Bench, upstream: FakeUpstream, field: bytes
) -> None:
    """CGI's heirs read ``_`` as ``-``."""
    await refused(bench, upstream, post(b"Content-Length: 2", field, body=b"{}"), 400)


@pytest_twisted.ensureDeferred
async def test_bytes_beyond_ascii_pass_in_values(bench: Bench, upstream: FakeUpstream) -> None:
    """RFC 9110 §5.5, obs-text; horizontal tabs within a value as well."""
    value = bytes(range(0x80, 0x100)) + b" \t caf\xc3\xa9"
    arrived = await accepted(bench, upstream, models(b"X-A: " + value))
    assert {one.all(b"x-a")[0] for one in arrived} == {value}


@pytest_twisted.ensureDeferred
async def test_an_empty_line_before_the_request(bench: Bench, upstream: FakeUpstream) -> None:
    """RFC 9112 §2.2: ignored, as old clients send one behind a body."""
    await accepted(bench, upstream, b"\r\n" + models())


# The request line, RFC 9112 §3.


@pytest.mark.parametrize("data", [b"GET /x\r\n", b"GET /x\r\n\r\n", b"GET /v1/models\r\nHost: a\r\n\r\n"])
@pytest.mark.parametrize("behind", [b"", NEXT], ids=["alone", "with-another-behind"])
@pytest_twisted.ensureDeferred
async def test_http_0_9(bench: Bench, upstream: FakeUpstream, data: bytes, behind: bytes) -> None:
    """At once: nothing more is waited for after its first line."""
    await refused(bench, upstream, data, 400, behind=behind)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", id="h2-preface"),
        pytest.param(models(version=b"HTTP/1.2"), id="1.2"),
        pytest.param(models(version=b"HTTP/2.0"), id="2.0"),
        pytest.param(models(version=b"HTTP/3.0"), id="3.0"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_other_versions_of_http(bench: Bench, upstream: FakeUpstream, data: bytes) -> None:
    await refused(bench, upstream, data, 505, closes=False)


LINE: list[Any] = [
    pytest.param(b"GET /v1/models RTSP/1.0", id="rtsp"),
    pytest.param(b"DESCRIBE /v1/models RTSP/1.0", id="rtsp-describe"),
    pytest.param(b"GET /v1/models ICE/1.0", id="ice"),
    pytest.param(b"GET /v1/models http/1.1", id="lower-case"),
    pytest.param(b"GET /v1/models HTTP/1,1", id="comma"),
    pytest.param(b"GET /v1/models XTTP/1.1", id="other-name"),
    pytest.param(b"GET  /v1/models HTTP/1.1", id="two-spaces"),
    pytest.param(b"GET /v1/models  HTTP/1.1", id="two-spaces-later"),
    pytest.param(b"GET\t/v1/models HTTP/1.1", id="tab"),
    pytest.param(b"GET /v1/models\tHTTP/1.1", id="tab-later"),
    pytest.param(b"GET /v1/models HTTP/1.1 ", id="space-at-the-end"),
    pytest.param(b"GET /v1/models x HTTP/1.1", id="four-parts"),
    pytest.param(b"GET /v1/mod\xe9ls HTTP/1.1", id="latin-target"),
]


@pytest.mark.parametrize("line", LINE)
@pytest_twisted.ensureDeferred
async def test_request_lines_that_are_none(bench: Bench, upstream: FakeUpstream, line: bytes) -> None:
    await refused(bench, upstream, head_of(line, HOST), 400)


def client_hello() -> bytes:
    """The first bytes of a real client that speaks TLS."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


@pytest_twisted.ensureDeferred
async def test_tls_on_a_port_without(bench: Bench, upstream: FakeUpstream) -> None:
    await refused(bench, upstream, client_hello(), 400, behind=b"", end=20)


@pytest.mark.parametrize("data", [b"\x00", b"\xff\xfe", b"{}\r\n\r\n", b"SSH-2.0-OpenSSH_9\r\n"])
@pytest_twisted.ensureDeferred
async def test_what_is_no_http_at_all(bench: Bench, upstream: FakeUpstream, data: bytes) -> None:
    await refused(bench, upstream, data, 400, behind=b"")


@pytest.mark.parametrize(
    "line",
    [
        b"FOO /v1/models HTTP/1.1",
        b"GETX /v1/models HTTP/1.1",
        b"get /v1/models HTTP/1.1",
        b"Post /v1/models HTTP/1.1",
        b"TRACE /v1/models HTTP/1.1",
        b"CONNECT localhost:443 HTTP/1.1",
        b"CONNECT /v1/models HTTP/1.1",
    ],
)
@pytest_twisted.ensureDeferred
async def test_other_methods(bench: Bench, upstream: FakeUpstream, line: bytes) -> None:
    """RFC 9110 §9.1: 501 where the method is not implemented."""
    await refused(bench, upstream, head_of(line, HOST), 501, "method_not_implemented", closes=False)


@pytest.mark.parametrize("method", [b"GET", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"])
@pytest_twisted.ensureDeferred
async def test_methods_that_pass(bench: Bench, upstream: FakeUpstream, method: bytes) -> None:
    arrived = await accepted(bench, upstream, head_of(method + b" " + MODELS + b" HTTP/1.1", HOST))
    assert {one.method for one in arrived} == {method}


# Upgrade, RFC 9110 §7.8.


@pytest.mark.parametrize(
    "fields",
    [
        (b"Connection: upgrade", b"Upgrade: websocket"),
        (b"Upgrade: WebSocket", b"Connection: keep-alive, Upgrade", b"Sec-WebSocket-Version: 13"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_websocket(bench: Bench, upstream: FakeUpstream, fields: tuple[bytes, ...]) -> None:
    await refused(bench, upstream, models(*fields), 501, "upgrade_not_supported", closes=False)


H2C = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA")


@pytest.mark.parametrize(
    ("framing", "body", "payload"),
    [
        pytest.param(b"Content-Length: 5", b"hello", b"hello", id="length"),
        pytest.param(
            b"Transfer-Encoding: chunked", b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", b"hello", id="chunked"
        ),
        pytest.param(b"X-A: b", b"", b"", id="none"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_an_offer_of_http_2_is_ignored(
    bench: Bench, upstream: FakeUpstream, framing: bytes, body: bytes, payload: bytes
) -> None:
    arrived = await accepted(bench, upstream, post(*H2C, framing, body=body))
    assert {one.body for one in arrived} == {payload}
    names = {name.lower() for one in arrived for name, _ in one.headers}
    assert names.isdisjoint({b"upgrade", b"http2-settings", b"connection"})


# What is too large, RFC 9112 §3, RFC 6585 §5.

LONG = b"a" * 17_000
PAD = b"p" * 980


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(head_of(b"GET /" + LONG + b" HTTP/1.1", HOST), id="whole"),
        pytest.param(b"GET /" + LONG, id="without-an-end"),
        pytest.param(b"GET /?" + LONG, id="without-an-end-in-the-query"),
        pytest.param(b"GET http://localhost/" + LONG, id="absolute-without-an-end"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_request_line_that_is_too_long(bench: Bench, upstream: FakeUpstream, data: bytes) -> None:
    proxy = await refused(bench, upstream, data, 414, "uri_too_long", behind=b"", split=False)
    # In many pieces as well.
    (client,) = await send_all(bench, proxy, [[data[at : at + 1000] for at in range(0, len(data), 1000)]])
    await settled([client], ended)
    assert fault_of(client, 414, ["uri_too_long"], closes=True) is None


@pytest_twisted.ensureDeferred
async def test_a_request_line_that_is_just_long(bench: Bench, upstream: FakeUpstream) -> None:
    target = b"/" + b"a" * 16_000
    (arrived,) = await accepted(bench, upstream, get(target), split=False)
    assert arrived.target == target


def many(count: int, width: int = 1) -> list[bytes]:
    return [b"X-%d: %s" % (number, b"v" * width) for number in range(count)]


FIELDS: list[Any] = [
    pytest.param(models(b"X-A: " + b"v" * 70_000), id="one"),
    pytest.param(models(*many(80, 1000)), id="eighty"),
    pytest.param(models(b"X" * 70_000 + b": v"), id="name"),
    pytest.param(models(*many(100)), id="one-too-many"),
    pytest.param(models(*many(5000)), id="thousands"),
    pytest.param(models(b"X-A: " + b"v" * 70_000)[:-4], id="value-without-an-end"),
    pytest.param(models(b"X" * 70_000)[:-4], id="name-without-an-end"),
    pytest.param(models(*many(80, 1000))[:-2], id="eighty-without-an-end"),
    pytest.param(models(*many(120))[:-2], id="too-many-without-an-end"),
]


@pytest.mark.parametrize("data", FIELDS)
@pytest_twisted.ensureDeferred
async def test_fields_that_are_too_large(bench: Bench, upstream: FakeUpstream, data: bytes) -> None:
    proxy = await refused(bench, upstream, data, 431, "headers_too_large", behind=b"", split=False)
    (client,) = await send_all(bench, proxy, [[data[at : at + 4000] for at in range(0, len(data), 4000)]])
    await settled([client], ended)
    assert fault_of(client, 431, ["headers_too_large"], closes=True) is None


@pytest.mark.parametrize(
    "fields", [many(99), many(60, 1000), [b"X-A: " + b"v" * 60_000]], ids=["hundred", "sixty", "one"]
)
@pytest_twisted.ensureDeferred
async def test_fields_that_are_just_not(bench: Bench, upstream: FakeUpstream, fields: list[bytes]) -> None:
    (arrived,) = await accepted(bench, upstream, models(*fields), split=False)
    assert len(arrived.headers) == len(fields) + 1


@pytest_twisted.ensureDeferred
async def test_max_headers_is_a_setting(bench: Bench, upstream: FakeUpstream) -> None:
    settings = {"server": {"max_headers": 4096}}
    await accepted(bench, upstream, models(b"X-A: " + b"v" * 3900), split=False, **settings)
    await refused(
        bench,
        upstream,
        models(b"X-A: " + b"v" * 4400),
        431,
        "headers_too_large",
        split=False,
        closes=False,
        **settings,
    )


# Targets, RFC 9112 §3.2.


@pytest.mark.parametrize(
    "line",
    [
        b"OPTIONS * HTTP/1.1",
        b"GET * HTTP/1.1",
        b"GET foo HTTP/1.1",
        b"GET v1/models HTTP/1.1",
        b"GET @evil.example/x HTTP/1.1",
        b"GET ?x HTTP/1.1",
        b"GET example.com:443 HTTP/1.1",
        b"GET localhost:80 HTTP/1.1",
        b"POST localhost HTTP/1.1",
    ],
)
@pytest_twisted.ensureDeferred
async def test_targets_that_are_none(bench: Bench, upstream: FakeUpstream, line: bytes) -> None:
    await refused(bench, upstream, head_of(line, HOST), 400, "bad_target")


@pytest.mark.parametrize(
    "target",
    [
        b"/?",
        b"//",
        b"//evil.example/x",
        b"/a/../b/./c",
        b"/a;b=1;c?d;e",
        b"/a%2Fb%2f%00%E9",
        b"/%",
        b"/a@b:c",
        b"/~!$&'()*+,=|\\\"<>{}[]^`",
        b"/?a=/?b&&=",
    ],
)
@pytest_twisted.ensureDeferred
async def test_targets_pass_raw(bench: Bench, upstream: FakeUpstream, target: bytes) -> None:
    arrived = await accepted(bench, upstream, get(target))
    assert {one.target for one in arrived} == {target}


# The words of a refusal, and what is known of it afterwards.

SHAPES: list[Any] = [
    pytest.param(
        request(b"/v1/messages", b"anthropic-version: 2023-06-01", b"x-api-key: sk-ant-x", host=b"a/b"),
        lambda got: got.json["error"]["details"]["error_code"],
        id="anthropic",
    ),
    pytest.param(
        request(b"/v1beta/models/gemini-2.5-flash:generateContent", host=b"a/b"),
        lambda got: got.json["error"]["details"][0]["reason"],
        id="google",
    ),
    pytest.param(request(CHAT, host=b"a/b"), lambda got: got.json["error"]["code"], id="openai"),
]


@pytest.mark.parametrize(("data", "code"), SHAPES)
@pytest_twisted.ensureDeferred
async def test_refusals_speak_the_clients_dialect(
    bench: Bench, upstream: FakeUpstream, data: bytes, code: Any
) -> None:
    await refused(bench, upstream, data, 400, "bad_host", code=code)


EVENTS: list[Any] = [
    pytest.param(models(host=None), 400, {"/v1/models"}, id="host"),
    pytest.param(models(b"X A: b"), 400, {"-", "/v1/models"}, id="name"),
    pytest.param(b"GET /v1/models\r\n", 400, {"-", "/v1/models"}, id="0.9"),
    pytest.param(b"\x16\x03\x01\x02\x00\x01\x00", 400, {"-"}, id="tls"),
    pytest.param(models(version=b"HTTP/2.0"), 505, {"-", "/v1/models"}, id="version"),
    pytest.param(head_of(b"FOO /v1/models HTTP/1.1", HOST), 501, {"-", "/v1/models"}, id="method"),
    pytest.param(b"GET /" + LONG, 414, {"/" + LONG.decode()[:1000]}, id="line"),
    pytest.param(models(*many(5000)), 431, {"-", "/v1/models"}, id="fields"),
    pytest.param(post(b"Content-Length: x"), 400, {"-", "/v1/files"}, id="framing"),
    pytest.param(post(b"Content-Length: 9223372036854775807"), 413, {"/v1/files"}, id="length"),
]


@pytest.mark.parametrize(("data", "status", "paths"), EVENTS)
@pytest_twisted.ensureDeferred
async def test_one_event_tells_of_each(
    bench: Bench, upstream: FakeUpstream, data: bytes, status: int, paths: set[str]
) -> None:
    upstream.scripts = [[OK]]
    proxy = bench.proxy()
    client = await bench.client(proxy)
    client.send(data)
    got = await client.answer()
    await turns()
    (finished,) = proxy.finished
    assert (got.status, finished.status, finished.end) == (status, status, End.COMPLETE)
    assert finished.code == got.json["error"]["code"]
    assert finished.path in paths
    assert not proxy.daemon.pipeline.active
    proxy.daemon._requests.flush()
    assert f" {status} " in proxy.log.getvalue()
