"""What is counted of which event, and that labels stay bounded."""

from __future__ import annotations

import time
import tracemalloc
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from prometheus_client import exposition
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_open_metrics
from prometheus_client.parser import text_string_to_metric_families as read_text
from twisted.logger import LogEvent, globalLogPublisher

from llmproxyd.inspection.prices import Prices
from llmproxyd.model import (
    Arrived,
    BreakerChanged,
    CredentialRested,
    Denied,
    End,
    Event,
    FaultsChanged,
    Finished,
    Reading,
    Retrying,
)
from llmproxyd.observe.cells import OTHER, SERIES
from llmproxyd.observe.metrics import Metrics, Sources, origin_of
from llmproxyd.resilience.budget import Budget, BudgetPolicy


class Price:
    input, output, cached = 2.0, 8.0, 0.5


PRICES = Prices({"gpt-4o*": Price()})
TOLD = Reading(model="gpt-4o-2024-08-06", tokens={"input": 1000, "output": 500, "cached": 200}, finish="stop")


def finished(**members: Any) -> Finished:
    """A chat that went well, but for *members*."""
    given: dict[str, Any] = {
        "number": 1,
        "request_id": "req-secret-1",
        "method": "POST",
        "path": "/v1/chat/completions",
        "provider": "openai",
        "upstream": "openai",
        "status": 200,
        "duration": 0.3,
        "sent": 100,
        "end": End.COMPLETE,
        "operation": "chat",
        "kind": "inference",
        "attempts": 1,
        "began": 0.2,
        "project": "prj-secret-2",
        "token": "tok-secret-3",
        "peer": "192.0.2.77:5",
    }
    return Finished(**{**given, **members})


def retrying(**members: Any) -> Retrying:
    given: dict[str, Any] = {
        "number": 1,
        "request_id": "req-secret-1",
        "upstream": "openai",
        "failed": "overloaded (529)",
        "delay": 1.0,
        "retry": 1,
        "of": 3,
        "to": "openai",
    }
    return Retrying(**{**given, **members})


Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scraped(metrics: Metrics) -> Samples:
    """All samples by name and labels."""
    page, _ = metrics.render()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in read_text(page.decode())
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return scraped(metrics).get((name, frozenset(labels.items())))


def total(metrics: Metrics, name: str, **labels: str) -> float:
    """The sum over all samples of *name* that have *labels*."""
    wanted = set(labels.items())
    return sum(number for (known, has), number in scraped(metrics).items() if known == name and wanted <= has)


def told(*events: Event, **settings: Any) -> Metrics:
    metrics = Metrics(**settings)
    for event in events:
        metrics(event)
    return metrics


def everything(**settings: Any) -> Metrics:
    """Metrics that saw every kind of event, and have every source."""
    stream = {"streamed": True, "first": 0.4, "model": "gpt-4o", "reading": TOLD}
    budget = Budget(BudgetPolicy(), 0.0)
    sources = Sources(
        uptime=lambda: 12.5,
        active=lambda: 3,
        connections=lambda: 4,
        pools=lambda: {"openai": {"idle": 2, "busy": 1}},
        breakers=lambda: [("openai", "open"), ("anthropic/claude-x", "half-open"), ("groq", "closed")],
        budgets=lambda: {"openai": budget.state(0.0)},
        lag=lambda: 0.01,
        events_dropped=lambda: 5,
        sink_failures=lambda: 0,
        cache=lambda: {"backend": "memory", "entries": 7, "bytes": 800, "evictions": 1, "errors": 2},
        store_up=lambda: True,
        redis_up=lambda: False,
    )
    return told(
        Arrived(1, "req-secret-1", "POST", "/", "openai", "openai"),
        finished(**stream),
        *(finished(**stream, end=end) for end in End),
        retrying(),
        finished(status=529, failed=True, attempts=2),
        finished(status=503, fault="overloaded", attempts=0, code="overloaded"),
        finished(status=429),
        finished(status=403, code="model_not_allowed", attempts=0, detail="x"),
        finished(cache="stale", attempts=0),
        *(
            finished(cache=result, attempts=0 if result == "hit" else 1)
            for result in ("hit", "miss", "bypass")
        ),
        BreakerChanged(name="openai", before="closed", after="open", cause="x", seconds=60),
        CredentialRested(upstream="openai", which=1, status=429, seconds=60, left=1),
        Denied(address="192.0.2.77", code="token_not_found", shown="sk-secr"),
        FaultsChanged("no error", "by command", True),
        sources=sources,
        genai=True,
        prices=PRICES,
        **settings,
    )


