"""Which recording answers a request, and what is told where none does."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_cassette_format import ASKED, EXCHANGE

from llmproxyd.cassettes.format import Asked
from llmproxyd.cassettes.hiding import Hidden
from llmproxyd.cassettes.matching import Ignored, Library, Recorded
from llmproxyd.redaction import Secret

CHAT: dict[str, Any] = {
    "model": "gpt-4o",
    "temperature": 0.5,
    "messages": [{"role": "user", "content": "hello"}],
    "tools": [{"type": "function", "function": {"name": "f"}}],
}


def asked(body: object = CHAT, **changes: Any) -> Asked:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return replace(ASKED, body=data, **changes)


def library(*requests: Asked, ignore: tuple[str, ...] = ()) -> Library:
    recordings = [
        Recorded(f"{number:04}.yaml", replace(EXCHANGE, asked=one)) for number, one in enumerate(requests, 1)
    ]
    return Library(recordings, Ignored(ignore))


def found(there: Library, wanted: Asked) -> str | None:
    one = there.find(wanted)
    return None if one is None else one.name


def shuffled(value: Any) -> Any:
    if isinstance(value, dict):
        names = list(value)
        random.Random(1).shuffle(names)
        return {name: shuffled(value[name]) for name in names}
    return [shuffled(one) for one in value] if isinstance(value, list) else value


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), JSON, min_size=1))
def test_neither_order_nor_whitespace_nor_escapes_of_json_matter(value: dict[str, Any]) -> None:
    there = library(asked(value))
    for data in (
        json.dumps(shuffled(value), indent=3).encode(),
        b"\n "
        + json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass"),
    ):
        try:
            data.decode()
        except UnicodeDecodeError:
            continue
        assert found(there, asked(data)) == "0001.yaml"


def test_numbers_are_equal_however_they_are_written() -> None:
    there = library(asked(b'{"t":1.0,"n":1e3}'))
    assert found(there, asked(b'{"t":1,"n":1000}')) == "0001.yaml"
    assert found(there, asked(b'{"t":true,"n":1000}')) is None


@pytest.mark.parametrize(
    "change",
    [
        {"messages": [{"role": "user", "content": "Hello"}]},
        {"messages": [{"content": "hello", "role": "user"}, {}]},
        {"temperature": None},
        {"extra": 1},
    ],
    ids=["content", "more", "null", "extra"],
)
def test_another_body_is_another_request(change: dict[str, Any]) -> None:
    assert found(library(asked()), asked({**CHAT, **change})) is None


@pytest.mark.parametrize(
    "change",
    [
        {"provider": "groq"},
        {"method": "PUT"},
        {"target": "/v1/other"},
        {"target": "/v1/chat/completions?a=2"},
    ],
)
def test_another_place_is_another_request(change: dict[str, str]) -> None:
    assert found(library(asked()), asked(**change)) is None


def test_another_upstream_of_the_same_provider_is_the_same() -> None:
    assert found(library(asked()), asked(upstream="elsewhere")) == "0001.yaml"


def test_credentials_and_order_of_a_query_do_not_matter() -> None:
    there = library(asked(target="/v1beta/x?key=[redacted]&alt=sse&b=1"))
    assert found(there, asked(target="/v1beta/x?b=1&alt=sse&key=AIzaSomethingElse")) == "0001.yaml"
    assert found(there, asked(target="/v1beta/x?b=1&alt=sse")) == "0001.yaml"
    assert found(there, asked(target="/v1beta/x?b=2&alt=sse")) is None


def test_ignored_members_do_not_matter_wherever_they_stand() -> None:
    ignore = ("user", "metadata.session", "messages.id")
    there = library(asked({**CHAT, "user": "a", "metadata": {"session": 1, "team": "x"}}), ignore=ignore)
    other = {
        **CHAT,
        "metadata": {"session": 2, "team": "x"},
        "messages": [{**CHAT["messages"][0], "id": "msg_1"}],
    }
    assert found(there, asked(other)) == "0001.yaml"
    assert found(there, asked({**other, "metadata": {"team": "y"}})) is None


def test_bodies_that_are_no_json_are_compared_by_bytes() -> None:
    there = library(asked(b"a=1&b=2"), asked(b'{"a":'), asked(b"\xff\x00"), asked(b""))
    for number, body in enumerate((b"a=1&b=2", b'{"a":', b"\xff\x00", b""), 1):
        assert found(there, asked(body)) == f"{number:04}.yaml"
    assert found(there, asked(b"b=2&a=1")) is None
    assert found(there, asked(b'{"a": ')) is None


def test_the_boundary_of_a_form_does_not_matter() -> None:
    def form(boundary: bytes, text: bytes = b"x") -> Asked:
        body = b"--%b\r\ncontent-disposition: form-data\r\n\r\n%b\r\n--%b--" % (boundary, text, boundary)
        return asked(body, fields=((b"Content-Type", b"multipart/form-data; boundary=" + boundary),))

    there = library(form(b"one1"))
    assert found(there, form(b"another2")) == "0001.yaml"
    assert found(there, form(b"another2", b"y")) is None


def test_several_recordings_are_taken_in_order_and_the_last_one_stays() -> None:
    there = library(asked(), asked({"other": 1}), asked(shuffled(CHAT)), asked())
    assert [found(there, asked()) for _ in range(5)] == [
        "0001.yaml",
        "0003.yaml",
        "0004.yaml",
        "0004.yaml",
        "0004.yaml",
    ]
    assert found(there, asked({"other": 1})) == "0002.yaml"


@pytest.mark.parametrize("text", ["the key is {} and more", "{}", "{} {}", "{}tail", "head{}"])
def test_what_was_redacted_stands_for_anything(text: str) -> None:
    secret = "Zq9-47110815-secret"
    body = {**CHAT, "note": text.replace("{}", secret)}
    exchange = Hidden([Secret(secret)]).without(replace(EXCHANGE, asked=asked(body)))
    assert secret.encode() not in exchange.asked.body
    there = Library([Recorded("0001.yaml", exchange)], Ignored())
    for other in (secret, "another-of-47", "[redacted]"):
        assert found(there, asked({**CHAT, "note": text.replace("{}", other)})) == "0001.yaml"
    assert found(there, asked({**CHAT, "note": 1})) is None
    assert found(there, asked({**CHAT, "note": "x" + text, "model": "gpt-4"})) is None


# What is told of a miss.


def test_the_nearest_recording_is_told_with_what_differs_but_no_content() -> None:
    far = {**CHAT, "messages": [], "tools": [], "temperature": 1, "a": 1}
    there = library(asked(far), asked())
    wanted = {
        **CHAT,
        "model": "gpt-4",
        "temperature": 0.7,
        "messages": [{"role": "user", "content": "my secret"}],
        "n": 2,
    }
    told = there.nearest(asked(wanted))
    assert told == (
        "The nearest, 0002.yaml, differs in model (gpt-4, recorded: gpt-4o), temperature (0.7, recorded: 0.5), "
        "messages[0].content, n (not recorded)."
    )


def test_lists_of_another_length_are_told() -> None:
    wanted = {**CHAT, "messages": [*CHAT["messages"], {}, {}]}
    assert "messages (3 items, recorded: 1)" in library(asked()).nearest(asked(wanted))
    del wanted["tools"]
    assert "tools (recorded alone)" in library(asked()).nearest(asked(wanted))


def test_what_is_told_is_bounded() -> None:
    wanted = {f"member {number} " + "x" * 500: number for number in range(200)}
    told = library(asked(), asked({}), asked(b"bytes")).nearest(asked(wanted))
    assert len(told) < 1500
    told = library(asked(dict.fromkeys(map(str, range(20))))).nearest(
        asked({str(one): 1 for one in range(20)})
    )
    assert told.endswith("and 15 others.")


def test_other_places_are_told_where_nothing_of_this_one_is_recorded() -> None:
    there = library(*(asked(target=f"/v1/{number}?key=AIzaSomething") for number in range(9)))
    told = there.nearest(asked())
    assert told.startswith("Of openai there are POST /v1/0, POST /v1/1,")
    assert told.endswith("and 4 others.")
    assert there.nearest(asked(provider="groq")) == "There is none of groq, but of openai."
    assert library().nearest(asked()) == "There is none of openai, but of nobody."


def test_bodies_of_other_kinds_are_told_apart() -> None:
    assert "the body (3 bytes, recorded: 1)" in library(asked(b"a")).nearest(asked(b"abc"))
    assert "one is JSON" in library(asked(b"a")).nearest(asked({}))


def test_depth_is_no_trouble() -> None:
    def deep(inside: bytes, depth: int) -> bytes:
        return b'{"a":' * depth + inside + b"}" * depth

    for depth in (90, 150, 400, 5000):
        there = library(asked(deep(b"1", depth)))
        assert found(there, asked(deep(b"1", depth))) == "0001.yaml"
        assert found(there, asked(deep(b"2", depth))) is None
        assert there.nearest(asked(deep(b"2", depth)))
