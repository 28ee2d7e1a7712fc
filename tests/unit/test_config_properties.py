"""Whatever the input, the loader answers with a configuration or with problems that have a place."""

from __future__ import annotations

import json
import math
import re
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


@settings(deadline=None)
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


@settings(max_examples=300, deadline=None)
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


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(KEY_NAMES, ANY, max_size=4))
def test_any_tree_with_the_schemas_keys(tree):
    outcome(yaml.safe_dump(tree, allow_unicode=True).encode("utf-8", "surrogatepass"))


@settings(deadline=None)
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
LOOKS = st.sampled_from(
    [
        "null",
        "~",
        "",
        "no",
        "True",
        "012",
        "0x1f",
        "0o17",
        "1e3",
        "1:30",
        ".5",
        ".inf",
        "<<",
        "=",
        "a: b",
        "#",
    ]
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS
    | LOOKS,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(TEXTS | LOOKS, below, max_size=3),
    max_leaves=6,
)
MEMBERS = st.dictionaries(TEXTS | LOOKS, JSON, max_size=3)
TRANSFORM = st.fixed_dictionaries(
    {"drop": st.just(["logprobs"]), "drop_unless": st.just({"parallel_tool_calls": "boolean"})},
    optional={
        "endpoints": st.lists(TEXTS, max_size=2),
        "models": st.lists(TEXTS | LOOKS, max_size=2),
        "rename": st.just({"null": "~"}),
        "set": MEMBERS,
        "replace": st.dictionaries(TEXTS | LOOKS, st.just({"012": 10, "a": None}), max_size=2),
    },
)
PATHS = st.just({"paths": [{"match": "/a/*", "to": "/b/*"}, {"match": "/c", "to": "/c", "root": True}]})
CODES = st.none() | st.lists(st.integers(100, 599), max_size=4)
RULES = st.lists(
    st.fixed_dictionaries(
        {
            "pattern": st.sampled_from(["null", "a.*b", "012", r"\bx\b: #"]),
            "new_status": st.integers(400, 599),
        },
        optional={"original_status": st.none() | st.integers(100, 599), "description": TEXTS},
    ),
    max_size=2,
)
POLICY = st.fixed_dictionaries(
    {},
    optional={
        "timeouts": st.fixed_dictionaries({}, optional={"idle": st.none() | SECONDS, "total": SECONDS}),
        "retry": st.fixed_dictionaries(
            {"base_delay": st.just(0), "budget": st.just({"ratio": 0.1})},
            optional={
                "max_retries": st.integers(0, 100),
                "jitter": st.sampled_from(["full", "equal", "quarter", "none"]),
                "rate_limit_wait": st.none() | SECONDS,
                "retry_codes": CODES,
                "fail_codes": CODES,
            },
        ),
        "breaker": st.fixed_dictionaries(
            {"enabled": st.booleans()},
            optional={
                "key": st.sampled_from([["upstream"], ["upstream", "model"]]),
                "failure_rate": st.floats(1e-9, 1),
                "window": st.none() | SECONDS,
            },
        ),
        "hold": st.fixed_dictionaries({}, optional={"bytes": st.integers(0, 2**40)}),
        "recategorize": RULES,
        "hard_stop": st.lists(
            st.fixed_dictionaries(
                {"pattern": TEXTS.map(lambda text: f"x{re.escape(text)}"), "user_message": TEXTS}
            )
        ),
    },
)
UPSTREAM = st.fixed_dictionaries(
    {"provider": st.sampled_from(["openai", "anthropic"])},
    optional={
        "base_url": st.sampled_from(["http://x", "https://[::1]:1/a/b/", "HTTP://Y:80/%2F"]),
        "api_key": st.sampled_from([None, "[redacted]"]),
        "resilience": st.just("default"),
        "transform": st.lists(TRANSFORM | PATHS, max_size=3),
        "models_fallback": st.lists(st.sampled_from(["gpt-4o", "null", "012"]), max_size=2),
        "headers": st.dictionaries(st.sampled_from(["a", "x-b", "~"]), st.just("[redacted]")),
        "tls": st.fixed_dictionaries({}, optional={"verify": st.booleans()}),
        "pool": st.fixed_dictionaries({}, optional={"max_idle": st.integers(0, 10**17), "idle": SECONDS}),
        "allow": st.fixed_dictionaries(
            {"origins": st.lists(st.sampled_from(["http://A", "app://x", "*"]))},
            optional={
                "endpoints": st.lists(st.sampled_from(["/v1/a", "/v1/b/", "/v1/*", "/**"]), max_size=2),
                "methods": st.lists(st.sampled_from(["get", "POST"]), max_size=2),
                "params": st.dictionaries(st.sampled_from(["model", "012"]), st.just(["null", "~", "g*"])),
                "required_headers": st.lists(st.sampled_from(["Origin", "X: y"]), max_size=2),
            },
        ),
        "flush_interval": SECONDS,
    },
)
POOLED = st.fixed_dictionaries(
    {
        "provider": st.just("openai"),
        "api_keys": st.lists(st.just("[redacted]"), max_size=3),
        "fallbacks": st.just([{"upstream": "openai", "models": {"*": "gpt-4o", "null": "~"}}]),
    }
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
DISPATCH = st.fixed_dictionaries(
    {"to": st.just("file")},
    optional={"keep": st.integers(0, 9), "every": SECONDS, "max_bytes": st.just(2048)},
)
RULE = st.fixed_dictionaries(
    {"path": st.sampled_from(["/v1/*", "/*"])},
    optional={
        "upstream": st.just("openai"),
        "methods": st.lists(st.sampled_from(["get", "POST"]), min_size=1),
        "default_ttl": SECONDS,
        "fields": st.just(["Accept"]),
    },
)
GATEWAY = {
    "access": st.fixed_dictionaries(
        {"enabled": st.booleans(), "secret_key": st.none() | st.just("[redacted]")},
        optional={
            "store": st.sampled_from(["sqlite:a.db", "sqlite:~/ä: b.db", "sqlite:/c.db"]),
            "enforce_active": st.booleans(),
        },
    ),
    "cache": st.fixed_dictionaries(
        {
            "redis_url": st.sampled_from(
                ["redis://a", "rediss://:[redacted]@[::1]:1/2", "unix:///r.sock?db=1"]
            )
        },
        optional={
            "enabled": st.booleans(),
            "backend": st.sampled_from(["memory", "redis"]),
            "max_bytes": st.integers(1, 2**50),
            "default_ttl": st.none() | SECONDS,
            "rules": st.lists(RULE, max_size=2),
            "share": st.sampled_from(["project", "upstream"]),
            "key_prefix": st.sampled_from(["a:", "null", "{x}"]),
        },
    ),
    "events": st.fixed_dictionaries(
        {},
        optional={
            "dispatch": st.lists(DISPATCH, max_size=2).map(
                lambda entries: [{**entry, "path": f"{number}.jsonl"} for number, entry in enumerate(entries)]
            ),
            "capture": st.fixed_dictionaries({}, optional={"request": st.integers(0, 65536)}),
            "prices": st.dictionaries(
                st.sampled_from(["gpt-*", "null", "012"]),
                st.fixed_dictionaries({"input": st.floats(0, 1e9)}, optional={"cached": st.none()}),
            ),
        },
    ),
    "audit": st.sampled_from([{}, {"file": "audit/a.jsonl"}, {"file": None}]),
    "metrics": st.sampled_from([{}, {"enabled": False}, {"listen": "tcp:9"}, {"genai": True}]),
}
VALID = st.fixed_dictionaries(
    {},
    optional={
        "listen": st.lists(
            st.sampled_from(["tcp:1", "tcp6:2:interface=::1", "unix:/tmp/x"]), min_size=1, unique=True
        ),
        "default_upstream": st.sampled_from(["openai", "anthropic"]),
        "upstreams": st.dictionaries(NAMES, UPSTREAM | POOLED, max_size=3),
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
                "path_prefix": st.sampled_from(["", "/", "/a/b/"]),
                "max_body": st.integers(1, 2**50),
                "idle_timeout": SECONDS,
                "error_headers": st.booleans(),
            },
        ),
        "timeouts": st.fixed_dictionaries(
            {}, optional={"connect": SECONDS, "headers": SECONDS, "total": st.none() | SECONDS}
        ),
        "resilience": st.dictionaries(NAMES | st.just("default"), POLICY, max_size=2),
        "logging": st.fixed_dictionaries(
            {"enabled": st.booleans()}, optional={"folder": st.sampled_from(["logs", "a/b", "/c", "~/d"])}
        ),
        "error_logging": st.fixed_dictionaries({}, optional={"max_files": st.integers(1, 9)}),
        "admin": st.sampled_from(
            [{}, {"token": None}, {"token": "[redacted]", "listen": "tcp:8"}, {"listen": "unix:/a"}]
        ),
        **GATEWAY,
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
        "operator": st.fixed_dictionaries(
            {},
            optional={
                "stdin": st.sampled_from(["auto", True, False]),
                "faults": st.sampled_from([None, True, False]),
            },
        ),
    },
)


@settings(max_examples=150, deadline=None)
@given(VALID)
def test_a_configuration_that_is_dumped_and_loaded_again_equals_itself(tree):
    config = outcome(yaml.safe_dump(tree, allow_unicode=True).encode())
    assert isinstance(config, Config), str(config)
    again = outcome(dump(config).encode())
    assert isinstance(again, Config), f"{again}\n{dump(config)}"
    assert again == config
    assert dump(again) == dump(config)


@settings(max_examples=100, deadline=None)
@given(JSON)
def test_a_json_value_that_is_dumped_and_loaded_again_is_the_same(value):
    first = outcome(
        f"upstreams: {{openai: {{transform: [{{set: {{x: {json.dumps(value, ensure_ascii=False)}}}}}]}}}}".encode()
    )
    assert isinstance(first, Config), str(first)
    found = first.upstreams["openai"].transform[0].set["x"]
    assert repr(found) == repr(value)
    again = outcome(dump(first).encode())
    assert isinstance(again, Config), str(again)
    assert repr(again.upstreams["openai"].transform[0].set["x"]) == repr(value)
