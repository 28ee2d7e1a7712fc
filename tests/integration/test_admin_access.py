"""Who is let in to the admin API, and what hostile callers come to."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from adminbench import TOKEN, AdminBench
from twisted.internet.defer import ensureDeferred
from twisted.internet.threads import deferToThread

from llmproxyd.admin.body import MAX_BODY
from llmproxyd.admin.gate import BURST
from llmproxyd.admin.site import CONNECTIONS, PATIENCE


@pytest.fixture
def admin(tmp_path: Path) -> Iterator[AdminBench]:
    made = pytest_twisted.blockon(ensureDeferred(AdminBench(tmp_path).listen()))
    yield made
    pytest_twisted.blockon(ensureDeferred(made.close()))


@pytest_twisted.ensureDeferred
async def test_own_user_is_let_in_over_the_socket_which_is_private(admin: AdminBench) -> None:
    assert (await admin.ask("GET", "/status")).status == 200
    assert stat.S_IMODE(admin.socket.stat().st_mode) == 0o600


@pytest_twisted.ensureDeferred
async def test_other_user_is_not_let_in_over_the_socket(admin: AdminBench, monkeypatch: Any) -> None:
    monkeypatch.setattr("llmproxyd.admin.gate.peer_uid", lambda transport, owner: 54321)
    reply = await admin.ask("GET", "/status")
    assert (reply.status, reply.code) == (401, "token_missing")
    let_in = await admin.ask("GET", "/status", headers={"Authorization": f"Bearer {TOKEN}"})
    assert let_in.status == 200


AS_USER = """
import os, socket, sys
os.setuid(int(sys.argv[1]))
with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
    client.settimeout(10)
    client.connect(sys.argv[2])
    client.sendall(b"GET /admin/v1/status HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
    print(client.recv(12).decode())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
@pytest_twisted.ensureDeferred
async def test_system_tells_who_the_peer_is() -> None:
    """A process of another user, on a socket that (wrongly) everybody may use."""

    def ask(uid: int) -> str:
        command = [sys.executable, "-c", AS_USER, str(uid), str(admin.socket)]
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout

    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)
        admin = await AdminBench(Path(folder)).listen()
        try:
            admin.socket.chmod(0o666)
            assert await deferToThread(ask, 65534) == "HTTP/1.1 401\n"
            assert await deferToThread(ask, 0) == "HTTP/1.1 200\n"
        finally:
            await admin.close()


