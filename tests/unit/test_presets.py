"""Presets, and the variables of the programs that they stand in for."""

from __future__ import annotations

import pytest
from test_config import problems

from llmproxyd.config.dump import dump
from llmproxyd.config.load import ConfigError, load, presets
from llmproxyd.config.schema import Config
from llmproxyd.providers.registry import registry
from llmproxyd.resilience.policy import Resilience

PROVIDERS = registry()
HOME = {"HOME": "/h"}


def preset(name: str, **environ: str) -> Config:
    return load(preset=name, environ=HOME | environ, providers=PROVIDERS)


def wrong(**environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        preset("venice", **environ)
    return [str(problem) for problem in caught.value.problems]


def test_the_presets_are_these():
    assert presets() == ["gateway", "goose", "sillytavern", "team", "venice"]


@pytest.mark.parametrize("name", presets())
def test_a_preset_loads_without_warnings(name):
    assert preset(name).warnings == ()


@pytest.mark.parametrize("name", presets())
def test_a_preset_that_is_printed_loads_again_to_the_same(name, tmp_path):
    config = preset(name)
    file = tmp_path / "x.yaml"
    file.write_text(dump(config))
    again = load(file=file, environ=HOME, providers=PROVIDERS)
    assert again == config
    assert dump(again) == dump(config)
    assert not again.imported


@pytest.mark.parametrize("name", ["gateway", "goose", "sillytavern", "team"])
def test_a_preset_listens_on_loopback_alone(name):
    assert all("interface=127.0.0.1" in one or r"interface=\:\:1" in one for one in preset(name).listen)


def test_goose_is_the_defaults():
    assert preset("goose") == load(environ=HOME, providers=PROVIDERS)


def test_team_retries_breaks_and_records_failures():
    config = preset("team")
    policy = config.resilience["default"]
    assert (policy.retry.max_retries, policy.breaker.enabled) == (3, True)
    assert (config.error_logging.enabled, config.logging.enabled) == (True, False)


def test_sillytavern_is_what_its_middleware_does_without_a_target():
    config = preset("sillytavern")
    policy = config.resilience["default"]
    assert config.listen == ("tcp:8765:interface=127.0.0.1", r"tcp6:8765:interface=\:\:1")
    assert (policy.retry.max_retries, policy.retry.base_delay, policy.retry.max_delay) == (10, 1.0, 60.0)
    assert policy.retry.retry_codes is None
    breaker = policy.breaker
    assert (breaker.enabled, breaker.failure_threshold, breaker.recovery_timeout) == (True, 5, 60.0)
    assert config.logging.enabled
    assert config.error_logging.enabled


def test_a_file_is_stronger_than_its_preset(tmp_path):
    file = tmp_path / "x.yaml"
    file.write_text("resilience: {default: {retry: {max_retries: 1}}}\nerror_logging: {enabled: false}")
    config = load(file=file, preset="team", environ=HOME, providers=PROVIDERS)
    policy = config.resilience["default"]
    assert (policy.retry.max_retries, policy.breaker.enabled) == (1, True)
    assert not config.error_logging.enabled


# Venice.


def test_venice_without_variables_is_its_proxy_by_default():
    config = preset("venice")
    assert config.listen == ("tcp:9000:interface=0.0.0.0",)
    assert (config.server.single_upstream, config.default_upstream) == ("venice", "venice")
    assert config.server.path_prefix == "/api/v1"
    upstream = config.upstreams["venice"]
    assert (upstream.provider, upstream.base_url) == ("venice", "https://api.venice.ai/api/v1")
    assert (upstream.api_key, upstream.api_keys) == (None, ())
    assert (config.timeouts.headers, config.timeouts.idle) == (300.0, 300.0)
    retry = config.resilience["default"].retry
    assert (retry.max_retries, retry.base_delay, retry.rate_limit_wait) == (5, 1.0, 30.0)


def test_venice_drops_and_changes_what_it_does_not_take():
    body, embeddings, tags = preset("venice").upstreams["venice"].transform
    assert body.drop == ("prompt_cache_key", "logprobs", "top_logprobs")
    assert dict(body.drop_unless) == {"parallel_tool_calls": "boolean"}
    assert body.endpoints == ()
    assert embeddings.endpoints == ("embeddings",)
    assert {name: dict(by) for name, by in embeddings.replace.items()} == {
        "encoding_format": {"base64": "float"}
    }
    # The prefix is taken off before paths are looked at.
    (path,) = tags.paths
    assert (path.match, path.to, path.root) == ("/api/tags", "/api/tags", True)


VARIABLES = [
    (
        "OPENAI_BASE_URL",
        "http://localhost:1/v1/",
        lambda c: c.upstreams["venice"].base_url,
        "http://localhost:1/v1",
    ),
    ("PROXY_PATH_PREFIX", "/x/", lambda c: c.server.path_prefix, "/x"),
    ("PROXY_PATH_PREFIX", "/", lambda c: c.server.path_prefix, ""),
    ("PROXY_PATH_PREFIX", "", lambda c: c.server.path_prefix, ""),
    ("TIMEOUT", "12.5", lambda c: (c.timeouts.headers, c.timeouts.idle), (12.5, 12.5)),
    ("MAX_RETRIES", "0", lambda c: c.resilience["default"].retry.max_retries, 0),
    ("BASE_RETRY_DELAY", "0.5", lambda c: c.resilience["default"].retry.base_delay, 0.5),
    ("RATE_LIMIT_WAIT", "7", lambda c: c.resilience["default"].retry.rate_limit_wait, 7.0),
    ("HOST", "127.0.0.1", lambda c: c.listen, ("tcp:9000:interface=127.0.0.1",)),
    ("HOST", "localhost", lambda c: c.listen, ("tcp:9000:interface=127.0.0.1", r"tcp6:9000:interface=\:\:1")),
    ("HOST", "::", lambda c: c.listen, (r"tcp6:9000:interface=\:\:",)),
    ("HOST", "[::1]", lambda c: c.listen, (r"tcp6:9000:interface=\:\:1",)),
    ("PORT", "80", lambda c: c.listen, ("tcp:80:interface=0.0.0.0",)),
    ("PORT", "", lambda c: c.listen, ("tcp:9000:interface=0.0.0.0",)),
    ("OPENAI_BASE_URL", "", lambda c: c.upstreams["venice"].base_url, "https://api.venice.ai/api/v1"),
]


@pytest.mark.parametrize(
    ("variable", "text", "read", "value"), VARIABLES, ids=[f"{name}={text}" for name, text, _, _ in VARIABLES]
)
def test_a_variable_of_the_venice_proxy_holds_with_its_preset_alone(variable, text, read, value):
    assert read(preset("venice", **{variable: text})) == value
    for other in ("goose", "team", "sillytavern"):
        assert preset(other, **{variable: text}) == preset(other)


@pytest.mark.parametrize(
    ("variable", "text", "expected"),
    [
        (
            "OPENAI_BASE_URL",
            "localhost:1",
            'upstreams.venice.base_url: found "localhost:1"; accepted: an http or',
        ),
        ("PROXY_PATH_PREFIX", "x", 'server.path_prefix: found "x"; accepted: a path'),
        ("TIMEOUT", "soon", 'timeouts.headers: found "soon"; accepted: a duration'),
        ("TIMEOUT", "0", "timeouts.idle: found 0, which would end every request"),
        ("MAX_RETRIES", "-1", "resilience.default.retry.max_retries: found -1; accepted: 0 or more"),
        (
            "MAX_RETRIES",
            "many",
            'resilience.default.retry.max_retries: found "many"; accepted: a whole number',
        ),
        ("BASE_RETRY_DELAY", "-1", 'resilience.default.retry.base_delay: found "-1"; accepted: a duration'),
        ("RATE_LIMIT_WAIT", "x", 'resilience.default.retry.rate_limit_wait: found "x"; accepted: a duration'),
        ("HOST", "a b", 'listen: found "a b"; accepted: an address such as "127.0.0.1"'),
        ("HOST", "1.2.3", 'listen: found "1.2.3"; accepted: an address'),
        ("HOST", "1:2", 'listen: found "1:2"; accepted: an address'),
        ("HOST", "x:backlog=1", "accepted: an address"),
        ("PORT", "65536", 'listen: found "65536"; accepted: a port, 0 to 65535'),
        ("PORT", "-1", 'listen: found "-1"; accepted: a port'),
        ("PORT", "tcp://172.17.0.2:80", "accepted: a port"),
        ("PORT", "٣", "accepted: a port"),
    ],
)
def test_a_wrong_variable_is_reported_under_its_name(variable, text, expected):
    found = wrong(**{variable: text})
    assert all(one.startswith(f"environment {variable}: ") for one in found)
    assert expected in "\n".join(found)


def test_wrong_variables_are_reported_together_with_everything_else():
    found = wrong(PORT="x", HOST="a b", TIMEOUT="y", LLMPROXYD_LOGGING__LEVEL="loud")
    assert {one.split(": ")[0] for one in found} == {
        "environment PORT",
        "environment HOST",
        "environment TIMEOUT",
        "environment LLMPROXYD_LOGGING__LEVEL",
    }


def test_a_variable_is_stronger_than_a_file_and_weaker_than_our_own(tmp_path):
    file = tmp_path / "x.yaml"
    file.write_text("listen: ['tcp:1']\ntimeouts: {headers: 1, idle: 2}")
    environ = HOME | {"TIMEOUT": "3", "LLMPROXYD_TIMEOUTS__IDLE": "4"}
    config = load(file=file, preset="venice", environ=environ, providers=PROVIDERS)
    assert (config.timeouts.headers, config.timeouts.idle) == (3.0, 4.0)
    assert config.listen == ("tcp:1",)
    config = load(file=file, preset="venice", environ=HOME | {"PORT": "5"}, providers=PROVIDERS)
    assert config.listen == ("tcp:5:interface=0.0.0.0",)


def test_a_file_can_say_that_another_api_is_spoken(tmp_path):
    file = tmp_path / "x.yaml"
    file.write_text("upstreams: {venice: {provider: openai}}")
    upstream = load(file=file, preset="venice", environ=HOME, providers=PROVIDERS).upstreams["venice"]
    assert (upstream.provider, len(upstream.transform)) == ("openai", 3)


def test_a_table_of_variables_belongs_to_presets_alone(tmp_path):
    (found,) = problems(tmp_path, "environment: {X: {default: 1, sets: [listen.port]}}")
    assert "x.yaml:1: environment: unknown key" in found


@pytest.mark.parametrize(
    ("given", "imported"),
    [
        ({"preset": "venice"}, True),
        ({"preset": "venice", "environ": {"PORT": "1"}}, True),
        ({"preset": "venice", "overrides": {("listen",): (["tcp:1"], "--port")}}, False),
        ({"preset": "team"}, False),
        ({"preset": "team", "overrides": {("listen",): (["tcp:1"], "--interface")}}, False),
        ({"preset": "goose"}, False),
        ({}, False),
    ],
)
def test_where_it_listens_is_imported_if_a_preset_says_so(given, imported):
    assert load(**{"environ": HOME, "providers": PROVIDERS, **given}).imported is imported


def test_a_native_file_is_never_imported(tmp_path):
    file = tmp_path / "x.yaml"
    file.write_text("upstreams: {venice: {api_key: k}}")
    file.chmod(0o600)
    assert not load(file=file, preset="venice", environ=HOME, providers=PROVIDERS).imported


def test_without_a_preset_nothing_is_absorbed():
    assert load(environ=HOME, providers=PROVIDERS).resilience == {}
    assert not Resilience().holds
