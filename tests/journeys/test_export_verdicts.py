"""Yesterday's outage as today's test: what a run exports leads the same client to the same verdicts."""

from __future__ import annotations

import time
from pathlib import Path

import raw

from llmproxyd.testing.rehearsed import Rehearsed, rehearsed

CHAT = "/to/openai/v1/chat/completions"
OUTAGE = "r retry_after=2 x2, ok, error context_length x2, error overloaded, truncate, ok *"


def hasty(url: str) -> list[int]:
    """A client that comes back at once, whatever it was told, and takes any end of a stream for the end."""
    connection = raw.connect(url)
    seen = []
    try:
        for number, tries in enumerate((3, 2, 2, 1)):
            body = {
                "model": "gpt-4o",
                "messages": [{"role": "user", "content": f"question {number}"}],
                "stream": number == 2,
            }
            for _ in range(tries):
                fields = {"Authorization": "Bearer sk-hasty", "User-Agent": "hasty/1"}
                seen.append(raw.send(connection, "POST", CHAT, fields, body).status)
                time.sleep(0.1)
    finally:
        connection.close()
    return seen


def judged(proxy: Rehearsed) -> list[tuple[object, ...]]:
    """The verdicts, without ids and times."""
    return sorted((one["name"], one["path"], len(one["requests"])) for one in proxy.verdicts)


def test_an_exported_run_gives_the_same_faults_and_the_same_verdicts(tmp_path: Path) -> None:
    with rehearsed() as proxy:
        proxy.scenario(OUTAGE)
        first = hasty(proxy.url), judged(proxy)
        exported = proxy.command("scenario export")["text"]
    assert first[0] == [429, 429, 200, 400, 400, 503, 200, 200]
    names = {name for name, *_ in first[1]}
    assert {"retry_after_ignored", "retried_hopeless", "truncation_unnoticed"} <= names
    file = tmp_path / "yesterday.yaml"
    file.write_text(str(exported))
    with rehearsed("--scenario", str(file)) as proxy:
        assert (hasty(proxy.url), judged(proxy)) == first