# What is counted.


def test_requests_by_upstream_operation_status_and_origin() -> None:
    metrics = told(finished(), finished(), finished(status=404), finished(operation="models", provider="x"))
    labels = {"upstream": "openai", "provider": "openai", "operation": "chat", "origin": "upstream"}
    assert value(metrics, "llmproxyd_requests_total", **labels, status="200") == 2
    assert value(metrics, "llmproxyd_requests_total", **labels, status="404") == 1
    assert total(metrics, "llmproxyd_requests_total") == 4
    assert total(metrics, "llmproxyd_requests_total", operation="models", provider="x") == 1


@pytest.mark.parametrize(
    ("members", "origin"),
    [
        ({}, "upstream"),
        ({"status": 500}, "upstream"),
        ({"fault": "overloaded", "attempts": 0}, "injected"),
        ({"status": 502, "code": "connect_failed", "failed": True}, "proxy"),
        ({"status": 403, "code": "model_not_allowed", "attempts": 0}, "proxy"),
        ({"status": 499, "code": "client_gone", "end": End.CLIENT_GONE}, "proxy"),
        ({"code": "client_gone", "end": End.CLIENT_GONE}, "upstream"),
        ({"code": "upstream_protocol_error", "end": End.TRUNCATED}, "upstream"),
        ({"code": "idle_timeout", "end": End.IDLE}, "upstream"),
        ({"cache": "hit", "attempts": 0}, "cache"),
        ({"cache": "stale", "attempts": 0}, "cache"),
        ({"cache": "hit", "attempts": 1}, "upstream"),
        ({"cache": "miss"}, "upstream"),
    ],
)
def test_origin_says_whose_answer_it_was(members: dict[str, Any], origin: str) -> None:
    event = finished(**members)
    assert origin_of(event) == origin
    assert total(told(event), "llmproxyd_requests_total", origin=origin) == 1


def test_durations_are_in_buckets() -> None:
    metrics = told(*(finished(duration=seconds) for seconds in (0.01, 0.3, 0.5, 7, 10_000)))
    labels = {"upstream": "openai", "operation": "chat", "origin": "upstream"}
    name = "llmproxyd_request_duration_seconds"
    found = {le: value(metrics, name + "_bucket", **labels, le=le) for le in ("0.01", "0.25", "0.5", "600.0", "+Inf")}  # fmt: skip
    assert found == {"0.01": 1, "0.25": 1, "0.5": 3, "600.0": 4, "+Inf": 5}
    assert value(metrics, name + "_count", **labels) == 5
    assert value(metrics, name + "_sum", **labels) == pytest.approx(10_007.81)


def test_attempts_count_where_they_were_made() -> None:
    metrics = told(
        retrying(upstream="a", to="a"),
        retrying(upstream="a", to="b", retry=2),
        finished(upstream="b", attempts=3),
        finished(number=2, upstream="a"),
    )
    assert value(metrics, "llmproxyd_upstream_attempts_total", upstream="a") == 3
    assert value(metrics, "llmproxyd_upstream_attempts_total", upstream="b") == 1
    assert value(metrics, "llmproxyd_retries_total", upstream="a") == 2


