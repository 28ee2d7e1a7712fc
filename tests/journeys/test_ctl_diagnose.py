"""``llmproxyctl diagnose``: a bundle that tells much, and no secret."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import raw
from daemon import Daemon, environment

CTL = (sys.executable, "-m", "llmproxyd.admin.ctl")

CANARIES = {
    "key": "sk-canary0upstream0key0123456789",
    "keys": "sk-canary0second0key0123456789ab",
    "header": "canary-header-value-0123456789",
    "admin": "canary-admin-token-0123456789",
    "proxy": "canaryproxypassword0123",
    "redis": "canaryredispassword0123",
    "webhook": "canary-webhook-token-0123456789",
    "hook": "canary-path-of-hook-0123456789",
    "client": "sk-canary0of0the0client0123456789",
    "query": "canary-key-in-the-query-0123456789",
    "body": "canary words of the prompt",
    "cookie": "canary-cookie-0123456789",
    "secret": "canary-secret-key-0123456789abcdef",
    "project": "sk-canary0project0credential0123",
}


def settings(folder: Path) -> str:
    return f"""\
upstreams:
  openai:
    api_key: {CANARIES["key"]}
    headers: {{x-secret: {CANARIES["header"]}}}
    base_url: http://127.0.0.1:1
  mine:
    provider: openai
    api_keys: [{CANARIES["keys"]}]
    base_url: http://127.0.0.1:2
    proxy: "http://user:{CANARIES["proxy"]}@127.0.0.1:3"
access: {{enabled: true, secret_key: {CANARIES["secret"]}}}
cache: {{enabled: true, redis_url: "redis://:{CANARIES["redis"]}@127.0.0.1:4/0"}}
events:
  dispatch:
    - to: webhook
      url: "http://127.0.0.1:5/{CANARIES["hook"]}"
      headers: {{authorization: "Bearer {CANARIES["webhook"]}"}}
logging: {{enabled: true, folder: logs}}
error_logging: {{enabled: true, folder: logs/errors}}
admin: {{token: {CANARIES["admin"]}}}
resilience: {{default: {{retry: {{max_retries: 1, base_delay: 10ms}}, breaker: {{enabled: true}}}}}}
"""


def ctl(folder: Path, *arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*CTL, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=folder,
        env=environment(folder, {**folders(folder), **(env or {})}),
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def folders(folder: Path) -> dict[str, str]:
    return {"STATE_DIRECTORY": str(folder / "state"), "RUNTIME_DIRECTORY": str(folder / "run")}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("diagnose")
    for name in ("state", "run"):
        (folder / name).mkdir()
    file = folder / "llmproxyd.yaml"
    file.write_text(settings(folder))
    file.chmod(0o600)
    with Daemon("--config", str(file), stdin="null", env=folders(folder)) as daemon:
        made = ctl(folder, "project", "create", "p", "--credential", f"openai={CANARIES['project']}")
        assert made.returncode == 0, made.stderr
        token = ctl(folder, "token", "create", "--project", "p").stdout.strip()
        assert token.startswith("sk-")
        (folder / "token").write_text(token)
        for fields in (
            {"Authorization": f"Bearer {token}"},
            {"Authorization": f"Bearer {CANARIES['client']}"},
            {"x-api-key": CANARIES["client"], "Cookie": CANARIES["cookie"]},
        ):
            body = {"model": "gpt-4o", "messages": [{"role": "user", "content": CANARIES["body"]}]}
            path = f"/v1/chat/completions?key={CANARIES['query']}"
            assert raw.ask(daemon.url, path, fields, body).status >= 400
        yield folder


def members(file: Path) -> dict[str, str]:
    with tarfile.open(file) as bundle:
        found = {}
        for one in bundle.getmembers():
            assert one.isfile()
            stream = bundle.extractfile(one)
            assert stream is not None
            found[one.name.partition("/")[2]] = stream.read().decode()
        return found


def test_no_member_holds_a_secret_or_a_body(place: Path) -> None:
    done = ctl(place, "diagnose", "-o", "bundle.tar.gz")
    assert done.returncode == 0, done.stderr
    found = members(place / "bundle.tar.gz")
    secrets = {**CANARIES, "token": (place / "token").read_text()}
    for name, text in {**found, "output": done.stdout + done.stderr}.items():
        for what, canary in secrets.items():
            assert canary not in text, (name, what)
    # The canaries were where they could have come from.
    assert len(json.loads(found["requests.json"])) == 3
    assert json.loads(found["errors.json"])["total_files"] >= 1
    assert "[redacted]" in found["config.json"]


def test_it_tells_what_a_bug_report_needs(place: Path) -> None:
    done = ctl(place, "diagnose", "--output", "told.tar.gz", "--json")
    told = json.loads(done.stdout)
    found = members(place / "told.tar.gz")
    assert {one["name"] for one in told["files"]} | {"README.txt"} == set(found)
    assert told["missing"] == []
    client = json.loads(found["client.json"])
    assert "twisted" in {name.lower() for name in client["packages"]}
    assert json.loads(found["version.json"])["llmproxyd"] == client["llmproxyctl"]
    assert json.loads(found["status.json"])["serving"]["ready"] is True
    assert "openai" in [row["name"] for row in json.loads(found["upstreams.json"])["upstreams"]]
    assert "llmproxyd_requests_total" in found["metrics.txt"]
    assert "peer" not in found["requests.json"]
    for name in told["files"]:
        assert name["name"] in found["README.txt"]


def test_it_is_for_its_owner_alone_and_overwrites_nothing(place: Path) -> None:
    assert ctl(place, "diagnose", "-o", "mine.tar.gz").returncode == 0
    file = place / "mine.tar.gz"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    before = file.read_bytes()
    again = ctl(place, "diagnose", "-o", "mine.tar.gz")
    assert again.returncode == 1
    assert "nothing was written" in again.stderr
    assert file.read_bytes() == before
    assert ctl(place, "diagnose", "-o", "nowhere/x.tar.gz").returncode == 1


def test_without_a_daemon_it_has_what_is_known_without(tmp_path: Path) -> None:
    env = {"LLMPROXYD_ADMIN_TOKEN": CANARIES["admin"]}
    done = ctl(tmp_path, "--socket", str(tmp_path / "nowhere"), "diagnose", env=env)
    assert done.returncode == 0, done.stderr
    [file] = tmp_path.glob("llmproxyd-diagnose-*.tar.gz")
    assert str(file.name) in done.stdout
    found = members(file)
    assert set(found) == {"client.json", "README.txt"}
    assert "status.json" in found["README.txt"]
    assert "no daemon answers" in done.stdout
    assert all(CANARIES["admin"] not in text for text in found.values())
