"""Projects and tokens as rows: what comes back is what went in."""

from __future__ import annotations

import sqlite3
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxyd.access.allowlist import Allow
from llmproxyd.access.projects import Limits, Project, Scope, Token
from llmproxyd.store import rows

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=200)
ANY_TEXT = st.text(max_size=50)
TEXTS = st.lists(ANY_TEXT, max_size=4).map(tuple)
TIME = st.floats(allow_nan=False, allow_infinity=False)
NUMBER = st.none() | st.integers(-(1 << 63), (1 << 63) - 1)
LIMITS = st.builds(Limits, NUMBER, NUMBER)
ALLOW = st.builds(
    Allow, TEXTS, TEXTS, st.dictionaries(ANY_TEXT, TEXTS, max_size=3).map(MappingProxyType), TEXTS, TEXTS
)
PROJECTS = st.builds(
    Project,
    id=TEXT,
    name=TEXT,
    active=st.booleans(),
    allow=ALLOW,
    limits=LIMITS,
    created=TIME,
    updated=TIME,
)
TOKENS = st.builds(
    Token,
    id=TEXT,
    project=TEXT,
    digest=st.binary(min_size=32, max_size=32),
    shown=TEXT,
    name=TEXT,
    active=st.booleans(),
    expires_at=st.none() | TIME,
    max_requests=NUMBER,
    limits=LIMITS,
    scopes=st.frozensets(st.sampled_from(Scope)),
    created=TIME,
    last_used=st.none() | TIME,
    requests=st.integers(0, (1 << 63) - 1),
    tokens=st.integers(0, (1 << 63) - 1),
)
DATABASE = sqlite3.connect(":memory:")


def through_sqlite(row: rows.Row) -> rows.Row:
    """*row* as a database gives it back."""
    marks = ", ".join("?" * len(row))
    found: rows.Row = DATABASE.execute(f"SELECT {marks}", row).fetchone()
    return found


@given(PROJECTS)
def test_project_comes_back(project: Project) -> None:
    assert rows.project_of(through_sqlite(rows.project_row(project)), {}) == project


@given(TOKENS)
def test_token_comes_back(token: Token) -> None:
    assert rows.token_of(through_sqlite(rows.token_row(token))) == token


def test_scope_of_a_later_program_is_left_out() -> None:
    token = Token(id="t", project="p", digest=b"", shown="", scopes=frozenset({Scope.FAULT}))
    row = list(rows.token_row(token))
    row[rows.TOKEN.split(", ").index("scopes")] = "fault teleport"
    assert rows.token_of(tuple(row)) == token


@given(st.text())
def test_text_is_kept_or_refused_in_words(text: str) -> None:
    if rows.possible(text):
        assert rows.text(text, "a name") == text
        assert through_sqlite((text,)) == (text,)
    else:
        with pytest.raises(ValueError, match=r"^a name must"):
            rows.text(text, "a name")


@pytest.mark.parametrize(("size", "kept"), [(1000, True), (1001, False)])
def test_length_counts_in_bytes(size: int, kept: bool) -> None:
    assert rows.possible("x" * size) is kept
    assert rows.possible("ä" * (size // 2) + "x" * (size % 2)) is kept
