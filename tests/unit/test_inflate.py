"""Coded bodies in the clear: bounded, in any pieces, and never an exception."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmproxyd.inspection.inflate import LIMIT, Inflater, inflated, inflater

TEXT = b'data: {"choices":[]}\n\n' * 40


def raw(data: bytes) -> bytes:
    """Bare deflate data, as some servers send it under the name."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


CODED = [
    (b"", TEXT),
    (b"identity", TEXT),
    (b" Identity ", TEXT),
    (b"gzip", gzip.compress(TEXT, mtime=0)),
    (b"GZip", gzip.compress(TEXT, mtime=0)),
    (b"x-gzip", gzip.compress(TEXT, mtime=0)),
    (b"deflate", zlib.compress(TEXT)),
    (b"deflate", zlib.compress(TEXT, 1)),
    (b"deflate", raw(TEXT)),
    (
        b"gzip",
        gzip.compress(TEXT[:100], mtime=0) + gzip.compress(b"", mtime=0) + gzip.compress(TEXT[100:], mtime=0),
    ),
    (b"gzip", gzip.compress(TEXT, mtime=0) + b"\0" * 600),
    (b"deflate, gzip", gzip.compress(zlib.compress(TEXT), mtime=0)),
    (b"gzip,identity , gzip", gzip.compress(gzip.compress(TEXT, mtime=0), mtime=0)),
]


def fed(source: Inflater, data: bytes, size: int) -> bytes:
    return b"".join(source.feed(data[at : at + size]) for at in range(0, len(data), size))


@pytest.mark.parametrize(("coding", "body"), CODED)
def test_what_is_coded_is_read_in_any_pieces(coding: bytes, body: bytes) -> None:
    for size in (1, 2, 7, len(body)):
        source = Inflater(coding, LIMIT)
        assert fed(source, body, size) == TEXT
        assert source.whole
        assert not source.full
        assert not source.broken
    assert inflated(body, coding) == TEXT


@pytest.mark.parametrize(
    "coding", [b"br", b"zstd", b"gzip, br", b"compress", b"gzip;q=1", b"gzip, gzip, gzip, gzip", b"\xff"]
)
def test_a_coding_that_cannot_be_read_is_said_so(coding: bytes) -> None:
    assert inflater(coding) is None
    assert inflated(b"", coding) is None
    with pytest.raises(ValueError, match="content coding"):
        Inflater(coding)


@pytest.mark.parametrize(("coding", "body"), CODED)
def test_a_body_that_breaks_off_is_not_whole(coding: bytes, body: bytes) -> None:
    if b"gzip" not in coding and b"deflate" not in coding:
        return
    source = Inflater(coding)
    part = body.rstrip(b"\0")[:-9]
    assert TEXT.startswith(source.feed(part))
    assert not source.whole
    assert not source.broken
    assert inflated(part, coding) is None


@pytest.mark.parametrize(("coding", "body"), CODED)
@pytest.mark.parametrize("size", [1, 10_000])
def test_no_more_than_the_limit_is_given_out(coding: bytes, body: bytes, size: int) -> None:
    exact = Inflater(coding, len(TEXT))
    assert fed(exact, body, size) == TEXT
    assert not exact.full
    for limit in (0, 1, 100, len(TEXT) - 1):
        source = Inflater(coding, limit)
        # Several codings may each have to stop: what lies between counts as well.
        assert TEXT[:limit].startswith(fed(source, body, size))
        assert source.full
        assert not source.whole
        assert source.feed(body) == b""
    if b"," not in coding:
        assert fed(Inflater(coding, 100), body, size) == TEXT[:100]


def test_a_bomb_costs_no_more_than_the_limit() -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(200)) + packer.flush()
    tracemalloc.start()
    for coding, body in ((b"gzip", bomb), (b"gzip, gzip", gzip.compress(bomb))):
        source = Inflater(coding, 100_000)
        assert len(source.feed(body)) <= 100_000
        assert source.full
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4_000_000


def test_members_without_content_come_to_an_end() -> None:
    source = Inflater(b"gzip")
    assert source.feed(gzip.compress(b"") * 10_000) == b""
    assert source.broken


@pytest.mark.parametrize("coding", [b"gzip", b"deflate", b"gzip, deflate"])
def test_what_is_not_as_its_coding_says_is_broken(coding: bytes) -> None:
    source = Inflater(coding)
    assert source.feed(b'{"error":{"message":"not coded at all"}}' * 5) == b""
    assert source.broken
    assert not source.whole
    assert source.feed(gzip.compress(TEXT)) == b""


def test_a_wrong_checksum_is_broken() -> None:
    body = gzip.compress(TEXT)
    source = Inflater(b"gzip")
    assert fed(source, body[:-6] + b"\0\0" + body[-4:], 1) == TEXT
    assert source.broken


@pytest.mark.parametrize("coding", [b"gzip", b"deflate", b"", b"gzip, gzip"])
def test_nothing_is_nothing_in_any_coding(coding: bytes) -> None:
    assert inflated(b"", coding) == b""


@given(st.binary(max_size=300), st.sampled_from([b"gzip", b"deflate", b"gzip, deflate"]), st.integers(0, 50))
def test_garbage_never_raises(data: bytes, coding: bytes, limit: int) -> None:
    for body in (data, gzip.compress(TEXT)[:30] + data, b"\x78\x9c" + data):
        source = Inflater(coding, limit)
        assert len(fed(source, body, 5)) <= limit
        inflated(body, coding, limit)


@given(st.lists(st.binary(max_size=60), min_size=1, max_size=4), st.integers(1, 20))
@settings(max_examples=50)
def test_members_and_pieces_fall_anywhere(parts: list[bytes], size: int) -> None:
    source = Inflater(b"gzip")
    assert fed(source, b"".join(gzip.compress(part) for part in parts), size) == b"".join(parts)
    assert source.whole
    for body in (raw(parts[0]), zlib.compress(parts[0])):
        assert fed(Inflater(b"deflate"), body, size) == parts[0]
