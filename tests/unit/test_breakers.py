"""All breakers: which request has which, how many are kept, and what a reload does to them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxyd.model import BreakerChanged
from llmproxyd.resilience.breaker import Breaker, BreakerPolicy, Permit
from llmproxyd.resilience.breakers import LONGEST_MODEL, Breakers

POLICY = BreakerPolicy(enabled=True, failure_threshold=1)
BY_MODEL = replace(POLICY, key=("upstream", "model"))
OFF = replace(POLICY, enabled=False)


class Rig:
    """Breakers, and what they have told."""

    def __init__(self, limit: int = 1000) -> None:
        self.told: list[BreakerChanged] = []
        self.breakers = Breakers(self.told.append, limit)

    @property
    def names(self) -> list[str]:
        return [breaker.name for breaker in self.breakers]

    def use(self, *names: str) -> None:
        for name in names:
            self.breakers.of(POLICY, name, None)

    def open(self, *names: str) -> None:
        for name in names:
            self.breakers.of(POLICY, name, None).trip(0.0)


@pytest.mark.parametrize(
    ("key", "model", "name"),
    [
        (("upstream",), None, "openai"),
        (("upstream",), "gpt-5", "openai"),
        (("upstream", "model"), "gpt-5", "openai/gpt-5"),
        (("model",), "gpt-5", "openai/gpt-5"),
        (("upstream", "model"), "meta-llama/Llama-4", "openai/meta-llama/Llama-4"),
        (("upstream", "model"), None, "openai"),
        (("upstream", "model"), "", "openai"),
        (("model", "upstream"), "gpt-5", "openai/gpt-5"),
    ],
)
def test_breaker_is_that_of_the_key(key: tuple[str, ...], model: str | None, name: str) -> None:
    rig = Rig()
    breaker = rig.breakers.of(replace(POLICY, key=key), "openai", model)  # type: ignore[arg-type]
    assert breaker.name == name
    assert rig.breakers.find(name) is breaker
    assert rig.breakers.of(replace(POLICY, key=key), "openai", model) is breaker  # type: ignore[arg-type]


def test_one_upstream_or_model_that_fails_leaves_others_alone() -> None:
    rig = Rig()
    permit = rig.breakers.of(BY_MODEL, "openai", "gpt-5").admit(0.0)
    assert isinstance(permit, Permit)
    permit.failed(0.0)
    assert rig.told[0].name == "openai/gpt-5"
    assert rig.breakers.of(BY_MODEL, "openai", "gpt-5").state == "open"
    assert rig.breakers.of(BY_MODEL, "openai", "gpt-4").state == "closed"
    assert rig.breakers.of(BY_MODEL, "openai", None).state == "closed"
    assert rig.breakers.of(BY_MODEL, "azure", "gpt-5").state == "closed"


def test_nothing_is_found_that_was_not_used() -> None:
    rig = Rig()
    assert rig.breakers.find("openai") is None
    assert not len(rig.breakers)


def test_people_see_them_by_name() -> None:
    rig = Rig()
    rig.use("c", "a", "b")
    assert rig.names == ["a", "b", "c"]
    assert len(rig.breakers) == 3


def test_who_looks_at_them_may_use_them() -> None:
    rig = Rig()
    rig.use("a", "b")
    for breaker in rig.breakers:
        rig.use(breaker.name, breaker.name + "x")
    assert rig.names == ["a", "ax", "b", "bx"]


# How many are kept.


def test_least_recently_used_is_forgotten() -> None:
    rig = Rig(3)
    rig.use("a", "b", "c", "a", "d")
    assert rig.names == ["a", "c", "d"]


def test_to_look_is_not_to_use() -> None:
    rig = Rig(2)
    rig.use("a", "b")
    rig.breakers.find("a")
    list(rig.breakers)
    rig.use("c")
    assert rig.names == ["b", "c"]


def test_an_open_one_is_forgotten_last() -> None:
    rig = Rig(3)
    rig.open("a")
    rig.use("b", "c", "d", "e")
    assert rig.names == ["a", "d", "e"]


def test_where_all_are_open_the_oldest_is_forgotten_and_said_to_be_closed() -> None:
    rig = Rig(2)
    rig.open("a", "b", "c")
    assert rig.names == ["b", "c"]
    (closed,) = (event for event in rig.told if event.after == "closed")
    assert (closed.name, closed.before) == ("a", "open")
    assert closed.cause == "forgotten: more than 2 are in use"


def test_a_new_one_is_kept_where_all_others_are_open() -> None:
    rig = Rig(2)
    rig.open("a", "b")
    rig.use("c")
    assert rig.breakers.find("c") is not None


def test_what_is_under_way_for_a_forgotten_one_counts_no_more() -> None:
    rig = Rig(1)
    permit = rig.breakers.of(POLICY, "a", None).admit(0.0)
    assert isinstance(permit, Permit)
    rig.use("b", "a")
    permit.failed(0.0)
    assert not rig.told


def test_a_thousand_are_kept_by_default() -> None:
    rig = Rig()
    for number in range(1200):
        rig.breakers.of(BY_MODEL, "openai", f"made-up-{number}")
    assert len(rig.breakers) == 1000
    assert rig.breakers.find("openai/made-up-199") is None
    assert rig.breakers.find("openai/made-up-200") is not None


@given(st.text(max_size=3 * LONGEST_MODEL))
def test_a_name_is_short_and_on_one_line_whatever_a_client_calls_a_model(model: str) -> None:
    name = Rig().breakers.of(BY_MODEL, "openai", model).name
    assert name.isprintable()
    assert len(name) <= len("openai/") + 10 * LONGEST_MODEL
    name.encode()


def test_a_long_name_of_a_model_is_cut() -> None:
    name = Rig().breakers.of(BY_MODEL, "openai", "x" * 1_000_000).name
    assert name == "openai/" + "x" * LONGEST_MODEL


@given(
    st.integers(1, 4),
    st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from(["use", "trip", "reset"])), max_size=40),
)
def test_limit_holds_and_no_closed_one_is_kept_for_an_open_one(
    limit: int, steps: list[tuple[str, str]]
) -> None:
    rig = Rig(limit)
    kept: dict[str, bool] = {}  # by use, with whether it is open
    for name, what in steps:
        breaker = rig.breakers.of(POLICY, name, None)
        if name not in kept and len(kept) == limit:
            closed = [one for one, is_open in kept.items() if not is_open]
            del kept[(closed or list(kept))[0]]
        kept[name] = kept.pop(name, False)
        if what == "trip":
            breaker.trip(0.0)
            kept[name] = True
        elif what == "reset":
            breaker.reset(0.0)
            kept[name] = False
        assert {one.name: one.state == "open" for one in rig.breakers} == kept


# Reload.


def test_another_policy_is_gone_by_and_the_state_stays() -> None:
    rig = Rig()
    rig.open("openai")
    other = replace(POLICY, failure_threshold=7)
    breaker = rig.breakers.of(other, "openai", None)
    assert breaker.state == "open"
    assert breaker.policy == other
    assert len(rig.told) == 1


def test_reload_reaches_breakers_that_nobody_asks_for() -> None:
    rig = Rig()
    rig.open("openai")
    other = replace(POLICY, failure_threshold=7)
    rig.breakers.reload({"openai": other})
    breaker = rig.breakers.find("openai")
    assert breaker is not None
    assert (breaker.policy, breaker.state) == (other, "open")


@pytest.mark.parametrize("policies", [{}, {"openai": OFF}, {"azure": POLICY}])
def test_reload_that_switches_one_off_closes_and_forgets_it(policies: dict[str, BreakerPolicy]) -> None:
    rig = Rig()
    rig.open("openai")
    rig.breakers.reload(policies)
    assert rig.breakers.find("openai") is None
    assert rig.told[-1] == BreakerChanged(
        name="openai", before="open", after="closed", cause="the new configuration has no such breaker"
    )


def test_reload_tells_nothing_of_a_closed_one_that_goes() -> None:
    rig = Rig()
    rig.use("openai")
    rig.breakers.reload({})
    assert not rig.told


def test_reload_that_counts_models_together_forgets_those_of_models() -> None:
    rig = Rig()
    rig.breakers.of(BY_MODEL, "openai", "gpt-5")
    rig.breakers.of(BY_MODEL, "openai", None)
    rig.breakers.of(BY_MODEL, "azure", "org/gpt-5")
    rig.breakers.reload({"openai": POLICY, "azure": BY_MODEL})
    assert rig.names == ["azure/org/gpt-5", "openai"]


def test_who_is_told_may_ask_for_breakers() -> None:
    made: list[Breaker] = []

    def use(event: BreakerChanged) -> None:
        made.append(breakers.of(POLICY, event.name, None))

    breakers = Breakers(use, 2)
    for name in "abcd":
        breakers.of(POLICY, name, None).trip(0.0)
    breakers.reload({})
    assert made
