"""How late the event loop was."""

from __future__ import annotations

from twisted.internet.task import Clock

from llmproxyd.observe.lag import Lag


def test_loop_in_time_has_no_lag() -> None:
    clock = Clock()
    lag = Lag(clock)
    lag.start()
    clock.pump([0.5] * 20)
    assert lag.worst == 0
    lag.stop()


def test_worst_delay_is_told_and_forgotten_after_the_window() -> None:
    clock = Clock()
    lag = Lag(clock, interval=0.5, window=5)
    lag.start()
    clock.advance(0.5)
    clock.advance(0.7)
    assert abs(lag.worst - 0.2) < 1e-9
    clock.advance(0.3)
    clock.pump([0.5] * 8)
    assert abs(lag.worst - 0.2) < 1e-9
    clock.pump([0.5] * 4)
    assert lag.worst == 0
    lag.stop()


def test_delay_longer_than_several_looks_is_told_whole() -> None:
    clock = Clock()
    lag = Lag(clock, interval=0.5)
    lag.start()
    clock.advance(3.6)
    assert abs(lag.worst - 3.1) < 1e-9
    clock.advance(0.4)
    clock.pump([0.5] * 10)
    assert abs(lag.worst - 3.1) < 1e-9
    lag.stop()


def test_stopped_it_leaves_no_timer() -> None:
    clock = Clock()
    lag = Lag(clock)
    lag.stop()
    lag.start()
    lag.stop()
    lag.stop()
    assert clock.getDelayedCalls() == []


def test_delay_after_a_delay_is_measured_from_when_it_was_due() -> None:
    clock = Clock()
    lag = Lag(clock, interval=0.5)
    lag.start()
    clock.advance(0.7)
    clock.advance(0.6)
    assert abs(lag.worst - 0.3) < 1e-9
    lag.stop()
