"""A stored key on loopback is spent by programs, and by no web page."""

from __future__ import annotations

import pytest

from llmproxyd.access.allowlist import Allow
from llmproxyd.errors import Refused
from llmproxyd.model import Request
from llmproxyd.pipeline.guard import check_browser, is_local_name
from llmproxyd.pipeline.policy import Upstream
from llmproxyd.providers.openai import PROVIDER
from llmproxyd.redaction import Secret

KEYED = Upstream(
    name="mine",
    provider=PROVIDER,
    base_url="https://api.example",
    keys=(Secret("sk-secret"),),
    allow=Allow(origins=("http://localhost:3000",)),
)
KEYLESS = Upstream(name="mine", provider=PROVIDER, base_url="https://api.example")

LOCAL = ["", "localhost", "LOCALHOST", "app.localhost", "127.0.0.1", "127.8.9.10", "[::1]", "::1"]
FOREIGN = [
    "evil.example",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "evillocalhost",
    "192.168.0.7",
    "0.0.0.0",
    "[::]",
    "10.0.0.1",
    "127.1",
    "2130706433",
    "[fe80::1]",
    " ",
]


def request(*fields: tuple[bytes, bytes]) -> Request:
    return Request(b"POST", b"/v1/chat/completions", fields)


def refusal(upstream: Upstream, *fields: tuple[bytes, bytes]) -> str | None:
    """The code of the refusal, ``None`` when the request may go on."""
    try:
        check_browser(request(*fields), upstream)
    except Refused as error:
        return error.code
    return None


@pytest.mark.parametrize("host", LOCAL)
def test_local_name_is_local(host: str) -> None:
    assert is_local_name(host.lower())
    assert refusal(KEYED, (b"Host", host.encode())) is None


@pytest.mark.parametrize("host", FOREIGN)
def test_foreign_name_is_refused_where_a_key_is_stored(host: str) -> None:
    assert not is_local_name(host)
    if host.strip():
        for port in ("", ":8888"):
            assert refusal(KEYED, (b"hOST", (host + port).encode())) == "host_not_allowed"
    assert refusal(KEYLESS, (b"Host", host.encode())) is None


def test_port_does_not_matter() -> None:
    for host in (b"localhost:8888", b"127.0.0.1:1", b"[::1]:8888"):
        assert refusal(KEYED, (b"Host", host)) is None


ORIGINS = [
    (b"http://localhost:3000", None),
    (b"http://localhost:3001", "origin_not_allowed"),
    (b"https://localhost:3000", "origin_not_allowed"),
    (b"https://evil.example", "origin_not_allowed"),
    (b"null", "origin_not_allowed"),
    (b"", "origin_not_allowed"),
    (b"\xff", "origin_not_allowed"),
]


@pytest.mark.parametrize(("origin", "code"), ORIGINS)
def test_only_listed_web_pages_may_spend_a_stored_key(origin: bytes, code: str | None) -> None:
    fields = ((b"Host", b"localhost:8888"), (b"ORIGIN", origin))
    assert refusal(KEYED, *fields) == code
    assert refusal(KEYLESS, *fields) is None


def test_listed_page_under_a_foreign_name_is_refused() -> None:
    """DNS rebinding: the page's own name leads here."""
    fields = ((b"Host", b"evil.example"), (b"Origin", b"http://localhost:3000"))
    assert refusal(KEYED, *fields) == "host_not_allowed"


def test_refusals_are_403_and_hold_no_key() -> None:
    with pytest.raises(Refused) as caught:
        check_browser(request((b"Host", b"evil.example")), KEYED)
    assert caught.value.status == 403
    assert "sk-secret" not in caught.value.message


def test_refusals_say_what_would_be_allowed() -> None:
    with pytest.raises(Refused, match=r"localhost, 127\.0\.0\.1 and \[::1\]"):
        check_browser(request((b"Host", b"x")), KEYED)
    with pytest.raises(Refused, match=r"upstreams\.mine\.allow\.origins"):
        check_browser(request((b"Origin", b"x")), KEYED)
