"""Filters of requests take globs where a text stands, and plain texts as before."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxyd.language.filters import NUMBERS, TEXTS, parse_filter
from llmproxyd.model import End

ROW = {
    "status": 502,
    "upstream": "openai",
    "path": "/v1/chat/completions",
    "model": "gpt-4o",
    "end": End.COMPLETE,
    "fault": None,
    "code": "upstream_unreachable",
}


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        ("upstream=open*", True), ("upstream=*ai", True), ("upstream=op?nai", True), ("upstream=opn*", False),
        ("upstream!=open*", False), ("upstream!=anthropic*", True),
        ("path=/v1/*", True), ("path=/v1/*/completions", True), ("path=/v2/*", False), ("path=*chat*", True),
        ("model=gpt-*", True), ("model=GPT-*", False), ("model=gpt-[45]*", True), ("model=gpt-[!4]*", False),
        ("model=gpt-4", False), ("model=gpt-4?", True), ("model=?", False),
        ("code=upstream_*", True), ("end=comp*", True),
    ],
)  # fmt: skip
def test_a_glob_is_the_whole_value_with_its_case(text: str, passes: bool) -> None:
    assert parse_filter(text).matches(ROW) is passes


@pytest.mark.parametrize("pattern", ["*", "N*", "None", "????"])
def test_what_is_missing_fits_no_glob(pattern: str) -> None:
    for row in (ROW, {}):
        assert not parse_filter(f"fault={pattern}").matches(row)
        assert parse_filter(f"fault!={pattern}").matches(row)


@pytest.mark.parametrize("name", TEXTS)
def test_any_value_is_one_that_is_there(name: str) -> None:
    assert parse_filter(f"{name}=*").matches({name: "x"})
    assert not parse_filter(f"{name}!=*").matches({name: "x"})
    assert not parse_filter(f"{name}=*").matches({name: None})


@pytest.mark.parametrize("value", ["a[1]", "a*b", "what?", "[", "[!", "a[b"])
def test_a_value_that_holds_such_a_sign_itself_is_still_found(value: str) -> None:
    assert parse_filter(f"model={value}").matches({"model": value})


def test_contains_is_no_glob() -> None:
    assert not parse_filter("model~gpt*").matches(ROW)
    assert parse_filter("model~t-4*").matches({"model": "gpt-4*"})


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_have_no_globs(name: str) -> None:
    with pytest.raises(ValueError, match="accepted: a whole number"):
        parse_filter(f"{name}=5*")


@given(st.text(min_size=1, max_size=20), st.text(max_size=20))
def test_without_such_a_sign_only_the_same_text_fits(value: str, found: str) -> None:
    value = "".join(one for one in value if one not in "*?[") or "x"
    assert parse_filter(f"model={value}").matches({"model": found}) is (found == value)


@given(st.text(alphabet="ab*?[]!-\\", min_size=1, max_size=20), st.text(alphabet="ab[]*?-!\\", max_size=20))
def test_no_pattern_fails(value: str, found: str) -> None:
    same, other = parse_filter(f"model={value}"), parse_filter(f"model!={value}")
    assert same.matches({"model": found}) is not other.matches({"model": found})


def test_many_stars_take_no_time() -> None:
    pattern = parse_filter("path=" + "*a" * 200 + "*b")
    began = time.process_time()
    assert not pattern.matches({"path": "a" * 4000})
    assert time.process_time() - began < 5
