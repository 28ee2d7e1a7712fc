"""The operator's language: every form that is accepted, and what is said of every other one."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llmproxyd.faults import language
from llmproxyd.faults.language import (
    BREAKAGES,
    KINDS,
    OPTIONS,
    ClearFault,
    Incomplete,
    LanguageError,
    Options,
    SetFault,
    parse,
    parse_field,
    parse_rule,
    parse_standing,
    parse_when,
)
from llmproxyd.faults.rules import UNKNOWN, Always, FaultKind, Match, Rule, Share, Times, When
from llmproxyd.providers.base import ErrorKind

C, R, U = ErrorKind.CONTEXT_LENGTH, ErrorKind.RATE_LIMIT, UNKNOWN


def rule(text: str) -> Rule:
    command = parse(text)
    assert isinstance(command, SetFault), command
    return command.rule


def refusal(text: str) -> str:
    with pytest.raises(LanguageError) as caught:
        parse(text)
    message = str(caught.value)
    assert_bounded(message)
    return message


def assert_bounded(message: str) -> None:
    assert message.isprintable()
    assert 0 < len(message) < 500


# Letters and modifiers.

MODIFIERS: list[tuple[str, When]] = [
    ("", Times(1)),
    ("1", Times(1)),
    ("4", Times(4)),
    ("007", Times(7)),
    ("999999999", Times(999_999_999)),
    ("0.3", Share(0.3)),
    (".5", Share(0.5)),
    ("1.0", Always()),
    ("30%", Share(0.3)),
    ("30 %", Share(0.3)),
    ("2.5%", Share(0.025)),
    (".5%", Share(0.005)),
    ("100%", Always()),
    ("100 %", Always()),
    ("*", Always()),
]


@pytest.mark.parametrize(("modifier", "when"), MODIFIERS)
@pytest.mark.parametrize(("letter", "kind"), [("c", C), ("r", R), ("u", U), ("C", C), ("R", R), ("U", U)])
@pytest.mark.parametrize("form", ["{0}{1}", "{0} {1}", " {0}   {1}  ", "\t{0}\t{1}\n", "{0}\n{1}"])
def test_letter_with_modifier(form: str, letter: str, kind: FaultKind, modifier: str, when: When) -> None:
    assert rule(form.format(letter, modifier)) == Rule(name="mode", kind=kind, when=when)


def test_one_is_a_count_and_one_point_nought_a_share() -> None:
    assert rule("c 1").when == Times(1)
    assert rule("c 1.0").when == Always()


@pytest.mark.parametrize(
    "text", ["c 0", "c0", "r 00", "u 0.0", "c 0%", "c 0 %", "c 0.00%", "error quota 0", "r 0 after=2"]
)
def test_zero_means_no_error_and_says_so(text: str) -> None:
    command = parse(text)
    assert isinstance(command, ClearFault)
    assert "same as n" in command.note
    assert "0" in command.note


def test_note_about_a_zero_of_many_digits_is_bounded() -> None:
    command = parse("c 0." + "0" * 10_000)
    assert isinstance(command, ClearFault)
    assert_bounded(command.note)


@pytest.mark.parametrize("text", ["n", "N", " n ", "\tN\n"])
def test_n_has_nothing_to_explain(text: str) -> None:
    assert parse(text) == ClearFault(note="")


# error KIND


@pytest.mark.parametrize("kind", ErrorKind)
@pytest.mark.parametrize("form", ["error {0}", "ERROR {1}", "error {2}", "Error   {3} ", "error\t{0}"])
def test_error_takes_every_kind_in_any_case_with_hyphens(kind: ErrorKind, form: str) -> None:
    name = kind.value
    text = form.format(name, name.upper(), name.replace("_", "-"), name.title())
    assert rule(text) == Rule(name="mode", kind=kind, when=Times(1))


def test_the_kinds_are_those_of_the_catalogue() -> None:
    assert set(KINDS) == {
        "context_length", "rate_limit", "server_error", "overloaded", "quota", "authentication",
        "permission", "not_found", "content_filter", "too_large", "bad_gateway", "gateway_timeout",
    }  # fmt: skip


@pytest.mark.parametrize(("modifier", "when"), MODIFIERS)
def test_error_takes_the_modifiers_of_the_letters(modifier: str, when: When) -> None:
    assert rule(f"error gateway-timeout {modifier}").when == when
    assert rule(f"error gateway_timeout{modifier}").when == when


@pytest.mark.parametrize(
    ("text", "kind"), [("error c", C), ("error R 3", R), ("error unknown", U), ("error u", U)]
)
def test_error_takes_the_short_forms(text: str, kind: FaultKind) -> None:
    assert rule(text).kind == kind


# Options.

OPTION_TABLE: list[tuple[str, dict[str, object]]] = [
    ("retry_after=2", {"retry_after": 2.0}),
    ("retry_after=0", {"retry_after": 0.0}),
    ("retry_after=0.25", {"retry_after": 0.25}),
    ("after=1", {"after": 1}),
    ("after=0", {"after": 0}),
    ("for=90", {"lasts": 90.0}),
    ("for=5m", {"lasts": 300.0}),
    ("for=1m30s", {"lasts": 90.0}),
    ("for=250ms", {"lasts": 0.25}),
    ("upstream=my-vllm", {"match": Match(upstream="my-vllm")}),
    ("model=gpt-4*", {"match": Match(model="gpt-4*")}),
    ("model=vendor/a=b", {"match": Match(model="vendor/a=b")}),
    ("path=/v1/chat/*", {"match": Match(path="/v1/chat/*")}),
    ("stream=yes", {"match": Match(streaming=True)}),
    ("stream=NO", {"match": Match(streaming=False)}),
    ("RETRY_AFTER = 2", {"retry_after": 2.0}),
    ("after =\t3  for= 1s", {"after": 3, "lasts": 1.0}),
    (
        "retry_after=2 after=1 for=5m upstream=x model=m path=/p stream=yes",
        {"retry_after": 2.0, "after": 1, "lasts": 300.0, "match": Match(upstream="x", model="m", path="/p", streaming=True)},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("options", "members"), OPTION_TABLE)
@pytest.mark.parametrize(
    ("start", "kind", "when"),
    [
        ("c", C, Times(1)),
        ("r 3", R, Times(3)),
        ("u*", U, Always()),
        ("c 30 %", C, Share(0.3)),
        ("error rate-limit", R, Times(1)),
        ("error rate_limit *", R, Always()),
    ],
)
def test_options_follow_short_and_long_forms(
    start: str, kind: FaultKind, when: When, options: str, members: dict[str, object]
) -> None:
    plain = Rule(name="mode", kind=kind, when=when)
    assert rule(f"{start} {options}") == replace(plain, **members)  # type: ignore[arg-type]


def test_faults_hit_inference_alone() -> None:
    assert [kind.value for kind in rule("c *").match.kinds] == ["inference"]


# What is refused, and what is then said.

REFUSED = [
    ("", "accepted: n, c, r, u, error KIND"),
    ("   ", "accepted: n, c"),
    ("x", '"x" is no fault; accepted: n, c, r, u, error KIND'),
    ("cc", "is no fault; accepted"),
    ("3", '"3" is no fault; accepted'),
    ("*", "is no fault; accepted"),
    ("-c", "is no fault; accepted"),
    ("n 3", 'n takes nothing after it, found "3"'),
    ("n*", "n takes nothing after it"),
    ("c 1.5", "more than every request; a share goes from 0.0 to 1.0 or 0% to 100%"),
    ("c 101%", "0% to 100%"),
    ("c " + "9" * 400 + ".0", "0% to 100%"),
    ("c -1", '"-1" is no modifier; accepted: nothing (once), a whole number'),
    ("c 1 0", "is no modifier; accepted"),
    ("c 3 4", '"3 4" is no modifier'),
    ("c 1e3", "is no modifier; accepted"),
    ("c 1.", "is no modifier; accepted"),
    ("c **", "is no modifier; accepted"),
    ("c %", "is no modifier; accepted"),
    ("c 30%%", "is no modifier; accepted"),
    ("c ٣", "is no modifier; accepted"),
    ("c nan", "is no fault; accepted|is no modifier; accepted"),
    ("c 1000000000", "is no modifier; accepted"),
    ("c often", "is no modifier; accepted"),
    ("error", f"error needs a kind: {', '.join(KINDS)}"),
    ("error  ", "error needs a kind"),
    ("error 3", "error needs a kind"),
    ("error nope", f"(accepted: {', '.join((*KINDS, *BREAKAGES))})"),
    ("error rate_limt", 'did you mean "rate_limit"?'),
    ("error over-loaded", 'did you mean "overloaded"?'),
    ("error quota -1", '"-1" is no modifier'),
    ("r retry_after=-1", "retry_after=-1: a number of seconds is accepted, 0 included"),
    ("r retry_after=soon", "a number of seconds is accepted"),
    ("r retry_after=1e3", "a number of seconds is accepted"),
    ("r retry_after=99999999", "a number of seconds is accepted"),
    ("r retry_after=", "retry_after= needs a value"),
    ("r =2", "is no modifier"),
    ("c after=-1", "after=-1: a whole number of requests is accepted"),
    ("c after=1.5", "a whole number of requests is accepted"),
    ("c for=0", "for=0 would be over at once"),
    ("c for=0ms", "would be over at once"),
    ("c for=soon", 'for=soon: accepted is a duration such as "250ms"'),
    ("c for=-1s", "accepted is a duration"),
    ("c for=400d", "accepted is a duration"),
    ("c stream=maybe", "accepted are stream=yes and stream=no"),
    ("c after=1 after=2", "after is given twice"),
    ("c after=1 AFTER=1", "after is given twice"),
    ("c afetr=1", 'did you mean "after"?'),
    ("c retry-aftre=1", 'did you mean "retry_after"?'),
    ("c colour=red", f"(accepted: {', '.join(OPTIONS)})"),
    ("c after=1 3", '"3" after the options; write the modifier before them'),
    ("c after=1 *", "write the modifier before them"),
    ("r retry_after=2 c", "write the modifier before them"),
    ("n after=1", "n takes nothing after it"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "said"), REFUSED)
def test_refused_with_what_would_be_accepted(text: str, said: str) -> None:
    message = refusal(text)
    assert any(one in message for one in said.split("|"))


HOSTILE = "\x1b[2J\x07\x00\u202e\x9b\ud800" + "é" * 10_000


@pytest.mark.parametrize(
    "form",
    [
        "{}", "x{}", "c {}", "n {}", "error {}", "error quota{}", "c {}=1", "c after={}", "r retry_after={}",
        "c for={}", "c stream={}", "c after=1 {}", "c 9{}", "c after=1 after={}",
    ],
)  # fmt: skip
def test_error_is_bounded_and_printable_whatever_was_typed(form: str) -> None:
    refusal(form.format(HOSTILE))


@pytest.mark.parametrize("name", [HOSTILE, "x" * 100_000, "rate_limit" * 1000])
def test_field_and_rule_errors_are_bounded_and_printable(name: str) -> None:
    with pytest.raises(LanguageError) as field:
        parse_field(name)
    with pytest.raises(LanguageError) as kind:
        parse_rule("x", name, "*", Options())
    with pytest.raises(LanguageError) as when:
        parse_rule("x", "quota", name, Options())
    for caught in (field, kind, when):
        assert_bounded(str(caught.value))


# The other ways in.


@pytest.mark.parametrize(
    ("text", "name", "same"),
    [
        ("r 30% for=5m", None, "r 30% for=5m"),
        ("error overloaded * name=evening", "evening", "error overloaded *"),
        ("c name = x-1.y after=2", "x-1.y", "c after=2"),
        ("u* NAME=x", "x", "u *"),
    ],
)
def test_standing_rule_is_a_fault_with_a_name(text: str, name: str | None, same: str) -> None:
    assert parse_standing(text) == (name, rule(same))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "a fault is missing"),
        ("n", "never fires"),
        ("c 0", "never fires"),
        ("status", "is no fault"),
        ("c name=", "name= needs a value"),
        ("c name=x name=y", "name is given twice"),
        ("c name=1x", "a letter first"),
        ("c name=" + "x" * 65, "64 at most"),
    ],
)
def test_standing_rule_that_is_refused(text: str, said: str) -> None:
    with pytest.raises(LanguageError, match=re.escape(said)):
        parse_standing(text)


@pytest.mark.parametrize("text", ["error", "error ", "r retry_after=", "r 3 upstream = "])
def test_beginning_of_a_command_is_told_apart_from_what_is_wrong(text: str) -> None:
    with pytest.raises(Incomplete):
        parse(text)


@pytest.mark.parametrize("text", ["error 3", "x", "c x", "r retry_after=x"])
def test_what_is_wrong_is_no_beginning(text: str) -> None:
    with pytest.raises(LanguageError) as caught:
        parse(text)
    assert not isinstance(caught.value, Incomplete)


FIELDS = [
    ("rate_limit", R, None),
    ("rate-limit", R, None),
    (" Rate_Limit ", R, None),
    ("rate_limit; retry_after=2", R, 2.0),
    ("rate_limit;retry_after=0", R, 0.0),
    ("rate_limit ; retry_after = 2 ;", R, 2.0),
    ("u", U, None),
    ("unknown", U, None),
    ("c", C, None),
]


@pytest.mark.parametrize(("text", "kind", "retry_after"), FIELDS)
def test_field_of_a_request(text: str, kind: FaultKind, retry_after: float | None) -> None:
    assert parse_field(text) == Rule(name="header", kind=kind, when=Always(), retry_after=retry_after)


FIELDS_REFUSED = [
    ("", "accepted: context_length"),
    ("nope", "accepted: context_length"),
    ("rate_limit 3", "is no kind of error"),
    ("rate_limit; after=1", "accepted: retry_after"),
    ("rate_limit; for=1s", "accepted: retry_after"),
    ("rate_limit; upstream=x", "accepted: retry_after"),
    ("rate_limit; retry_after=-1", "a number of seconds"),
    ("rate_limit; retry_after=1; retry_after=2", "given twice"),
    ("rate_limit; 3", "write the modifier before them"),
]


@pytest.mark.parametrize(("text", "said"), FIELDS_REFUSED)
def test_field_that_is_refused(text: str, said: str) -> None:
    with pytest.raises(LanguageError, match=re.escape(said)):
        parse_field(text)


def test_rule_of_a_file_takes_the_same_words() -> None:
    options = Options(match=Match(model="m*"), after=2, lasts=3.0, retry_after=0.0)
    assert parse_rule("evening", "rate-limit", "30%", options) == Rule(
        name="evening", kind=R, when=Share(0.3), match=Match(model="m*"), after=2, lasts=3.0, retry_after=0.0
    )


@pytest.mark.parametrize("when", ["0", "0%", "0.0"])
def test_rule_of_a_file_that_never_fires_is_refused(when: str) -> None:
    with pytest.raises(LanguageError, match="never fires"):
        parse_rule("evening", "quota", when, Options())


# Anything at all.

WORDS = st.sampled_from(
    [*"ncruq?*%=;.0139-", "error", "status", "help", " ", "  ", *KINDS, *OPTIONS, "after=1", "for=", "yes", "\x1b", "\ud800", "é"]
)  # fmt: skip
TEXTS = st.lists(WORDS, max_size=10).map("".join) | st.lists(WORDS, max_size=6).map(" ".join) | st.text()


@settings(deadline=None)
@given(TEXTS)
@example("c " + "0" * 5000)
@example("c " + "1" * 5000)
@example("r retry_after=" + "1" * 5000)
@example("c after=" + "1" * 5000)
@example("c for=" + "1" * 5000 + "d")
def test_any_text_is_understood_or_refused_with_a_bounded_message(text: str) -> None:
    for understand in (parse, parse_standing, parse_field):
        try:
            understand(text)
        except LanguageError as error:
            said = str(error)
        else:
            continue
        assert_bounded(said)


@settings(deadline=None)
@given(TEXTS)
def test_understanding_changes_nothing(text: str) -> None:
    """The same text means the same again, whatever was read in between."""

    def meaning() -> object:
        try:
            return parse(text)
        except LanguageError as error:
            return str(error)

    before = dict(language.SHORT), KINDS, OPTIONS
    first = meaning()
    for other in ("c 3", "n", "x", "r after=1"):
        try:
            parse(other)
        except LanguageError:
            continue
    assert meaning() == first
    assert (dict(language.SHORT), KINDS, OPTIONS) == before


@settings(deadline=None)
@given(st.integers(1, 999_999_999))
def test_every_count_is_that_many(count: int) -> None:
    assert parse_when(str(count)) == Times(count)


@settings(deadline=None)
@given(st.floats(0.0001, 0.9999))
def test_every_share_is_that_much_as_decimal_and_percent(fraction: float) -> None:
    assert parse_when(f"{fraction:.9f}") == Share(float(f"{fraction:.9f}"))
    when = parse_when(f"{fraction * 100:.9f}%")
    assert isinstance(when, Share)
    assert when.fraction == pytest.approx(fraction, abs=1e-9)


@pytest.mark.parametrize("text", ["c path= model=x", "c path = model = x", "c path=", "c model=x path= "])
def test_an_option_without_a_value_does_not_take_the_next_one(text: str) -> None:
    with pytest.raises(LanguageError, match="path= needs a value"):
        parse(text)


def test_a_value_may_hold_an_equals_sign() -> None:
    command = parse("c path=/a=b model=m=n")
    assert isinstance(command, SetFault)
    assert (command.rule.match.path, command.rule.match.model) == ("/a=b", "m=n")
