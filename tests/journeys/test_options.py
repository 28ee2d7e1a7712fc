"""The options of a fault: whom it is for, and until when."""

from __future__ import annotations

import time

import pytest
import raw
from daemon import Daemon


def test_model_picks_by_the_body(proxy: Daemon) -> None:
    proxy.command("c * model=gpt-4*")
    assert raw.openai(proxy.url, model="gpt-4o").status == 400
    assert raw.openai(proxy.url, model="gpt-4.1-mini", stream=True).status == 400
    assert raw.openai(proxy.url, model="gpt-5").status == 200
    assert raw.openai(proxy.url, model="o-gpt-4o").status == 200
    assert raw.anthropic(proxy.url).status == 200


def test_model_picks_by_the_path_where_it_stands_there(proxy: Daemon) -> None:
    proxy.command("r * model=*-flash")
    assert raw.google(proxy.url, model="gemini-2.5-flash").status == 429
    assert raw.google(proxy.url, model="gemini-2.5-pro").status == 200
    body = {"messages": raw.MESSAGES}
    assert raw.ask(proxy.url, "/serving-endpoints/my-flash/invocations", {}, body).status == 429
    assert raw.ask(proxy.url, "/serving-endpoints/my-other/invocations", {}, body).status == 200


def test_model_is_found_in_a_body_too_large_to_be_read_whole(proxy: Daemon) -> None:
    proxy.command("c * model=gpt-4*")
    long = [{"role": "user", "content": 'no "model": "gpt-4o" ' + "x" * 3_000_000}]
    for last in (False, True):
        for model, status in (("gpt-4o", 400), ("gpt-5", 200)):
            named = {"model": model}
            body = {"messages": long, **named} if last else {**named, "messages": long}
            assert raw.ask(proxy.url, "/v1/chat/completions", {}, body).status == status


def test_path_picks_by_the_path(proxy: Daemon) -> None:
    proxy.command("u * path=/v1/embed*")
    body = {"model": "text-embedding-3-small", "input": "a joke"}
    assert raw.ask(proxy.url, "/v1/embeddings", {}, body).status == 500
    assert raw.ask(proxy.url, "/v1/embeddings?x=y", {}, body).status == 500
    assert raw.openai(proxy.url).status == 200


def test_upstream_picks_by_where_it_would_go(proxy: Daemon) -> None:
    proxy.command("u * upstream=anthropic")
    assert raw.anthropic(proxy.url).status == 529
    assert raw.openai(proxy.url).status == 200
    assert raw.google(proxy.url).status == 200
    assert raw.openai(proxy.url, path="/to/anthropic/v1/messages").status == 529


@pytest.mark.parametrize(("option", "hit"), [("yes", True), ("no", False)])
def test_stream_picks_by_what_the_client_asks_for(option: str, hit: bool, proxy: Daemon) -> None:
    proxy.command(f"r * stream={option}")
    assert (raw.openai(proxy.url, stream=True).status == 429) is hit
    assert (raw.openai(proxy.url, stream=False).status == 429) is not hit
    assert (raw.openai(proxy.url).status == 429) is not hit
    assert (raw.anthropic(proxy.url, stream=True).status == 429) is hit
    assert (raw.anthropic(proxy.url).status == 429) is not hit
    assert (raw.google(proxy.url, method="streamGenerateContent", query="?alt=sse").status == 429) is hit
    assert (raw.google(proxy.url).status == 429) is not hit


def test_for_ends_a_fault(proxy: Daemon) -> None:
    start = time.monotonic()
    said = proxy.command("c * for=2s")
    log = len(proxy.output)
    assert "for 2s more" in said
    assert raw.openai(proxy.url).status == 400
    while raw.openai(proxy.url).status == 400:
        assert time.monotonic() - start < 20
        time.sleep(0.05)
    assert time.monotonic() - start >= 2
    assert "No error" in proxy.command("status")
    assert proxy.wait_for(r"Mode: No error \(pass through\) \(its time is over\)", log)


def test_after_counts_eligible_requests_alone(proxy: Daemon) -> None:
    proxy.command("c 2 after=2 model=gpt-4*")
    models = ["gpt-5", "gpt-4o", "gpt-5", "gpt-4o", "gpt-5", "gpt-4o", "gpt-4o", "gpt-4o"]
    found = [raw.openai(proxy.url, model=model).status for model in models]
    assert found == [200, 200, 200, 200, 200, 400, 400, 200]


def test_options_are_told_and_hold_together(proxy: Daemon) -> None:
    said = proxy.command(
        "error overloaded 2 RETRY_AFTER=1.5 upstream=openai model=gpt-* path=/v1/* stream=no for=5m"
    )
    for words in ("next 2 requests", "upstream openai", "model gpt-*", "path /v1/*", "no streams", "1.5 s"):
        assert words in said
    assert raw.openai(proxy.url, stream=True).status == 200
    assert raw.openai(proxy.url, model="o3").status == 200
    assert raw.anthropic(proxy.url, model="gpt-x").status == 200
    answer = raw.openai(proxy.url)
    assert answer.status == 503
    assert (answer.headers["retry-after"], answer.headers["retry-after-ms"]) == ("2", "1500")
    assert answer.headers["x-llmproxyd-code"] == "overloaded"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("c * mdel=x", 'did you mean "model"'),
        ("c model=a model=b", "given twice"),
        ("c model=", "needs a value"),
        ("c stream=maybe", "stream=yes and stream=no"),
        ("c for=0", "over at once"),
        ("c for=soon", "for=soon"),
        ("c after=x", "after=x"),
        ("c retry_after=-1", "retry_after=-1"),
        ("c upstream=opnai", 'did you mean "openai"'),
    ],
)
def test_a_wrong_option_changes_nothing(text: str, said: str, proxy: Daemon) -> None:
    answer = proxy.command(text)
    assert said in answer
    assert "Nothing has changed" in answer
    assert "No error" in proxy.command("status")
