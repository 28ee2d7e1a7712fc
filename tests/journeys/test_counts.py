"""How many requests are hit: counts, shares, and what clients read of a delay."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import raw
from daemon import PATIENCE, Daemon

ASK = {"openai": raw.openai, "anthropic": raw.anthropic, "google": raw.google}
CONTEXT = {
    "openai": '"code":"context_length_exceeded"',
    "anthropic": '"message":"prompt is too long',
    "google": '"status":"INVALID_ARGUMENT"',
}


def is_context_error(name: str, answer: raw.Answer) -> bool:
    return answer.status == 400 and answer.injected and CONTEXT[name] in answer.body.decode()


@pytest.mark.parametrize("name", ASK)
def test_c_fails_exactly_one_request_in_its_providers_words(name: str, proxy: Daemon) -> None:
    said = proxy.command("c")
    assert "Context length exceeded (next 1 request, for 8h more)" in said
    assert is_context_error(name, ASK[name](proxy.url))
    assert [ASK[name](proxy.url).status for _ in range(3)] == [200] * 3
    assert "No error" in proxy.command("status")


@pytest.mark.parametrize("name", ASK)
def test_c_after_1_hits_the_second(name: str, proxy: Daemon) -> None:
    proxy.command("c after=1")
    answers = [ASK[name](proxy.url) for _ in range(3)]
    assert [is_context_error(name, answer) for answer in answers] == [False, True, False]
    assert [answer.status for answer in answers] == [200, 400, 200]


def test_c_3_speaks_to_three_providers_in_their_own_words(proxy: Daemon) -> None:
    proxy.command("c 3")
    for name in ASK:
        assert is_context_error(name, ASK[name](proxy.url))
    assert [ask(proxy.url).status for ask in ASK.values()] == [200] * 3


def test_what_is_not_inference_uses_nothing_up(proxy: Daemon) -> None:
    proxy.command("c 1")
    assert raw.ask(proxy.url, "/v1/models").status == 200
    assert raw.ask(proxy.url, "/health").status == 200
    assert "next 1 request," in proxy.command("status")
    assert raw.openai(proxy.url).status == 400


def test_the_end_of_a_count_is_logged(proxy: Daemon) -> None:
    proxy.command("u 2")
    start = len(proxy.output)
    assert [raw.openai(proxy.url).status for _ in range(3)] == [500, 500, 200]
    assert proxy.wait_for(r"Mode: No error \(pass through\) \(its count is used up\)", start)


@pytest.mark.parametrize("text", ["c*", "c *", "C *", "c 100%", "c100 %", " c  1.0 "])
def test_every_way_to_say_every_request(text: str, proxy: Daemon) -> None:
    assert "every request" in proxy.command(text)
    assert [raw.openai(proxy.url).status for _ in range(3)] == [400] * 3


@pytest.mark.parametrize("text", ["c 0", "c 0%", "c 0.0"])
def test_nothing_is_said_to_be_nothing(text: str, proxy: Daemon) -> None:
    proxy.command("u *")
    said = proxy.command(text)
    assert "the same as n" in said
    assert "No error" in said
    assert raw.openai(proxy.url).status == 200


@pytest.mark.parametrize(
    "text", ["n 3", "c 1.5", "c -1", "x", "c 101%", "error nonsense", "c upstream=opnai"]
)
def test_a_mistake_changes_nothing_and_says_what_is_accepted(text: str, proxy: Daemon) -> None:
    proxy.command("r *")
    said = proxy.command(text)
    assert "Nothing has changed" in said
    assert re.search(r"accepted|takes nothing|a share goes from|known:", said)
    assert raw.openai(proxy.url).status == 429


def test_a_delay_is_told_when_asked_for_and_only_then(proxy: Daemon) -> None:
    for name, ask in ASK.items():
        proxy.command("r 2 retry_after=0")
        assert [ask(proxy.url).headers.get("retry-after") for _ in range(2)] == ["0", "0"], name
        proxy.command("r")
        assert "retry-after" not in ask(proxy.url).headers, name


def test_100_of_300_requests_on_64_connections_fail(proxy: Daemon) -> None:
    proxy.command("c 100")
    shares = [300 // 64 + (1 if number < 300 % 64 else 0) for number in range(64)]
    assert sum(shares) == 300
    together = Barrier(64, timeout=PATIENCE)

    def client(requests: int) -> list[tuple[int, bool]]:
        connection = raw.connect(proxy.url)
        connection.connect()
        together.wait()
        try:
            answers = [
                raw.send(connection, "POST", "/v1/chat/completions", {"Authorization": "Bearer x"}, raw.CHAT)
                for _ in range(requests)
            ]
        finally:
            connection.close()
        return [(answer.status, answer.injected) for answer in answers]

    with ThreadPoolExecutor(64) as pool:
        found = [one for answers in pool.map(client, shares) for one in answers]
    assert found.count((400, True)) == 100
    assert found.count((200, False)) == 200
    assert "No error" in proxy.command("status")


def sequence(daemon: Daemon, length: int = 40) -> list[int]:
    return [raw.openai(daemon.url).status for _ in range(length)]


def test_a_seed_repeats_which_requests_a_share_hits() -> None:
    found = []
    for _ in range(2):
        with Daemon("--sandbox", "--mode", "c 30%", env={"LLMPROXYD_FAULTS__SEED": "7"}) as daemon:
            found.append(sequence(daemon))
    assert found[0] == found[1]
    assert 2 < found[0].count(400) < 25


def test_a_drawn_seed_is_told_and_repeats_the_run() -> None:
    with Daemon("--sandbox", "--no-stdin", "--mode", "r 50%") as daemon:
        told = daemon.wait_for(r"faults\.seed: (\d+) repeats this run")
        first = sequence(daemon)
    with Daemon("--sandbox", env={"LLMPROXYD_FAULTS__SEED": told.group(1)}) as daemon:
        said = daemon.command("r 50%")
        assert "50 % of requests" in said
        assert "faults.seed" not in said
        assert sequence(daemon) == first
    assert {200, 429} == set(first)
