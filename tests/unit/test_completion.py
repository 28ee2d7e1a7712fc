"""What Tab offers: whole words, all of which lead on."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmproxyd.faults.language import KINDS, Incomplete
from llmproxyd.language.complete import complete
from llmproxyd.language.lexer import last_word
from llmproxyd.language.table import TABLE

NAMES = {
    "upstream": ["my-vllm", "openai"],
    "breaker": ["openai", "openai/gpt 4"],
    "rule": ["evening"],
    "limit": ["small"],
    "project": ["team a", 'say "hi"', 'it\'s "both"', "b"],
    "namespace": ["llmproxyd"],
    "verb": ["all", *TABLE.firsts],
}


COMMON = [
    "after=", "for=", "max=", "percent=", "place=client", "place=upstream", "place=",
    "upstream=my-vllm", "upstream=openai", "upstream=", "model=", "path=", "stream=yes", "stream=no",
    "stream=",
]  # fmt: skip


def offered(text: str) -> list[str]:
    return complete(TABLE, text, lambda what: NAMES.get(what, ()))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("st", ["stall", "stream_error", "status=", "status"]),
        ("STA", ["stall", "status=", "status"]),
        ("cut 3 at", ["at=start", "at=tool", "at=end", "at="]),
        ("cut 3 ret", []),
        ("r 3 ret", ["retry_after="]),
        ("stall f", ["for="]),
        ("stall for=3s tt", ["ttl="]),
        ("cut tt", []),
        ("slow ", ["*", "first_token=", "per_event=", "tokens_per_second=", "jitter=", *COMMON]),
        ("delay ", ["*", "for=", "ttl=", *(one for one in COMMON if one != "for=")]),
        ("stream_error error=over", ["error=overloaded"]),
        ("status=503 b", ["body="]),
        ("status=503 s", ["stream=yes", "stream=no", "stream="]),
        ("limit r", ["rm", "rpm="]),
        ("limit rpm=3 k", ["key=each", "key=all", "key="]),
        ("limit rpm=3 up", ["upstream=my-vllm", "upstream=openai", "upstream="]),
        ("limit rpm=3 at", []),
        ("limit rm ", ["small"]),
        ("fault add s", ["stall", "stream_error", "slow", "status="]),
        ("fault add cut a", ["at=start", "at=tool", "at=end", "at=", "after="]),
        ("error cut a", ["at=start", "at=tool", "at=end", "at=", "after="]),
        ("br", ["breaker"]),
        ("breaker ", ["show", "trip", "reset", "--json"]),
        ("breaker t", ["trip"]),
        ("breaker trip ", ["openai", '"openai/gpt 4"']),
        ("upstream drain o", ["openai"]),
        ("fault ", ["list", "add", "rm", "clear", "--json"]),
        ("fault rm ", ["evening"]),
        ("fault add error ra", ["rate_limit"]),
        ("error ", [*KINDS, "unknown"]),
        ("error over", ["overloaded"]),
        ("r 3 up", ["upstream=my-vllm", "upstream=openai", "upstream="]),
        ("r 3 upstream=o", ["upstream=openai"]),
        ("r 3 upstream=openai up", []),
        ("r 3 stream=", ["stream=yes", "stream=no"]),
        ("requests t", ["tail", "test="]),
        ("requests upstream=m", ["upstream=my-vllm"]),
        ("requests tail stat", ["status>=", "status="]),
        ("token create --project ", ['"team a"', "'say \"hi\"'", "b"]),
        ("token create --project=b", []),
        ("token create --project=te", ['--project="team a"']),
        ("token create --project te", ['"team a"']),
        ('token create --project "te', ['"team a"']),
        ("project create x --r", ["--rpm", "--require-header"]),
        ("project create x --rpm 3 --r", ["--require-header"]),
        ("project create x --rpm ", ["none"]),
        ("cache purge ", ["--url", "--prefix", "--project", "--all"]),
        ("cache purge --all ", ["--json"]),
        ("log level llmproxyd d", ["debug"]),
        ("help upst", ["upstream"]),
        ("status --json ", []),
        ("nonsense ", []),
        ("breaker melt ", []),
        ("n ", ["--json"]),
    ],
)
def test_last_word_is_completed(text: str, words: list[str]) -> None:
    assert offered(text) == words


def test_nothing_typed_offers_every_verb() -> None:
    assert offered("") == TABLE.firsts


def leads_on(text: str) -> bool:
    try:
        TABLE.parse(text)
    except Incomplete:
        return True
    return True


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_all_that_is_offered_leads_on_wherever_one_goes(data: st.DataObject) -> None:
    text = ""
    for _ in range(8):
        words = offered(text)
        for word in words:
            assert leads_on(text[: last_word(text)] + word), (text, word)
        if not words:
            break
        text = text[: last_word(text)] + data.draw(st.sampled_from(words))
        if not text.endswith("="):
            text += " "


@settings(deadline=None)
@given(st.text() | st.lists(st.sampled_from([*TABLE.firsts, "--rpm", "'", '"', "=", " ", "x"])).map(" ".join))
def test_any_text_can_be_completed(text: str) -> None:
    for word in offered(text):
        assert leads_on(text[: last_word(text)] + word)
