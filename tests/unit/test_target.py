"""Where one request may go, and what each upstream is sent."""

from __future__ import annotations

import json
from types import MappingProxyType
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxyd.http.body import NO_BODY, Kept
from llmproxyd.model import Request
from llmproxyd.pipeline.exchange import Exchange
from llmproxyd.pipeline.plan import plan_of
from llmproxyd.pipeline.policy import Fallback, Policy, Upstream
from llmproxyd.pipeline.roles import Responder
from llmproxyd.pipeline.route import Router
from llmproxyd.pipeline.target import Fallbacks, own_target
from llmproxyd.providers.registry import registry
from llmproxyd.redaction import Secret
from llmproxyd.wire.body import KeptBytes

PROVIDERS = registry()
CHAT = b"/v1/chat/completions"


def exchange_for(
    upstreams: dict[str, Upstream],
    name: str,
    target: bytes = CHAT,
    *fields: tuple[bytes, bytes],
    model: str | None = None,
    body: Any = NO_BODY,
) -> Exchange:
    router = Router(upstreams, PROVIDERS, default=name, single=name)
    policy = Policy(router=router, max_body=10**6, guard_browsers=False)
    request = Request(b"POST", target, [(b"Host", b"h"), *fields])
    exchange = Exchange(1, "x-1", request, body, cast(Responder, None), policy, 0.0, lambda *_: None)
    exchange.plan = plan_of(request, policy)
    exchange.outgoing = exchange.plan.outgoing
    exchange.model = model or exchange.plan.model
    return exchange


def named(name: str, base: str = "", provider: str = "openai", **more: Any) -> Upstream:
    return Upstream(name=name, provider=PROVIDERS[provider], base_url=base or f"http://{name}", **more)


def stand_in(name: str, **models: str) -> Fallback:
    return Fallback(
        upstream=name, models=MappingProxyType({key.replace("_", "-"): models[key] for key in models})
    )


def sent(target: Any, exchange: Exchange, key: Secret | None = None) -> tuple[bytes, bytes]:
    return target.outgoing(exchange.request, key).url, target.body.read(10**6)


def test_without_fallbacks_there_is_one_as_it_was_planned() -> None:
    exchange = exchange_for({"a": named("a", "http://h/base")}, "a", CHAT + b"?x=%2F&y")
    body = KeptBytes(b"{}")
    target = own_target(exchange, body)
    assert exchange.plan is not None
    assert target.outgoing(exchange.request, None) is exchange.plan.outgoing
    assert target.body is body
    assert sent(target, exchange) == (b"http://h/base" + CHAT + b"?x=%2F&y", b"{}")
    assert not Fallbacks(exchange, body)


def test_fallbacks_come_in_order_each_under_its_own_base_and_name_for_the_model() -> None:
    fallbacks = (stand_in("b"), stand_in("c", gpt_4o="local"), Fallback(upstream="d", models={"*": "any"}))
    upstreams = {
        "a": named("a", fallbacks=fallbacks),
        "b": named("b", "http://b:1/deep/er"),
        "c": named("c"),
        "d": named("d"),
    }
    body = KeptBytes(b'{ "model" : "gpt-4o",\n "n":1.0}')
    exchange = exchange_for(upstreams, "a", model="gpt-4o")
    found = list(Fallbacks(exchange, body))
    assert [one.upstream.name for one in found] == ["b", "c", "d"]
    assert [one.model for one in found] == ["gpt-4o", "local", "any"]
    assert [sent(one, exchange) for one in found] == [
        (b"http://b:1/deep/er" + CHAT, b'{ "model" : "gpt-4o",\n "n":1.0}'),
        (b"http://c" + CHAT, b'{ "model" : "local",\n "n":1.0}'),
        (b"http://d" + CHAT, b'{ "model" : "any",\n "n":1.0}'),
    ]


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"garbage", b"\xff", b'{"model":', b'{"models":1}'])
def test_a_body_that_names_no_model_goes_as_it_is(body: bytes) -> None:
    upstreams = {"a": named("a", fallbacks=(Fallback(upstream="b", models={"*": "x"}),)), "b": named("b")}
    exchange = exchange_for(upstreams, "a", model="m")
    (target,) = list(Fallbacks(exchange, KeptBytes(body)))
    assert target.body.read(100) == body


