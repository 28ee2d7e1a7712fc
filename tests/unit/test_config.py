"""The loader: types, layers, cross-checks and how problems are told."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from llmproxyd.config.load import ConfigError, load
from llmproxyd.config.schema import Config, FaultRule
from llmproxyd.faults.rules import Match, Share
from llmproxyd.providers.anthropic import PROVIDER as ANTHROPIC
from llmproxyd.providers.openai import PROVIDER as OPENAI
from llmproxyd.redaction import Secret

DATABRICKS = replace(
    OPENAI,
    name="databricks",
    title="Databricks",
    base_url=None,
    base_url_variable="DATABRICKS_REAL_HOST",
)
PROVIDERS = {provider.name: provider for provider in (OPENAI, ANTHROPIC, DATABRICKS)}


def load_text(folder: Path, text: str | bytes, **given: object) -> Config:
    file = folder / "x.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    file.chmod(0o600)
    return load(file=file, providers=PROVIDERS, **{"environ": {}, **given})


def problems(folder: Path, text: str | bytes, **given: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_text(folder, text, **given)
    return [str(problem).replace(str(folder) + "/", "") for problem in caught.value.problems]


def test_nothing_given_is_the_defaults_and_every_provider_with_an_address():
    config = load(environ={}, providers=PROVIDERS)
    assert config.listen == ("tcp:8888:interface=127.0.0.1", "tcp6:8888:interface=\\:\\:1")
    assert list(config.upstreams) == ["openai", "anthropic"]
    upstream = config.upstreams["openai"]
    assert (upstream.name, upstream.provider, upstream.base_url) == ("openai", "openai", OPENAI.base_url)
    assert upstream.built_in
    assert upstream.api_key is None
    assert config.source is None
    assert config.warnings == ()


def test_the_schema_needs_no_reactor():
    code = "import llmproxyd.config.load, sys; sys.exit('twisted.internet.reactor' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


VALUES = [
    ("timeouts: {connect: 250ms}", lambda c: c.timeouts.connect, 0.25),
    ("timeouts: {connect: 1m30s}", lambda c: c.timeouts.connect, 90.0),
    ("timeouts: {connect: 5}", lambda c: c.timeouts.connect, 5.0),
    ("timeouts: {connect: '5s'}", lambda c: c.timeouts.connect, 5.0),
    ("timeouts:", lambda c: c.timeouts.connect, 10.0),
    ("server: {max_body: 64KiB}", lambda c: c.server.max_body, 65536),
    ("server: {max_body: 100}", lambda c: c.server.max_body, 100),
    ("server: {open: true}", lambda c: c.server.open, True),
    ("server: {single_upstream: anthropic}", lambda c: c.server.single_upstream, "anthropic"),
    ("server: {single_upstream: ~}", lambda c: c.server.single_upstream, None),
    ("server: {single_upstream: }", lambda c: c.server.single_upstream, None),
    ("faults: {seed: -7}", lambda c: c.faults.seed, -7),
    ("faults: {mode: c 3}", lambda c: c.faults.mode, "c 3"),
    ("faults: {mode: n}", lambda c: c.faults.mode, "n"),
    ("sandbox: {tokens_per_second: 12.5}", lambda c: c.sandbox.tokens_per_second, 12.5),
    ("sandbox: {tokens_per_second: 1e2}", lambda c: c.sandbox.tokens_per_second, 100.0),
    ("logging: {level: debug}", lambda c: c.logging.level, "debug"),
    ("operator: {stdin: auto}", lambda c: c.operator.stdin, "auto"),
    ("operator: {stdin: false}", lambda c: c.operator.stdin, False),
    ("listen: ['tcp6:1:interface=::1']", lambda c: c.listen, ("tcp6:1:interface=\\:\\:1",)),
    ("listen: ['tcp6:1:interface=[::1]']", lambda c: c.listen, ("tcp6:1:interface=\\:\\:1",)),
    (
        "listen: ['tcp6:1:interface=fe80::1:backlog=5']",
        lambda c: c.listen,
        ("tcp6:1:interface=fe80\\:\\:1:backlog=5",),
    ),
    (r"listen: ['tcp6:1:interface=\:\:1']", lambda c: c.listen, ("tcp6:1:interface=\\:\\:1",)),
    ("listen: ['unix:/tmp/a.sock']", lambda c: c.listen, ("unix:/tmp/a.sock",)),
    ("listen: ['systemd:domain=INET:index=0']", lambda c: c.listen, ("systemd:domain=INET:index=0",)),
    ("routes:", lambda c: c.routes, ()),
    (
        "routes: [{path_prefix: /a/, upstream: openai, strip: true}]",
        lambda c: (c.routes[0].path_prefix, c.routes[0].strip),
        ("/a", True),
    ),
    ("routes: [{host: LLM.x:80, upstream: openai}]", lambda c: c.routes[0].host, "llm.x:80"),
    ("routes: [{header: 'X-A:  b', upstream: openai}]", lambda c: c.routes[0].header, "x-a: b"),
    ("routes: [{header: X-A, upstream: openai}]", lambda c: c.routes[0].header, "x-a"),
    (
        "upstreams: {openai: {base_url: HTTPS://LocalHost:8443/V1/}}",
        lambda c: c.upstreams["openai"].base_url,
        "https://localhost:8443/V1",
    ),
    (
        "upstreams: {openai: {base_url: 'http://[::1]:80'}}",
        lambda c: c.upstreams["openai"].base_url,
        "http://[::1]:80",
    ),
    (
        "upstreams: {other: {provider: anthropic}}",
        lambda c: (c.upstreams["other"].base_url, c.upstreams["other"].built_in, c.upstreams["other"].name),
        (ANTHROPIC.base_url, False, "other"),
    ),
    ("upstreams: {openai: }", lambda c: c.upstreams["openai"].built_in, False),
    (
        "upstreams: {openai: {allow: {origins: ['http://LOCALHOST:3000', chrome-extension://abc]}}}",
        lambda c: c.upstreams["openai"].allow.origins,
        ("http://localhost:3000", "chrome-extension://abc"),
    ),
    (
        "upstreams: {openai: {headers: {X-Team: a b}}}",
        lambda c: dict(c.upstreams["openai"].headers),
        {"X-Team": Secret("a b")},
    ),
    ("timeouts: {total: 1h}", lambda c: c.timeouts.total, 3600.0),
    ("timeouts: {first_content: }", lambda c: c.timeouts.first_content, None),
    ("server: {path_prefix: /api/v1/}", lambda c: c.server.path_prefix, "/api/v1"),
    ("server: {path_prefix: /}", lambda c: c.server.path_prefix, ""),
    ("server: {path_prefix: ''}", lambda c: c.server.path_prefix, ""),
    (
        "resilience: {default: {retry: {retry_codes: [429, 503], max_retries: 3}}}",
        lambda c: (c.resilience["default"].retry.retry_codes, c.resilience["default"].retry.max_retries),
        ((429, 503), 3),
    ),
    (
        "resilience: {a: {retry: {retry_codes: }}}",
        lambda c: c.resilience["a"].retry.retry_codes,
        None,
    ),
    (
        "resilience: {a: {retry: {retry_codes: []}}}",
        lambda c: c.resilience["a"].retry.retry_codes,
        (),
    ),
    (
        "resilience: {a: {breaker: {key: [upstream, model]}}}",
        lambda c: c.resilience["a"].breaker.key,
        ("upstream", "model"),
    ),
    (
        "resilience: {a: {timeouts: {idle: 5}}}",
        lambda c: c.resilience["a"].timeouts.over(c.timeouts).idle,
        5.0,
    ),
    (
        "resilience: {a: {}}\nupstreams: {openai: {resilience: a}}",
        lambda c: c.upstreams["openai"].resilience,
        "a",
    ),
    ("upstreams: {openai: {resilience: default}}", lambda c: c.upstreams["openai"].resilience, "default"),
    (
        "upstreams: {openai: {api_keys: [a, b]}}",
        lambda c: c.upstreams["openai"].api_keys,
        (Secret("a"), Secret("b")),
    ),
    (
        "upstreams: {a: {provider: openai, fallbacks: [{upstream: openai, models: {x: y, '*': z}}]}}",
        lambda c: (c.upstreams["a"].fallbacks[0].upstream, dict(c.upstreams["a"].fallbacks[0].models)),
        ("openai", {"x": "y", "*": "z"}),
    ),
    (
        "upstreams: {openai: {transform: [{drop: [a], paths: []}, {paths: [{match: /a/*, to: /*}]}]}}",
        lambda c: [one.paths[0].match if one.paths else one.drop for one in c.upstreams["openai"].transform],
        [("a",), "/a/*"],
    ),
    (
        "upstreams: {openai: {models_fallback: [a, 012]}}",
        lambda c: c.upstreams["openai"].models_fallback,
        ("a", "012"),
    ),
    ("error_logging: {max_files: 3}", lambda c: c.error_logging.max_files, 3),
    ("admin: {token: t}", lambda c: c.admin.token, Secret("t")),
]


@pytest.mark.parametrize(("text", "read", "value"), VALUES, ids=[text for text, _, _ in VALUES])
def test_a_value_is_read_as_the_type_of_its_key(tmp_path, text, read, value):
    found = read(load_text(tmp_path, text))
    assert found == value
    assert type(found) is type(value)


WRONG = [
    (
        "connect: 3",
        "x.yaml:1: connect: unknown key; did you mean timeouts.connect or resilience.NAME.timeouts.connect? (accepted: listen,",
    ),
    ("idle: 3", "unknown key; did you mean upstreams.NAME.pool.idle or timeouts.idle or"),
    (
        "timeouts:\n  conect: 3",
        'x.yaml:2: timeouts.conect: unknown key; did you mean "connect"? (accepted: connect, headers, first_content,',
    ),
    ("Server: {open: true}", 'did you mean "server"?'),
    (
        "timeouts: 3",
        "timeouts: found a text; accepted: a mapping with the keys connect, headers, first_content,",
    ),
    ("timeouts: []", "timeouts: found a list; accepted: a mapping"),
    ("timeouts: {connect: soon}", 'timeouts.connect: found "soon"; accepted: a duration such as'),
    ("timeouts: {connect: -1}", 'found "-1"; accepted: a duration'),
    ("timeouts: {connect: .inf}", 'found ".inf"; accepted: a duration'),
    ("timeouts: {connect: 0}", "timeouts.connect: found 0, which would end every request"),
    ("timeouts: {connect: }", "timeouts.connect: found nothing; accepted: a duration"),
    ("timeouts: {connect: {a: 1}}", "timeouts.connect: found a mapping; accepted: a duration"),
    ("server: {max_body: 64 apples}", 'server.max_body: found "64 apples"; accepted: a size such as'),
    ("server: {max_body: 0}", 'server.max_body: found "0"; accepted: a value 1 at least'),
    (f"server: {{max_body: {'9' * 400}}}", "accepted: a size"),
    ("server: {open: yes}", 'found "yes"; accepted: true or false (yes is a text)'),
    ("server: {open: on}", 'found "on"; accepted: true or false (on is a text)'),
    ("server: {open: True}", 'found "True"; accepted: true or false; did you mean "true"?'),
    ("server: {open: 1}", 'found "1"; accepted: true or false'),
    ("server: {open: 'true'}", 'found "true"; accepted: true or false (without quotes)'),
    ("faults: {seed: true}", 'found "true"; accepted: a whole number'),
    ("faults: {seed: 1.0}", 'found "1.0"; accepted: a whole number'),
    ("faults: {seed: '1'}", 'found "1"; accepted: a whole number, or null (without quotes)'),
    ("faults: {seed: 012}", 'found "012"; accepted: a whole number, or null (without leading zeros)'),
    ("faults: {seed: 1_000}", 'found "1_000"; accepted: a whole number'),
    ("faults: {seed: 0x10}", 'found "0x10"; accepted: a whole number'),
    ("faults: {seed: 1:30}", 'found "1:30"; accepted: a whole number'),
    ("sandbox: {tokens_per_second: .nan}", "accepted: a number"),
    ("sandbox: {tokens_per_second: 1e999}", "accepted: a number"),
    ("sandbox: {tokens_per_second: 0}", 'found "0"; accepted: a value above 0'),
    ("logging: {level: wran}", 'accepted: debug, info, warn, error; did you mean "warn"?'),
    ("operator: {stdin: on}", 'found "on"; accepted: auto, true or false (on is a text)'),
    ("operator: {stdin: 'true'}", "accepted: auto, true or false (without quotes)"),
    ("listen: tcp:8888", "listen: found a text; accepted: a list"),
    ("listen: []", "listen: found an empty list; accepted: at least one"),
    ("listen: ['tcp:1', 'tcp:1']", 'listen: "tcp:1" stands there twice'),
    ("listen: ['tcp:65536']", 'listen[0]: found "tcp:65536"; the port must be a whole number from 0 to'),
    ("listen: ['tcp:http']", "the port must be"),
    ("listen: [tcp]", "the port must be"),
    ("listen: ['tcp:port=-1']", "the port must be"),
    ("listen: ['tpc:1']", 'no such type of endpoint; did you mean "tcp"?'),
    ("listen: ['tcp:1:interfaec=x']", "unexpected keyword argument 'interfaec'"),
    ("listen: ['ssl:1:privateKey=/nope/key.pem']", "/nope/key.pem"),
    ("default_upstream: opnai", 'found "opnai", which is no upstream; did you mean "openai"?'),
    ("default_upstream: ''", 'found "", which is no upstream'),
    ("default_upstream: ${WHERE}", "(${…} works where a secret is expected only)"),
    (
        "default_upstream: databricks",
        "set upstreams.databricks.base_url or the environment variable DATABRICKS_REAL_HOST",
    ),
    ("server: {single_upstream: x}", 'x.yaml:1: server.single_upstream: found "x", which is no'),
    ("routes: [{path_prefix: /a, upstream: x}]", 'routes[0].upstream: found "x", which is no upstream'),
    ("routes: [{upstream: openai}]", "routes[0]: found none of them; accepted: exactly one of"),
    (
        "routes: [{path_prefix: /a, host: b, upstream: openai}]",
        "routes[0]: found path_prefix and host; accepted: exactly one of path_prefix, host, header",
    ),
    ("routes: [{host: a, upstream: openai, strip: true}]", "routes[0].strip: found true; only a"),
    ("routes: [{path_prefix: /a}]", "routes[0].upstream: missing; accepted: the name of an upstream"),
    ("routes: [{path_prefix: a, upstream: openai}]", 'accepted: a path that starts with "/"'),
    ("routes: [{path_prefix: '/a?b', upstream: openai}]", 'accepted: a path that starts with "/"'),
    ("routes: [{host: a/b, upstream: openai}]", "accepted: a host name"),
    ("routes: [{header: 'a b', upstream: openai}]", "accepted: a header field"),
    ("upstreams: {Big: {provider: openai}}", 'upstreams.Big: found "Big"; accepted: a name of lower'),
    ("upstreams: {-x: {provider: openai}}", "accepted: a name of lower case"),
    ("upstreams: {x: {base_url: http://y}}", 'upstreams.x.provider: missing, as "x" is no provider'),
    ("upstreams: {x: {provider: opnai}}", 'did you mean "openai"?'),
    ("upstreams: {x: {provider: ''}}", "upstreams.x.provider: found an empty text"),
    ("upstreams: {x: {provider: databricks}}", "upstreams.x.base_url: missing, as Databricks has no"),
    ("upstreams: {openai: {base_url: localhost:80}}", 'put "http://" or "https://" in front'),
    ("upstreams: {openai: {base_url: ftp://x}}", "accepted: an http or https URL"),
    ("upstreams: {openai: {base_url: 'http://'}}", "the host is missing"),
    ("upstreams: {openai: {base_url: 'http://x:99999'}}", "port out of range 0-65535"),
    ("upstreams: {openai: {base_url: 'http://x:0'}}", "port 0"),
    ("upstreams: {openai: {base_url: 'http://[::1'}}", "accepted: an http or https URL"),
    ("upstreams: {openai: {base_url: 'http://x/?a=b'}}", "a query or fragment"),
    ("upstreams: {openai: {base_url: 'http://x/#a'}}", "a query or fragment"),
    ("upstreams: {openai: {base_url: 'http://x y'}}", "of visible ASCII characters"),
    ("upstreams: {openai: {tls: {ca_file: nope.pem}}}", "nope.pem is missing"),
    ("upstreams: {openai: {pool: {max_idle: -1}}}", 'found "-1"; accepted: a value 0 at least'),
    ("upstreams: {openai: {allow: {origins: ['http://x/y']}}}", "accepted: an origin such as"),
    ("upstreams: {openai: {headers: {'a b': c}}}", "accepted: the name of a header field"),
    ("upstreams: {openai: {headers: {Content-Length: '1'}}}", "belongs to the connection"),
    ("upstreams: {openai: {headers: {a: b, A: c}}}", '"a" is set twice'),
    ("faults: {mode: x 3}", "faults.mode:"),
    ("faults: {mode: status}", "is no fault; accepted: n, c, r, u, error KIND"),
    ("faults: {rules: [{name: a}]}", "faults.rules[0].error: missing; accepted: one of context_length"),
    ("faults: {rules: [{name: a, error: rate_limt}]}", 'did you mean "rate_limit"'),
    ("faults: {rules: [{name: a, error: c, when: 0}]}", "never fires"),
    ("faults: {rules: [{name: a, error: c, when: 2.5}]}", "faults.rules[0].when:"),
    ("faults: {rules: [{name: a, error: c, for: 0}]}", 'faults.rules[0].for: found "0"'),
    ("faults: {rules: [{name: a, error: c, for_: 1}]}", "faults.rules[0].for_: unknown key; did you"),
    ("faults: {rules: [{name: a, error: c, upstream: q}]}", "faults.rules[0].upstream: found"),
    ("faults: {rules: [{name: a, error: c}, {name: a, error: r}]}", "faults.rules: two rules"),
    ("faults: {rules: [{name: mode, error: c}]}", 'the name "mode" is taken'),
    ("timeouts: {total: 0}", "timeouts.total: found 0, which would end every request"),
    ("timeouts: {first_content: 0}", "timeouts.first_content: found 0"),
    ("resilience: {a: {timeouts: {idle: 0}}}", "resilience.a.timeouts.idle: found 0"),
    ("resilience: {A: {}}", 'resilience.A: found "A"; accepted: a name of lower case'),
    ("resilience: {a: {retry: {retry_codes: [99]}}}", "resilience.a.retry.retry_codes: found 99"),
    ("resilience: {a: {retry: {fail_codes: [600, 400]}}}", "resilience.a.retry.fail_codes: found 600"),
    (
        "resilience: {a: {retry: {retry_codes: [4xx]}}}",
        'resilience.a.retry.retry_codes[0]: found "4xx"; accepted: a whole number',
    ),
    ("resilience: {a: {retry: {retry_codes: 429}}}", "retry_codes: found a text; accepted: a list"),
    ("resilience: {a: {retry: {jitter: half}}}", 'found "half"; accepted: full, equal, quarter, none'),
    ("resilience: {a: {retry: {max_retries: -1}}}", "resilience.a.retry.max_retries: found -1"),
    (
        "resilience: {a: {breaker: {key: [upstream, modle]}}}",
        'resilience.a.breaker.key[1]: found "modle"; accepted: upstream, model; did you mean "model"?',
    ),
    ("resilience: {a: {breaker: {key: []}}}", "resilience.a.breaker.key: found an empty list"),
    ("resilience: {a: {hard_stop: [{pattern: x}]}}", "hard_stop[0].user_message: missing; accepted: a text"),
    (
        "resilience: {a: {hard_stop: [{pattern: '(', user_message: x}]}}",
        "resilience.a.hard_stop[0].pattern: it is no regular expression",
    ),
    ("retry: {}", "retry: unknown key; did you mean resilience.NAME.retry?"),
    (
        "resilience: {patient: {}}\nupstreams: {openai: {resilience: patiant}}",
        'x.yaml:2: upstreams.openai.resilience: found "patiant", which is no policy; did you mean "patient"? '
        "(accepted: default, patient)",
    ),
    ("upstreams: {openai: {resilience: }}", "accepted: the name of a policy under resilience"),
    ("upstreams: {openai: {api_key: a, api_keys: [b]}}", "upstreams.openai.api_keys: stands beside api_key"),
    ("upstreams: {openai: {api_keys: [a, '']}}", "upstreams.openai.api_keys[1]: the secret is empty"),
    ("upstreams: {openai: {api_keys: a}}", "upstreams.openai.api_keys: found a text; accepted: a list"),
    (
        "upstreams: {openai: {fallbacks: [{upstream: openai}]}}",
        'upstreams.openai.fallbacks[0].upstream: found "openai", which is the upstream itself',
    ),
    (
        "upstreams: {openai: {fallbacks: [{upstream: anthropic}]}}",
        'fallbacks[0].upstream: found "anthropic", which speaks anthropic; accepted: an upstream that speaks '
        "openai, as openai does",
    ),
    (
        "upstreams: {openai: {fallbacks: [{upstream: opnai}]}}",
        'fallbacks[0].upstream: found "opnai", which is no upstream; did you mean "openai"?',
    ),
    (
        "upstreams: {a: {provider: openai, fallbacks: [{upstream: openai}, {upstream: openai}]}}",
        'upstreams.a.fallbacks: "openai" stands there twice',
    ),
    (
        "upstreams: {a: {provider: openai, fallbacks: [{upstream: openai, models: {a: ''}}]}}",
        'fallbacks[0].models.a: found ""; accepted: the name of a model',
    ),
    ("upstreams: {openai: {models_fallback: ['']}}", 'models_fallback[0]: found ""; accepted: the name'),
    ("upstreams: {openai: {transform: [{}]}}", "upstreams.openai.transform[0]: it changes nothing"),
    (
        "upstreams: {openai: {transform: [{set: {a: .nan}}]}}",
        "transform[0].set.a: JSON has no such number; in quotes it is a text; accepted: any JSON value",
    ),
    (
        "upstreams: {openai: {transform: [{set: {a: [1e999]}}]}}",
        "transform[0].set.a: the number is too large",
    ),
    (
        f"upstreams: {{openai: {{transform: [{{set: {{a: {'9' * 500}}}}}]}}}}",
        "a number of more than 400 digits",
    ),
    ("upstreams: {openai: {transform: [{set: [a]}]}}", "transform[0].set: found a list; accepted: a mapping"),
    ("upstreams: {openai: {transform: [{paths: [{match: /a}]}]}}", "paths[0].to: missing; accepted: a text"),
    ("server: {path_prefix: a}", 'found "a"; accepted: a path that starts with "/", such as "/api/v1"'),
    ("logging: {folder: }", "logging.folder: found nothing; accepted: the path of a folder"),
    ('logging: {folder: "a\\tb"}', "accepted: the path of a folder, of printable characters"),
    ("logging: {max_files: 0}", 'logging.max_files: found "0"; accepted: a value 1 at least'),
    ("admin: {token: ''}", "admin.token: the secret is empty"),
    ("environment: {}", "environment: unknown key"),
    ("[1, 2]", "x.yaml:1: the file must be a mapping"),
    ("hello", "x.yaml:1: the file must be a mapping"),
]


@pytest.mark.parametrize(
    ("text", "expected"),
    WRONG,
    ids=[f"{number}-{text}" for number, (text, _) in enumerate(WRONG)],
)
def test_a_wrong_value_is_reported_with_what_is_accepted(tmp_path, text, expected):
    found = problems(tmp_path, text)
    assert len(found) == 1, found
    assert expected in found[0]


def test_everything_is_reported_together_in_the_order_of_the_lines(tmp_path):
    text = "connect: 1\nserver:\n  open: maybe\n  max_body: x\ntimeouts:\n  conect: 1\ndefault_upstream: y\n"
    found = problems(tmp_path, text, environ={"LLMPROXYD_LOGGING__LEVEL": "loud"})
    assert [line.split(": ")[0] for line in found] == [
        "x.yaml:1",
        "x.yaml:3",
        "x.yaml:4",
        "x.yaml:6",
        "x.yaml:7",
        "environment LLMPROXYD_LOGGING__LEVEL",
    ]


def test_the_errors_text_is_one_line_a_problem_and_bounded(tmp_path):
    with pytest.raises(ConfigError) as caught:
        load_text(tmp_path, "".join(f"k{n}: 1\n" for n in range(300)))
    assert len(caught.value.problems) == 300
    lines = str(caught.value).splitlines()
    assert len(lines) == 101
    assert lines[-1] == "… and 200 more"


def test_an_upstream_with_a_mistake_is_not_reported_again_where_it_is_used(tmp_path):
    found = problems(
        tmp_path, "default_upstream: x\nupstreams:\n  x:\n    provider: openai\n    base_url: y\n"
    )
    assert len(found) == 1
    assert found[0].startswith("x.yaml:5: upstreams.x.base_url")


@pytest.mark.parametrize("name", ["nope.yaml", "."])
def test_a_missing_file_and_a_folder_are_reported(tmp_path, name):
    with pytest.raises(ConfigError, match=r"there is no such file|is a folder"):
        load(file=tmp_path / name, environ={}, providers=PROVIDERS)


def test_a_file_that_is_too_long_is_reported(tmp_path):
    assert "longer than 1 MiB" in problems(tmp_path, b"#" * (1024 * 1024 + 1))[0]
    load_text(tmp_path, b"#" * 1024 * 1024)


def test_layers_win_in_order(tmp_path):
    text = "logging: {level: warn}\noperator: {faults: false}\ntimeouts: {idle: 1, headers: 2}\n"
    config = load_text(
        tmp_path,
        text,
        preset="goose",
        environ={"LLMPROXYD_LOGGING__LEVEL": "error", "LLMPROXYD_TIMEOUTS__IDLE": "7"},
        overrides={("logging", "level"): ("debug", "--log-level"), ("faults", "mode"): ("c 3", "--mode")},
    )
    assert (config.logging.level, config.operator.faults, config.faults.mode) == ("debug", False, "c 3")
    assert (config.timeouts.connect, config.timeouts.headers, config.timeouts.idle) == (10, 2, 7)


def test_overrides_are_values_or_texts_and_named_in_problems(tmp_path):
    config = load(
        environ={},
        providers=PROVIDERS,
        overrides={
            ("listen",): (["tcp:1"], "--port"),
            ("operator", "stdin"): (False, "--no-stdin"),
            ("faults", "seed"): (3, "--seed"),
            ("server", "single_upstream"): (None, "--single"),
            ("upstreams", "a", "provider"): ("openai", "--upstream"),
            ("upstreams", "a", "base_url"): ("http://x", "--upstream"),
        },
    )
    assert (config.listen, config.operator.stdin, config.faults.seed) == (("tcp:1",), False, 3)
    assert config.upstreams["a"].base_url == "http://x"
    with pytest.raises(ConfigError) as caught:
        load(
            environ={},
            providers=PROVIDERS,
            overrides={("listen",): (["tcp:x"], "--port"), ("nope",): (1, "--nope")},
        )
    assert [problem.source for problem in caught.value.problems] == ["--nope", "--port"]


def test_a_list_of_a_stronger_layer_replaces_the_weaker_one(tmp_path):
    config = load_text(tmp_path, "listen: ['tcp:1', 'tcp:2']", overrides={("listen",): (["tcp:3"], "--port")})
    assert config.listen == ("tcp:3",)


def test_an_unknown_preset_is_reported_with_a_near_one():
    with pytest.raises(
        ConfigError, match=r'--preset: found "gose".*did you mean "goose"\? \(accepted: .*goose'
    ):
        load(preset="gose", environ={}, providers=PROVIDERS)


@pytest.mark.parametrize(
    ("value", "url"),
    [
        ("adb-1.azuredatabricks.net", "https://adb-1.azuredatabricks.net"),
        ("https://adb-1.azuredatabricks.net/", "https://adb-1.azuredatabricks.net"),
        ("http://localhost:1", "http://localhost:1"),
    ],
)
def test_a_provider_without_address_gets_one_from_its_variable(tmp_path, value, url):
    config = load_text(
        tmp_path,
        "default_upstream: databricks\nupstreams: {x: {provider: databricks}}",
        environ={"DATABRICKS_REAL_HOST": value},
    )
    assert config.upstreams["databricks"].base_url == url
    assert config.upstreams["databricks"].built_in
    assert config.upstreams["x"].base_url == url


def test_a_wrong_address_in_a_variable_names_the_variable():
    with pytest.raises(ConfigError, match=r"environment DATABRICKS_REAL_HOST: "):
        load(environ={"DATABRICKS_REAL_HOST": "a b"}, providers=PROVIDERS)


def test_a_default_that_does_not_exist_is_reported_as_a_default():
    with pytest.raises(ConfigError, match="default: default_upstream: "):
        load(environ={}, providers={"anthropic": ANTHROPIC})


def test_relative_paths_stand_against_the_files_folder_or_the_state_folder(tmp_path):
    (tmp_path / "ca.pem").write_text("x")
    text = "upstreams: {openai: {tls: {ca_file: ca.pem}}}"
    assert load_text(tmp_path, text).upstreams["openai"].tls.ca_file == tmp_path / "ca.pem"
    config = load(
        environ={"STATE_DIRECTORY": f"{tmp_path}:/other"},
        overrides={("upstreams", "openai", "tls", "ca_file"): ("ca.pem", "--ca")},
        providers=PROVIDERS,
    )
    assert config.upstreams["openai"].tls.ca_file == tmp_path / "ca.pem"
    assert config.state_folder == tmp_path
    home = load_text(
        tmp_path, "upstreams: {openai: {tls: {ca_file: ~/ca.pem}}}", environ={"HOME": str(tmp_path)}
    )
    assert home.upstreams["openai"].tls.ca_file == tmp_path / "ca.pem"


@pytest.mark.parametrize(
    ("logs", "errors"),
    [("logs", "logs/errors"), ("a", "a/b"), ("/x/logs", "/y")],
)
def test_folders_of_logs_stand_beside_the_file_or_in_systemds_or_the_states_folder(tmp_path, logs, errors):
    text = f"logging: {{folder: {logs}}}\nerror_logging: {{folder: {errors}}}"
    environ = {"STATE_DIRECTORY": "/s", "LOGS_DIRECTORY": "/l:/other"}
    config = load_text(tmp_path, text, environ=environ)
    assert (config.logging.folder, config.error_logging.folder) == (tmp_path / logs, tmp_path / errors)
    given = {
        "LLMPROXYD_LOGGING__FOLDER": logs,
        "LLMPROXYD_ERROR_LOGGING__FOLDER": errors,
    }
    config = load(environ={"STATE_DIRECTORY": "/s", **given}, providers=PROVIDERS)
    state = Path("/s")
    assert (config.logging.folder, config.error_logging.folder) == (state / logs, state / errors)


@pytest.mark.parametrize(
    ("text", "folder"),
    [
        (None, "/l"),
        ("logs", "/l"),
        ("logs/errors", "/l/errors"),
        ("errors", "/l/errors"),
        ("/x", "/x"),
        ("~/x", "/h/x"),
    ],
)
def test_systemds_folder_for_logs_is_what_logs_means(text, folder):
    environ = {"STATE_DIRECTORY": "/s", "LOGS_DIRECTORY": "/l:/other", "HOME": "/h"}
    if text is not None:
        environ["LLMPROXYD_LOGGING__FOLDER"] = text
    config = load(environ=environ, providers=PROVIDERS)
    assert config.logging.folder == Path(folder)
    assert config.error_logging.folder == Path("/l/errors")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("012", 12),
        ("0x1F", 31),
        ("0o17", 15),
        ("-1.50", -1.5),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("true", True),
        ("False", False),
        ("yes", "yes"),
        ("null", None),
        ("~", None),
        ("", None),
        ("'null'", "null"),
        ("'1'", "1"),
        ("1:30", "1:30"),
        ("2001-01-01", "2001-01-01"),
        ("1_000", "1_000"),
        ("'${HOME}'", "${HOME}"),
        ("[1, '1', {a: [x, null]}]", [1, "1", {"a": ["x", None]}]),
        ("{1: 2}", {"1": 2}),
        ("[]", []),
        ("{}", {}),
    ],
)
def test_a_json_value_is_read_by_the_core_rules_of_yaml(tmp_path, text, value):
    text = f"upstreams: {{openai: {{transform: [{{default: {{x: {text}}}}}]}}}}"
    found = load_text(tmp_path, text).upstreams["openai"].transform[0].default["x"]
    assert repr(found) == repr(value)


@pytest.mark.parametrize(
    ("environ", "folder"),
    [
        ({"STATE_DIRECTORY": "/var/lib/llmproxyd", "HOME": "/h"}, "/var/lib/llmproxyd"),
        ({"XDG_STATE_HOME": "/s", "HOME": "/h"}, "/s/llmproxyd"),
        ({"XDG_STATE_HOME": "s", "HOME": "/h"}, "/h/.local/state/llmproxyd"),
        ({"HOME": "/h"}, "/h/.local/state/llmproxyd"),
    ],
)
def test_the_state_folder_is_systemds_or_that_of_xdg(environ, folder):
    assert load(environ=environ, providers=PROVIDERS).state_folder == Path(folder)


def test_a_fault_rule_becomes_the_rule_that_the_choice_works_with(tmp_path):
    text = "faults: {rules: [{name: a, error: overloaded, when: 30%, for: 1m, model: gpt*, stream: true}]}"
    (written,) = load_text(tmp_path, text).faults.rules
    rule = written.rule()
    assert (rule.name, rule.kind, rule.when, rule.lasts) == ("a", "overloaded", Share(0.3), 60.0)
    assert rule.match == Match(model="gpt*", streaming=True)


def test_a_count_and_a_share_are_told_apart_by_their_text(tmp_path):
    text = "faults: {rules: [{name: a, error: c, when: 1}, {name: b, error: c, when: 1.0}]}"
    rules = load_text(tmp_path, text).faults.rules
    assert [rule.when for rule in rules] == ["1", "1.0"]
    assert rules[0].rule().when != rules[1].rule().when


def test_a_rule_without_when_hits_every_request():
    assert FaultRule(name="a", error="c").when == "*"