def test_attempt_that_was_only_waited_for_does_not_count() -> None:
    gone = finished(status=499, code="client_gone", end=End.CLIENT_GONE, attempts=1)
    assert value(told(retrying(), gone), "llmproxyd_upstream_attempts_total", upstream="openai") == 1


def test_another_key_is_an_attempt_but_no_retry() -> None:
    metrics = told(retrying(retry=0), finished(attempts=2))
    assert value(metrics, "llmproxyd_upstream_attempts_total", upstream="openai") == 2
    assert total(metrics, "llmproxyd_retries_total") == 0


def test_retries_of_others_are_forgotten_with_their_request() -> None:
    metrics = Metrics()
    for number in range(100):
        metrics(retrying(number=number))
        metrics(finished(number=number, attempts=2))
    assert not metrics._retried
    assert value(metrics, "llmproxyd_upstream_attempts_total", upstream="openai") == 200


def test_failures_of_an_upstream() -> None:
    metrics = told(finished(failed=True, status=502), finished(status=500), finished())
    assert value(metrics, "llmproxyd_upstream_failures_total", upstream="openai") == 1


def test_streams_by_their_end() -> None:
    metrics = told(*(finished(streamed=True, end=end) for end in End), finished(end=End.TRUNCATED))
    for end in End:
        assert value(metrics, "llmproxyd_streams_total", upstream="openai", end=end) == 1


def test_first_content_of_streams() -> None:
    metrics = told(finished(streamed=True, first=0.2), finished(streamed=True), finished(first=0.2))
    name = "llmproxyd_first_content_seconds_count"
    assert value(metrics, name, upstream="openai", operation="chat") == 1


def test_faults_cache_and_refusals() -> None:
    metrics = told(
        finished(fault="overloaded"),
        finished(cache="hit"),
        finished(cache="miss"),
        finished(cache="miss"),
        Denied(address="192.0.2.1", code="token_expired"),
        CredentialRested(upstream="a", which=1, status=429, seconds=60, left=1),
        BreakerChanged(name="a/model", before="closed", after="open", cause="x"),
    )
    assert value(metrics, "llmproxyd_faults_injected_total", kind="overloaded") == 1
    assert value(metrics, "llmproxyd_cache_requests_total", result="hit") == 1
    assert value(metrics, "llmproxyd_cache_requests_total", result="miss") == 2
    assert value(metrics, "llmproxyd_denied_total", code="token_expired") == 1
    assert value(metrics, "llmproxyd_credentials_rested_total", upstream="a") == 1
    assert value(metrics, "llmproxyd_breaker_changes_total", upstream="a", state="open") == 1


def test_tokens_and_their_cost() -> None:
    metrics = told(finished(model="gpt-4o", reading=TOLD), finished(reading=Reading()), prices=PRICES)
    labels = {"upstream": "openai", "model": "gpt-4o-2024-08-06"}
    for kind, number in TOLD.tokens.items():
        assert value(metrics, "llmproxyd_tokens_total", **labels, kind=kind) == number
    assert value(metrics, "llmproxyd_cost_total", **labels) == pytest.approx(0.0057)


def test_model_asked_for_counts_where_the_answer_tells_none() -> None:
    metrics = told(finished(model="m", reading=Reading(tokens={"input": 1})), finished(reading=Reading(tokens={"input": 1})))  # fmt: skip
    assert total(metrics, "llmproxyd_tokens_total", model="m") == 1
    assert total(metrics, "llmproxyd_tokens_total", model="unknown") == 1


# What others tell.


def test_sources_are_read_at_each_scrape() -> None:
    active = [1]
    metrics = Metrics(Sources(active=lambda: active[0]))
    assert value(metrics, "llmproxyd_active_requests") == 1
    active[0] = 5
    assert value(metrics, "llmproxyd_active_requests") == 5


