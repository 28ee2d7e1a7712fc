"""Deadlines: never early, at most a tick late, and nothing left when none is set."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.logger import LogLevel, globalLogPublisher

from llmproxyd.wire.wheel import Timer, Wheel

TICK = 0.1


class Rig:
    """A clock, a wheel, and when each deadline was noticed."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.wheel = Wheel(self.clock, TICK)
        self.noticed: dict[str, float] = {}

    def start(self, name: str, seconds: float) -> Timer:
        return self.wheel.start(seconds, lambda: self.noticed.__setitem__(name, self.clock.seconds()))

    def pass_by(self, seconds: float, step: float = 0.01) -> None:
        self.clock.pump([step] * round(seconds / step))


@pytest.fixture
def rig() -> Rig:
    return Rig()


@pytest.mark.parametrize("seconds", [0.0, 0.01, 0.1, 0.15, 1.0, 7.3])
def test_a_deadline_is_noticed_up_to_a_tick_late(rig: Rig, seconds: float) -> None:
    rig.start("a", seconds)
    rig.pass_by(seconds + 3 * TICK)
    assert seconds <= rig.noticed["a"] <= seconds + 2 * TICK


@given(st.lists(st.floats(0, 3), max_size=20), st.floats(0.001, 0.7), st.floats(0, 1e6))
def test_never_early_and_never_forgotten(waits: list[float], step: float, begin: float) -> None:
    rig = Rig()
    rig.clock.advance(begin)
    for number, seconds in enumerate(waits):
        rig.start(str(number), seconds)
    rig.pass_by(3 + 2 * TICK + 2 * step, step)
    assert len(rig.noticed) == len(waits)
    for number, seconds in enumerate(waits):
        late = rig.noticed[str(number)] - begin - seconds
        assert -1e-6 <= late <= 2 * TICK + step + 1e-6
    assert rig.wheel.waiting == 0
    assert not rig.clock.getDelayedCalls()


def test_once(rig: Rig) -> None:
    count: list[int] = []
    timer = rig.wheel.start(0.2, lambda: count.append(1))
    assert timer.active
    rig.pass_by(3)
    assert count == [1]
    assert not timer.active


def test_a_cancelled_one_does_not_come(rig: Rig) -> None:
    timer = rig.start("a", 0.2)
    timer.cancel()
    timer.cancel()
    rig.pass_by(1)
    assert not rig.noticed
    assert rig.wheel.waiting == 0


def test_moved_on(rig: Rig) -> None:
    timer = rig.start("a", 0.5)
    for _ in range(10):
        rig.pass_by(0.4)
        timer.restart(0.5)
    assert not rig.noticed
    rig.pass_by(1)
    assert 4.5 <= rig.noticed["a"] <= 4.5 + 2 * TICK


def test_shortened(rig: Rig) -> None:
    timer = rig.start("a", 60)
    rig.pass_by(1)
    timer.restart(0.5)
    rig.pass_by(1)
    assert 1.5 <= rig.noticed["a"] <= 1.5 + 2 * TICK
    assert rig.wheel.waiting == 0


def test_no_restart_after_the_end(rig: Rig) -> None:
    over, cancelled = rig.start("over", 0.1), rig.start("cancelled", 0.1)
    cancelled.cancel()
    rig.pass_by(0.5)
    rig.noticed.clear()
    over.restart(0.1)
    cancelled.restart(0.1)
    rig.pass_by(1)
    assert not rig.noticed
    assert rig.wheel.waiting == 0


def test_the_clock_rests_when_nothing_is_set(rig: Rig) -> None:
    timer = rig.start("a", 0.3)
    assert len(rig.clock.getDelayedCalls()) == 1
    timer.cancel()
    rig.pass_by(0.3)
    assert not rig.clock.getDelayedCalls()
    rig.pass_by(100, 10)
    rig.start("b", 0.3)
    rig.pass_by(1)
    assert "b" in rig.noticed
    assert not rig.clock.getDelayedCalls()


def test_one_call_of_the_clock_for_all(rig: Rig) -> None:
    for number in range(1000):
        rig.start(str(number), number / 100)
    assert len(rig.clock.getDelayedCalls()) == 1


def test_a_long_pause_of_the_process(rig: Rig) -> None:
    """Everything that was due meanwhile comes at once, in its order."""
    for name, seconds in (("c", 0.9), ("a", 0.1), ("b", 0.5), ("later", 100.0)):
        rig.start(name, seconds)
    rig.clock.advance(50)
    assert list(rig.noticed) == ["a", "b", "c"]
    rig.clock.advance(51)
    assert "later" in rig.noticed


def test_what_a_deadline_does_may_set_others(rig: Rig) -> None:
    again: list[float] = []

    def expired() -> None:
        again.append(rig.clock.seconds())
        if len(again) < 5:
            rig.wheel.start(0, expired)

    rig.wheel.start(0, expired)
    rig.pass_by(3)
    assert len(again) == 5
    assert not rig.clock.getDelayedCalls()


def test_what_a_deadline_does_may_cancel_others(rig: Rig) -> None:
    """Of the same tick too."""
    timers: list[Timer] = []
    ran: list[int] = []

    def expired(number: int) -> None:
        ran.append(number)
        timers[1 - number].cancel()

    timers += [rig.wheel.start(0.2, lambda: expired(0)), rig.wheel.start(0.2, lambda: expired(1))]
    rig.pass_by(1)
    assert ran == [0]


def test_what_a_deadline_does_may_move_others(rig: Rig) -> None:
    """Of the same tick too: one that is due, but was moved just now, comes later."""
    second: list[Timer] = []
    rig.wheel.start(0.2, lambda: second[0].restart(0.5))
    second.append(rig.start("b", 0.2))
    rig.pass_by(2)
    assert 0.7 <= rig.noticed["b"] <= 0.7 + 4 * TICK


def test_one_that_fails_does_not_stop_the_others(rig: Rig) -> None:
    events: list[Any] = []
    globalLogPublisher.addObserver(events.append)
    try:
        rig.wheel.start(0.2, lambda: [][0])
        rig.start("b", 0.2)
        rig.start("c", 0.5)
        rig.pass_by(1)
    finally:
        globalLogPublisher.removeObserver(events.append)
    assert {"b", "c"} <= set(rig.noticed)
    assert [event["log_level"] for event in events] == [LogLevel.critical]


def test_stopped(rig: Rig) -> None:
    rig.start("a", 0.2)
    rig.wheel.stop()
    rig.wheel.stop()
    assert not rig.clock.getDelayedCalls()
    rig.pass_by(1)
    assert not rig.noticed


def test_used_again_after_a_stop(rig: Rig) -> None:
    left = rig.start("a", 0.2)
    rig.wheel.stop()
    rig.start("b", 0.2)
    left.cancel()
    rig.pass_by(1)
    assert set(rig.noticed) == {"b"}


def test_a_turn_that_takes_long_passes_no_deadline_over() -> None:
    """What is set while a turn runs on must not hide what came due meanwhile."""
    clock, told = Clock(), []
    wheel = Wheel(clock)

    def slow() -> None:
        clock.rightNow += 0.1
        wheel.start(5.0, lambda: None)

    wheel.start(0.05, slow)
    wheel.start(0.15, lambda: told.append(1))
    for _ in range(10):
        clock.advance(0.1)
    assert told == [1]
