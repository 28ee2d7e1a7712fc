"""What the head of a request decides, and for how long that holds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from llmproxyd.access.allowlist import Allow
from llmproxyd.errors import Refused
from llmproxyd.model import Memo, Request
from llmproxyd.pipeline.plan import no_plan, plan_of
from llmproxyd.pipeline.policy import Fallback, Policy, Upstream
from llmproxyd.pipeline.route import Router, Rule
from llmproxyd.providers.base import Streams
from llmproxyd.providers.registry import registry
from llmproxyd.redaction import Secret
from llmproxyd.resilience.breaker import BreakerPolicy
from llmproxyd.resilience.policy import Resilience
from llmproxyd.resilience.retry import Retry
from llmproxyd.transform.body import Transforms
from llmproxyd.transform.rules import Transform

PROVIDERS = registry()
HOST = (b"Host", b"localhost:8888")


def upstream(name: str, **settings: Any) -> Upstream:
    return Upstream(name=name, provider=PROVIDERS[name], base_url=f"https://{name}.example/base", **settings)


def policy(*rules: Rule, guard: bool = True, **settings: Any) -> Policy:
    """A policy with these settings of upstreams, by name."""
    names = [name for name, one in PROVIDERS.items() if one.base_url is not None]
    places = {name: upstream(name, **settings.get(name, {})) for name in names}
    router = Router(places, PROVIDERS, default="openai", routes=rules)
    return Policy(router=router, max_body=1000, guard_browsers=guard)


def request(line: str, *fields: tuple[bytes, bytes], memo: Memo | None = None) -> Request:
    method, _, target = line.partition(" ")
    return Request(method.encode(), target.encode("latin-1"), [HOST, *fields], memo=memo or Memo())


CHAT = "POST /v1/chat/completions"
KEYED = {"openai": {"keys": (Secret("sk-stored"),)}}
BROWSER = (b"Origin", b"https://evil.example")


# What it holds.


def test_a_plan_says_where_it_goes_and_with_what() -> None:
    plan = plan_of(request(CHAT + "?a=1", (b"X-A", b"1"), (b"Connection", b"x-b"), (b"X-B", b"2")), policy())
    assert plan.refusal is None
    assert plan.route is not None
    assert plan.route.upstream.name == "openai"
    assert plan.dialect is PROVIDERS["openai"]
    assert (plan.method, plan.path) == ("POST", "/v1/chat/completions")
    going = plan.outgoing
    assert going is not None
    assert going.upstream is plan.route.upstream
    assert (going.method, going.url) == (b"POST", b"https://openai.example/base/v1/chat/completions?a=1")
    assert sorted(going.headers.getAllRawHeaders()) == [(b"Host", [b"openai.example"]), (b"X-A", [b"1"])]


def test_a_stored_key_takes_the_place_of_the_clients() -> None:
    plan = plan_of(
        request("POST /to/openai/v1/x", (b"Authorization", b"Bearer sk-client"), (b"X-Api-Key", b"k")),
        policy(**KEYED),
    )
    assert plan.outgoing is not None
    assert plan.outgoing.headers.getRawHeaders(b"authorization") == [b"Bearer sk-stored"]
    assert plan.outgoing.headers.getRawHeaders(b"x-api-key") is None


MODELS = [
    (CHAT, None, None),
    ("GET /v1/models", None, False),
    ("POST /v1beta/models/gemini-pro:generateContent", "gemini-pro", False),
    ("POST /v1beta/models/gemini-pro:streamGenerateContent?alt=sse", "gemini-pro", True),
    ("POST /v1beta/models/gemini-pro:streamGenerateContent?model=x", "gemini-pro", True),
    ("POST /v1/messages", None, None),
    ("POST /nobody/knows/it", None, None),
]


@pytest.mark.parametrize(("line", "model", "streaming"), MODELS)
def test_what_the_path_tells_of_model_and_stream(
    line: str, model: str | None, streaming: bool | None
) -> None:
    plan = plan_of(request(line), policy())
    assert (plan.model, plan.streaming) == (model, streaming)


def test_every_endpoint_that_always_or_never_streams_is_told_by_its_path() -> None:
    found = {
        endpoint.streams
        for provider in PROVIDERS.values()
        for endpoint in provider.endpoints
    }  # fmt: skip
    assert {Streams.ALWAYS, Streams.NEVER} <= found


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("/a?key=AIza-secret", "/a"),
        ("/a?", "/a"),
        ("/a%0d%0a", "/a%0d%0a"),
        ("/\xe9", "/\xe9"),
        ("/a\x1b[2J", "/a\\x1b[2J"),
        ("/a\x9b2J", "/a\\x9b2J"),
        ("/a\u007f", "/a\\x7f"),
    ],
)
def test_a_path_steers_no_terminal_and_holds_no_query(target: str, shown: str) -> None:
    assert plan_of(request(f"GET {target}"), policy()).path == shown


# Refusals.


def test_a_request_that_has_no_way() -> None:
    plan = plan_of(request("POST /to/nowhere/v1/messages"), policy())
    assert plan.refusal is not None
    assert (plan.refusal.status, plan.refusal.code) == (404, "upstream_unknown")
    assert (plan.route, plan.outgoing) == (None, None)
    assert plan.dialect is PROVIDERS["anthropic"]
    assert (plan.method, plan.path) == ("POST", "/to/nowhere/v1/messages")


def test_a_web_page_may_not_spend_a_stored_key() -> None:
    plan = plan_of(request(CHAT, BROWSER), policy(**KEYED))
    assert plan.refusal is not None
    assert (plan.refusal.status, plan.refusal.code) == (403, "origin_not_allowed")
    assert plan.outgoing is None
    assert plan.route is not None
    assert plan.route.upstream.name == "openai"


def test_it_may_use_what_it_has_itself() -> None:
    assert plan_of(request(CHAT, BROWSER), policy()).refusal is None
    assert plan_of(request(CHAT, BROWSER), policy(guard=False, **KEYED)).refusal is None


def test_a_refusal_from_elsewhere() -> None:
    refusal = Refused(431, "headers_too_large", "…")
    plan = no_plan(request("POST /v1/messages", (b"anthropic-version", b"1")), policy(), refusal)
    assert plan.refusal is refusal
    assert plan.dialect is PROVIDERS["anthropic"]
    assert (plan.route, plan.outgoing, plan.model, plan.streaming) == (None, None, None, None)


# For how long it holds.


def test_a_plan_is_made_once_for_requests_with_one_head() -> None:
    memo, rules = Memo(), policy()
    first = plan_of(request(CHAT, memo=memo), rules)
    assert plan_of(request(CHAT, memo=memo), rules) is first
    assert plan_of(request(CHAT), rules) is not first


@pytest.mark.parametrize("line", [CHAT, "POST /to/nowhere"])
def test_another_policy_is_another_plan(line: str) -> None:
    """A reload holds for the next request, also on a connection that is kept."""
    memo, before = Memo(), policy()
    after = policy(Rule(upstream="groq", path_prefix=b"/"))
    first = plan_of(request(line, memo=memo), before)
    second = plan_of(request(line, memo=memo), after)
    assert second is not first
    assert memo.key is after
    assert plan_of(request(line, memo=memo), after) is second
    if line == CHAT:
        assert second.route is not None
        assert second.route.upstream.name == "groq"


def test_an_equal_policy_is_another_one() -> None:
    """What it refers to may be new: the pools of its upstreams are."""
    memo, before = Memo(), policy()
    first = plan_of(request(CHAT, memo=memo), before)
    assert plan_of(request(CHAT, memo=memo), replace(before)) is not first


def test_a_policy_that_begins_to_guard_is_heeded_at_once() -> None:
    """The daemon starts with one that does not, until it knows where it listens."""
    memo = Memo()
    open_one, guarding = policy(guard=False, **KEYED), policy(**KEYED)
    assert plan_of(request(CHAT, BROWSER, memo=memo), open_one).refusal is None
    assert plan_of(request(CHAT, BROWSER, memo=memo), guarding).refusal is not None


def test_a_refusal_is_remembered_without_what_it_passed_through() -> None:
    """A traceback would hold frames, and with them the request, for as long as the connection lasts."""
    memo, rules = Memo(), policy(**KEYED)
    for line, field in (("POST /to/nowhere", HOST), (CHAT, BROWSER)):
        plan = plan_of(request(line, field), rules)
        assert plan.refusal is not None
        assert plan.refusal.__traceback__ is None
    plan_of(request(CHAT, BROWSER, memo=memo), rules)
    again = plan_of(request(CHAT, BROWSER, memo=memo), rules)
    assert again.refusal is plan_of(request(CHAT, BROWSER, memo=memo), rules).refusal


def test_a_fault_of_our_own_is_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    memo, rules = Memo(), policy()

    def fail(*_: object) -> None:
        raise RuntimeError("a fault of our own")

    with monkeypatch.context() as patch:
        patch.setattr("llmproxyd.pipeline.plan.outgoing", fail)
        with pytest.raises(RuntimeError):
            plan_of(request(CHAT, memo=memo), rules)
    assert plan_of(request(CHAT, memo=memo), rules).outgoing is not None


ABSORBING = Resilience(retry=Retry(max_retries=2), breaker=BreakerPolicy(enabled=True))


def test_a_policy_that_absorbs_has_a_short_way_of_its_own() -> None:
    plain = plan_of(request(CHAT), policy())
    assert (plain.straight, plain.absorbed) == (True, False)
    absorbing = plan_of(request(CHAT), policy(openai={"resilience": ABSORBING}))
    assert (absorbing.straight, absorbing.absorbed) == (False, True)


@pytest.mark.parametrize(
    "settings",
    [
        {"allow": Allow(params={"model": ("gpt-4o-mini",)})},
        {"fallbacks": (Fallback(upstream="groq"),)},
        {"resilience": replace(ABSORBING, breaker=BreakerPolicy(enabled=True, key=("upstream", "model")))},
        {"transforms": Transforms((Transform(drop=("user",)),))},
    ],
    ids=["allowlist", "fallbacks", "breaker-by-model", "transform"],
)
def test_what_asks_for_the_body_takes_the_long_way(settings: dict[str, Any]) -> None:
    plan = plan_of(request(CHAT), policy(openai={"resilience": ABSORBING} | settings))
    assert not plan.straight
    assert not plan.absorbed
