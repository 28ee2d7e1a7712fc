"""What an answer is taken for: the operator's rules, and the providers' own signs of the hopeless."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxyd.providers.base import ErrorContext, ErrorKind
from llmproxyd.providers.registry import built_in
from llmproxyd.resilience.verdict import (
    HardStop,
    Recategorize,
    Verdicts,
    denied,
    hopeless,
    in_flight,
)

PROVIDERS = {provider.name: provider for provider in built_in()}

OVERLOADED = Recategorize("the model is overloaded", 429, original_status=200)
ANY = Recategorize(r"model is \w+", 503)
STOP = HardStop("policy violation", "Say it in another way.")


def test_the_first_rule_that_matches_holds() -> None:
    assert Verdicts([OVERLOADED, ANY]).recategorized(200, "The model is overloaded.") is OVERLOADED
    assert Verdicts([ANY, OVERLOADED]).recategorized(200, "The model is overloaded.") is ANY
    later = HardStop("violation", "x")
    assert Verdicts((), [STOP, later]).stopped(400, "A policy violation") is STOP
    assert Verdicts((), [later, STOP]).stopped(400, "A policy violation") is later


def test_upper_and_lower_case_are_alike() -> None:
    assert Verdicts([OVERLOADED]).recategorized(200, "THE MODEL IS OVERLOADED") is OVERLOADED
    assert Verdicts((), [STOP]).stopped(400, "POLICY Violation") is STOP


def test_a_rule_for_one_status_leaves_others_alone() -> None:
    verdicts = Verdicts([OVERLOADED, ANY])
    assert verdicts.recategorized(500, "The model is overloaded.") is ANY
    assert Verdicts([OVERLOADED]).recategorized(500, "The model is overloaded.") is None


def test_what_no_rule_matches_is_what_it_is() -> None:
    verdicts = Verdicts([OVERLOADED], [STOP])
    assert verdicts.recategorized(200, '{"choices": []}') is None
    assert verdicts.stopped(400, "") is None


@pytest.mark.parametrize(
    ("verdicts", "any_rule"),
    [
        (Verdicts(), False),
        (Verdicts([ANY]), True),
        (Verdicts((), [STOP]), True),
        (Verdicts([ANY], [STOP]), True),
    ],
)
def test_it_is_false_without_rules(verdicts: Verdicts, any_rule: bool) -> None:
    assert bool(verdicts) is any_rule


@pytest.mark.parametrize(
    ("rule", "key", "said"),
    [
        (Recategorize("a(b", 429), "pattern", "unterminated subpattern at character 2"),
        (HardStop("[z-a]", "x"), "pattern", "bad character range z-a at character 2"),
        (HardStop("", "x"), "pattern", "empty text"),
        (HardStop("a{99999999999999999999}", "x"), "pattern", "too large"),
        (Recategorize("a", 200), "new_status", "found 200"),
        (Recategorize("a", 600), "new_status", "found 600"),
        (Recategorize("a", 429, original_status=99), "original_status", "found 99"),
    ],
)
def test_impossible_rules_are_told(rule: Recategorize | HardStop, key: str, said: str) -> None:
    ((where, message),) = rule.problems()
    assert where == key
    assert said in message


@pytest.mark.parametrize("rule", [OVERLOADED, ANY, STOP])
def test_possible_rules_are_not_complained_of(rule: Recategorize | HardStop) -> None:
    assert list(rule.problems()) == []


@given(st.text(max_size=12))
def test_every_pattern_is_either_told_or_compiles(pattern: str) -> None:
    if not list(HardStop(pattern, "x").problems()):
        Verdicts([Recategorize(pattern, 429)], [HardStop(pattern, "x")])


# The providers' signs.


def body_of(provider: str, kind: ErrorKind, operation: str = "chat") -> tuple[int, Any]:
    """Status and JSON value of an error, as that provider's catalogue has it."""
    made = PROVIDERS[provider]
    spec = made.spec(kind, operation)
    context = ErrorContext(
        kind=kind, operation=operation, model="model-x", request_id="r-1", wall=1795000000.0
    )
    reply = made.error(spec, context)
    return reply.status, json.loads(reply.body) if spec.html is None else None


@pytest.mark.parametrize("provider", sorted(PROVIDERS))
def test_every_providers_context_length_error_is_hopeless(provider: str) -> None:
    status, body = body_of(provider, ErrorKind.CONTEXT_LENGTH)
    assert hopeless(None, body) is not None or status not in (200, 429, 503)


@pytest.mark.parametrize("provider", sorted(PROVIDERS))
@pytest.mark.parametrize("kind", [ErrorKind.RATE_LIMIT, ErrorKind.SERVER_ERROR, ErrorKind.OVERLOADED])
def test_no_providers_passing_trouble_is_hopeless(provider: str, kind: ErrorKind) -> None:
    status, body = body_of(provider, kind)
    assert hopeless(None, body) is None
    assert not denied(status, None, body)


