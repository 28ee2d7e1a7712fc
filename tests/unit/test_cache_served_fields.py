"""What is stored knows where its content type and ids stand: a hit finds what a walk over all fields finds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llmproxyd.cache.interface import Entry
from llmproxyd.cache.policy import served, storable, wants_of
from llmproxyd.http.headers import content_of
from llmproxyd.inspection.answerid import answer_id
from llmproxyd.model import RawHeaders, Request, Response
from llmproxyd.wire.fields import Fields, fields_of

NAMES = [b"Content-Type", b"content-encoding", b"X-Request-ID", b"request-id", b"Server", b"CF-RAY", b"X-New"]
FIELDS = st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from([b"a", b"b", b"text/event-stream"])))
FRESH = (b"Cache-Control", b"public, max-age=60")
ASKED = Request(b"GET", b"/v1/models", [(b"Host", b"x")])


def stored(fields: RawHeaders) -> Entry:
    wants = wants_of(ASKED, authorized=False)
    entry = storable(ASKED, wants, Response(200, b"OK", [*fields, FRESH]), requested=0.0, received=0.0)
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
