"""What people read when they ask what became of a request."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_journal import START, Clock, Stamped, again, done

from llmproxyd.inspection.prices import Prices
from llmproxyd.model import BreakerChanged, CredentialRested, End, Reading
from llmproxyd.observe.eventjson import EventFormat
from llmproxyd.observe.explained import explain_text
from llmproxyd.redaction import Redactor


class Story:
    def __init__(self) -> None:
        self.clock = Clock()
        self.journal = Stamped(10, self.clock, EventFormat(Redactor(), Prices({})))

    def at(self, seconds: float, event: object) -> None:
        self.clock.now = START + seconds
        self.journal(event)  # type: ignore[arg-type]

    def told(self, name: str = "ab12-7") -> str:
        told = self.journal.explain(name)
        assert told is not None
        return explain_text(told)


def test_a_request_that_was_tried_again_elsewhere() -> None:
    story = Story()
    story.at(0.4, again(7, 1, upstream_id="req_a"))
    story.at(2.5, again(7, 2, failed="rate limited (429)", delay=4.0))
    story.at(
        6.8,
        BreakerChanged(name="openai", before="closed", after="open", cause="5 failures in a row", seconds=60),
    )
    story.at(6.8, again(7, 0, failed="connection refused", delay=0.0, to="openai-eu", upstream_id=None))
    story.at(6.8, CredentialRested(upstream="openai-eu", which=2, status=429, seconds=30.0, left=1))
    story.at(
        8.312,
        done(
            7,
            duration=8.312,
            began=7.1,
            first=7.25,
            attempts=4,
            upstream="openai-eu",
            upstream_id="req_d",
            operation="chat",
            kind="inference",
            model="gpt-4o",
            streamed=True,
            project="proj_1",
            token="tok_2",
            cache="miss",
            peer="127.0.0.1:5123",
            reading=Reading(model="gpt-4o-2024-08-06", tokens={"input": 12, "output": 7}, finish="stop"),
        ),
    )
    assert (
        story.told()
        == """\
Request ab12-7 (#7), 2026-09-21T14:13:20.000Z
  asked for   POST /v1/chat/completions by 127.0.0.1:5123
  detected    openai, chat (inference), upstream openai-eu
  model       gpt-4o, answered by gpt-4o-2024-08-06
  let in      project proj_1, token tok_2
  fault       none injected
  cache       miss
  attempts      1  openai            +0.4 s  overloaded (529) [req_a], waited 2 s, retry 1 of 10
                2  openai            +2.5 s  rate limited (429), waited 4 s, retry 2 of 10
                3  openai            +6.8 s  connection refused, openai-eu instead
                4  openai-eu        +8.31 s  200 [req_d]
  meanwhile           +6.8 s  breaker openai: closed -> open, 5 failures in a row; next probe in 60 s
                      +6.8 s  openai-eu: key 2 rests for 30 s after a 429; 1 left
  answer      200, a stream, complete, 263 bytes
  times       head after 7.1 s, first content after 7.25 s, 8.31 s in all
  tokens      input 12, output 7; finished: stop
"""
    )


def test_an_open_breaker_that_refused_it() -> None:
    story = Story()
    story.at(0, BreakerChanged(name="openai", before="closed", after="open", cause="5 failures", seconds=60))
    story.at(
        30,
        done(
            7,
            attempts=0,
            status=503,
            code="circuit_open",
            detail="the breaker is open",
            duration=0.002,
            began=0.001,
            operation="chat",
            kind="inference",
        ),
    )
    text = story.told()
    assert "  attempts      none\n" in text
    assert (
        "before  breaker openai: closed -> open, 5 failures; next probe in 60 s (2026-09-21T14:13:20.000Z)"
        in text
    )
    assert "  why         circuit_open: the breaker is open\n" in text


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ({"fault": "overloaded", "status": 529}, "  attempts      none: the answer was injected\n"),
        ({"fault": "overloaded", "status": 529}, "  fault       injected overloaded\n"),
        (
            {"fault": "cut", "injected": "cut at=9", "unreached": True},
            "  fault       injected cut, by cut at=9; the answer never came to its place\n",
        ),
        ({"cache": "hit"}, "  attempts      none: the cache answered\n"),
        ({"provider": "-", "upstream": "-", "status": 404}, "  detected    nothing: it was refused before\n"),
        ({"upstream": "-", "status": 404}, "no upstream\n"),
        ({"failed": True, "code": "x"}, "  why         x (the upstream is to blame)\n"),
        ({"end": End.CLIENT_GONE, "status": 499}, "  answer      499, the client left, 263 bytes\n"),
    ],
)
def test_what_else_became_of_requests(more: dict, line: str) -> None:
    story = Story()
    story.at(1, done(7, attempts=0, **more))
    assert line in story.told()


def test_a_request_under_way() -> None:
    story = Story()
    story.at(0, again(7))
    assert (
        story.told()
        == """\
Request ab12-7 (#7), under way
  attempts      1  openai              +0 s  overloaded (529), waited 2 s, retry 1 of 10
"""
    )


def test_very_many_attempts_fit_on_a_screen() -> None:
    story = Story()
    for retry in range(1, 100):
        story.at(retry, again(7, retry))
        story.at(retry, BreakerChanged(name="openai", before="open", after="half-open", cause="time"))
    story.at(101, done(7, attempts=100, duration=101.0))
    text = story.told()
    assert len(text.splitlines()) <= 40
    assert "more …" in text
    assert " 100  openai" in text


HOSTILE = st.text(max_size=30) | st.just("a\nb\x1b[2J\x00\u2028")


@settings(max_examples=60, deadline=None)
@given(HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE)
def test_what_others_chose_adds_no_line_and_moves_no_cursor(
    path: str, model: str, detail: str, upstream_id: str, failed: str
) -> None:
    story = Story()
    story.at(0, again(7, failed=failed, upstream_id=upstream_id))
    story.at(
        1,
        done(
            7, path=path, model=model, code="c", detail=detail, upstream_id=upstream_id, attempts=2, began=0.5
        ),
    )
    text = story.told()
    assert text.count("\n") == 10
    assert all(line.isprintable() for line in text.split("\n"))


def test_every_way_to_end_has_words() -> None:
    for end, code, began in itertools.product(End, (None, "x"), (None, 0.1)):
        story = Story()
        story.at(1, done(7, end=end, code=code, began=began))
        assert story.told()
