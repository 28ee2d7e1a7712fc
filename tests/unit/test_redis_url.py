"""What the URL of a Redis server says, what is never told of it, and what a link to one needs."""

from __future__ import annotations

import sys
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from llmproxyd.redaction import Secret
from llmproxyd.redis.address import Address, address_of
from llmproxyd.redis.connection import library
from llmproxyd.redis.link import RedisLink


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://localhost", Address("localhost")),
        ("redis://h:1/3", Address("h", 1, db=3)),
        ("redis://h/?db=4", Address("h", db=4)),
        ("redis://[::1]:7/0", Address("::1", 7)),
        ("redis://:p%40%2F%3A@h", Address("h", password=Secret("p@/:"))),
        ("redis://user:pw@h", Address("h", user="user", password=Secret("pw"))),
        ("rediss://h", Address("h", tls=True)),
        ("unix:///run/r.sock", Address("", path="/run/r.sock")),
        (
            "redis+unix://:pw@/run/r%20s.sock?db=2",
            Address("", path="/run/r s.sock", password=Secret("pw"), db=2),
        ),
    ],
)
def test_forms(url: str, address: Address) -> None:
    assert address_of(Secret(url)) == address


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:6379",
        "http://geheimnis@h",
        "redis://",
        "redis:///0",
        "redis://:geheimnis@h:port",
        "redis://:geheimnis@h:99999",
        "redis://:geheimnis@h/x",
        "redis://:geheimnis@h/-1",
        "redis://:geheimnis@h/1/2",
        "redis://:geheimnis@h/1?db=2",
        "redis://:geheimnis@h?tls=1",
        "redis://:geheim#nis@h",
        "redis://:geheimnis@[h",
        "unix://run/r.sock",
        "unix://",
    ],
)
def test_wrong_ones_are_refused_without_repeating_them(url: str) -> None:
    with pytest.raises(ValueError, match="must be redis://") as caught:
        address_of(Secret(url))
    assert "geheim" not in str(caught.value)
    assert caught.value.__cause__ is None


@given(st.text(), st.sampled_from(["", "redis://", "unix://", "rediss://:"]))
def test_anything_is_an_address_or_refused(text: str, scheme: str) -> None:
    said = ""
    try:
        address = address_of(Secret(scheme + text))
    except ValueError as error:
        said = str(error)
    assert said.startswith("must be redis://") if said else address.host or address.path


@given(st.text(min_size=1))
def test_password_shows_nowhere(password: str) -> None:
    raw = quote(password, safe="", errors="surrogatepass")
    address = address_of(Secret(f"redis://u:{raw}@h:1/2"))
    assert address.place == "h:1/2"
    assert (
        repr(address) == "Address(host='h', port=1, path='', tls=False, user='u', password=[redacted], db=2)"
    )


def test_missing_package_is_said_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    library.cache_clear()
    monkeypatch.setitem(sys.modules, "txredisapi", None)
    with pytest.raises(ImportError, match=r"pip install 'llmproxyd\[redis\]'"):
        RedisLink(Clock(), Secret("redis://h"))
