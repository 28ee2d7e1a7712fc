"""Every failure goes on record once, and every request with all its attempts."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from bench import Bench
from wireclient import Answer, pause, request, until

from llmproxyd.model import ErrorNoted, Recorded
from llmproxyd.testing.proxy import ProxyUnderTest
from llmproxyd.testing.upstream import (
    LAST_CHUNK,
    Action,
    Close,
    FakeUpstream,
    Script,
    Send,
    Stall,
    answer,
    chunk,
    event,
    head,
    json_answer,
    stream_head,
)

CHAT = b"/v1/chat/completions"
ASKED = b'{"model":"gpt-4o","messages":[]}'
REPLY = {"id": "c-1", "choices": [{"index": 0, "message": {"content": "Hi"}}]}
HI = event(b'{"choices":[{"index":0,"delta":{"content":"Hi"}}]}')
MIB = 1024 * 1024
WORKS: list[Action] = [Send(json_answer(REPLY))]

Noted = tuple[str, int | None, float | None, bool]
"""What is told of one failure: code, attempt, delay, final."""


def failed(status: bytes = b"503 Service Unavailable", *fields: bytes) -> list[Action]:
    return [Send(json_answer({"error": {"message": "no"}}, *fields, status=status))]


def settings(folder: Path, *, retries: int = 2, **more: Any) -> dict[str, Any]:
    """Both logs on, and retries."""
    retry = {"max_retries": retries, "base_delay": 0.01, "jitter": "none"}
    policy = {"retry": retry, **more.pop("policy", {})}
    return {
        "logging": {"enabled": True, "folder": str(folder)},
        "error_logging": {"enabled": True, "folder": str(folder / "errors")},
        "resilience": {"default": policy},
        **more,
    }


async def ask(bench: Bench, proxy: ProxyUnderTest, *fields: bytes, body: bytes = ASKED) -> Answer:
    client = await bench.client(proxy)
    return await client.ask(request(CHAT, *fields, body=body))


def noted(proxy: ProxyUnderTest) -> list[ErrorNoted]:
    return [one for one in proxy.sink.events if isinstance(one, ErrorNoted)]


async def recorded(proxy: ProxyUnderTest) -> Recorded:
    """The one record there is, when the request is over."""

    def found() -> list[Recorded]:
        return [one for one in proxy.sink.events if isinstance(one, Recorded)]

    await until(found, "the record")
    (one,) = found()
    return one


BROKEN: Script = [Send(stream_head() + chunk(HI)), Close()]

FAILURES: list[Any] = [
    pytest.param([WORKS], {}, [], id="none"),
    pytest.param([failed(), failed(), WORKS], {}, [("503", 1, 0.01, False), ("503", 2, 0.02, False)], id="retried"),
    pytest.param(
        [failed()], {}, [("503", 1, 0.01, False), ("503", 2, 0.02, False), ("503", 3, None, True)], id="spent"
    ),
    pytest.param([failed(b"400 Bad")], {}, [("400", 1, None, True)], id="final"),
    pytest.param([[Close()], WORKS], {}, [("upstream_protocol_error", 1, 0.01, False)], id="closed"),
    pytest.param([[Stall()]], {"timeouts": {"headers": 0.1}}, [("headers_timeout", 1, None, True)], id="no-head"),
    pytest.param([BROKEN], {}, [("upstream_protocol_error", 1, None, True)], id="broken-stream"),
    pytest.param(
        [failed(), BROKEN],
        {},
        [("503", 1, 0.01, False), ("upstream_protocol_error", 2, None, True)],
        id="retried-and-broken",
    ),
    pytest.param([failed(), [Stall()]], {"timeouts": {"total": 0.3}}, [("503", 1, 0.01, False), ("total_timeout", 2, None, True)], id="deadline"),
    pytest.param(
        [[Send(json_answer({"error": {"message": "no"}}))], WORKS], {}, [("502", 1, 0.01, False)], id="under-200"
    ),
    pytest.param(
        [failed(b"400 Pozzed")],
        {"policy": {"hard_stop": [{"pattern": "no", "user_message": "No."}]}},
        [("400", 1, None, True)],
        id="hard-stop",
    ),
    pytest.param([WORKS], {"faults": {"mode": "u *"}}, [], id="injected"),
    pytest.param(
        [[Send(head(b"content-length: 90", status=b"400 Bad") + b"{"), Close()]],
        {},
        [
            ("upstream_protocol_error", 1, 0.01, False),
            ("upstream_protocol_error", 2, 0.02, False),
            ("upstream_protocol_error", 3, None, True),
        ],
        id="broken-error",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("scripts", "more", "expected"), FAILURES)
@pytest_twisted.ensureDeferred
async def test_each_failure_is_noted_once(
    bench: Bench,
    upstream: FakeUpstream,
    tmp_path: Path,
    scripts: list[Script],
    more: dict[str, Any],
    expected: list[Noted],
) -> None:
    upstream.scripts = list(scripts)
    proxy = bench.proxy(**settings(tmp_path, **more))
    await ask(bench, proxy)
    got = await recorded(proxy)
    found = noted(proxy)
    assert [(one.code, one.attempt, one.delay, one.final) for one in found] == expected
    assert {one.request_id for one in found} <= {got.finished.request_id}
    numbers = [one.number for one in got.attempts]
    assert numbers == list(range(1, len(upstream.requests) + 1))


@pytest_twisted.ensureDeferred
async def test_time_that_runs_out_between_two_attempts_is_no_third(
    bench: Bench, upstream: FakeUpstream, tmp_path: Path
) -> None:
    upstream.scripts = [failed(b"503 No", b"retry-after: 1")]
    proxy = bench.proxy(**settings(tmp_path), timeouts={"total": 1.05})
    # The wait ends before the deadline, which the clock is asked for only now and then.
    await ask(bench, proxy)
    got = await recorded(proxy)
    assert len(got.attempts) == len(upstream.requests)
    assert len({one.number for one in got.attempts}) == len(got.attempts)


@pytest_twisted.ensureDeferred
async def test_a_failure_elsewhere_is_noted_with_its_own_place_and_breaker(
    bench: Bench, upstream: FakeUpstream, tmp_path: Path
) -> None:
    upstream.scripts = [failed(), [Send(stream_head() + chunk(HI)), Close()]]
    spare = {"provider": "openai", "base_url": upstream.url + "/spare"}
    proxy = bench.proxy(
        upstreams={"openai": {"fallbacks": [{"upstream": "spare"}]}, "spare": spare},
        **settings(tmp_path, retries=0, policy={"breaker": {"enabled": True}}),
    )
    await ask(bench, proxy)
    got = await recorded(proxy)
    first, second = noted(proxy)
    assert [(one.number, one.upstream) for one in got.attempts] == [(1, "openai"), (2, "spare")]
    assert (first.breaker or {})["name"] == "openai"
    assert (first.url or "").endswith(f":{upstream.port}/v1/chat/completions")
    assert (second.url or "").endswith("/spare/v1/chat/completions")
    assert (second.attempt, second.context["upstream"]) == (2, "spare")


@pytest_twisted.ensureDeferred
async def test_a_list_that_stands_in_keeps_its_attempt_on_record(
    bench: Bench, upstream: FakeUpstream, tmp_path: Path
) -> None:
    upstream.scripts = [failed(b"404 Not Found")]
    proxy = bench.proxy(upstreams={"openai": {"models_fallback": ["one"]}}, **settings(tmp_path))
    client = await bench.client(proxy)
    assert (await client.ask(request(b"/v1/models", method=b"GET", body=None))).status == 200
    got = await recorded(proxy)
    assert [(one.number, one.status) for one in got.attempts] == [(1, 404)]
    assert [(one.code, one.final) for one in noted(proxy)] == [("404", True)]


@pytest_twisted.ensureDeferred
async def test_nothing_takes_less_than_no_time_when_the_wall_clock_goes_back(
    bench: Bench, upstream: FakeUpstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = time.time, 0

    def back() -> float:
        nonlocal calls
        calls += 1
        return real() - 3600 * calls

    monkeypatch.setattr(time, "time", back)
    upstream.scripts = [failed(), BROKEN]
    proxy = bench.proxy(**settings(tmp_path))
    await ask(bench, proxy)
    monkeypatch.undo()
    got = await recorded(proxy)
    assert calls > 2
    assert all(0 <= one.duration < 60 for one in got.attempts)
    assert 0 <= got.ended - got.started < 60
    assert all(one.elapsed is not None and 0 <= one.elapsed < 60 for one in noted(proxy))


@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, MIB + 1, 3 * MIB])
@pytest_twisted.ensureDeferred
async def test_bodies_are_kept_up_to_a_mebibyte(
    bench: Bench, upstream: FakeUpstream, tmp_path: Path, size: int
) -> None:
    body = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    upstream.scripts = [[Send(answer(body, b"content-type: application/x"))]]
    proxy = bench.proxy(**settings(tmp_path))
    got = await ask(bench, proxy, body=body)
    assert got.body == body
    one = await recorded(proxy)
    assert one.response_body is not None
    for kept in (one.body, one.response_body):
        assert (kept.length, kept.cut) == (size, size > MIB)
        assert kept.data == body[:MIB]


@pytest_twisted.ensureDeferred
async def test_a_body_whose_first_pieces_fill_what_is_kept_is_cut(
    bench: Bench, upstream: FakeUpstream, tmp_path: Path
) -> None:
    piece = b"x" * (MIB // 4)
    upstream.scripts = [
        [Send(head(b"transfer-encoding: chunked")), *[Send(chunk(piece))] * 5, Send(LAST_CHUNK)]
    ]
    proxy = bench.proxy(**settings(tmp_path))
    await ask(bench, proxy)
    kept = (await recorded(proxy)).response_body
    assert kept is not None
    assert (kept.length, kept.cut, len(kept.data)) == (5 * len(piece), True, MIB)


@pytest_twisted.ensureDeferred
async def test_what_is_kept_of_failed_attempts_is_bounded(
    bench: Bench, upstream: FakeUpstream, tmp_path: Path
) -> None:
    upstream.scripts = [[Send(answer(b"x" * 60_000, status=b"503 No"))]]
    budget = {"min_per_second": 1000}
    more = {"retry": {"max_retries": 300, "base_delay": 0, "budget": budget}}
    proxy = bench.proxy(**settings(tmp_path, policy=more))
    await ask(bench, proxy)
    got = await recorded(proxy)
    assert len(upstream.requests) == 301
    assert len(noted(proxy)) == 301
    assert len(got.attempts) == 100
    assert got.attempts[-1].number == 301
    assert sum(len(one.body.data) for one in got.attempts if one.body is not None) <= MIB
    assert all(one.body.length == 60_000 for one in got.attempts if one.body is not None)


@pytest_twisted.ensureDeferred
async def test_a_client_that_leaves_is_no_failure(
    bench: Bench, upstream: FakeUpstream, tmp_path: Path
) -> None:
    upstream.scripts = [failed(), [Stall()]]
    proxy = bench.proxy(**settings(tmp_path))
    client = await bench.client(proxy)
    client.send(request(CHAT, body=ASKED))
    await until(lambda: len(upstream.requests) == 2, "the second attempt")
    client.transport.abortConnection()
    got = await recorded(proxy)
    await pause(0.02)
    assert (got.finished.status, got.finished.code) == (499, "client_gone")
    assert [(one.code, one.final) for one in noted(proxy)] == [("503", False)]


@pytest_twisted.ensureDeferred
async def test_what_was_presented_is_told_with_every_failure_and_shown_nowhere(
    bench: Bench, upstream: FakeUpstream, tmp_path: Path
) -> None:
    secret = "sk-proj-0123456789abcdef"
    upstream.scripts = [failed(), [Close()], failed(b"401 No")]
    proxy = bench.proxy(**settings(tmp_path))
    await ask(bench, proxy, b"authorization: Bearer " + secret.encode())
    got = await recorded(proxy)
    assert len(noted(proxy)) == 3
    for one in (*noted(proxy), got):
        assert secret in one.secrets
        assert secret not in repr(one)


@pytest_twisted.ensureDeferred
async def test_an_open_breaker_is_noted_for_none_of_those_it_refuses(
    bench: Bench, upstream: FakeUpstream, tmp_path: Path
) -> None:
    upstream.scripts = [failed()]
    breaker = {"enabled": True, "failure_threshold": 1}
    proxy = bench.proxy(**settings(tmp_path, retries=0, policy={"breaker": breaker}))
    assert [(await ask(bench, proxy)).status for _ in range(3)] == [503] * 3
    codes = [one.code for one in noted(proxy) if one.request_id is not None]
    assert codes == ["503"]
