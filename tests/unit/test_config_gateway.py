"""What guards and measures, as configured: each key's values, mistakes and defaults."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from test_config import PROVIDERS, load_text, problems

from llmproxyd.config.dump import dump
from llmproxyd.config.endpoints import place, private
from llmproxyd.config.gateway import Access, CacheRule, Dispatch, Price
from llmproxyd.config.load import ConfigError, load
from llmproxyd.config.schema import Config
from llmproxyd.redaction import Secret

KEY = "0123456789abcdef"
POSTGRES = "postgresql://app:s3cret@db/llm"
ON = {"LLMPROXYD_ACCESS__ENABLED": "true", "HOME": "/h"}


def store(folder: Path, text: str, **given: object) -> str:
    return load_text(folder, f"access: {{store: {text!r}}}", **given).access.store.reveal()


VALUES = [
    ("access: {enabled: true}", lambda c: c.access.enabled, True),
    (f"access: {{secret_key: {KEY}}}", lambda c: c.access.secret_key, Secret(KEY)),
    ("access: {enforce_active: false}", lambda c: c.access.enforce_active, False),
    (
        "access: {enabled: true, limits: redis}\ncache: {redis_url: redis://a}",
        lambda c: c.access.limits,
        "redis",
    ),
    ("cache: {enabled: true}", lambda c: c.cache.enabled, True),
    ("cache: {backend: redis}", lambda c: c.cache.backend, "redis"),
    ("cache: {max_bytes: 1MiB}", lambda c: c.cache.max_bytes, 2**20),
    ("cache: {max_object_bytes: 10}", lambda c: c.cache.max_object_bytes, 10),
    ("cache: {default_ttl: 1m}", lambda c: c.cache.default_ttl, 60.0),
    ("cache: {share: upstream}", lambda c: c.cache.share, "upstream"),
    ("cache: {coalesce: false}", lambda c: c.cache.coalesce, False),
    ("cache: {key_prefix: 'x:'}", lambda c: c.cache.key_prefix, "x:"),
    ("cache: {headers: false}", lambda c: c.cache.headers, False),
    (
        "cache: {rules: [{path: /v1/*, upstream: openai, methods: [post], default_ttl: 5, fields: [X-A]}]}",
        lambda c: c.cache.rules,
        (CacheRule("/v1/*", "openai", ("POST",), 5.0, ("x-a",)),),
    ),
    (
        "events: {dispatch: [{to: file, path: /a/e.jsonl, keep: 0, batch: 7, every: 2s, max_bytes: 1MiB}]}",
        lambda c: c.events.dispatch,
        (Dispatch("file", Path("/a/e.jsonl"), keep=0, batch=7, every=2.0, max_bytes=2**20),),
    ),
    (
        "events: {dispatch: [{to: webhook, url: 'http://a/b', headers: {x-k: v}}]}",
        lambda c: c.events.dispatch,
        (Dispatch("webhook", url=Secret("http://a/b"), headers={"x-k": Secret("v")}),),
    ),
    (
        "events: {dispatch: [{to: redis, stream: s}]}\ncache: {redis_url: redis://a}",
        lambda c: c.events.dispatch,
        (Dispatch("redis", stream="s"),),
    ),
    (
        "events: {capture: {request: 64KiB, response: 256KiB}}",
        lambda c: (c.events.capture.request, c.events.capture.response),
        (65536, 262144),
    ),
    ("events: {usage: true}", lambda c: c.events.usage, True),
    (
        "events: {prices: {'gpt-*': {input: 1, output: 2.5, cached: 0}}}",
        lambda c: dict(c.events.prices),
        {"gpt-*": Price(1.0, 2.5, 0.0)},
    ),
    ("audit: {file: /a/b.jsonl}", lambda c: c.audit.file, Path("/a/b.jsonl")),
    ("metrics: {enabled: false}", lambda c: c.metrics.enabled, False),
    ("metrics: {listen: 'tcp:9'}", lambda c: c.metrics.listen, "tcp:9"),
    ("metrics: {genai: true}", lambda c: c.metrics.genai, True),
    ("admin: {listen: 'unix:/a.sock'}", lambda c: c.admin.listen, "unix:/a.sock:mode=600"),
    ("admin: {listen: 'unix:/a.sock:mode=660'}", lambda c: c.admin.listen, "unix:/a.sock:mode=660"),
    ("admin: {listen: 'tcp:9', token: t}", lambda c: c.admin.listen, "tcp:9"),
    ("operator: {faults: false}", lambda c: c.operator.faults, False),
    ("upstreams: {openai: {flush_interval: 10ms}}", lambda c: c.upstreams["openai"].flush_interval, 0.01),
    (
        "upstreams: {openai: {allow: {endpoints: [/v1/a, /v1/b/, '/v1/*'], methods: [get, POST]}}}",
        lambda c: (c.upstreams["openai"].allow.endpoints, c.upstreams["openai"].allow.methods),
        (("/v1/a", "/v1/b/", "/v1/*"), ("GET", "POST")),
    ),
    (
        "upstreams: {openai: {allow: {params: {model: [gpt-4o, 'gpt-4o-*'], n: [1]}}}}",
        lambda c: dict(c.upstreams["openai"].allow.params),
        {"model": ("gpt-4o", "gpt-4o-*"), "n": ("1",)},
    ),
    (
        "upstreams: {openai: {allow: {origins: ['*', 'http://A'], required_headers: [Origin, 'X-T: r']}}}",
        lambda c: (c.upstreams["openai"].allow.origins, c.upstreams["openai"].allow.required_headers),
        (("*", "http://a"), ("origin", "x-t: r")),
    ),
]


@pytest.mark.parametrize(("text", "read", "value"), VALUES, ids=[text for text, _, _ in VALUES])
def test_a_value_is_read(tmp_path, text, read, value):
    assert read(load_text(tmp_path, text)) == value


WRONG = [
    ("access: {store: mysql://u:hunter22@h/d}", "access.store: no such store; accepted: "),
    ("access: {store: postgress://h/d}", 'access.store: no such store; did you mean "postgresql"?'),
    ("access: {store: llmproxyd.db}", "access.store: no such store; accepted: "),
    ("access: {store: 'sqlite:'}", "access.store: the path of a file must follow sqlite:"),
    ("access: {store: 'sqlite:///x.db'}", "access.store: the path of a file must follow sqlite:"),
    ("access: {store: 'sqlite::memory:'}", "access.store: the path of a file must follow sqlite:"),
    ("access: {store: 'postgresql://'}", "access.store: it is no URL"),
    ("access: {store: 'postgresql://a b'}", "access.store: it is no URL"),
    ("access: {store: ~}", "access.store: found nothing; accepted: "),
    ("access: {secret_key: tooshort}", "access.secret_key: it is too short; accepted: a secret of 16"),
    (
        f"access: {{enabled: true, store: '{POSTGRES}'}}",
        "access.secret_key: missing; credentials in PostgreSQL are encrypted",
    ),
    ("access: {limits: disk}", 'access.limits: found "disk"; accepted: memory, redis'),
    ("access: {enabled: true, limits: redis}", "access.limits: found redis, but cache.redis_url"),
    ("cache: {enabled: true, backend: redis}", "cache.redis_url: missing; backend: redis needs one"),
    ("events: {dispatch: [{to: redis}]}", "events.dispatch[0].to: found redis, but cache.redis_url"),
    ("cache: {redis_url: http://a}", "cache.redis_url: it must be redis://"),
    ("cache: {redis_url: 'redis://'}", "cache.redis_url: it must be redis://"),
    ("cache: {redis_url: redis://a/b}", "cache.redis_url: it must be redis://"),
    ("cache: {redis_url: redis://a:99999}", "cache.redis_url: it must be redis://"),
    ("cache: {redis_url: localhost}", "cache.redis_url: it must be redis://"),
    ("cache: {key_prefix: 'a b'}", 'cache.key_prefix: found "a b"; accepted: '),
    ("cache: {key_prefix: ''}", 'cache.key_prefix: found ""; accepted: '),
    ("cache: {max_bytes: 0}", "cache.max_bytes: found "),
    ("cache: {default_ttl: 0}", "cache.default_ttl: found "),
    ("cache: {rules: [{}]}", "cache.rules[0].path: missing; accepted: a pattern for paths"),
    ("cache: {rules: [{path: v1}]}", 'cache.rules[0].path: found "v1"; accepted: a pattern for paths'),
    ("cache: {rules: [{path: '/a?b'}]}", "cache.rules[0].path: found "),
    (
        "cache: {rules: [{path: /, methods: [PUT]}]}",
        'cache.rules[0].methods[0]: found "PUT"; accepted: GET, HEAD or POST',
    ),
    ("cache: {rules: [{path: /, methods: []}]}", "cache.rules[0].methods: found an empty list"),
    ("cache: {rules: [{path: /, fields: ['a b']}]}", 'cache.rules[0].fields[0]: found "a b"; accepted: '),
    ("cache: {rules: [{path: /, upstream: nope}]}", 'cache.rules[0].upstream: found "nope"'),
    ("events: {bus: kafka}", 'events.bus: found "kafka"; accepted: memory'),
    ("events: {dispatch: [{}]}", "events.dispatch[0].to: missing; accepted: file, webhook, redis"),
    ("events: {dispatch: [{to: file}]}", "events.dispatch[0].path: missing; events go to a file"),
    ("events: {dispatch: [{to: webhook}]}", "events.dispatch[0].url: missing; events go to a webhook"),
    (
        "events: {dispatch: [{to: webhook, url: http://a, keep: 2}]}",
        "events.dispatch[0].keep: means nothing to: webhook; it belongs to file",
    ),
    (
        "events: {dispatch: [{to: file, path: a, url: http://a}]}",
        "events.dispatch[0].url: means nothing to: file; it belongs to webhook",
    ),
    (
        "events: {dispatch: [{to: file, path: a, headers: {x: y}}]}",
        "events.dispatch[0].headers: means nothing to: file; it belongs to webhook",
    ),
    (
        "events: {dispatch: [{to: webhook, url: http://a, max_bytes: 1MiB}]}",
        "events.dispatch[0].max_bytes: means nothing to: webhook; it belongs to file and redis",
    ),
    (
        "events: {dispatch: [{to: file, path: a, stream: s}]}",
        "events.dispatch[0].stream: means nothing to: file; it belongs to redis",
    ),
    ("events: {dispatch: [{to: webhook, url: ftp://sk-secret-1}]}", "events.dispatch[0].url: it is none"),
    ("events: {dispatch: [{to: webhook, url: 'http://[x'}]}", "events.dispatch[0].url: it is none"),
    (
        "events: {dispatch: [{to: webhook, url: http://a, headers: {'a b': c}}]}",
        'events.dispatch[0].headers."a b": found "a b"; accepted: the name of a header field',
    ),
    ("events: {dispatch: [{to: file, path: a, batch: 0}]}", "events.dispatch[0].batch: found "),
    ("events: {dispatch: [{to: file, path: a, every: 0}]}", "events.dispatch[0].every: found "),
    ('events: {dispatch: [{to: file, path: "a\\eb"}]}', "events.dispatch[0].path: found "),
    (
        "events: {dispatch: [{to: file, path: a}, {to: file, path: ./a}]}",
        "events.dispatch[1].path: events.dispatch[0].path has the same file",
    ),
    (
        "audit: {file: a}\nevents: {dispatch: [{to: file, path: a}]}",
        "events.dispatch[0].path: audit.file has the same file",
    ),
    ("access: {enabled: true}\naudit: {file: llmproxyd.db}", "audit.file: access.store has the same file"),
    ("events: {capture: {request: 65KiB}}", "events.capture.request: found 65KiB; accepted: 64KiB at most"),
    ("events: {capture: {response: 1MiB}}", "events.capture.response: found 1MiB; accepted: 256KiB at most"),
    ("events: {prices: {gpt-4o: {input: -1}}}", "events.prices.gpt-4o.input: found "),
    ("events: {prices: {gpt-4o: {in: 1}}}", "events.prices.gpt-4o.in: unknown key"),
    ("events: {prices: {gpt-4o: 3}}", "events.prices.gpt-4o: found a text; accepted: a mapping"),
    ("metrics: {listen: nope}", "metrics.listen: found "),
    ("metrics: {enabled: false, listen: 'tcp:1'}", "metrics.listen: there is nothing to show there"),
    (
        "metrics: {listen: 'tcp:8888:interface=127.0.0.1'}",
        'metrics.listen: found "tcp:8888:interface=127.0.0.1", which listen has taken',
    ),
    ("metrics: {listen: 'tcp:8888'}", "which listen has taken; accepted: another place"),
    ("admin: {listen: 'tcp6:8888:interface=::1', token: t}", "admin.listen: found "),
    (
        "metrics: {listen: 'tcp:1'}\nadmin: {listen: 'tcp:1', token: t}",
        'admin.listen: found "tcp:1", which metrics.listen has taken',
    ),
    ("admin: {listen: 'tcp:1:interface=127.0.0.1'}", "admin.token: missing; whoever reaches admin.listen"),
    ("admin: {listen: 'tcp:1'}", "admin.token: missing"),
    ("admin: {listen: 'unix:/a.sock:mode=666'}", "admin.token: missing"),
    ("admin: {listen: 'systemd:domain=UNIX:index=0'}", "admin.token: missing"),
    ("upstreams: {openai: {allow: {endpoints: [v1]}}}", 'upstreams.openai.allow.endpoints[0]: found "v1"'),
    ("upstreams: {openai: {allow: {methods: ['A B']}}}", "upstreams.openai.allow.methods[0]: found "),
    ("upstreams: {openai: {allow: {origins: [x]}}}", "upstreams.openai.allow.origins[0]: found "),
    ("upstreams: {openai: {allow: {params: {'': [x]}}}}", "accepted: the name of a parameter"),
    ("upstreams: {openai: {allow: {params: {n: ['']}}}}", "upstreams.openai.allow.params.n[0]: found "),
    (
        "upstreams: {openai: {allow: {required_headers: ['a b']}}}",
        "upstreams.openai.allow.required_headers[0]",
    ),
    ("upstreams: {openai: {flush_interval: -1}}", "upstreams.openai.flush_interval: found "),
    ("operator: {faults: maybe}", 'operator.faults: found "maybe"; accepted: true or false, or null'),
]


@pytest.mark.parametrize(
    ("text", "expected"), WRONG, ids=[f"{n}-{text}" for n, (text, _) in enumerate(WRONG)]
)
def test_a_mistake_is_told_once_with_its_line(tmp_path, text, expected):
    found = problems(tmp_path, f"\n{text}", environ={"HOME": "/h"})
    assert len(found) == 1, found
    assert expected in found[0]
    assert "hunter22" not in found[0]
    assert "sk-secret" not in found[0]
    missing = "cache.redis_url: missing" in found[0]
    assert found[0].startswith(("x.yaml:2: ", "x.yaml:3: ")) or missing


def test_what_is_switched_off_needs_no_server_and_no_key(tmp_path):
    text = f"access: {{limits: redis, store: '{POSTGRES}'}}\ncache: {{backend: redis}}"
    assert load_text(tmp_path, text, environ={}).warnings == ()


# Where things stand.


def test_relative_files_stand_beside_the_configuration(tmp_path):
    text = "audit: {file: a.jsonl}\nevents: {dispatch: [{to: file, path: e/e.jsonl}]}"
    config = load_text(tmp_path, text, environ={"HOME": "/h"})
    assert config.access.store.reveal() == f"sqlite:{tmp_path}/llmproxyd.db"
    assert config.audit.file == tmp_path / "a.jsonl"
    assert config.events.dispatch[0].path == tmp_path / "e/e.jsonl"


def test_under_systemd_they_stand_in_the_folder_that_can_be_written_to(tmp_path):
    environ = {"STATE_DIRECTORY": "/var/lib/a:/var/lib/b", "HOME": "/h"} | ON
    text = "events: {dispatch: [{to: file, path: e.jsonl}, {to: file, path: /f.jsonl}]}"
    for config in (load_text(tmp_path, text, environ=environ), load(environ=environ, providers=PROVIDERS)):
        assert config.access.store.reveal() == "sqlite:/var/lib/a/llmproxyd.db"
        assert config.audit.file == Path("/var/lib/a/audit.jsonl")
    config = load_text(tmp_path, text, environ=environ)
    assert [one.path for one in config.events.dispatch] == [Path("/var/lib/a/e.jsonl"), Path("/f.jsonl")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sqlite:a.db", "sqlite:{}/a.db"),
        ("sqlite:/a.db", "sqlite:/a.db"),
        ("sqlite:~/a.db", "sqlite:/h/a.db"),
        ("sqlite:jürgen/ä b.db", "sqlite:{}/jürgen/ä b.db"),
        (POSTGRES, POSTGRES),
    ],
)
def test_a_store_is_a_file_or_a_url(tmp_path, text, expected):
    assert store(tmp_path, text, environ={"HOME": "/h"}) == expected.format(tmp_path)


def test_what_administrators_change_is_on_record_where_access_is_on():
    assert load(environ={"HOME": "/h"}, providers=PROVIDERS).audit.file is None
    config = load(environ=ON, providers=PROVIDERS)
    assert config.audit.file == Path("/h/.local/state/llmproxyd/audit.jsonl")


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("", True),
        ("operator: {stdin: false}", True),
        ("operator: {faults: ~}", True),
        ("access: {enabled: true}", False),
        ("access: {enabled: true}\noperator: {stdin: false}", False),
        ("access: {enabled: true}\noperator: {faults: ~}", False),
        ("access: {enabled: true}\noperator: {faults: true}", True),
        ("operator: {faults: false}", False),
    ],
)
def test_faults_are_commanded_unless_customers_are_there_or_somebody_says_so(tmp_path, text, faults):
    config = load_text(tmp_path, text, environ={"HOME": "/h"})
    assert config.operator.faults is faults
    assert f"faults: {str(faults).lower()}\n" in dump(config)


# Warnings.


def test_a_key_of_an_upstream_is_not_used_where_projects_have_theirs(tmp_path):
    text = "access: {enabled: true}\nupstreams:\n  openai:\n    api_key: k\n  anthropic: {api_keys: [a, b]}\n"
    config = load_text(tmp_path, text, environ={"HOME": "/h"})
    assert [warning.replace(f"{tmp_path}/", "") for warning in config.warnings] == [
        "x.yaml:4: upstreams.openai.api_key: not used: projects hold the credentials",
        "x.yaml:5: upstreams.anthropic.api_keys: not used: projects hold the credentials",
    ]
    assert load_text(tmp_path, text.replace("true", "false")).warnings == ()


@pytest.mark.parametrize(
    ("text", "warned"),
    [
        ("resilience: {a: {}}", ["1: resilience.a: not used: no upstream names it (upstreams.NAME.resilience: a)"]),
        ("resilience: {a: {}}\nupstreams: {openai: {resilience: a}}", []),
        ("resilience: {default: {breaker: {failure_threshold: 3}}}", ["1: resilience.default.breaker: not used: enabled is not true"]),
        ("resilience: {default: {breaker: {failure_threshold: 3, enabled: true}}}", []),
        ("resilience: {default: {retry: {base_delay: 3s}}}", ["1: resilience.default.retry: not used: max_retries is 0"]),
        ("resilience: {default: {retry: {base_delay: 3s, max_retries: 1}}}", []),
        ("resilience: {default: {timeouts: {idle: 3s}}}", []),
    ],
)  # fmt: skip
def test_a_policy_that_absorbs_less_than_it_says_is_told(tmp_path, text, warned):
    config = load_text(tmp_path, text, environ={"HOME": "/h"})
    assert [warning.rpartition("x.yaml:")[2] for warning in config.warnings] == warned


@pytest.mark.parametrize(
    ("text", "warned"),
    [
        ("cache: {redis_url: redis://a}", True),
        ("cache: {redis_url: redis://a, enabled: true}", True),
        ("cache: {redis_url: redis://a, enabled: true, backend: redis}", False),
        ("cache: {redis_url: redis://a}\naccess: {enabled: true, limits: redis}", False),
        ("cache: {redis_url: redis://a}\nevents: {dispatch: [{to: redis}]}", False),
    ],
)
def test_a_redis_server_that_nobody_asks_for_is_told(tmp_path, text, warned):
    warnings = load_text(tmp_path, text, environ={"HOME": "/h"}).warnings
    assert [warning.split(": ")[1] for warning in warnings] == ["cache.redis_url"] * warned


# Endpoints.


@pytest.mark.parametrize(
    ("one", "other", "meets"),
    [
        ("tcp:1", "tcp:1", True),
        ("tcp:1", "tcp:2", False),
        ("tcp:0", "tcp:0", False),
        ("tcp:1:interface=127.0.0.1", "tcp:1:interface=127.0.0.2", False),
        ("tcp:1:interface=127.0.0.1", "tcp:interface=0.0.0.0:port=1", True),
        ("ssl:1:privateKey=a", "tcp:1", True),
        ("tcp:1", "tcp6:1", False),
        (r"tcp6:1:interface=\:\:1", "tcp6:1", True),
        ("unix:/a", "unix:/a:mode=600", True),
        ("unix:/a", "unix:address=/b", False),
        ("systemd:domain=INET:index=0", "systemd:domain=INET:index=1", False),
        ("systemd:domain=INET:index=0", "systemd:domain=INET:index=0", True),
    ],
)
def test_two_endpoints_meet_in_one_place(one, other, meets):
    assert place(one).meets(place(other)) is meets
    assert place(other).meets(place(one)) is meets


@pytest.mark.parametrize(
    ("endpoint", "alone"),
    [
        ("unix:/a:mode=600", True),
        ("unix:/a:mode=0660", True),
        ("unix:/a:mode=666", False),
        ("unix:/a:mode=602", False),
        ("unix:/a", False),
        ("unix:/a:mode=x", False),
        ("unix:/a:mode=600:mode=777", False),
        ("tcp:1:interface=127.0.0.1", False),
        (r"unix:/mode=600\:mode=600", False),
    ],
)
def test_a_socket_is_private_when_others_cannot_connect(endpoint, alone):
    assert private(endpoint) is alone


# Printed, and read again.

FULL = f"""\
access: {{enabled: true, store: '{POSTGRES}?sslpassword=geheim', secret_key: {KEY}, limits: redis}}
cache:
  enabled: true
  backend: redis
  redis_url: rediss://:pass-word@cache:6380/2
  rules: [{{path: /v1/embeddings, default_ttl: 1h}}]