@given(st.binary(max_size=200))
def test_no_body_is_too_odd(body: bytes) -> None:
    upstreams = {"a": named("a", fallbacks=(Fallback(upstream="b", models={"*": "x"}),)), "b": named("b")}
    exchange = exchange_for(upstreams, "a", model="m")
    (target,) = list(Fallbacks(exchange, KeptBytes(body)))
    assert isinstance(target.body.read(10**6), bytes)


def test_a_request_for_no_model_keeps_its_body() -> None:
    upstreams = {"a": named("a", fallbacks=(Fallback(upstream="b", models={"*": "x"}),)), "b": named("b")}
    exchange = exchange_for(upstreams, "a")
    body = KeptBytes(b'{"model":"m"}')
    (target,) = list(Fallbacks(exchange, body))
    assert (target.model, target.body) == (None, body)


@pytest.mark.parametrize(
    ("model", "written"),
    [
        ("gemini-x", b"gemini-x"),
        ("tuned/x y", b"tuned%2Fx%20y"),
        ("ä?#", b"%C3%A4%3F%23"),
        ("a:b@1", b"a:b@1"),
    ],
)
def test_a_model_in_the_path_is_changed_there(model: str, written: bytes) -> None:
    fallbacks = (Fallback(upstream="b", models={"gemini-2.0": model}),)
    upstreams = {"a": named("a", provider="google", fallbacks=fallbacks), "b": named("b", provider="google")}
    path = b"/v1beta/models/%b:streamGenerateContent?alt=sse&m=gemini-2.0"
    exchange = exchange_for(upstreams, "a", path % b"gemini-2.0")
    body = KeptBytes(b'{"model":"gemini-2.0"}')
    (target,) = list(Fallbacks(exchange, body))
    assert sent(target, exchange) == (b"http://b" + path.replace(b"%b", written), body.data)


def test_each_upstream_gets_its_own_key_and_none_of_another() -> None:
    upstreams = {
        "a": named("a", keys=(Secret("of-a-1234567"), Secret("of-a-7654321")), fallbacks=(stand_in("b"),)),
        "b": named("b", keys=(Secret("of-b-1234567"),)),
    }
    exchange = exchange_for(upstreams, "a", CHAT, (b"Authorization", b"Bearer of-the-client"))
    own, (other,) = own_target(exchange, NO_BODY), Fallbacks(exchange, NO_BODY)
    second = own.outgoing(exchange.request, upstreams["a"].keys[1])
    keys = [
        [value for name, value in going.headers.getAllRawHeaders() if name.lower() == b"authorization"]
        for going in (second, other.outgoing(exchange.request, None))
    ]
    assert keys == [[[b"Bearer of-a-7654321"]], [[b"Bearer of-b-1234567"]]]
    assert b"of-" not in repr((own, other)).encode()


def test_a_large_body_is_not_read_before_it_is_needed() -> None:
    class Large:
        length = 10**9

        def read(self, limit: int) -> bytes:
            raise AssertionError("it was read")

        def producer(self) -> None: ...

    upstreams = {"a": named("a", fallbacks=(stand_in("b"),)), "b": named("b")}
    exchange = exchange_for(upstreams, "a", model="m")
    body = cast(Kept, Large())
    assert own_target(exchange, body).body is body
    assert next(Fallbacks(exchange, body)).body is body


def test_models_of_the_same_body_are_changed_for_each_upstream_from_what_came() -> None:
    fallbacks = (stand_in("b", m="one"), stand_in("c", m="two"))
    upstreams = {"a": named("a", fallbacks=fallbacks), "b": named("b"), "c": named("c")}
    exchange = exchange_for(upstreams, "a", model="m")
    found = list(Fallbacks(exchange, KeptBytes(b'{"model":"m"}')))
    assert [json.loads(one.body.read(100))["model"] for one in found] == ["one", "two"]
