"""Breakages in the operator's language: every verb, every option, and what is said of every other one."""

from __future__ import annotations

import re

import pytest

from llmproxyd.faults.kinds import BREAKAGES, KINDS, OF_RULES, kind_of, options_of, options_of_field
from llmproxyd.faults.language import (
    VERBS,
    ClearFault,
    Incomplete,
    LanguageError,
    SetFault,
    parse,
    parse_field,
    parse_rule,
    parse_standing,
)
from llmproxyd.faults.options import Options
from llmproxyd.faults.rules import (
    UNKNOWN,
    Always,
    At,
    Breakage,
    Manner,
    Match,
    Rule,
    Share,
    Side,
    Spot,
    Times,
)
from llmproxyd.language.table import TABLE
from llmproxyd.providers.base import ErrorKind

B = Breakage
ALL_KINDS = (*ErrorKind, UNKNOWN, *Breakage)


def rule(text: str) -> Rule:
    command = parse(text)
    assert isinstance(command, SetFault), command
    return command.rule


def refusal(text: str) -> LanguageError:
    with pytest.raises(LanguageError) as caught:
        parse(text)
    assert 0 < len(str(caught.value)) < 500
    return caught.value


def made(kind: Breakage, **members: object) -> Rule:
    return Rule(name="mode", kind=kind, **members)  # type: ignore[arg-type]


UNDERSTOOD: list[tuple[str, Rule]] = [
    ("cut", made(B.CUT)),
    ("CUT3", made(B.CUT, when=Times(3))),
    (
        "cut 3 at=5 upstream=openai",
        made(B.CUT, when=Times(3), manner=Manner(at=At(Spot.EVENTS, 5)), match=Match(upstream="openai")),
    ),
    ("cut at = 0", made(B.CUT, manner=Manner(at=At(Spot.START)))),
    ("stall for=30s at=tool", made(B.STALL, manner=Manner(at=At(Spot.TOOL), silence=30))),
    ("stall", made(B.STALL)),
    ("stall * ttl=5m", made(B.STALL, when=Always(), lasts=300)),
    (
        "stream_error error=overloaded at=2",
        made(B.STREAM_ERROR, manner=Manner(at=At(Spot.EVENTS, 2), error=ErrorKind.OVERLOADED)),
    ),
    ("stream-error error=r", made(B.STREAM_ERROR, manner=Manner(error=ErrorKind.RATE_LIMIT))),
    ("stream_error error=unknown", made(B.STREAM_ERROR)),
    (
        "slow * per_event=200ms jitter=20%",
        made(B.SLOW, when=Always(), manner=Manner(per_event=0.2, jitter=0.2)),
    ),
    (
        "slow tokens-per-second=20 first-token=2s jitter=.5",
        made(B.SLOW, manner=Manner(tokens_per_second=20, first_token=2, jitter=0.5)),
    ),
    ("delay for=3s", made(B.DELAY, manner=Manner(silence=3))),
    ("delay 30% for=3s ttl=1h", made(B.DELAY, when=Share(0.3), manner=Manner(silence=3), lasts=3600)),
    ("refuse 2", made(B.REFUSE, when=Times(2))),
    ("never", made(B.NEVER)),
    ("never for=5m", made(B.NEVER, lasts=300)),
    ("no-usage *", made(B.NO_USAGE, when=Always())),
    ("empty place=upstream", made(B.EMPTY, side=Side.UPSTREAM)),
    ("status=503", made(B.STATUS, manner=Manner(status=503))),
    ("status = 503 3 max=2", made(B.STATUS, when=Times(3), most=2, manner=Manner(status=503))),
    (
        "Status=503 body=pages/down.HTML",
        made(B.STATUS, manner=Manner(status=503, file="pages/down.HTML", media="text/html; charset=utf-8")),
    ),
    ("status=200 body=x.json", made(B.STATUS, manner=Manner(status=200, file="x.json"))),
    ("error status status=404", made(B.STATUS, manner=Manner(status=404))),
    ("error cut 2", made(B.CUT, when=Times(2))),
    ("wrong_length", made(B.WRONG_LENGTH, manner=Manner(excess=100))),
    ("wrong-length length=-20", made(B.WRONG_LENGTH, manner=Manner(excess=-20))),
    ("wrong_length length=+20", made(B.WRONG_LENGTH, manner=Manner(excess=20))),
    ("truncate at=50%bytes", made(B.TRUNCATE, manner=Manner(at=At(Spot.PERCENT, 50)))),
    ("truncate at=12.5%", made(B.TRUNCATE, manner=Manner(at=At(Spot.PERCENT, 12.5)))),
    ("reset at=1000B", made(B.RESET, manner=Manner(at=At(Spot.BYTES, 1000)))),
    ("reset at=4KiB", made(B.RESET, manner=Manner(at=At(Spot.BYTES, 4096)))),
    ("garbage at=END", made(B.GARBAGE, manner=Manner(at=At(Spot.END)))),
    ("duplicate", made(B.DUPLICATE)),
    ("reorder at=start", made(B.REORDER, manner=Manner(at=At(Spot.START)))),
    ("cut percent=30 after=1", made(B.CUT, when=Share(0.3), after=1)),
    ("cut percent=30%", made(B.CUT, when=Share(0.3))),
    ("cut percent=100", made(B.CUT, when=Always())),
    ("cut for=5m max=7", made(B.CUT, lasts=300, most=7)),
]


