"""systemd's units: systemd finds nothing wrong, and they say what the daemon goes by."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from test_config import PROVIDERS

from llmproxyd.admin.socket import SYSTEM, default_socket
from llmproxyd.config.load import load
from llmproxyd.config.schema import Config
from llmproxyd.config.texts import endpoint
from llmproxyd.options import DEFAULT_PORT, Options
from llmproxyd.systemd import MARGIN
from llmproxyd.units import parse_duration

ETC = Path(__file__).parents[2] / "etc"
DOCS = Path(__file__).parents[2] / "docs" / "systemd.rst"
WORST = 1.5
"""Of ``systemd-analyze security``: 0 is best, 10 worst."""

Unit = Mapping[str, Mapping[str, list[str]]]
INSTALLED = "/opt/llmproxyd/bin/llmproxyd"


def unit(name: str) -> Unit:
    """Sections, and what each directive in them is set to; an empty one begins anew."""
    text = (ETC / name).read_text().replace("\\\n", " ")
    found: dict[str, dict[str, list[str]]] = {}
    section: dict[str, list[str]] = {}
    for line in text.splitlines():
        if not line or line[0] in "#;":
            continue
        if line[0] == "[":
            section = found.setdefault(line.strip("[]"), {})
            continue
        key, equals, value = line.partition("=")
        assert equals, line
        section.setdefault(key, []).append(value)
    return found


SYSTEM_UNIT, SOCKET, USER = (
    unit("llmproxyd.service"),
    unit("llmproxyd.socket"),
    unit("llmproxyd-user.service"),
)
SERVICE = SYSTEM_UNIT["Service"]
ANALYZE = shutil.which("systemd-analyze")
analyzed = pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not here")


def analyze(*arguments: str, **variables: str) -> str:
    assert ANALYZE is not None
    run = subprocess.run(
        [ANALYZE, *arguments], capture_output=True, text=True, timeout=60, env={**os.environ, **variables}
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout + run.stderr


@pytest.fixture
def copies(tmp_path: Path) -> Path:
    """The units by the names that they have when installed, with a command that is there."""
    for name in ("llmproxyd.service", "llmproxyd.socket"):
        text = (ETC / name).read_text()
        (tmp_path / name).write_text(text.replace(INSTALLED, "/bin/true"))
    (tmp_path / "user").mkdir()
    shutil.copy(ETC / "llmproxyd-user.service", tmp_path / "user" / "llmproxyd.service")
    return tmp_path


@analyzed
@pytest.mark.parametrize("name", ["llmproxyd.service", "llmproxyd.socket"])
def test_systemd_finds_nothing_wrong(name: str, copies: Path) -> None:
    said = analyze("verify", "--man=no", str(copies / name))
    assert "llmproxyd" not in said


@analyzed
def test_systemd_finds_nothing_wrong_with_the_users_unit(copies: Path) -> None:
    (copies / "run").mkdir(mode=0o700)
    path = str(copies / "user" / "llmproxyd.service")
    assert "llmproxyd" not in analyze(
        "verify", "--man=no", "--user", path, XDG_RUNTIME_DIR=str(copies / "run")
    )


@analyzed
def test_little_is_left_that_an_intruder_could_do() -> None:
    said = analyze("security", "--offline=true", "--no-pager", str(ETC / "llmproxyd.service"))
    level = re.search(r"exposure level for llmproxyd.service: ([0-9.]+)", said)
    assert level is not None
    assert float(level[1]) <= WORST
    assert f"says {level[1]} (0 is best" in DOCS.read_text()


def test_memory_may_be_written_and_run_as_tls_needs_it() -> None:
    """pyOpenSSL's callbacks are made by cffi in memory of that kind."""
    for one in (SYSTEM_UNIT, USER):
        assert "MemoryDenyWriteExecute" not in one["Service"]
    assert "ProcSubset" not in SERVICE  # the metrics of the process need /proc/stat


# What it starts.


def test_the_command_is_one_that_the_daemon_takes() -> None:
    [line] = SERVICE["ExecStart"]
    program, *arguments = shlex.split(line)
    assert program == INSTALLED
    options = Options()
    options.postOptions = lambda: None  # type: ignore[method-assign]
    options.parseOptions(arguments)
    assert options["no-stdin"]
    assert options["config"] == "/etc/llmproxyd/llmproxyd.yaml"
    assert f"{options['config']}\n" in DOCS.read_text()


def test_the_users_command_takes_a_configuration_where_there_is_one(tmp_path: Path) -> None:
    [line] = USER["Service"]["ExecStart"]
    command = shlex.split(line.replace("$$", "$"))
    bin_ = tmp_path / ".local" / "bin"
    bin_.mkdir(parents=True)
    (bin_ / "llmproxyd").write_text('#!/bin/sh\nfor one in "$@"; do echo "<$one>"; done\n')
    (bin_ / "llmproxyd").chmod(0o755)

    def run(**more: str) -> list[str]:
        env = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", **more}
        return subprocess.run(
            command, env=env, capture_output=True, text=True, check=True, timeout=30
        ).stdout.split()

    assert run() == ["<--no-stdin>"]
    file = tmp_path / ".config" / "llmproxyd" / "llmproxyd.yaml"
    file.parent.mkdir(parents=True)
    file.touch()
    assert run() == ["<--no-stdin>", "<--config>", f"<{file}>"]
    assert run(XDG_CONFIG_HOME=str(tmp_path / "none")) == ["<--no-stdin>"]


