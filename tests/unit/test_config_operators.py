"""The keys under ``operator``: what is refused, with its place, and what is warned of."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_config import PROVIDERS

from llmproxyd.config.load import ConfigError, load
from llmproxyd.config.schema import Config

TELNET = "tcp:8889:interface=127.0.0.1"


def read(tmp_path: Path, text: str) -> Config:
    file = tmp_path / "x.yaml"
    file.write_text(text)
    return load(file=file, environ={"HOME": str(tmp_path)}, providers=PROVIDERS)


def problems(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    return [str(problem) for problem in caught.value.problems]


@pytest.fixture
def passwords(tmp_path: Path) -> Path:
    file = tmp_path / "passwords"
    file.write_text("x")
    file.chmod(0o600)
    return file


def test_nothing_listens_by_default(tmp_path: Path):
    operator = read(tmp_path, "operator: {}").operator
    assert (operator.telnet.listen, operator.ssh.listen, operator.python) == (None, None, False)
    assert (operator.stdin, operator.faults) == ("auto", True)


def test_telnet_needs_a_password_file_that_is_there(tmp_path: Path):
    (said,) = problems(tmp_path, f"operator:\n  telnet:\n    listen: {TELNET}\n")
    assert "x.yaml:3" in said or "x.yaml:2" in said
    assert "operator.telnet.passwords" in said
    assert "llmproxyctl passwd" in said
    (said,) = problems(tmp_path, f"operator: {{telnet: {{listen: {TELNET}, passwords: gone}}}}")
    assert "gone is missing" in said


@pytest.mark.parametrize(
    "endpoint",
    [
        "tcp:8889",
        "tcp:8889:interface=0.0.0.0",
        "tcp6:8889:interface=::",
        "tcp:8889:interface=192.0.2.1",
        "haproxy:tcp:8889:interface=127.0.0.1",
    ],
)
def test_telnet_stays_on_this_machine_unless_somebody_insists(tmp_path: Path, passwords: Path, endpoint: str):
    text = f"operator: {{telnet: {{listen: '{endpoint}', passwords: passwords}}}}"
    (said,) = problems(tmp_path, text)
    assert "x.yaml:1" in said
    assert "operator.telnet.insecure: true" in said
    operator = read(tmp_path, text.replace("passwords}", "passwords, insecure: true}")).operator
    assert operator.telnet.passwords == passwords


@pytest.mark.parametrize(
    "endpoint",
    [
        TELNET,
        "tcp:8889:interface=127.1.2.3",
        "tcp6:8889:interface=::1",
        "tcp:8889:interface=localhost",
        "unix:/tmp/x",
    ],
)
def test_telnet_on_this_machine_is_accepted(tmp_path: Path, passwords: Path, endpoint: str):
    read(tmp_path, f"operator: {{telnet: {{listen: '{endpoint}', passwords: passwords}}}}")


def test_ssh_needs_authorized_keys(tmp_path: Path):
    (said,) = problems(tmp_path, "operator: {ssh: {listen: 'tcp:8822'}}")
    assert "operator.ssh.authorized_keys" in said
    assert "id_ed25519.pub" in said


def test_no_two_listeners_at_one_place(tmp_path: Path, passwords: Path):
    ssh = f"ssh: {{listen: '{TELNET}', authorized_keys: passwords}}"
    (said,) = problems(tmp_path, f"operator: {{telnet: {{listen: '{TELNET}', passwords: passwords}}, {ssh}}}")
    assert "operator.ssh.listen" in said
    assert "operator.telnet.listen has taken" in said
    (said,) = problems(tmp_path, "operator: {ssh: {listen: 'tcp:8888', authorized_keys: passwords}}")
    assert "which listen has taken" in said


def test_paths_stand_against_the_file(tmp_path: Path, passwords: Path):
    text = "operator: {ssh: {listen: 'tcp:8822', authorized_keys: passwords, host_key: keys/host}}"
    assert read(tmp_path, text).operator.ssh.host_key == tmp_path / "keys" / "host"


def test_files_open_to_others_and_python_are_warned_of(tmp_path: Path, passwords: Path):
    text = f"operator: {{telnet: {{listen: '{TELNET}', passwords: passwords}}, python: true}}"
    assert [one for one in read(tmp_path, text).warnings if "others" in one] == []
    passwords.chmod(0o644)
    warnings = read(tmp_path, text).warnings
    assert any("others can read" in one and "chmod o=" in one for one in warnings)
    assert any("any code" in one for one in warnings)
    passwords.chmod(0o622)
    keys = "operator: {ssh: {listen: 'tcp:8822', authorized_keys: passwords}}"
    assert any("others can write" in one for one in read(tmp_path, keys).warnings)
    assert any("not used" in one for one in read(tmp_path, "operator: {python: true}").warnings)