@pytest.mark.parametrize(
    ("presented", "code"),
    [
        (None, "token_missing"),
        ("Bearer", "token_missing"),
        (f"Basic {TOKEN}", "token_missing"),
        ("Bearer wrong", "token_not_found"),
        (f"Bearer {TOKEN}x", "token_not_found"),
        (f"Bearer {TOKEN[:-1]}", "token_not_found"),
        ("Bearer sk-0123456789012345678901", "token_not_found"),
        ("Bearer " + "x" * 5000, "token_missing"),
        ("Bearer \xff\xfe", "token_not_found"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_wrong_token_is_refused_on_tcp(admin: AdminBench, presented: str | None, code: str) -> None:
    headers = {} if presented is None else {"Authorization": presented}
    for path in ("/status", "/openapi.json", "/nothing"):
        reply = await admin.ask("GET", path, tcp=True, token=None, headers=headers)
        assert (reply.status, reply.code) == (401, code)
        assert reply.headers["WWW-Authenticate"].startswith("Bearer")
    assert [one.address for one in admin.denied] == ["127.0.0.1"] * (3 if code == "token_not_found" else 0)


@pytest_twisted.ensureDeferred
async def test_nothing_of_a_wrong_token_is_told(admin: AdminBench) -> None:
    reply = await admin.ask("GET", "/status", tcp=True, token="a-wrong-token-indeed")
    assert b"wrong-token" not in reply.data
    assert "wrong-token" not in repr(admin.denied)


@pytest_twisted.ensureDeferred
async def test_address_with_many_wrong_tokens_has_to_wait(admin: AdminBench) -> None:
    statuses = [(await admin.ask("GET", "/status", tcp=True, token="no")).status for _ in range(BURST + 3)]
    assert statuses == [401] * BURST + [429] * 3
    reply = await admin.ask("GET", "/status", tcp=True)
    assert (reply.status, reply.code) == (429, "too_many_failures")
    assert 1 <= int(reply.headers["Retry-After"]) <= 6
    assert (await admin.ask("GET", "/status")).status == 200, "the socket is another door"


@pytest_twisted.ensureDeferred
async def test_project_token_needs_the_scope_admin(admin: AdminBench) -> None:
    await admin.ask("POST", "/projects", {"name": "p"})
    plain = (await admin.ask("POST", "/tokens", {"project": "p"})).json["token"]
    able = (await admin.ask("POST", "/tokens", {"project": "p", "scopes": ["admin"]})).json
    refused = await admin.ask("GET", "/status", tcp=True, token=plain)
    assert (refused.status, refused.code) == (403, "scope_missing")
    await admin.ask("POST", "/projects", {"name": "q"}, tcp=True, token=able["token"])
    assert admin.audited[-1].who == f"token {able['id']}"
    admin.store.down = True
    reply = await admin.ask("GET", "/status", tcp=True, token=able["token"])
    assert (reply.status, reply.code) == (503, "store_unavailable")


@pytest_twisted.ensureDeferred
async def test_web_pages_are_kept_out(admin: AdminBench) -> None:
    for headers, code in (
        ({"Origin": "http://localhost:8888"}, "origin_not_allowed"),
        ({"Origin": "null"}, "origin_not_allowed"),
        ({"Host": "evil.example"}, "host_not_allowed"),
        ({"Host": "127.0.0.1.evil.example:80"}, "host_not_allowed"),
        ({"Host": "a b"}, "bad_host"),
        ({"Host": ""}, "bad_host"),
    ):
        reply = await admin.ask("GET", "/status", tcp=True, headers=headers)
        assert (reply.status in (400, 403), reply.code) == (True, code), headers
    for host in ("localhost", f"localhost:{admin.port}", "127.0.0.1", "[::1]:80"):
        assert (await admin.ask("GET", "/status", tcp=True, headers={"Host": host})).status == 200


HOSTILE: list[tuple[bytes, int]] = [
    (b"", 400),
    (b"null", 400),
    (b"[]", 400),
    (b'"x"', 400),
    (b"{", 400),
    (b'{"name": NaN}', 400),
    (b'{"name": -Infinity}', 400),
    (b'{"name": "a", "name": "b"}', 400),
    (b'{"name": "a", "limits": {"rpm": 1e999}}', 400),
    (b'{"name": "a", "limits": {"rpm": ' + b"9" * 5000 + b"}}", 400),
    (b'{"name": "a", "limits": {"rpm": 1.5}}', 400),
    (b'{"name": "\\ud800"}', 400),
    (b'{"name": "a\\u0000b"}', 400),
    (b'{"name": "a\\u001b[31m"}', 400),
    (b'{"name": "\xff"}', 400),
    (b"\xfe\xff\x00{\x00}", 400),
    (b'{"a":' * 5000 + b"1" + b"}" * 5000, 400),
    (b"[" * 100000, 400),
    (b'{"name": {"$ne": null}}', 400),
    (b'{"name": "a", "__proto__": {}}', 400),
    (b'{"name": "' + b"a" * 101 + b'"}', 400),
    (b"{" + b",".join(b'"m%d": 1' % number for number in range(5000)) + b"}", 400),
    (b" " * (MAX_BODY + 1), 413),
    (b'{"name": "one point nought", "limits": {"rpm": 1.0}}', 201),
]


@pytest.mark.parametrize(("body", "status"), HOSTILE, ids=[str(number) for number in range(len(HOSTILE))])
@pytest_twisted.ensureDeferred
async def test_hostile_body_is_refused_in_words(admin: AdminBench, body: bytes, status: int) -> None:
    reply = await admin.ask("POST", "/projects", raw=body)
    assert reply.status == status, reply
    assert len(reply.data) < 20_000
    if status != 201:
        assert reply.json["error"]["message"]
        assert admin.audited == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/json; charset=utf-16"},
        {"Content-Type": ""},
        {"Content-Encoding": "gzip"},
    ],
)
@pytest_twisted.ensureDeferred
async def test_body_that_is_not_json_is_refused(admin: AdminBench, headers: dict[str, str]) -> None:
    reply = await admin.ask("POST", "/projects", {"name": "p"}, headers=headers)
    assert reply.status == 415
    assert admin.audited == []


@pytest_twisted.ensureDeferred
async def test_endless_body_is_not_kept_and_the_connection_ends(admin: AdminBench) -> None:
    def send() -> int:
        sent = 0
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(10)
            client.connect(str(admin.socket))
            head = b"POST /admin/v1/projects HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            client.sendall(head)
            piece = b"10000\r\n" + b" " * 65536 + b"\r\n"
            try:
                while sent < 64 * PATIENCE:
                    client.sendall(piece)
                    sent += len(piece)
            except OSError:
                pass
        return sent

    assert await deferToThread(send) < 16 * PATIENCE
    assert (await admin.ask("GET", "/status")).status == 200


@pytest_twisted.ensureDeferred
async def test_connections_are_bounded_and_given_back(admin: AdminBench) -> None:
    def many() -> int:
        clients = []
        refused = 0
        for _ in range(CONNECTIONS + 5):
            client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            client.connect(str(admin.socket))  # waits where as many as the system holds wait already
            client.settimeout(10)
            clients.append(client)
        for client in clients:
            try:
                client.sendall(b"GET /admin/v1/status HTTP/1.1\r\nHost: x\r\n\r\n")
                refused += not client.recv(10)
            except OSError:
                refused += 1
            client.close()
        return refused

    assert await deferToThread(many) == 5
    assert (await admin.ask("GET", "/status")).status == 200


@pytest_twisted.ensureDeferred
async def test_odd_paths_reach_nothing(admin: AdminBench) -> None:
    for path in (
        "/projects/%00",
        "/projects/..%2f..%2fetc",
        "/projects/" + "a" * 2000,
        "/tokens/%F0%9F%92%A9",
        "/tokens/sha256:zz",
        "/projects/%ed%a0%80",
        "/admin/v1/../v1/status",
        "/admin//v1/status",
    ):
        assert (await admin.ask("GET", path)).status == 404, path


@pytest_twisted.ensureDeferred
async def test_change_goes_through_although_its_caller_has_left(admin: AdminBench) -> None:
    def leave() -> None:
        body = b'{"name": "p"}'
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.connect(str(admin.socket))
            head = b"POST /admin/v1/projects HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            client.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)

    await deferToThread(leave)
    for _ in range(100):
        if admin.audited:
            break
        await admin.ask("GET", "/status")
    assert [one["name"] for one in (await admin.ask("GET", "/projects")).json["projects"]] == ["p"]
