"""The gateway proxy package's own file and variables, read as they are."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from llmproxyd.config.dump import dump
from llmproxyd.config.load import ConfigError, Problem, load
from llmproxyd.config.schema import Config
from llmproxyd.providers.registry import registry
from llmproxyd.redaction import Secret

PROVIDERS = registry()
FOLDER = Path(tempfile.mkdtemp())
HOME = {"HOME": "/h"}

PRINTED = """\
default_api: openai
apis:
  openai:
    base_url: https://api.openai.com
    allowed_endpoints:
      - /v1/chat/completions
      - /v1/embeddings
    allowed_methods:
      - GET
      - POST
    timeouts:
      request: 120s
      response_header: 30s
    connection:
      max_idle_conns: 100
      max_idle_conns_per_host: 20
"""

WHOLE = """\
# The default API
default_api: openai

apis:
  openai:
    base_url: https://api.openai.com
    allowed_endpoints: [/v1/chat/completions, /v1/models, /v1/files/]
    allowed_methods: [GET, POST, OPTIONS]
    timeouts:
      request: 120s
      response_header: 30s
      idle_connection: 80s
      flush_interval: 10ms
    connection:
      max_idle_conns: 100
      max_idle_conns_per_host: 20
    param_whitelist:
      model:
        - gpt-4o
        - gpt-4o-*
    allowed_origins:
      - https://www.example.com
      - http://localhost:4000
    required_headers:
      - Origin
  anthropic:
    base_url: https://api.anthropic.com
    allowed_endpoints: [/v1/messages]
    allowed_methods: [POST]
"""

MINIMAL = """\
apis:
  one:
    base_url: http://one.example
    allowed_endpoints: [/]
    allowed_methods: [GET]
