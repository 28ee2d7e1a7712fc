"""``llmproxyctl`` as a process of its own, against a live admin listener."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from adminbench import KEY, TOKEN, AdminBench
from twisted.internet.defer import ensureDeferred
from twisted.internet.threads import deferToThread

from llmproxyd.access.tokens import digest_of
from llmproxyd.cache.interface import Purge
from llmproxyd.store.interface import Used

COMMAND = [sys.executable, "-m", "llmproxyd.admin.ctl"]


@pytest.fixture
def admin(tmp_path: Path) -> Iterator[AdminBench]:
    made = pytest_twisted.blockon(ensureDeferred(AdminBench(tmp_path).listen()))
    yield made
    pytest_twisted.blockon(ensureDeferred(made.close()))


class Done:
    """What a process came to."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status = status
        self.out = out
        self.err = err

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    def __repr__(self) -> str:
        return f"<{self.status} out={self.out!r} err={self.err!r}>"


def environment(folder: Path, **more: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(folder), "LC_ALL": "C.UTF-8", **more}


def run(folder: Path, *arguments: str, stdin: str = "", env: Mapping[str, str] | None = None) -> Done:
    done = subprocess.run(
        [*COMMAND, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        env=environment(folder, **(env or {})),
        cwd=folder,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Done(done.returncode, done.stdout, done.stderr)


async def ctl(admin: AdminBench, *arguments: str, stdin: str = "", **env: str) -> Done:
    folder = admin.socket.parent
    found = env or {"LLMPROXYD_ADMIN_SOCKET": str(admin.socket)}
    return await deferToThread(run, folder, *arguments, stdin=stdin, env=found)


@pytest_twisted.ensureDeferred
async def test_team_is_set_up_by_the_readme(admin: AdminBench) -> None:
    key = admin.socket.parent / "openai.key"
    key.write_text(KEY + "\n")
    made = await ctl(admin, "project", "create", "team-a", "--credential", f"openai=@{key}", "--rpm", "600")
    assert made.status == 0, made
    assert "team-a" in made.out
    assert made.err == ""
    project = (await admin.store.projects())[0]
    assert project.credentials["openai"].reveal() == KEY
    assert project.limits.rpm == 600
    token = await ctl(
        admin, "token", "create", "--project", "team-a", "--name", "ci", "--expires", "30d",
        "--max-requests", "5", "--rpm", "60", "--tpm", "1000", "--scope", "fault", "--scope", "admin",
    )  # fmt: skip
    assert token.status == 0, token
    secret = token.out.strip()
    assert len(secret) == 25
    assert "shown this once" in token.err
    stored = await admin.store.token_by_digest(digest_of(secret))
    assert stored is not None
    assert (stored.max_requests, stored.limits.rpm, stored.limits.tpm, len(stored.scopes)) == (5, 60, 1000, 2)
    listed = await ctl(admin, "token", "list")
    assert secret not in listed.out
    assert secret[:7] in listed.out
    revoked = await ctl(admin, "token", "revoke", secret)
    assert revoked.status == 0, revoked
    assert "inactive" in revoked.out
    for done in (made, token, listed, revoked):
        assert KEY not in done.out + done.err


@pytest_twisted.ensureDeferred
async def test_project_verbs(admin: AdminBench) -> None:
    await ctl(admin, "project", "create", "p", "--credential", "my-vllm=", "--allow-param", "model=a,b-*")
    updated = await ctl(
        admin, "project", "update", "p", "--rpm", "9", "--credential", "openai=-", "--remove-credential", "my-vllm",
        "--allow-method", "POST", "--allow-param", "none", "--json", stdin=KEY + "\n",
    )  # fmt: skip
    assert updated.json["limits"] == {"rpm": 9, "tpm": None}
    assert updated.json["credentials"] == {"openai": "[set]"}
    assert updated.json["allow"]["methods"] == ["POST"]
    assert updated.json["allow"]["params"] == {}
    assert (await ctl(admin, "project", "deactivate", "p", "--json")).json["active"] is False
    assert (await ctl(admin, "project", "activate", "p", "--json")).json["active"] is True
    assert (await ctl(admin, "project", "show", "p", "--json")).json["name"] == "p"
    rotated = await ctl(admin, "project", "rotate", "p", "--credential", "openai=-", stdin="newkey\n")
    assert rotated.status == 0, rotated
    assert (await admin.store.projects())[0].credentials["openai"].reveal() == "newkey"
    listed = await ctl(admin, "project", "list")
    assert listed.out.splitlines()[0].split()[:3] == ["NAME", "ID", "ACTIVE"]
    gone = await ctl(admin, "project", "delete", "p")
    assert gone.status == 0
    assert await admin.store.projects() == []


@pytest_twisted.ensureDeferred
async def test_token_verbs(admin: AdminBench) -> None:
    await ctl(admin, "project", "create", "p")
    made = (await ctl(admin, "--json", "token", "create", "--project", "p", "--name", "ci")).json
    assert (await ctl(admin, "token", "deactivate", "ci", "--json")).json["state"] == "inactive"
    assert (await ctl(admin, "token", "activate", "ci", "--json")).json["state"] == "active"
    changed = await ctl(
        admin, "token", "update", "ci", "--expires", "2030-01-01", "--scope", "fault", "--json"
    )
    assert (changed.json["expires"], changed.json["scopes"]) == ("2030-01-01T00:00:00Z", ["fault"])
    cleared = await ctl(admin, "token", "update", "ci", "--expires", "never", "--scope", "none", "--json")
    assert (cleared.json["expires"], cleared.json["scopes"]) == (None, [])
    rotated = (await ctl(admin, "token", "rotate", made["token"], "--grace", "1h", "--json")).json
    assert rotated["replaces"] == made["id"]
    assert (await ctl(admin, "token", "show", rotated["id"], "--json")).json["name"] == "ci"
    assert (await ctl(admin, "token", "delete", rotated["id"])).status == 0
    assert len((await ctl(admin, "token", "list", "--project", "p", "--json")).json) == 1


@pytest_twisted.ensureDeferred
async def test_watching_verbs(admin: AdminBench) -> None:
    await ctl(admin, "project", "create", "p", "--id", "proj_p")
    used = Used("tok_x", "proj_p", "gpt-4o", "2025-06-01", 1.0, requests=3, input=10, output=20, cost=0.5)
    await admin.store.count([used])
    usage = await ctl(admin, "usage", "--by", "project", "--since", "30d")
    assert usage.out.splitlines()[2].split() == ["p", "proj_p", "3", "10", "20", "0.5"]
    assert (await ctl(admin, "usage", "--by", "model", "--json")).json["usage"][0]["name"] == "gpt-4o"
    assert "entries" in (await ctl(admin, "cache", "stats")).out
    assert "version" in (await ctl(admin, "status")).out
    assert "[redacted]" in (await ctl(admin, "config", "show")).out
    tested = await ctl(admin, "test", "openai")
    assert (tested.status, tested.out.splitlines()[0]) == (0, "openai: answers")


@pytest_twisted.ensureDeferred
async def test_switching_verbs(admin: AdminBench) -> None:
    assert "Rate limit exceeded" in (await ctl(admin, "fault", "r", "3", "retry_after=2")).out
    assert (await ctl(admin, "fault", "--json")).json["mode"]["remaining"] == 3
    assert "No error" in (await ctl(admin, "fault", "n")).out
    assert "every request" in (await ctl(admin, "fault", "c", "*")).out
    assert "open" in (await ctl(admin, "breaker", "trip", "openai")).out
    assert "closed" in (await ctl(admin, "breaker", "reset", "openai")).out
    assert "openai" in (await ctl(admin, "breaker")).out
    assert (await ctl(admin, "breaker", "show")).out == (await ctl(admin, "breaker")).out
    purged = await ctl(admin, "cache", "purge", "--url", "openai /v1/models")
    assert purged.out == "Entries purged: 3\n"
    await ctl(admin, "cache", "purge", "--all")
    assert admin.cache.purged == [Purge(url=b"openai /v1/models"), Purge(everything=True)]
    assert (await ctl(admin, "key", "rotate", "--to", "-", stdin="0123456789abcdef\n")).status == 0


@pytest_twisted.ensureDeferred
async def test_refusal_is_told_with_its_code_and_all_problems(admin: AdminBench) -> None:
    refused = await ctl(admin, "project", "create", "p", "--credential", "opnai=-", "--rpm", "0", stdin="k\n")
    assert refused.status == 1
    assert refused.out == ""
    assert 'did you mean "openai"?' in refused.err
    assert "/limits/rpm" in refused.err
    assert "(invalid_body)" in refused.err
    missing = await ctl(admin, "token", "show", "nope")
    assert (missing.status, missing.out) == (1, "")
    assert "(no_such_token)" in missing.err


@pytest_twisted.ensureDeferred
async def test_key_on_the_command_line_is_warned_about_and_not_told_again(admin: AdminBench) -> None:
    done = await ctl(admin, "project", "create", "p", "--credential", f"openai={KEY}")
    assert done.status == 0
    assert "ps" in done.err
    assert "--credential openai=@FILE" in done.err
    assert KEY not in done.out + done.err


@pytest_twisted.ensureDeferred
async def test_tcp_with_a_token(admin: AdminBench) -> None:
    url = f"http://127.0.0.1:{admin.port}"
    file = admin.socket.parent / "token"
    file.write_text(TOKEN + "\n")
    assert (await ctl(admin, "--url", url, "--token-file", str(file), "status")).status == 0
    assert (await ctl(admin, "status", "--url", url, LLMPROXYD_ADMIN_TOKEN=TOKEN)).status == 0
    refused = await ctl(admin, "--url", url, "status", NOTHING="1")
    assert refused.status == 1
    assert "--token-file" in refused.err
    purged = await ctl(
        admin, "--url", url, "cache", "purge", "--url", "openai /x", LLMPROXYD_ADMIN_TOKEN=TOKEN
    )
    assert purged.status == 0, purged


def test_without_a_daemon_it_says_where_it_looked(tmp_path: Path) -> None:
    done = run(tmp_path, "status", env={"XDG_RUNTIME_DIR": str(tmp_path / "run")})
    assert (done.status, done.out) == (3, "")
    assert str(tmp_path / "run/llmproxyd/admin.sock: missing") in done.err
    assert str(tmp_path / ".local/state/llmproxyd/admin.sock: missing") in done.err
    assert "--socket" in done.err
    assert run(tmp_path, "--socket", str(tmp_path / "x"), "status").status == 3
    assert run(tmp_path, "--url", "http://127.0.0.1:1", "status").status == 3


@pytest_twisted.ensureDeferred
async def test_socket_is_found_in_the_state_folder_too(tmp_path: Path) -> None:
    folder = tmp_path / ".local" / "state" / "llmproxyd"
    folder.mkdir(parents=True)
    admin = await AdminBench(folder).listen()
    env = {"XDG_RUNTIME_DIR": str(tmp_path)}
    done = await deferToThread(run, tmp_path, "status", env=env)
    await admin.close()
    assert done.status == 0, done


USAGE: list[list[str]] = [
    [],
    ["nope"],
    ["project"],
    ["project", "create"],
    ["project", "rotate", "p"],
    ["token", "create"],
    ["token", "create", "--project", "p", "--rpm", "-1"],
    ["token", "create", "--project", "p", "--scope", "root"],
    ["cache", "purge"],
    ["cache", "purge", "--all", "--prefix", "x"],
    ["breaker", "trip"],
    ["breaker", "show", "openai"],
    ["project", "update", "p"],
    ["token", "update", "t"],
    ["--url", "nonsense", "status"],
    ["--url", "http://u:p@host", "status"],
    ["--socket", "a", "--url", "http://b", "status"],
    ["project", "update", "p", "--allow-param", "model"],
]


@pytest.mark.parametrize("arguments", USAGE, ids=" ".join)
def test_usage_mistake_is_status_2(tmp_path: Path, arguments: list[str]) -> None:
    done = run(tmp_path, *arguments)
    assert (done.status, done.out) == (2, "")
    assert done.err


def test_other_server_is_told_from_a_daemon(tmp_path: Path) -> None:
    import http.server
    import threading

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>")

        def log_message(self, *args: object) -> None: ...

    with http.server.HTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        done = run(tmp_path, "--url", f"http://127.0.0.1:{server.server_port}", "status")
    assert done.status == 1
    assert "no llmproxyd admin API" in done.err


@pytest_twisted.ensureDeferred
async def test_reader_that_leaves_is_no_error(admin: AdminBench) -> None:
    for number in range(200):
        await admin.ask("POST", "/projects", {"name": f"project-{number:03}"})

    def piped() -> tuple[bytes, bytes]:
        command = " ".join(COMMAND) + " project list | head -1"
        env = environment(admin.socket.parent, LLMPROXYD_ADMIN_SOCKET=str(admin.socket))
        done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, timeout=60, env=env)
        return done.stdout, done.stderr

    out, err = await deferToThread(piped)
    assert out.startswith(b"NAME")
    assert err == b""


@pytest_twisted.ensureDeferred
async def test_key_is_asked_for_at_a_terminal_and_not_echoed(admin: AdminBench) -> None:
    def typed() -> tuple[int, str]:
        child, terminal = pty.fork()
        if child == 0:
            env = environment(admin.socket.parent, LLMPROXYD_ADMIN_SOCKET=str(admin.socket))
            os.execve(COMMAND[0], [*COMMAND, "project", "create", "p", "--credential", "openai"], env)
        seen, sent = b"", False
        ends = time.monotonic() + 30
        while time.monotonic() < ends:
            if not select.select([terminal], [], [], 1)[0]:
                continue
            try:
                data = os.read(terminal, 4096)
            except OSError:
                break
            if not data:
                break
            seen += data
            if not sent and b"key for openai: " in seen:
                os.write(terminal, KEY.encode() + b"\n")
                sent = True
        _, status = os.waitpid(child, 0)
        os.close(terminal)
        return os.waitstatus_to_exitcode(status), seen.decode()

    status, seen = await deferToThread(typed)
    assert status == 0, seen
    assert KEY not in seen
    assert (await admin.store.projects())[0].credentials["openai"].reveal() == KEY


def test_interrupt_is_quiet(tmp_path: Path) -> None:
    import socket

    path = tmp_path / "deaf.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as deaf:
        deaf.bind(str(path))
        deaf.listen(1)
        process = subprocess.Popen(
            [*COMMAND, "--socket", str(path), "status"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(tmp_path),
        )
        connection, _ = deaf.accept()
        for patience in (5, 5, 30):  # an operator presses again, too: the interpreter may have swallowed it
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                out, err = process.communicate(timeout=patience)
                break
        connection.close()
    assert (process.returncode, out, err) == (130, b"", b"")
