"""Whatever the input, the loader answers with a configuration or with problems that have a place."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from test_config import PROVIDERS

from llmproxyd.config import reflect
from llmproxyd.config.dump import dump
from llmproxyd.config.load import ConfigError, load
from llmproxyd.config.schema import Config

FOLDER = Path(tempfile.mkdtemp())
ENVIRON = {"HOME": "/h"}


def outcome(data: bytes, environ: dict[str, str] = ENVIRON) -> Config | ConfigError:
    file = FOLDER / "x.yaml"
    file.write_bytes(data)
    file.chmod(0o600)
    try:
        return load(file=file, environ=environ, providers=PROVIDERS)
    except ConfigError as error:
        check(error)
        return error


def check(error: ConfigError) -> None:
    assert error.problems
    for problem in error.problems:
        assert problem.source
        assert problem.message
        assert "\n" not in str(problem)
        str(problem).encode()


@given(st.binary(max_size=200))
def test_any_bytes(data):
    outcome(data)


FRAGMENTS = st.sampled_from(
    [
        "a",
        "b",
        ":",
        "-",
        "?",
        "&",
        "*",
        "!",
        "|",
        ">",
        "'",
        '"',
        "{",
        "}",
        "[",
        "]",
        ",",
        "#",
        "%",
        "@",
        "`",
        "~",
        "<<",
        "---",
        "...",
        "\n",
        "\t",
        "&a",
        "*a",
        "!!int",
        "null",
        "true",
        "1",
        "1e9",
        "\\",
        "\ufeff",
        "\x85",
        "timeouts:",
        "upstreams:",
        "openai:",
        "listen:",
        "routes:",
        "faults:",
        "{connect:",
        "rules:",
        "\n-",
        "\n",
        "",
        "",
        "'':",
        "name:",
        "error:",
        "c",
    ]
)


@settings(max_examples=300)
@given(st.lists(st.one_of(FRAGMENTS, st.text(max_size=5), st.just(" "), st.just("\n")), max_size=40))
def test_any_text_of_yamls_own_signs(parts):
    outcome("".join(parts).encode("utf-8", "surrogatepass"))


KEY_NAMES = st.sampled_from(
    sorted({part for place, _ in reflect.places(Config) for part in place} | {"openai"})
)
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates(),
    lambda below: (
        st.lists(below, max_size=3) | st.dictionaries(KEY_NAMES | st.text(max_size=4), below, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=300)
@given(st.dictionaries(KEY_NAMES, ANY, max_size=4))
def test_any_tree_with_the_schemas_keys(tree):
    outcome(yaml.safe_dump(tree, allow_unicode=True).encode("utf-8", "surrogatepass"))


@given(
    st.dictionaries(
        st.sampled_from([place for place, _ in reflect.places(Config)]).map(
            lambda place: "LLMPROXYD_" + "__".join(place).upper()
        ),
        st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=8),
        max_size=4,
    )
)
def test_any_environment(environ):
    outcome(b"", {**ENVIRON, **environ})


SECONDS = st.floats(min_value=1e-6, max_value=86400 * 366, allow_nan=False).map(
    lambda seconds: f"{seconds:.17f}" if math.isfinite(seconds) else "1"
)
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc", "Cn", "Zl", "Zp"]), max_size=12)
NAMES = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,8}", fullmatch=True)
UPSTREAM = st.fixed_dictionaries(
    {"provider": st.sampled_from(["openai", "anthropic"])},
    optional={
        "base_url": st.sampled_from(["http://x", "https://[::1]:1/a/b/", "HTTP://Y:80/%2F"]),
        "api_key": st.sampled_from([None, "[redacted]"]),
        "headers": st.dictionaries(st.sampled_from(["a", "x-b", "~"]), st.just("[redacted]")),
        "tls": st.fixed_dictionaries({}, optional={"verify": st.booleans()}),
        "pool": st.fixed_dictionaries({}, optional={"max_idle": st.integers(0, 10**17), "idle": SECONDS}),
        "allow": st.fixed_dictionaries({"origins": st.lists(st.sampled_from(["http://A", "app://x"]))}),
    },
)
FAULT = st.fixed_dictionaries(
    {"error": st.sampled_from(["c", "rate_limit", "u"])},
    optional={
        "when": st.sampled_from([1, 1.0, "*", "", "30%", 0.5]),
        "retry_after": st.floats(0, 1e6),
        "after": st.integers(0, 10**8),
        "for": SECONDS,
        "upstream": st.just("openai"),
        "model": TEXTS,
        "path": TEXTS | st.sampled_from(["null", "~", "no", "012", "1:30", "=", "<<", "", "2001-01-01"]),
        "stream": st.booleans() | st.none(),
    },
)
VALID = st.fixed_dictionaries(
    {},
    optional={
        "listen": st.lists(
            st.sampled_from(["tcp:1", "tcp6:2:interface=::1", "unix:/tmp/x"]), min_size=1, unique=True
        ),
        "default_upstream": st.sampled_from(["openai", "anthropic"]),
        "upstreams": st.dictionaries(NAMES, UPSTREAM, max_size=3),
        "routes": st.lists(
            st.sampled_from(
                [
                    {"path_prefix": "/a/", "upstream": "openai", "strip": True},
                    {"host": "A:1", "upstream": "anthropic"},
                    {"header": "X: y", "upstream": "openai"},
                ]
            ),
            max_size=3,
        ),
        "server": st.fixed_dictionaries(
            {},
            optional={
                "single_upstream": st.sampled_from([None, "openai"]),
                "max_body": st.integers(1, 2**50),
                "idle_timeout": SECONDS,
                "error_headers": st.booleans(),
            },
        ),
        "timeouts": st.fixed_dictionaries({}, optional={"connect": SECONDS, "headers": SECONDS}),
        "faults": st.fixed_dictionaries(
            {},
            optional={
                "mode": st.sampled_from(["n", "c 3", "r 30%", "c *"]),
                "seed": st.none() | st.integers(-(10**17), 10**17),
                "rules": st.lists(FAULT, max_size=3).map(
                    lambda rules: [{**rule, "name": f"r{number}"} for number, rule in enumerate(rules)]
                ),
            },
        ),
        "sandbox": st.fixed_dictionaries(
            {}, optional={"tokens_per_second": st.none() | st.floats(1e-9, 1e9), "first_token": SECONDS}
        ),
        "operator": st.fixed_dictionaries({}, optional={"stdin": st.sampled_from(["auto", True, False])}),
    },
)


@settings(max_examples=300)
@given(VALID)
def test_a_configuration_that_is_dumped_and_loaded_again_equals_itself(tree):
    config = outcome(yaml.safe_dump(tree, allow_unicode=True).encode())
    assert isinstance(config, Config), str(config)
    again = outcome(dump(config).encode())
    assert isinstance(again, Config), f"{again}\n{dump(config)}"
    assert again == config
    assert dump(again) == dump(config)
