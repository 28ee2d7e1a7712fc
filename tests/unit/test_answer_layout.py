"""Heads that an upstream lays out alike are read as any other, only sooner."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from llmproxyd.http.headers import end_to_end, relayed
from llmproxyd.wire import layout as layouts
from llmproxyd.wire.answer import AnswerReader
from llmproxyd.wire.fields import Fields
from llmproxyd.wire.layout import OFTEN, Layout, fields_in, layout_of

NAMES = st.sampled_from(
    [
        b"Date",
        b"Content-Type",
        b"content-encoding",
        b"Connection",
        b"Keep-Alive",
        b"Transfer-Encoding",
        b"x-request-id",
        b"request-id",
        b"Content-Length",
        b"Upgrade",
        b"TE",
        b"X-A.b+c",
        b"set-cookie",
    ]
)
SPACES = st.sampled_from([b"", b" ", b"  ", b"\t", b" \t"])
VALUES = st.binary(max_size=12).map(
    lambda value: bytes(one for one in value if one > 31 and one != 127).strip(b" \t")
)
LINES = st.lists(st.tuples(NAMES, SPACES, VALUES, st.sampled_from([b"", b" "])), max_size=8)


def block_of(lines: list[tuple[bytes, bytes, bytes, bytes]]) -> bytes:
    return b"".join(b"\r\n" + name + b":" + before + value + after for name, before, value, after in lines)


def told(fields: Fields) -> tuple[object, ...]:
    return (
        list(fields),
        fields.media,
        fields.coding,
        fields.ids,
        fields.lengths,
        fields.codings,
        fields.connection,
        list(fields.passing),
    )


@settings(deadline=None)
@given(LINES)
def test_a_known_layout_tells_what_a_walk_tells(lines: list[tuple[bytes, bytes, bytes, bytes]]) -> None:
    block = block_of(lines)
    slow = fields_in(block)
    try:
        layout = Layout(tuple(name for name, _ in slow))
    except ValueError:
        return
    quick = layout.fields(block)
    assert quick is not None
    assert told(quick) == told(slow)
    assert list(relayed(quick)) == end_to_end(list(slow))


@settings(deadline=None)
@given(LINES, LINES)
def test_a_head_of_another_layout_is_not_taken_for_one(
    mine: list[tuple[bytes, bytes, bytes, bytes]], other: list[tuple[bytes, bytes, bytes, bytes]]
) -> None:
    try:
        layout = Layout(tuple(name for name, *_ in mine))
    except ValueError:
        return
    same = [name for name, *_ in mine] == [name for name, *_ in other]
    assert (layout.fields(block_of(other)) is not None) is same


def test_lines_pass_as_they_came() -> None:
    block = b"\r\nA:1\r\nConnection: keep-alive\r\nB:  2 \r\nC: \t3"
    fields = fields_in(block)
    layout = Layout(tuple(name for name, _ in fields))
    quick = layout.fields(block)
    assert quick is not None
    assert quick.block == block
    assert quick.passing.block == b"\r\nA:1\r\nB:  2 \r\nC: \t3"


def head(number: int, more: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\nx-layout-test: a\r\nx-request-id: %d\r\n%bcontent-length: 0\r\n\r\n" % (
        number,
        more,
    )


def read(data: bytes, layout: Layout | None) -> AnswerReader:
    reader = AnswerReader(layout=layout)
    reader.feed(data)
    assert reader.problem is None
    assert reader.complete
    return reader


def test_a_layout_is_learned_when_it_came_often_and_forgotten_when_another_comes() -> None:
    layout: Layout | None = None
    for number in range(OFTEN):
        assert layout is None
        layout = read(head(number), layout).layout
    assert layout is not None
    reader = read(head(99), layout)
    assert reader.layout is layout
    assert reader.response is not None
    assert reader.response.raw[1] == (b"x-request-id", b"99")
    other = read(head(1, b"set-cookie: c=%d\r\n" % 1), layout)
    assert other.response is not None
    assert len(other.response.raw) == 4
    assert other.layout is not layout
    assert read(head(3), other.layout).layout is layout


def test_a_layout_with_two_of_a_kind_is_read_line_by_line() -> None:
    block = b"\r\nContent-Type: a\r\nContent-Type: b"
    for _ in range(OFTEN + 2):
        assert layout_of(fields_in(block).pairs) is None
    assert fields_in(block).media == b"a"


def test_no_multitude_of_layouts_is_remembered() -> None:
    for number in range(3 * layouts._KNOWN):
        for _ in range(OFTEN if number % 2 else 1):
            layout_of([(b"x-many-%d" % number, b"1")])
    assert len(layouts._seen) <= layouts._KNOWN
    assert len(layouts._made) <= layouts._KNOWN
