"""Limits by command; faults that are forgotten; bodies that operators name."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random
from typing import Any

import pytest

from llmproxyd.control.answers import Answer
from llmproxyd.control.verbs import Control
from llmproxyd.faults.choose import Engine
from llmproxyd.faults.limits import MOST_LIMITS, Each, Limit
from llmproxyd.faults.rules import Breakage, Match, Subject
from llmproxyd.model import Change, FaultsChanged
from llmproxyd.providers.base import EndpointKind
from llmproxyd.resilience.breakers import Breakers

CHAT = Subject(EndpointKind.INFERENCE, "openai", "/v1/chat/completions")
HOURS = 3600.0


class Desk:
    def __init__(
        self, *, allowed: bool = True, folder: Path | None = None, forget_after: float | None = None
    ) -> None:
        self.now = 100.0
        self.events: list[Any] = []
        self.recorded: list[Change] = []
        self.engine = Engine(lambda: self.now, Random(1))
        self.control = Control(
            self.engine,
            breakers=Breakers(lambda event: None),
            emit=self.events.append,
            monotonic=lambda: self.now,
            upstreams=["openai", "anthropic"],
            handled=lambda: 0,
            quit=lambda: None,
            draw_seed=lambda: 7,
            allowed=allowed,
            symbols=False,
            folder=folder,
            forget_after=forget_after,
            record=self.recorded.append,
        )  # fmt: skip

    def run(self, line: str) -> Answer:
        answer = self.control.run(line)
        assert isinstance(answer, Answer)
        return answer


def test_limit_is_set_told_and_recorded() -> None:
    desk = Desk()
    answer = desk.run("limit rpm=60 tpm=1000 upstream=openai key=all for=10m")
    assert answer.ok
    assert "Limit limit-1: 60 requests and 1000 tokens a minute for all together" in answer.text
    assert [one.limit for one in desk.engine.limits.working] == [
        Limit(name="limit-1", rpm=60, tpm=1000, match=Match(upstream="openai"), key=Each.ALL, lasts=600)
    ]
    assert desk.recorded[0].action == "limit.set"
    assert desk.recorded[0].target == "limit-1"
    assert desk.recorded[0].after == {"limit": "limit rpm=60 tpm=1000 upstream=openai key=all for=10m"}
    assert [one.commanded for one in desk.events] == [True]
    assert desk.events[0].words.startswith("Limit limit-1: 60 requests")
    assert desk.control.active()
    assert desk.control.prompt() == "[limits: limit-1] Enter command: "


def test_limits_are_listed_with_what_they_did() -> None:
    desk = Desk()
    assert desk.run("limit list").text == "No limit is set.\n"
    desk.run("limit rpm=1 name=tight")
    desk.engine.limited(CHAT, "k", 0)
    desk.engine.limited(CHAT, "k", 0)
    answer = desk.run("limit list")
    assert "tight  operator  1 request a minute for each key" in answer.text
    assert answer.data == {
        "limits": [
            {
                "name": "tight", "rpm": 1, "tpm": None, "key": "each",
                "words": "1 request a minute for each key", "passed": 1, "refused": 1, "ends_in": None,
            }
        ]
    }  # fmt: skip
    assert desk.control.faults()["limits"] == list(desk.run("limit list").data["limits"])  # type: ignore[index]
    assert "tight  operator  Limit of 1 request a minute" in desk.run("fault list").text


def test_limits_are_taken_away_one_by_one_and_all_together() -> None:
    desk = Desk()
    for line in ("limit rpm=1", "limit rpm=2", "limit rpm=3 name=x"):
        assert desk.run(line).ok
    assert desk.run("limit rm limit-1").ok
    assert [one.limit.name for one in desk.engine.limits.working] == ["limit-2", "x"]
    assert desk.run("limit rpm=9").ok
    assert [one.limit.name for one in desk.engine.limits.working] == ["limit-2", "x", "limit-1"]
    assert desk.run("limit clear").ok
    assert not desk.engine.active
    assert [one.action for one in desk.recorded] == [
        "limit.set", "limit.set", "limit.set", "limit.remove", "limit.set", "limit.clear",
    ]  # fmt: skip
    desk.run("limit rpm=1")
    desk.run("c *")
    assert "Limits are still active" in desk.run("n").text
    assert desk.run("fault clear").ok
    assert not desk.engine.active


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("limit", "limit needs rpm= or tpm="),
        ("limit lst", "limit list, limit rm NAME, limit clear"),
        ("limit rpm=0", "a whole number from 1"),
        ("limit rpm=1 upstream=opnai", 'there is no upstream "opnai"; did you mean "openai"?'),
        ("limit rpm=1 name=tight", 'the name "tight" is taken'),
        ("limit rm nothing", 'there is no limit "nothing" (known: tight)'),
        ("limit rm tigt", 'did you mean "tight"?'),
    ],
)
def test_what_is_refused_changes_nothing(line: str, said: str) -> None:
    desk = Desk()
    desk.run("limit rpm=5 name=tight")
    events = len(desk.events)
    answer = desk.run(line)
    assert not answer.ok
    assert said in answer.text
    assert [one.limit.name for one in desk.engine.limits.working] == ["tight"]
    assert len(desk.events) == events


def test_limits_are_bounded() -> None:
    desk = Desk()
    for _ in range(MOST_LIMITS):
        assert desk.run("limit rpm=1").ok
    assert "are set already" in desk.run("limit rpm=1").text
    assert len(desk.engine.limits.working) == MOST_LIMITS


def test_no_limit_where_faults_may_not_be_set() -> None:
    desk = Desk(allowed=False)
    assert "operator.faults" in desk.run("limit rpm=1").text
    assert not desk.engine.active
    assert desk.recorded[0].outcome == "refused"


# What is forgotten.


@pytest.mark.parametrize("line", ["c *", "fault add r 30%", "limit rpm=3", "cut *"])
def test_what_has_no_end_ends_by_itself_and_says_so(line: str) -> None:
    desk = Desk(forget_after=8 * HOURS)
    assert "for 8h more" in desk.run(line).text
    desk.now += 61
    assert "for 7h59m more" in desk.run("status").text
    desk.now += 8 * HOURS - 62
    assert desk.control.active()
    desk.now += 1
    assert not desk.control.active()
    assert desk.events[-1] == FaultsChanged("No error (pass through)", "its time is over", commanded=False)


def test_an_end_of_its_own_stays() -> None:
    desk = Desk(forget_after=8 * HOURS)
    assert "for 20h more" in desk.run("c * for=20h").text
    assert "for 5m more" in desk.run("stall * for=3s ttl=5m").text


def test_silence_is_no_end() -> None:
    desk = Desk(forget_after=8 * HOURS)
    assert "Silence for 3s (every request, for 8h more)" in desk.run("stall * for=3s").text


def test_the_mode_of_the_configuration_is_not_forgotten() -> None:
    desk = Desk(forget_after=8 * HOURS)
    assert desk.control.start_mode("c *").ok
    desk.now += 1000 * HOURS
    assert desk.control.active()
    assert not desk.control.start_mode("c often").ok
    assert desk.control.start_mode("n").ok
    assert not desk.control.active()


def test_nothing_is_forgotten_where_that_is_never() -> None:
    desk = Desk(forget_after=None)
    desk.run("c *")
    desk.now += 1000 * HOURS
    assert desk.control.active()


# Bodies.


def test_body_is_read_beside_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "down.html").write_bytes(b"<p>down</p>")
    desk = Desk(folder=tmp_path)
    assert desk.run("status=503 2 body=pages/down.html").ok
    assert desk.engine.mode is not None
    rule = desk.engine.mode.rule
    assert (rule.kind, rule.manner.status) == (Breakage.STATUS, 503)
    assert (rule.manner.body, rule.manner.media) == (b"<p>down</p>", "text/html; charset=utf-8")
    assert desk.run("fault add status=503 body=pages/down.html").ok
    assert desk.engine.standing[0].rule.manner.body == b"<p>down</p>"
    assert desk.control.start_mode("status=500 body=pages/down.html").ok
    assert desk.engine.mode.rule.manner.body == b"<p>down</p>"


@pytest.mark.parametrize(
    "name", ["missing.html", "../x.html", "/etc/x.html", "link.html", "large.txt", "folder.txt", "x.yaml"]
)
def test_body_that_cannot_be_used_changes_nothing(tmp_path: Path, name: str) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "x.html").write_text("secret")
    (home / "x.yaml").write_text("secret")
    (home / "link.html").symlink_to(tmp_path / "x.html")
    (home / "large.txt").write_bytes(b"x" * (1024 * 1024 + 1))
    (home / "folder.txt").mkdir()
    desk = Desk(folder=home)
    answer = desk.run(f"status=503 body={name}")
    assert not answer.ok
    assert "Nothing has changed" in answer.text
    assert not desk.engine.active
    assert not desk.control.start_mode(f"status=503 body={name}").ok


def test_no_body_where_no_folder_is_known() -> None:
    desk = Desk()
    assert "none may be read here" in desk.run("status=503 body=x.html").text


def test_a_pipe_is_no_body(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    desk = Desk(folder=tmp_path)
    assert "which is no file" in desk.run("status=503 body=pipe.txt").text
