"""What is said at start: every variable to export, what is in force, what to beware of."""

from __future__ import annotations

from dataclasses import replace

import pytest

from llmproxyd.observe.banner import GOOSE, SDKS, Facts, Place, banner, variables
from llmproxyd.providers.registry import built_in
from llmproxyd.resilience.timeouts import Timeouts

URL = "http://127.0.0.1:8888"
PROVIDERS = built_in()

FACTS = Facts(
    version="1.2.3",
    addresses=[URL, "http://[::1]:8888"],
    state_folder="/var/lib/llmproxyd",
    source=None,
    upstreams=[
        Place("anthropic", "anthropic", "https://api.anthropic.com", keyed=True),
        Place("mine", "vllm", "http://10.0.0.1:8000", keyed=False),
        Place("openai", "openai", "https://api.openai.com", keyed=False),
    ],
    default="openai",
    providers=PROVIDERS,
    timeouts=Timeouts(connect=10, headers=600, idle=90),
    sandbox=False,
    notes=[],
    warnings=[],
    symbols=False,
)
SANDBOX = replace(
    FACTS,
    sandbox=True,
    upstreams=[Place(one.name, one.name, f"http://127.0.0.1:9/{one.name}", keyed=False) for one in PROVIDERS],
)


def exports(text: str) -> dict[str, str]:
    """The variables of all export lines."""
    words = [word for line in text.splitlines() if line.startswith("  export ") for word in line.split()[1:]]
    return dict(word.split("=", 1) for word in words)


GOOSE_NAMES = [
    "OPENAI_HOST",
    "ANTHROPIC_HOST",
    "GOOGLE_HOST",
    "OPENROUTER_HOST",
    "TETRATE_HOST",
    "DATABRICKS_HOST",
]


@pytest.mark.parametrize("facts", [FACTS, SANDBOX], ids=["plain", "sandbox"])
def test_every_variable_of_goose_and_the_sdks_is_there(facts: Facts) -> None:
    found = exports(banner(facts))
    assert {name: found[name] for name in GOOSE_NAMES} == dict.fromkeys(GOOSE_NAMES, URL)
    assert found["OPENAI_BASE_URL"] == f"{URL}/v1"
    assert found["ANTHROPIC_BASE_URL"] == URL
    assert found["GOOGLE_GEMINI_BASE_URL"] == URL


def test_variables_stand_under_their_headings() -> None:
    text = banner(FACTS)
    goose, _, sdks = text.partition("OpenAI, Anthropic and Google SDKs")
    assert list(exports(goose)) == list(GOOSE) == GOOSE_NAMES
    assert set(exports(sdks)) == set(SDKS)


def test_dummy_keys_are_there_with_the_sandbox_alone() -> None:
    assert set(exports(banner(FACTS))) == {*GOOSE, *SDKS}
    found = exports(banner(SANDBOX))
    keys = {name for name in found if name not in (*GOOSE, *SDKS)}
    assert {"OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY"} <= keys
    assert {found[name] for name in keys} == {"sandbox"}


def test_variables_are_those_of_the_known_providers() -> None:
    few = [one for one in PROVIDERS if one.name == "anthropic"]
    assert variables(URL, few, sandbox=False) == {"ANTHROPIC_HOST": URL, "ANTHROPIC_BASE_URL": URL}
    assert variables(URL, few, sandbox=True)["ANTHROPIC_API_KEY"] == "sandbox"


def test_clients_are_pointed_at_the_first_address() -> None:
    facts = replace(FACTS, addresses=["http://[::1]:9999", URL])
    assert exports(banner(facts))["OPENAI_HOST"] == "http://[::1]:9999"


def test_addresses_folder_and_file_are_told() -> None:
    text = banner(FACTS)
    assert "llmproxyd 1.2.3\n" in text
    assert "Listening on http://127.0.0.1:8888, http://[::1]:8888\n" in text
    assert "State folder: /var/lib/llmproxyd\n" in text
    assert "Configuration: defaults\n" in text
    assert "Configuration: /etc/x.yaml\n" in banner(replace(FACTS, source="/etc/x.yaml"))


def test_upstreams_are_told_with_what_is_special_about_each() -> None:
    text = banner(FACTS)
    assert "  anthropic  https://api.anthropic.com  (with a stored key)\n" in text
    assert "  mine       http://10.0.0.1:8000  (speaks vllm)\n" in text
    assert "  openai     https://api.openai.com  (default)\n" in text


def test_timeouts_and_retries_are_told_in_a_line() -> None:
    assert "Timeouts: connect 10s, headers 10m, idle 1m30s; retries: none\n" in banner(FACTS)


def test_sandbox_is_named_as_what_answers() -> None:
    text = banner(SANDBOX)
    assert "(sandbox)" in text
    assert "all answered by the sandbox at http://127.0.0.1:9\n" in text
    assert "sandbox" not in banner(FACTS)


def test_every_warning_and_note_is_told() -> None:
    text = banner(
        replace(FACTS, warnings=["anyone can spend your key", "x is read by others"], notes=["a note"])
    )
    assert "\nWARNING: anyone can spend your key\nWARNING: x is read by others\n" in text
    assert "\na note\n" in text
    assert "WARNING" not in banner(FACTS)


def test_symbols_are_for_terminals_that_show_them() -> None:
    warned = replace(FACTS, warnings=["beware"])
    assert banner(warned).isascii()
    text = banner(replace(warned, symbols=True))
    assert "🔧 llmproxyd" in text
    assert "⚠️  WARNING: beware" in text


def test_banner_is_whole_lines_between_rules() -> None:
    lines = banner(FACTS).splitlines()
    assert lines[0] == lines[2] == lines[-1] == "=" * 60
    assert banner(FACTS).endswith("\n")


def test_a_place_has_no_room_for_a_key() -> None:
    assert set(Place.__slots__) == {"name", "provider", "base_url", "keyed", "absorbs"}


SINGLE = [
    ("openai", "https://example.com/proxy/service", "", "/v1"),
    ("openai", "https://example.com/v1", "", ""),
    ("venice", "https://api.venice.ai/api/v1", "/api/v1", "/api/v1"),
    ("anthropic", "https://api.anthropic.com", "", ""),
]


@pytest.mark.parametrize(("provider", "base_url", "prefix", "path"), SINGLE)
def test_where_all_goes_to_one_upstream_one_variable_points_there(
    provider: str, base_url: str, prefix: str, path: str
) -> None:
    place = Place("target", provider, base_url, keyed=False)
    facts = replace(
        FACTS, upstreams=[*FACTS.upstreams, place], single="target", default="target", prefix=prefix
    )
    text = banner(facts)
    variable = "ANTHROPIC_BASE_URL" if provider == "anthropic" else "OPENAI_BASE_URL"
    assert exports(text) == {variable: URL + path}
    assert base_url in text
    assert "10.0.0.1" not in text


def test_the_preset_is_named() -> None:
    assert "Configuration: preset venice" in banner(replace(FACTS, preset="venice"))
    assert "Configuration: c.yaml, preset team" in banner(replace(FACTS, source="c.yaml", preset="team"))
    assert "Configuration: defaults" in banner(FACTS)


def test_what_is_absorbed_stands_beside_its_upstream() -> None:
    places = [replace(FACTS.upstreams[0], absorbs=("3 retries", "breaker")), *FACTS.upstreams[1:]]
    text = banner(replace(FACTS, upstreams=places))
    assert "https://api.anthropic.com  (with a stored key, 3 retries, breaker)" in text
    assert "retries: none" not in text
    assert "retries: none" in banner(FACTS)
