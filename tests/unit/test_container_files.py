"""The container's files say what the daemon reads, keep secrets out, and reach no further than they say."""

from __future__ import annotations

import configparser
import http.server
import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml
from test_config import PROVIDERS

from llmproxyd.config.load import load
from llmproxyd.config.schema import Config
from llmproxyd.options import DEFAULT_PORT, Options
from llmproxyd.units import parse_duration

ROOT = Path(__file__).parents[2]
UID = "10001"
SECRET_NAME = re.compile("key|token|secret|passw", re.IGNORECASE)


def dockerfile() -> list[tuple[str, str]]:
    """Instructions and what they are given, comments left out, continued lines joined."""
    lines = [
        line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.lstrip().startswith("#")
    ]
    text = "\n".join(lines).replace("\\\n", " ")
    return [
        (word, " ".join(rest.split()))
        for word, _, rest in (line.partition(" ") for line in text.splitlines() if line.strip())
    ]


def stages() -> list[list[tuple[str, str]]]:
    found: list[list[tuple[str, str]]] = []
    for word, rest in dockerfile():
        if word == "FROM":
            found.append([])
        found[-1].append((word, rest))
    return found


def given(word: str, stage: int = -1) -> list[str]:
    return [rest for name, rest in stages()[stage] if name == word]


COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICE: dict[str, Any] = COMPOSE["services"]["llmproxyd"]
SETUP = configparser.ConfigParser(interpolation=None)
SETUP.read(ROOT / "setup.cfg")


# The image.


def test_images_have_plain_names_and_tags_that_say_a_version() -> None:
    names = [rest.split()[0] for word, rest in dockerfile() if word == "FROM"]
    names += [one["image"] for name, one in COMPOSE["services"].items() if name != "llmproxyd"]
    for name in names:
        assert re.fullmatch(r"[a-z]+:\d+(\.\d+)?(-slim)?", name), name
    python = next(name for name in names if name.startswith("python:"))
    assert (
        f"Programming Language :: Python :: {python[7:].partition('-')[0]}"
        in SETUP["metadata"]["classifiers"]
    )


def test_the_daemon_is_not_root_in_it() -> None:
    last = [word for word, _ in stages()[-1]]
    assert given("USER") == [f"{UID}:{UID}"]
    assert "RUN" not in last[last.index("USER") :]
    made = " ".join(given("RUN"))
    assert f"--uid {UID}" in made
    assert f"-o {UID} -g {UID}" in made


def test_what_is_installed_exists() -> None:
    [run] = given("RUN", 0)
    extras = re.search(r'"\.\[([a-z,]+)\]"', run)
    assert extras is not None
    assert set(extras[1].split(",")) == {"redis", "postgres"}
    assert set(extras[1].split(",")) <= set(SETUP["options.extras_require"])
    assert "llmproxyd = llmproxyd.command:main" in SETUP["options.entry_points"]["console_scripts"]


def test_compiler_and_sources_stay_in_the_first_stage() -> None:
    assert given("COPY") == ["--from=build /opt/llmproxyd /opt/llmproxyd"]
    assert len(stages()) == 2


def test_no_secret_gets_into_a_layer() -> None:
    for word, rest in dockerfile():
        if word in ("ENV", "ARG", "LABEL"):
            assert not SECRET_NAME.search(rest), rest
        assert word != "ADD"


def test_folders_of_the_daemon_are_there_and_its_own() -> None:
    environment = dict(one.split("=", 1) for one in " ".join(given("ENV")).split())
    made = " ".join(given("RUN"))
    assert environment["PATH"].startswith("/opt/llmproxyd/bin:")
    for name in ("STATE_DIRECTORY", "RUNTIME_DIRECTORY"):
        assert environment[name] in made
    assert given("VOLUME") == [environment["STATE_DIRECTORY"]]