@pytest.mark.parametrize(("text", "meant"), UNDERSTOOD)
def test_understood(text: str, meant: Rule) -> None:
    assert rule(text) == meant


@pytest.mark.parametrize(("text", "meant"), UNDERSTOOD)
def test_the_table_of_verbs_understands_the_same(text: str, meant: Rule) -> None:
    assert TABLE.parse(text).values["command"] == SetFault(meant)
    assert TABLE.parse(f"fault add {text} name=x").values == {"name": "x", "rule": meant}


@pytest.mark.parametrize(
    "text", ["r max=2 place=upstream percent=10", "error quota max=2 place=upstream percent=10"]
)
def test_errors_take_the_options_of_every_fault(text: str) -> None:
    one = rule(text)
    assert (one.most, one.side, one.when) == (2, Side.UPSTREAM, Share(0.1))


def test_the_bare_word_status_stays_the_status_verb() -> None:
    assert TABLE.parse("status").verb.name == "status"
    assert TABLE.parse("status all").verb.name == "status"


def test_every_breakage_is_a_verb() -> None:
    verbs = {verb.name for verb in TABLE.verbs}
    assert {*VERBS, "status="} <= verbs
    assert {*VERBS, "status"} == set(BREAKAGES)


REFUSED = [
    ("cut at=", "at= needs a value"),
    ("cut at=somewhere", "at=somewhere: accepted are start, tool, end, a number of events"),
    ("cut at=-1", "accepted are start"),
    ("cut at=101%", "accepted are start"),
    ("cut at=1.5", "accepted are start"),
    ("cut at=5 at=6", "at is given twice"),
    ("cut ttl=3s", '"ttl" is no option here (accepted: at, after, for, max, percent, place,'),
    ("cut retry_after=3", '"retry_after" is no option here'),
    ("cut jitter=3", "(accepted: at,"),
    ("refuse at=3", "(accepted: after, for,"),
    ("r at=3", "(accepted: retry_after, after, for,"),
    ("r ttl=3", "is no option here"),
    ("never place=middle", "accepted are place=client and place=upstream"),
    ("never max=0", "max=0: a whole number of hits is accepted, 1 at least"),
    ("never max=1.5", "a whole number of hits"),
    ("never percent=101", "percent=101: a number from 0 to 100 is accepted"),
    ("never percent=-1", "from 0 to 100"),
    ("cut 3 percent=30", "3 and percent= both say how often"),
    ("cut * percent=30", "both say how often"),
    ("cut 30% percent=30", "both say how often"),
    ("stall for=0", "for=0 would be over at once"),
    ("stall for=soon", "accepted is a duration"),
    ("stall ttl=0", "ttl=0 would be over at once"),
    ("delay", "delay needs for="),
    ("delay ttl=3s", "delay needs for="),
    ("slow", "slow needs a pace: first_token=2s"),
    ("slow jitter=20%", "slow needs a pace"),
    ("slow per_event=0", "slow needs a pace"),
    ("slow per_event=fast", "per_event=fast: accepted is a duration"),
    ("slow tokens_per_second=0", "a number of tokens above 0 is accepted"),
    ("slow per_event=1s jitter=120%", "a share is accepted"),
    ("slow per_event=1s jitter=2", "a share is accepted"),
    ("stream_error error=cut", '"cut" is no kind of error'),
    ("stream_error error=overlode", 'did you mean "overloaded"?'),
    ("wrong_length length=0", "a number of bytes other than 0"),
    ("wrong_length length=20KiB", "a number of bytes other than 0"),
    ("status=", "status= needs a value"),
    ("status=99", "status=99: a status from 200 to 599 is accepted"),
    ("status=101", "from 200 to 599"),
    ("status=600", "from 200 to 599"),
    ("status=503*", "from 200 to 599"),
    ("status=503 status=504", "status is given twice"),
    ("error status", "status needs a number: status=503"),
    ("status=503 body=/etc/passwd.txt", "a file within the folder of the configuration file"),
    ("status=503 body=../x.txt", "a file within the folder"),
    ("status=503 body=a/../x.txt", "a file within the folder"),
    ("status=503 body=a//x.txt", "a file within the folder"),
    ("status=503 body=.hidden.txt", "a file within the folder"),
    ("status=503 body=llmproxyd.yaml", "a file whose name ends in .json, .html, .txt is accepted"),
    ("cutt", 'did you mean "cut"?; accepted: n, c, r, u, error KIND, cut,'),
    ("staus=503", "is no fault"),
    ("cut often", '"often" is no modifier'),
    ("status", '"status" is no fault'),
]


