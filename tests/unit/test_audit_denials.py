"""Refused authentications are gathered: many tries by one address are one line."""

from __future__ import annotations

from llmproxyd.model import Denied
from llmproxyd.observe.denials import NAMED, PREFIX, SHOWN, TRACKED, Denials


def denied(address: str = "192.0.2.1", code: str = "token_not_found", shown: str | None = None) -> Denied:
    return Denied(address=address, code=code, shown=shown)


def test_many_tries_by_one_address_are_one_line() -> None:
    gathered = Denials()
    assert gathered.add(denied(shown="sk-Ab3x"), 1000.0)
    assert not gathered.add(denied(code="token_expired", shown="sk-Ab3x"), 1001.0)
    assert not gathered.add(denied(), 1002.0)
    assert gathered.taken() == [
        {
            "address": "192.0.2.1",
            "since": "1970-01-01T00:16:40.000Z",
            "count": 3,
            "codes": {"token_not_found": 2, "token_expired": 1},
            "shown": ["sk-Ab3x"],
        }
    ]
    assert gathered.taken() == []
    assert gathered.add(denied(), 2000.0)


def test_beginnings_of_tokens_are_few_and_short() -> None:
    gathered = Denials()
    for number in range(100):
        gathered.add(denied(shown=f"sk-{number:04}" + "x" * 100), 0.0)
    (line,) = gathered.taken()
    assert len(line["shown"]) == SHOWN
    assert {len(one) for one in line["shown"]} == {PREFIX}


def test_busiest_addresses_have_a_line_and_all_others_one_together() -> None:
    gathered = Denials()
    for number in range(100):
        for _ in range(number + 1):
            gathered.add(denied(f"192.0.2.{number}"), 0.0)
    lines = gathered.taken()
    assert [line["address"] for line in lines] == [*(f"192.0.2.{99 - one}" for one in range(NAMED)), "others"]
    assert lines[-1]["addresses"] == 100 - NAMED
    assert sum(line["count"] for line in lines) == 5050


def test_flood_from_everywhere_is_bounded_and_counted_whole() -> None:
    gathered = Denials()
    for number in range(50_000):
        gathered.add(denied(f"2001:db8::{number:x}"), 0.0)
    assert len(gathered._by_address) == TRACKED
    lines = gathered.taken()
    assert len(lines) == NAMED + 1
    assert sum(line["count"] for line in lines) == 50_000
    assert sum(line["codes"]["token_not_found"] for line in lines) == 50_000
