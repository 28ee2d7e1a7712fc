"""Who may log in: passwords, the patience with wrong ones, SSH keys."""

from __future__ import annotations

import stat
from base64 import b64encode
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.conch.ssh.keys import Key

from llmproxyd.control.passwords import password_line
from llmproxyd.operator import login
from llmproxyd.operator.hostkey import NAME, HostKeyError, authorized, host_key
from llmproxyd.operator.login import FORGOTTEN, LONGEST_DELAY, MOST_ADDRESSES, PasswordFile, Patience

SALT = b"0123456789abcdef"


def test_only_the_right_password_of_the_right_user(tmp_path: Path):
    file = tmp_path / "passwords"
    file.write_text(
        f"# operators\n{password_line('alice', 'pa:ss', SALT)}\n{password_line('bob', 'word', SALT)}\n"
    )
    passwords = PasswordFile(file)
    assert len(passwords.lines()) == 2
    assert passwords.admits("alice", "pa:ss")
    assert passwords.admits("bob", "word")
    for user, password in (("alice", "word"), ("bob", ""), ("", "word"), ("#", "x"), ("alice:", "pa:ss")):
        assert not passwords.admits(user, password)


def test_unknown_users_cost_a_hash_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "passwords"
    file.write_text(password_line("alice", "x", SALT))
    checked: list[str] = []
    real = login.matches
    monkeypatch.setattr(login, "matches", lambda line, *rest: checked.append(line) or real(line, *rest))
    hashed: list[object] = []
    from llmproxyd.control import passwords

    scrypt = passwords.hashlib.scrypt
    monkeypatch.setattr(passwords.hashlib, "scrypt", lambda *a, **k: hashed.append(k["n"]) or scrypt(*a, **k))
    assert not PasswordFile(file).admits("mallory", "x")
    assert not PasswordFile(file).admits("alice", "y")
    assert len(hashed) == 2
    assert hashed[0] == hashed[1]


def test_each_wrong_password_takes_twice_as_long_up_to_an_end():
    now = [0.0]
    patience = Patience(lambda: now[0])
    delays = [patience.tried("192.0.2.1") for _ in range(20)]
    assert delays[:4] == [0.25, 0.5, 1.0, 2.0]
    assert delays[-1] == LONGEST_DELAY
    assert patience.tried("192.0.2.2") == 0.25
    patience.right("192.0.2.1")
    assert patience.tried("192.0.2.1") == 0.25
    patience.tried("192.0.2.1")
    now[0] += FORGOTTEN + 1
    assert patience.tried("192.0.2.1") == 0.25


def test_of_ipv6_the_network_counts_and_all_that_is_kept_has_an_end():
    patience = Patience(lambda: 0.0)
    assert [patience.tried(f"2001:db8::{number}") for number in range(1, 4)] == [0.25, 0.5, 1.0]
    assert patience.tried("2001:db8:0:1::1") == 0.25
    for number in range(MOST_ADDRESSES * 2):
        patience.tried(f"192.0.{number % 200}.{number // 200}")
    assert len(patience._tries) == MOST_ADDRESSES


def test_host_key_is_made_once_and_for_its_owner_alone(tmp_path: Path):
    path = tmp_path / "state" / NAME
    made = host_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert host_key(path) == made
    assert Key.fromString(made).type() == "Ed25519"
    assert list(path.parent.iterdir()) == [path]


def test_host_key_that_others_can_read_is_refused(tmp_path: Path):
    path = tmp_path / NAME
    host_key(path)
    path.chmod(0o640)
    with pytest.raises(HostKeyError, match="chmod 600"):
        host_key(path)


def test_host_key_that_cannot_be_made_is_told(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(HostKeyError, match=r"Not a directory|exists"):
        host_key(tmp_path / "file" / NAME)


def test_authorized_keys_with_their_comments(tmp_path: Path):
    host_key(tmp_path / "key")
    public = Key.fromString((tmp_path / "key").read_bytes()).public()
    text = public.toString("OPENSSH").decode()
    file = tmp_path / "authorized_keys"
    file.write_text(
        f'# comment\n\n{text} alice on\x1b[31m the laptop\nfrom="*" {text} x\nssh-ed25519 AAAA bad\nssh-rsa !!\n'
    )
    assert authorized(file) == {public.blob(): "alice on[31m the laptop"}
    file.write_text(text)
    ((_, name),) = authorized(file).items()
    assert name.startswith("key …")


@given(st.binary(max_size=200), st.text(max_size=100))
def test_any_file_of_keys_can_be_read(tmp_path_factory: pytest.TempPathFactory, data: bytes, text: str):
    file = tmp_path_factory.mktemp("keys") / "keys"
    file.write_bytes(
        data + b"\n" + text.encode("utf-8", "replace") + b"\nssh-ed25519 " + b64encode(data) + b"\n"
    )
    authorized(file)
    PasswordFile(file).lines()
