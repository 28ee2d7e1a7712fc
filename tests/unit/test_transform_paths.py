"""Paths are rewritten as bytes: what a rule does not name stays as the client sent it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxyd.transform.paths import Rewritten, rewrite
from llmproxyd.transform.rules import PathRewrite, Transform

TAGS = PathRewrite("/api/tags", "/api/tags", root=True)


@pytest.mark.parametrize(
    ("match", "to", "target", "expected"),
    [
        ("/a", "/b", b"/a", b"/b"),
        ("/a", "/b", b"/a?x=%2F&y=a?b", b"/b?x=%2F&y=a?b"),
        ("/a", "/b", b"/a?", b"/b?"),
        ("/a", "/b", b"/a/", None),
        ("/a", "/b", b"/ab", None),
        ("/a", "/b", b"/A", None),
        ("/a", "/b", b"/%61", None),
        ("/a", "/b", b"/x?/a", None),
        ("/a", "/b", b"", None),
        ("/a", "/b", b"*", None),
        ("/a/*", "/b/*", b"/a/c%2Fd/../e?q=/a/", b"/b/c%2Fd/../e?q=/a/"),
        ("/a/*", "/b/*", b"/a/", b"/b/"),
        ("/a/*", "/b/*", b"/a", None),
        ("/a/*", "/*", b"/a//x", b"//x"),
        ("/a*", "/b*", b"/abc", b"/bbc"),
        ("/a*", "/b*", b"/a*", b"/b*"),
        ("/a/*", "/b", b"/a/c?d", b"/b?d"),
        ("/*", "/v1/*", b"/chat\xff", b"/v1/chat\xff"),
        ("/a%3Ab", "/b%2F", b"/a%3Ab", b"/b%2F"),
        ("/a%3Ab", "/b", b"/a:b", None),
        ("/a%3ab", "/b", b"/a%3Ab", None),
    ],
)
def test_path_is_rewritten_and_the_rest_is_kept(
    match: str, to: str, target: bytes, expected: bytes | None
) -> None:
    found = rewrite([PathRewrite(match, to)], target)
    assert found == (None if expected is None else Rewritten(expected, root=False))


def test_first_rule_that_matches_holds() -> None:
    rules = [PathRewrite("/a/b", "/1"), PathRewrite("/a/*", "/2/*"), PathRewrite("/a/c", "/3")]
    assert rewrite(rules, b"/a/b") == Rewritten(b"/1", root=False)
    assert rewrite(rules, b"/a/c") == Rewritten(b"/2/c", root=False)
    assert rewrite(rules, b"/b") is None
    assert rewrite([], b"/a") is None


def test_path_below_the_origin_says_so() -> None:
    """Ollama's list of models, which clients of Venice ask for below the base URL's path."""
    assert rewrite([TAGS], b"/api/tags?x=1") == Rewritten(b"/api/tags?x=1", root=True)
    assert rewrite([TAGS], b"/chat/completions") is None


PATHS = st.text(st.sampled_from("/ab%2F:.~"), max_size=6).map(lambda text: "/" + text)
QUERIES = st.sampled_from([b"", b"?", b"?a=/b", b"?a?b", b"?%3F"])


@given(PATHS, PATHS, PATHS, QUERIES)
def test_rest_and_query_are_kept_byte_for_byte(prefix: str, to: str, rest: str, query: bytes) -> None:
    target = prefix.encode() + rest.encode() + query
    found = rewrite([PathRewrite(prefix + "*", to + "*")], target)
    assert found == Rewritten(to.encode() + rest.encode() + query, root=False)


@given(st.binary(max_size=30), PATHS, PATHS, st.booleans())
def test_any_bytes_are_a_target(target: bytes, match: str, to: str, glob: bool) -> None:
    found = rewrite([PathRewrite(match + "*" * glob, to)], target)
    path, mark, query = target.partition(b"?")
    fires = path.startswith(match.encode()) if glob else path == match.encode()
    assert found == (Rewritten(to.encode() + mark + query, root=False) if fires else None)


# Declarations.


@pytest.mark.parametrize(
    ("rule", "key", "said"),
    [
        (PathRewrite("a", "/b"), "match", 'starts with "/"'),
        (PathRewrite("", "/b"), "match", 'starts with "/"'),
        (PathRewrite("*", "/b"), "match", 'starts with "/"'),
        (PathRewrite("/a", "https://b/"), "to", 'starts with "/"'),
        (PathRewrite("/a/*/b", "/b"), "match", "at its end"),
        (PathRewrite("/a/**", "/b"), "match", "at its end"),
        (PathRewrite("/a*", "/*/b"), "to", "at its end"),
        (PathRewrite("/a?b", "/b"), "match", "path alone"),
        (PathRewrite("/a", "/b#c"), "to", "path alone"),
        (PathRewrite("/é", "/b"), "match", "percent-encoded"),
        (PathRewrite("/a", "/b c"), "to", "percent-encoded"),
        (PathRewrite("/a", "/b\r\nX: y"), "to", "percent-encoded"),
        (PathRewrite("/a", "/b/*"), "to", "the rest of the path"),
        (PathRewrite("/a", "/a"), "to", "another one"),
        (PathRewrite("/a*", "/a*"), "to", "another one"),
    ],
)
def test_rewrites_that_cannot_be_meant_are_told(rule: PathRewrite, key: str, said: str) -> None:
    [(where, message)] = rule.problems()
    assert where == key
    assert said in message


@pytest.mark.parametrize(
    "rule",
    [TAGS, PathRewrite("/*", "/v1/*"), PathRewrite("/a/*", "/b"), PathRewrite("/api/*", "/api/*", root=True)],
)
def test_rewrites_that_can_be_meant_are_not_told(rule: PathRewrite) -> None:
    assert list(rule.problems()) == []
    assert list(Transform(paths=(rule,)).problems()) == []


@pytest.mark.parametrize(
    ("former", "later", "hidden"),
    [
        ("/a", "/a", True),
        ("/a/*", "/a/b", True),
        ("/a/*", "/a/b*", True),
        ("/a/*", "/a/*", True),
        ("/a/*", "/a*", False),
        ("/a/*", "/a", False),
        ("/a", "/a*", False),
        ("/a", "/b", False),
    ],
)
def test_rewrite_that_is_never_reached_is_told(former: str, later: str, hidden: bool) -> None:
    rule = Transform(paths=(PathRewrite(former, "/1"), PathRewrite(later, "/2")))
    found = list(rule.problems())
    assert [key for key, _ in found] == ["paths"] * hidden
    assert all("number 2" in message for _, message in found)


@pytest.mark.parametrize(
    "rule", [Transform(endpoints=("chat",), paths=(TAGS,)), Transform(models=("m",), paths=(TAGS,))]
)
def test_rewrites_are_for_no_endpoint_or_model_of_their_own(rule: Transform) -> None:
    [(key, message)] = rule.problems()
    assert key == "paths"
    assert "neither endpoints nor models" in message
