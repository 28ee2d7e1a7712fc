"""The SillyTavern middleware's own file, read as it is."""

from __future__ import annotations

import tempfile
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
URL = "https://your-target-proxy.com/proxy/your-service/chat/completions"

PRINTED = """\
target_proxy:
  url: "https://your-target-proxy.com/proxy/your-service/chat/completions"
  timeout: 30

error_handling:
  # HTTP status codes that should trigger retries (server errors and transient client errors)
  retry_codes: [429, 502, 503, 504, 505, 507, 508, 511, 408, 409, 410, 423, 424, 425, 426, 428, 431, 451]
  fail_codes: [400, 401, 403, 405, 406, 407, 411, 412, 413, 414, 415, 416, 417, 418, 421, 422]
  conditional_retry_codes: [404, 411, 412, 413, 414, 416, 417, 418, 421, 423, 424, 425, 426, 428, 431, 451]
  max_retries: 10  # Increased from default 3 for better reliability
  base_delay: 1
  max_delay: 60
  conditional_retry_enabled: true
  conditional_retry_max_attempts: 2
  conditional_retry_delay_multiplier: 0.5

server:
  host: "0.0.0.0"
  port: 8765  # Default port for SillyTavern proxy
  debug: false

logging:
  enabled: true
  folder: "logs"
  include_request_data: true
  include_response_data: true
  include_headers: true
  include_timing: true

error_logging:
  enabled: true
  folder: "logs/errors"
  include_stack_traces: true
  include_request_context: true
  include_timing: true
  max_file_size_mb: 10
  max_files: 100
"""


def load_text(folder: Path, text: str, **given: object) -> Config:
    file = folder / "config.yaml"
    file.write_text(text)
    file.chmod(0o600)
    return load(file=file, providers=PROVIDERS, **{"environ": {"HOME": "/h"}, **given})


