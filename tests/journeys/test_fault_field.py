"""``x-llmproxyd-fault``: a request that asks for its own fault, where that is allowed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import raw
from daemon import Daemon
from raw import CHAT, Recorder, ask, recording

FIELD = "X-LLMProxyd-Fault"
ALLOWED = {"LLMPROXYD_FAULTS__HEADER": "true"}


@pytest.fixture(scope="module")
def recorder() -> Iterator[Recorder]:
    with recording() as found:
        yield found


def configuration(folder: Path, recorder: Recorder) -> str:
    names = ("openai", "anthropic", "google")
    lines = [f"  {name}: {{base_url: '{recorder.url}'}}\n" for name in names]
    file = folder / "llmproxyd.yaml"
    file.write_text("upstreams:\n" + "".join(lines))
    return str(file)


@pytest.fixture(scope="module")
def open_daemon(recorder: Recorder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One that honours the field."""
    file = configuration(tmp_path_factory.mktemp("open"), recorder)
    with Daemon("--config", file, env=ALLOWED) as daemon:
        yield daemon


@pytest.fixture
def proxy(open_daemon: Daemon, recorder: Recorder) -> Daemon:
    open_daemon.command("n")
    recorder.requests.clear()
    return open_daemon


def chat(url: str, fault: str | None = None) -> raw.Answer:
    fields = {"Authorization": "Bearer x"} | ({} if fault is None else {FIELD: fault})
    return ask(url, "/v1/chat/completions", fields, CHAT)


def test_the_field_gives_the_fault_asked_for(proxy: Daemon, recorder: Recorder) -> None:
    answer = chat(proxy.url, "rate_limit; retry_after=2")
    assert (answer.status, answer.error["code"]) == (429, "rate_limit_exceeded")
    assert answer.headers["retry-after"] == "2"
    assert answer.headers["x-llmproxyd-error"] == "injected"
    assert answer.headers["x-llmproxyd-code"] == "rate_limit"
    assert recorder.requests == []
    assert chat(proxy.url).status == 200


@pytest.mark.parametrize(
    ("fault", "status"),
    [("c", 400), ("u", 500), ("unknown", 500), ("Gateway-Timeout", 504), ("quota;retry_after = 0", 429)],
)
def test_kinds_are_named_as_the_operator_names_them(fault: str, status: int, proxy: Daemon) -> None:
    assert chat(proxy.url, fault).status == status


def test_the_field_wins_over_rules_and_uses_none_of_them_up(proxy: Daemon) -> None:
    proxy.command("u *")
    assert chat(proxy.url, "rate_limit").status == 429
    assert chat(proxy.url).status == 500
    proxy.command("c 1")
    assert chat(proxy.url, "rate_limit").status == 429
    assert "next 1 request," in proxy.command("status")
    assert [chat(proxy.url).status for _ in range(2)] == [400, 200]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("ratelimit", 'did you mean "rate_limit"'),
        ("nonsense", "accepted: context_length, rate_limit, server_error"),
        ("rate_limit; for=5m", "accepted: retry_after"),
        ("rate_limit; retry_after=soon", "a number of seconds is accepted"),
        ("rate_limit *", "is no kind of error"),
        ("", "accepted:"),
    ],
)
def test_a_bad_value_is_refused_with_what_is_accepted(
    fault: str, said: str, proxy: Daemon, recorder: Recorder
) -> None:
    answer = chat(proxy.url, fault)
    assert (answer.status, answer.error["code"]) == (400, "bad_fault")
    assert "x-llmproxyd-fault" in answer.error["message"]
    assert said in answer.error["message"]
    assert answer.headers["x-llmproxyd-error"] == "proxy"
    assert recorder.requests == []


def test_a_bad_value_is_refused_in_the_providers_shape(proxy: Daemon) -> None:
    anthropic = ask(proxy.url, "/v1/messages", {"anthropic-version": "2023-06-01", FIELD: "x"}, CHAT)
    assert (anthropic.status, anthropic.json["type"]) == (400, "error")
    assert "accepted:" in anthropic.error["message"]
    google = ask(proxy.url, "/v1beta/models/g:generateContent", {FIELD: "x"}, {"contents": []})
    assert (google.status, google.error["code"], google.error["status"]) == (400, 400, "INVALID_ARGUMENT")
    array = ask(proxy.url, "/v1beta/models/g:streamGenerateContent", {FIELD: "x"}, {"contents": []})
    assert (array.status, [one["error"]["code"] for one in array.json]) == (400, [400])


def test_only_inference_heeds_the_field_and_it_never_goes_on(proxy: Daemon, recorder: Recorder) -> None:
    assert ask(proxy.url, "/v1/models", {FIELD: "rate_limit", "x-other": "kept"}).status == 200
    [(method, target, fields, _)] = recorder.requests
    assert (method, target, fields["x-other"]) == ("GET", "/v1/models", "kept")
    assert not [name for name in fields if name.startswith("x-llmproxyd")]


def test_where_it_is_not_allowed_the_field_does_nothing_and_goes_nowhere(
    recorder: Recorder, tmp_path: Path
) -> None:
    recorder.requests.clear()
    with Daemon("--config", configuration(tmp_path, recorder)) as daemon:
        assert chat(daemon.url, "rate_limit").status == 200
        assert chat(daemon.url, "nonsense").status == 200
    assert len(recorder.requests) == 2
    for _, _, fields, _ in recorder.requests:
        assert not [name for name in fields if name.startswith("x-llmproxyd")]
