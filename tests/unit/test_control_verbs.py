"""Every verb of the language does its work, and says so to people and as JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail, succeed

from llmproxyd.cache.interface import Purge
from llmproxyd.control.answers import ONCE, OWN, Answer, Console
from llmproxyd.control.caches import Caches
from llmproxyd.control.calls import Caller
from llmproxyd.control.dispatch import HANDLERS
from llmproxyd.control.means import Means
from llmproxyd.control.probes import Probes
from llmproxyd.control.projects import Projects
from llmproxyd.control.status import Status
from llmproxyd.control.verbs import Control
from llmproxyd.errors import Refused
from llmproxyd.faults.choose import Engine
from llmproxyd.faults.rules import Always, Rule, Subject
from llmproxyd.language.filters import Filter
from llmproxyd.language.table import TABLE
from llmproxyd.model import Change, FaultsChanged
from llmproxyd.providers.base import EndpointKind, ErrorKind
from llmproxyd.resilience.breaker import BreakerPolicy
from llmproxyd.resilience.breakers import Breakers
from llmproxyd.testing.store import MemoryStore

CHAT = Subject(EndpointKind.INFERENCE, "openai", "/v1/chat/completions")
UPSTREAMS = {"openai": "https://api.openai.com", "my-vllm": "http://127.0.0.1:8000"}
ALICE = Caller("telnet alice", "127.0.0.1")
THERE = Console()
TERMINAL = Console(terminal=True)
ROWS = [
    {"id": "req_1", "time": 0, "status": 200, "upstream": "openai", "duration": 0.25, "path": "/v1/x"},
    {"id": "req_2", "time": 61, "status": 503, "upstream": "my-vllm", "duration": 3, "code": "circuit_open"},
]

STORY: dict[str, Any] = {
    "id": "req_2",
    "number": 2,
    "state": "under way",
    "attempts": [
        {"number": 1, "upstream": "my-vllm", "after": 0.5, "outcome": "overloaded (529)", "upstream_id": "u-1",
         "wait": 0.5, "then": None}
    ],
    "changes": [],
}  # fmt: skip


class FakeJournal:
    def __init__(self) -> None:
        self.followers: list[Callable[[Mapping[str, Any]], None]] = []

    def recent(self, filters: Sequence[Filter], limit: int) -> Sequence[Mapping[str, Any]]:
        return [row for row in ROWS if all(one.matches(row) for one in filters)][-limit:]

    def explain(self, id: str) -> Mapping[str, Any] | None:
        return STORY if id == "req_2" else None

    def follow(
        self, filters: Sequence[Filter], emit: Callable[[Mapping[str, Any]], None]
    ) -> Callable[[], None]:
        self.followers.append(emit)
        return lambda: self.followers.remove(emit)


@dataclass
class FakeReport:
    problems: Sequence[str] = ()
    changed: Sequence[tuple[str, object, object]] = ()
    restart: Sequence[str] = ()
    warnings: Sequence[str] = ()


class FakeReloads:
    def __init__(self) -> None:
        self.report = FakeReport(changed=[("timeouts.idle", 300, 60)], restart=["access.store"])
        self.reloaded = 0

    def check(self) -> FakeReport:
        return self.report

    def reload(self) -> FakeReport:
        self.reloaded += 1
        return self.report


class FakePlaces:
    def __init__(self) -> None:
        self.drained: set[str] = set()

    def list(self) -> list[dict[str, Any]]:
        return [
            {"name": name, "state": "drained" if name in self.drained else "enabled", "active": 0}
            for name in UPSTREAMS
        ]

    def drain(self, name: str) -> None:
        self.drained.add(name)

    def enable(self, name: str) -> None:
        self.drained.discard(name)


class FakeCache:
    def __init__(self) -> None:
        self.purged: list[Purge] = []

    def stats(self) -> dict[str, object]:
        return {"entries": 3}

    def purge(self, what: Purge) -> Deferred[int]:
        self.purged.append(what)
        return succeed(3)


class Desk:
    """A control with everything, in plain view.

    :ivar recorded: the audit log; it fails while :attr:`audit_down`.
    """

    def __init__(self, *rules: Rule, allowed: bool = True) -> None:
        self.now = 100.0
        self.events: list[object] = []
        self.recorded: list[Change] = []
        self.audit_down = False
        self.stopped = 0
        self.levels: list[tuple[str, str]] = []
        self.journal, self.reloads, self.places = FakeJournal(), FakeReloads(), FakePlaces()
        self.cache = FakeCache()
        self.breakers = Breakers(lambda event: None)
        self.breakers.of(BreakerPolicy(enabled=True), "openai", None)
        self.engine = Engine(lambda: self.now, Random(1), rules)
        self.control = Control(
            self.engine,
            breakers=self.breakers,
            emit=self.events.append,
            monotonic=lambda: self.now,
            upstreams=UPSTREAMS,
            handled=lambda: 7,
            quit=self.stop,
            draw_seed=lambda: 7,
            allowed=allowed,
            record=self.record,
        )
        projects = Projects(
            MemoryStore(),
            door_changed=lambda projects, tokens: None,
            audit=self.record,
            wall=lambda: 1_750_000_000.0,
            random_bytes=os.urandom,
            upstreams=UPSTREAMS,
        )
        self.control.means = Means(
            status=Status(lambda: {"version": "0"}, {"store": lambda: {"open": True}}),
            journal=self.journal,
            reloads=self.reloads,
            places=self.places,
            caches=Caches(
                cast(Any, self.cache), audit=self.record, upstreams=UPSTREAMS, project=projects.id_of
            ),
            projects=projects,
            probes=Probes(self.probe, UPSTREAMS),
            config=lambda: {"listen": ["tcp:8888"]},
            connections=lambda: [{"peer": "127.0.0.1", "requests": 2, "request": None}],
            set_level=lambda namespace, level: self.levels.append((namespace, level)),
            namespaces=lambda: ["llmproxyd"],
        )

    def record(self, change: Change) -> Deferred[None]:
        if self.audit_down:
            return fail(OSError("no space"))
        self.recorded.append(change)
        return succeed(None)

    def probe(self, upstream: str) -> Deferred[Mapping[str, object]]:
        return succeed({"ok": upstream == "openai", "verdict": "answers"})

    def stop(self) -> None:
        self.stopped += 1

    def run(self, line: str, console: Console = THERE) -> Answer:
        answer = self.control.run(line, ALICE, console=console)
        assert isinstance(answer, Answer)
        assert not answer.text or answer.text.endswith("\n")
        return answer

    def hits(self, count: int = 1) -> list[str | None]:
        chosen = [self.engine.choose(CHAT) for _ in range(count)]
        return [None if one is None else one.rule.name for one in chosen]

    def state(self) -> object:
        return (
            self.control.mode_in_words(), self.events[:], self.stopped, set(self.places.drained),
            self.reloads.reloaded, self.levels[:], self.cache.purged[:],
            [one.state for one in self.breakers],
        )  # fmt: skip


def test_every_verb_is_done_by_something_and_nothing_else_is() -> None:
    assert set(HANDLERS) == {one.name for one in TABLE.verbs}


# Standing rules.


def test_rules_stand_beside_the_mode_and_are_tried_in_order() -> None:
    desk = Desk(Rule(name="file", kind=ErrorKind.QUOTA, when=Always()))
    assert desk.run("fault add r 1 name=first").ok
    assert desk.run("fault add u 1").ok
    desk.run("c 1")
    assert desk.hits(5) == ["mode", "first", "rule-1", "file", "file"]


def test_rules_are_listed_with_where_they_come_from() -> None:
    desk = Desk(Rule(name="file", kind=ErrorKind.QUOTA, when=Always()))
    desk.run("fault add r * name=mine for=5m")
    desk.run("c 2")
    lines = [line.split(None, 2) for line in desk.run("fault list").text.splitlines()]
    assert [line[:2] for line in lines] == [
        ["NAME", "FROM"], ["mode", "mode"], ["mine", "operator"], ["file", "file"]
    ]  # fmt: skip
    assert desk.run("fault").data == desk.control.faults()
    assert Desk().run("fault list").text == "No fault: everything passes.\n"


def test_rule_is_over_after_its_time_and_that_is_told() -> None:
    desk = Desk()
    desk.run("fault add r * for=10s")
    desk.now += 10
    assert desk.hits() == [None]
    assert desk.events[-1] == FaultsChanged("No error (pass through)", "its time is over", commanded=False)


def test_rule_is_taken_away_by_name_and_all_by_clear() -> None:
    desk = Desk(Rule(name="file", kind=ErrorKind.QUOTA, when=Always()))
    desk.run("fault add r * name=mine")
    desk.run("c *")
    assert desk.run("fault rm mine").ok
    assert desk.run("fault rm file").ok
    assert desk.hits() == ["mode"]
    desk.run("fault add r * name=mine")
    assert desk.run("fault clear").ok
    assert desk.hits() == [None]
    assert not desk.control.active()


def test_clear_takes_the_rules_of_the_file_away_too() -> None:
    desk = Desk(Rule(name="file", kind=ErrorKind.QUOTA, when=Always()))
    desk.run("c *")
    assert "No error" in desk.run("fault clear").text
    assert desk.hits() == [None]
    assert desk.events[-1] == FaultsChanged("No error (pass through)", "by command", commanded=True)


def test_reload_of_the_file_leaves_the_operators_rules() -> None:
    desk = Desk(Rule(name="file", kind=ErrorKind.QUOTA, when=Always()))
    desk.run("fault add r 1 name=mine")
    desk.engine.replace_rules([Rule(name="other", kind=ErrorKind.QUOTA, when=Always())])
    assert desk.hits(2) == ["mine", "other"]


def test_n_leaves_standing_rules_and_says_so() -> None:
    desk = Desk()
    desk.run("fault add r * name=mine")
    assert "Standing rules are still active; fault clear takes them away." in desk.run("n").text
    assert desk.hits() == ["mine"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("fault add r name=mine", 'the name "mine" is taken'),
        ("fault add r name=mode", 'the name "mode" is taken'),
        ("fault add r upstream=opnai", 'did you mean "openai"?'),
        ("fault rm min", 'did you mean "mine"?'),
    ],
)
def test_rule_that_cannot_be_changes_nothing_and_is_on_record_as_refused(line: str, said: str) -> None:
    desk = Desk()
    desk.run("fault add c * name=mine")
    state = desk.state()
    answer = desk.run(line)
    assert (answer.ok, desk.state()) == (False, state)
    assert said in answer.text
    assert "Nothing has changed" in answer.text
    assert [one.outcome for one in desk.recorded] == ["ok", "refused"]


def test_rules_are_bounded() -> None:
    desk = Desk()
    answers = [desk.run("fault add r").ok for _ in range(101)]
    assert answers == [True] * 100 + [False]


@pytest.mark.parametrize("line", ["c", "fault add r"])
def test_where_faults_are_off_they_are_refused_with_the_key_that_allows_them(line: str) -> None:
    desk = Desk(allowed=False)
    assert "operator.faults: true allows them" in desk.run(line).text
    assert not desk.control.active()
    assert desk.run("n").ok
    assert desk.run("fault clear").ok


# On record.

CHANGING = [
    ("r 3", "fault.set", "r 3"),
    ("n", "fault.clear", "n"),
    ("fault add r name=x", "fault.add", "x"),
    ("fault clear", "fault.clear", "all"),
    ("breaker trip openai", "breaker.trip", "openai"),
    ("breaker reset openai", "breaker.reset", "openai"),
    ("upstream drain my-vllm", "upstream.drain", "my-vllm"),
    ("upstream enable my-vllm", "upstream.enable", "my-vllm"),
    ("cache purge --all", "cache.purge", "all"),
    ("config reload", "config.reload", "configuration"),
    ("log level llmproxyd debug", "log.level", "llmproxyd"),
    ("shutdown", "daemon.stop", "shutdown"),
    ("project create a --id a1", "project.create", "a1"),
]


@pytest.mark.parametrize(("line", "action", "target"), CHANGING)
def test_change_is_on_record_once_with_who_made_it(line: str, action: str, target: str) -> None:
    desk = Desk()
    assert desk.run(line).ok
    told = [(one.who, one.address, one.action, one.target, one.outcome) for one in desk.recorded]
    assert told == [("telnet alice", "127.0.0.1", action, target, "ok")]


@pytest.mark.parametrize("line", [line for line, _, _ in CHANGING])
def test_change_that_cannot_be_recorded_is_not_made(line: str) -> None:
    desk = Desk()
    desk.audit_down = True
    state = desk.state()
    answer = desk.run(line)
    assert not answer.ok
    assert answer.error is not None
    assert answer.error.code == "audit_unavailable"
    assert desk.state() == state


@pytest.mark.parametrize("verb", [one.name for one in TABLE.verbs if not one.changes and one.rest is None])
def test_verb_that_looks_is_not_on_record(verb: str) -> None:
    desk = Desk()
    desk.run(verb)
    assert desk.recorded == []


def test_verb_waits_for_the_audit_log() -> None:
    desk = Desk()
    waiting: Deferred[None] = Deferred()
    answer = desk.control.run("r 3", ALICE, audit=lambda change: waiting)
    assert isinstance(answer, Deferred)
    assert not desk.control.active()
    waiting.callback(None)
    assert desk.control.active()
    said: list[Answer] = []
    answer.addCallback(said.append)
    assert said[0].ok


# Looking.


def test_requests_are_shown_by_filters() -> None:
    desk = Desk()
    text = desk.run("requests status>=500").text
    assert [line.split()[:3] for line in text.splitlines()] == [
        ["TIME", "ID", "STATUS"], ["00:01:01", "req_2", "503"]
    ]  # fmt: skip
    assert "circuit_open" in text
    data: Any = json.loads(desk.run("requests 1 --json").text)
    assert [row["id"] for row in data["requests"]] == ["req_2"]
    assert "No such request" in desk.run("requests status=404").text


def test_requests_are_followed_until_told_to_stop() -> None:
    desk = Desk()
    answer = desk.run("requests tail 1")
    assert answer.text.splitlines()[1].split()[1] == "req_2"
    assert answer.follow is not None
    told: list[str] = []
    stop = answer.follow(told.append)
    desk.journal.followers[0](ROWS[0])
    assert told[0].split()[:3] == ["00:00:00", "req_1", "200"]
    stop()
    assert desk.journal.followers == []
    as_json = desk.run("requests tail --json")
    assert as_json.follow is not None
    as_json.follow(told.append)
    desk.journal.followers[0](ROWS[0])
    assert json.loads(told[1]) == ROWS[0]
    assert not desk.run("requests tail", ONCE).ok


def test_request_is_explained() -> None:
    desk = Desk()
    assert "overloaded (529) [u-1], waited 0.5 s" in desk.run("explain req_2").text
    assert desk.run("explain req_2").data == STORY
    gone = desk.run("explain req_9")
    assert gone.error is not None
    assert (gone.error.status, gone.error.code) == (404, "no_such_request")


def test_status_tells_more_when_asked() -> None:
    desk = Desk()
    assert "Requests handled: 7" in desk.run("status").text
    assert "store" in desk.run("status all").text
    data: Any = json.loads(desk.run("status --json").text)
    assert (data["store"], data["active"]) == ({"open": True}, False)


def test_upstream_is_drained_and_enabled() -> None:
    desk = Desk()
    assert "drained" in desk.run("upstream drain my-vllm").text
    assert desk.places.drained == {"my-vllm"}
    assert 'did you mean "my-vllm"?' in desk.run("upstream drain my-vlm").text
    assert desk.run("upstream enable my-vllm").ok
    assert desk.places.drained == set()


def test_cache_is_told_of_and_purged() -> None:
    desk = Desk()
    assert "entries  3" in desk.run("cache").text
    assert desk.run("cache purge --url 'openai /v1/models'").text == "Entries purged: 3\n"
    assert desk.cache.purged == [Purge(url=b"openai /v1/models")]
    assert not desk.run("cache purge --url nope").ok


def test_test_of_an_upstream_that_fails_is_a_failure() -> None:
    desk = Desk()
    assert desk.run("test openai").ok
    assert not desk.run("test my-vllm").ok
    assert 'did you mean "openai"?' in desk.run("test opnai").text


def test_configuration_is_checked_compared_and_reloaded() -> None:
    desk = Desk()
    assert desk.run("config").data == {"listen": ["tcp:8888"]}
    assert desk.run("config check").text.startswith("The configuration is good.\n")
    diff = desk.run("config diff").text
    assert "timeouts.idle  300 -> 60" in diff
    assert "Only a restart changes: access.store" in diff
    assert desk.reloads.reloaded == 0
    assert desk.run("config reload").text.startswith("Reloaded; changed:\n")
    assert desk.recorded[0].before == {"timeouts.idle": 300}
    assert desk.recorded[0].after == {"timeouts.idle": 60}


@pytest.mark.parametrize("line", ["config check", "config diff", "config reload"])
def test_bad_configuration_is_told_and_changes_nothing(line: str) -> None:
    desk = Desk()
    desk.reloads.report = FakeReport(problems=["x.yaml:3: timeouts.idle: found \x1b[2J"])
    answer = desk.run(line)
    assert answer.text == "x.yaml:3: timeouts.idle: found \\x1b[2J\nNothing has changed.\n"
    assert not answer.ok
    assert (desk.reloads.reloaded, desk.recorded) == (0, [])


def test_log_level_is_set() -> None:
    desk = Desk()
    assert desk.run("log level llmproxyd debug").ok
    assert desk.levels == [("llmproxyd", "debug")]


def test_version_and_connections_are_told() -> None:
    assert "llmproxyd" in Desk().run("version").text
    assert Desk().run("connections").text.split()[:3] == ["PEER", "REQUESTS", "REQUEST"]


# Projects and tokens.


def test_projects_and_tokens_have_the_options_of_the_command() -> None:
    desk = Desk()
    made = desk.run(
        "project create 'team a' --credential openai=sk-provider --rpm 60 --allow-method POST "
        "--allow-param model=a,b --require-header 'x-a: b'"
    )
    assert made.ok
    data: Any = made.data
    assert data["limits"] == {"rpm": 60, "tpm": None}
    assert (data["allow"]["params"], data["allow"]["required_headers"]) == ({"model": ["a", "b"]}, ["x-a: b"])
    assert "sk-provider" not in made.text
    assert "sk-provider" not in repr(desk.recorded)
    changed: Any = desk.run("project update 'team a' --rpm none --allow-method none --name b").data
    assert (changed["name"], changed["limits"]["rpm"], changed["allow"]["methods"]) == ("b", None, [])
    token: Any = desk.run("token create --project b --name ci --expires 30d --scope fault").data
    assert token["token"].startswith("sk-")
    assert desk.run("token show ci").data == {key: value for key, value in token.items() if key != "token"}
    assert "ci" in desk.run("token list --project b").text
    assert desk.run("token deactivate ci").ok
    assert "inactive" in desk.run("token list").text
    assert desk.run("token update ci --expires never --scope none").ok
    assert desk.run("token activate ci").ok
    assert "shown this once" in desk.run("token rotate ci").text
    assert desk.run("token revoke ci").ok
    assert desk.run("usage --by token --since 7d").text.startswith("Since ")
    assert desk.run("token delete ci").ok
    assert "b" in desk.run("project list").text
    assert desk.run("project deactivate b").ok
    assert desk.run("project rotate b --credential openai=k2").ok


def test_deleting_a_project_asks_at_a_terminal() -> None:
    desk = Desk()
    desk.run("project create a")
    answer = desk.run("project delete a", TERMINAL)
    assert answer.asks == "Delete project a, its tokens and its credentials?"
    assert desk.run("project show a").ok
    assert answer.confirm is not None
    assert answer.confirm().text.startswith("Deleted ")  # type: ignore[union-attr]
    assert not desk.run("project show a").ok


def test_wrong_value_of_an_option_is_told_with_its_place() -> None:
    desk = Desk()
    assert "/credentials/opnai" in desk.run("project create a --credential opnai=k").text
    assert not desk.run("usage --since soon").ok


# The end.


def test_quit_leaves_a_console_and_stops_the_daemon_at_its_own_input() -> None:
    for line in ("q", "quit"):
        desk = Desk()
        assert desk.run(line) == Answer("", leaves=True)
        assert desk.stopped == 0
        assert not desk.run(line, ONCE).ok
        assert desk.run(line, OWN).text == "Stopping.\n"
        assert desk.stopped == 1
        assert [one.action for one in desk.recorded] == ["daemon.stop"]


def test_shutdown_asks_at_a_terminal_and_nowhere_else() -> None:
    desk = Desk()
    answer = desk.run("shutdown", TERMINAL)
    assert answer.asks is not None
    assert (desk.stopped, desk.recorded) == (0, [])
    assert answer.confirm is not None
    answer.confirm()
    assert desk.stopped == 1
    assert desk.run("shutdown", ONCE).ok
    assert [one.who for one in desk.recorded] == ["telnet alice", "telnet alice"]


def test_interpreter_is_opened_only_where_the_console_may() -> None:
    desk = Desk()
    assert "operator.python: true" in desk.run("python").text
    assert desk.recorded == []
    assert desk.run("python", Console(python=True)).python
    assert [one.action for one in desk.recorded] == ["python.open"]


# Whatever is missing, and whatever fails.


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("requests", "journal.requests"),
        ("requests tail", "journal.requests"),
        ("explain x", "journal.requests"),
        ("project list", "access.enabled: true"),
        ("token create --project x", "access.enabled: true"),
        ("usage", "access.enabled: true"),
        ("cache stats", "cache.enabled: true"),
        ("cache purge --all", "cache.enabled: true"),
        ("upstream list", "cannot be drained here"),
        ("connections", "not known here"),
        ("config", "not known here"),
        ("config reload", "cannot be read again here"),
        ("log level x info", "cannot be set here"),
        ("test openai", "cannot be tested here"),
    ],
)
def test_what_is_not_there_says_how_it_would_be(line: str, said: str) -> None:
    desk = Desk()
    desk.control.means = Means()
    answer = desk.run(line)
    assert not answer.ok
    assert said in answer.text
    assert desk.recorded == []


def test_part_that_breaks_is_told_in_one_line_and_logged() -> None:
    desk = Desk()

    def broken() -> list[Mapping[str, Any]]:
        raise RuntimeError("sk-secret")

    desk.control.means = replace(desk.control.means, connections=broken)
    answer = desk.run("connections")
    assert answer.text == "That failed; the daemon's log says why.\n"


@pytest.mark.parametrize(
    "line", ["xyz --json", "breaker trip nope --json", "explain x --json", "fault rm --json"]
)
def test_refusal_as_json(line: str) -> None:
    answer = Desk().run(line)
    error = json.loads(answer.text)["error"]
    assert set(error) == {"code", "message"}
    assert isinstance(answer.error, Refused)


@pytest.mark.parametrize(
    "verb", [one.name for one in TABLE.verbs if one.name not in ("requests tail", "project delete")]
)
def test_every_verb_gives_json_when_asked(verb: str) -> None:
    for console in (THERE, Console(json=True)):
        answer = Desk().run(f"{verb} --json" if console is THERE else verb, console)
        if not answer.leaves:
            json.loads(answer.text)


def test_colour_is_used_only_where_it_is_seen() -> None:
    desk = Desk()
    desk.run("breaker trip openai")
    for line in ("breaker", "status", "requests", "upstream", "fault"):
        assert "\x1b" not in desk.run(line).text
        assert "\x1b" not in desk.run(f"{line} --json", Console(colour=True)).text
    assert "\x1b[31mopen, next probe" in desk.run("breaker", Console(colour=True)).text
    assert "\x1b[31m503\x1b[0m" in desk.run("requests", Console(colour=True)).text


def test_line_that_holds_a_key_is_known() -> None:
    holds = Desk().control.holds_secret
    for line in (
        "project create x --credential openai=sk-x",
        "PROJECT update x --credential=openai=sk-x",
        "project rotate x --Credential openai=",
        "token show sk-abc",
        "project create x --credential openai=sk-x 'not closed",
    ):
        assert holds(line), line
    for line in ("project list", "r 3", "token list", "nonsense", ""):
        assert not holds(line), line


PIECES = st.sampled_from(
    [*(verb.name for verb in TABLE.verbs), "openai", "--json", "--all", "x", "3", "*", "name=x", "--credential",
     "openai=k", "--project", "status>=500", "'", "\x1b", "\ud800", "for=1s", "--expires", "--since", "--scope"]
)  # fmt: skip


@settings(deadline=None, max_examples=300)
@given(st.lists(PIECES, max_size=6).map(" ".join) | st.text(), st.sampled_from([THERE, ONCE, OWN, TERMINAL]))
def test_no_line_ever_raises_and_a_refused_one_changes_nothing(line: str, console: Console) -> None:
    desk = Desk()
    desk.run("r 3")
    state = desk.state()
    answer = desk.run(line, console)
    if not answer.ok or answer.asks is not None:
        assert desk.state() == state
    if answer.error is not None and answer.error.status == 500:
        raise AssertionError(line)