@pytest.mark.parametrize("provider", sorted(PROVIDERS))
def test_no_providers_authentication_error_is_worth_another_attempt(provider: str) -> None:
    status, body = body_of(provider, ErrorKind.AUTHENTICATION)
    assert denied(status, None, body)


LONG = "This model's maximum context length is 8 tokens. However, your messages resulted in 9 tokens."
HOPELESS: list[tuple[str | None, object, str]] = [
    ("insufficient_quota", None, "insufficient_quota"),
    ("INSUFFICIENT_QUOTA", None, "insufficient_quota"),
    (None, {"error": {"type": "insufficient_quota", "code": None}}, "insufficient_quota"),
    (None, {"error": {"code": "credit_balance_exhausted"}}, "credit_balance_exhausted"),
    (
        "rate_limit_error",
        {
            "type": "error",
            "error": {"type": "rate_limit_error", "details": {"error_code": "enforced_spend_limit_reached"}},
        },
        "enforced_spend_limit_reached",
    ),
    ("context_length_exceeded", None, "context_length_exceeded"),
    (None, {"error_code": "REQUEST_TOO_LARGE"}, "request_too_large"),
    (None, [{"error": {"code": "context_length_exceeded"}}], "context_length_exceeded"),
    (None, {"error": {"message": LONG}}, "too long"),
    (None, {"error": LONG}, "too long"),
    (None, {"message": "Input is too long for requested model."}, "too long"),
    (
        None,
        {"message": "too many tokens: total number of tokens in the prompt cannot exceed 4081"},
        "too long",
    ),
    (
        None,
        {
            "error": {
                "message": "Provider returned error",
                "metadata": {"raw": '{"message": "prompt is too long"}'},
            }
        },
        "too long",
    ),
    (
        "rate_limit_exceeded",
        {
            "error": {
                "message": "Request too large for gpt-x on tokens per min (TPM): Limit 300, Requested 301.",
                "code": "rate_limit_exceeded",
            }
        },
        "too long",
    ),
    (None, {"error": {"message": "Your credit balance is too low to access the API."}}, "balance"),
    (
        None,
        {
            "error": {
                "message": "You exceeded your current quota, please check your plan.",
                "status": "RESOURCE_EXHAUSTED",
            }
        },
        "quota",
    ),
    (None, {"error": {"details": [{"@type": "type.googleapis.com/google.rpc.QuotaFailure"}]}}, "quota"),
]


@pytest.mark.parametrize(("code", "body", "cause"), HOPELESS)
def test_signs_that_no_attempt_would_succeed(code: str | None, body: object, cause: str) -> None:
    assert cause in (hopeless(code, body) or "")


RETRY_INFO = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "26s"}
HOPEFUL: list[tuple[str | None, object]] = [
    (None, None),
    (
        "rate_limit_exceeded",
        {"error": {"message": "Rate limit reached for gpt-x on tokens per min (TPM): Limit 3, Used 3"}},
    ),
    (
        None,
        {
            "error": {
                "message": "Number of request tokens has exceeded your per-minute rate limit. Please reduce the prompt length"
            }
        },
    ),
    (None, {"message": "Too many tokens, please wait before trying again."}),
    (
        None,
        {
            "error": {
                "message": "Resource has been exhausted (e.g. check quota).",
                "status": "RESOURCE_EXHAUSTED",
            }
        },
    ),
    (
        None,
        {
            "error": {
                "message": "You exceeded your current quota, please check your plan.",
                "details": [{"@type": "x/google.rpc.QuotaFailure"}, RETRY_INFO],
            }
        },
    ),
    # Somebody else's account, behind OpenRouter: it may ask another one next time.
    (
        None,
        {
            "error": {
                "message": "Provider returned error",
                "metadata": {"raw": '{"code": "insufficient_quota"}'},
            }
        },
    ),
    (None, {"error": {"message": "x" * 20000 + "prompt is too long"}}),
]


@pytest.mark.parametrize(("code", "body"), HOPEFUL)
def test_signs_that_speak_of_something_else(code: str | None, body: object) -> None:
    assert hopeless(code, body) is None


def test_openrouters_402_for_requests_under_way_is_told_from_an_empty_account() -> None:
    assert in_flight({"error": {"metadata": {"limit_source": "openrouter_in_flight_budget"}}})
    assert not in_flight({"error": {"metadata": {"limit_source": "openrouter_credits"}}})
    assert not in_flight({"error": {"metadata": []}})
    assert not in_flight(None)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["error", "details", "metadata", "message", "raw", "code", "@type", "reason"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.none() | st.text(max_size=70), JSON)
def test_no_body_makes_it_raise(code: str | None, body: object) -> None:
    hopeless(code, body)
    denied(500, code, body)
    in_flight(body)
