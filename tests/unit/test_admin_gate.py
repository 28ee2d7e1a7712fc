"""Addresses that present wrong tokens are held back, in bounded memory."""

from __future__ import annotations

from llmproxyd.admin.gate import ADDRESSES, BURST, REFILL, _Failures


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_address_waits_after_a_burst_and_may_try_again_in_time() -> None:
    clock = Clock()
    failures = _Failures(clock)
    for _ in range(BURST):
        assert failures.wait("10.0.0.1") == 0
        failures.count("10.0.0.1")
    assert failures.wait("10.0.0.1") == REFILL
    assert failures.wait("10.0.0.2") == 0
    clock.now += REFILL
    assert failures.wait("10.0.0.1") == 0
    failures.count("10.0.0.1")
    assert failures.wait("10.0.0.1") == REFILL
    clock.now += BURST * REFILL
    for _ in range(BURST - 1):
        failures.count("10.0.0.1")
        assert failures.wait("10.0.0.1") == 0


def test_network_of_ipv6_is_one_address() -> None:
    failures = _Failures(Clock())
    for number in range(BURST):
        failures.count(f"2001:db8::{number:x}")
    assert failures.wait("2001:db8::ffff") > 0
    assert failures.wait("2001:db8:0:1::1") == 0


def test_memory_is_bounded() -> None:
    failures = _Failures(Clock())
    for number in range(3 * ADDRESSES):
        failures.count(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert len(failures._full) == ADDRESSES
