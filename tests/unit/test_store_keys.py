"""Credentials at rest: the cipher, and the key file."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxyd.redaction import Secret
from llmproxyd.store.encryption import Cipher, WrongKeyError
from llmproxyd.store.keyfile import KeyFile

CIPHER = Cipher(b"k" * 32)


@given(st.text(), st.lists(st.text(st.characters(exclude_characters="\0")), max_size=3))
def test_what_was_encrypted_is_decrypted_in_its_context_alone(text: str, context: list[str]) -> None:
    nonce, ciphertext = CIPHER.encrypt(text, *context)
    assert CIPHER.decrypt(nonce, ciphertext, *context) == text
    with pytest.raises(WrongKeyError):
        CIPHER.decrypt(nonce, ciphertext, *context, "more")


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_garbage_is_never_decrypted(nonce: bytes, ciphertext: bytes) -> None:
    with pytest.raises(WrongKeyError):
        CIPHER.decrypt(nonce, ciphertext)


@given(st.integers(0), st.integers(0, 7))
def test_changed_bit_is_noticed(at: int, bit: int) -> None:
    nonce, ciphertext = CIPHER.encrypt("sk-real-key", "p", "openai")
    changed = bytearray(ciphertext)
    changed[at % len(changed)] ^= 1 << bit
    with pytest.raises(WrongKeyError):
        CIPHER.decrypt(nonce, bytes(changed), "p", "openai")


def test_same_text_is_never_encrypted_the_same() -> None:
    assert CIPHER.encrypt("a")[1] != CIPHER.encrypt("a")[1]


def test_key_depends_on_secret_and_salt() -> None:
    one = Cipher.derived(Secret("one"), b"s" * 16)
    assert Cipher.derived(Secret("one"), b"s" * 16).is_proven_by(one.proof())
    assert not Cipher.derived(Secret("two"), b"s" * 16).is_proven_by(one.proof())
    assert not Cipher.derived(Secret("one"), b"t" * 16).is_proven_by(one.proof())


@pytest.mark.parametrize("proof", ["", "zz", "00", "00" * 40])
def test_corrupt_proof_proves_nothing(proof: str) -> None:
    assert not CIPHER.is_proven_by(proof)


def test_empty_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        Cipher.derived(Secret(""), b"s" * 16)


def test_key_file_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        made = KeyFile(tmp_path / "db.key").make()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "db.key").stat().st_mode) == 0o600
    assert KeyFile(tmp_path / "db.key").make() == made
    assert KeyFile(tmp_path / "db.key").read() == made
    assert len(made.reveal()) == 43
    assert [path.name for path in tmp_path.iterdir()] == ["db.key"]


def test_of_many_who_make_it_at_once_all_have_the_same(tmp_path: Path) -> None:
    found: list[Secret] = []
    start = threading.Barrier(8)

    def make() -> None:
        start.wait()
        found.append(KeyFile(tmp_path / "db.key").make())

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["db.key"]


@pytest.mark.parametrize("content", [b"", b" \n", b"\xff\xfe", b"x" * 5000])
def test_key_file_without_a_key_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "db.key").write_bytes(content)
    with pytest.raises(ValueError, match=r"db\.key holds no key"):
        KeyFile(tmp_path / "db.key").make()
    assert (tmp_path / "db.key").read_bytes() == content
