"""The journal: what is kept of the last requests, how much of it, and how it is found again."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmproxyd.errors import Refused
from llmproxyd.inspection.prices import Prices
from llmproxyd.language.filters import FIELDS, parse_filter
from llmproxyd.model import (
    Arrived,
    Body,
    BreakerChanged,
    Captured,
    CredentialRested,
    End,
    ErrorNoted,
    Event,
    Finished,
    Reading,
    Retrying,
)
from llmproxyd.observe import journal as module
from llmproxyd.observe.eventjson import EventFormat
from llmproxyd.observe.journal import AVERAGE, FOLLOWERS, NOTES, SMALL, WAITING, Entry, Journal
from llmproxyd.redaction import Redactor, Secret

SECRET = "sk-verysecretkey123456"
START = 1_790_000_000.0


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Stamped(Journal):
    """A journal of requests that end when the clock says."""

    def __call__(self, event: Event) -> None:
        if isinstance(event, Finished):
            event.wall = self._wall()
        super().__call__(event)


@pytest.fixture
def make(clock: Clock) -> Callable[[int], Journal]:
    form = EventFormat(Redactor([Secret(SECRET)]), Prices({}))
    return lambda requests: Stamped(requests, clock, form)


def kept_of(journal: Journal) -> list[Entry]:
    return [one if isinstance(one, Entry) else Entry(one) for one in journal._entries]


@pytest.fixture
def journal(make: Callable[[int], Journal]) -> Journal:
    return make(1000)


def done(number: int, **more: object) -> Finished:
    told = {
        "request_id": f"ab12-{number:x}",
        "method": "POST",
        "path": "/v1/chat/completions",
        "provider": "openai",
        "upstream": "openai",
        "status": 200,
        "duration": 1.0,
        "sent": 263,
        "end": End.COMPLETE,
        "attempts": 1,
        **more,
    }
    return Finished(number=number, **told)  # type: ignore[arg-type]


def again(number: int, retry: int = 1, **more: object) -> Retrying:
    told = {
        "request_id": f"ab12-{number:x}",
        "upstream": "openai",
        "failed": "overloaded (529)",
        "delay": 2.0,
        "of": 10,
        "to": "openai",
        **more,
    }
    return Retrying(number=number, retry=retry, **told)  # type: ignore[arg-type]


def ids(journal: Journal, *args: object) -> list[str]:
    return [one["id"] for one in journal.recent(*args)]  # type: ignore[arg-type]


# What is kept.


def test_recent_requests_are_told_oldest_first_as_events_tell_them(journal: Journal) -> None:
    for number in range(1, 5):
        journal(done(number, model="gpt-4o", upstream_id="req_9"))
    assert ids(journal, (), 2) == ["ab12-3", "ab12-4"]
    last = journal.recent()[-1]
    assert last["number"] == 4
    assert last["model"] == "gpt-4o"
    assert last["upstream_id"] == "req_9"
    assert last["time"] == START
    assert "request_body" not in last


def test_the_number_of_requests_is_bounded_and_the_oldest_leave(make: Callable[[int], Journal]) -> None:
    journal = make(3)
    for number in range(1, 8):
        journal(done(number))
    assert ids(journal) == ["ab12-5", "ab12-6", "ab12-7"]
    assert journal.explain("ab12-4") is None


def test_rows_have_what_filters_ask_for_under_the_same_names(journal: Journal) -> None:
    journal(
        done(
            1,
            model="gpt-4o",
            first=0.2,
            fault="x",
            code="y",
            project="p",
            cache="hit",
            peer="1.2.3.4:5",
            test="t",
        )
    )
    [row] = journal.recent()
    asked = {name: module._View(kept_of(journal)[0].finished).get(name) for name in FIELDS}
    assert {name: row[name] for name in FIELDS} == asked
    assert None not in asked.values()
    for text in ("status=200", "model~4o", "duration<=1s", "id=ab12-1", "end=complete", "peer=1.2.3.4:5"):
        assert len(journal.recent([parse_filter(text), parse_filter("attempts=1")])) == 1, text
        assert journal.recent([parse_filter(text), parse_filter("attempts=2")]) == []


def test_what_is_no_member_of_a_row_is_not_there_for_filters(journal: Journal) -> None:
    view = module._View(done(1))
    assert view.get("captured") is None
    assert view.get("__class__", 5) == 5


def test_no_limit_asks_for_nothing(journal: Journal) -> None:
    journal(done(1))
    assert journal.recent((), 0) == []
    assert journal.recent((), -3) == []


def test_zero_keeps_none_but_lets_follow(make: Callable[[int], Journal]) -> None:
    journal = make(0)
    told: list[str] = []
    journal.follow((), lambda one: told.append(one["id"]))
    journal(again(1))
    journal(done(1))
    assert journal.recent() == []
    assert journal.state() == {"requests": 0, "bytes": 0, "following": 1}
    assert told == ["ab12-1"]


def test_bodies_are_not_kept(journal: Journal) -> None:
    body = Body(data=b"secret prompt", length=13)
    journal(done(1, captured=Captured(request=body, response=body)))
    assert journal.recent()[0].get("request_body") is None
    assert kept_of(journal)[0].finished.captured is None


def test_bodies_are_not_told_to_followers(journal: Journal) -> None:
    told: list[dict[str, object]] = []
    journal.follow((), told.append)
    body = Body(data=b"secret prompt", length=13)
    journal(done(1, captured=Captured(request=body, response=body)))
    assert "request_body" not in told[0]


def test_secrets_that_a_client_put_into_its_path_are_not_told(journal: Journal) -> None:
    journal(done(1, path=f"/v1/{SECRET}", model=SECRET, detail=f"with {SECRET}"))
    assert SECRET not in str(journal.recent())
    assert SECRET not in str(journal.explain("ab12-1"))


def test_long_texts_are_cut_before_they_are_kept(journal: Journal) -> None:
    journal(done(1, path="/" + "x" * 60_000, model="😀" * 50_000, detail="y" * 9999, traceparent="z" * 9999))
    kept = kept_of(journal)[0].finished
    assert sum(len(text or "") for text in (kept.path, kept.model, kept.detail, kept.traceparent)) < 5000
    assert journal.recent()[0]["path"].endswith("…")


# How many bytes.


def held(value: object, seen: set[int]) -> int:
    """Bytes of *value* and of what it alone refers to, about."""
    if id(value) in seen or value is None or isinstance(value, type):
        return 0
    seen.add(id(value))
    size = sys.getsizeof(value)
    if isinstance(value, tuple | list):
        size += sum(held(one, seen) for one in value)
    elif isinstance(value, dict):
        size += sum(held(key, seen) + held(one, seen) for key, one in value.items())
    elif hasattr(type(value), "__slots__") and not isinstance(value, str | int | float):
        size += sum(held(getattr(value, name), seen) for name in type(value).__slots__)
    return size


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 3000),
            st.one_of(st.none(), st.text(max_size=400)),
            st.one_of(st.none(), st.text(max_size=1500)),
            st.integers(0, 90),
            st.one_of(st.none(), st.text(max_size=256)),
        ),
        max_size=60,
    ),
    st.integers(1, 20),
)
def test_bytes_are_bounded_whatever_comes(requests: list, most: int) -> None:
    journal = Journal(most, Clock(), EventFormat(Redactor(), Prices({})))
    for number, (path, model, detail, tries, read) in enumerate(requests, 1):
        for retry in range(1, tries + 1):
            journal(again(number, retry, failed=f"overloaded ({retry})"))
        reading = None
        if read is not None:
            tokens = {"input": number + 1000, "output": number + 5000, "total": number + 6000}
            reading = Reading(model="m" + read, tokens=tokens, finish=f"stop {number}")
        journal(
            done(
                number,
                path="/" + "x" * path,
                model=model,
                detail=detail,
                attempts=tries + 1,
                duration=number / 7,
                reading=reading,
            )
        )
    sizes = [entry.size for entry in kept_of(journal)]
    assert journal.state()["bytes"] == sum(sizes)
    assert len(sizes) == 1 or sum(sizes) <= most * AVERAGE
    assert not requests or len(sizes) >= 1
    seen: set[int] = set()
    real = sum(held(entry, seen) for entry in journal._entries)
    # What is counted is what is held, roughly; it must not be less by much.  Some of it is shared by all.
    assert real <= 1.2 * sum(sizes) + 600
    assert journal._waiting == 0


def test_many_small_requests_fit_in_the_bytes_granted(make: Callable[[int], Journal]) -> None:
    journal = make(1000)
    for number in range(1, 1500):
        journal(done(number))
    assert journal.state()["requests"] == 1000


def test_what_is_small_holds_less_than_is_counted_for_it() -> None:
    def small(number: int) -> Finished:
        """One that shares with others what all have in common alone."""
        kinds = ("input", "output", "total", "cached", "reasoning")
        return done(
            number,
            path=f"/v1/{number:065}",
            model=f"{number:020}",
            duration=number / 7,
            began=number / 11,
            first=number / 13,
            wall=number / 17,
            status=number,
            sent=number + 1,
            received=number + 2,
            peer=f"127.0.0.1:{number}",
            upstream_id=f"req_{number:032}",
            traceparent=f"00-{number:032}-{number:016}-01",
            reading=Reading(
                model=f"{number:020}",
                tokens={kind: number + place for place, kind in enumerate(kinds, 3)},
                finish=f"{number:010}",
                cost=number / 19,
            ),
        )

    journal = Journal(2, Clock(), EventFormat(Redactor(), Prices({})))
    journal.finished(iter([small(1000), small(2000)]))
    assert journal.state()["bytes"] == 2 * SMALL
    seen: set[int] = set()
    first, second = (held(one, seen) for one in journal._entries)
    assert first > second
    assert second + sys.getsizeof([None]) - sys.getsizeof([]) <= SMALL


def test_requests_of_which_the_answers_are_known_fit_in_as_many_as_are_asked_for(
    make: Callable[[int], Journal],
) -> None:
    journal = make(1000)
    for number in range(1, 1500):
        journal(done(number, model="gpt-4o", reading=Reading(model="gpt-4o-2024-08-06", tokens={"input": 5})))
    assert journal.state() == {"requests": 1000, "bytes": 1000 * SMALL, "following": 0}
    assert not any(isinstance(one, Entry) for one in journal._entries)


@pytest.mark.parametrize(
    "long",
    [
        {"path": "/" + "x" * 1200},
        {"model": "m" * 1200},
        {"traceparent": "t" * 1200},
        {"detail": "d" * 1200},
        {"reading": Reading(model="😀" * 256), "model": "m" * 200},
    ],
)
def test_what_is_long_is_counted(make: Callable[[int], Journal], long: dict[str, object]) -> None:
    journal = make(10)
    journal(done(1, **long))
    assert journal.state()["bytes"] > SMALL


def test_one_that_holds_more_takes_the_place_of_several_and_leaves_in_its_turn() -> None:
    journal = Stamped(10, Clock(), EventFormat(Redactor(), Prices({})))
    for number in range(1, 21):
        journal(done(number))
    assert journal.state() == {"requests": 10, "bytes": 10 * SMALL, "following": 0}
    for retry in range(1, 21):
        journal(again(21, retry))
    journal(done(21, attempts=21))
    state = journal.state()
    assert state["requests"] < 10
    assert state["bytes"] <= 10 * AVERAGE
    for number in range(22, 40):
        journal(done(number))
    assert journal.state() == {"requests": 10, "bytes": 10 * SMALL, "following": 0}
    assert ids(journal) == [f"ab12-{number:x}" for number in range(30, 40)]


def test_a_batch_of_any_requests_is_kept_as_each_by_itself(clock: Clock) -> None:
    form = EventFormat(Redactor(), Prices({}))
    plain, long = {}, {"path": "/" + "x" * 300}
    kinds = [plain, long, {"model": "m" * 1600}, plain, {"detail": "d"}, {"reading": Reading(model="m")}]
    events = [done(number, **kinds[number % len(kinds)]) for number in range(1, 40)]
    together, single = Journal(12, clock, form), Journal(12, clock, form)
    for journal in (together, single):
        journal(again(20))
    together.finished(iter(events))
    for event in events:
        single(event)
    assert kept_of(together) == kept_of(single)
    assert together.state() == single.state()
    assert together.recent() == single.recent()


# Attempts.


def test_attempts_are_told_in_order_with_waits_and_reasons(journal: Journal, clock: Clock) -> None:
    clock.now = START + 0.5
    journal(again(7, 1, upstream_id="req_a"))
    clock.now = START + 2.6
    journal(again(7, 0, failed="rate limited (429)", delay=0.0))
    clock.now = START + 3.0
    journal(again(7, 2, failed="connection refused", delay=0.0, to="backup"))
    clock.now = START + 4.0
    journal(done(7, duration=4.0, attempts=4, upstream="backup", upstream_id="req_d", began=3.5))
    told = journal.explain("ab12-7")
    assert told is not None
    assert told["state"] == "finished"
    assert told["attempts"] == [
        {
            "number": 1,
            "upstream": "openai",
            "after": 0.5,
            "outcome": "overloaded (529)",
            "upstream_id": "req_a",
            "wait": 2.0,
            "then": "retry 1 of 10",
        },
        {
            "number": 2,
            "upstream": "openai",
            "after": 2.6,
            "outcome": "rate limited (429)",
            "upstream_id": None,
            "wait": 0.0,
            "then": "another key",
        },
        {
            "number": 3,
            "upstream": "openai",
            "after": 3.0,
            "outcome": "connection refused",
            "upstream_id": None,
            "wait": 0.0,
            "then": "backup instead",
        },
        {
            "number": 4,
            "upstream": "backup",
            "after": 4.0,
            "outcome": "200",
            "upstream_id": "req_d",
            "wait": None,
            "then": None,
        },
    ]


@pytest.mark.parametrize(
    ("more", "outcome"),
    [
        ({"began": 0.1}, "200"),
        ({"status": 502, "code": "upstream_unreachable", "detail": "refused", "failed": True, "began": 0.1},
         "upstream_unreachable: refused"),
        ({"code": "idle_timeout", "detail": "silence", "end": End.IDLE, "began": 0.1, "failed": True},
         "200, then idle_timeout: silence"),
        ({"status": 499, "code": "client_gone", "end": End.CLIENT_GONE}, "the client left"),
        ({"end": End.IN_BAND_ERROR, "began": 0.1}, "200, then an error within the stream"),
        ({"cache": "stale", "began": 0.1}, "failed: a stale entry of the cache answered"),
        ({"cache": "hit", "began": 0.1}, "not modified: the cache's entry still holds"),
        ({"status": 429, "began": 0.1}, "429"),
    ],
)  # fmt: skip
def test_the_last_attempt_is_told_by_what_it_came_to(journal: Journal, more: dict, outcome: str) -> None:
    journal(done(1, **more))
    told = journal.explain("ab12-1")
    assert told is not None
    assert [one["outcome"] for one in told["attempts"]] == [outcome]


def test_an_answer_without_attempts_has_none(journal: Journal) -> None:
    journal(done(1, attempts=0, fault="overloaded", status=529))
    told = journal.explain("ab12-1")
    assert told is not None
    assert told["attempts"] == []


def test_a_client_that_leaves_in_a_wait_adds_no_attempt(journal: Journal) -> None:
    journal(again(1))
    journal(done(1, attempts=1, status=499, code="client_gone", end=End.CLIENT_GONE))
    told = journal.explain("ab12-1")
    assert told is not None
    assert [one["number"] for one in told["attempts"]] == [1]


def test_why_no_further_attempt_followed_is_told_where_it_is_known(journal: Journal) -> None:
    def noted(**more: object) -> ErrorNoted:
        return ErrorNoted(
            code="529", error_type="HTTPResponse", message="m", wall=START, request_id="ab12-1", **more
        )  # type: ignore[arg-type]

    journal(noted(final=False, context={"decision": "tried again"}))
    journal(noted(context={"decision": "the retry budget is spent"}))
    journal(done(1, status=529, began=0.1))
    told = journal.explain("ab12-1")
    assert told is not None
    assert told["attempts"][-1]["then"] == "the retry budget is spent"
    assert journal._decisions == {}


def test_a_request_under_way_is_told_by_its_attempts_so_far(journal: Journal, clock: Clock) -> None:
    journal(again(5))
    told = journal.explain("ab12-5")
    assert told is not None
    assert told["state"] == "under way"
    assert told["number"] == 5
    assert [one["outcome"] for one in told["attempts"]] == ["overloaded (529)"]


def test_of_very_many_attempts_the_first_and_the_last_are_kept(journal: Journal) -> None:
    for retry in range(1, 201):
        journal(again(1, retry))
    journal(done(1, attempts=201))
    told = journal.explain("ab12-1")
    assert told is not None
    numbers = [one["number"] for one in told["attempts"]]
    assert len(numbers) == NOTES + 1
    assert numbers[:3] == [1, 2, 3]
    assert numbers[-2:] == [200, 201]
    assert journal._waiting == 0


def test_attempts_of_requests_that_never_end_are_bounded(journal: Journal) -> None:
    for number in range(1, 3 * WAITING):
        journal(again(number))
    assert journal._waiting == WAITING
    assert len(journal._tries) == WAITING
    # Those that were forgotten end all the same.
    journal(done(1, attempts=2))
    assert journal.explain("ab12-1") is not None


def test_decisions_of_requests_that_never_end_are_bounded(journal: Journal) -> None:
    for number in range(WAITING + 10):
        journal(
            ErrorNoted(
                code="x",
                error_type="x",
                message="x",
                wall=0.0,
                request_id=str(number),
                context={"decision": "d"},
            )
        )
    assert len(journal._decisions) == WAITING


def test_eviction_with_attempts_under_way_loses_none_of_them(make: Callable[[int], Journal]) -> None:
    journal = make(4)
    journal(again(1))
    for number in range(2, 30):
        journal(again(number))
        journal(done(number, attempts=2))
    journal(again(1, 2))
    journal(done(1, attempts=3))
    told = journal.explain("ab12-1")
    assert told is not None
    assert [one["number"] for one in told["attempts"]] == [1, 2, 3]
    assert journal._tries == {}


# Breakers and keys.


def test_changes_of_its_upstreams_while_it_was_under_way_are_told(journal: Journal, clock: Clock) -> None:
    opened = BreakerChanged(
        name="openai/gpt-4o", before="closed", after="open", cause="5 failures", seconds=60
    )
    other = BreakerChanged(name="anthropic", before="closed", after="open", cause="x", seconds=60)
    clock.now = START + 1
    journal(opened)
    journal(other)
    journal(CredentialRested(upstream="openai", which=2, status=429, seconds=30.0, left=1))
    clock.now = START + 2
    journal(done(1, duration=2.0))
    clock.now = START + 3
    journal(BreakerChanged(name="openai", before="open", after="half-open", cause="time"))
    told = journal.explain("ab12-1")
    assert told is not None
    assert [one["what"] for one in told["changes"]] == [
        "breaker openai/gpt-4o: closed -> open, 5 failures; next probe in 60 s",
        "openai: key 2 rests for 30 s after a 429; 1 left",
    ]
    assert [one["after"] for one in told["changes"]] == [1.0, 1.0]


def test_a_breaker_that_was_open_before_is_told(journal: Journal, clock: Clock) -> None:
    journal(BreakerChanged(name="openai", before="closed", after="open", cause="5 failures", seconds=60))
    clock.now = START + 30
    journal(done(1, duration=0.1, status=503, code="circuit_open", attempts=0))
    told = journal.explain("ab12-1")
    assert told is not None
    assert [one["after"] for one in told["changes"]] == [-29.9]


def test_a_breaker_that_had_closed_before_is_none_of_its_business(journal: Journal, clock: Clock) -> None:
    journal(BreakerChanged(name="openai", before="closed", after="open", cause="5 failures", seconds=60))
    journal(BreakerChanged(name="openai", before="half-open", after="closed", cause="a success"))
    clock.now = START + 30
    journal(done(1, duration=0.1))
    told = journal.explain("ab12-1")
    assert told is not None
    assert told["changes"] == []


def test_changes_are_bounded(journal: Journal) -> None:
    for _ in range(10_000):
        journal(BreakerChanged(name="openai", before="closed", after="open", cause="c"))
    assert len(journal._changes) == module.CHANGES


# Found again.


def test_ids_of_ours_and_of_upstreams_find_a_request(journal: Journal) -> None:
    journal(again(1, upstream_id="req_first"))
    journal(done(1, upstream_id="req_second"))
    for name in ("ab12-1", "req_first", "req_second", "req_f", "#1"):
        told = journal.explain(name)
        assert told is not None, name
        assert told["id"] == "ab12-1"
    for name in ("ab12-2", "nothing", "", "#2", "b12"):
        assert journal.explain(name) is None, name


def test_a_whole_id_is_found_although_others_begin_with_it(journal: Journal) -> None:
    journal(done(1))
    journal(done(0x10))
    told = journal.explain("ab12-1")
    assert told is not None
    assert told["number"] == 1


def test_an_id_that_could_mean_several_is_refused_by_name(journal: Journal) -> None:
    for number in range(1, 10):
        journal(done(number))
    with pytest.raises(Refused, match=r"9 requests have ids that begin so: ab12-9, ab12-8, .* and 4 more"):
        journal.explain("ab12-")


def test_two_ids_of_one_request_with_a_common_beginning_are_not_ambiguous(journal: Journal) -> None:
    journal(again(1, upstream_id="req_1"))
    journal(done(1, upstream_id="req_2"))
    assert journal.explain("req_") is not None


# Followed.


def test_followers_see_what_their_filters_let_through(journal: Journal) -> None:
    told: list[int] = []
    stop = journal.follow([parse_filter("status>=500")], lambda one: told.append(one["number"]))
    journal(done(1))
    journal(done(2, status=503))
    stop()
    stop()
    journal(done(3, status=503))
    assert told == [2]
    assert journal.state()["following"] == 0


def test_a_follower_that_fails_is_told_no_more_and_disturbs_nobody(journal: Journal) -> None:
    told: list[int] = []

    def fails(one: dict) -> None:
        one.clear()
        raise ZeroDivisionError

    journal.follow((), fails)
    journal.follow((), lambda one: told.append(one["number"]))
    journal(done(1))
    journal(done(2))
    assert told == [1, 2]
    assert journal.state()["following"] == 1


def test_a_follower_may_stop_while_it_is_told(journal: Journal) -> None:
    told: list[int] = []
    stops: list[Callable[[], None]] = []

    def once(one: dict) -> None:
        told.append(one["number"])
        stops[0]()

    stops.append(journal.follow((), once))
    journal.follow((), lambda one: told.append(-one["number"]))
    journal(done(1))
    journal(done(2))
    assert told == [1, -1, -2]


def test_followers_are_bounded(journal: Journal) -> None:
    for _ in range(FOLLOWERS):
        journal.follow((), lambda one: None)
    with pytest.raises(Refused, match="follow the requests already"):
        journal.follow((), lambda one: None)


# Whatever comes.

EVENTS = st.one_of(
    st.builds(done, st.integers(1, 9)),
    st.builds(again, st.integers(1, 9), st.integers(0, 3)),
    st.just(BreakerChanged(name="openai", before="closed", after="open", cause="c")),
    st.just(CredentialRested(upstream="openai", which=1, status=429, seconds=1.0, left=0)),
    st.just(Arrived(1, "ab12-1", "GET", "/", "openai", "openai")),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(EVENTS, st.floats(-1e9, 1e12)), max_size=80), st.integers(0, 5))
def test_any_order_of_events_and_any_clock_is_borne(events: list[tuple[Event, float]], most: int) -> None:
    clock = Clock()
    journal = Stamped(most, clock, EventFormat(Redactor(), Prices({})))
    for event, wall in events:
        clock.now = wall
        journal(event)
    assert len(journal._entries) <= most
    assert journal._waiting == sum(map(len, journal._tries.values()))
    for number in range(1, 10):
        told = journal.explain(f"#{number}")
        if told is not None:
            from llmproxyd.observe.explained import explain_text

            assert explain_text(told)


def test_recording_costs_little(journal: Journal) -> None:
    import timeit

    events = iter([done(number, model="gpt-4o", began=0.3) for number in range(20_000)])
    best = min(timeit.repeat(lambda: journal(next(events)), number=1000, repeat=15)) / 1000
    # Two microseconds on a machine at rest; tests share theirs.
    assert best < 10e-6, SimpleNamespace(microseconds=best * 1e6)


# Bodies, where they are asked for.


def with_bodies(clock: Clock, limit: int, requests: int = 1000) -> Journal:
    form = EventFormat(Redactor([Secret(SECRET)]), Prices({}), (limit, limit))
    return Journal(requests, clock, form, bodies=limit)


def bodied(number: int, request: bytes, response: bytes) -> Finished:
    def body(data: bytes) -> Body:
        return Body(data=data, length=len(data))

    return done(number, captured=Captured(request=body(request), response=body(response)))


def test_bodies_are_told_where_they_are_asked_for_without_secrets(clock: Clock) -> None:
    journal = with_bodies(clock, 1024)
    journal(bodied(1, b'{"key":"' + SECRET.encode() + b'"}', b'{"ok":true}'))
    [row] = journal.recent()
    assert SECRET not in str(row)
    assert row["response_body"] == {"text": '{"ok":true}', "bytes": 11, "truncated": False}


def test_of_a_body_that_events_keep_whole_the_journal_tells_its_own_share(clock: Clock) -> None:
    journal = with_bodies(clock, 4)
    journal(bodied(1, b"abcdefgh", b"abc"))
    [row] = journal.recent()
    assert row["request_body"] == {"text": "abcd", "bytes": 8, "truncated": True}
    assert row["response_body"]["text"] == "abc"


def test_bodies_count_among_the_bytes_that_are_kept(clock: Clock) -> None:
    journal = with_bodies(clock, 1000, requests=10)
    for number in range(10):
        journal(bodied(number, b"x" * 5000, b"y" * 5000))
    state = journal.state()
    assert state["requests"] < 10
    assert state["bytes"] <= 10 * (AVERAGE + 2 * 1000)