def test_the_command_is_one_that_the_daemon_takes() -> None:
    [entry], [command] = given("ENTRYPOINT"), given("CMD")
    program, *options = json.loads(entry)
    assert program == "llmproxyd"
    assert json.loads(command) == []
    for arguments in (options, [*options, *SERVICE["command"]]):
        accepted = Options()
        accepted.postOptions = lambda: None  # type: ignore[method-assign]
        accepted.parseOptions(arguments)
        assert accepted["no-stdin"]
    assert given("EXPOSE") == [str(DEFAULT_PORT)]


class Page(http.server.BaseHTTPRequestHandler):
    status = 200
    asked: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(self.status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Silent."""


@pytest.fixture
def server() -> Iterator[http.server.ThreadingHTTPServer]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as found:
        thread = threading.Thread(target=found.serve_forever)
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def check_health(port: int) -> int:
    [check] = given("HEALTHCHECK")
    program, flag, code = json.loads(check.partition("CMD ")[2])
    assert (program, flag) == ("python", "-c")
    assert code.count(f"'127.0.0.1', {DEFAULT_PORT},") == 1
    environment = {"http_proxy": "http://127.0.0.1:9", "PATH": "/usr/bin"}
    code = code.replace(str(DEFAULT_PORT), str(port))
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, timeout=30
    ).returncode


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False), (404, False)])
def test_health_is_what_the_page_says(
    status: int, healthy: bool, server: http.server.ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Page, "status", status)
    monkeypatch.setattr(Page, "asked", [])
    assert (check_health(server.server_address[1]) == 0) is healthy
    assert Page.asked == ["/health"]


def test_nobody_there_is_not_healthy(server: http.server.ThreadingHTTPServer) -> None:
    port = server.server_address[1]
    server.server_close()
    assert check_health(port) != 0


# What is sent to the builder.


def ignored(path: str) -> bool:
    """Whether ``.dockerignore`` leaves *path* out: the last pattern that matches it or a folder above holds."""
    out = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.strip().removeprefix("!")
        if not pattern or pattern.startswith("#"):
            continue
        here = PurePosixPath(path)
        tails = pattern.removeprefix("**/")
        deep = pattern.startswith("**/")
        if any(
            one.match(tails)
            if deep
            else len(one.parts) == len(PurePosixPath(pattern).parts) and one.match(pattern)
            for one in (here, *here.parents)
            if one.parts
        ):
            out = not line.strip().startswith("!")
    return out


@pytest.mark.parametrize(
    "path",
    [
        ".git/config",
        ".env",
        "secrets/secret_key",
        "tests/unit/test_run.py",
        "benchmarks/suite.py",
        "etc/llmproxyd.yaml",
        "llmproxyd.db",
        "llmproxyd.db.key",
        "llmproxyd/__pycache__/tap.cpython-311.pyc",
        "logs/x.log",
        "compose.yaml",
    ],
)
def test_nothing_but_the_program_is_sent_to_the_builder(path: str) -> None:
    assert ignored(path)


def test_all_that_is_built_is_sent() -> None:
    needed = [
        "README.rst",
        "LICENSE",
        "CHANGELOG.rst",
        "setup.py",
        "setup.cfg",
        "pyproject.toml",
        "MANIFEST.in",
    ]
    needed += [
        "llmproxyd/tap.py",
        "llmproxyd/config/presets/goose.yaml",
        "twisted/plugins/llmproxyd_plugin.py",
    ]
    needed += ["llmproxyd/store/schema/sqlite/001.sql"]
    assert [path for path in needed if ignored(path)] == []
    assert SETUP["metadata"]["long_description"].removeprefix("file: ") in needed


# compose.yaml.


def recipe() -> str:
    """How the secrets are made, as the documentation says."""
    text = (ROOT / "docs" / "container.rst").read_text()
    found = re.search(r"\.\. code:: sh\n\n((?:    .*\n)+)", text)
    assert found is not None
    return re.sub("^    ", "", found[1], flags=re.MULTILINE)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """What the daemon of ``compose.yaml`` is configured with, its secrets made by the recipe."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl, which makes the secrets")
    subprocess.run(["/bin/sh", "-eu", "-c", recipe()], cwd=tmp_path, check=True, timeout=30)
    text = COMPOSE["configs"]["llmproxyd"]["content"].replace("$$", "$")
    file = tmp_path / "llmproxyd.yaml"
    file.write_text(text.replace("/run/secrets/", f"{tmp_path}/secrets/"))
    return load(file=file, environ={"STATE_DIRECTORY": "/var/lib/llmproxyd"}, providers=PROVIDERS)