@pytest.mark.parametrize(("text", "said"), REFUSED)
def test_refused_with_what_would_be_accepted(text: str, said: str) -> None:
    assert said in str(refusal(text))


@pytest.mark.parametrize("text", ["slow", "delay", "status=", "error status", "cut at=", "slow jitter=20%"])
def test_what_only_misses_something_is_a_beginning(text: str) -> None:
    assert isinstance(refusal(text), Incomplete)


@pytest.mark.parametrize("text", ["cut 0", "cut percent=0", "status=503 0%"])
def test_what_never_fires_means_no_error_and_says_so(text: str) -> None:
    command = parse(text)
    assert isinstance(command, ClearFault)
    assert "the same as n" in command.note
    with pytest.raises(LanguageError, match="never fires"):
        parse_standing(text)


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_every_option_of_a_kind_is_understood_and_no_other(kind: str) -> None:
    values = {
        "at": "2", "for": "3s", "ttl": "3s", "error": "quota", "length": "5", "first_token": "1s",
        "per_event": "1s", "tokens_per_second": "5", "jitter": "10%", "status": "503", "body": "x.txt",
        "retry_after": "2", "after": "1", "max": "2", "percent": "3", "place": "client", "upstream": "u",
        "model": "m", "path": "p", "stream": "yes",
    }  # fmt: skip
    needed = {"slow": "per_event=1s", "delay": "for=1s", "status": "status=503"}.get(str(kind), "")
    own = options_of(kind_of(kind))
    for name, value in values.items():
        text = f"error {kind} {name}={value} " + ("" if needed.startswith(name) else needed)
        if name in own:
            assert rule(text) != rule(f"error {kind} {needed}") or name in ("place", *needed.split("="))
        else:
            assert f'"{name}" is no option here' in str(refusal(text))


# The field of a request.


@pytest.mark.parametrize(
    ("text", "kind", "manner"),
    [
        ("cut; at=3", B.CUT, Manner(at=At(Spot.EVENTS, 3))),
        ("stall; for=3s; at=tool", B.STALL, Manner(at=At(Spot.TOOL), silence=3)),
        ("delay;for=3", B.DELAY, Manner(silence=3)),
        ("status=503", B.STATUS, Manner(status=503)),
        ("status = 503 ;", B.STATUS, Manner(status=503)),
        ("status; status=503", B.STATUS, Manner(status=503)),
        ("slow; per-event=1s; jitter=10%", B.SLOW, Manner(per_event=1, jitter=0.1)),
        ("No-Usage", B.NO_USAGE, Manner()),
        ("wrong_length; length=-3", B.WRONG_LENGTH, Manner(excess=-3)),
        ("stream_error; error=quota", B.STREAM_ERROR, Manner(error=ErrorKind.QUOTA)),
    ],
)
def test_field_of_a_request(text: str, kind: Breakage, manner: Manner) -> None:
    assert parse_field(text) == Rule(name="header", kind=kind, when=Always(), manner=manner)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cut; place=upstream", '"place" is no option here (accepted: at)'),
        ("cut; for=3s", "(accepted: at)"),
        ("never; for=3s", "(accepted: none)"),
        ("stall; ttl=3s", "(accepted: at, for)"),
        ("status=503; body=x.html", "(accepted: status, retry_after)"),
        ("status=503 3", "write the modifier before them"),
        ("cut; max=2", "(accepted: at)"),
        ("slow", "slow needs a pace"),
        ("status", "status needs a number"),
        ("status=", "status= needs a value"),
    ],
)
def test_field_that_is_refused(text: str, said: str) -> None:
    with pytest.raises(LanguageError, match=re.escape(said)):
        parse_field(text)


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_a_request_cannot_reach_beyond_itself(kind: str) -> None:
    given = set(options_of_field(kind_of(kind)))
    assert not given & (OF_RULES - {"for"})
    assert ("for" in given) is (kind in ("stall", "delay"))


def test_kinds_of_errors_and_breakages_have_different_names() -> None:
    assert not {*KINDS, UNKNOWN, "c", "r", "u", "n", "error"} & set(BREAKAGES)


def test_options_of_a_file_that_never_fire_are_refused() -> None:
    with pytest.raises(LanguageError, match="percent=0 never fires"):
        parse_rule("x", "cut", "*", Options(never=True))
    assert parse_rule("x", "cut", "*", Options(percent=Share(0.5))).when == Share(0.5)
