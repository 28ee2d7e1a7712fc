"""What is stored knows where its content type and ids stand: a hit finds what a walk over all fields finds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llmproxyd.cache.interface import Entry
from llmproxyd.cache.policy import confirmed, served, storable, wants_of
from llmproxyd.http.headers import content_of
from llmproxyd.inspection.answerid import answer_id
from llmproxyd.model import RawHeaders, Request, Response
from llmproxyd.wire.fields import Fields, Lines, fields_of

NAMES = [b"Content-Type", b"content-encoding", b"X-Request-ID", b"request-id", b"Server", b"CF-RAY", b"X-New"]
FIELDS = st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from([b"a", b"b", b"text/event-stream"])))
FRESH = (b"Cache-Control", b"public, max-age=60")
ASKED = Request(b"GET", b"/v1/models", [(b"Host", b"x")])


SAID = [
    (b"Age", b"7"),
    (b"Cache-control", b"max-age=60, stale-if-error=5"),
    (b"cache-Control", b"public"),
    (b"CDN-Cache-Control", b"max-age=9"),
    (b"Connection", b"Keep-Alive"),
    (b"connection", b"X-Named"),
    (b"Content-Encoding", b"gzip"),
    (b"Content-Length", b"12"),
    (b"DATE", b"Sun, 06 Nov 1994 08:49:37 GMT"),
    (b"Date-Of", b"nothing"),
    (b"ETag", b'"e"'),
    (b"Expires", b"0"),
    (b"Keep-Alive", b"timeout=5"),
    (b"Last-Modified", b"Sun, 06 Nov 1994 08:49:37 GMT"),
    (b"Not-Age", b"7"),
    (b"Pragma", b"no-cache"),
    (b"Proxy-Authentication-Info", b"x"),
    (b"Set-Cookie", b"a=b"),
    (b"set-cookie2", b""),
    (b"Vary", b"Accept, Origin"),
    (b"X-Named", b"1"),
    (b"X-Request-ID", b"r \xff:1"),
]


def stored(fields: RawHeaders) -> Entry:
    return kept(ASKED, [*fields, FRESH])


def judged(asked: Request, fields: RawHeaders) -> Entry | str:
    wants = wants_of(asked, authorized=False)
    return storable(asked, wants, Response(200, b"OK", fields), requested=0.0, received=0.0, ttl=9.0)


def kept(asked: Request, fields: RawHeaders) -> Entry:
    entry = judged(asked, fields)
    assert isinstance(entry, Entry)
    return entry


@given(FIELDS)
def test_a_hit_finds_what_a_walk_over_all_its_fields_finds(fields: list[tuple[bytes, bytes]]) -> None:
    told = served(stored(fields), ASKED, 1.0).head.headers
    assert isinstance(told, Fields)
    assert content_of(told) == content_of(list(told)) == content_of(fields)
    assert answer_id(told) == answer_id(list(told)) == answer_id(fields)


def test_each_hit_has_fields_of_its_own() -> None:
    entry = stored([(b"Content-Type", b"a")])
    first, second = served(entry, ASKED, 1.0).head.headers, served(entry, ASKED, 2.0).head.headers
    assert isinstance(first, Fields)
    assert first[-1] == (b"Age", b"1")
    assert second[-1] == (b"Age", b"2")
    assert len(first) == len(second) == len(entry.headers) + 1


def test_what_was_stored_elsewhere_is_walked_whole() -> None:
    entry = stored([(b"Server", b"x"), (b"Content-Type", b"a"), (b"X-Request-ID", b"r")])
    entry.headers = list(entry.headers)
    told = served(entry, ASKED, 1.0).head.headers
    assert (content_of(told), answer_id(told)) == ((b"a", b""), "r")


def test_what_is_asked_of_fields_is_known_with_them() -> None:
    fields = fields_of(
        [(b"X-Plain", b"1"), (b"content-type", b"a"), (b"Connection", b"close"), (b"TE", b"trailers")]
    )
    assert (fields.media, fields.coding, fields.connection) == (b"a", b"", (b"close",))
    assert list(fields.passing) == [(b"X-Plain", b"1"), (b"content-type", b"a")]


def as_block(fields: RawHeaders, space: bytes = b" ") -> Fields:
    """*fields* as they come off the wire in a layout that is known: pairs are made when somebody asks."""
    lines = [b"\r\n%b:%b%b" % (name, space, value) for name, value in fields]
    whole = fields_of(fields, b"".join(lines))
    fewer = None
    if whole.fewer is not None:
        passing = list(whole.fewer)
        fewer = Lines(b"".join([line for line, pair in zip(lines, fields, strict=True) if pair in passing]))
    return Fields(
        whole.block,
        None,
        whole.media,
        whole.coding,
        whole.ids,
        whole.lengths,
        whole.codings,
        whole.connection,
        fewer,
    )


@given(
    st.lists(st.sampled_from(SAID), max_size=8),
    st.sampled_from([b"GET", b"HEAD"]),
    st.sampled_from([b"", b" ", b" \t"]),
)
def test_fields_in_a_block_are_stored_as_pairs_are(
    fields: list[tuple[bytes, bytes]], method: bytes, space: bytes
) -> None:
    asked = Request(method, b"/v1/models", [(b"Host", b"x")])
    from_pairs, from_block = judged(asked, fields), judged(asked, as_block(fields, space))
    assert from_block == from_pairs
    if isinstance(from_pairs, str) or isinstance(from_block, str):
        return
    assert content_of(from_block.headers) == content_of(list(from_pairs.headers))
    assert answer_id(from_block.headers) == answer_id(list(from_pairs.headers))


@given(st.lists(st.sampled_from(SAID), max_size=8), st.lists(st.sampled_from(SAID), max_size=8))
def test_a_304_in_a_block_updates_as_one_in_pairs(
    fields: list[tuple[bytes, bytes]], new: list[tuple[bytes, bytes]]
) -> None:
    def updated(entry: Entry, headers: RawHeaders) -> Entry:
        return confirmed(entry, Response(304, b"", headers), requested=1.0, received=1.0)

    fields = [*fields, FRESH]
    by_pairs = updated(kept(ASKED, fields), new)
    assert updated(kept(ASKED, as_block(fields)), as_block(new)) == by_pairs


@given(st.lists(st.sampled_from(SAID), max_size=8))
def test_an_entry_is_as_large_in_a_block_as_in_pairs(fields: list[tuple[bytes, bytes]]) -> None:
    fields = [*fields, FRESH]
    assert kept(ASKED, as_block(fields)).size == kept(ASKED, fields).size


def test_an_answer_in_a_block_is_stored_as_it_came() -> None:
    entry = kept(ASKED, as_block([(b"Server", b"x"), (b"Content-Length", b"2"), SAID[8]], b"  "))
    assert isinstance(entry.headers, Fields)
    assert entry.headers.block == b"\r\nServer:  x\r\nDATE:  Sun, 06 Nov 1994 08:49:37 GMT"