def test_its_configuration_is_valid_and_warns_of_nothing(config: Config) -> None:
    assert config.warnings == ()
    assert config.access.limits == "redis"
    assert config.cache.backend == "redis"


def test_beyond_loopback_it_listens_only_with_access_on(config: Config) -> None:
    assert config.listen == (f"tcp:{DEFAULT_PORT}:interface=0.0.0.0",)
    assert config.access.enabled
    assert not config.server.open
    assert all(port.startswith("127.0.0.1:") for port in SERVICE["ports"])
    assert all("ports" not in one for name, one in COMPOSE["services"].items() if name != "llmproxyd")


def test_stores_are_the_services_beside_it_with_their_users(config: Config, tmp_path: Path) -> None:
    password = (tmp_path / "secrets" / "postgres_password").read_text().strip()
    postgres = COMPOSE["services"]["postgres"]["environment"]
    user, database = postgres["POSTGRES_USER"], postgres["POSTGRES_DB"]
    assert config.access.store.reveal() == f"postgresql://{user}:{password}@postgres/{database}"
    assert config.cache.redis_url is not None
    assert config.cache.redis_url.reveal() == "redis://redis:6379/0"
    assert set(SERVICE["depends_on"]) == {"postgres", "redis"} < set(COMPOSE["services"])
    for name in SERVICE["depends_on"]:
        assert "healthcheck" in COMPOSE["services"][name]


def test_every_secret_is_a_file_that_is_made_and_used(tmp_path: Path) -> None:
    named = {name: one["file"] for name, one in COMPOSE["secrets"].items()}
    assert all(file == f"./secrets/{name}" for name, file in named.items())
    for name in named:
        assert f"> secrets/{name}\n" in recipe(), name
    used = {secret for one in COMPOSE["services"].values() for secret in one.get("secrets", ())}
    assert used == set(named)
    text = (ROOT / "compose.yaml").read_text()
    assert set(re.findall(r"/run/secrets/(\w+)", text)) == set(named)
    for service in COMPOSE["services"].values():
        for name, value in service.get("environment", {}).items():
            assert name.endswith("_FILE") or not SECRET_NAME.search(name), (name, value)


def test_the_containers_files_are_its_users(config: Config) -> None:
    [copied] = SERVICE["configs"]
    assert copied["target"] == SERVICE["command"][SERVICE["command"].index("--config") + 1]
    assert any(
        f"uid={UID},gid={UID},mode=0700" in one and one.startswith("/run/llmproxyd:")
        for one in SERVICE["tmpfs"]
    )
    assert SERVICE["volumes"] == [f"state:{given('VOLUME')[0]}"]
    assert f"chown {UID} secrets/*" in (ROOT / "docs" / "container.rst").read_text()
    assert set(COMPOSE["volumes"]) == {"state", "postgres"}


def test_it_is_denied_what_it_does_not_need() -> None:
    assert SERVICE["read_only"] is True
    assert SERVICE["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in SERVICE["security_opt"]
    assert "privileged" not in SERVICE


def test_docker_waits_longer_than_the_drain(config: Config) -> None:
    server = config.server
    assert parse_duration(SERVICE["stop_grace_period"]) >= server.drain_timeout + server.drain_delay + 10
