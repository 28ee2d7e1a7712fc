"""What answers cost."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxyd.config.gateway import Price as ConfiguredPrice
from llmproxyd.inspection.prices import Prices, cost
from llmproxyd.inspection.usage import UsageReader
from llmproxyd.providers import anthropic, google, openai
from llmproxyd.providers.base import Usage, encode


@dataclass(frozen=True)
class Price:
    input: float = 0.0
    output: float = 0.0
    cached: float | None = None


DEAR, CHEAP = Price(10, 30, 1), Price(1, 2)
TABLE = Prices({"gpt-4o-mini*": CHEAP, "gpt-4o*": DEAR, "claude-[ab]": DEAR, "exact": CHEAP})


@pytest.mark.parametrize(
    ("model", "price"),
    [
        ("gpt-4o-mini", CHEAP),
        ("gpt-4o-mini-2024-07-18", CHEAP),
        ("gpt-4o", DEAR),
        ("gpt-4o-2024-08-06", DEAR),
        ("claude-a", DEAR),
        ("claude-c", None),
        ("exact", CHEAP),
        ("EXACT", None),
        ("exactly", None),
        ("", None),
    ],
)
def test_first_glob_that_matches_counts(model: str, price: Price | None) -> None:
    for _ in range(2):
        assert TABLE.price_of(model) is price


def test_model_that_answered_decides_else_the_one_that_was_asked() -> None:
    tokens = {"input": 1_000_000}
    assert TABLE.cost("gpt-4o-2024-08-06", "exact", tokens) == 10
    assert TABLE.cost("served-by-someone", "exact", tokens) == 1
    assert TABLE.cost(None, "exact", tokens) == 1
    assert TABLE.cost("exact", None, tokens) == 1
    assert TABLE.cost(None, None, tokens) is None
    assert TABLE.cost("unknown", "unknown", tokens) is None


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ({"input": 1000, "output": 100}, 0.013),
        ({"input": 1000, "output": 100, "cached": 900}, 0.0049),
        ({"input": 1000, "cached": 1000}, 0.001),
        ({"output": 100, "reasoning": 90}, 0.003),
        ({"input": 10, "cached": 1000}, 0.00001),
        ({"input": 0, "output": 0}, 0.0),
        ({"total": 1000}, None),
        ({}, None),
        ({"input": -1}, None),
        ({"input": 10**13}, None),
    ],
)
def test_cost_of_tokens(tokens: dict[str, int], expected: float | None) -> None:
    assert cost(DEAR, tokens) == (None if expected is None else pytest.approx(expected))


def test_cached_tokens_cost_as_any_others_where_they_have_no_price() -> None:
    assert cost(CHEAP, {"input": 1000, "cached": 900}) == pytest.approx(0.001)
    assert cost(Price(1, 1, 0.0), {"input": 1000, "cached": 900}) == pytest.approx(0.0001)


@pytest.mark.parametrize(
    ("usage", "body"),
    [
        (openai.CHAT_USAGE, {"usage": {"prompt_tokens": 1000, "completion_tokens": 100, "prompt_tokens_details": {"cached_tokens": 900}}}),
        (anthropic.USAGE, {"usage": {"input_tokens": 60, "output_tokens": 100, "cache_read_input_tokens": 900, "cache_creation_input_tokens": 40}}),
        (google.USAGE, {"usageMetadata": {"promptTokenCount": 1000, "cachedContentTokenCount": 900, "candidatesTokenCount": 40, "thoughtsTokenCount": 60}}),
    ],
)  # fmt: skip
def test_same_work_costs_the_same_however_a_provider_counts_it(usage: Usage, body: object) -> None:
    reader = UsageReader(usage, None, b"")
    reader.feed(encode(body))
    assert cost(DEAR, reader.reading(True).tokens) == pytest.approx(0.0049)


def test_configured_prices_are_prices() -> None:
    assert Prices({"*": ConfiguredPrice(input=1.0)}).cost(None, "m", {"input": 1_000_000}) == 1


def test_nothing_costs_anything_without_a_table() -> None:
    assert Prices({}).cost("m", "m", {"input": 1}) is None
    assert Prices({}).price_of("m") is None


def test_what_is_remembered_of_models_is_bounded() -> None:
    table = Prices({"m-*": CHEAP})
    for number in range(3000):
        assert table.price_of(f"m-{number}") is CHEAP
    assert table._of.cache_info().currsize <= 1024


@given(st.text(), st.text())
def test_any_glob_and_any_name(glob: str, model: str) -> None:
    Prices({glob: CHEAP}).price_of(model)
