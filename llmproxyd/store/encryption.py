"""Credentials at rest: AES-256-GCM under a key that is derived from the operator's secret."""

from __future__ import annotations

import os
from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from llmproxyd.redaction import Secret

SALT = 16
"""Bytes."""

NONCE = 12
"""Bytes: what GCM is made for.  Random ones are safe for 2**32 encryptions under one key."""

_CHECKED = "llmproxyd"


class WrongKeyError(Exception):
    """What was encrypted was so under another key, or was changed since."""


class Cipher:
    """Encrypts and decrypts under one key.  For any thread.

    :param key: 32 bytes.
    :param random_bytes: of a quality that keys are made of.
    """

    def __init__(self, key: bytes, random_bytes: Callable[[int], bytes] = os.urandom) -> None:
        self._aead = AESGCM(key)
        self._random_bytes = random_bytes

    @classmethod
    def derived(
        cls, secret: Secret, salt: bytes, random_bytes: Callable[[int], bytes] = os.urandom
    ) -> Cipher:
        """The cipher of *secret*, by scrypt (RFC 7914): it may be a person's password.

        Takes about 0.1 s and 32 MiB.

        :raises ValueError: *secret* is empty.
        """
        if not secret.reveal():
            raise ValueError("access.secret_key is empty")
        derivation = Scrypt(salt=salt, length=32, n=2**15, r=8, p=1)
        return cls(derivation.derive(secret.reveal().encode("utf-8", "surrogatepass")), random_bytes)

    def encrypt(self, text: str, *context: str) -> tuple[bytes, bytes]:
        """Nonce and ciphertext of *text*, which is good in *context* alone (project and upstream)."""
        nonce = self._random_bytes(NONCE)
        return nonce, self._aead.encrypt(nonce, text.encode("utf-8", "surrogatepass"), _joined(context))

    def decrypt(self, nonce: bytes, ciphertext: bytes, *context: str) -> str:
        """What :meth:`encrypt` made it from.

        :raises WrongKeyError: it was not made under this key, or not in *context*.
        """
        try:
            plain = self._aead.decrypt(nonce, ciphertext, _joined(context))
        except (InvalidTag, ValueError):
            raise WrongKeyError from None
        return plain.decode("utf-8", "surrogatepass")

    def proof(self) -> str:
        """A text by which :meth:`is_proven_by` knows this key again."""
        nonce, ciphertext = self.encrypt(_CHECKED, "key check")
        return (nonce + ciphertext).hex()

    def is_proven_by(self, proof: str) -> bool:
        """Whether *proof* was made under this key."""
        try:
            made = bytes.fromhex(proof)
            return self.decrypt(made[:NONCE], made[NONCE:], "key check") == _CHECKED
        except (ValueError, WrongKeyError):
            return False


def _joined(context: tuple[str, ...]) -> bytes:
    """One text for each context: none of its parts contains NUL."""
    return "\0".join(context).encode("utf-8", "surrogatepass")
