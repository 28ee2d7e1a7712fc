"""Faults in words that leave no doubt."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmproxyd.faults import words
from llmproxyd.faults.choose import Engine, Running, Tally
from llmproxyd.faults.language import SetFault, parse
from llmproxyd.faults.rules import (
    UNKNOWN,
    Always,
    At,
    Breakage,
    FaultKind,
    Manner,
    Match,
    Rule,
    Share,
    Side,
    Spot,
    Subject,
    Times,
)
from llmproxyd.faults.values import MEDIA
from llmproxyd.providers.base import EndpointKind, ErrorKind

CHAT = Subject(EndpointKind.INFERENCE, "openai", "/v1/chat/completions")


def running(text: str, spent: int = 0) -> Running:
    """The mode of *text* after *spent* requests, started at second 100."""
    command = parse(text)
    assert isinstance(command, SetFault)
    engine = Engine(lambda: 100.0, Random(1))
    engine.set_mode(command.rule)
    mode = engine.mode
    assert mode is not None
    for _ in range(spent):
        engine.choose(CHAT)
    return mode


def rule(text: str) -> Rule:
    return running(text).rule


WHEN = [
    ("c", 0, "next 1 request"),
    ("c 1", 0, "next 1 request"),
    ("c 2", 0, "next 2 requests"),
    ("c 3", 2, "next 1 request"),
    ("c 100", 1, "next 99 requests"),
    ("c 30%", 0, "30 % of requests"),
    ("c 0.3", 0, "30 % of requests"),
    ("c 0.29", 0, "29 % of requests"),
    ("c 2.5%", 0, "2.5 % of requests"),
    ("c 99.99999%", 0, "99.99999 % of requests"),
    ("c *", 0, "every request"),
    ("c *", 5, "every request"),
    ("c 1.0", 0, "every request"),
    ("c 100%", 0, "every request"),
]


@pytest.mark.parametrize(("text", "spent", "said"), WHEN)
def test_when_in_words(text: str, spent: int, said: str) -> None:
    assert words.when_in_words(running(text, spent)) == said


DESCRIBED = [
    ("r", "Rate limit exceeded (next 1 request)"),
    ("c *", "Context length exceeded (every request)"),
    ("u 30%", "Unknown server error (30 % of requests)"),
    ("error bad_gateway 2", "Bad gateway (next 2 requests)"),
    ("c 2 after=1", "Context length exceeded (next 2 requests, after 1 more passes)"),
    ("c after=2", "Context length exceeded (next 1 request, after 2 more pass)"),
    (
        "r upstream=openai model=gpt-4* path=/v1/* stream=yes",
        "Rate limit exceeded (next 1 request, only upstream openai, model gpt-4*, path /v1/*, streams)",
    ),
    ("r stream=no", "Rate limit exceeded (next 1 request, only no streams)"),
    ("r retry_after=0", "Rate limit exceeded (next 1 request, retry_after 0 s)"),
    ("r retry_after=1000000", "Rate limit exceeded (next 1 request, retry_after 1000000 s)"),
    ("r * for=5m", "Rate limit exceeded (every request, for 4m59s more)"),
    ("r * max=2 place=upstream", "Rate limit exceeded (every request, 2 hits at most, as from the upstream)"),
    ("r * max=1", "Rate limit exceeded (every request, 1 hit at most)"),
    ("cut", "Connection cut (next 1 request)"),
    ("cut at=1", "Connection cut after 1 content event (next 1 request)"),
    ("cut 3 at=5", "Connection cut after 5 content events (next 3 requests)"),
    ("reset at=1000B", "Connection reset after 1000 bytes (next 1 request)"),
    ("truncate at=50%bytes", "Clean end too early after 50 % of the bytes (next 1 request)"),
    ("cut at=start", "Connection cut before the first content (next 1 request)"),
    ("cut at=0", "Connection cut before the first content (next 1 request)"),
    ("cut at=tool", "Connection cut within the arguments of a tool call (next 1 request)"),
    ("truncate at=end", "Clean end too early in place of the terminator (next 1 request)"),
    ("stall at=2", "Silence after 2 content events (next 1 request)"),
    ("stall for=30s ttl=5m", "Silence for 30s (next 1 request, for 4m59s more)"),
    ("delay for=3s", "Late answer by 3s (next 1 request)"),
    (
        "stream_error error=quota at=2",
        "Error within the stream (Quota exceeded) after 2 content events (next 1 request)",
    ),
    ("stream_error", "Error within the stream (next 1 request)"),
    ("wrong_length", "Wrong Content-Length (100 bytes too large) (next 1 request)"),
    ("wrong_length length=-20", "Wrong Content-Length (20 bytes too small) (next 1 request)"),
    (
        "slow * per_event=200ms jitter=20%",
        "Slow answer (200ms before each event, ±20 %) (every request)",
    ),
    (
        "slow tokens_per_second=20 first_token=2s",
        "Slow answer (2s before the first content, 20 tokens a second) (next 1 request)",
    ),
    ("refuse 2", "Connection closed without an answer (next 2 requests)"),
    ("status=503 body=page.html", "Status 503, body page.html (next 1 request)"),
    ("status=404 *", "Status 404 (every request)"),
]


@pytest.mark.parametrize(("text", "said"), DESCRIBED)
def test_describe(text: str, said: str) -> None:
    assert words.describe(running(text), now=101.0) == said


def test_time_left_is_never_shown_as_nought() -> None:
    assert (
        words.describe(running("c * for=1s"), now=100.9)
        == "Context length exceeded (every request, for 1s more)"
    )


def test_every_kind_has_a_title_and_a_sign() -> None:
    assert set(words.TITLES) == {*ErrorKind, UNKNOWN, *Breakage}
    titles = [title for _, title in words.TITLES.values()]
    assert len(set(titles)) == len(titles)
    assert words.symbol(None) == "✅"
    assert words.symbol(ErrorKind.RATE_LIMIT) == "⏱️"


# The note on retries.

RETRIED = [
    "r",
    "u",
    "error server_error",
    "error overloaded",
    "error quota",
    "error bad_gateway",
    "error gateway_timeout",
    "refuse",
    "status=503",
    "status=429",
]
FINAL = [
    "c",
    "error authentication",
    "error permission",
    "error not_found",
    "error content_filter",
    "error too_large",
    "cut",
    "reset",
    "stall",
    "stream_error",
    "garbage",
    "truncate",
    "duplicate",
    "reorder",
    "no_usage",
    "empty",
    "wrong_length",
    "never",
    "status=404",
    "status=200",
]
PACED = ["slow first_token=2s", "delay for=3s"]


@pytest.mark.parametrize("kind", RETRIED)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_small_count_of_a_retried_kind_tells_how_to_make_one_call_fail(kind: str, count: int) -> None:
    note = words.retry_note(rule(f"{kind} {count}"))
    assert note is not None
    assert "OpenAI and Anthropic SDKs twice, goose three times" in note
    assert f"To make one call fail: {kind} 3 (goose: {kind} 4), or {kind} * until n." in note


@pytest.mark.parametrize("kind", RETRIED)
def test_what_the_note_advises_is_a_command_and_means_the_same_kind(kind: str) -> None:
    note = words.retry_note(rule(kind))
    assert note is not None
    advised = note.rpartition("fail: ")[2].partition(" (goose")[0]
    assert rule(advised).kind == rule(kind).kind
    assert rule(advised).when == Times(3)


@pytest.mark.parametrize("kind", FINAL)
@pytest.mark.parametrize("modifier", ["", "3", "*"])
def test_no_note_on_kinds_that_nobody_retries(kind: str, modifier: str) -> None:
    assert words.retry_note(rule(f"{kind} {modifier}")) is None


@pytest.mark.parametrize("modifier", ["4", "100", "30%", "*"])
def test_no_note_where_enough_requests_fail_or_no_count_is_set(modifier: str) -> None:
    assert words.retry_note(rule(f"r {modifier}")) is None


def test_every_kind_is_either_retried_or_not() -> None:
    assert {rule(one).kind for one in (*RETRIED, *FINAL, *PACED)} == {*ErrorKind, UNKNOWN, *Breakage}


@pytest.mark.parametrize("line", PACED)
def test_no_note_on_what_only_takes_its_time(line: str) -> None:
    assert words.retry_note(rule(line)) is None


def test_no_note_where_our_own_retries_see_it() -> None:
    assert words.retry_note(rule("r place=upstream")) is None


# The tally.

TALLIES = [
    (Tally(0, 0, ()), None),
    (Tally(3, 0, ()), "injected 3 of 3"),
    (Tally(2, 1, ()), "injected 2 of 3; 1 never reached"),
    (Tally(0, 3, ()), "injected 0 of 3; 3 never reached"),
    (Tally(0, 0, ("evening",)), "evening was never reached"),
    (Tally(2, 1, ("a", "b")), "injected 2 of 3; 1 never reached; a was never reached; b was never reached"),
]


@pytest.mark.parametrize(("tally", "said"), TALLIES)
def test_tally_in_words(tally: Tally, said: str | None) -> None:
    assert words.tally_in_words(tally) == said


# The prompt.


def test_prompt_words() -> None:
    rules = [Running(Rule(name=name, kind=ErrorKind.QUOTA), 0, 1, None) for name in ("a", "b")]
    assert words.prompt_words(None, []) is None
    assert words.prompt_words(running("r 3", 1), rules) == "Rate limit exceeded: next 2 requests"
    assert words.prompt_words(None, rules) == "rules: a, b"


# As the operator would write them.

NAMES = st.text(st.characters(codec="ascii", categories=("L", "N", "P", "S")), min_size=1, max_size=12)
WHENS = (
    st.integers(1, 999_999_999).map(Times)
    | st.floats(1e-12, 1, exclude_max=True).map(Share)
    | st.just(Always())
)
SECONDS = st.floats(1e-9, 366 * 86400.0) | st.sampled_from([0.25, 90.0, 300.0, 86400.0])
AT = st.sampled_from([Spot.START, Spot.TOOL, Spot.END]).map(At) | st.builds(
    At, st.just(Spot.EVENTS), st.integers(1, 999_999_999).map(float)
)
AT |= st.builds(At, st.just(Spot.PERCENT), st.floats(0, 100))
AT |= st.builds(At, st.just(Spot.BYTES), st.integers(0, 10**15 - 1).map(float))


def manner_of(kind: FaultKind) -> st.SearchStrategy[Manner]:
    """Every manner that the language can say of *kind*."""
    at = st.none() | AT
    match kind:
        case Breakage.STALL:
            return st.builds(Manner, at=at, silence=st.none() | SECONDS)
        case Breakage.STREAM_ERROR:
            return st.builds(Manner, at=at, error=st.none() | st.sampled_from(ErrorKind))
        case (
            Breakage.CUT
            | Breakage.RESET
            | Breakage.GARBAGE
            | Breakage.TRUNCATE
            | Breakage.DUPLICATE
            | Breakage.REORDER
        ):
            return st.builds(Manner, at=at)
        case Breakage.WRONG_LENGTH:
            return st.builds(Manner, excess=st.integers(1, 10**6) | st.integers(-(10**6), -1))
        case Breakage.DELAY:
            return st.builds(Manner, silence=SECONDS)
        case Breakage.SLOW:
            return st.builds(
                Manner,
                first_token=SECONDS,
                per_event=st.none() | SECONDS,
                tokens_per_second=st.none() | st.floats(1e-6, 1e6),
                jitter=st.floats(0, 1),
            )
        case Breakage.STATUS:
            plain = st.builds(Manner, status=st.integers(200, 599))
            named = (
                st.builds(
                    Manner,
                    status=st.integers(200, 599),
                    file=st.just(f"pages/one{ending}"),
                    media=st.just(media),
                )
                for ending, media in MEDIA.items()
            )
            return st.one_of(plain, *named)
    return st.just(Manner())


def rules_of(kind: FaultKind) -> st.SearchStrategy[Rule]:
    return st.builds(
        Rule,
        name=st.just("mode"),
        kind=st.just(kind),
        when=WHENS,
        match=st.builds(
            Match,
            upstream=st.none() | NAMES,
            model=st.none() | NAMES,
            path=st.none() | NAMES,
            streaming=st.none() | st.booleans(),
        ),
        after=st.integers(0, 999_999_999),
        lasts=st.none() | SECONDS,
        retry_after=st.none() if isinstance(kind, Breakage) else st.none() | st.floats(0, 9_999_999),
        most=st.none() | st.integers(1, 999_999_999),
        side=st.sampled_from(Side),
        manner=manner_of(kind),
    )


RULES = st.one_of(*(rules_of(kind) for kind in (*ErrorKind, UNKNOWN, *Breakage)))


@settings(deadline=None)
@given(RULES)
def test_rule_as_a_line_is_the_same_rule_when_read_again(one: Rule) -> None:
    assert rule(words.line_of(one)) == one


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("c", "c 1"),
        ("r 30% for=300s upstream=openai", "r 0.3 upstream=openai for=5m"),
        ("error overloaded * stream=no retry_after=2", "error overloaded * stream=no retry_after=2.0"),
        ("cut 3 at=5 upstream=openai", "cut 3 at=5 upstream=openai"),
        ("status = 503 body=page.html max=3", "status=503 1 body=page.html max=3"),
        ("stall 2 for=30s ttl=300", "stall 2 for=30s ttl=5m"),
        ("reset at=4KiB place=UPSTREAM", "reset 1 at=4096B place=upstream"),
        ("truncate at=50%", "truncate 1 at=50.0%bytes"),
        ("r percent=30", "r 0.3"),
    ],
)
def test_rule_as_a_line_is_short(text: str, line: str) -> None:
    assert words.line_of(rule(text)) == line
