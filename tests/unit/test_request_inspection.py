"""What a body is found to ask for, whole or by its ends; never anything but an answer."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llmproxyd.inspection.request import END, WHOLE, Asked, asked

NOTHING = Asked()

BODIES = [
    (b'{"model": "gpt-4o", "stream": true}', Asked("gpt-4o", True)),
    (b' \n{"stream":false,"model":"m"}\n', Asked("m", False)),
    (b'{"model": "m"}', Asked("m", None)),
    (b'{"stream": true}', Asked(None, True)),
    (b"{}", NOTHING),
    (b'{"model": "a\\u00e9\\"\\n"}', Asked('aé"\n', None)),
    ('{"model": "mod\u00e8le"}'.encode(), Asked("mod\u00e8le", None)),
    (b'{"model": null, "stream": null}', NOTHING),
    (b'{"model": 4, "stream": 1}', NOTHING),
    (b'{"model": ["m"], "stream": "true"}', NOTHING),
    (b'{"model": {"model": "m"}, "stream": {}}', NOTHING),
    (b'{"Model": "m", "STREAM": true}', NOTHING),
    (b'{"input": {"model": "nested", "stream": true}}', NOTHING),
    (b'{"messages": [{"content": "{\\"model\\": \\"quoted\\", \\"stream\\": true}"}]}', NOTHING),
    (b'{"model": "m", "note": "\\"stream\\": true"}', Asked("m", None)),
    (b'[{"model": "m"}]', NOTHING),
    (b'"model"', NOTHING),
    (b"null", NOTHING),
    (b"3", NOTHING),
    (b"", NOTHING),
    (b"model=m&stream=true", NOTHING),
    (b"\x00\x01\xff\xfe", NOTHING),
    (b"--boundary\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n", NOTHING),
]  # fmt: skip


@pytest.mark.parametrize(("body", "wanted"), BODIES)
def test_whole_body(body: bytes, wanted: Asked) -> None:
    assert asked(body) == wanted


def ends(body: bytes) -> bytes:
    """What is looked at of a body that is too large to be read whole."""
    assert len(body) > WHOLE
    return body[:END] + body[-END:]


TEXT = "lorem ipsum " * 200_000
MESSAGES = [{"role": "user", "content": f'{number} said "m"'} for number in range(40_000)]


def large(**members: object) -> bytes:
    return json.dumps(members).encode()


LARGE = [
    ({"model": "m", "stream": True, "x": ...}, Asked("m", True)),
    ({"x": ..., "model": "m", "stream": False}, Asked("m", False)),
    ({"model": "m", "x": ..., "stream": True}, Asked("m", True)),
    ({"stream": True, "x": ..., "model": "m"}, Asked("m", True)),
    ({"x": ...}, NOTHING),
    ({"model": 'a"b\\é', "x": ...}, Asked('a"b\\é', None)),
    ({"a": '{"model": "quoted", "stream": true}', "x": ..., "model": "m"}, Asked("m", None)),
    ({"a": '{"model": "quoted", "stream": true}', "x": ...}, NOTHING),
    ({"x": ..., "a": '{"model": "quoted"}'}, NOTHING),
    ({"x": ..., "model": 4, "stream": "true"}, NOTHING),
    ({'x"model': "other", 'x"stream': 1, "x": ...}, NOTHING),
]


@pytest.mark.parametrize(("members", "wanted"), LARGE)
@pytest.mark.parametrize("filling", [TEXT, MESSAGES], ids=["text", "messages"])
def test_large_body_is_found_out_from_its_ends(
    members: dict[str, object], filling: object, wanted: Asked
) -> None:
    body = large(**{name: filling if value is ... else value for name, value in members.items()})
    assert asked(ends(body)) == wanted


def test_ends_of_a_large_body_may_be_no_json_at_all() -> None:
    with pytest.raises(ValueError, match="line 1"):
        json.loads(ends(large(model="m", x=MESSAGES)))


def test_model_of_unbounded_length_is_not_searched_for() -> None:
    assert asked(b'{"model": "' + b"x" * 600 + b'", "stream": true, ') == Asked(None, True)


def test_name_that_is_the_end_of_another_one_is_not_taken() -> None:
    assert asked(b'{"x\\"model": "other", "x\\"stream": true, ') == NOTHING


def test_white_space_around_the_colon_is_free() -> None:
    assert asked(b'{"model" : \t"m" , "stream"\n:true, ') == Asked("m", True)


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'{"model":"m","a":'])
def test_deep_nesting_is_no_error(opening: bytes) -> None:
    asked(opening * 100_000)
    asked(opening * 100_000 + b"1")


def test_number_too_long_to_convert_is_no_error() -> None:
    assert asked(b'{"model": "m", "n": ' + b"1" * 10_000 + b"}") == Asked("m", None)


@pytest.mark.parametrize(
    "body", [b'{"model": "\\ud800", "stream": true}', b'{"model": "\\ud800", "stream": true, ']
)
def test_model_that_could_not_be_told_in_an_answer_is_unknown(body: bytes) -> None:
    assert asked(body) == Asked(None, True)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_encodings_of_json_are_no_error(encoding: str) -> None:
    assert asked('{"model": "m"}'.encode(encoding)).model in ("m", None)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["model", "stream", "a"]), inner, max_size=3)
    ),
    max_leaves=8,
)
SCRAPS = st.lists(
    st.sampled_from(
        [
            b'"model"',
            b'"stream"',
            b":",
            b'"',
            b"\\",
            b"true",
            b"{",
            b"}",
            b"m",
            b" ",
            b"\xff",
            b"\\ud800",
            b"\\u12",
        ]
    )
).map(b"".join)


@settings(deadline=None)
@given(st.binary(max_size=200) | SCRAPS | JSON.map(lambda value: json.dumps(value).encode()))
@example(b'"model":"\\u12"')
@example(b'"model":"\\q"')
@example(b'{"model":"\xff"}')
def test_any_bytes_give_an_answer_that_can_be_told(body: bytes) -> None:
    found = asked(body)
    assert found.stream in (None, True, False)
    if found.model is not None:
        found.model.encode()


@settings(deadline=None)
@given(JSON)
def test_whole_body_is_read_as_json_reads_it(value: object) -> None:
    found = asked(json.dumps(value).encode())
    model = value.get("model") if isinstance(value, dict) else None
    stream = value.get("stream") if isinstance(value, dict) else None
    assert found.model == (model if isinstance(model, str) else None)
    assert found.stream == (stream if isinstance(stream, bool) else None)