@pytest.mark.parametrize("service", [SERVICE, USER["Service"]])
def test_it_is_told_what_the_daemon_tells(service: Mapping[str, list[str]]) -> None:
    assert service["Type"] == ["notify"]
    assert service["NotifyAccess"] == ["main"]
    assert service["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
    assert parse_duration(service["WatchdogSec"][0]) >= 10
    assert service["Restart"] == ["on-failure"]
    # The second SIGTERM cuts what still runs, so the first goes to the daemon alone.
    assert service["KillMode"] == ["mixed"]


@pytest.mark.parametrize("service", [SERVICE, USER["Service"]])
def test_it_waits_longer_than_the_drain(service: Mapping[str, list[str]]) -> None:
    server = Config().server
    assert parse_duration(service["TimeoutStopSec"][0]) >= server.drain_delay + server.drain_timeout + MARGIN


def test_a_daemon_that_cannot_start_is_not_started_for_ever() -> None:
    interval = parse_duration(SYSTEM_UNIT["Unit"]["StartLimitIntervalSec"][0])
    burst = int(SYSTEM_UNIT["Unit"]["StartLimitBurst"][0])
    assert burst * (parse_duration(SERVICE["RestartSec"][0]) + 2) < interval


# Where it writes.


def folders() -> dict[str, str]:
    """What systemd would have in the environment."""
    return {
        "STATE_DIRECTORY": "/var/lib/" + SERVICE["StateDirectory"][0],
        "CACHE_DIRECTORY": "/var/cache/" + SERVICE["CacheDirectory"][0],
        "LOGS_DIRECTORY": "/var/log/" + SERVICE["LogsDirectory"][0],
        "RUNTIME_DIRECTORY": "/run/" + SERVICE["RuntimeDirectory"][0],
    }


def test_what_is_kept_is_kept_in_its_folder_of_state(tmp_path: Path) -> None:
    file = tmp_path / "llmproxyd.yaml"
    file.write_text("access: {enabled: true}\naudit: {file: audit.jsonl}\n")
    file.chmod(0o600)
    config = load(file=file, environ=folders(), providers=PROVIDERS)
    state = folders()["STATE_DIRECTORY"]
    assert config.access.store.reveal() == f"sqlite:{state}/llmproxyd.db"
    assert config.audit.file == Path(state) / "audit.jsonl"
    assert SERVICE["StateDirectoryMode"] == ["0700"]


def test_logs_of_a_daemon_without_a_file_stand_in_its_folder_of_logs() -> None:
    config = load(environ=folders(), providers=PROVIDERS)
    assert config.logging.folder == Path(folders()["LOGS_DIRECTORY"])
    assert config.error_logging.folder == Path(folders()["LOGS_DIRECTORY"]) / "errors"


def test_the_socket_of_the_control_command_is_where_that_looks_for_it() -> None:
    assert default_socket(folders(), Path("/nowhere")) == SYSTEM
    assert SERVICE["RuntimeDirectoryMode"] == ["0700"]


def test_its_folders_are_those_of_the_documentation() -> None:
    for name, folder in folders().items():
        directive = f"{name.partition('_')[0].capitalize()}Directory="
        assert re.search(rf"^``{directive}`` +``{folder}`` ", DOCS.read_text(), re.MULTILINE), directive


def test_nothing_else_can_be_written() -> None:
    assert SERVICE["DynamicUser"] == ["yes"]
    assert SERVICE["ProtectSystem"] == ["strict"]
    assert "ReadWritePaths" not in SERVICE
    assert SERVICE["UMask"] == ["0077"]


# Keys.


def test_credentials_are_found_by_the_names_that_the_unit_gives_them(tmp_path: Path) -> None:
    names = SERVICE["LoadCredential"]
    for name in names:
        # Without a path: one that is not there does not keep the daemon from starting.
        assert re.fullmatch(r"llmproxyd\.[a-z_]+", name), name
        (tmp_path / name).write_text("0123456789abcdef-key")
    used = re.findall(r"\{credential: ([^}]+)\}", DOCS.read_text())
    assert used
    assert set(used) <= set(names)
    file = tmp_path / "llmproxyd.yaml"
    file.write_text("upstreams: {openai: {api_key: {credential: llmproxyd.openai}}}\n")
    environ = {**folders(), "CREDENTIALS_DIRECTORY": str(tmp_path)}
    config = load(file=file, environ=environ, providers=PROVIDERS)
    key = config.upstreams["openai"].api_key
    assert key is not None
    assert key.reveal() == "0123456789abcdef-key"
    for name in names:
        assert f"``{name}``" in DOCS.read_text()


def test_no_key_stands_in_the_units_or_their_environment() -> None:
    for one in (SYSTEM_UNIT, USER):
        assert "Environment" not in one["Service"]
        assert "SetCredential" not in one["Service"]


# Sockets.


def test_sockets_are_those_of_the_default_and_the_endpoints_that_take_them_are_told() -> None:
    assert SOCKET["Socket"]["ListenStream"] == [f"127.0.0.1:{DEFAULT_PORT}", f"[::1]:{DEFAULT_PORT}"]
    text = (ETC / "llmproxyd.socket").read_text()
    [line] = re.findall(r"^#\s+listen: (\[.*\])$", text, re.MULTILINE)
    assert f"listen: {line}\n" in DOCS.read_text()
    told = json.loads(line)
    assert told == ["systemd:domain=INET:index=0", "systemd:domain=INET6:index=1"]
    assert [endpoint(one) for one in told] == told
    # Both lines have the unit's name, so that index is what tells them apart.
    assert "FileDescriptorName" not in SOCKET["Socket"]
