"""What a recording must not hold, and what stays as it was."""

from __future__ import annotations

import gzip
import zlib
from base64 import b64encode
from dataclasses import replace

import pytest
from test_cassette_format import ANSWERED, ASKED, EXCHANGE

from llmproxyd.cassettes.format import Exchange, Piece
from llmproxyd.cassettes.hiding import Hidden
from llmproxyd.cassettes.reading import read
from llmproxyd.cassettes.writing import written
from llmproxyd.providers.registry import registry
from llmproxyd.redaction import Secret

KEY = "Zq9-secret-of-somebody-47110815"
PROVIDERS = registry()


def kept(exchange: Exchange, *secrets: str) -> str:
    return written(Hidden(map(Secret, secrets)).without(exchange))


def asking(*fields: tuple[bytes, bytes], target: str = "/v1/x", body: bytes = b"") -> Exchange:
    return replace(EXCHANGE, asked=replace(ASKED, fields=fields, target=target, body=body))


def answering(body: bytes, *fields: tuple[bytes, bytes]) -> Exchange:
    return replace(EXCHANGE, answered=replace(ANSWERED, fields=fields, pieces=(Piece(0.1, body),)))


@pytest.mark.parametrize("name", sorted(PROVIDERS))
def test_no_key_of_a_provider_is_kept_wherever_it_wants_it(name: str) -> None:
    place = PROVIDERS[name].credential
    exchange = asking((place.header, place.prefix + KEY.encode()))
    # What it answers repeats it, as some do.
    answered = replace(
        exchange.answered,
        fields=((b"x-debug", b"you sent " + KEY.encode()),),
        pieces=(Piece(0, b'{"error":"no such key: %b"}' % KEY.encode()),),
    )
    text = kept(replace(exchange, answered=answered))
    assert KEY not in text
    assert place.header.decode() in text


@pytest.mark.parametrize(
    "field",
    [
        (b"Authorization", b"Bearer " + KEY.encode()),
        (b"AUTHORIZATION", KEY.encode()),
        (b"Authorization", b"Basic " + b64encode(b"user:" + KEY.encode())),
        (b"X-Api-Key", KEY.encode()),
        (b"x-goog-api-key", KEY.encode()),
        (b"api-key", KEY.encode()),
        (b"cookie", b"session=" + KEY.encode()),
        (b"x-amz-security-token", KEY.encode()),
        (
            b"authorization",
            b"AWS4-HMAC-SHA256 Credential=AKIA/x, SignedHeaders=host, Signature=" + KEY.encode(),
        ),
        (b"OpenAI-Organization", KEY.encode()),
        (b"OpenAI-Project", KEY.encode()),
    ],
    ids=lambda field: field[0].decode() + "-" + field[1].split(b" ")[0].decode()[:12],
)
def test_no_field_of_credentials_or_of_an_account_is_kept(field: tuple[bytes, bytes]) -> None:
    text = kept(asking(field))
    assert KEY not in text
    assert b64encode(b"user:" + KEY.encode()).decode() not in text


@pytest.mark.parametrize("name", ["key", "api_key", "access_token", "sig", "api-key"])
def test_no_argument_of_a_credential_is_kept(name: str) -> None:
    text = kept(asking(target=f"/v1/x?alt=sse&{name}={KEY}&b=2"))
    assert KEY not in text
    assert "alt=sse" in text
    assert "b=2" in text


def test_no_secret_of_the_configuration_is_kept() -> None:
    exchange = asking((b"x-team", KEY.encode()), body=b'{"note":"%b"}' % KEY.encode())
    assert KEY not in kept(exchange, KEY)


def test_no_cookie_or_account_that_an_answer_names_is_kept() -> None:
    text = kept(
        answering(
            b'{"error":{"message":"Rate limit reached in organization org-Ab12cd34Ef56gh78Ij90 on tokens"}}',
            (b"Set-Cookie", b"__cf_bm=" + KEY.encode()),
            (b"anthropic-organization-id", b"1c0ffee5-0000"),
        )
    )
    assert KEY not in text
    assert "1c0ffee5" not in text
    assert "org-Ab12" not in text
    assert "Rate limit reached in organization org-[redacted] on tokens" in text


