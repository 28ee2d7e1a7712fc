"""The command line: every mistake is one clear line and exit status 1."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent


def run(
    *arguments: str, cwd: Path, program: str = "twistd", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the daemon's command to its end."""
    words = [str(BIN / "twistd"), "-n", "llmproxy"] if program == "twistd" else [str(BIN / program)]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("LLMPROXYD_")}
    return subprocess.run(
        [*words, *arguments],
        cwd=cwd,
        env=clean | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--bogus"], "--bogus"),
        (["extra"], "extra"),
        (["--port", "http"], "--port"),
        (["--port", "70000"], "0 to 65535"),
        (["--port"], "--port"),
        (["--mode", "c 1.5"], "0.0 to 1.0"),
        (["--mode", "status"], "is no fault; accepted: n, c"),
        (["--mode", "r upstream=opnai"], 'did you mean "openai"'),
        (["--preset", "gose"], 'did you mean "goose"'),
        (["--config", "missing.yaml"], "missing.yaml"),
        (["--interface", "192.0.2.77", "--port", "0"], "192.0.2.77"),
        (["--port", "0", "--ready-file", "no/such/folder"], "--ready-file"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], said: str, tmp_path: Path) -> None:
    result = run("--no-stdin", *arguments, cwd=tmp_path)
    assert result.returncode == 1
    assert said in result.stderr
    assert result.stderr.startswith("llmproxyd: ")
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.stdout + result.stderr


def test_a_port_in_use_is_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = run("--no-stdin", "--port", str(port), cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert f"port {port} is in use" in result.stderr
    assert "Traceback" not in result.stdout + result.stderr


def test_every_mistake_of_a_file_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("timeouts:\n  conect: 5s\n  idle: soon\nupstrems: {}\n")
    result = run("--config", "bad.yaml", "--check-config", cwd=tmp_path)
    assert result.returncode == 1
    assert 'bad.yaml:2: timeouts.conect: unknown key; did you mean "connect"?' in result.stderr
    assert 'bad.yaml:3: timeouts.idle: found "soon"' in result.stderr
    assert 'bad.yaml:4: upstrems: unknown key; did you mean "upstreams"?' in result.stderr


def test_a_good_file_is_said_to_be_valid(tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text("timeouts: {idle: 1m}\n")
    result = run("--config", "good.yaml", "--check-config", cwd=tmp_path)
    assert (result.returncode, result.stdout) == (0, "good.yaml is valid.\n")


def test_what_is_in_force_is_printed_without_secrets(tmp_path: Path) -> None:
    file = tmp_path / "key.yaml"
    file.write_text("upstreams: {openai: {api_key: sk-canary-42}}\n")
    file.chmod(0o600)
    result = run("--config", "key.yaml", "--print-config", cwd=tmp_path, LLMPROXYD_TIMEOUTS__IDLE="7s")
    assert result.returncode == 0
    assert "idle: 7s" in result.stdout
    assert "api_key" in result.stdout
    assert "sk-canary-42" not in result.stdout + result.stderr


@pytest.mark.parametrize("program", ["twistd", "llmproxyd"])
def test_version_and_help(program: str, tmp_path: Path) -> None:
    assert run("--version", cwd=tmp_path, program=program).stdout.startswith("llmproxyd ")
    text = run("--help", cwd=tmp_path, program=program).stdout
    for option in (
        "--config", "--preset", "--port", "--interface", "--mode", "--no-stdin", "--sandbox",
        "--ready-file", "--require-faults", "--check-config", "--print-config", "--version",
    ):  # fmt: skip
        assert option in text


def test_a_stored_key_is_not_offered_to_the_network(tmp_path: Path) -> None:
    file = tmp_path / "open.yaml"
    file.write_text("upstreams: {openai: {api_key: sk-canary-42}}\n")
    file.chmod(0o600)
    result = run("--config", "open.yaml", "--interface", "0.0.0.0", "--port", "0", cwd=tmp_path)
    assert result.returncode == 1
    assert "server.open" in result.stderr
    assert "sk-canary" not in result.stdout + result.stderr


def test_forwarding_to_itself_ends_the_start(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (tmp_path / "loop.yaml").write_text(
        f"upstreams: {{openai: {{base_url: 'http://localhost:{port}/v1'}}}}\n"
    )
    result = run("--config", "loop.yaml", "--port", str(port), "--no-stdin", cwd=tmp_path)
    assert result.returncode == 1
    assert "this proxy itself" in result.stderr


def test_nothing_is_left_in_the_working_folder(tmp_path: Path) -> None:
    run("--no-stdin", "--port", "0", "--ready-file", "no/such/folder", cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []
