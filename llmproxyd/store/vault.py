"""Which key the credentials of a store are under."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from llmproxyd.redaction import Secret
from llmproxyd.store.encryption import SALT, Cipher
from llmproxyd.store.interface import StoreUnavailable
from llmproxyd.store.keyfile import KeyFile
from llmproxyd.store.migrate import get, put
from llmproxyd.store.session import Session

_SALT = "salt"
_PROOF = "key_check"


@dataclass(frozen=True)
class Unlocked:
    """A store's key, found right.

    :param proof: as it stands in the database for as long as this is its key.
    """

    cipher: Cipher
    proof: str


class Vault:
    """Finds the key of a store, and changes it.

    :param given: ``access.secret_key``.
    :param file: where the key is when none is given; a store that has neither cannot be opened.
    """

    def __init__(
        self, given: Secret | None, file: KeyFile | None, random_bytes: Callable[[int], bytes] = os.urandom
    ) -> None:
        self._given = given
        self._file = file
        self._random_bytes = random_bytes

    def unlock(self, session: Session) -> Unlocked:
        """The key of the store, a new one if it is new.

        :raises ValueError: what was given is not the key; in words for the operator.
        """
        salt, proof = get(session, _SALT), get(session, _PROOF)
        if salt is None or proof is None:
            secret = self._given
            if secret is None:
                assert self._file is not None
                secret = self._file.make()
            return self._set(session, secret)
        if self._given is not None:
            return self._check(self._given, salt, proof)
        return self._from_file(salt, proof)

    def _from_file(self, salt: str, proof: str) -> Unlocked:
        assert self._file is not None
        path = self._file.path
        secret, staged = self._file.read(), self._file.staged()
        if secret is None and staged is None:
            raise ValueError(
                f"the key file {path} is missing: put it back, or set access.secret_key to the key "
                "that the credentials are encrypted under"
            )
        for known in (secret, staged):
            unlocked = None if known is None else self._try(known, salt, proof)
            if unlocked is not None:
                if known is staged:
                    self._file.promote()  # a rotation ended between the database and the file
                return unlocked
        raise ValueError(f"the key in {path} is not the one that the credentials are encrypted under")

    def _check(self, secret: Secret, salt: str, proof: str) -> Unlocked:
        unlocked = self._try(secret, salt, proof)
        if unlocked is None:
            hint = ""
            if self._file is not None and self._file.path.exists():
                hint = f" (is it the one in {self._file.path}? Leave access.secret_key out)"
            raise ValueError(
                "access.secret_key is not the key that the credentials in the store are encrypted under"
                + hint
            )
        return unlocked

    def _try(self, secret: Secret, salt: str, proof: str) -> Unlocked | None:
        cipher = Cipher.derived(secret, bytes.fromhex(salt), self._random_bytes)
        return Unlocked(cipher, proof) if cipher.is_proven_by(proof) else None

    def _set(self, session: Session, secret: Secret) -> Unlocked:
        salt = self._random_bytes(SALT)
        cipher = Cipher.derived(secret, salt, self._random_bytes)
        proof = cipher.proof()
        put(session, _SALT, salt.hex())
        put(session, _PROOF, proof)
        return Unlocked(cipher, proof)

    @staticmethod
    def confirm(session: Session, unlocked: Unlocked) -> None:
        """Make sure that *unlocked* still is the key.

        :raises StoreUnavailable: another process changed it.
        """
        if get(session, _PROOF) != unlocked.proof:
            raise StoreUnavailable(
                "the store's secret key was changed by another process: start again with the new one"
            )

    def rotate(self, session: Session, old: Unlocked, new: Secret) -> tuple[Unlocked, int]:
        """Encrypt all credentials under *new*; how many there were.

        :raises ValueError: *new* is no key.
        """
        self.confirm(session, old)
        if self._given is None and self._file is not None:
            if not new.reveal().strip() or new.reveal().strip() != new.reveal() or "\n" in new.reveal():
                raise ValueError("a key for a key file is one line without spaces at its ends")
            self._file.stage(new)
        unlocked = self._set(session, new)
        rows = session.all("SELECT project, upstream, nonce, ciphertext FROM credentials")
        for project, upstream, nonce, ciphertext in rows:
            plain = old.cipher.decrypt(bytes(nonce), bytes(ciphertext), project, upstream)
            session.run(
                "UPDATE credentials SET nonce = ?, ciphertext = ? WHERE project = ? AND upstream = ?",
                *unlocked.cipher.encrypt(plain, project, upstream),
                project,
                upstream,
            )
        return unlocked, len(rows)

    def rotated(self, new: Secret) -> None:
        """The database has *new*: keep it."""
        if self._given is not None:
            self._given = new
        elif self._file is not None:
            self._file.promote()
