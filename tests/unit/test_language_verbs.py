"""The whole language: what a line says, and what is said of one that says nothing."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from docutils.core import publish_string
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llmproxyd.faults.language import KINDS, OPTIONS, ClearFault, Incomplete, LanguageError, SetFault, parse
from llmproxyd.language.filters import FIELDS, Filter, parse_filter
from llmproxyd.language.grammar import Verb
from llmproxyd.language.lexer import words_of, written
from llmproxyd.language.reference import reference
from llmproxyd.language.table import TABLE

UNDERSTOOD: list[tuple[str, str, dict[str, object]]] = [
    ("status", "status", {}),
    (" STATUS ", "status", {}),
    ("status all", "status", {"all": "all"}),
    ("requests", "requests", {}),
    ("requests 5", "requests", {"n": 5}),
    (
        "requests 5 status>=500 upstream=openai",
        "requests",
        {"n": 5, "filter": (Filter("status", ">=", 500), Filter("upstream", "=", "openai"))},
    ),
    ("requests duration>2s", "requests", {"filter": (Filter("duration", ">", 2.0),)}),
    ("requests tail 'path~a b'", "requests tail", {"filter": (Filter("path", "~", "a b"),)}),
    ("explain req_1", "explain", {"id": "req_1"}),
    ("fault", "fault list", {}),
    ("fault rm evening", "fault rm", {"name": "evening"}),
    ("breaker", "breaker show", {}),
    ("Breaker Trip openai/gpt-4", "breaker trip", {"name": "openai/gpt-4"}),
    ("upstream", "upstream list", {}),
    ("upstream drain my-vllm", "upstream drain", {"name": "my-vllm"}),
    ("cache purge --url 'openai /v1/models'", "cache purge", {"url": "openai /v1/models"}),
    ("cache purge --all", "cache purge", {"all": True}),
    ("project", "project list", {}),
    (
        "project create 'team a' --rpm=60 --tpm none --credential openai=k --credential x= --inactive",
        "project create",
        {
            "name": "team a",
            "rpm": 60,
            "tpm": None,
            "credential": (("openai", "k"), ("x", "")),
            "inactive": True,
        },
    ),
    ("project update --name '--rpm' a", "project update", {"name": "--rpm", "project": "a"}),
    ("project show '--odd'", "project show", {"project": "--odd"}),
    ("token create --project a --scope FAULT", "token create", {"project": "a", "scope": ("fault",)}),
    ("usage --by model", "usage", {"by": "model"}),
    ("config", "config show", {}),
    ("log level llmproxyd DEBUG", "log level", {"namespace": "llmproxyd", "level": "debug"}),
    ("help upstream drain", "help", {"verb": ("upstream", "drain")}),
    ("?", "?", {}),
    ("q", "q", {}),
    ("quit", "quit", {}),
    ("shutdown", "shutdown", {}),
]


@pytest.mark.parametrize(("line", "verb", "values"), UNDERSTOOD)
@pytest.mark.parametrize("json", [False, True])
def test_line_is_a_verb_and_its_values(line: str, verb: str, values: dict[str, object], json: bool) -> None:
    call = TABLE.parse(f"{line} --json " if json else line)
    assert (call.verb.name, call.values, call.json) == (verb, values, json)


@pytest.mark.parametrize("line", ["n", "c", "c30%", "R 3 retry_after=2", "u*", "error quota 2", "c 0"])
def test_fault_is_what_the_language_of_faults_says(line: str) -> None:
    assert TABLE.parse(line).values == {"command": parse(line)}
    assert TABLE.parse(f"{line} --json").json


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "nothing was typed; accepted: n, c, r, u, error, cut, reset, stall"),
        ("xyz", '"xyz" is no command; accepted: n, c, r, u, error'),
        ("statsu", 'did you mean "status"?'),
        ("cc", '"cc" is no command'),
        ("3", '"3" is no command'),
        ("q now", 'q takes nothing after it, found "now"'),
        ("q=1", "is no command"),
        ("status please", "accepted: all"),
        ("n 3", 'n takes nothing after it, found "3"'),
        ("breaker melt x", '"melt" is nothing to do with breaker; accepted: breaker show, breaker trip NAME'),
        ("breaker tirp x", 'did you mean "breaker trip"?'),
        ("breaker trip", "breaker trip needs NAME"),
        ("breaker trip a b", '"b" is too much; accepted: breaker trip NAME'),
        ("log", "log needs another word; accepted: log level NAMESPACE LEVEL"),
        ("log level a loud", 'LEVEL: found "loud"; accepted: debug, info, warn, error, critical'),
        ("log level a debgu", 'did you mean "debug"?'),
        ("requests tial", 'did you mean "requests tail"?'),
        ("requests 0", "is no filter"),
        ("requests 5000", "is no filter"),
        ("requests colour=red", '"colour" is no field'),
        ("requests statsu=500", 'did you mean "status"?'),
        ("requests status=", "status= needs a value"),
        ("requests status~5", "status is a number"),
        ("requests status>=x", "accepted: a whole number"),
        ("requests model>3", "model is no number"),
        ("requests duration>soon", "accepted: a duration"),
        ("project create x --rmp 3", 'did you mean "--rpm"? (accepted: --id'),
        ("project create x --rpm", "--rpm needs a value: a whole number from 1"),
        ("project create x --rpm 0", '--rpm: found "0"; accepted: a whole number from 1'),
        ("project create x --rpm 1 --rpm 2", "--rpm is given twice"),
        ("project create x --inactive=no", "--inactive takes no value"),
        ("project create x --credential openai", "--credential: accepted: UPSTREAM=KEY"),
        ("project create 'x", "is not closed"),
        ("project create ''", "NAME: found"),
        ("token create", "token create needs --project"),
        ("cache purge", "cache purge needs one option"),
        ("cache purge --all --url x", "takes one option alone"),
        ("status --json all", "--json stands at the end of a line"),
        ("status --json=yes", "--json stands at the end of a line"),
        ("fault add", "a fault is missing"),
        ("fault ad r", 'did you mean "fault add"?'),
        ("usage --by colour", "--by: found"),
    ],
)
def test_refused_with_what_was_wrong_and_what_would_be_accepted(line: str, said: str) -> None:
    with pytest.raises(LanguageError) as caught:
        TABLE.parse(line)
    assert said in str(caught.value)


def test_key_in_a_line_that_is_refused_is_not_repeated() -> None:
    for line in (
        "project create x --credential sk-verysecret",
        "project rotate x --credential =sk-verysecret",
    ):
        with pytest.raises(LanguageError) as caught:
            TABLE.parse(line)
        assert "verysecret" not in str(caught.value)


@pytest.mark.parametrize("verb", TABLE.verbs, ids=lambda one: one.name)
def test_examples_of_a_verb_are_that_verb(verb: Verb) -> None:
    for text in verb.examples:
        assert TABLE.parse(text).verb is verb, text


# Filters.


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        ("status=200", True), ("status!=200", False), ("status>=500", False), ("status<201", True),
        ("duration>1s", True), ("duration>2s", False), ("first>0", False), ("first!=1", True),
        ("upstream=openai", True), ("upstream!=openai", False), ("path~CHAT", True), ("path~models", False),
        ("model=x", False), ("model!=x", True), ("fault~x", False), ("attempts<=1", True),
    ],
)  # fmt: skip
def test_filter_lets_through_what_it_says(text: str, passes: bool) -> None:
    row = {
        "status": 200,
        "duration": 1.5,
        "upstream": "openai",
        "path": "/v1/chat",
        "attempts": 1,
        "model": None,
    }
    assert parse_filter(text).matches(row) is passes


# Words.


@given(st.lists(st.text(min_size=1, max_size=10), max_size=4))
def test_words_that_can_be_written_are_read_back(texts: list[str]) -> None:
    line = [(text, as_word) for text in texts if (as_word := written(text)) is not None]
    assert [word.text for word in words_of(" ".join(word for _, word in line))] == [text for text, _ in line]


# Anything at all.

PIECES = st.sampled_from(
    [*TABLE.firsts, *(word for verb in TABLE.verbs for word in verb.words)]
    + [option.name for verb in TABLE.verbs for option in verb.options]
    + [
        *KINDS,
        *(f"{name}=" for name in OPTIONS),
        *FIELDS,
        "name=x",
        "--json",
        "--",
        "--x=",
        "=",
        ">=",
        "*",
        "30%",
    ]
    + ["'", '"', "3", "0", "none", "openai", "a=b", "\x1b", "\ud800", "é", "\n", "\x00"]
)
LINES = st.lists(PIECES, max_size=8).map(" ".join) | st.lists(PIECES, max_size=5).map("".join) | st.text()


@settings(deadline=None, max_examples=500)
@given(LINES)
@example("requests " + "9" * 5000)
@example("usage --limit " + "9" * 5000)
@example("project create " + "'" * 4001)
@example("c" * 8000)
def test_any_line_is_understood_or_refused_in_bounded_printable_words(line: str) -> None:
    try:
        TABLE.parse(line)
    except LanguageError as error:
        said = str(error)
        assert said.isprintable()
        assert 0 < len(said) < 1000


@settings(deadline=None)
@given(LINES)
def test_json_at_the_end_changes_nothing_else(line: str) -> None:
    try:
        call = TABLE.parse(line)
    except LanguageError:
        return
    if not call.json:
        again = TABLE.parse(line + " --json")
        assert (again.verb, again.values, again.json) == (call.verb, call.values, True)


def test_faults_alone_set_a_mode() -> None:
    for letter in "ncru":
        assert isinstance(TABLE.parse(letter).values["command"], SetFault | ClearFault)


def test_beginning_of_a_line_is_told_apart_from_what_is_wrong() -> None:
    for line in ("", "log", "log level", "error", "project create x --rpm", "fault add", "explain 'x"):
        with pytest.raises(Incomplete):
            TABLE.parse(line)


# The document.


def test_document_is_what_the_table_says() -> None:
    """``reference(TABLE)`` writes it anew."""
    path = Path(__file__).parents[2] / "docs" / "commands.rst"
    assert path.read_text() == reference(TABLE)


def test_document_is_valid() -> None:
    said = io.StringIO()
    publish_string(
        reference(TABLE),
        writer="null",
        settings_overrides={"report_level": 1, "halt_level": 5, "warning_stream": said},
    )
    assert said.getvalue() == ""