def test_a_secret_in_a_coded_answer_is_found_and_the_answer_kept_in_the_clear() -> None:
    clear = b'{"said":"%b, and more"}' % KEY.encode()
    exchange = answering(gzip.compress(clear), (b"content-encoding", b"gzip"), (b"content-length", b"99"))
    text = kept(exchange, KEY)
    assert KEY not in text
    found = read(text, "x").answered
    assert found.body == b'{"said":"[redacted], and more"}'
    assert found.fields == ((b"content-length", b"%d" % len(found.body)),)


def test_a_coded_answer_without_secrets_stays_byte_for_byte() -> None:
    body = gzip.compress(b"nothing to hide")
    found = read(kept(answering(body, (b"content-encoding", b"gzip")), KEY), "x").answered
    assert found.body == body


def test_pieces_stay_where_a_secret_is_within_one() -> None:
    pieces = (
        Piece(0, b"data: a\n\n"),
        Piece(1, b"data: " + KEY.encode() + b"\n\n"),
        Piece(2, b"data: c\n\n"),
    )
    answered = replace(ANSWERED, pieces=pieces, ended=2.0)
    found = read(kept(replace(EXCHANGE, answered=answered), KEY), "x").answered
    assert [piece.data for piece in found.pieces] == [b"data: a\n\n", b"data: [redacted]\n\n", b"data: c\n\n"]


def test_a_secret_that_is_spread_over_pieces_is_found() -> None:
    half = len(KEY) // 2
    pieces = (Piece(0, b"data: " + KEY[:half].encode()), Piece(1, KEY[half:].encode() + b"\n\n"))
    answered = replace(ANSWERED, pieces=pieces, ended=2.0)
    found = read(kept(replace(EXCHANGE, answered=answered), KEY), "x").answered
    assert found.body == b"data: [redacted]\n\n"


def test_bytes_that_are_no_text_are_searched_and_stay() -> None:
    body = b"\xff\xfe\x00" + KEY.encode() + b"\x80"
    assert read(kept(answering(body), KEY), "x").answered.body == b"\xff\xfe\x00[redacted]\x80"
    assert read(kept(answering(body)), "x").answered.body == body


def test_what_is_no_secret_stays() -> None:
    fields = (
        (b"user-agent", b"goose/1.2"),
        (b"goose-session-id", b"20251121_1"),
        (b"x-stainless-lang", b"js"),
    )
    body = b'{"user":"user_of_the_house","organization":"org-wide politics, project-management"}'
    exchange = asking(*fields, body=body)
    hidden = Hidden(()).without(exchange)
    assert (tuple(hidden.asked.fields), hidden.asked.body) == (fields, body)
    assert hidden.answered == replace(EXCHANGE.answered, fields=list(EXCHANGE.answered.fields))


@pytest.mark.parametrize("dummy", ["sandbox", "ollama", "x"])
def test_a_dummy_key_is_hidden_where_it_is_one_and_stays_elsewhere(dummy: str) -> None:
    body = b'{"model":"%b/llama3"}' % dummy.encode()
    exchange = asking((b"authorization", b"Bearer " + dummy.encode()), target=f"/{dummy}/v1", body=body)
    answered = replace(exchange.answered, fields=((b"server", dummy.encode()),), pieces=(Piece(0, body),))
    hidden = Hidden([Secret(dummy)]).without(replace(exchange, answered=answered))
    assert hidden.asked.fields == [(b"authorization", b"Bearer [redacted]")]
    assert (hidden.asked.target, hidden.asked.body) == (f"/{dummy}/v1", body)
    assert (hidden.answered.fields, hidden.answered.body) == ([(b"server", dummy.encode())], body)


def test_a_coded_answer_that_is_cut_is_searched_as_far_as_it_goes() -> None:
    packer = zlib.compressobj(wbits=31)
    coded = packer.compress(b"no " + KEY.encode() + b" here") + packer.flush(zlib.Z_SYNC_FLUSH)
    found = read(kept(answering(coded, (b"content-encoding", b"gzip")), KEY), "x").answered
    assert (found.body, found.fields) == (b"no [redacted] here", ())


def test_a_coded_answer_that_is_too_long_to_be_searched_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmproxyd.cassettes.hiding.CLEAR", 1000)
    with pytest.raises(ValueError, match="too long"):
        kept(answering(gzip.compress(b"x" * 2000), (b"content-encoding", b"gzip")))
