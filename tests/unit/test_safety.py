"""Whether others can spend a key that is stored."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from twisted.internet.address import IPv4Address

from llmproxyd.listen import Listening, StartError
from llmproxyd.pipeline.policy import Upstream
from llmproxyd.providers.openai import PROVIDER
from llmproxyd.redaction import Secret
from llmproxyd.safety import exposure

KEYED = Upstream(name="a", provider=PROVIDER, base_url="https://a", keys=(Secret("sk-1"),))
KEYLESS = Upstream(name="a", provider=PROVIDER, base_url="https://a")


def listening(host: str) -> Listening:
    port = SimpleNamespace(getHost=lambda: IPv4Address("TCP", host, 1))
    return Listening([port], [f"http://{host}:1"])  # type: ignore[list-item]


LOOPBACK, EVERYWHERE = listening("127.0.0.1"), listening("0.0.0.0")


def test_on_loopback_nothing_is_exposed():
    assert exposure(LOOPBACK, {"a": KEYED}, meant=False) == []


def test_a_stored_key_beyond_loopback_ends_the_start():
    with pytest.raises(StartError, match=r"upstreams\.a.*server\.open: true"):
        exposure(EVERYWHERE, {"a": KEYED}, meant=False)


@pytest.mark.parametrize("given", [{"meant": True}, {"meant": False, "imported": True}])
def test_it_is_warned_of_where_it_is_meant_or_imported(given):
    (warning,) = exposure(EVERYWHERE, {"a": KEYED}, **given)
    assert "spend your key" in warning


def test_without_a_key_others_use_the_proxy_alone():
    (warning,) = exposure(EVERYWHERE, {"a": KEYLESS}, meant=False)
    assert "use this proxy" in warning


@pytest.mark.parametrize("upstream", [KEYED, KEYLESS], ids=["keyed", "keyless"])
@pytest.mark.parametrize("imported", [True, False])
def test_where_tokens_guard_it_nothing_is_exposed(upstream, imported):
    assert exposure(EVERYWHERE, {"a": upstream}, meant=False, imported=imported, guarded=True) == []
