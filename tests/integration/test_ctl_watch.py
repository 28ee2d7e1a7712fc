"""The admin API tells metrics and the error log; ``top`` and ``diagnose`` do without what is off."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_twisted
from adminbench import TOKEN, AdminBench, UnixConnection, exchange, reactor
from test_ctl_completion import Places
from twisted.internet.defer import ensureDeferred, maybeDeferred, succeed
from twisted.internet.endpoints import serverFromString
from twisted.internet.threads import deferToThread

from llmproxyd.admin.site import make_admin
from llmproxyd.admin.socket import endpoint
from llmproxyd.control.means import Means
from llmproxyd.redaction import Secret

PAGE = b'llmproxyd_requests_total{upstream="openai",status="200"} 3.0\n'
MEDIA = b"text/plain; version=0.0.4; charset=utf-8"


@pytest.fixture
def admin(tmp_path: Path) -> Iterator[AdminBench]:
    made = pytest_twisted.blockon(ensureDeferred(AdminBench(tmp_path).listen()))
    made.control.means = Means(places=Places())
    yield made
    pytest_twisted.blockon(ensureDeferred(made.close()))


@pytest.fixture
def watched(admin: AdminBench, tmp_path: Path) -> Iterator[Path]:
    """The socket of one that has metrics, a journal and an error log."""
    operations = replace(
        admin.operations,
        metrics=lambda: (PAGE, MEDIA),
        errors=lambda: succeed({"total_files": 0}),
        requests=lambda limit: [{"id": "req_1", "status": 200, "path": "/v1/models"}][:limit],
    )
    site = make_admin(
        operations,
        reactor=reactor,
        token=Secret(TOKEN),
        admit=admin.admit,
        denied=admin.denied.append,
        uid=None,
    )
    path = tmp_path / "watched.sock"
    port = pytest_twisted.blockon(serverFromString(reactor, endpoint(path)).listen(site))
    yield path
    pytest_twisted.blockon(maybeDeferred(port.stopListening))


async def ctl(socket: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "llmproxyd.admin.ctl", "--socket", str(socket), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            cwd=socket.parent,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
        )

    done = await deferToThread(run)
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest_twisted.ensureDeferred
async def test_metrics_are_a_page_of_text(watched: Path) -> None:
    for method, body in (("GET", PAGE), ("HEAD", b"")):
        reply = await deferToThread(exchange, UnixConnection(watched), method, "/admin/v1/metrics", None, {})
        assert (reply.status, reply.data) == (200, body)
        assert reply.headers["content-type"] == MEDIA.decode()
        assert reply.headers["cache-control"] == "no-store"
    reply = await deferToThread(exchange, UnixConnection(watched), "GET", "/admin/v1/errors", None, {})
    assert reply.json == {"total_files": 0}
    document = (
        await deferToThread(exchange, UnixConnection(watched), "GET", "/admin/v1/openapi.json", None, {})
    ).json
    assert list(document["paths"]["/metrics"]["get"]["responses"]["200"]["content"]) == ["text/plain"]


@pytest_twisted.ensureDeferred
async def test_what_is_off_says_so(admin: AdminBench) -> None:
    for path, code in (("/metrics", "metrics_disabled"), ("/errors", "error_log_disabled")):
        reply = await admin.ask("GET", path)
        assert (reply.status, reply.code) == (404, code)


@pytest_twisted.ensureDeferred
async def test_they_are_for_administrators_alone(admin: AdminBench) -> None:
    for path in ("/metrics", "/errors"):
        assert (await admin.ask("GET", path, tcp=True, token=None)).status == 401


@pytest_twisted.ensureDeferred
async def test_top_shows_what_there_is(admin: AdminBench, watched: Path) -> None:
    full = await ctl(watched, "top", "--once", "--interval", "100ms")
    assert (full.returncode, full.stderr) == (0, "")
    assert "req_1" in full.stdout
    bare = await ctl(admin.socket, "top", "--once", "--interval", "100ms")
    assert (bare.returncode, bare.stderr) == (0, "")
    assert "my-vllm" in bare.stdout
    assert "req_1" not in bare.stdout
    told = json.loads((await ctl(admin.socket, "top", "--once", "--interval", "100ms", "--json")).stdout)
    assert (told["p50"], told["connections"]) == (None, None)


@pytest_twisted.ensureDeferred
async def test_diagnose_says_what_is_missing_and_why(admin: AdminBench) -> None:
    done = await ctl(admin.socket, "diagnose", "-o", "x.tar.gz", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert {one["name"] for one in told["missing"]} == {"requests.json", "errors.json", "metrics.txt"}
    assert "metrics.enabled" in next(one["why"] for one in told["missing"] if one["name"] == "metrics.txt")
    with tarfile.open(admin.socket.parent / "x.tar.gz") as bundle:
        names = {name.partition("/")[2] for name in bundle.getnames()}
    assert "config.json" in names
    assert "metrics.txt" not in names


@pytest_twisted.ensureDeferred
async def test_wait_ready_finds_the_daemon(admin: AdminBench) -> None:
    done = await ctl(admin.socket, "wait-ready", "--timeout", "10s")
    assert (done.returncode, done.stderr) == (0, "")