def test_what_sources_tell() -> None:
    metrics = everything()
    assert value(metrics, "llmproxyd_breaker_state", upstream="openai", model="") == 2
    assert value(metrics, "llmproxyd_breaker_state", upstream="anthropic", model="claude-x") == 1
    assert value(metrics, "llmproxyd_breaker_state", upstream="groq", model="") == 0
    assert value(metrics, "llmproxyd_pool_connections", upstream="openai", state="idle") == 2
    assert value(metrics, "llmproxyd_retry_budget_left", upstream="openai") == 100
    assert value(metrics, "llmproxyd_events_dropped_total") == 5
    assert value(metrics, "llmproxyd_cache_bytes") == 800
    assert value(metrics, "llmproxyd_cache_errors_total") == 2
    assert value(metrics, "llmproxyd_store_up") == 1
    assert value(metrics, "llmproxyd_redis_up") == 0
    assert value(metrics, "llmproxyd_event_loop_lag_seconds") == 0.01


def test_what_nobody_knows_is_left_out() -> None:
    names = {name for name, _ in scraped(Metrics())}
    assert "llmproxyd_store_up" not in names
    assert "llmproxyd_cache_bytes" not in names
    assert "llmproxyd_build_info" in names
    partial = scraped(Metrics(Sources(cache=lambda: {"backend": "redis", "errors": 1})))
    assert {name for name, _ in partial if "cache" in name} == {"llmproxyd_cache_errors_total"}


def test_source_that_fails_spoils_nothing_and_is_told_once() -> None:
    events: list[LogEvent] = []
    metrics = told(finished(), sources=Sources(pools=lambda: 1 / 0, active=lambda: 2))  # type: ignore[arg-type,return-value]
    globalLogPublisher.addObserver(events.append)
    try:
        for _ in range(3):
            assert value(metrics, "llmproxyd_active_requests") == 2
            assert total(metrics, "llmproxyd_requests_total") == 1
    finally:
        globalLogPublisher.removeObserver(events.append)
    assert [event["name"] for event in events if "name" in event] == ["pools"]


# The page.


def test_page_is_text_or_open_metrics() -> None:
    metrics = everything()
    page, media = metrics.render()
    assert media.startswith(b"text/plain; version=0.0.4")
    families = list(read_text(page.decode()))
    page, media = metrics.render(b"application/openmetrics-text;version=1.0.0;q=0.6,text/plain;q=0.3")
    assert media.startswith(b"application/openmetrics-text; version=1.0.0")
    assert page.endswith(b"# EOF\n")
    assert {f.name for f in read_open_metrics(page.decode())} == {f.name for f in families}


@pytest.mark.parametrize(
    ("accept", "theirs", "reads"),
    [
        (b"", exposition.generate_latest, read_text),
        (b"application/openmetrics-text", openmetrics.generate_latest, read_open_metrics),
    ],
)
def test_page_is_what_prometheus_client_would_write(accept: bytes, theirs: Any, reads: Any) -> None:
    odd = finished(upstream='a"b\\c\nd', operation="ä{}", duration=1e-9, reading=TOLD, model="x")
    metrics = everything()
    for _ in range(3):
        metrics(odd)

    def families(page: bytes) -> list[Any]:
        return [
            (one.name, one.type, one.documentation, [(s.name, s.labels, s.value) for s in one.samples])
            for one in reads(page.decode())
            if not one.name.startswith("process_")
        ]

    assert families(metrics.render(accept)[0]) == families(theirs(metrics.registry))


def test_nothing_in_the_page_tells_who_asked() -> None:
    page, _ = everything().render()
    for secret in (b"secret", b"192.0.2.77", b"req-", b"prj-", b"tok-"):
        assert secret not in page


def test_process_is_told_of() -> None:
    assert value(Metrics(), "process_resident_memory_bytes")


def test_two_metrics_do_not_share_a_registry() -> None:
    told(finished())
    assert total(Metrics(), "llmproxyd_requests_total") == 0


# Bounds.


