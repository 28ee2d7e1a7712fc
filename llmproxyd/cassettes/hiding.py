"""An exchange less what nobody else may have: credentials, cookies, the names of accounts.

The rest stays byte for byte, and a body in the pieces that it came in, unless what is taken out of it
was spread over several.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from llmproxyd.access.withheld import LEAST, secrets_in_head
from llmproxyd.cassettes.format import Answered, Asked, Exchange, Piece
from llmproxyd.inspection.inflate import inflater
from llmproxyd.model import Request
from llmproxyd.redaction import REDACTED, Redactor, Secret, presented

CLEAR = 64 * 1024 * 1024
"""Bytes of a coded body in the clear that are searched."""

_ACCOUNTS = frozenset(
    {
        b"openai-organization",
        b"openai-project",
        b"anthropic-organization-id",
        b"anthropic-workspace-id",
        b"chatgpt-account-id",
        b"x-goog-user-project",
        b"x-organization-id",
        b"x-databricks-org-id",
    }
)
"""Fields that name whose account it is."""

_ACCOUNT = re.compile(r"\b(org|proj|user|acct)([-_])(?=[A-Za-z0-9]*[0-9])[A-Za-z0-9]{16,}\b")
"""The same within texts (``org-``, ``user_``): a word with a number in it, so that it is no plain word."""


class Hidden:
    """What is taken out of exchanges.

    A short secret (the dummy key ``ollama``) stands by chance in any text, and what is replayed would be
    another one without it: it is hidden where it is a credential, and not looked for elsewhere.

    :param configured: the secrets of the configuration.
    """

    def __init__(self, configured: Iterable[Secret]) -> None:
        self._fields = Redactor()
        self._texts = Redactor()
        self.learn(configured)

    def learn(self, configured: Iterable[Secret]) -> None:
        """Know *configured* too from now on."""
        secrets = list(configured)
        self._fields.learn(secrets)
        self._texts.learn(one for one in secrets if len(one.reveal()) >= LEAST)

    def without(self, exchange: Exchange) -> Exchange:
        """*exchange* as it may be kept.

        :raises ValueError: it is too long to be searched.
        """
        asked = exchange.asked
        target = asked.target.encode("latin-1")
        request = Request(asked.method.encode("latin-1"), target, asked.fields)
        secrets = {one.decode("latin-1") for one in secrets_in_head(request)}
        secrets |= {*presented(asked.fields, request.query)}
        texts = self._texts.knowing(one for one in secrets if len(one) >= LEAST)
        hiding = _Hiding(self._fields.knowing(secrets), texts)
        return replace(exchange, asked=hiding.asked(asked), answered=hiding.answered(exchange.answered))


class _Hiding:
    """Knows what one request presented, too.

    :param texts: for all that is replayed.
    """

    def __init__(self, redactor: Redactor, texts: Redactor) -> None:
        self._redactor = redactor
        self._texts = texts

    def asked(self, asked: Asked) -> Asked:
        target = self._account(self._texts.url(asked.target))
        fields = [(name, self._value(name, value, self._redactor)) for name, value in asked.fields]
        return replace(asked, target=target, fields=fields, body=self._bytes(asked.body))

    def answered(self, answered: Answered) -> Answered:
        pieces = answered.pieces
        fields = [(name, self._value(name, value, self._texts)) for name, value in answered.fields]
        if not answered.coding:
            return replace(answered, fields=fields, pieces=self._pieces(pieces))
        source = inflater(answered.coding, CLEAR)
        clear = b"" if source is None else source.feed(answered.body)
        if source is not None and source.full:
            raise ValueError("an answer is too long to be searched for secrets")
        if (hidden := self._bytes(clear)) != clear:
            # In its coding it would tell what was in it.
            fields = [pair for pair in fields if pair[0].lower() != b"content-encoding"]
            pieces = (Piece(pieces[0].after, hidden),)
        return replace(answered, fields=fields, pieces=pieces)

    def _value(self, name: bytes, value: bytes, redactor: Redactor) -> bytes:
        if name.lower() in _ACCOUNTS:
            return REDACTED.encode()
        shown = redactor.fields([(name, value)])[0][1]
        return self._account(shown).encode("latin-1", "replace") if REDACTED in shown else self._plain(value)

    def _plain(self, value: bytes) -> bytes:
        return self._account(value.decode("latin-1")).encode("latin-1")

    def _account(self, text: str) -> str:
        return _ACCOUNT.sub(rf"\1\2{REDACTED}", text)

    def _bytes(self, data: bytes) -> bytes:
        # As UTF-8 where it is, so that secrets beyond ASCII are found; else each byte is kept as it is.
        try:
            text, coding = data.decode(), "utf-8"
        except UnicodeDecodeError:
            text, coding = data.decode("latin-1"), "latin-1"
        hidden = self._account(self._texts.text(text))
        return data if hidden == text else hidden.encode(coding)

    def _pieces(self, pieces: Sequence[Piece]) -> tuple[Piece, ...]:
        body = b"".join(piece.data for piece in pieces)
        hidden = self._bytes(body)
        if hidden == body:
            return tuple(pieces)
        apart = tuple(Piece(piece.after, self._bytes(piece.data)) for piece in pieces)
        if b"".join(piece.data for piece in apart) == hidden:
            return apart
        # Something was spread over pieces: where one of them ends would tell where it was.
        return (Piece(pieces[0].after, hidden),)