def problems(folder: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_text(folder, text)
    return [str(problem).replace(f"{folder}/", "") for problem in caught.value.problems]


def with_target(rest: str, url: str = URL) -> str:
    return f"target_proxy:\n  url: {url}\n{rest}"


def test_the_printed_file_works_unchanged(tmp_path):
    config = load_text(tmp_path, PRINTED)
    assert config.warnings == ()
    assert config.imported
    assert config.listen == ("tcp:8765:interface=0.0.0.0",)
    assert config.server.single_upstream == "target"
    upstream = config.upstreams["target"]
    assert (upstream.provider, upstream.base_url) == (
        "openai",
        "https://your-target-proxy.com/proxy/your-service",
    )
    assert (config.timeouts.connect, config.timeouts.headers, config.timeouts.idle) == (30.0, 30.0, 30.0)
    assert config.timeouts.total is None
    assert config.logging.level == "info"
    assert (config.logging.enabled, config.logging.folder) == (True, tmp_path / "logs")
    assert (config.error_logging.enabled, config.error_logging.folder) == (True, tmp_path / "logs/errors")


def test_its_codes_and_delays_are_those_of_the_file(tmp_path):
    retry = load_text(tmp_path, PRINTED).resilience["default"].retry
    assert retry.retry_codes is not None
    assert (len(retry.retry_codes), retry.retry_codes[:2]) == (18, (429, 502))
    assert retry.fail_codes is not None
    assert retry.conditional_retry_codes is not None
    assert (len(retry.fail_codes), len(retry.conditional_retry_codes)) == (16, 16)
    assert (retry.max_retries, retry.base_delay, retry.max_delay) == (10, 1.0, 60.0)
    assert (retry.conditional_retry_enabled, retry.conditional_retry_max_attempts) == (True, 2)
    assert retry.conditional_retry_delay_multiplier == 0.5


def test_what_the_file_leaves_out_is_as_in_the_preset(tmp_path):
    config = load_text(tmp_path, with_target(""))
    preset = load(preset="sillytavern", environ={"HOME": "/h"}, providers=PROVIDERS)
    assert config.resilience == preset.resilience
    assert config.listen == preset.listen
    assert config.timeouts == preset.timeouts
    assert config.logging.enabled
    assert config.error_logging.enabled
    assert config.resilience["default"].retry.retry_codes is None


def test_a_printed_file_in_native_form_loads_again_to_the_same(tmp_path):
    config = load_text(tmp_path, PRINTED)
    again = load_text(tmp_path, dump(config))
    assert again == config
    assert not again.imported
    assert "target_proxy" not in dump(config)


@pytest.mark.parametrize(
    ("url", "base", "stripped"),
    [
        ("https://x/proxy/a/chat/completions", "https://x/proxy/a", True),
        ("https://x/proxy/a/chat/completions/", "https://x/proxy/a", True),
        ("https://x/v1/chat/completions", "https://x/v1", True),
        ("https://x/chat/completions", "https://x", True),
        ("https://x/v1", "https://x/v1", True),
        ("https://x/v1/", "https://x/v1", True),
        ("http://localhost:5000", "http://localhost:5000", False),
        ("https://x/proxy/a/", "https://x/proxy/a", False),
    ],
)
def test_the_base_is_what_stands_before_the_endpoint_and_v1_is_not_doubled(tmp_path, url, base, stripped):
    upstream = load_text(tmp_path, with_target("", url)).upstreams["target"]
    assert upstream.base_url == base
    assert [(path.match, path.to, path.root) for rule in upstream.transform for path in rule.paths] == (
        [("/v1/*", "/*", False)] if stripped else []
    )


@pytest.mark.parametrize("key", ["api_key", "apikey", "token"])
def test_a_key_of_the_target_replaces_the_clients(tmp_path, key):
    config = load_text(tmp_path, with_target(f"  {key}: sk-secret-1\n"))
    assert config.upstreams["target"].api_key == Secret("sk-secret-1")
    assert config.warnings == ()


def test_headers_of_the_target_are_set_on_every_request(tmp_path):
    text = with_target("  headers:\n    Authorization: Bearer ${KEY}\n    X-Team: 7\n")
    config = load_text(tmp_path, text, environ={"KEY": "k"})
    assert dict(config.upstreams["target"].headers) == {
        "Authorization": Secret("Bearer k"),
        "X-Team": Secret("7"),
    }


def test_a_stored_key_that_others_can_read_draws_a_warning(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(with_target("  headers: {Authorization: Bearer sk-secret-1}\n"))
    file.chmod(0o644)
    (warning,) = load(file=file, environ={}, providers=PROVIDERS).warnings
    assert "config.yaml:3: holds a secret and others can read the file" in warning
    assert "sk-secret" not in warning


@pytest.mark.parametrize(
    ("text", "listen"),
    [
        ("server: {host: 127.0.0.1}", ("tcp:8765:interface=127.0.0.1",)),
        ("server: {port: 1}", ("tcp:1:interface=127.0.0.1", r"tcp6:1:interface=\:\:1")),
        ("server: {host: localhost, port: 1}", ("tcp:1:interface=127.0.0.1", r"tcp6:1:interface=\:\:1")),
        ("server: {host: '::'}", (r"tcp6:8765:interface=\:\:",)),
        ("server:", ("tcp:8765:interface=127.0.0.1", r"tcp6:8765:interface=\:\:1")),
        ("server: {host: , port: ~}", ("tcp:8765:interface=127.0.0.1", r"tcp6:8765:interface=\:\:1")),
    ],
)
def test_it_listens_where_the_file_says_and_else_for_this_machine_alone(tmp_path, text, listen):
    assert load_text(tmp_path, with_target(text)).listen == listen


@pytest.mark.parametrize(
    ("word", "level"),
    [("true", "debug"), ("True", "debug"), ("yes", "debug"), ("off", "info"), ("false", "info")],
)
def test_debug_is_a_level_of_the_log(tmp_path, word, level):
    assert load_text(tmp_path, with_target(f"server: {{debug: {word}}}")).logging.level == level


def test_words_that_its_own_parser_took_for_booleans_are_taken_for_such(tmp_path):
    config = load_text(
        tmp_path,
        with_target(
            "logging: {enabled: no, include_headers: False}\nerror_logging: {enabled: Off}\n"
            "error_handling: {conditional_retry_enabled: NO}"
        ),
    )
    assert (config.logging.enabled, config.logging.include_headers) == (False, False)
    assert not config.error_logging.enabled
    assert not config.resilience["default"].retry.conditional_retry_enabled


def test_what_stands_above_the_file_wins(tmp_path):
    config = load_text(
        tmp_path,
        PRINTED,
        environ={"LLMPROXYD_RESILIENCE__DEFAULT__RETRY__MAX_RETRIES": "1"},
        overrides={("listen",): (["tcp:1"], "--port")},
    )
    assert config.resilience["default"].retry.max_retries == 1
    assert config.listen == ("tcp:1",)


def test_its_own_preset_may_be_named_too(tmp_path):
    assert load_text(tmp_path, PRINTED, preset="sillytavern") == load_text(tmp_path, PRINTED)
    config = load_text(tmp_path, with_target(""), preset="team")
    assert config.resilience["default"].retry.max_retries == 3
    assert config.logging.enabled


WRONG = [
    ("target_proxy:\n", "config.yaml:1: target_proxy.url: missing; accepted: the URL of the target"),
    ("target_proxy: {timeout: 3}", "config.yaml:1: target_proxy.url: missing"),
    ("target_proxy: {url: }", "config.yaml:1: target_proxy.url: missing"),
    ("target_proxy: {url: ''}", "config.yaml:1: target_proxy.url: missing"),
    ("target_proxy: x", "config.yaml:1: target_proxy: found a text; accepted: a mapping"),
    ("target_proxy: [x]", "config.yaml:1: target_proxy: found a list; accepted: a mapping"),
    ("target_proxy: {url: [x]}", "config.yaml:1: target_proxy.url: found a list"),
    (
        "target_proxy: {url: /chat/completions}",
        'target_proxy.url: found "/chat/completions"; accepted: an http',
    ),
    ("target_proxy: {url: your-target.com}", 'put "http://" or "https://" in front'),
    ("target_proxy: {url: 'https://a:b@x/chat/completions'}", "config.yaml:1: target_proxy.url: "),
    ("target_proxy: {url: 'https://x/chat/completions?key=a'}", "a query or fragment does not belong"),
    (
        with_target("  timeout: soon\n"),
        'config.yaml:3: target_proxy.timeout: found "soon"; accepted: a duration',
    ),
    (with_target("  timeout: 0\n"), "config.yaml:3: target_proxy.timeout: found 0, which would end every"),
    (with_target("  headers: x\n"), "config.yaml:3: target_proxy.headers: found a text; accepted: a mapping"),
    (
        with_target("  headers: {a b: x}\n"),
        'config.yaml:3: target_proxy.headers."a b": found "a b"; accepted',
    ),
    (
        with_target("  api_key: ${NOPE}\n"),
        "config.yaml:3: target_proxy.api_key: the environment variable NOPE",
    ),
    (with_target("error_handling: 3"), "config.yaml:3: error_handling: found a text; accepted: a mapping"),
    (
        with_target("error_handling:\n  max_retries: ten"),
        'config.yaml:4: error_handling.max_retries: found "ten"; accepted: a whole number',
    ),
    (
        with_target("error_handling:\n  max_retries: -1"),
        "config.yaml:4: error_handling.max_retries: found -1",
    ),
    (
        with_target("error_handling:\n  retry_codes:\n    - 429\n    - x"),
        'config.yaml:6: error_handling.retry_codes[1]: found "x"; accepted: a whole number',
    ),
    (
        with_target("error_handling:\n  retry_codes: [42]"),
        "config.yaml:4: error_handling.retry_codes: found 42",
    ),
    (
        with_target("error_handling: {conditional_retry_enabled: maybe}"),
        'error_handling.conditional_retry_enabled: found "maybe"; accepted: true or false',
    ),
    (with_target("server: 3"), "config.yaml:3: server: found a text; accepted: a mapping"),
    (with_target("server:\n  port: http"), 'config.yaml:4: server.port: found "http"; accepted: a port'),
    (with_target("server:\n  port: [1]"), "config.yaml:4: server.port: found a list; accepted: one value"),
    (with_target("server:\n  host: a b"), 'config.yaml:4: server.host: found "a b"; accepted: an address'),
    (with_target("server:\n  host: ''"), 'config.yaml:4: server.host: found ""; accepted: an address'),
    (
        with_target("server:\n  debug: 3"),
        "config.yaml:4: server.debug: found a text; accepted: true or false",
    ),
    (
        with_target("logging: {enabled: maybe}"),
        'config.yaml:3: logging.enabled: found "maybe"; accepted: true',
    ),
    (with_target("error_logging: {max_files: 0}"), "config.yaml:3: error_logging.max_files: found"),
    (
        with_target("response_parsing:\n  rules:\n    - {pattern: '(', new_status: 429}"),
        "config.yaml:5: response_parsing.rules[0].pattern: it is no regular expression",
    ),
]


@pytest.mark.parametrize(
    ("text", "expected"), WRONG, ids=[f"{n}-{text}" for n, (text, _) in enumerate(WRONG)]
)
def test_a_mistake_is_told_once_at_its_line_and_in_the_files_own_words(tmp_path, text, expected):
    found = problems(tmp_path, text)
    assert len(found) == 1, found
    assert expected in found[0]


def test_all_mistakes_are_told_together_in_the_order_of_the_lines(tmp_path):
    found = problems(
        tmp_path, with_target("  timeout: x\nserver:\n  port: y\nlogging:\n  enabled: 3\nerror_handling: z")
    )
    assert [line.split(": ")[0] for line in found] == [f"config.yaml:{line}" for line in (3, 5, 7, 8)]


def test_a_mistake_in_a_variable_of_ours_is_told_in_our_words(tmp_path):
    with pytest.raises(ConfigError, match=r"environment LLMPROXYD_TIMEOUTS__IDLE: timeouts.idle: "):
        load_text(tmp_path, with_target("  timeout: 3\n"), environ={"LLMPROXYD_TIMEOUTS__IDLE": "x"})


WARNED = [
    ("regex_replacement:\n  rules: []", 3, "regex_replacement"),
    ("upstreams: {}", 3, "upstreams"),
    ("  verify: false", 3, "target_proxy.verify"),
    ("error_handling:\n  strategy: x", 4, "error_handling.strategy"),
    ("server:\n  threads: 3", 4, "server.threads"),
    ("logging:\n  level: x", 4, "logging.level"),
    ("error_logging:\n  colour: x", 4, "error_logging.colour"),
    ("hard_stop_conditions: 3", 3, "hard_stop_conditions"),
    ("hard_stop_conditions:\n  mode: x", 4, "hard_stop_conditions.mode"),
    ("hard_stop_conditions:\n  rules: 3", 4, "hard_stop_conditions.rules"),
    ("hard_stop_conditions:\n  rules:\n    - {user_message: x}", 5, "hard_stop_conditions.rules[0]"),
    (
        "hard_stop_conditions:\n  rules:\n    - {pattern: a, user_message: b, colour: c}",
        5,
        "hard_stop_conditions.rules[0].colour",
    ),
    ("response_parsing:\n  rules:\n    - {pattern: a}", 5, "response_parsing.rules[0]"),
    ("response_parsing:\n  rules:\n    - [a]", 5, "response_parsing.rules[0]"),
]


@pytest.mark.parametrize(("text", "line", "key"), WARNED, ids=[key for _, _, key in WARNED])
def test_what_is_not_understood_draws_a_warning_and_it_starts_all_the_same(tmp_path, text, line, key):
    (found,) = load_text(tmp_path, with_target(text)).warnings
    assert found.startswith(f"{tmp_path}/config.yaml:{line}: {key}: ignored")


def test_hard_stops_of_later_versions_are_taken_over(tmp_path):
    config = load_text(
        tmp_path,
        with_target(
            "hard_stop_conditions:\n"
            "  enabled: true\n"
            "  rules:\n"
            "    - pattern: quota\n"
            "      description: spent\n"
            "      user_message: Come back tomorrow.\n"
            "      preserve_original_response: no\n"
            "    - {pattern: banned, description: out}\n"
            "    - moderated\n"
        ),
    )
    first, second, third = config.resilience["default"].hard_stop
    assert (first.pattern, first.user_message, first.description) == ("quota", "Come back tomorrow.", "spent")
    assert not first.preserve_original_response
    assert (second.pattern, second.user_message) == ("banned", "out")
    assert third.pattern == "moderated"
    assert third.user_message
    assert config.warnings == ()


def test_recategorised_answers_of_later_versions_are_taken_over(tmp_path):
    config = load_text(
        tmp_path,
        with_target(
            "response_parsing:\n"
            "  list:\n"
            "    - {pattern: The model is overloaded, original_status: 200, new_status: 429}\n"
            "    - {pattern: busy, original_code: 200, new_code: 503, description: d}\n"
            "    - {pattern: odd, original_status: any, new_status: 500}\n"
        ),
    )
    first, second, third = config.resilience["default"].recategorize
    assert (first.pattern, first.original_status, first.new_status) == ("The model is overloaded", 200, 429)
    assert (second.original_status, second.new_status, second.description) == (200, 503, "d")
    assert (third.original_status, third.new_status) == (None, 500)
    (warning,) = config.warnings
    assert "response_parsing.list[2].original_status: ignored" in warning


def test_a_later_section_may_be_a_list_or_be_switched_off(tmp_path):
    text = (
        "hard_stop_conditions: [{pattern: a, user_message: b}]\nresponse_parsing: {enabled: no, rules: [3]}"
    )
    config = load_text(tmp_path, with_target(text))
    assert [rule.pattern for rule in config.resilience["default"].hard_stop] == ["a"]
    assert config.resilience["default"].recategorize == ()
    assert config.warnings == ()


def test_a_native_file_is_read_as_such(tmp_path):
    config = load_text(tmp_path, "logging: {enabled: true}")
    assert not config.imported
    assert config.resilience == {}


NAMES = st.sampled_from(
    [
        *(
            "target_proxy",
            "url",
            "timeout",
            "headers",
            "api_key",
            "error_handling",
            "retry_codes",
            "max_retries",
        ),
        *(
            "server",
            "host",
            "port",
            "debug",
            "logging",
            "error_logging",
            "enabled",
            "folder",
            "rules",
            "list",
        ),
        *("hard_stop_conditions", "response_parsing", "pattern", "new_status", "user_message", "x"),
    ]
)
ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 700) | st.floats() | st.text(max_size=6) | st.just(URL),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(NAMES, below, max_size=5),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(NAMES, ANY, max_size=5), ANY)
def test_any_tree_with_its_keys_is_a_configuration_or_problems_with_a_place(tree, target):
    text = yaml.safe_dump({**tree, "target_proxy": target}, allow_unicode=True)
    file = FOLDER / "config.yaml"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    for problem in found_in(file):
        assert problem.source.startswith(str(file))
        assert "\n" not in str(problem)


def found_in(file: Path) -> tuple[Problem, ...]:
    try:
        load(file=file, environ={}, providers=PROVIDERS)
    except ConfigError as error:
        return error.problems
    return ()