def test_models_are_capped() -> None:
    metrics = Metrics(genai=True)
    for number in range(5000):
        reading = Reading(model=f"model-{number}", tokens={"input": 1})
        metrics(finished(model=f"asked-{number}", reading=reading))
    models = {dict(labels)["model"] for name, labels in scraped(metrics) if name == "llmproxyd_tokens_total"}
    assert len(models) <= 101
    assert total(metrics, "llmproxyd_tokens_total", model=OTHER) > 4800
    assert len(scraped(metrics)) < 20_000


def test_names_that_were_refused_take_no_place() -> None:
    metrics = Metrics(genai=True)
    for number in range(500):
        metrics(finished(status=404, model=f"made-up-{number}"))
    metrics(finished(model="gpt-4o", reading=TOLD))
    assert total(metrics, "llmproxyd_tokens_total", model="gpt-4o-2024-08-06") == 1700


@pytest.mark.parametrize("model", ["m" * 129, "a\nb", "\0", "\ud800"])
def test_name_that_is_none_is_another(model: str) -> None:
    metrics = told(finished(model=model, reading=Reading(tokens={"input": 1})))
    assert total(metrics, "llmproxyd_tokens_total", model=OTHER) == 1


@pytest.mark.parametrize("status", [0, 99, 600, 999])
def test_status_that_is_none_is_another(status: int) -> None:
    metrics = told(finished(status=status), finished(status=status))
    assert total(metrics, "llmproxyd_requests_total", status=OTHER) == 2


def test_series_and_memory_are_bounded() -> None:
    metrics = Metrics(genai=True)
    tracemalloc.start()
    for number in range(4_000):
        text = f"x{number}"
        metrics(finished(upstream=text, operation=text, fault=text, cache=text, streamed=True, first=1.0, failed=True))  # fmt: skip
        metrics(Denied(address="-", code=text))
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert used < 15_000_000
    assert len(metrics._series) <= SERIES + 4
    assert total(metrics, "llmproxyd_requests_total") == 4_000
    assert total(metrics, "llmproxyd_denied_total") == 4_000