"""


def load_text(folder: Path, text: str, **given: object) -> Config:
    file = folder / "api_providers.yaml"
    file.write_text(text)
    return load(file=file, providers=PROVIDERS, **{"environ": HOME, **given})


def problems(folder: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_text(folder, text)
    return [str(problem).replace(f"{folder}/", "") for problem in caught.value.problems]


def test_the_printed_file_works_unchanged(tmp_path):
    config = load_text(tmp_path, PRINTED)
    assert config.warnings == ()
    assert config.imported
    assert config.preset == "gateway"
    assert config.access.enabled
    assert not config.operator.faults
    assert config.listen == ("tcp:8080:interface=127.0.0.1", r"tcp6:8080:interface=\:\:1")
    assert (config.default_upstream, config.server.single_upstream) == ("openai", "openai")
    upstream = config.upstreams["openai"]
    assert (upstream.provider, upstream.base_url) == ("openai", "https://api.openai.com")
    assert upstream.allow.methods == ("GET", "POST")
    assert upstream.pool.max_idle == 20
    waits = config.resilience[upstream.resilience].timeouts.over(config.timeouts)
    assert (waits.headers, waits.idle, waits.total, waits.first_content) == (30.0, 120.0, None, None)


def test_the_shipped_file_works_unchanged(tmp_path):
    config = load_text(tmp_path, WHOLE)
    assert config.warnings == ()
    assert (config.default_upstream, config.server.single_upstream) == ("openai", None)
    upstream = config.upstreams["openai"]
    assert dict(upstream.allow.params) == {"model": ("gpt-4o", "gpt-4o-*")}
    assert upstream.allow.origins == ("https://www.example.com", "http://localhost:4000")
    assert upstream.allow.required_headers == ("origin",)
    assert (upstream.pool.idle, upstream.flush_interval) == (80.0, 0.01)
    other = config.upstreams["anthropic"]
    assert (other.provider, other.resilience) == ("anthropic", "default")
    assert other.allow.endpoints == ("/v1/messages", "/v1/messages/")


def test_an_endpoint_allows_what_stands_below_it(tmp_path):
    assert load_text(tmp_path, WHOLE).upstreams["openai"].allow.endpoints == (
        "/v1/chat/completions",
        "/v1/chat/completions/",
        "/v1/models",
        "/v1/models/",
        "/v1/files/",
    )


# Each key changes what is in force, and nothing else does.


def openai(config: Config):
    return config.upstreams["openai"]


def waits(config: Config):
    return config.resilience["openai"].timeouts


CHANGES = [
    ("default_api: openai", "default_api: anthropic", lambda c: c.default_upstream, "anthropic"),
    ("https://api.openai.com", "http://localhost:1/v", lambda c: openai(c).base_url, "http://localhost:1/v"),
    ("/v1/models,", "/v1/x,", lambda c: openai(c).allow.endpoints[2:4], ("/v1/x", "/v1/x/")),
    ("GET, POST, OPTIONS", "delete", lambda c: openai(c).allow.methods, ("DELETE",)),
    ("request: 120s", "request: 2m5s", lambda c: (waits(c).headers, waits(c).idle), (30.0, 125.0)),
    ("request: 120s", "request: 20s", lambda c: (waits(c).headers, waits(c).idle), (20.0, 20.0)),
    ("response_header: 30s", "response_header: 40s", lambda c: waits(c).headers, 40.0),
    ("response_header: 30s", "response_header: 1.5m", lambda c: waits(c).headers, 90.0),
    ("response_header: 30s", "response_header: 500000us", lambda c: waits(c).headers, 0.5),
    ("response_header: 30s", "response_header: 0", lambda c: waits(c).headers, 120.0),
    ("response_header: 30s", "", lambda c: waits(c).headers, 120.0),
    ("request: 120s", "", lambda c: (waits(c).headers, waits(c).idle), (30.0, None)),
    ("request: 120s", "request: 90", lambda c: waits(c).idle, 90.0),
    ("idle_connection: 80s", "idle_connection: .5s", lambda c: openai(c).pool.idle, 0.5),
    ("idle_connection: 80s", "idle_connection: 0s", lambda c: openai(c).pool.idle, 90.0),
    ("flush_interval: 10ms", "flush_interval: 1s", lambda c: openai(c).flush_interval, 1.0),
    ("flush_interval: 10ms", "flush_interval: -1ns", lambda c: openai(c).flush_interval, 0.0),
    ("max_idle_conns: 100", "max_idle_conns: 5", lambda c: openai(c).pool.max_idle, 5),
    ("max_idle_conns_per_host: 20", "max_idle_conns_per_host: 7", lambda c: openai(c).pool.max_idle, 7),
    ("max_idle_conns_per_host: 20", "max_idle_conns_per_host: 0", lambda c: openai(c).pool.max_idle, 100),
    ("- gpt-4o\n", "- gpt-5\n", lambda c: openai(c).allow.params["model"], ("gpt-5", "gpt-4o-*")),
    ("http://localhost:4000", "'*'", lambda c: openai(c).allow.origins[1], "*"),
    ("- Origin", "- X-Team", lambda c: openai(c).allow.required_headers, ("x-team",)),
]


@pytest.mark.parametrize(("old", "new", "read", "value"), CHANGES, ids=[new for _, new, _, _ in CHANGES])
def test_each_key_is_acted_on(tmp_path, old, new, read, value):
    assert WHOLE.count(old) == 1
    before, after = load_text(tmp_path, WHOLE), load_text(tmp_path, WHOLE.replace(old, new))
    assert read(before) != value
    assert read(after) == value
    assert after.warnings == ()


# Which provider, and where requests go.


@pytest.mark.parametrize(
    ("name", "url", "provider"),
    [
        ("anthropic", "http://localhost:1", "anthropic"),
        ("claude", "https://api.anthropic.com/", "anthropic"),
        ("gemini", "https://generativelanguage.googleapis.com", "google"),
        ("google", "https://generativelanguage.googleapis.com", "google"),
        ("mine", "http://localhost:8000/v1", "openai"),
        ("mine", "https://API.Groq.com", "groq"),
    ],
)
def test_an_api_is_known_by_its_name_else_by_its_host_else_it_is_openais(tmp_path, name, url, provider):
    text = MINIMAL.replace("one:", f"{name}:").replace("http://one.example", url)
    assert load_text(tmp_path, text).upstreams[name].provider == provider


def test_the_only_api_gets_everything(tmp_path):
    config = load_text(tmp_path, MINIMAL)
    assert (config.default_upstream, config.server.single_upstream) == ("one", "one")
    assert "one" not in config.resilience


def test_several_without_a_default_fall_back_to_openai(tmp_path):
    config = load_text(tmp_path, WHOLE.replace("default_api: openai", ""))
    assert config.default_upstream == "openai"
    text = WHOLE.replace("default_api: openai", "").replace("  openai:", "  first:")
    (found,) = problems(tmp_path, text)
    assert found.endswith("default_api: missing; accepted: one of first, anthropic")


WRONG = [
    ("apis:", "api_providers.yaml:1: apis: no API is there"),
    ("apis: {}", "api_providers.yaml:1: apis: no API is there"),
    ("apis: [x]", "api_providers.yaml:1: apis: found a list; accepted: a mapping"),
    ("apis: {one: x}", "api_providers.yaml:1: apis.one: accepted: a mapping with base_url"),
    (MINIMAL.replace("one:", "One API:"), 'yaml:2: apis."One API": found "One API"; accepted: a name'),
    (MINIMAL + "default_api: two", 'yaml:6: default_api: found "two", which is no API of the file'),
    (MINIMAL + "default_api: on", 'did you mean "one"?'),
    (MINIMAL.replace("    base_url: http://one.example\n", ""), "yaml:3: apis.one.base_url: missing"),
    (MINIMAL.replace("http://one.example", "one.example"), "yaml:3: apis.one.base_url: found "),
    (MINIMAL.replace("[/]", "[]"), "yaml:4: apis.one.allowed_endpoints: missing"),
    (MINIMAL.replace("    allowed_endpoints: [/]\n", ""), "yaml:3: apis.one.allowed_endpoints: missing"),
    (MINIMAL.replace("[/]", "/v1"), "yaml:4: apis.one.allowed_endpoints: found a text; accepted: a list"),
    (MINIMAL.replace("[/]", "[/v1/a, v1]"), 'yaml:4: apis.one.allowed_endpoints[1]: found "v1"'),
    (MINIMAL.replace("[GET]", "[]"), "yaml:5: apis.one.allowed_methods: missing"),
    (MINIMAL.replace("[GET]", "[G T]"), "yaml:5: apis.one.allowed_methods[0]: found "),
    (MINIMAL + "    timeouts: 3", "yaml:6: apis.one.timeouts: accepted: a mapping"),
    (MINIMAL + "    timeouts: {request: soon}", 'apis.one.timeouts.request: found "soon"; accepted: a dur'),
    (
        MINIMAL + "    timeouts: {request: 1s, response_header: [x]}",
        "yaml:6: apis.one.timeouts.response_header: found a list",
    ),
    (MINIMAL + "    timeouts: {flush_interval: x}", "yaml:6: apis.one.timeouts.flush_interval: found "),
    (MINIMAL + "    timeouts: {idle_connection: x}", "yaml:6: apis.one.timeouts.idle_connection: found "),
    (MINIMAL + "    connection: [1]", "yaml:6: apis.one.connection: accepted: a mapping"),
    (
        MINIMAL + "    connection: {max_idle_conns: many, max_idle_conns_per_host: 2}",
        'yaml:6: apis.one.connection.max_idle_conns: found "many"; accepted: a whole number',
    ),
    (MINIMAL + "    connection: {max_idle_conns: -3}", "yaml:6: apis.one.connection.max_idle_conns: found "),
    (MINIMAL + "    param_whitelist: [x]", "yaml:6: apis.one.param_whitelist: found a list; accepted: a"),
    (MINIMAL + "    param_whitelist: {model: x}", "yaml:6: apis.one.param_whitelist.model: found a text"),
    (MINIMAL + "    allowed_origins: [x]", 'yaml:6: apis.one.allowed_origins[0]: found "x"; accepted: an'),
    (MINIMAL + "    required_headers: [a b]", 'yaml:6: apis.one.required_headers[0]: found "a b"'),
]


@pytest.mark.parametrize(
    ("text", "expected"), WRONG, ids=[f"{n}-{expected}" for n, (_, expected) in enumerate(WRONG)]
)
def test_a_mistake_is_told_once_at_its_line_and_in_the_files_own_words(tmp_path, text, expected):
    found = problems(tmp_path, text)
    assert len(found) == 1, found
    assert expected in found[0]


def test_all_mistakes_are_told_together_in_the_order_of_the_lines(tmp_path):
    text = WHOLE.replace("120s", "x").replace("[POST]", "[]").replace("100", "y").replace("GET,", "'',")
    found = [line.split(": ")[0].partition(":")[2] for line in problems(tmp_path, text)]
    assert found == ["8", "10", "15", "29"]


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        ("upstreams: {}", 6, "upstreams"),
        ("version: 3", 6, "version"),
        ("    rate_limit: 3", 6, "apis.one.rate_limit"),
        ("    timeouts: {dial: 3s}", 6, "apis.one.timeouts.dial"),
        ("    connection:\n      keep_alive: true", 7, "apis.one.connection.keep_alive"),
    ],
)
def test_what_is_not_understood_draws_a_warning_and_it_starts_all_the_same(tmp_path, text, line, key):
    (found,) = load_text(tmp_path, MINIMAL + text).warnings
    assert found.startswith(f"{tmp_path}/api_providers.yaml:{line}: {key}: ignored")


def test_a_printed_file_in_native_form_loads_again_to_the_same(tmp_path):
    config = load_text(tmp_path, WHOLE)
    again = load_text(tmp_path, dump(config))
    assert again == config
    assert not again.imported
    assert "apis:" not in dump(config)


def test_what_stands_above_the_file_wins(tmp_path):
    environ = HOME | {"LLMPROXYD_UPSTREAMS__OPENAI__BASE_URL": "http://a", "HTTP_CACHE_ENABLED": "true"}
    overrides = {("listen",): (["tcp:1"], "--port")}
    config = load_text(tmp_path, PRINTED, environ=environ, overrides=overrides)
    assert (config.upstreams["openai"].base_url, config.listen) == ("http://a", ("tcp:1",))
    assert config.cache.enabled


# Its variables.

REDIS = {"HTTP_CACHE_BACKEND": "redis", "REDIS_CACHE_URL": "redis://a"}
VARIABLES = [
    ({"HTTP_CACHE_ENABLED": "true"}, lambda c: c.cache.enabled, True),
    ({"HTTP_CACHE_ENABLED": "1"}, lambda c: c.cache.enabled, True),
    ({"HTTP_CACHE_ENABLED": "TRUE"}, lambda c: c.cache.enabled, True),
    ({"HTTP_CACHE_ENABLED": "F"}, lambda c: c.cache.enabled, False),
    ({"HTTP_CACHE_ENABLED": ""}, lambda c: c.cache.enabled, False),
    ({"HTTP_CACHE_BACKEND": "redis"}, lambda c: c.cache.backend, "redis"),
    ({"HTTP_CACHE_BACKEND": "in-memory"}, lambda c: c.cache.backend, "memory"),
    ({"HTTP_CACHE_BACKEND": "in_memory"}, lambda c: c.cache.backend, "memory"),
    (
        REDIS | {"HTTP_CACHE_ENABLED": "true"},
        lambda c: (c.cache.enabled, c.cache.backend, c.cache.redis_url),
        (True, "redis", Secret("redis://a")),
    ),
    ({"REDIS_CACHE_KEY_PREFIX": "x:"}, lambda c: c.cache.key_prefix, "x:"),
    ({"LOG_LEVEL": "debug"}, lambda c: c.logging.level, "debug"),
    ({"LOG_LEVEL": "WARN"}, lambda c: c.logging.level, "warn"),
    ({"LOG_LEVEL": "warning"}, lambda c: c.logging.level, "warn"),
    ({"LOG_LEVEL": "error"}, lambda c: c.logging.level, "error"),
    ({"LOG_FORMAT": "json"}, lambda c: c.logging.format, "json"),
    ({"LOG_FORMAT": "console"}, lambda c: c.logging.format, "text"),
]


@pytest.mark.parametrize(("variables", "read", "value"), VARIABLES, ids=[str(one) for one, _, _ in VARIABLES])
def test_a_variable_holds_with_the_file_and_the_preset_alone(tmp_path, variables, read, value):
    environ = HOME | variables
    assert read(load_text(tmp_path, PRINTED, environ=environ)) == value
    assert read(load(preset="gateway", environ=environ, providers=PROVIDERS)) == value
    for other in (None, "goose", "team", "venice", "sillytavern"):
        without = load(preset=other, environ=HOME, providers=PROVIDERS)
        assert load(preset=other, environ=environ, providers=PROVIDERS) == without


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"HTTP_CACHE_ENABLED": "maybe"}, 'cache.enabled: found "maybe"; accepted: true or false'),
        ({"HTTP_CACHE_BACKEND": "disk"}, 'cache.backend: found "disk"; accepted: memory, redis'),
        ({"REDIS_CACHE_URL": "localhost:6379"}, "cache.redis_url: it must be redis://"),
        ({"REDIS_CACHE_KEY_PREFIX": "a b"}, 'cache.key_prefix: found "a b"'),
        ({"LOG_LEVEL": "loud"}, 'logging.level: found "loud"; accepted: debug, info, warn, error'),
        ({"LOG_FORMAT": "xml"}, 'logging.format: found "xml"; accepted: auto, text, json'),
    ],
)
def test_a_wrong_variable_is_reported_under_its_name(variables, expected):
    with pytest.raises(ConfigError) as caught:
        load(preset="gateway", environ=HOME | variables, providers=PROVIDERS)
    (found,) = caught.value.problems
    assert str(found).startswith(f"environment {next(iter(variables))}: {expected}")


def test_redis_without_its_url_is_told():
    environ = HOME | {"HTTP_CACHE_ENABLED": "true", "HTTP_CACHE_BACKEND": "redis"}
    with pytest.raises(ConfigError, match=r"cache.redis_url: missing; backend: redis needs one"):
        load(preset="gateway", environ=environ, providers=PROVIDERS)


def test_the_preset_asks_for_tokens(tmp_path):
    config = load(preset="gateway", environ=HOME, providers=PROVIDERS)
    assert config.access.enabled
    assert not config.cache.enabled
    # The file adds its upstreams alone.
    minimal = load_text(tmp_path, MINIMAL)
    assert minimal.listen == config.listen
    assert replace(minimal.access, store=config.access.store) == config.access


# Whatever stands in such a file.

NAMES = st.sampled_from(
    [
        *("base_url", "allowed_endpoints", "allowed_methods", "timeouts", "request", "response_header"),
        *("idle_connection", "flush_interval", "connection", "max_idle_conns", "max_idle_conns_per_host"),
        *("param_whitelist", "model", "allowed_origins", "required_headers", "openai", "x", "X Y"),
    ]
)
LEAVES = st.sampled_from(
    ["10s", "-1ns", "1h2m", ".5s", "µs", "0", "/v1/a", "GET", "http://a", "*", "[redacted]"]
)
ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 10**20) | st.floats() | st.text(max_size=6) | LEAVES,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(NAMES, below, max_size=6),
    max_leaves=16,
)
API = st.fixed_dictionaries(
    {},
    optional={
        "base_url": st.just("http://a") | ANY,
        "allowed_endpoints": st.just(["/v1"]) | ANY,
        "allowed_methods": st.just(["GET"]) | ANY,
        "timeouts": st.dictionaries(NAMES, ANY, max_size=4),
        "connection": st.dictionaries(NAMES, ANY, max_size=4),
        "param_whitelist": ANY,
    },
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(NAMES, API | ANY, max_size=3) | ANY, ANY, st.dictionaries(NAMES, ANY, max_size=2))
def test_any_tree_with_its_keys_is_a_configuration_or_problems_with_a_place(apis, default, rest):
    text = yaml.safe_dump({**rest, "apis": apis, "default_api": default}, allow_unicode=True)
    file = FOLDER / "api_providers.yaml"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    for problem in found_in(file):
        assert problem.source.startswith(str(file)), problem
        assert problem.path.startswith(("apis", "default_api")) or not problem.path, problem
        assert "\n" not in str(problem)


def found_in(file: Path) -> tuple[Problem, ...]:
    try:
        config = load(file=file, environ=HOME, providers=PROVIDERS)
    except ConfigError as error:
        return error.problems
    # What is allowed is never everything by mistake.
    for upstream in config.upstreams.values():
        assert upstream.built_in or (upstream.allow.endpoints and upstream.allow.methods)
    return ()
