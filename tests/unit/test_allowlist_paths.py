"""A path that is let through is allowed, however a server may read it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from itertools import product
from time import perf_counter
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmproxyd.access.allowlist import Allow, Allowlist
from llmproxyd.access.paths import Paths, readings
from llmproxyd.errors import Refused
from llmproxyd.model import Request

PATTERNS = (
    "/v1/chat/completions",
    "/v1/files/",
    "/v1/models/*",
    "/v1beta/models/gem*:generate*",
    "/v1/threads/**/messages",
)
LIST = Allowlist(Allow(endpoints=PATTERNS))


def allowed(path: bytes, *fields: tuple[bytes, bytes], allowlist: Allowlist = LIST) -> bool:
    refused: Refused | None = None
    try:
        allowlist.check_head(Request(b"POST", path, fields), path)
    except Refused as error:
        refused = error
    assert refused is None or (refused.status, refused.code) == (403, "endpoint_not_allowed")
    return refused is None


@pytest.mark.parametrize(
    "path",
    [
        b"/v1/chat/completions",
        b"/v1/chat/completions?x=/../..",
        b"/v1/ch%61t/completions",
        b"/v1/files/abc",
        b"/v1/files/abc/content",
        b"/v1/files/abc/",
        b"/v1/files/a%2Fb",
        b"/v1/files/a%20b",
        b"/v1/files/%D1%84",
        b"/v1/models/gpt-4o",
        b"/v1/models/anthropic.claude-v2%3A1",
        b"/v1/models/a..b",
        b"/v1/models/...a",
        b"/v1beta/models/gemini-pro:generateContent",
        b"/v1/threads/a/messages",
        b"/v1/threads/a/b/messages",
    ],
)
def test_allowed_path_passes(path: bytes) -> None:
    assert allowed(path)


@pytest.mark.parametrize(
    "path",
    [
        # Others.
        b"/",
        b"/v1",
        b"/v1/chat",
        b"/v1/chat/completions/",
        b"/v1/chat/completionsx",
        b"/v1/chat/completions/x",
        b"/V1/chat/completions",
        b"x/v1/chat/completions",
        b"/v1/files",
        b"/v1/files/",
        b"/v1/models/",
        b"/v1/models/a/b",
        b"/v1/models/a%2Fb",
        b"/v1beta/models/x:generateContent",
        b"/v1beta/models/gem/x:generateContent",
        b"/v1/threads/messages",
        # What dots and slashes make of it.
        b"/v1/files/../chat",
        b"/v1/files/..",
        b"/v1/files/.",
        b"/v1/files/x/../../admin",
        b"/v1/files/%2e%2e/admin",
        b"/v1/files/.%2E/admin",
        b"/v1/files/..%2fadmin",
        b"/v1/files/%2e%2e%2fadmin",
        b"/v1/files/%252e%252e/admin",
        b"/v1/files/%25252e%25252e/admin",
        b"/v1/files//admin",
        b"//v1/files/x",
        b"/v1//files/x",
        b"/v1/files/x//",
        b"/v1/files/%2Fx",
        b"/v1/files/x%2F%2Fy",
        b"/v1/files/..\\admin",
        b"/v1/files/..%5cadmin",
        b"/v1/files/..;/admin",
        b"/v1/files/..;x=y/admin",
        b"/v1/files/..%3B/admin",
        b"/v1/chat/completions;x=y",
        b"/v1/files/.../admin",
        b"/v1/files/..%20/admin",
        b"/v1/files/%20/admin",
        # What is cut off or decoded otherwise.
        b"/v1/files/x%00/../admin",
        b"/v1/chat/completions%00",
        b"/v1/files/x%00y",
        b"/v1/files/x%e2%92%88",
        b"/v1/files/x%c2%bd",
        b"/v1/files/x#/../../admin",
        b"/v1/files/x%23",
        b"/v1/files/x%3F",
        b"/v1/files/x%0d%0aadmin",
        b"/v1/files/x%09",
        b"/v1/files/x%7f",
        b"/v1/files/x%",
        b"/v1/files/x%2",
        b"/v1/files/x%zz",
        b"/v1/files/%u002e%u002e/admin",
        b"/v1/files/%c0%ae%c0%ae/admin",
        b"/v1/files/%c0%af",
        b"/v1/files/%e0%80%ae",
        b"/v1/files/%ff",
        b"/v1/files/%ed%a0%80",
        b"/v1/files/%ef%bc%8e%ef%bc%8e%ef%bc%8fadmin",
        b"/v1/files/%e2%88%95admin",
        b"/v1/files/\xe2\x82\xac",
        b"/v1/files/a b",
        b"/v1/files/" + b"a" * 5000,
    ],
)
def test_other_path_is_refused_however_it_is_written(path: bytes) -> None:
    assert not allowed(path)


@pytest.mark.parametrize("name", [b"X-Original-URL", b"x-rewrite-url"])
def test_path_is_not_smuggled_in_a_field(name: bytes) -> None:
    assert not allowed(b"/v1/chat/completions", (name, b"/v1/admin"))


def test_refusal_does_not_repeat_what_was_sent() -> None:
    with pytest.raises(Refused) as caught:
        LIST.check_head(Request(b"GET", b"/secret-path", ()), b"/secret-path")
    assert "secret" not in caught.value.message


# A little model of servers: each is some choice of these habits.


def decoded(path: str, times: int) -> str:
    for _ in range(times):
        path = unquote_to_bytes(path.encode("utf-8", "replace")).decode("utf-8", "replace")
    return path


def resolved(path: str, *, merge: bool) -> str:
    parts: list[str] = []
    segments = path.split("/")[1:]
    for index, segment in enumerate(segments):
        last = index == len(segments) - 1
        if segment == "." or (merge and segment == "" and not last):
            continue
        if segment == "..":
            del parts[-1:]
        else:
            parts.append(segment)
    return "/" + "/".join(parts)


def servers(raw: bytes) -> Iterator[str]:
    """What servers make of the path *raw*."""
    habits = (False, True)
    for times, merge, semicolon, backslash, compatible, spaces in product(
        range(3), habits, habits, habits, habits, habits
    ):
        path = decoded(raw.decode("latin-1"), times)
        path = re.split("[?#\0]", path)[0]
        if compatible:
            path = unicodedata.normalize("NFKC", path)
        if backslash:
            path = path.replace("\\", "/")
        if semicolon:
            path = re.sub(";[^/]*", "", path)
        if spaces:
            path = re.sub(r"\s*/\s*", "/", path.strip())
        path = resolved(path, merge=merge)
        yield path
        yield path.rstrip("/") or "/"


PLAIN = re.compile(r"/[A-Za-z0-9/:._-]*")


def meant(path: str) -> bool:
    """Whether the patterns above mean the plain *path*, said another way than there."""
    if path == "/v1/chat/completions" or (path.startswith("/v1/files/") and len(path) > 10):
        return True
    parts = path.split("/")[1:]
    if len(parts) == 3 and parts[:2] == ["v1", "models"]:
        return True
    if len(parts) == 3 and parts[:2] == ["v1beta", "models"]:
        name = parts[2]
        return name.startswith("gem") and ":generate" in name[3:]
    return len(parts) >= 4 and parts[:2] == ["v1", "threads"] and parts[-1] == "messages"


PIECES = [
    "/v1", "/v1beta", "/chat", "/completions", "/files", "/models", "/threads", "/messages", "/admin", "/keys",
    "/", "//", "/a", "a", "gem", ":generate", ".", "..", "/..", "/../", "/./", "%2e", "%2E%2e", "/%2e%2e/", "..;",
    ";x", "%3b", "\\", "/..\\", "%5c", "%2f", "%2F", "..%2f", "%252f", "%252e", "%25", "%00", "%23", "#", "%3f",
    "%20", "+", "%09", "%0a", "%c0%ae", "%c0%af", "%ef%bc%8f", "%ef%bc%8e", "%e2%80%a4", "%61", "%", "%D1%84",
]  # fmt: skip
HARMLESS = [
    "/a",
    "a",
    "/b",
    "b",
    "/files",
    "/messages",
    "%61",
    "%D1%84",
    "%20b",
    "+",
    ":",
    "gem",
    ":generate",
]
STARTS = ["", "/v1/files/x", "/v1/files/", "/v1/models/x", "/v1/chat/completions", "/v1/threads/x", "/v1"]


@settings(max_examples=500, deadline=None)
@given(
    st.sampled_from(STARTS),
    st.lists(st.sampled_from(HARMLESS) | st.sampled_from(PIECES), max_size=6),
)
def test_no_server_reads_another_path_than_is_allowed(start: str, pieces: list[str]) -> None:
    raw = (start + "".join(pieces)).encode()
    if not raw.startswith(b"/") or not allowed(raw):
        return
    for path in servers(raw):
        assert meant(path) or not PLAIN.fullmatch(path), (raw, path)


@given(
    st.lists(st.sampled_from(["/v1", "/files", "/models", "/chat", "/a", "/completions", "/x"]), min_size=1)
)
def test_plain_path_passes_exactly_where_it_is_meant(pieces: list[str]) -> None:
    path = "".join(pieces)
    assert allowed(path.encode()) == meant(path)


@given(st.binary(max_size=60))
def test_no_bytes_break_the_reading(path: bytes) -> None:
    for one in readings(path):
        assert one.startswith("/")
        assert ".." not in one.split("/")


# Patterns.


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("/a/*", "/a/b", True),
        ("/a/*", "/a/b/c", False),
        ("/a/*/c", "/a/b/c", True),
        ("/a/*/c", "/a/b/b/c", False),
        ("/a/**", "/a/b/c", True),
        ("/a/**", "/a", False),
        ("/**/c", "/a/b/c", True),
        ("/**/c", "/c", False),
        ("/a/", "/a/b", True),
        ("/a/*/", "/a/b/c", True),
        ("/a/*/", "/a/b", False),
        ("/x*y*z", "/xAyBz", True),
        ("/x*y*z", "/xyz", True),
        ("/x*y*z", "/xzy", False),
        ("/x*y*y", "/xayyby", True),
        ("/*ab", "/aab", True),
        ("/*.json/z", "/a.json.json/z", True),
        ("/a.b", "/axb", False),
        ("/a[1]", "/a1", False),
        ("/", "/a", True),
        ("/", "/", True),
    ],
)
def test_pattern_matches(pattern: str, path: str, matches: bool) -> None:
    assert Paths([pattern]).allow(path.encode()) is matches


def by_hand(pattern: str, path: str) -> bool:
    """Whether *path* matches *pattern*, by trying everything."""
    if not pattern:
        return not path
    if pattern.startswith("**"):
        return any(by_hand(pattern[2:], path[at:]) for at in range(len(path) + 1))
    if pattern.startswith("*"):
        ends = range(len(path.partition("/")[0]) + 1)
        return any(by_hand(pattern[1:], path[at:]) for at in ends)
    return path.startswith(pattern[0]) and by_hand(pattern[1:], path[1:])


SEGMENT = st.text(alphabet="ab*", min_size=1, max_size=4).filter(lambda text: "**" not in text)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(SEGMENT, max_size=3),
    st.booleans(),
    st.lists(SEGMENT, max_size=2),
    st.lists(st.text(alphabet="ab", min_size=1, max_size=5), min_size=1, max_size=5),
)
def test_pattern_matches_what_trying_everything_finds(
    before: list[str], deep: bool, behind: list[str], path: list[str]
) -> None:
    segments = [*before, *(["**"] if deep else []), *behind]
    if segments:
        pattern, text = "/" + "/".join(segments), "/" + "/".join(path)
        assert Paths([pattern]).allow(text.encode()) == by_hand(pattern, text)


def test_no_path_makes_matching_slow() -> None:
    paths = Paths(["/*a*a*a*a*a*a*a*b", "/**/*a*a*a*a*b/c", "/x/**/a/a/a/a/b"])
    begun = perf_counter()
    for path in (b"/" + b"a" * 4000, b"/x" + b"/a" * 2000, b"/" + b"a/" * 1000 + b"c"):
        assert not paths.allow(path)
    assert perf_counter() - begun < 1.0