ANY = st.builds(
    finished,
    number=st.integers(0, 5),
    upstream=st.text(max_size=3),
    provider=st.text(max_size=3),
    operation=st.text(max_size=3),
    status=st.integers(-1, 10**6),
    duration=st.floats(0, 1e9),
    end=st.sampled_from(End),
    fault=st.none() | st.text(max_size=3),
    code=st.none() | st.text(max_size=3),
    attempts=st.integers(0, 3),
    first=st.none() | st.floats(0, 10),
    streamed=st.booleans(),
    cache=st.none() | st.sampled_from(["hit", "miss"]),
    model=st.none() | st.text(max_size=4),
    reading=st.none() | st.builds(Reading, model=st.none() | st.text(max_size=3), tokens=st.dictionaries(st.sampled_from(["input", "output", "cached"]), st.integers(0, 10**12))),
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(st.lists(ANY | st.builds(retrying, number=st.integers(0, 5), retry=st.integers(0, 2)), max_size=10))
def test_any_events_give_a_page_that_can_be_read(events: list[Event]) -> None:
    metrics = told(*events, genai=True, prices=Prices({"*": Price()}))
    for accept, reads in ((b"", read_text), (b"application/openmetrics-text", read_open_metrics)):
        page, _ = metrics.render(accept)
        list(reads(page.decode()))
    assert total(metrics, "llmproxyd_requests_total") == sum(isinstance(e, Finished) for e in events)


FEW = st.builds(
    finished,
    number=st.integers(0, 5),
    upstream=st.sampled_from(["openai", "other"]),
    provider=st.sampled_from(["openai", "ollama"]),
    operation=st.sampled_from(["chat", "generate"]),
    kind=st.sampled_from(["inference", "metadata"]),
    status=st.sampled_from([200, 200, 200, 404, 999]),
    duration=st.sampled_from([0.0, 0.125, 3.5, 600.0, 2.0**20]),
    end=st.sampled_from([End.COMPLETE, End.COMPLETE, End.CLIENT_GONE]),
    fault=st.sampled_from([None, None, None, "overloaded"]),
    code=st.sampled_from([None, None, None, "client_gone"]),
    failed=st.sampled_from([False, False, True]),
    attempts=st.integers(0, 3),
    first=st.sampled_from([None, 0.25, 4.0]),
    streamed=st.booleans(),
    cache=st.sampled_from([None, "hit", "miss", "stale"]),
    model=st.sampled_from([None, "gpt-4o", "m"]),
    reading=st.none()
    | st.builds(
        Reading,
        model=st.sampled_from([None, "gpt-4o-2024-08-06", "m", "m" * 200]),
        tokens=st.dictionaries(st.sampled_from(["input", "output", "cached"]), st.integers(0, 10**12)),
        cost=st.sampled_from([None, 0.1, 0.7]),
    ),
)
"""Requests of which many are alike; sums of their seconds are exact in any order."""

LIKE = {
    "streamed": True,
    "first": 0.5,
    "cache": "miss",
    "model": "gpt-4o",
    "reading": Reading(model="gpt-4o", tokens={"input": 3, "output": 5}),
}
"""Members of a request of which much is told."""


@pytest.mark.parametrize(
    ("member", "other"),
    [
        ("upstream", "other"),
        ("provider", "ollama"),
        ("operation", "responses"),
        ("status", 404),
        ("attempts", 2),
        ("code", "rate_limit_exceeded"),
        ("fault", "overloaded"),
        ("cache", "hit"),
        ("cache", None),
        ("failed", True),
        ("streamed", False),
        ("end", End.CLIENT_GONE),
        ("duration", 40.0),
        ("first", None),
        ("first", 4.0),
        ("reading", None),
        ("reading", Reading(model="m", tokens={"input": 3, "output": 5})),
        ("reading", Reading(model=None, tokens={"input": 3, "output": 5})),
        ("reading", Reading(model="gpt-4o", tokens={"input": 3, "cached": 5})),
        ("reading", Reading(model="gpt-4o", tokens={"output": 5, "input": 3})),
        ("reading", Reading(model="gpt-4o", tokens={"input": 3, "output": 5}, cost=0.5)),
    ],
)
def test_requests_that_differ_in_one_member_are_counted_apart(member: str, other: object) -> None:
    one, differs = finished(**LIKE), finished(**{**LIKE, member: other})
    events = [one, differs, one, one, differs]
    metrics = Metrics(prices=Prices({}))
    metrics.finished(iter(events))
    wanted = expected(events, Prices({}))
    families = {name for name, _ in wanted}
    assert {key: number for key, number in scraped(metrics).items() if key[0] in families} == wanted


def test_the_model_that_was_asked_for_tells_apart_what_answers_do_not() -> None:
    nameless = Reading(model=None, tokens={"input": 3})
    metrics = Metrics()
    metrics.finished(finished(model=name, reading=nameless) for name in ("gpt-4o", "m", "gpt-4o", None))
    told = {
        name: value(metrics, "llmproxyd_tokens_total", upstream="openai", model=name, kind="input")
        for name in ("gpt-4o", "m", "unknown")
    }
    assert told == {"gpt-4o": 6, "m": 3, "unknown": 3}


AGAIN = st.builds(
    retrying, number=st.integers(0, 5), upstream=st.sampled_from(["openai", "b"]), retry=st.integers(0, 2)
)


UNSHRUNK = (Phase.explicit, Phase.reuse, Phase.generate)
"""To make many requests of many members smaller takes minutes, and the page tells enough."""


def page_of(metrics: Metrics) -> list[str]:
    page, _ = metrics.render()
    return [line for line in page.decode().splitlines() if "process_" not in line]


@settings(max_examples=200, deadline=None, phases=UNSHRUNK)
@given(
    st.lists(st.lists(FEW, max_size=20) | AGAIN, max_size=8),
    st.booleans(),
    st.sampled_from([None, Prices({}), PRICES]),
)
def test_a_batch_counts_as_its_requests_do_one_by_one(
    told: list[list[Finished] | Retrying], genai: bool, prices: Prices | None
) -> None:
    together, single = (Metrics(genai=genai, prices=prices) for _ in range(2))
    for one in told:
        if isinstance(one, Retrying):
            together(one)
            single(one)
            continue
        together.finished(iter(one))
        for event in one:
            single(event)
    assert page_of(together) == page_of(single)


def expected(events: list[Finished], prices: Prices) -> Samples:
    """What *events* without retries are counted as, worked out one by one."""
    found: Samples = {}

    def add(name: str, number: float = 1, **labels: str) -> None:
        key = (f"llmproxyd_{name}", frozenset(labels.items()))
        found[key] = found.get(key, 0) + number

    for event in events:
        upstream, operation, origin = event.upstream, event.operation, origin_of(event)
        status = str(event.status) if event.status < 600 else OTHER
        add(
            "requests_total",
            upstream=upstream,
            provider=event.provider,
            operation=operation,
            status=status,
            origin=origin,
        )
        where = {"upstream": upstream, "operation": operation}
        add("request_duration_seconds_count", **where, origin=origin)
        add("request_duration_seconds_sum", event.duration, **where, origin=origin)
        add("upstream_attempts_total", event.attempts, upstream=upstream)
        if event.failed:
            add("upstream_failures_total", upstream=upstream)
        if event.fault is not None:
            add("faults_injected_total", kind=event.fault)
        if event.cache is not None:
            add("cache_requests_total", result=event.cache)
        if event.streamed:
            add("streams_total", upstream=upstream, end=event.end)
            if event.first is not None:
                add("first_content_seconds_count", **where)
                add("first_content_seconds_sum", event.first, **where)
        reading = event.reading
        if reading is not None and reading.tokens:
            model = reading.model or event.model or "unknown"
            labels = {"upstream": upstream, "model": model if len(model) < 129 else OTHER}
            for kind, number in reading.tokens.items():
                add("tokens_total", number, **labels, kind=kind)
            cost = prices.of(reading, event.model)
            if cost is not None:
                add("cost_total", cost, **labels)
    return found


@settings(max_examples=100, deadline=None, phases=UNSHRUNK)
@given(st.lists(FEW, max_size=20), st.sampled_from([Prices({}), PRICES]))
def test_a_batch_counts_what_each_of_its_requests_is(events: list[Finished], prices: Prices) -> None:
    metrics = Metrics(prices=prices)
    metrics.finished(iter(events))
    wanted = expected(events, prices)
    families = {name for name, _ in wanted}
    assert {key: number for key, number in scraped(metrics).items() if key[0] in families} == wanted


def test_one_that_cannot_be_counted_costs_no_other_its_place() -> None:
    metrics, good = Metrics(), finished(reading=TOLD)
    events = iter([good, good, finished(reading="what is no reading"), good])
    with pytest.raises(AttributeError):
        metrics.finished(events)
    metrics.finished(events)
    assert total(metrics, "llmproxyd_requests_total") == 4
    assert total(metrics, "llmproxyd_tokens_total", kind="input") == 3000


def test_an_event_costs_microseconds() -> None:
    metrics, event = Metrics(), finished(streamed=True, first=0.2, cache="miss")
    metrics(event)

    def per_event(count: int = 20_000) -> float:
        begun = time.perf_counter()
        for _ in range(count):
            metrics(event)
        return (time.perf_counter() - begun) / count

    # Two at most on a machine that does nothing else; this one may be busy.
    assert min(per_event() for _ in range(5)) < 10e-6
