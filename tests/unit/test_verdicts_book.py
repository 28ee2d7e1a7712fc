"""What clients do after a failure, and what that proves of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxyd.verdicts.book import Book
from llmproxyd.verdicts.chain import KEPT, REACTION
from llmproxyd.verdicts.failure import Answered, Failure
from llmproxyd.verdicts.mark import Asked, Client
from llmproxyd.verdicts.verdict import DOCS, MOST_REQUESTS, SEVERITIES, Name, Verdict, Verdicts

WINDOW = 120.0
CLIENT = Client(b"c", "OpenAI/Python 2.54.0 (63)", "openai", "/v1/chat/completions")
LIMITED = Failure(what="429 rate_limit_exceeded", retryable=True)
UNPAID = Failure(what="429 insufficient_quota", retryable=False, hopeless="the quota is spent")
BROKEN = Failure(what="an answer that broke off", begun=True)
TRUNCATED = Failure(what="a stream without its end", begun=True, silent=True)


def asked_to_wait(seconds: float, slack: float = 0.0) -> Failure:
    return Failure(what="429", retryable=True, wait=seconds, told_by="retry-after", slack=slack)


class Scene:
    """A book, and clients that ask one request after the other."""

    def __init__(self, *, max_retries: int = 10, most: int = 4096, start: float = 1000.0) -> None:
        self.book = Book(window=WINDOW, max_retries=max_retries, most=most)
        self.now = start
        self.new: list[Verdict] = []
        self._ids = (f"r{number}" for number in count(1))

    def begin(
        self,
        mark: bytes = b"m",
        *,
        client: Client = CLIENT,
        peer: str = "127.0.0.1:1000",
        count: int | None = None,
    ) -> str:
        """A request comes."""
        id = next(self._ids)
        self.new += self.book.arrived(
            Asked(id=id, client=client, mark=mark, at=self.now, peer=peer, count=count)
        )
        return id

    def end(self, id: str, failure: Failure | None = None, *, clear: bool = True) -> None:
        self.new += self.book.ended(id, Answered(at=self.now, over=self.now, failure=failure, clear=clear))

    def ask(
        self,
        failure: Failure | None,
        mark: bytes = b"m",
        *,
        client: Client = CLIENT,
        peer: str = "127.0.0.1:1000",
        count: int | None = None,
    ) -> str:
        """A request comes and is answered at once."""
        id = self.begin(mark, client=client, peer=peer, count=count)
        self.end(id, failure)
        return id

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.new += self.book.passed(self.now)

    def tries(self, failure: Failure | None, waits: Sequence[float], **given: Any) -> None:
        """One after the other, with these waits between them."""
        self.ask(failure, **given)
        for seconds in waits:
            self.now += seconds
            self.ask(failure, **given)

    @property
    def names(self) -> list[str]:
        return [one.name.value for one in self.book.verdicts]


@pytest.fixture
def scene() -> Scene:
    return Scene()


# Waiting as asked.


def test_coming_back_before_the_told_time_is_said_with_both_requests(scene: Scene) -> None:
    scene.ask(asked_to_wait(2))
    scene.now += 0.4
    scene.ask(None)
    [verdict] = scene.book.verdicts
    assert verdict.name is Name.RETRY_AFTER_IGNORED
    assert verdict.requests == ("r1", "r2")
    assert verdict.times == (1000.0, 1000.4)
    assert verdict.text == "The client came back after 0.4 s although 2 s were asked for (retry-after)."
    assert verdict.docs == "docs/verdicts.rst#retry-after-ignored"
    assert scene.new == [verdict]


@pytest.mark.parametrize(
    ("told", "waited", "early"),
    [
        (2.0, 2.0, False),
        (2.0, 1.91, False),
        (2.0, 1.89, True),
        (0.1, 0.051, False),
        (0.1, 0.049, True),
        (0.0, 0.0, False),
        (0.04, 0.0, False),
        (60.0, 57.1, False),
        (60.0, 56.9, True),
    ],
)
def test_clocks_may_differ_a_little(scene: Scene, told: float, waited: float, early: bool) -> None:
    scene.tries(asked_to_wait(told), [waited])
    assert (Name.RETRY_AFTER_IGNORED in scene.names) is early


def test_date_has_whole_seconds_and_may_be_read_so(scene: Scene) -> None:
    scene.tries(asked_to_wait(3, slack=1.0), [2.0])
    assert scene.names == []
    scene.tries(asked_to_wait(3, slack=1.0), [1.8])
    assert scene.names == ["retry_after_ignored"]


def test_told_wait_runs_from_the_head_of_the_answer_on(scene: Scene) -> None:
    id = scene.begin()
    at = scene.now
    scene.now += 5  # a slow body of an error
    scene.book.ended(id, Answered(at=at, over=scene.now, failure=asked_to_wait(4)))
    scene.ask(None)
    assert scene.names == []


def test_asked_not_to_come_back_at_all(scene: Scene) -> None:
    scene.tries(Failure(what="503", retryable=False, again=False), [1.0])
    [verdict] = scene.book.verdicts
    assert verdict.name is Name.RETRY_AFTER_IGNORED
    assert "x-should-retry: false" in verdict.text


def test_person_who_presses_a_button_later_is_not_taken_for_a_program(scene: Scene) -> None:
    scene.tries(Failure(what="503", retryable=False, again=False), [45.0])
    scene.tries(UNPAID, [45.0], mark=b"other")
    assert scene.names == []


# What must not be tried again.


def test_what_cannot_succeed_is_sent_again(scene: Scene) -> None:
    scene.tries(UNPAID, [0.5])
    [verdict] = scene.book.verdicts
    assert verdict.name is Name.RETRIED_HOPELESS
    assert "the quota is spent (429 insufficient_quota)" in verdict.text


def test_sdk_that_counts_is_a_program_however_late_it_comes(scene: Scene) -> None:
    scene.ask(UNPAID, count=0)
    scene.now += 45
    scene.ask(UNPAID, count=1)
    assert scene.names == ["retried_hopeless"]


def test_request_whose_answer_had_begun_is_sent_again(scene: Scene) -> None:
    scene.tries(BROKEN, [1.0])
    assert scene.names == ["repeated_begun_answer"]


def test_truncation_that_was_noticed_is_no_fault(scene: Scene) -> None:
    scene.ask(TRUNCATED)
    scene.now += 1
    scene.ask(None)
    scene.wait(1000)
    assert scene.names == []


# Backing off.


@pytest.mark.parametrize(
    "waits",
    [
        [0.0, 0.0, 0.0],
        [0.001, 0.015, 0.003],
        [0.5, 0.5, 0.5],
        [1.0, 1.05, 0.97],
        [2.0, 1.95, 1.98],
        [1.9, 1.5, 1.0, 0.4],
    ],
    ids=str,
)
def test_waits_that_do_not_grow_are_no_backoff(scene: Scene, waits: list[float]) -> None:
    scene.tries(LIMITED, waits)
    assert scene.names == ["no_backoff"]
    [verdict] = scene.book.verdicts
    assert len(verdict.requests) == len(waits) + 1


@pytest.mark.parametrize(
    "waits",
    [
        [0.4, 0.8, 1.7, 3.9],
        [0.5, 1.0, 2.0],
        [0.0, 0.0],
        [0.9, 0.3, 0.2],  # drawn from 0 to 1, 2, 4 s
        [5.0, 5.0, 5.0, 5.0],
        [0.5, 0.7, 0.6],
        [8.0, 5.0, 3.0, 1.5],
        [1.0, 0.95, 1.1, 0.5],
    ],
    ids=str,
)
def test_waits_that_grow_or_are_drawn_or_long_are_backoff(scene: Scene, waits: list[float]) -> None:
    scene.tries(LIMITED, waits)
    assert scene.names == []


def test_who_waits_as_told_is_not_asked_for_more(scene: Scene) -> None:
    scene.tries(asked_to_wait(1), [1.0] * 8)
    scene.tries(asked_to_wait(0), [0.0] * 8, mark=b"other")
    assert scene.names == []


def test_told_wait_between_is_none_of_its_own(scene: Scene) -> None:
    for failure in (LIMITED, asked_to_wait(0.5), LIMITED, LIMITED, LIMITED):
        scene.ask(failure)
        scene.now += 0.5
    assert scene.names == []


@given(st.floats(0.05, 1), st.lists(st.floats(0.75, 1), min_size=1, max_size=5))
def test_doubled_waits_with_some_jitter_are_never_blamed(base: float, drawn: list[float]) -> None:
    scene = Scene()
    scene.tries(LIMITED, [min(base * 2**place, 8.0) * share for place, share in enumerate(drawn)])
    assert scene.names == []


def test_too_many_retries_are_said_once(scene: Scene) -> None:
    scene = Scene(max_retries=3)
    scene.tries(LIMITED, [5.0, 6.0, 7.0])
    assert scene.names == []
    scene.now += 8
    scene.ask(LIMITED)
    scene.now += 9
    scene.ask(LIMITED)
    [verdict] = scene.book.verdicts
    assert verdict.name is Name.TOO_MANY_RETRIES
    assert verdict.seen == 1
    assert verdict.requests == ("r1", "r2", "r3", "r4", "r5")


# Counts of SDKs.


def test_count_that_begins_anew_and_goes_up_again_is_stacked(scene: Scene) -> None:
    for number, wait in zip((0, 1, 2, 0, 1, 2), (0.4, 0.9, 1.0, 0.4, 0.9, 1.0), strict=True):
        scene.ask(LIMITED, count=number)
        scene.now += wait
    [verdict] = scene.book.verdicts
    assert verdict.name is Name.STACKED_RETRIES
    assert verdict.requests == ("r1", "r2", "r3", "r4", "r5")
    assert "0, 1, 2, 0, 1" in verdict.text


@pytest.mark.parametrize(
    "counts", [(0, 1, 2), (0, 1, 2, 0), (0, 0, 0), (0, 0, 1), (0, 1, 2, 3, 4), (0, 1, 2, 0, None, 1)], ids=str
)
def test_count_that_goes_up_once_is_not_stacked(scene: Scene, counts: tuple[int | None, ...]) -> None:
    for place, number in enumerate(counts):
        scene.ask(LIMITED, count=number)
        scene.now += 0.4 * 2**place
    assert scene.names == []


# Never again.


def test_who_never_comes_back_is_said_when_the_window_is_over(scene: Scene) -> None:
    scene.ask(LIMITED)
    scene.wait(119.9)
    assert scene.names == []
    scene.wait(0.1)
    assert scene.names == ["never_came_back"]
    scene.wait(1000)
    assert len(scene.new) == 1


def test_window_begins_when_the_told_wait_is_over(scene: Scene) -> None:
    scene.ask(asked_to_wait(300))
    scene.wait(301)
    scene.ask(None)
    scene.wait(1000)
    assert scene.names == []


@pytest.mark.parametrize(
    "failure",
    [UNPAID, BROKEN, Failure(what="503", retryable=False, again=False), Failure(what="501"), None],
    ids=str,
)
def test_nobody_need_come_back_to_what_may_not_pass(scene: Scene, failure: Failure | None) -> None:
    scene.ask(failure)
    scene.wait(1000)
    assert scene.names == []


def test_who_gives_up_after_a_retry_has_come_back(scene: Scene) -> None:
    scene.tries(LIMITED, [0.5, 1.0])
    scene.wait(1000)
    assert scene.names == []


def test_other_request_of_the_same_client_may_be_the_same_in_other_words(scene: Scene) -> None:
    scene.ask(LIMITED)
    scene.now += 1
    scene.ask(None, b"other")
    scene.wait(1000)
    assert scene.names == []


def test_requests_of_other_clients_say_nothing_of_it(scene: Scene) -> None:
    scene.ask(LIMITED)
    scene.ask(None, b"other", client=Client(b"d", "x", "openai", "/v1/chat/completions"))
    scene.wait(1000)
    assert scene.names == ["never_came_back"]


def test_truncation_that_nobody_noticed(scene: Scene) -> None:
    scene.ask(TRUNCATED)
    scene.ask(None, b"what follows in the conversation")
    assert scene.names == []
    scene.wait(WINDOW)
    assert scene.names == ["truncation_unnoticed"]


def test_what_would_be_said_if_nobody_came_changes_nothing(scene: Scene) -> None:
    scene.ask(TRUNCATED)
    scene.ask(LIMITED, b"other")
    for _ in range(2):
        assert [one.name for one in scene.book.pending(scene.now)] == [
            Name.TRUNCATION_UNNOTICED,
            Name.NEVER_CAME_BACK,
        ]
    assert scene.names == []
    scene.ask(None)
    assert [one.name for one in scene.book.pending(scene.now)] == [Name.NEVER_CAME_BACK]


# No jitter.


def herd(scene: Scene, waits: Sequence[float], *, testing: bool = False) -> None:
    def ask(number: int) -> None:
        client = replace(CLIENT, id=b"%d" % number, test=f"test-{number}") if testing else CLIENT
        scene.ask(LIMITED, b"%d" % number, peer=f"127.0.0.1:{number}", client=client)

    start = scene.now
    for number in range(len(waits)):
        ask(number)
    for number, wait in sorted(enumerate(waits), key=lambda pair: pair[1]):
        scene.now = start + wait
        ask(number)


def test_tests_that_are_meant_to_fail_at_once_are_no_herd(scene: Scene) -> None:
    herd(scene, [0.5, 0.501, 0.502, 0.5015], testing=True)
    assert scene.names == []


def test_many_that_come_back_at_one_time_draw_no_waits(scene: Scene) -> None:
    herd(scene, [0.5, 0.501, 0.502, 0.5015])
    [verdict] = scene.book.verdicts
    assert verdict.name is Name.NO_JITTER
    assert len(verdict.requests) == 8


@pytest.mark.parametrize(
    "waits", [[0.5, 0.5, 0.5], [0.38, 0.41, 0.44, 0.47, 0.5], [0.0, 0.0, 0.0, 0.0, 0.0]], ids=str
)
def test_few_or_spread_ones_may(scene: Scene, waits: list[float]) -> None:
    herd(scene, waits)
    assert scene.names == []


def test_first_and_second_retries_are_no_herd(scene: Scene) -> None:
    scene.ask(LIMITED, b"a", peer="127.0.0.1:1")
    scene.ask(LIMITED, b"b", peer="127.0.0.1:2")
    scene.now += 1
    for number, mark in enumerate((b"a", b"b", b"c", b"d"), 1):
        scene.ask(LIMITED, mark, peer=f"127.0.0.1:{number}")
    scene.now += 0.5
    for number, mark in enumerate((b"a", b"b", b"c", b"d"), 1):
        scene.ask(None, mark, peer=f"127.0.0.1:{number}")
    assert scene.names == []


def test_told_waits_are_no_herd(scene: Scene) -> None:
    for number in range(8):
        scene.ask(asked_to_wait(1), b"%d" % number)
    scene.now += 1
    for number in range(8):
        scene.ask(None, b"%d" % number)
    assert scene.names == []


def test_client_whose_first_wait_is_always_the_same_draws_none(scene: Scene) -> None:
    for number in range(6):
        assert scene.names == []
        scene.ask(LIMITED, b"%d" % number)
        scene.now += 1.0
        scene.ask(None, b"%d" % number)
        scene.now += 10
    assert scene.names == ["no_jitter"]


# What nobody can say.


def test_two_that_ask_at_once_do_not_try_again(scene: Scene) -> None:
    first, second = scene.begin(), scene.begin(peer="127.0.0.1:2000")
    scene.end(first, asked_to_wait(2))
    scene.end(second, asked_to_wait(2))
    scene.now += 0.1
    scene.ask(asked_to_wait(2))
    scene.wait(1000)
    assert scene.names == []


def test_one_that_was_on_its_way_already_does_not_try_again(scene: Scene) -> None:
    for number in range(8):
        scene.ask(asked_to_wait(2), peer=f"127.0.0.1:{number}")
        scene.now += REACTION / 2
    for number in range(8):
        scene.now += 0.01
        scene.ask(asked_to_wait(2), peer=f"127.0.0.1:{number}")
    scene.wait(1000)
    assert scene.names == []


def test_call_that_an_sdk_begins_anew_on_another_connection_may_be_another_one(scene: Scene) -> None:
    scene.ask(asked_to_wait(2), count=0)
    scene.now += 0.3
    scene.ask(asked_to_wait(2), count=0, peer="127.0.0.1:2000")
    assert scene.names == []


def test_connection_that_was_cut_cannot_be_used_again(scene: Scene) -> None:
    id = scene.begin(count=0)
    scene.book.ended(id, Answered(at=scene.now, over=scene.now, failure=BROKEN, cut=True))
    scene.now += 0.3
    scene.ask(None, count=0, peer="127.0.0.1:2000")
    assert scene.names == ["repeated_begun_answer"]


def test_same_connection_can_only_be_used_one_after_the_other(scene: Scene) -> None:
    scene.ask(asked_to_wait(2))
    scene.ask(asked_to_wait(2))
    assert scene.names == ["retry_after_ignored"]


def test_unclear_row_is_forgotten_once_it_is_quiet(scene: Scene) -> None:
    first, second = scene.begin(), scene.begin(peer="127.0.0.1:2000")
    scene.end(first, LIMITED)
    scene.end(second)
    scene.wait(WINDOW)
    scene.tries(asked_to_wait(2), [0.1])
    assert scene.names == ["retry_after_ignored"]


def test_request_after_the_window_is_a_new_one(scene: Scene) -> None:
    scene.tries(UNPAID, [WINDOW])
    assert scene.names == []


def test_client_that_left_tells_nothing(scene: Scene) -> None:
    scene.end(scene.begin(), UNPAID, clear=False)
    scene.now += 0.1
    scene.ask(asked_to_wait(2))
    scene.wait(WINDOW / 2)
    scene.end(scene.begin(), None, clear=False)
    scene.wait(1000)
    assert scene.names == []


def test_good_answer_ends_the_row(scene: Scene) -> None:
    for _ in range(20):
        scene.ask(LIMITED)
        scene.now += 0.3
        scene.ask(None)
        scene.now += 0.3
    assert [name for name in scene.names if name != "no_jitter"] == []


def test_different_requests_have_nothing_to_do_with_each_other(scene: Scene) -> None:
    for number in range(20):
        scene.ask(asked_to_wait(20), b"%d" % number)
        scene.now += 0.1
    assert scene.names == []


# Any history.

STEPS = st.lists(
    st.tuples(
        st.sampled_from([b"a", b"b", b"c"]),
        st.sampled_from([0.0, 0.001, 0.3, 1.0, 5.0, 200.0]),
        st.sampled_from(["127.0.0.1:1", "127.0.0.1:2"]),
        st.sampled_from([None, 0, 1, 2]),
        st.booleans(),
    ),
    max_size=40,
)
FAILURES = st.sampled_from([None, LIMITED, UNPAID, BROKEN, TRUNCATED, asked_to_wait(2)])


@given(STEPS)
def test_without_a_failure_there_is_never_a_verdict(
    steps: list[tuple[bytes, float, str, int | None, bool]],
) -> None:
    scene = Scene()
    left: list[str] = []
    for mark, wait, peer, number, over in steps:
        scene.wait(wait)
        id = scene.begin(mark, peer=peer, count=number)
        if over:
            scene.end(id)
        else:
            left.append(id)
    for id in left:
        scene.end(id)
    scene.wait(10_000)
    assert scene.new == []


@given(STEPS, st.lists(FAILURES, min_size=40, max_size=40), st.floats(0, 1e6))
def test_any_history_is_judged_the_same_at_any_time_and_by_failures_alone(
    steps: list[tuple[bytes, float, str, int | None, bool]], failures: list[Failure | None], start: float
) -> None:
    told = []
    for beginning in (1000.0, round(start)):
        scene = Scene(start=beginning)
        failed = set()
        for (mark, wait, peer, number, _), failure in zip(steps, failures, strict=False):
            scene.wait(wait)
            id = scene.ask(failure, mark, peer=peer, count=number)
            if failure is not None:
                failed.add(id)
        scene.wait(10_000)
        for verdict in scene.book.verdicts:
            assert failed.intersection(verdict.requests)
            assert list(verdict.times) == sorted(verdict.times)
            assert len(verdict.requests) == len(verdict.times) <= MOST_REQUESTS
        assert scene.book.due == float("inf")
        told.append([(one.name, one.requests, one.seen) for one in scene.book.verdicts])
    assert told[0] == told[1]


@given(st.permutations(range(12)))
def test_order_of_different_requests_that_fail_once_does_not_matter(order: list[int]) -> None:
    scene = Scene()
    for number in order:
        scene.ask(LIMITED, b"%d" % number)
    assert scene.names == []


@given(st.lists(FAILURES, min_size=1, max_size=12))
def test_clocks_that_stand_still_break_nothing(failures: list[Failure | None]) -> None:
    scene = Scene()
    for failure in failures:
        scene.ask(failure)
    assert set(scene.names) <= {name.value for name in Name}


# Bounds.


def test_rows_are_bounded_and_what_is_dropped_is_counted() -> None:
    scene = Scene(most=10)
    for number in range(25):
        scene.ask(LIMITED, b"%d" % number)
    assert scene.book.dropped == 15
    assert len(scene.book.pending(scene.now)) <= 10


def test_requests_under_way_that_are_dropped_may_end() -> None:
    scene = Scene(most=3)
    ids = [scene.begin(b"%d" % number) for number in range(9)]
    assert len(scene.book._open) == 3
    for id in ids:
        scene.end(id, LIMITED)
    assert scene.book.dropped == 6
    assert not scene.book._open


def test_long_row_keeps_its_beginning_and_its_end(scene: Scene) -> None:
    scene.tries(LIMITED, [3.0 + place for place in range(KEPT + 40)])
    [chain] = scene.book._chains.values()
    assert len(chain.tries) == KEPT
    assert chain.tries[0].asked.id == "r1"
    assert chain.retries == KEPT + 40


def test_verdicts_are_bounded_and_what_is_dropped_is_counted() -> None:
    given = Verdicts(most=2)
    for number in range(5):
        verdict = Verdict(
            name=Name.NO_BACKOFF,
            text="",
            client=Client(b"%d" % number, "x", "openai", "/"),
            requests=(),
            times=(),
            at=0.0,
        )
        assert given.give(verdict)
        assert not given.give(verdict)
    assert [one.client.id for one in given] == [b"3", b"4"]
    assert [one.seen for one in given] == [2, 2]
    assert given.dropped == 3


def test_same_finding_of_the_same_client_is_one_verdict_that_was_seen_so_often(scene: Scene) -> None:
    for number in range(4):
        scene.tries(asked_to_wait(2), [0.1], mark=b"%d" % number)
        scene.now += 300
    [verdict] = [one for one in scene.book.verdicts if one.name is Name.RETRY_AFTER_IGNORED]
    assert verdict.seen == 4
    assert verdict.requests == ("r1", "r2")
    assert len(scene.new) == 1


def test_after_clear_nothing_is_remembered(scene: Scene) -> None:
    scene.tries(asked_to_wait(2), [0.1])
    under_way = scene.begin(b"other")
    assert scene.book.clear() == 1
    assert scene.names == []
    scene.end(under_way, LIMITED)
    scene.ask(UNPAID)
    scene.wait(1000)
    assert scene.names == []


def test_every_verdict_has_a_severity_and_a_place_in_the_document() -> None:
    assert set(SEVERITIES) == set(Name)
    text = (Path(__file__).parents[2] / DOCS).read_text()
    assert re.findall(r"(?m)^([a-z_]+)\n-+$", text) == [name.value for name in Name]