events:
  dispatch:
    - {{to: file, path: e.jsonl}}
    - {{to: webhook, url: 'https://user:hunter22@hooks/T0/B0', headers: {{authorization: Bearer tok-1}}}}
    - {{to: redis}}
  prices: {{'gpt-*': {{input: 1, output: 2}}}}
admin: {{listen: 'tcp:9:interface=127.0.0.1', token: admin-1}}
metrics: {{listen: 'tcp:10:interface=127.0.0.1'}}
"""
SECRETS = ("s3cret", "geheim", KEY, "pass-word", "hunter22", "T0/B0", "tok-1", "admin-1")


def test_what_is_printed_shows_places_and_no_secrets(tmp_path):
    config = load_text(tmp_path, FULL, environ={"HOME": "/h"})
    text = dump(config)
    assert "store: postgresql://app:[redacted]@db/llm?sslpassword=[redacted]\n" in text
    assert "redis_url: rediss://:[redacted]@cache:6380/2\n" in text
    for shown in (text, repr(config), str(config)):
        assert not [secret for secret in SECRETS if secret in shown]


def test_what_is_printed_loads_again_to_the_same_but_for_secrets(tmp_path):
    config = load_text(tmp_path, FULL, environ={"HOME": "/h"})
    (tmp_path / "again").mkdir()
    again = load_text(tmp_path / "again", dump(config), environ={"HOME": "/h"})
    hidden = {
        "access": config.access,
        "cache": config.cache,
        "events": config.events,
        "admin": config.admin,
    }
    assert replace(again, **hidden) == config
    assert dump(again) == dump(config)
    assert all("holds the placeholder" in warning for warning in again.warnings)


def test_a_variable_sets_what_guards(tmp_path):
    environ = ON | {
        "LLMPROXYD_ACCESS__STORE": POSTGRES,
        "LLMPROXYD_ACCESS__SECRET_KEY": KEY,
        "LLMPROXYD_CACHE__REDIS_URL": "redis://a",
        "LLMPROXYD_CACHE__BACKEND": "redis",
        "LLMPROXYD_CACHE__ENABLED": "true",
    }
    config = load(environ=environ, providers=PROVIDERS)
    assert config.access == Access(True, config.access.store, Secret(KEY))
    assert (config.access.store.reveal(), config.cache.backend) == (POSTGRES, "redis")
    assert config.warnings == ()


def test_a_store_with_a_password_that_others_can_read_draws_a_warning(tmp_path):
    file = tmp_path / "x.yaml"
    for text, warned in ((POSTGRES, True), ("postgresql://app@db/llm", False), ("sqlite:a.db", False)):
        file.write_text(f"access: {{store: '{text}'}}")
        file.chmod(0o644)
        warnings = load(file=file, environ={}, providers=PROVIDERS).warnings
        assert bool(warnings) is warned
        assert all("holds a secret and others can read the file" in warning for warning in warnings)


def test_a_wrong_secret_in_a_variable_is_not_shown():
    with pytest.raises(ConfigError) as caught:
        load(environ={"LLMPROXYD_ACCESS__STORE": "hunter22"}, providers=PROVIDERS)
    assert "hunter22" not in str(caught.value)


def test_the_defaults_are_in_force_without_a_file():
    assert Config().access == Access()
    assert not Config().access.enabled
