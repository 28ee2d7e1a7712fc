"""Who may read the local pages."""

from __future__ import annotations

import pytest

from llmproxyd.model import Request
from llmproxyd.redaction import Secret
from llmproxyd.site.access import allowed, is_local

TOKEN = Secret("admin-token-1")
LOCAL = ["127.0.0.1:5", "127.8.9.10:5", "::1:5", "::ffff:127.0.0.1:5", "[::1]:5", "-"]
FOREIGN = [
    "192.168.0.7:5",
    "0.0.0.0:5",
    "10.0.0.1:5",
    "fe80::1:5",
    "::ffff:10.0.0.1:5",
    ":::5",
    "localhost:5",
    "",
]
FORWARDED = [b"Forwarded", b"X-Forwarded-For", b"x-real-ip", b"X-FORWARDED-HOST"]


def request(peer: str, *fields: tuple[bytes, bytes]) -> Request:
    return Request(b"GET", b"/logs/errors", fields, peer=peer)


@pytest.mark.parametrize("peer", LOCAL)
def test_caller_on_this_machine_may(peer: str) -> None:
    assert is_local(peer)
    assert allowed(request(peer), None)


@pytest.mark.parametrize("peer", FOREIGN)
def test_caller_from_elsewhere_may_not(peer: str) -> None:
    assert not is_local(peer)
    assert not allowed(request(peer), None)
    assert not allowed(request(peer), TOKEN)


@pytest.mark.parametrize("name", FORWARDED)
@pytest.mark.parametrize("peer", LOCAL)
def test_proxy_on_this_machine_may_not(peer: str, name: bytes) -> None:
    assert not allowed(request(peer, (name, b"")), TOKEN)


@pytest.mark.parametrize("scheme", [b"Bearer ", b"bearer ", b"Bearer  "])
def test_admin_may_from_anywhere(scheme: bytes) -> None:
    for peer in (*FOREIGN, *LOCAL):
        assert allowed(
            request(peer, (b"X-Forwarded-For", b"x"), (b"authoriZation", scheme + b"admin-token-1")), TOKEN
        )


@pytest.mark.parametrize(
    "value",
    [b"Bearer admin-token-2", b"Bearer", b"Bearer ", b"admin-token-1", b"Basic admin-token-1", b"\xff"],
)
def test_another_token_is_none(value: bytes) -> None:
    assert not allowed(request("10.0.0.1:5", (b"Authorization", value)), TOKEN)


def test_where_there_is_no_token_none_is_right() -> None:
    for token in (None, Secret("")):
        assert not allowed(request("10.0.0.1:5", (b"Authorization", b"Bearer ")), token)
